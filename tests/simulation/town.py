"""One world put together: the store and how it fails, its workers and who starts them again, and their story."""

import json
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, cast
from unittest.mock import patch

import dispatcher.app
from dispatcher import roster
from dispatcher.app import Daemon
from dispatcher.config import Config, Draft, draft_operator
from dispatcher.ground.clock import HOUR, MILLISECOND, SECOND
from dispatcher.ground.errors import DispatcherError, StoreUnavailable
from dispatcher.seal.vault import Vault
from dispatcher.store import workers
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log
from tests.simulation.books import found
from tests.simulation.invariants import Watch
from tests.simulation.loop import Process, World
from tests.simulation.machine import Fault, Machine, Memory
from tests.simulation.operators import MOODS, Network, Operators
from tests.simulation.rows import Seen
from tests.simulation.settings import NAMES, VARIANTS, configuration
from tests.simulation.storm import WEATHER, Storm
from tests.simulation.street import Street

STORM = 20 * SECOND
# Once all is well: what is due must be on its way after so long; and all of it be finished so long after the storm.
SETTLING = 25 * SECOND
LONGEST = 400 * SECOND


class _Log:
    """A log whose only reader is the watch: a bug that was caught and told is a bug."""

    def __init__(self, town: "Town", process: Process) -> None:
        self._town = town
        self._process = process

    def info(self, event: str, **values: Any) -> None:
        """Of no account here."""

    debug = info

    def warning(self, event: str, **values: Any) -> None:
        if not self._process.dead:
            self._town.world.tell(self._process, f"{event} {values.get('key', '')} {values.get('operator', '')}")

    def error(self, event: str, **values: Any) -> None:
        if event not in ("store_unavailable",):
            self._town.blame_log(self._process, event, values)

    def exception(self, event: str, **values: Any) -> None:
        self._town.blame_log(self._process, event, values)


class Town:
    """All that one seed gives."""

    def __init__(self, seed: int, memory: Memory) -> None:
        self.seed = seed
        self.world = Machine.world = World(seed)
        self.memory = memory
        chance = self.chance = self.world.chance
        self.shared = chance.random() < 0.35
        self.variant = chance.randrange(VARIANTS)
        self.generations = [0] * len(NAMES)
        self.weather = {one for one in WEATHER if chance.random() < 0.4}
        self.storm_ends = chance.randrange(5 * SECOND, STORM)
        # Of so many calls to the store one fails.
        self.faults = chance.choice((0.02, 0.05, 0.15, 0.3))
        memory.empty()
        memory.lost_rings = 0.5 if "bells" in self.weather else 0.0
        self.operators = Operators(self.world)
        config = self.config
        for name, operator in config.operators.items():
            self.operators.history[name] = [operator]
            self.operators.moods[name] = "well"
        self.names = list(config.operators)
        current, _ = roster.given_keys(config)
        assert current is not None
        vault = Vault(current)
        self.watch = Watch(self.world, memory.link, self.operators, config.operators, config.concurrency, vault)
        self.watch.windows.clocks = 2 if self.shared else 1
        memory.link.committed = self.watch.look
        self.world.storing = self.storing  # type: ignore[method-assign]
        self.people = Process(self.world, "people")
        self.processes: list[Process] = []
        self.daemons: dict[Process, Daemon] = {}
        self._started = 0
        self._starting = 0
        self.street = Street(self)
        self.storm = Storm(self)

    @property
    def config(self) -> Config:
        return configuration(self.variant, tuple(self.generations), self.shared)

    @property
    def counts(self) -> dict[str, int]:
        """What this world has seen."""
        sent = self.operators.sent
        return {
            "events": len(self.street.accepted),
            "workers": self._started,
            "requests": len(sent),
            "booked": len(self.operators.book),
            "booked twice": sum(len(times) > 1 for times in self.operators.book.values()),
            "swept": len(self.watch.swept),
            "replayed in bulk": self.watch.bulk.taken.total(),
            **{f"rows {status}": 0 for status in ("delivered", "dead", "resolved", "pending")},
            **Counter(f"rows {row.status}" for row in self.watch.rows.values()),
            **Counter(f"with {one}" for one in self.weather),
        }

    def blame_log(self, process: Process, event: str, values: dict[str, Any]) -> None:
        if not process.dead and not process.dying:
            self.world.blame("crash", f"{process.name}: {event} {values} {traceback.format_exc(limit=-6)}")

    def _fault(self, process: Process) -> Fault | None:
        if self.storm.over or self.chance.random() > self.faults:
            return None
        death = process is not self.people and "death" in self.weather and self.chance.random() < 0.4
        if "store" not in self.weather and not death:
            return None
        statement = self.chance.choice((None, None, None, 1, 2, 3, 4, 5))
        return Fault(statement, after=self.chance.random() < 0.6, death=death)

    def storing(self, process: Process, name: str, work: Callable[[], Any]) -> Any:
        """Every call to the store, by whomever."""
        away = max(self.storm.outage_until, process.away_until) > self.world.now
        self.memory.link.begin_call(self._fault(process), away)
        try:
            return work()
        finally:
            self.memory.link.begin_call(None, away=False)
            self._check_held(process)

    def _check_held(self, process: Process) -> None:
        daemon = self.daemons.get(process)
        if daemon is not None and len(daemon.dispatch._held) > self.watch.most:
            self.world.blame("places", f"{process.name} holds {len(daemon.dispatch._held)}, of {self.watch.most}")

    def start_worker(self) -> None:
        self._started += 1
        process = Process(self.world, f"worker{self._started}")
        if self.shared:
            process.offset = self.chance.randrange(-HOUR, HOUR)
        self.processes.append(process)
        self.world.tell(process, "starts")
        process.begin(self._main(process))

    async def _main(self, process: Process) -> None:
        """What `dispatcher run` does, and its supervisor."""
        try:
            self.daemons[process] = daemon = self.world.storing(process, "build", lambda: self._build(process))
            await daemon.run()
            self._left(process)
        except StoreUnavailable as error:
            if not process.dead and not process.dying:
                self.world.tell(process, f"gives up: {type(error).__name__}")
        except DispatcherError as error:
            self.world.blame("crash", f"{process.name}: {error}")
        except Exception as error:
            self.blame_log(process, repr(error), {})
        process.dying = True

    def _build(self, process: Process) -> Daemon:
        def opened(place: Any, **_: Any) -> Database:
            database = self.memory.open(place, process)
            self.watch.workers[database.worker] = process
            return database

        with patch.object(dispatcher.app, "open_database", opened), patch.object(roster, "draft_operator", _draft):
            daemon = Daemon(self.config, cast(Log, _Log(self, process)), transport=Network(self.operators, process))
        process.clock = daemon.clock.now
        process.loads.append((self.world.now, self.world.now))
        return daemon

    def _left(self, process: Process) -> None:
        """It was told to stop, and says that it has."""
        number = self.daemons[process].database.worker
        for row in self.watch.rows.values():
            if row.worker == number:
                self.world.blame("stop", f"{process.name} has stopped, and left {row}")

    def living(self) -> list[Process]:
        """Those that have come so far as to work."""
        return [process for process in self.processes if not process.dead and process in self.daemons]

    def supervise(self) -> None:
        """Whoever is gone is started again, some time later."""
        self.processes = [process for process in self.processes if not process.dead]
        wanted = 2 if self.shared else 1
        missing = wanted - len(self.processes) - self._starting
        for _ in range(missing):
            self._starting += 1
            self.world.after(self.chance.randrange(100 * MILLISECOND, 6 * SECOND), self._start_again)
        self.world.after(SECOND, self.supervise)

    def _start_again(self) -> None:
        self._starting -= 1
        self.start_worker()

    def play(self) -> None:
        """Raises Violation."""
        world, chance = self.world, self.chance
        with patch.object(workers, "enter", _enter_shared if self.shared else workers.enter):
            for name in self.names:
                self.operators.moods[name] = chance.choice(list(MOODS)) if "moods" in self.weather else "bad"
            world.slow_store = 0.1 if "slow" in self.weather else 0.0
            for _ in range(2 if self.shared else 1):
                self.start_worker()
            world.run(world.now + 50 * MILLISECOND)
            self.street.hand_in_some(chance.randint(1, 12))
            world.after(SECOND, self.supervise)
            world.after(chance.randrange(SECOND, 4 * SECOND), self.storm.blow)
            world.after(chance.randrange(SECOND, 4 * SECOND), self.street.command)
            world.run(self.storm_ends)
            self.storm.clear_up()
            self._finish()
        if world.violation is not None:
            raise world.violation

    def _finish(self) -> None:
        world, end = self.world, self.storm_ends + LONGEST
        while world.violation is None:
            late = self.watch.overdue(10 * SECOND) if self.storm.well_for() > SETTLING else []
            if late:
                world.blame("stuck", f"{late[0]} was due at {late[0].due_at}, it is {world.wall()}")
            if not self.watch.unfinished() and not self.watch.bulk.running():
                break
            if world.now >= end:
                # By a clock that jumped while somebody did not know of a pause, what is due may be so much later.
                left = [row for row in self.watch.unfinished() if not world.farthest or not self._is_to_come(row)]
                if left or self.watch.bulk.running():
                    world.blame("stuck", f"{[*left, *self.watch.bulk.running()][0]} goes on and on")
                break
            world.run(world.now + SECOND)
        if world.violation is None:
            self._check_accepted()
            self._check_books()

    def _is_to_come(self, row: Seen) -> bool:
        return row.status == "pending" and (row.parked == 1 or (row.due_at or 0) > self.world.wall())

    def _check_accepted(self) -> None:
        there = {row.delivery for row in self.watch.rows.values()}
        for delivery in self.street.accepted:
            if delivery not in there and delivery not in self.watch.swept:
                self.world.blame("accepted", f"{'/'.join(delivery)} was accepted, and is gone")

    def _check_books(self) -> None:
        operator = next(iter(self.config.operators.values()))
        for one in found(self.street.desk, operator, self.world.highest):
            self.world.blame("audit", f"{one.check}: {one.told} {one.operator} {one.type} {one.key} {one.id}")

    def close(self) -> None:
        for process in self.processes:
            process.bury()
        self.memory.link.committed = None


@cache
def _drafted(name: str, document: str, defaults: Any, folder: Any) -> Draft:
    return draft_operator(name, json.loads(document), defaults, folder)


def _draft(name: str, raw: Any, defaults: Any, folder: Any) -> Draft:
    """Each document is read once, however many workers begin with it."""
    return _drafted(name, json.dumps(raw), defaults, folder)


def _enter_shared(database: Database) -> None:
    """As on PostgreSQL, where others may be there as well: on SQLite a worker that begins takes all their rows away."""
    with database.writing() as connection:
        workers.appear(connection, database)
