"""The API and the console without a worker: the operators in force and the time are looked after by itself."""

import asyncio
import signal
import time
from contextlib import suppress

from dispatcher import __version__
from dispatcher.config import Config
from dispatcher.frontage import Frontage
from dispatcher.ground.errors import DispatcherError, Refused, StoreUnavailable
from dispatcher.metrics import State
from dispatcher.roster import Roster, load, open_vault, provision
from dispatcher.store import journal
from dispatcher.store.engine import Database
from dispatcher.store.operators import latest_revision
from dispatcher.telemetry import Log
from dispatcher.tracing import open_traces
from dispatcher.web import Api

# How often it is looked whether somebody has changed an operator, and what time it is at the server.
LOOK_SECONDS = 1.0
# So long may a look take, or what comes in wait, before this is not ready any more.
STUCK_SECONDS = 15.0
_UNFIT = "change its settings by what each fault says; its events wait"


class Alone:
    """What the daemon has in passing, and this has to look after by itself. `actor` stands for what it declares."""

    def __init__(self, config: Config, database: Database, log: Log, actor: str) -> None:
        self._config = config
        self._database = database
        self._log = log
        self._clock = database.clock()
        self._vault = open_vault(config, database)
        provision(database, self._vault, config, self._clock.now(), actor=actor, only_new=True)
        journal.begin(database, self._clock.now())
        self._away: str | None = None
        self._api: Api | None = None
        self._seen_at = time.monotonic()
        self._roster = Roster({}, {}, -1)
        self._look()

    def _look(self) -> None:
        self._database.set_clock()
        with self._database.reading() as connection:
            revision = latest_revision(connection)
        if revision != self._roster.revision:
            self._roster = load(self._database, self._vault, self._config, self._roster.members)
            for name, fault in self._roster.faults.items():
                self._log.error("operator_unfit", operator=name, faults=fault.splitlines(), mend=_UNFIT)

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self._look)
                self._away, self._seen_at = None, time.monotonic()
            except DispatcherError as error:
                if self._away is None:
                    self._log.warning("store_away", fault=str(error))
                self._away = str(error)

    def not_ready(self) -> dict[str, str]:
        faults = {} if self._away is None else {"database": self._away}
        if self._away is None and self._unseen > STUCK_SECONDS:
            faults["database"] = f"it has not answered for {self._unseen:.0f} s"
        for name in self._roster.faults:
            faults[f"operator {name}"] = "its settings can't be used; the log says why"
        return faults | (self._api.stuck(STUCK_SECONDS) if self._api is not None else {})

    def checks(self) -> dict[str, str]:
        return {"database": f"it answered {self._unseen:.1f} s ago", "operators": "ok", "api": "ok"}

    @property
    def _unseen(self) -> float:
        return time.monotonic() - self._seen_at

    def state(self) -> State:
        return State.of(self.checks(), self.not_ready())

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT."""
        config, ended = self._config, asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        # There is nothing to reload; by default it would end the process.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        traces = open_traces(config.traces, __version__, lambda told: self._log.warning("traces_not_sent", told=told))
        front = Frontage(
            self._database,
            self._clock,
            config.web,
            lambda: self._roster,
            self._vault.lock,
            self._log,
            self,
            traces=traces,
        )
        self._api = front.api
        looking = asyncio.create_task(self._looking())
        async with front.open() as url:
            told = {"database": str(config.database), "operators": len(self._roster.operators)}
            self._log.info("serving", web=url, worker=False, **told)
            await ended.wait()
        looking.cancel()
        if traces is not None:
            traces.close()
        with suppress(StoreUnavailable, Refused):
            await front.api.doorman.note()
        self._log.info("stopped")
