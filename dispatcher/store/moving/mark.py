"""A store that is being copied, has moved, or has not arrived: its mark, and the fence that keeps others out.

The mark is a table of its own with one row, and is there only where it says something. The fence stands in the
database, as triggers, so that it also stops a process that opened the store before, or whoever writes without us.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Boolean, Column, Connection, MetaData, String, Table, insert, text, update
from sqlalchemy.exc import DBAPIError

from dispatcher.ground.errors import Refused
from dispatcher.ground.place import Place
from dispatcher.store.schema import locks, metadata, workers


class State(StrEnum):
    """`leaving`: new events are taken, what is there stays as it is. `left`, `arriving`: nothing changes any more."""

    LEAVING = "leaving"
    LEFT = "left"
    ARRIVING = "arriving"


class Mark(NamedTuple):
    """`copy` is the same on both sides; `other`: where it goes to or comes from, without a password; `since` in µs."""

    copy: str
    state: State
    other: str
    since: int

    def told(self, place: Place | str) -> str:
        return _TOLD[self.state].format(place=place, other=self.other)

    def refused(self, place: Place | str) -> Refused:
        return Refused(_TOLD[self.state].format(place=place, other=self.other))


_TOLD = {
    State.LEAVING: "the database {place} is being copied to {other}: until that is done it takes new events and nothing"
    " else; go on with `dispatcher db copy`, or give the copy up with `dispatcher db copy --abandon`",
    State.LEFT: "the database {place} has moved to {other}; name that one in database.url",
    State.ARRIVING: "the database {place} is a copy of {other} that is not complete; go on with"
    " `dispatcher db copy` there",
}
_CHANGES = ("INSERT", "UPDATE", "DELETE")
# No worker can begin, or go on; it may leave.
_NO_WORKER = {workers.name: ("INSERT", "UPDATE")}
# The tables that are copied page by page: what is there once stays so while the store leaves.
_LEAVING = {"deliveries": ("UPDATE", "DELETE"), "attempts": _CHANGES} | _NO_WORKER
# What is done to operators meanwhile is written at its end.
_LEAVING |= {"journal": ("UPDATE", "DELETE")}
# The rows of `locks` never change; a copy holds one of them itself.
_STILL = {name: _CHANGES for name in metadata.tables if name != locks.name} | _NO_WORKER

MARKS = Table(
    "dispatcher_copy",
    MetaData(),
    Column("copy", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("other", String, nullable=False),
    Column("since", BigInteger, nullable=False),
    # What the fence says to whoever runs into it.
    Column("told", String, nullable=False),
    # True within a transaction of the copy's own, and never committed so: the fence lets it pass.
    Column("ours", Boolean, nullable=False),
)
READ_MARK = f"SELECT copy, state, other, since FROM {MARKS.name}"
# How a refusal by the fence is told from a failure.
_SIGN = "dispatcher: "

_FUNCTION = text(
    f"""
    CREATE FUNCTION dispatcher_fence() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE mark record;
    BEGIN
        SELECT ours, told INTO mark FROM {MARKS.name};
        IF mark.ours THEN RETURN NULL; END IF;
        RAISE EXCEPTION USING MESSAGE = coalesce(mark.told, 'dispatcher: its mark is gone'), ERRCODE = 'DSP01';
    END $$
    """
)


def mark_of(row: Sequence[Any]) -> Mark:
    """From the row that READ_MARK gives."""
    return Mark(row[0], State(row[1]), row[2], row[3])


def set_mark(connection: Connection, place: Place, mark: Mark) -> None:
    """The store has this mark from the commit on, and its fence; whoever is changing something has been waited for."""
    told = f"{_SIGN}{mark.told(place)}"
    values = {**mark._asdict(), "told": told, "ours": False}
    on_server = connection.dialect.name == "postgresql"
    if mark.state is State.LEFT and on_server:
        # More triggers beside those that are there: to take them away would mean to wait for every reader.
        connection.execute(update(MARKS).values(**values))
    else:
        clear_mark(connection)
        MARKS.create(connection)
        connection.execute(insert(MARKS).values(**values))
        if on_server:
            connection.execute(_FUNCTION)
    for table, changes in (_LEAVING if mark.state is State.LEAVING else _STILL).items():
        if on_server:
            _fence_on_server(connection, mark.state, table, changes)
        else:
            _fence_in_file(connection, told, table, changes)


def _fence_on_server(connection: Connection, state: State, table: str, changes: tuple[str, ...]) -> None:
    when = f"BEFORE {' OR '.join(changes)} ON {table}"
    name = f"dispatcher_{state}"
    connection.execute(text(f"CREATE TRIGGER {name} {when} FOR EACH STATEMENT EXECUTE FUNCTION dispatcher_fence()"))


def _fence_in_file(connection: Connection, told: str, table: str, changes: tuple[str, ...]) -> None:
    # SQLite wants the words as a literal.
    quoted = told.replace("'", "''")
    for change in changes:
        name = _trigger(table, change)
        when = f"BEFORE {change} ON {table} WHEN NOT (SELECT ours FROM {MARKS.name})"
        connection.exec_driver_sql(f"CREATE TRIGGER {name} {when} BEGIN SELECT RAISE(ABORT, '{quoted}'); END")


def _trigger(table: str, change: str) -> str:
    return f"dispatcher_fence_{table}_{change.lower()}"


def clear_mark(connection: Connection) -> None:
    """The store is like any other from the commit on."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP FUNCTION IF EXISTS dispatcher_fence() CASCADE")
    else:
        for table in metadata.tables:
            for change in _CHANGES:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_trigger(table, change)}")
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {MARKS.name}")


@contextmanager
def passing(connection: Connection) -> Iterator[None]:
    """What this transaction does meanwhile passes the fence."""
    connection.execute(update(MARKS).values(ours=True))
    yield
    connection.execute(update(MARKS).values(ours=False))


def refusal(error: DBAPIError) -> Refused | None:
    """What the fence had to say, where it was that."""
    told = getattr(getattr(error.orig, "diag", None), "message_primary", None) or str(error.orig)
    return Refused(told.removeprefix(_SIGN)) if told.startswith(_SIGN) else None
