"""One after the other: deliveries of one operator that share a `sequence` stand in line; only its head is claimed.

A delivery joins the line when it is accepted and leaves it when it is finished; then the next one is no longer parked.
So what waits behind a failing one is in no index of due work, and costs nothing, however much it is.
"""

from collections.abc import Collection
from typing import Any
from zlib import crc32

import orjson
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    bindparam,
    exists,
    false,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dispatcher.ground.events import Event
from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import Dialect, Spelled, column, words_of
from dispatcher.store.databases.locks import LINES, Alone, alone
from dispatcher.store.engine import Database
from dispatcher.store.schema import deliveries

_PAGE = 1_000

# An operator, and what those in the line share.
Line = tuple[str, str]

# The values of a new delivery: its event's, in their order, and where it stands.
BOUND = (*Event._fields, "status", "accepted_at", "due_at")


# Whether a delivery must wait: for one that is under way, or will be again; for a dead one only where that was accepted
# before it. What the index is partial by is a literal, not a parameter: SQLite takes it only where it sees that.
def in_the_way(its: Dialect) -> str:
    return f"""
        EXISTS (
            SELECT 1 FROM deliveries h
            WHERE h.operator = deliveries.operator AND h.sequence = deliveries.sequence
              AND h.in_line = {its.yes} AND h.parked = {its.no} AND h.id <> deliveries.id
              AND (h.status <> 'dead' OR h.id < deliveries.id)
        )
    """


_LINES_OF = Spelled(
    lambda its: f"SELECT operator, sequence FROM deliveries WHERE sequence IS NOT NULL AND id {its.among.format('ids')}"
)

# The next one of each line that somebody left.
_ADVANCE = Spelled(
    lambda its: (
        f"""
    UPDATE deliveries SET parked = {its.no}
    WHERE id IN (
        SELECT (
            SELECT min(n.id) FROM deliveries n
            WHERE n.operator = {column(0)} AND n.sequence = {column(1)}
              AND n.in_line = {its.yes} AND n.parked = {its.yes}
        )
        FROM {its.each.format("left")}
    ) AND NOT {in_the_way(its)}
    RETURNING operator
    """
    )
)


# Those accepted before one that the operator has by now, or may have: the dead, and those who are back in line.
_SUPERSEDE = Spelled(
    lambda its: (
        f"""
    UPDATE deliveries SET superseded = {its.yes}
    WHERE superseded = {its.no} AND id IN (
        SELECT d.id FROM {its.each.format("gone")} CROSS JOIN deliveries d {its.by.format("dead_of_line")}
        WHERE d.operator = {column(0)} AND d.sequence = {column(1)} AND d.id < {column(2, "bigint")}
          AND d.status = 'dead' AND d.sequence IS NOT NULL
        UNION ALL
        SELECT d.id FROM {its.each.format("gone")} CROSS JOIN deliveries d {its.by.format("line")}
        WHERE d.operator = {column(0)} AND d.sequence = {column(1)} AND d.id < {column(2, "bigint")}
          AND d.in_line = {its.yes} AND d.parked = {its.yes}
    )
    """
    )
)


def hold(connection: Connection, lines: Collection[Line]) -> None:
    """Whoever joins or leaves one of these lines does it after us: what is looked up in them stays so.

    Without it an event could be parked behind the one that leaves at this moment, and nobody would call it.
    """
    if lines:
        alone(connection, Alone.LINES, (crc32("\0".join(line).encode()) % LINES for line in lines))


def insert_in_line() -> Insert:
    """The insertion of a new delivery at the end of its line; nothing where its key is known already."""
    own: dict[str, Any] = {name: bindparam(name) for name in BOUND}
    other = deliveries.alias("other").c
    behind = exists().where(
        other.operator == own["operator"], other.sequence == own["sequence"], other.in_line == true()
    )
    values = {**own, "in_line": own["sequence"].is_not(None), "parked": behind}
    return sqlite_insert(deliveries).values(values).on_conflict_do_nothing()


def advance(connection: Connection, left: Collection[Line]) -> set[str]:
    """After somebody has left these lines, or died in them: whoever is next is due; the operators that have such."""
    if not left:
        return set()
    return {row[0] for row in connection.execute(_ADVANCE.on(connection), {"left": orjson.dumps(list(left)).decode()})}


def supersede(connection: Connection, gone: Collection[tuple[str, str, int]]) -> None:
    """(operator, sequence, id) of what an operator has now, or may have: what was accepted before it comes too late."""
    if gone:
        connection.execute(_SUPERSEDE.on(connection), {"gone": orjson.dumps(list(gone)).decode()})


def let_dead_leave(database: Database, operators: Collection[str]) -> None:
    """For operators whose dead are in nobody's way: those who died while they still were, leave their lines."""
    d = deliveries.c
    dead = [d.operator.in_(operators), d.status == literal_column(f"'{Status.DEAD}'"), d.in_line == true()]
    dead.append(d.parked == false())
    with database.reading() as connection:
        ids = list(connection.scalars(select(d.id).where(*dead)))
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        with database.writing() as connection:
            lines = lines_of(connection, page)
            hold(connection, lines)
            connection.execute(update(deliveries).where(d.id.in_(page), *dead[1:]).values(in_line=False))
            advance(connection, lines)


def lines_of(connection: Connection, ids: Collection[int]) -> list[Line]:
    """The lines in which the deliveries with these ids stand, or stood."""
    given = {"ids": orjson.dumps(list(ids)).decode()}
    return [(operator, sequence) for operator, sequence in connection.execute(_LINES_OF.on(connection), given)]


def in_the_way_of(database: Database, number: int, most: int) -> list[int]:
    """The numbers of those for which this delivery may have to wait in its line, whose turn it is first; `most`."""
    d, its = deliveries.c, deliveries.alias("its").c
    own = select(its.operator, its.sequence).where(its.id == number, its.sequence.is_not(None)).subquery()
    others = select(d.id).join(own, (d.operator == own.c.operator) & (d.sequence == own.c.sequence))
    with database.reading() as connection:
        words = words_of(connection)
        in_line = literal_column(f"deliveries.in_line = {words.yes}", Boolean)
        has_turn = literal_column(f"deliveries.parked = {words.no}", Boolean)
        found = others.where(in_line, d.id != number, has_turn | (d.id < number))
        return list(connection.scalars(found.order_by(d.parked, d.id).limit(most)))


def behind_another(connection: Connection) -> ColumnElement[bool]:
    """For a delivery that joins its line again: whether it has to wait for somebody else."""
    return literal_column(in_the_way(words_of(connection)), Boolean)


def behind_a_later_one(its: Dialect) -> str:
    """SQL for a dead one: whether one that was accepted after it is at the head of its line, and would go out first."""
    return f"""
        EXISTS (
            SELECT 1 FROM deliveries h
            WHERE h.operator = deliveries.operator AND h.sequence = deliveries.sequence
              AND h.in_line = {its.yes} AND h.parked = {its.no} AND h.id > deliveries.id AND h.status <> 'dead'
        )
        """
