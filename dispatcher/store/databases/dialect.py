"""The few words in which SQLite and PostgreSQL differ; every statement is written once, around them."""

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, text


class Dialect(NamedTuple):
    """One database's words. `yes`, `no`: the literals that a boolean is compared with, as partial indexes have them."""

    name: str
    yes: str
    no: str
    # The parameter of this name, a JSON list, as rows with one column `value`.
    each: str
    # Behind a column: it is one of these numbers, the parameter of this name, a JSON list.
    among: str
    # One JSON list of all rows, and of some values of one row.
    every: str
    values: str
    # Bytes as hexadecimal digits.
    hex: str
    # Behind a SELECT: its rows are ours until the commit, and another's are passed over.
    ours: str
    # The same, and another's are waited for.
    held: str
    # The database's own clock, µs since 1970: it goes on within a transaction.
    clock: str
    # A row of `each` as a whole number, for a look-up in an index: SQLite makes none of it where the value is cast.
    number: str
    # Behind a table: this index, or an error. PostgreSQL chooses for itself, by what the tables hold.
    by: str


SQLITE = Dialect(
    name="sqlite",
    yes="1",
    no="0",
    each="json_each(:{}) r",
    among="IN (SELECT CAST(value AS bigint) FROM json_each(:{}))",
    every="json_group_array({})",
    values="json_array({})",
    hex="hex({})",
    ours="",
    held="",
    clock="CAST((julianday('now') - 2440587.5) * 86400000000 AS integer)",
    number="value",
    by="INDEXED BY {}",
)
POSTGRESQL = Dialect(
    name="postgresql",
    yes="true",
    no="false",
    each="jsonb_array_elements(CAST(:{} AS jsonb)) AS r(value)",
    # As a list, not as rows: those could be planned as a join, with a whole index on its other side.
    among="= ANY(ARRAY(SELECT CAST(value AS bigint) FROM jsonb_array_elements(CAST(:{} AS jsonb)) AS r(value)))",
    every="CAST(coalesce(json_agg({}), '[]') AS text)",
    values="json_build_array({})",
    hex="encode({}, 'hex')",
    ours="FOR UPDATE SKIP LOCKED",
    held="FOR UPDATE",
    clock="CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
    number="CAST(value AS bigint)",
    by="",
)
_DIALECTS = {its.name: its for its in (SQLITE, POSTGRESQL)}


def words_of(connection: Connection) -> Dialect:
    return _DIALECTS[connection.dialect.name]


class Spelled:
    """A statement in each database's words."""

    def __init__(self, spell: Callable[[Dialect], str]) -> None:
        self._texts = {name: text(spell(words)) for name, words in _DIALECTS.items()}

    def on(self, connection: Connection) -> TextClause:
        return self._texts[connection.dialect.name]


def column(position: int, kind: str = "text") -> str:
    """The value at this position of a row of `each`, as a column of this type."""
    value = f"r.value->>{position}"
    return value if kind == "text" else f"CAST({value} AS {kind})"
