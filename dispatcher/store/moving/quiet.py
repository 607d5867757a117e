"""Who works on a store, and how nobody does while it is copied or its schema changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text

from dispatcher.ground.errors import Refused
from dispatcher.ground.place import Place
from dispatcher.store.databases.dialect import POSTGRESQL
from dispatcher.store.databases.locks import Alone, is_free
from dispatcher.store.databases.sqlite import WorkerLock
from dispatcher.store.engine import Database
from dispatcher.store.version import FIRST
from dispatcher.store.workers import LIMIT

_AT_WORK = text(f"SELECT name FROM workers WHERE abs(seen_at - {POSTGRESQL.clock}) <= :limit ORDER BY name")
# Stores of the first revision have one worker and no table of them: its session bears its name. One that holds the
# lock of another schema works there.
_AT_WORK_ON_THE_FIRST = text(
    """
    SELECT a.application_name FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.application_name LIKE 'dispatcher: process %' AND NOT EXISTS (
        SELECT 1 FROM pg_locks l
        WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.database = a.datid AND l.objsubid = 2
          AND l.classid = CAST(1684632321 AS oid)
          AND l.objid <> CAST(CAST(hashtext(current_schema()) AS bigint) & 4294967295 AS oid)
    )
    ORDER BY 1
    """
)

_IDENTITY = text("SELECT concat_ws(' ', current_database(), current_schema(), pg_postmaster_start_time())")


def at_work(database: Database) -> list[str]:
    """The workers that are seen on a server. On a file there is a lock, which says so when it is taken."""
    if isinstance(database.place, Path):
        return []
    with database.reading() as connection:
        if database.look(connection).revision == FIRST:
            return list(connection.scalars(_AT_WORK_ON_THE_FIRST))
        return _live(connection)


def _live(connection: Connection) -> list[str]:
    return list(connection.scalars(_AT_WORK, {"limit": LIMIT}))


def refuse_live(connection: Connection, place: Place) -> None:
    """Raises Refused where a worker of a server lives, as this transaction sees it."""
    if connection.dialect.name == "postgresql":
        _refuse(place, _live(connection))


def _refuse(place: Place, live: list[str]) -> None:
    if live:
        raise Refused(f"the database {place} is worked on: {', '.join(live)}; stop that first")


@contextmanager
def quiet(database: Database, *, among_workers: bool = False) -> Iterator[None]:
    """Nobody works here: on a file no worker can begin meanwhile; on a server none was there when this began.

    Raises Refused where a worker is there; `among_workers` lets those of a server go on.
    """
    if not isinstance(database.place, Path):
        if not among_workers:
            _refuse(database.place, at_work(database))
        yield
        return
    lock = WorkerLock(database.place)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def moving(database: Database) -> Iterator[None]:
    """Quiet, and no other such command is here meanwhile: a session of our own holds a row until it ends, however.

    Raises Refused.
    """
    if isinstance(database.place, Path):
        with quiet(database):
            yield
        return
    with quiet(database), database.writing() as session:
        # It does nothing for as long as the copy takes.
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not is_free(session, Alone.MOVE):
            raise Refused(f"another `dispatcher db` command is at work on {database.place}; wait until it has ended")
        yield


def identity(database: Database) -> str:
    """The same for one store, however its address is written."""
    if isinstance(database.place, Path):
        return str(database.place.resolve())
    with database.reading() as connection:
        return str(connection.scalar(_IDENTITY))
