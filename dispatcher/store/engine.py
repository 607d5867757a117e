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
        if isinstance(self.place, Path):
            return sqlite.FilePost(self.place)
        from dispatcher.store import postgresql

        return postgresql.ServerPost(self.engine, self.translated)

    def close(self) -> None:
        self.engine.dispose()


def open_database(place: Place, *, create: bool = True, patience: float = 10.0) -> Database:
    """Opens the store, makes it and its tables where `create` says so; waits `patience` s for another's lock.

    Raises StoreUnavailable; Refused for a store of something else, or of another version, which is left as it is.
    """
    if isinstance(place, Server):
        return _open_server(place, create, patience)
    fresh = sqlite.check_file(place, create=create, patience=patience)
    database = Database(place, sqlite.open_engine(place, patience), sqlite)
    try:
        if fresh:
            with database.writing() as connection:
                sqlite.make_tables(connection)
    except BaseException:
        database.close()
        raise
    return database


def _open_server(place: Server, create: bool, patience: float) -> Database:
    try:
        from dispatcher.store import postgresql
    except ImportError:
        told = "its driver is not installed; install it: pip install 'dispatcher[postgresql]'"
        raise Refused(f"the database {place} can't be used: {told}") from None
    database = Database(place, postgresql.open_engine(place, patience), postgresql)
    try:
        with database.reading() as connection:
            fresh = postgresql.check_tables(connection, place, create=create)
        if fresh:
            with database.writing() as connection:
                postgresql.make_tables(connection, place)
    except ProgrammingError as error:
        database.close()
        raise Refused(f"the database {place} can't be opened: {postgresql.told(error)}") from None
    except BaseException:
        database.close()
        raise
    return database


def is_there(place: Place) -> bool:
    """Whether anything is stored at this place yet. Raises StoreUnavailable where nobody can tell."""
    if isinstance(place, Path):
        return place.exists() and place.stat().st_size > 0
    try:
        open_database(place, create=False).close()
    except NotMade:
        return False
    return True
