"""Opening the store, whichever it is: transactions on it, the bell that wakes its worker, and the worker's post."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ProgrammingError

from dispatcher.errors import NotMade, Refused, StoreUnavailable
from dispatcher.place import Place, Server
from dispatcher.store import sqlite
from dispatcher.store.mark import Mark, refusal
from dispatcher.store.version import Found, admit_work


class Post(Protocol):
    """The post of a database's one worker: whoever holds it is alone there, and hears the bell."""

    def take(self) -> None:
        """Raises Refused where another process holds it, StoreUnavailable where nobody can."""

    def listen(self) -> int:
        """A file descriptor that turns readable on a ring. Raises Refused, and StoreUnavailable."""

    def heard(self) -> bool:
        """Empties the descriptor. False where the post is lost: it must be taken again, and listened at again."""

    def deafen(self) -> None:
        """Nobody listens any more."""

    def leave(self) -> None:
        """Somebody else may take it."""


class Database:
    """One store, opened. `reading` and `writing` give transactions; errors come as StoreUnavailable."""

    def __init__(self, place: Place, engine: Engine, kind: ModuleType) -> None:
        self.place = place
        self.engine = engine
        # The token of a turn of which nobody knows whether its commit was made.
        self.in_doubt: int | None = None
        self._weather: Callable[[DBAPIError], StoreUnavailable | None] = kind.weather
        self._reading = engine.execution_options(**kind.READING)
        self._kind = kind
        # What it said of itself when it was opened.
        self.mark: Mark | None = None

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
            raise type(weather)(f"the database {self.place} can't be used: {weather}") from error

    def ring(self) -> None:
        """There is new work, and it is committed: an idle worker hears it at once.

        Losing a ring loses nothing: the row is there, and the worker also looks by itself every few seconds.
        """
        if isinstance(self.place, Path):
            sqlite.Bell(self.place).ring()
            return
        from dispatcher.store import postgresql

        with suppress(StoreUnavailable), self.writing() as connection:
            postgresql.ring(connection)

    def post(self) -> Post:
        """Raises Refused for a store that is being copied: it has no worker until that is done."""
        if self.mark is not None:
            raise Refused(self.mark.told(self.place))
        if isinstance(self.place, Path):
            return sqlite.FilePost(self.place)
        from dispatcher.store import postgresql

        return postgresql.ServerPost(self.engine, self.translated)

    def look(self, connection: Connection) -> Found:
        """What stands here, as this transaction sees it."""
        found: Found = self._kind.found(connection, self.place)
        return found

    def make(self) -> None:
        """The tables, of this dispatcher's revision, where there are none."""
        with self.writing() as connection:
            self._kind.make_tables(connection, self.place)

    def told(self, connection: Connection) -> tuple[str, str, int]:
        """Its kind, the version of that, and how many bytes it takes on the disk."""
        kind, version = self._kind.kind_and_version(connection)
        return kind, version, self._kind.size(connection, self.place)

    def close(self) -> None:
        self.engine.dispose()


def open_database(place: Place, *, create: bool = True, patience: float = 10.0) -> Database:
    """Opens the store, makes it and its tables where `create` says so; waits `patience` s for another's lock.

    Raises StoreUnavailable; Outdated for a store whose schema is to be brought up; Refused for one of something else,
    of a newer dispatcher, or which has moved or not arrived yet. All of these are left as they are.
    """
    database, found = reach(place, create=create, patience=patience)
    try:
        admit_work(place, found)
        database.mark = found.mark
        if found.revision is None:
            database.make()
    except BaseException:
        database.close()
        raise
    return database


def reach(place: Place, *, create: bool, patience: float = 10.0) -> tuple[Database, Found]:
    """The store, and what was found there; whatever that is, it can be looked into. No tables are made.

    Raises NotMade where there is nothing and `create` does not say so, StoreUnavailable, Refused for another program's.
    """
    if isinstance(place, Server):
        return _reach_server(place, create, patience)
    found = sqlite.look(place, create=create, patience=patience)
    if found.revision is None and not create:
        raise Refused(f"the database {place} holds no wallet-flow log; name the right file in database.url")
    return Database(place, sqlite.open_engine(place, patience), sqlite), found


def _reach_server(place: Server, create: bool, patience: float) -> tuple[Database, Found]:
    try:
        from dispatcher.store import postgresql
    except ImportError:
        told = "its driver is not installed; install it: pip install 'dispatcher[postgresql]'"
        raise Refused(f"the database {place} can't be used: {told}") from None
    database = Database(place, postgresql.open_engine(place, patience), postgresql)
    try:
        with database.reading() as connection:
            found = database.look(connection)
        if found.revision is None and not create:
            told = "holds no wallet-flow log yet; `dispatcher enqueue` or `dispatcher run` makes it"
            raise NotMade(f"the database {place} {told}")
    except ProgrammingError as error:
        database.close()
        raise Refused(f"the database {place} can't be opened: {postgresql.told(error)}") from None
    except BaseException:
        database.close()
        raise
    return database, found


def is_there(place: Place) -> bool:
    """Whether anything is stored at this place yet. Raises StoreUnavailable where nobody can tell."""
    if isinstance(place, Path):
        return place.exists() and place.stat().st_size > 0
    try:
        open_database(place, create=False).close()
    except NotMade:
        return False
    return True
