"""How new deliveries get into the table: by the driver's own loop on SQLite, as one JSON text on PostgreSQL."""

from typing import Any

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dispatcher.store.dialect import POSTGRESQL, column
from dispatcher.store.line import BOUND, insert_in_line
from dispatcher.store.schema import deliveries

_AT_ONCE = sqlite_insert(deliveries).on_conflict_do_nothing()
_IN_LINE = insert_in_line()

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


def insert_new(connection: Connection, rows: list[dict[str, Any]]) -> int:
    """How many of the rows are in the table now that were not. Where it is fewer than were given, take it back:

    on PostgreSQL whoever stood behind one that was not inserted may be parked behind nobody.
    """
    # Standing in line costs a look-up a row, which only those pay who are in one.
    ordered = any(row["sequence"] is not None for row in rows)
    if connection.dialect.name == "sqlite":
        return connection.execute(_IN_LINE if ordered else _AT_ONCE, rows).rowcount
    listed = [[row[name].hex() if name == "digest" else row[name] for name in BOUND] for row in rows]
    return connection.execute(_BATCH_IN_LINE if ordered else _BATCH, {"rows": orjson.dumps(listed).decode()}).rowcount
