"""The few words in which SQLite and PostgreSQL differ; every statement is written once, around them."""

from collections.abc import Callable, Iterable
from enum import IntEnum
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


class Alone(IntEnum):
    """What transactions may do only one after the other. The numbers are one half of PostgreSQL's advisory locks."""

    WORK = 0x64697301
    MAKE = 0x64697302
    OPERATORS = 0x64697303
    LINES = 0x64697304
    SWEEP = 0x64697305


_ALONE = text("SELECT pg_advisory_xact_lock(:about, one) FROM unnest(CAST(:keys AS integer[])) AS one")


def alone(connection: Connection, about: Alone, keys: Iterable[int] = (0,)) -> None:
    """Until this transaction ends no other one is here with the same keys. On SQLite none is anyway."""
    if connection.dialect.name == "postgresql":
        # In order, so that no two wait for one another.
        connection.execute(_ALONE, {"about": int(about), "keys": sorted(set(keys))})


_ALONE_AT_ONCE = text("SELECT pg_try_advisory_xact_lock(:about, hashtext(current_schema()))")


def alone_at_once(connection: Connection, about: Alone) -> bool:
    """As `alone`, for one who would rather not wait: False where somebody else is here. On SQLite nobody is."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.execute(_ALONE_AT_ONCE, {"about": int(about)}).scalar_one())
