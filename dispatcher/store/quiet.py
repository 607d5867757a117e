"""Who works on a store, and how nobody does while it is copied or its schema changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from dispatcher.errors import Refused
from dispatcher.store.dialect import Alone
from dispatcher.store.engine import Database
from dispatcher.store.sqlite import WorkerLock

# A worker's session bears its name. One that holds the post of another schema works there.
_AT_WORK = text(
    """
    SELECT a.application_name FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.application_name LIKE 'dispatcher: process %' AND NOT EXISTS (
        SELECT 1 FROM pg_locks l
        WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.database = a.datid AND l.objsubid = 2
          AND l.classid = CAST(:work AS oid)
          AND l.objid <> CAST(CAST(hashtext(current_schema()) AS bigint) & 4294967295 AS oid)
    )
    ORDER BY 1
    """
)
_HOLD = text("SELECT pg_try_advisory_lock(:about, hashtext(current_schema()))")

_IDENTITY = text("SELECT concat_ws(' ', current_database(), current_schema(), pg_postmaster_start_time())")


def at_work(database: Database) -> list[str]:
    """The workers that are seen on a server. On a file there is a lock, which says so when it is taken."""
    if isinstance(database.place, Path):
        return []
    with database.reading() as connection:
        return list(connection.scalars(_AT_WORK, {"work": int(Alone.WORK)}))


@contextmanager
def quiet(database: Database, *, among_workers: bool = False) -> Iterator[None]:
    """Nobody works here meanwhile: on a file no worker can begin; on a server none was there, nor another such command.

    Raises Refused where a worker is there; `among_workers` lets those of a server go on.
    """
    if isinstance(database.place, Path):
        lock = WorkerLock(database.place)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()
        return
    live = at_work(database)
    if live and not among_workers:
        raise Refused(f"the database {database.place} is worked on: {', '.join(live)}; stop that first")
    with _held(database):
        yield


@contextmanager
def _held(database: Database) -> Iterator[None]:
    """A session of our own holds a lock, which the server lets go of with it, however it ends."""
    with database.translated():
        session = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        session.detach()
        try:
            held = session.execute(_HOLD, {"about": int(Alone.MOVE)}).scalar_one()
        except BaseException:
            session.close()
            raise
    try:
        if not held:
            raise Refused(f"another `dispatcher db` command is at work on {database.place}; wait until it has ended")
        yield
    finally:
        session.close()


def identity(database: Database) -> str:
    """The same for one store, however its address is written."""
    if isinstance(database.place, Path):
        return str(database.place.resolve())
    with database.reading() as connection:
        return str(connection.scalar(_IDENTITY))
