"""How much waits, how long already, and how much is dead: by operator, of all workers together, as the store has it.

Asked every few seconds while a store may hold millions of rows: what can be told by one seek in an index is exact, and
what has to be counted is counted in an index and up to a limit.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, func, select

from dispatcher.store.databases.dialect import Spelled, column
from dispatcher.store.engine import Database
from dispatcher.store.schema import operators
from dispatcher.store.workers import live

# Entries of an index read in all, and for one count at most. A count that reached its limit says: at least so many.
MOST_READ = 150_000
MOST_COUNTED = 25_000
# Behind these, by their names, no more operators are looked at.
MOST_OPERATORS = 1_000
_COUNTS = 3


class Backlog(NamedTuple):
    """One operator's. `due`: not claimed though due, the longest since `oldest_due_at` (µs); `waiting`: due later.

    What stands in a line behind another one is in neither.
    """

    operator: str
    paused: bool
    held: bool
    oldest_due_at: int | None
    due: int
    waiting: int
    dead: int


class Workload(NamedTuple):
    """`limit`: where the counts stop. `workers`: how many live; None on a file, where nobody beats."""

    now: int
    limit: int
    backlogs: Sequence[Backlog]
    workers: int | None


# What an index is partial by is a literal; SQLite is told the index, so that it never reads the rows.
_BACKLOGS = Spelled(
    lambda its: (
        f"""
    SELECT o.name, o.paused_at IS NOT NULL, o.held_at IS NOT NULL,
        (SELECT min(d.due_at) FROM deliveries d {its.by.format("due")}
         WHERE d.status = 'pending' AND d.parked = {its.no} AND d.operator = o.name),
        (SELECT count(*) FROM (
            SELECT 1 FROM deliveries d {its.by.format("due")}
            WHERE d.status = 'pending' AND d.parked = {its.no} AND d.operator = o.name AND d.due_at <= :now LIMIT :most
        ) AS x),
        (SELECT count(*) FROM (
            SELECT 1 FROM deliveries d {its.by.format("due")}
            WHERE d.status = 'pending' AND d.parked = {its.no} AND d.operator = o.name AND d.due_at > :now LIMIT :most
        ) AS x),
        (SELECT count(*) FROM (
            SELECT 1 FROM (SELECT {column(0)} AS type FROM {its.each.format("types")}) AS t
            JOIN deliveries d {its.by.format("dead")} ON d.type = t.type AND d.operator = o.name AND d.status = 'dead'
            LIMIT :most
        ) AS x)
    FROM (SELECT * FROM operators ORDER BY name LIMIT {MOST_OPERATORS}) AS o
    """
    )
)


def workload(database: Database, types: Collection[str], now: int) -> Workload:
    """Of every operator that was ever declared; of the dead those of these message types. Raises StoreUnavailable."""
    with database.reading() as connection:
        known = connection.scalar(select(func.count()).select_from(operators)) or 1
        limit = min(MOST_COUNTED, MOST_READ // (_COUNTS * min(known, MOST_OPERATORS)))
        return Workload(now, limit, _backlogs(connection, types, now, limit), _crew(database, connection))


def _backlogs(connection: Connection, types: Collection[str], now: int, most: int) -> list[Backlog]:
    about = {"types": orjson.dumps([[one] for one in types]).decode(), "now": now, "most": most}
    rows = connection.execute(_BACKLOGS.on(connection), about)
    return [Backlog(row[0], bool(row[1]), bool(row[2]), *row[3:]) for row in rows]


def _crew(database: Database, connection: Connection) -> int | None:
    return None if isinstance(database.place, Path) else live(connection)
