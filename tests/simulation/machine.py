"""The machine that all processes of a world share: its clocks, its source of chance, and the database in its memory."""

import datetime as real_datetime
import secrets as real_secrets
import sqlite3
import sys
import time as real_time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apscheduler.executors.base
import apscheduler.schedulers.base
import apscheduler.triggers.date
import apscheduler.triggers.interval
from sqlalchemy import Engine, StaticPool, create_engine

from dispatcher.ground.clock import SECOND, to_datetime
from dispatcher.ground.place import Place
from dispatcher.store.databases import sqlite
from dispatcher.store.databases.bell import Heard
from dispatcher.store.engine import Database
from dispatcher.store.schema import locks, metadata
from tests.simulation.loop import EPOCH, Process, World
from tests.simulation.short import shortened

IO_ERROR = 10
# Of a double that counts days: what it loses makes this clock no clock that is ahead.
_JULIAN_LOSS = 50
_EMPTIED = [table.name for table in reversed(metadata.sorted_tables) if table is not locks]


class Machine:
    """What the stand-ins below ask: the world that is simulated at this moment."""

    world: World = World(0)
    virtual = False


class VirtualTime:
    """For the module `time`."""

    @staticmethod
    def monotonic() -> float:
        return 1_000.0 + Machine.world.now / SECOND

    perf_counter = monotonic

    @staticmethod
    def monotonic_ns() -> int:
        return 1_000 * SECOND * 1_000 + Machine.world.now * 1_000

    perf_counter_ns = monotonic_ns

    @staticmethod
    def time_ns() -> int:
        return Machine.world.wall(Machine.world.current) * 1_000


class VirtualDatetime(real_datetime.datetime):
    """For the class `datetime`."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return to_datetime(Machine.world.wall(Machine.world.current)).astimezone(tz)


class VirtualSecrets:
    """For the module `secrets`."""

    @staticmethod
    def randbits(bits: int) -> int:
        return Machine.world.tokens.getrandbits(bits)

    @staticmethod
    def token_bytes(count: int) -> bytes:
        return Machine.world.tokens.randbytes(count)


_STAND_INS = {real_time: VirtualTime, real_datetime.datetime: VirtualDatetime, real_secrets: VirtualSecrets}
_OTHERS = (
    apscheduler.executors.base,
    apscheduler.schedulers.base,
    apscheduler.triggers.date,
    apscheduler.triggers.interval,
)


@contextmanager
def virtual() -> Iterator[None]:
    """While this lasts, every room of the dispatcher, and the scheduler, takes time and chance from the world."""
    if Machine.virtual:
        yield
        return
    ours = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] == "dispatcher"]
    patches = [
        patch.object(module, name, _STAND_INS[value])
        for module in (*ours, *_OTHERS)
        for name, value in list(vars(module).items())
        if type(value).__hash__ is not None and _hashable(value) and value in _STAND_INS
    ]
    begun: list[Any] = []
    try:
        for one in patches:
            one.start()
            begun.append(one)
        Machine.virtual = True
        yield
    finally:
        Machine.virtual = False
        for one in begun:
            one.stop()


def _hashable(value: object) -> bool:
    return isinstance(value, type) or type(value) is type(sys)


class Fault:
    """What goes wrong in one call to the store: at which statement, or at the commit, before it is made or after.

    `death`: the process ends there. Whatever it is, the caller is told that the disk failed.
    """

    def __init__(self, statement: int | None, *, after: bool, death: bool) -> None:
        self.statement = statement
        self.after = after
        self.death = death


class Link(sqlite3.Connection):
    """The connection to the database in memory, which fails where it is told to."""

    fault: Fault | None = None
    away = False
    statements = 0
    changes = 0
    committed: Callable[[], None] | None = None
    dying: Process | None = None

    def begin_call(self, fault: Fault | None, away: bool) -> None:
        self.fault, self.away, self.statements, self.dying = fault, away, 0, None

    def cursor(self, *args: Any, **more: Any) -> Any:
        self.statements += 1
        if self.away or self.dying is not None:
            self._fail("unable to open database file")
        if self.fault is not None and self.fault.statement == self.statements:
            self._strike()
        return super().cursor(*args, **more)

    def commit(self) -> None:
        at_commit = self.fault is not None and self.fault.statement is None
        if self.fault is not None and at_commit and not self.fault.after:
            self._strike()
        super().commit()
        changes, self.changes = self.changes, self.total_changes
        if self.committed is not None and changes != self.changes:
            self.committed()
        if at_commit:
            self._strike()

    def seen(self, query: str, *values: Any) -> list[Any]:
        """What stands there; no fault, and no transaction of its own."""
        return super().cursor().execute(query, values).fetchall()

    def _strike(self) -> None:
        fault, self.fault = self.fault, None
        if fault is not None and fault.death:
            process = self.dying = Machine.world.current
            if process is not None:
                process.dying = True
        self._fail("disk I/O error")

    def _fail(self, told: str) -> None:
        error = sqlite3.OperationalError(told)
        error.sqlite_errorcode = IO_ERROR
        raise error


class _OnePool(StaticPool):
    """The one connection, which nobody closes."""

    def dispose(self) -> None:
        """It lives as long as this process of ours."""

    def recreate(self) -> "_OnePool":
        return self


class _Footing:
    """In memory there is no file that could be taken away."""

    def __init__(self, _path: Path) -> None:
        pass

    def hold(self) -> None:
        """It stands."""


class Bell:
    """Rings reach all who listen, after a while; some are lost."""

    listeners: "dict[int, tuple[Process, Bell]]"

    def __init__(self, machine: "Memory", process: Process | None) -> None:
        self._machine = machine
        self._process = process
        self._number = 0

    def ring(self, operators: Collection[str] = ()) -> None:
        world = Machine.world
        for number in list(self._machine.listeners):
            if world.chance.random() < self._machine.lost_rings:
                continue
            world.after(world.chance.randrange(2_000), partial(self._machine.rung, number, operators))

    def listen(self) -> int | None:
        assert self._process is not None
        self._number = self._machine.next_bell()
        self._machine.listeners[self._number] = self._process
        return self._number

    def heard(self) -> Heard:
        rings = self._machine.rings.pop(self._number, [])
        return Heard(frozenset().union(*rings), more=not all(rings))

    def deafen(self) -> None:
        self._machine.listeners.pop(self._number, None)


class Memory:
    """The database of all worlds that one process of ours plays, one after the other: emptied for each.

    `long`: it is reached by all of SQLAlchemy's engine, and not by the short way.
    """

    def __init__(self, *, long: bool = False) -> None:
        def build(_url: str, **settings: Any) -> Engine:
            # As many statements as we have stay prepared, and the pool gives everybody the same connection.
            settings["connect_args"] |= {"factory": Link, "cached_statements": 512}
            return create_engine("sqlite://", poolclass=_OnePool, **settings)

        with patch.object(sqlite, "create_engine", build), patch.object(sqlite, "Footing", _Footing):
            self.engine = sqlite.open_engine(Path(":memory:"), 1.0)
        self.listeners: dict[int, Process] = {}
        # What was rung and is not heard yet, by listener.
        self.rings: dict[int, list[Collection[str]]] = {}
        self.lost_rings = 0.0
        self._bells = 0
        with self.engine.connect() as connection:
            link: Any = connection.connection.dbapi_connection
        self.link: Link = link
        link.create_function("julianday", 1, lambda _: _julian(Machine.world.wall()))
        self.open(Path("/simulated")).make()
        if not long:
            self.engine = shortened(link)

    def open(self, place: Place, process: Process | None = None) -> Database:
        """Another opening of it, as by a process of its own."""
        database = Database(place, self.engine, sqlite)
        database.bell = Bell(self, process)
        # The kernel's lock is played by whoever starts processes: one at a time, where it is a file.
        database._lock = None
        database.worker_name = process.name if process is not None else "somebody"
        return database

    def empty(self) -> None:
        self.link.begin_call(None, away=False)
        self.link.committed = None
        self.listeners, self.rings = {}, {}
        with suppress(sqlite3.Error):
            self.link.rollback()
        for name in _EMPTIED:
            self.link.execute(f"DELETE FROM {name}")

    def next_bell(self) -> int:
        self._bells += 1
        return self._bells

    def rung(self, number: int, operators: Collection[str]) -> None:
        process = self.listeners.get(number)
        if process is None or process.dead:
            return
        reader = process.loop.readers.get(number)
        if reader is not None:
            self.rings.setdefault(number, []).append(operators)
            process.loop.call_soon(reader)


def _julian(wall: int) -> float:
    return 2440587.5 + (wall - _JULIAN_LOSS) / (86400 * SECOND)


assert to_datetime(EPOCH).year == 2026
