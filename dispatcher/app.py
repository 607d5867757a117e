"""The daemon: builds every room, runs until it is told to stop, closes what it opened."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from dispatcher import __version__
from dispatcher.broom import SWEEP_SECONDS, Broom
from dispatcher.config import Config, load_config
from dispatcher.dispatch import Attempts, Dispatch
from dispatcher.dispatch.minutes import Minutes
from dispatcher.dispatch.pulse import Pulse
from dispatcher.ear import Ear
from dispatcher.enrolment import Enrolment
from dispatcher.frontage import Frontage
from dispatcher.ground.clock import SECOND, Clock, duration_text
from dispatcher.ground.errors import DispatcherError, Refused, StoreUnavailable
from dispatcher.ground.operator import NOTIFY
from dispatcher.health import Health
from dispatcher.pacer import LOOK_SECONDS, Pacer
from dispatcher.roster import Roster, open_vault
from dispatcher.rounds import Rounds
from dispatcher.store import fingerprints, journal, workers
from dispatcher.store.engine import Database, open_database
from dispatcher.summaries import ROUND_SECONDS, Summaries
from dispatcher.supervisor import Supervisor
from dispatcher.telemetry import Log
from dispatcher.tracing import open_traces
from dispatcher.wire import Transport, Wire

# What is done by hand is in the log so soon at the latest.
HEAD_SECONDS = 60.0
# How often a sign of life is looked for, for whoever started us.
SIGN_SECONDS = 1.0
# For another's lock on the store; then /readyz and the log say so, and the corridor tries again by itself.
PATIENCE_SECONDS = 1.0
# For a server's answer: less than the others wait for a beat.
SILENCE_SECONDS = 4.0
# Settings that only a start reads.
_FIXED = ("database", "web", "log_format", "log_level", "traces", "master_key", "former_master_key")


class Daemon:
    """One worker on a store. `transport` replaces the network, for tests of everything above it."""

    def __init__(
        self,
        config: Config,
        log: Log,
        clock: Clock | None = None,
        transport: Transport | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.config = config
        self.log = log
        self.supervisor = supervisor or Supervisor(None)
        self.database: Database = open_database(config.database, patience=PATIENCE_SECONDS, silence=SILENCE_SECONDS)
        self._started = config
        self._running: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        try:
            self.database.occupy()
            self.clock = clock or self.database.clock()
            self.rounds = Rounds(self.clock, log)
            self._vault = open_vault(config, self.database)
            attempts = Attempts(Wire(self.clock), self.clock, self._vault.unlock)
            self.dispatch = Dispatch(self.database, attempts, self.clock, log, config.concurrency, self.rounds.arm)
            self.enrolment = Enrolment(config, self.database, self._vault, self.dispatch, self.clock, log, transport)
            # Operators are written here: not before it is sure that this may work on the database.
            self.enrolment.provision(config)
            self._begin_books()
            self._head = journal.Head(0, b"")
            self.dispatch.refresh = self._refresh
            self.health = Health(self.dispatch, self.rounds, lambda: self.enrolment.roster)
            self.dispatch.traces = open_traces(config.traces, __version__, self._traces_tell)
            self.broom = Broom(self.dispatch.store, self.database, self.clock, log, config.retention)
            self.minutes = Minutes(self.dispatch, self.database, self.clock, log)
            self.pacer = Pacer(self.dispatch.beside, self.database, self.clock, log)
            told_of = (self.health.failing, lambda: self.enrolment.roster.notifications)
            self.summaries = Summaries(self.dispatch.store, self.database, self.clock, log, *told_of)
            self.summaries.keep, self.summaries.console = config.retention, config.web.url
            self._take(self.enrolment.load())
        except DispatcherError:
            self.database.close()
            raise

    def _begin_books(self) -> None:
        """What an upgrade could not do, for it has not the master key."""
        journal.begin(self.database, self.clock.now())
        fingerprints.hide_plain(self.database, self.clock.now())

    async def _refresh(self, _revision: int) -> None:
        """Somebody changed an operator: from now on it goes by the new settings."""
        self._take(await self.dispatch.store(self.enrolment.load))
        await self._tell_head()
        await self.enrolment.retire()

    def _take(self, roster: Roster) -> None:
        self.enrolment.take(roster)
        if roster.notifications and not self.summaries.begun:
            # Whoever tells nobody anything pays for no round.
            self.summaries.begun = True
            self.rounds.every(ROUND_SECONDS, "summaries", self.summaries.round)

    async def _tell_head(self) -> None:
        """The journal's head goes into the log, which is kept elsewhere: so `audit` finds an end that was cut off."""
        head = await self.dispatch.store(journal.read_head, self.database)
        if head != self._head:
            self._head = head
            self.log.info("journal", head=str(head))

    def _tell_head_soon(self) -> None:
        self._soon(self._tell_head())

    async def reload(self, path: Path) -> None:
        """Read the configuration again (SIGHUP). A faulty one is reported and leaves the old one in force.

        Operators change at once, for attempts that begin from now on; the rest wants a restart, and is named.
        """
        async with self._reloading:
            self.supervisor.reloading()
            try:
                await self._reload(path)
            finally:
                self.supervisor.ready()

    async def _reload(self, path: Path) -> None:
        try:
            new = load_config(path)
            await self.dispatch.store(self.enrolment.provision, new)
        except DispatcherError as error:
            told = str(error).splitlines()
            self.log.error(
                "reload_refused", faults=told, kept="the old configuration", mend="mend each, and reload again"
            )
            return
        fixed = [name for name in _FIXED if getattr(new, name) != getattr(self._started, name)]
        if fixed:
            self.log.warning("reload_needs_restart", settings=fixed)
        self.config = self.enrolment.config = new
        self.dispatch.concurrency = new.concurrency
        self.broom.keep = self.summaries.keep = new.retention
        await self._refresh(0)
        self.dispatch.look()
        self.log.info("reloaded", operators=len(self.enrolment.roster.members))

    async def run(self) -> None:
        """Until SIGTERM or SIGINT: no new claims then, what is in flight ends and is settled.

        A second signal gives up at once: raises CancelledError, and what was held is rescued by the next start.
        """
        self._running = asyncio.current_task()
        try:
            async with contextlib.AsyncExitStack() as stack:
                web = await stack.enter_async_context(self._serving())
                ear = Ear(self.database.bell, self.dispatch.look, self.dispatch.feed, self.log)
                await stack.enter_async_context(ear.listening())
                self._obey_signals()
                await self.dispatch.store(workers.enter, self.database)
                # What those left behind who are gone by now; on a file that is everybody who was here before.
                await self.dispatch.rescue(self.clock.now() - self.config.lease)
                self.rounds.every(SWEEP_SECONDS, "sweep", self.broom.round)
                self.rounds.every(LOOK_SECONDS, "replays", self.pacer.round)
                self.rounds.every(HEAD_SECONDS, "journal", self._tell_head_soon)
                self.rounds.start(self.dispatch.look, self._rescue, self.dispatch.fell_due)
                stack.callback(self.broom.stop)
                stack.callback(self.pacer.stop)
                stack.callback(self.summaries.stop)
                stack.callback(self.rounds.stop)
                watch = asyncio.create_task(self.rounds.watch())
                stack.callback(watch.cancel)
                if not isinstance(self.config.database, Path):
                    pulse = Pulse(self.dispatch, self.database, self._rescue, self.log)
                    await pulse.beat()
                    beating = asyncio.create_task(pulse.beating())
                    stack.callback(beating.cancel)
                writing = asyncio.create_task(self.minutes.writing())
                stack.callback(writing.cancel)
                self.log.info("running", **web, **self._told())
                self.supervisor.ready()
                if self.supervisor.listens:
                    show = partial(self.health.show_life, self.supervisor)
                    self.rounds.every(SIGN_SECONDS, "supervisor", show)
                    show()
                await self._tell_head()
                await self.dispatch.run()
            await self._leave()
            self.log.info("stopped", in_flight=0)
        finally:
            await self.close()

    def not_ready(self) -> dict[str, str]:
        return self.health.not_ready()

    def _rescue(self) -> None:
        self.dispatch.rescue_soon(self.clock.now() - self.config.lease)

    def _told(self) -> dict[str, object]:
        return {
            "version": __version__,
            "database": str(self.config.database),
            "operators": len(self.enrolment.roster.operators),
            "notifications": [name.removeprefix(NOTIFY) for name in self.enrolment.roster.notifications],
            "concurrency": self.config.concurrency,
            "lease_seconds": self.config.lease // SECOND,
            "retention": "never" if self.config.retention is None else duration_text(self.config.retention),
            "egress_allow": [str(network) for network in self.config.allow],
            "watchdog_seconds": self.supervisor.watchdog,
            "process": os.getpid(),
        }

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[dict[str, object]]:
        """Where, and the first parts of the paths that are served there."""
        if self.config.listen is None:
            yield {"web": "off", "paths": []}
            return
        front = Frontage(
            self.database,
            self.clock,
            self.config.web,
            lambda: self.enrolment.roster,
            self._vault.lock,
            self.log,
            self.health,
            self.dispatch.figures,
            self.dispatch.traces,
        )
        self.health.api = front.api
        async with front.open() as url:
            yield {"web": url, "paths": front.paths}

    def _obey_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)

    def _reload_soon(self) -> None:
        self._soon(self.reload(self.config.path))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self, name: str) -> None:
        if self._stopping and self._running is not None:
            # Somebody is out of patience, with an operator or with the store: what is held is found at the next start.
            self.log.warning("given_up", signal=name, in_flight=self.dispatch.in_flight)
            self._running.cancel()
            return
        self._stopping = self.health.stopping = True
        self.supervisor.stopping()
        self.log.info("stopping", signal=name, in_flight=self.dispatch.in_flight)
        self.dispatch.stop()

    def _traces_tell(self, told: str) -> None:
        self.log.warning("traces_not_sent", told=told)

    async def close(self) -> None:
        if self.dispatch.traces is not None:
            await asyncio.to_thread(self.dispatch.traces.close)
        await self.enrolment.close()
        self.database.close()

    async def _leave(self) -> None:
        """All is settled. Where the database is away, the others find out by themselves."""
        with contextlib.suppress(StoreUnavailable, Refused):
            await asyncio.to_thread(self.minutes.write_rest)
        with contextlib.suppress(StoreUnavailable):
            await asyncio.to_thread(workers.leave, self.database)
