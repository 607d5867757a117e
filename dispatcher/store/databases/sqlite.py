"""The SQLite file: how it is written, who may work on it, and how one process wakes another."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from dispatcher.ground.errors import NotMade, Refused, StoreUnavailable
from dispatcher.store.databases.bell import Heard
from dispatcher.store.databases.locks import make_locks
from dispatcher.store.databases.torn import Footing, refuse_cut_off
from dispatcher.store.moving.mark import MARKS, READ_MARK, mark_of
from dispatcher.store.schema import metadata
from dispatcher.store.version import FIRST, READ_REVISION, REVISIONS, Found, is_ours, of_number, stamp

# For `->>` and UPDATE … FROM.
OLDEST_SQLITE = (3, 38)
# What may pass by itself: SQLITE_PERM, BUSY, LOCKED, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB.
_WEATHER = frozenset({3, 5, 6, 7, 8, 10, 11, 13, 14, 15, 26})


# Between two tries for the file while another writes (s): the first, by how much each next one is longer, the longest.
# A transaction takes a few milliseconds. SQLite's own waiting soon looks every 25 to 100, and whoever writes often
# keeps the others out: of those that handed in events beside a busy worker some waited for a fifth of a second.
_FIRST_WAIT, _LONGER, _LONGEST_WAIT = 0.0005, 1.02, 0.01
_BEGIN = "BEGIN IMMEDIATE"

_MENDS = {
    5: "another process writes to it, and for long: end that one",
    8: "the file, its folder or its disk takes no writes: give the rights, or mount it so",
    10: "look after the disk, and whether the file can be written to",
    11: "the file is damaged: stop whatever works on it, and put a backup in its place",
    13: "make room on the disk",
    26: "it is damaged, or something else: put a backup in its place, or name another file in database.url",
}
_WAIT = "try again, and where that lasts look after the file, its folder and its disk"

READING = {"dispatcher_read": True}
GLANCE = READING
# To make a file takes some milliseconds.
_SOON_SECONDS = 0.005

_PRAGMAS = (
    # FULL: a commit that returned survives the power going; NORMAL could lose the last ones.
    "synchronous = FULL",
    "foreign_keys = ON",
    # Whatever is written twice before a checkpoint reaches the database once: with 32 MB of WAL instead of 4 a turn
    # costs a quarter less. Not a matter of safety: each commit is in the WAL, and synced.
    "wal_autocheckpoint = 8000",
    # While somebody reads one view for long, the WAL can't begin anew and grows; afterwards it is cut to 64 MB.
    "journal_size_limit = 67108864",
    "temp_store = MEMORY",
)


def weather(error: DBAPIError) -> StoreUnavailable | None:
    """What may pass by itself; None for a bug of ours, which trying again would not mend."""
    return StoreUnavailable(_told(error.orig)) if _code(error.orig) in _WEATHER else None


def _code(error: object) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _told(error: object) -> str:
    """SQLite's sentence, and what helps."""
    return f"{error}; {_MENDS.get(_code(error), _WAIT)}"


def look(path: Path, *, create: bool, patience: float) -> Found:
    """What the file holds, made if it is missing; looks before anything is set or written.

    Raises StoreUnavailable, and Refused for a file of something else.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise Refused(f"this Python has SQLite {sqlite3.sqlite_version}; the dispatcher needs {wanted} or newer")
    if not create and not path.exists():
        raise NotMade(f"there is no database {path} yet; `dispatcher enqueue` or `dispatcher run` makes it")
    if not path.parent.is_dir():
        raise StoreUnavailable(f"the database {path} can't be opened: its folder does not exist; create it")
    try:
        refuse_cut_off(path)
        # For its owner alone: it will hold events, and players' tokens.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(path, timeout=patience)) as connection:
            # One view: somebody may be bringing it up at this moment.
            connection.execute("BEGIN")
            return _found(connection, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"the database {path} can't be used: {_told(error)}") from None


def found(connection: Connection, path: Path) -> Found:
    """As `look`, within a transaction."""
    return _found(cast(sqlite3.Connection, connection.connection.dbapi_connection), path)


def _found(connection: sqlite3.Connection, path: Path) -> Found:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    number = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not tables and number == 0:
        return Found(None)
    rows = connection.execute(READ_REVISION).fetchall() if REVISIONS.name in tables else []
    revision = rows[0][0] if rows else None
    if not is_ours(tables, revision or FIRST) or (revision is None and number == 0):
        raise Refused(f"the database {path} holds another program's tables; name a file of its own in database.url")
    if revision is None:
        return of_number(path, number)
    marks = connection.execute(READ_MARK).fetchall() if MARKS.name in tables else []
    return Found(revision, mark=mark_of(marks[0]) if marks else None)


def make_tables(connection: Connection, path: Path) -> None:
    if found(connection, path).revision is None:
        stamp(connection)
        metadata.create_all(connection)
        make_locks(connection)


def kind_and_version(connection: Connection) -> tuple[str, str]:
    return "sqlite", sqlite3.sqlite_version


def size(connection: Connection, path: Path) -> int:
    """Bytes on the disk, with what waits in the log to be written into the file."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def open_engine(path: Path, patience: float) -> Engine:
    """Transactions that only read say so by the options READING."""
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": patience, "check_same_thread": False},
        # An error's text would show them: events, players' tokens.
        hide_parameters=True,
    )

    footing = Footing(path)

    @event.listens_for(engine, "do_connect")
    def _connect(*_: Any) -> None:
        # Where there is no file, SQLite would make one.
        footing.hold()

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        try:
            _keep_a_log(connection, patience)
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        footing.hold()
        # IMMEDIATE takes the write lock at once: a transaction that read first could not be upgraded later.
        if connection.get_execution_options().get("dispatcher_read"):
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_writing(connection, patience)

    return engine


def _keep_a_log(connection: sqlite3.Connection, patience: float) -> None:
    """Where another process begins with the same new file, SQLite says at once that it is locked: here that is waited
    for like any other lock.
    """
    end = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                raise
        time.sleep(_SOON_SECONDS)


def _begin_writing(connection: Connection, patience: float) -> None:
    """When nobody else writes. Raises what SQLite says where somebody does for `patience` s."""
    driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
    end, wait = time.monotonic() + patience, _FIRST_WAIT
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                driver.cursor().execute(_BEGIN)
                return
            except sqlite3.Error as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    # It went past SQLAlchemy, which would have said it so.
                    told = DBAPIError.instance(_BEGIN, None, error, sqlite3.Error, hide_parameters=True)
                    raise told from error
            time.sleep(wait)
            wait = min(wait * _LONGER, _LONGEST_WAIT)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(patience * 1_000)}")


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


class FileBell:
    """A named pipe beside the database."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-bell")
        self._pipe: int | None = None

    def ring(self, operators: Collection[str] = ()) -> None:
        """Nobody is told whose work it is: to look for that costs less here than to say it."""
        with suppress(OSError):
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, b"!")
            finally:
                os.close(pipe)

    def listen(self) -> int:
        """The pipe, open both ways, so that it never reads as closed."""
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o622)
        if not self._path.is_fifo():
            raise Refused(f"{self._path} is in the way of the named pipe that belongs there; remove it")
        self._pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        return self._pipe

    def heard(self) -> Heard:
        with suppress(BlockingIOError):
            while self._pipe is not None and os.read(self._pipe, 4096):
                pass
        return Heard(frozenset(), more=True)

    def deafen(self) -> None:
        """The pipe goes too: whoever reads all files of a folder would wait in it."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)
            self._path.unlink(missing_ok=True)


def bell(place: Path, _engine: Engine, _translated: object) -> FileBell:
    return FileBell(place)
