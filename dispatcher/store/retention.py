"""What is deleted after a while: deliveries that ended well, with all that hangs on them, a little at a time.

The table is walked in the order of its numbers, that of acceptance but for a wrong clock. So what goes together
stood together, and its pages become free as a whole. The place that was reached is remembered by whoever walks.
"""

import time
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.engine import Database
from dispatcher.store.schema import deliveries, metadata

# Of what a person closed by hand the reason stands in the note, as long as what was delivered would be kept. What is
# dead still waits for somebody, and everything else for its turn.
KEPT_FOR_A_WHILE = (Status.DELIVERED, Status.RESOLVED)
# How far ahead is looked for rows that are old although those right in front are young, beginning there and twice as
# far each time.
_AHEAD = [1 << power for power in range(10, 40)]

_GONE = f"status IN ({', '.join(f'{status.value!r}' for status in KEPT_FOR_A_WHILE)}) AND finished_at <= :before"
_NEXT = Spelled(lambda _: f"SELECT id, accepted_at, {_GONE} FROM deliveries WHERE id > :place ORDER BY id LIMIT :most")
_OLD_AHEAD = Spelled(
    lambda its: (
        f"""
    SELECT count(*) FROM {its.each.format("ahead")} WHERE (
        SELECT d.accepted_at FROM deliveries d WHERE d.id >= :place + CAST(value AS bigint) ORDER BY d.id LIMIT 1
    ) <= :before
    """
    )
)
# Looked at again: meanwhile somebody may have sent it again, or be about to.
_OURS = Spelled(lambda its: f"SELECT id FROM deliveries WHERE id {its.among.format('ids')} AND {_GONE} {its.ours}")


def _deletion(table: str, column: str) -> Spelled:
    return Spelled(lambda its: f"DELETE FROM {table} WHERE {column} {its.among.format('ids')}")


# Whatever names a delivery goes first.
_DELETIONS = [
    _deletion(table.name, key.parent.name)
    for table in reversed(metadata.sorted_tables)
    for key in table.foreign_keys
    if key.column is deliveries.c.id
]
_DELETIONS.append(_deletion("deliveries", "id"))


class Swept(NamedTuple):
    """One step: where to go on, how many were deleted, and how long it took (s). `more`: there may be others behind."""

    place: int
    deleted: int
    took: float
    more: bool


def sweep(database: Database, place: int, before: int, most: int) -> Swept:
    """Looks at up to `most` deliveries behind `place`, and deletes those that ended well at or before `before` (µs).

    One transaction: if the power goes, it was made or it was not. Of two who sweep at once each passes over what the
    other has in hand.
    """
    started = time.perf_counter()
    with database.reading() as connection:
        rows = connection.execute(_NEXT.on(connection), {"place": place, "most": most, "before": before}).all()
        more = any(row.accepted_at <= before for row in rows) or bool(rows and _old_ahead(connection, place, before))
    gone = [row.id for row, ended in ((row, row[2]) for row in rows) if ended]
    deleted = 0
    if gone:
        with database.writing() as connection:
            deleted = _delete(connection, gone, before)
    return Swept(rows[-1].id if more else place, deleted, time.perf_counter() - started, more)


def _old_ahead(connection: Connection, place: int, before: int) -> bool:
    """Whether something old stands behind what was accepted by a clock that was ahead."""
    ahead = {"ahead": orjson.dumps(_AHEAD).decode(), "place": place, "before": before}
    return bool(connection.execute(_OLD_AHEAD.on(connection), ahead).scalar_one())


def _delete(connection: Connection, ids: list[int], before: int) -> int:
    wanted = {"ids": orjson.dumps(ids).decode(), "before": before}
    ours = {"ids": orjson.dumps(list(connection.scalars(_OURS.on(connection), wanted))).decode()}
    counts = [connection.execute(statement.on(connection), ours).rowcount for statement in _DELETIONS]
    return counts[-1]
