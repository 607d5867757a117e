"""One after the other: deliveries of one operator that share a `sequence` stand in line; only its head is claimed.

A delivery joins the line when it is accepted and leaves it when it is finished; then the next one is no longer parked.
So what waits behind a failing one is in no index of due work, and costs nothing, however much it is.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, ScalarSelect, bindparam, exists, select, text
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dispatcher.store.schema import deliveries

_d = deliveries.c
_other = deliveries.alias("other")

# The next one of each line that somebody left, unless its head still stands.
_ADVANCE = text(
    """
    UPDATE deliveries SET parked = 0
    WHERE id IN (
        SELECT (
            SELECT min(n.id) FROM deliveries n
            WHERE n.operator = d.operator AND n.sequence = d.sequence AND n.in_line = 1 AND n.parked = 1
        )
        FROM json_each(:left) r JOIN deliveries d ON d.id = r.value
        WHERE NOT EXISTS (
            SELECT 1 FROM deliveries h
            WHERE h.operator = d.operator AND h.sequence = d.sequence AND h.in_line = 1 AND h.parked = 0
        )
    )
    """
)


def insert_in_line() -> Insert:
    """The insertion of a new delivery at the end of its line; nothing where its key is known already."""
    own: dict[str, Any] = {name: bindparam(name) for name in _BOUND}
    behind = exists().where(
        _other.c.operator == bindparam("operator"), _other.c.sequence == bindparam("sequence"), _other.c.in_line == 1
    )
    values = {**own, "in_line": bindparam("sequence").is_not(None), "parked": behind}
    return sqlite_insert(deliveries).values(values).on_conflict_do_nothing()


_BOUND = ("operator", "type", "key", "uid", "body", "digest", "bearer", "sequence", "status", "accepted_at", "due_at")


def advance(connection: Connection, left: Sequence[int]) -> None:
    """After the deliveries with these ids have left their lines: whoever is next is due."""
    if left:
        connection.execute(_ADVANCE, {"left": orjson.dumps(list(left)).decode()})


def behind_another() -> ScalarSelect[bool]:
    """For a delivery that joins its line again: whether somebody else is its head."""
    return (
        select(
            exists().where(
                _other.c.operator == _d.operator,
                _other.c.sequence == _d.sequence,
                _other.c.in_line == 1,
                _other.c.parked == 0,
                _other.c.id != _d.id,
            )
        )
        .correlate(deliveries)
        .scalar_subquery()
    )
