"""The daemon: builds every room, runs until it is told to stop, closes what it opened."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from dispatcher.broom import SWEEP_SECONDS, Broom
from dispatcher.clock import Clock
from dispatcher.config import Config, load_config
from dispatcher.console import Desk, routes
from dispatcher.dispatch import Attempts, Dispatch, Lane
from dispatcher.dispatch.minutes import Minutes
from dispatcher.dispatch.pulse import Pulse
from dispatcher.ear import Ear
from dispatcher.errors import DispatcherError, Refused, StoreUnavailable
from dispatcher.roster import Member, Roster, load, open_vault, provision
from dispatcher.rounds import Rounds
from dispatcher.seal import Seal
from dispatcher.store import journal, workers
from dispatcher.store.engine import Database, open_database
from dispatcher.store.line import let_dead_leave
from dispatcher.telemetry import Log
from dispatcher.tls import tls_context
from dispatcher.web import Api, application, bind, serving
from dispatcher.wire import Grant, PinnedTransport, Resolver, Transport, Wire

STUCK_SECONDS = 15.0
# What is done by hand is in the log so soon at the latest.
HEAD_SECONDS = 60.0
# For another's lock on the store; then /readyz and the log say so, and the corridor tries again by itself.
PATIENCE_SECONDS = 1.0
# For a server's answer: less than the others wait for a beat.
SILENCE_SECONDS = 4.0
# Settings that only a start reads.
_FIXED = ("database", "web", "log_format", "log_level", "master_key", "former_master_key")


class Daemon:
    """One worker on a store. `transport` replaces the network, for tests of everything above it."""

    def __init__(
        self, config: Config, log: Log, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        self.config = config
        self.log = log
        self.database: Database = open_database(config.database, patience=PATIENCE_SECONDS, silence=SILENCE_SECONDS)
        self._started = config
        self._transport = transport
        self._resolver = Resolver()
        self._retired: list[Transport] = []
        self._running: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        try:
            self.database.occupy()
            self.clock = clock or self.database.clock()
            self.rounds = Rounds(self.clock, log)
            # Operators are written here: not before it is sure that this may work on the database.
            self._vault = open_vault(config, self.database)
            self._provision(config)
            if self.database.notary is not None:
                journal.begin(self.database, self.database.notary, self.clock.now())
            self._head = journal.Head(0, b"")
            attempts = Attempts(Wire(self.clock), self.clock, self._vault.unlock)
            self.dispatch = Dispatch(self.database, attempts, self.clock, log, config.concurrency, self.rounds.arm)
            self.dispatch.refresh = self._refresh
            self.broom = Broom(self.dispatch.store, self.database, self.clock, log, config.retention)
            self.minutes = Minutes(self.dispatch, self.database, self.clock, log)
            self._roster = Roster({}, {}, 0)
            self._enrol(self._load())
        except DispatcherError:
            self.database.close()
            raise

    def _provision(self, config: Config) -> None:
        changed = provision(self.database, self._vault, config, self.clock.now(), actor="file")
        declared = [name for name in changed if name in config.documents]
        if changed:
            gone = [name for name in changed if name not in declared]
            self.log.info("operators_declared", operators=declared, gone=gone)

    def _load(self) -> Roster:
        roster = load(self.database, self._vault, self.config, self._roster.members)
        let_dead_leave(self.database, [name for name, one in roster.operators.items() if not one.blocks])
        return roster

    async def _refresh(self, _revision: int) -> None:
        """Somebody changed an operator: from now on it goes by the new settings."""
        self._enrol(await self.dispatch.store(self._load))
        await self._tell_head()
        retired, self._retired = self._retired, []
        for transport in retired:
            # What is under way on it ends; what rests is closed.
            await transport.aclose()

    async def _tell_head(self) -> None:
        """The journal's head goes into the log, which is kept elsewhere: so `audit` finds an end that was cut off."""
        head = await self.dispatch.store(journal.read_head, self.database)
        if head != self._head:
            self._head = head
            self.log.info("journal", head=str(head))

    def _tell_head_soon(self) -> None:
        self._soon(self._tell_head())

    def _enrol(self, roster: Roster) -> None:
        """Puts operators into their lanes; attempts under way end with the settings that they began with."""
        lanes: dict[str, Lane] = {}
        for name, member in roster.members.items():
            lane, before = self.dispatch.lanes.get(name), self._roster.members.get(name)
            if lane is None:
                lane = self._lane(member)
            elif before is None or before.operator is not member.operator:
                self._retired.append(lane.transport)
                lane.take(self._lane(member))
            released = lane.stand(member.standing)
            if released:
                self.dispatch.let_go(name)
            lanes[name] = lane
        self._retired += [lane.transport for name, lane in self.dispatch.lanes.items() if name not in lanes]
        for name, fault in roster.faults.items():
            if self._roster.faults.get(name) != fault:
                self.log.error("operator_unfit", operator=name, faults=fault.splitlines(), mend="its deliveries wait")
        for name in lanes.keys() & self._roster.members.keys():
            told = _told(self._roster.members[name], roster.members[name])
            if told:
                self.log.info("operator_changed", operator=name, **told)
        self.dispatch.lanes, self._roster, self.dispatch.revision = lanes, roster, roster.revision
        self._operators = roster.operators
        self.dispatch.unfit = roster.faults.keys()

    def _lane(self, member: Member) -> Lane:
        operator = member.operator
        context = tls_context(operator.tls) if operator.tls else None
        pinned = PinnedTransport(self._resolver, self.config.allow, operator.connect_timeout, context)
        transport = self._transport or pinned
        return Lane(
            operator,
            Seal(operator.reading) if operator.reading else None,
            transport,
            Grant(transport, operator.oauth) if operator.oauth else None,
            member.standing.key_version,
        )

    async def reload(self, path: Path) -> None:
        """Read the configuration again (SIGHUP). A faulty one is reported and leaves the old one in force.

        Operators change at once, for attempts that begin from now on; the rest wants a restart, and is named.
        """
        async with self._reloading:
            await self._reload(path)

    async def _reload(self, path: Path) -> None:
        try:
            new = load_config(path)
            await self.dispatch.store(self._provision, new)
        except DispatcherError as error:
            self.log.error("reload_refused", faults=str(error).splitlines(), kept="the old configuration")
            return
        fixed = [name for name in _FIXED if getattr(new, name) != getattr(self._started, name)]
        if fixed:
            self.log.warning("reload_needs_restart", settings=fixed)
        self.config = new
        self.dispatch.concurrency = new.concurrency
        self.broom.keep = new.retention
        await self._refresh(0)
        self.dispatch.look()
        self.log.info("reloaded", operators=len(self._roster.members))

    async def run(self) -> None:
        """Until SIGTERM or SIGINT: no new claims then, what is in flight ends and is settled.

        A second signal gives up at once: raises CancelledError, and what was held is rescued by the next start.
        """
        self._running = asyncio.current_task()
        try:
            async with contextlib.AsyncExitStack() as stack:
                web = await stack.enter_async_context(self._serving())
                ear = Ear(self.database.bell, self.dispatch.look, self.log)
                await stack.enter_async_context(ear.listening())
                self._obey_signals()
                await self.dispatch.store(workers.enter, self.database)
                # What those left behind who are gone by now; on a file that is everybody who was here before.
                await self.dispatch.rescue(self.clock.now() - self.config.lease)
                self.rounds.every(SWEEP_SECONDS, "sweep", self.broom.round)
                self.rounds.every(HEAD_SECONDS, "journal", self._tell_head_soon)
                self.rounds.start(self.dispatch.look, self._rescue)
                stack.callback(self.broom.stop)
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
                self.log.info("running", web=web, **self._told())
                await self._tell_head()
                await self.dispatch.run()
            await self._leave()
            self.log.info("stopped", in_flight=0)
        finally:
            await self.close()

    def not_ready(self) -> dict[str, str]:
        """What keeps this worker from delivering, or from noting what it does; empty when nothing does."""
        faults = {}
        if self.dispatch.outage.fault is not None:
            faults["database"] = self.dispatch.outage.fault
        if self.dispatch.own_fault is not None:
            faults["network"] = self.dispatch.own_fault
        if self.dispatch.unnoted is not None:
            faults["journal"] = self.dispatch.unnoted
        for name in self._roster.faults:
            faults[f"operator {name}"] = "its settings can't be used; the log says why"
        if not self.rounds.scheduler.running:
            faults["scheduler"] = "not running"
        stuck = time.monotonic() - self.dispatch.turned_at
        if stuck > STUCK_SECONDS:
            faults["worker"] = f"the claim loop has not gone round for {stuck:.0f} s"
        return faults

    def _rescue(self) -> None:
        self.dispatch.rescue_soon(self.clock.now() - self.config.lease)

    def _told(self) -> dict[str, object]:
        return {
            "database": str(self.config.database),
            "operators": len(self._roster.members),
            "concurrency": self.config.concurrency,
        }

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[str]:
        if self.config.listen is None:
            yield "off"
            return
        bound = bind(self.config.listen)
        web = self.config.web
        api = Api(self.database, self.clock, web, lambda: self._operators, self._vault.lock, self.log)
        desk = Desk(self.database, self.clock, api.ask, lambda: self._operators, self.not_ready, self.log)
        async with api.working(), serving(bound, application(self.not_ready, api, routes(desk)), web) as url:
            yield url

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
        self._stopping = True
        self.log.info("stopping", signal=name, in_flight=self.dispatch.in_flight)
        self.dispatch.stop()

    async def close(self) -> None:
        for transport in [*self._retired, *(lane.transport for lane in self.dispatch.lanes.values())]:
            await transport.aclose()
        self.database.close()

    async def _leave(self) -> None:
        """All is settled. Where the database is away, the others find out by themselves."""
        with contextlib.suppress(StoreUnavailable, Refused):
            await asyncio.to_thread(self.minutes.write_rest)
        with contextlib.suppress(StoreUnavailable):
            await asyncio.to_thread(workers.leave, self.database)


def _told(before: Member, after: Member) -> dict[str, object]:
    """What a person would want to know of a change: new settings or a new key, paused or not; nothing of secrets."""
    told: dict[str, object] = {}
    if before.operator is not after.operator:
        told["settings"] = "changed"
    if before.standing.key_version != after.standing.key_version:
        told["key_version"] = after.standing.key_version
    if (before.standing.paused_at is None) != (after.standing.paused_at is None):
        told["paused"] = after.standing.paused_at is not None
    return told
