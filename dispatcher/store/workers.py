"""Who works on this database. A worker lives as long as its row stands: its beats keep it, and the others take it away

when they have failed to come for `LIMIT`; what it had claimed is adopted then (`corridor.adopt`).
"""

from typing import NamedTuple

from sqlalchemy import Connection, delete

from dispatcher.ground.clock import SECOND
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.engine import Database
from dispatcher.store.schema import workers

# µs by the database's clock.
LIMIT = 5 * SECOND

# A series of beats that was broken begins anew: after an outage every row is old, and whoever comes back first must not
# take the others for dead.
_BEAT = Spelled(
    lambda its: (
        f"""
    INSERT INTO workers (id, name, started_at, since, seen_at)
    SELECT :worker, :name, t.now, t.now, t.now FROM (SELECT {its.clock} AS now) AS t WHERE true
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, since = CASE
        WHEN :broken OR abs(excluded.seen_at - workers.seen_at) > :limit THEN excluded.since ELSE workers.since
    END
    RETURNING since, seen_at
    """
    )
)
# A clock that was set back leaves times to come: nobody who lives has such, once we have beaten for so long by it.
_SILENT = "abs(seen_at - :now) > :limit"
_CREW = Spelled(
    lambda _: (
        f"""
    SELECT count(*), coalesce(sum(CASE WHEN id < :worker THEN 1 ELSE 0 END), 0),
           coalesce(sum(CASE WHEN {_SILENT} THEN 1 ELSE 0 END), 0)
    FROM workers
    """
    )
)
_BURY = Spelled(
    lambda its: (
        f"""
    DELETE FROM workers
    WHERE id IN (SELECT id FROM workers WHERE id <> :worker AND {_SILENT} ORDER BY id {its.ours})
    """
    )
)

_LIVE = Spelled(lambda its: f"SELECT count(*) FROM workers WHERE abs(seen_at - {its.clock}) <= :limit")


class Crew(NamedTuple):
    """How many workers live, and how many of them come before this one in their order."""

    size: int = 1
    place: int = 0

    def share(self, whole: int) -> int:
        """Of so many places this one's: at least one; what can't be divided goes to the first."""
        each, rest = divmod(whole, self.size)
        return max(1, each + (self.place < rest))


class Beat(NamedTuple):
    """Who is there, and how many were found to be gone."""

    crew: Crew
    gone: int


class _Series(NamedTuple):
    """An unbroken series of beats: when it began, and the last one (µs, the database's clock)."""

    since: int
    seen_at: int


def enter(database: Database) -> None:
    """From now on this worker is there. On a file it is the only one: whoever else has a row is gone."""
    with database.writing() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(delete(workers))
        appear(connection, database)


def beat(database: Database, *, broken: bool) -> Beat:
    """This worker lives; `broken`: its last beat failed. Whoever has not beaten for too long is not there any more.

    Only who has beaten for as long itself may say so.
    """
    with database.writing() as connection:
        series = appear(connection, database, broken=broken)
        about = {"worker": database.worker, "now": series.seen_at, "limit": LIMIT}
        size, place, silent = connection.execute(_CREW.on(connection), about).one()
    gone = 0
    if silent and series.seen_at - series.since >= LIMIT:
        with database.writing() as connection:
            gone = connection.execute(_BURY.on(connection), about).rowcount
    return Beat(Crew(size, place), gone)


def appear(connection: Connection, database: Database, *, broken: bool = True) -> _Series:
    """Writes this worker's row, whether it stands or not; and reads the clock."""
    about = {"worker": database.worker, "name": database.worker_name, "broken": broken, "limit": LIMIT}
    with database.timed() as heard:
        series = _Series._make(connection.execute(_BEAT.on(connection), about).one())
        heard(series.seen_at)
    return series


def live(connection: Connection) -> int:
    """How many workers of a server have beaten lately."""
    return int(connection.execute(_LIVE.on(connection), {"limit": LIMIT}).scalar_one())


def leave(database: Database) -> None:
    """This worker has settled all that it held, and is not there any more."""
    with database.writing() as connection:
        connection.execute(delete(workers).where(workers.c.id == database.worker))
