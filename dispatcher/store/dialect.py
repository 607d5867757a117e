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
    # One JSON list of all rows, and of some values of one row.
    every: str
    values: str
    # Behind a SELECT: its rows are ours until the commit, and another's are passed over.
    ours: str
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
    every="json_group_array({})",
    values="json_array({})",
    ours="",
    clock="CAST((julianday('now') - 2440587.5) * 86400000000 AS integer)",
    number="value",
    by="INDEXED BY {}",
)
POSTGRESQL = Dialect(
    name="postgresql",
    yes="true",
    no="false",
    each="jsonb_array_elements(CAST(:{} AS jsonb)) AS r(value)",
    every="CAST(coalesce(json_agg({}), '[]') AS text)",
    values="json_build_array({})",
    ours="FOR UPDATE SKIP LOCKED",
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
