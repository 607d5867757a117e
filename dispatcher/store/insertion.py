"""How many rows get into a table at once: as parameters on SQLite, as one JSON text on PostgreSQL.

Measured: PostgreSQL takes a JSON text in a quarter of the time that it takes as many parameters, SQLite the other way
round. A row at a time would fight for Python's lock with the event loop.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import Connection, text

from dispatcher.ground.events import Event
from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import POSTGRESQL, column
from dispatcher.store.line import BOUND, insert_in_line

_IN_LINE = insert_in_line()
# Rows in one statement on SQLite, which takes 32,766 parameters; a statement of each size is parsed once.
_SIZES = (1_000, 256, 64, 16, 4, 1)
_PASS_OVER = "ON CONFLICT DO NOTHING"

_TYPES = {"accepted_at": "bigint", "due_at": "bigint"}
_read = {name: column(position, _TYPES.get(name, "text")) for position, name in enumerate(BOUND)}
_VALUES = ", ".join(f"decode({one}, 'hex')" if name == "digest" else one for name, one in _read.items())
_NAMES = ", ".join(BOUND)
_BATCH = text(
    f"INSERT INTO deliveries ({_NAMES}) SELECT {_VALUES} FROM {POSTGRESQL.each.format('rows')} ON CONFLICT DO NOTHING"
)
# All rows of one statement see the table as it was before it: who stands behind another of them is counted.
_BATCH_IN_LINE = text(
    f"""
    INSERT INTO deliveries ({_NAMES}, in_line, parked)
    SELECT {_VALUES}, {_read["sequence"]} IS NOT NULL, {_read["sequence"]} IS NOT NULL AND (
        row_number() OVER (PARTITION BY {_read["operator"]}, {_read["sequence"]} ORDER BY place) > 1
        OR EXISTS (
            SELECT 1 FROM deliveries other
            WHERE other.operator = {_read["operator"]} AND other.sequence = {_read["sequence"]} AND other.in_line = true
        )
    )
    FROM jsonb_array_elements(CAST(:rows AS jsonb)) WITH ORDINALITY AS r(value, place)
    ORDER BY place ON CONFLICT DO NOTHING
    """
)


def insert_new(connection: Connection, events: Sequence[Event], now: int) -> int:
    """How many of the events are in the table now, due at once, that were not. Where it is fewer, take it back:

    on PostgreSQL whoever stood behind one that was not inserted may be parked behind nobody.
    """
    # Standing in line costs a look-up a row, which only those pay who are in one.
    ordered = any(event.sequence is not None for event in events)
    rest = (Status.PENDING, now, now)
    if connection.dialect.name == "sqlite":
        if ordered:
            rows = [dict(zip(BOUND, (*event, *rest), strict=True)) for event in events]
            return connection.execute(_IN_LINE, rows).rowcount
        return insert_many(connection, "deliveries", BOUND, [(*event, *rest) for event in events], _PASS_OVER)
    at = Event._fields.index("digest")
    listed = [(*event[:at], event.digest.hex(), *event[at + 1 :], *rest) for event in events]
    return connection.execute(_BATCH_IN_LINE if ordered else _BATCH, {"rows": orjson.dumps(listed).decode()}).rowcount


# What an attempt is on its way to the store: a list, in this order, since names would cost a third more.
_ATTEMPT = {
    "delivery_id": "bigint",
    "n": "integer",
    "late": "boolean",
    "trigger": "text",
    "started_at": "bigint",
    "duration": "bigint",
    "http_status": "integer",
    "code": "text",
    "reason": "text",
    "ambiguous": "boolean",
    "key_version": "integer",
    "response": "text",
    "detail": "text",
}
_ATTEMPTS = text(
    f"""
    INSERT INTO attempts ({", ".join(f'"{name}"' for name in _ATTEMPT)})
    SELECT {", ".join(column(position, kind) for position, kind in enumerate(_ATTEMPT.values()))}
    FROM {POSTGRESQL.each.format("rows")} ON CONFLICT DO NOTHING
    """
)


def insert_attempts(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    if connection.dialect.name == "sqlite":
        insert_many(connection, "attempts", tuple(_ATTEMPT), rows, _PASS_OVER)
    else:
        connection.execute(_ATTEMPTS, {"rows": orjson.dumps(rows).decode()})


def insert_many(
    connection: Connection, table: str, names: tuple[str, ...], rows: Sequence[Sequence[Any]], conflict: str = ""
) -> int:
    """Into SQLite; how many of the rows are new. `conflict` says what becomes of one whose key is there already."""
    fresh, start = 0, 0
    for size in _SIZES:
        while len(rows) - start >= size:
            values = tuple(chain.from_iterable(rows[start : start + size]))
            fresh += connection.exec_driver_sql(_statement(table, names, size, conflict), values).rowcount
            start += size
    return fresh


@cache
def _statement(table: str, names: tuple[str, ...], rows: int, conflict: str) -> str:
    row = f"({', '.join('?' * len(names))})"
    columns = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * rows)} {conflict}"
