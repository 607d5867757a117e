"""Opening the SQLite file: how it is written, who may work on it, and how one process wakes another."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from dispatcher.errors import Refused, StoreUnavailable
from dispatcher.store.schema import SCHEMA_VERSION, metadata

_READ = {"dispatcher_read": True}


class Database:
    """One SQLite file, opened. `reading` and `writing` give transactions; errors come as StoreUnavailable."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self.engine = _engine(path, patience)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction; on leaving it is on disk (synchronous=FULL), on an error nothing is."""
        with _translated(self.path), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view; writers are not held up."""
        with _translated(self.path), self.engine.connect().execution_options(**_READ) as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_database(path: Path, *, create: bool = True, patience: float = 10.0) -> Database:
    """Opens the file, makes it and its tables where `create` says so; waits `patience` s for another's lock.

    Raises StoreUnavailable; Refused for a file of something else, or of another version.
    """
    if not create and not path.exists():
        raise StoreUnavailable(f"there is no database {path} yet; `dispatcher enqueue` or `dispatcher run` makes it")
    if not path.parent.is_dir():
        raise StoreUnavailable(f"the database {path} can't be opened: its folder does not exist; create it")
    database = Database(path, patience)
    try:
        with database.reading() as connection:
            version = _version(connection)
        if version == 0 and create:
            with database.writing() as connection:
                version = _version(connection) or _create(path, connection)
        if version != SCHEMA_VERSION:
            found = f"has schema {version}" if version else "holds no wallet-flow log"
            raise Refused(f"the database {path} {found}; this dispatcher works with schema {SCHEMA_VERSION}")
    except BaseException:
        database.close()
        raise
    return database


def _create(path: Path, connection: Connection) -> int:
    if inspect(connection).get_table_names():
        raise Refused(f"the database {path} holds another program's tables; name a file of its own in database.url")
    metadata.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return SCHEMA_VERSION


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _engine(path: Path, patience: float) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": patience, "check_same_thread": False},
        # An error's text would show them: events, players' tokens.
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a commit that returned survives the power going; NORMAL could lose the last ones.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: a transaction that read first could not be upgraded later.
        reads = connection.get_execution_options().get("dispatcher_read")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        # A bug of ours, not weather: trying again would not mend it.
        raise
    except DBAPIError as error:
        raise StoreUnavailable(f"the database {path} can't be used: {error.orig}") from error


class WorkerLock:
    """At most one worker on one SQLite file. The kernel lets go of it when the process dies, however it dies."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-worker")
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises Refused where another process holds it, StoreUnavailable where its file can't be made."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreUnavailable(f"{self._path} can't be written ({error.strerror}); mend the folder") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 64).decode("ascii", "replace").strip() or "another process"
            os.close(file)
            raise Refused(
                f"{holder} already runs a worker on this database; an SQLite file has one worker: stop that one first"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Bell:
    """A named pipe beside the database: whoever commits new work rings, an idle worker hears it at once.

    Losing a ring loses nothing, the row is there; the worker also looks by itself every few seconds.
    """

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-bell")

    def ring(self) -> None:
        with suppress(OSError):
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, b"!")
            finally:
                os.close(pipe)

    def listen(self) -> int:
        """A file descriptor that turns readable on a ring; open both ways, so that it never reads as closed."""
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o622)
        if not self._path.is_fifo():
            raise Refused(f"{self._path} is in the way of the named pipe that belongs there; remove it")
        return os.open(self._path, os.O_RDWR | os.O_NONBLOCK)

    @staticmethod
    def drain(pipe: int) -> None:
        with suppress(BlockingIOError):
            while os.read(pipe, 4096):
                pass

    @staticmethod
    def close(pipe: int) -> None:
        os.close(pipe)
