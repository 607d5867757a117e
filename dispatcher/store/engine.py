"""Opening the store, whichever it is: transactions on it, its clock, and the bell that wakes its workers."""

import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ProgrammingError

from dispatcher.ground.clock import CarriedClock, Clock, WallClock
from dispatcher.ground.errors import Contended, NotMade, Refused, StoreUnavailable
from dispatcher.ground.place import Place, Server
from dispatcher.store.databases import sqlite
from dispatcher.store.databases.bell import Bell
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.moving.mark import Mark, refusal
from dispatcher.store.notary import Notary
from dispatcher.store.version import Found, admit_work

_CLOCK = Spelled(lambda its: f"SELECT {its.clock}")


class Database:
    """One store, opened. `reading` and `writing` give transactions; errors come as StoreUnavailable.

    `worker` is the number under which this process claims here, another one at each opening; the name is for people.
    """

    def __init__(self, place: Place, engine: Engine, kind: ModuleType) -> None:
        self.worker = secrets.randbits(63)
        self.worker_name = f"process {os.getpid()} on {socket.gethostname()}"
        self.place = place
        self.engine = engine
        # The token of a turn of which nobody knows whether its commit was made.
        self.in_doubt: int | None = None
        self._weather: Callable[[DBAPIError], StoreUnavailable | None] = kind.weather
        self._reading = engine.execution_options(**kind.READING)
        self._glance = engine.execution_options(**kind.GLANCE)
        self._kind = kind
        # Until when somebody follows what this worker does (µs), whether it tells of that, and of how many turns it has
        # told (store/feed.py).
        self.followed_until = 0
        self.tells = False
        self.told_turns = 0
        # What it said of itself when it was opened.
        self.mark: Mark | None = None
        # Who has opened the vault gives it: without it nothing can be done by hand here.
        self.notary: Notary | None = None
        self.bell: Bell = kind.bell(place, engine, self.translated)
        self._clock = CarriedClock()
        self._lock = sqlite.WorkerLock(place) if isinstance(place, Path) else None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction; on leaving it is on disk, on an error nothing is."""
        with self.translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view; writers are not held up."""
        with self.translated(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """For one statement that reads, which is one consistent view by itself."""
        with self.translated(), self._glance.connect() as connection:
            yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What may pass by itself comes as StoreUnavailable; what is a bug of ours stays what it is."""
        try:
            yield
        except DBAPIError as error:
            if refused := refusal(error):
                raise refused from None
            weather = self._weather(error)
            if weather is None:
                raise
            told = self.place.hide(str(weather)) if isinstance(self.place, Server) else weather
            raise type(weather)(f"the database {self.place} can't be used: {told}") from error

    def clock(self) -> Clock:
        """The clock by which everything here is timed: the server's, where there is one. Raises StoreUnavailable."""
        if isinstance(self.place, Path):
            return WallClock()
        if not self._clock.is_set:
            self.set_clock()
        return self._clock

    def set_clock(self) -> None:
        """By the server's anew, where there is one: two hosts' clocks don't run alike. Raises StoreUnavailable."""
        if isinstance(self.place, Path):
            return
        with self.reading() as connection, self.timed() as heard:
            heard(connection.execute(_CLOCK.on(connection)).scalar_one())

    @contextmanager
    def timed(self) -> Iterator[Callable[[int], None]]:
        """Around a statement that reads the database's clock: call what it gives with the reading (µs)."""
        asked = self._clock.ticks()
        yield lambda reading: self._clock.heard(reading, asked)

    def occupy(self) -> None:
        """A worker works here, until `close`; a file has one. Raises Refused where there is another.

        Raises Refused for a store that is being copied, too, and StoreUnavailable where nobody can.
        """
        if self.mark is not None:
            raise self.mark.refused(self.place)
        if self._lock is not None:
            self._lock.acquire()

    def ring(self, operators: Collection[str] = ()) -> None:
        """There is new work, and it is committed: of these operators, due at once, where any are named."""
        self.bell.ring(operators)

    def look(self, connection: Connection) -> Found:
        """What stands here, as this transaction sees it."""
        found: Found = self._kind.found(connection, self.place)
        return found

    def make(self) -> None:
        """The tables, of this dispatcher's revision, where there are none. Raises Refused, and StoreUnavailable."""
        try:
            with self.writing() as connection:
                self._kind.make_tables(connection, self.place)
        except (DBAPIError, Contended) as error:
            # Where another process makes them at the same moment, one of the two is told that they are there.
            with self.reading() as connection:
                if self.look(connection).revision is not None:
                    return
            if isinstance(error, ProgrammingError) and isinstance(self.place, Server):
                told = self.place.hide(self._kind.told(error))
                mend = "give its user the right to, or let its owner run `dispatcher db upgrade`"
                raise Refused(f"no tables can be made in {self.place}: {told}; {mend}") from None
            raise

    def told(self, connection: Connection) -> tuple[str, str, int]:
        """Its kind, the version of that, and how many bytes it takes on the disk."""
        kind, version = self._kind.kind_and_version(connection)
        return kind, version, self._kind.size(connection, self.place)

    def close(self) -> None:
        self.bell.deafen()
        if self._lock is not None:
            self._lock.release()
        self.engine.dispose()


def open_database(
    place: Place, *, create: bool = True, patience: float = 10.0, silence: float | None = None
) -> Database:
    """Opens the store, makes it and its tables where `create` says so; waits `patience` s for another's lock.

    A server that leaves a statement without an answer for `silence` s is away; without it, it is waited for.

    Raises StoreUnavailable; Outdated for a store whose schema is to be brought up; Refused for one of something else,
    of a newer dispatcher, or which has moved or not arrived yet. All of these are left as they are.
    """
    database, found = reach(place, create=create, patience=patience, silence=silence)
    try:
        admit_work(place, found)
        database.mark = found.mark
        if found.revision is None:
            database.make()
    except BaseException:
        database.close()
        raise
    return database


def reach(
    place: Place, *, create: bool, patience: float = 10.0, silence: float | None = None
) -> tuple[Database, Found]:
    """The store, and what was found there; whatever that is, it can be looked into. No tables are made.

    Raises NotMade where there is nothing and `create` does not say so, StoreUnavailable, Refused for another program's.
    """
    if isinstance(place, Server):
        database, found = _reach_server(place, patience, silence)
    else:
        found = sqlite.look(place, create=create, patience=patience)
        database = Database(place, sqlite.open_engine(place, patience), sqlite)
    if found.revision is None and not create:
        database.close()
        # Where somebody makes it at this moment, nothing of it can be seen before it is whole.
        told = "holds no wallet-flow log yet; `dispatcher enqueue` or `dispatcher run` makes it"
        raise NotMade(f"the database {place} {told}")
    return database, found


def _reach_server(place: Server, patience: float, silence: float | None) -> tuple[Database, Found]:
    try:
        from dispatcher.store.databases import postgresql
    except ImportError:
        told = "its driver is not installed; where the dispatcher was cloned to: pip install -e '.[postgresql]'"
        raise Refused(f"the database {place} can't be used: {told}") from None
    database = Database(place, postgresql.open_engine(place, patience, silence), postgresql)
    try:
        with database.reading() as connection:
            found = database.look(connection)
    except ProgrammingError as error:
        database.close()
        told = place.hide(postgresql.told(error))
        raise Refused(f"the database {place} can't be opened: {told}; mend that, or database.url") from None
    except BaseException:
        database.close()
        raise
    return database, found


def is_there(place: Place) -> bool:
    """Whether a wallet-flow log is there, of whatever revision. Raises as `reach`, where nobody can tell."""
    try:
        reach(place, create=False)[0].close()
    except NotMade:
        return False
    return True
