"""Both books side by side in a temporary file, so that ten million rows take disk and not memory."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import orjson

from dispatcher.policy import Status
from dispatcher.reconcile.kinds import Kind
from dispatcher.reconcile.listing import Listed

_AT_ONCE = 10_000
# Keys that are looked up in the log at once.
_LOOKED_UP = 500

T = TypeVar("T")

_TABLES = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768; PRAGMA temp_store = FILE;
    CREATE TABLE theirs (key TEXT NOT NULL, line INTEGER NOT NULL, amounts TEXT NOT NULL, booked INTEGER NOT NULL);
    CREATE TABLE ours (
        key TEXT NOT NULL, id INTEGER NOT NULL, status TEXT NOT NULL, ambiguous INTEGER NOT NULL, amounts TEXT NOT NULL,
        inside INTEGER NOT NULL
    );
"""
# All columns are in them: in the order of the keys each is read from one end to the other.
_INDEXED = (
    "CREATE INDEX theirs_by_key ON theirs (key, line, amounts, booked)",
    "CREATE INDEX ours_by_key ON ours (key, id, status, ambiguous, amounts, inside)",
)
_THEIRS = "SELECT key, line, amounts, booked FROM theirs INDEXED BY theirs_by_key ORDER BY key, line"
_OURS = "SELECT key, id, status, ambiguous, amounts, inside FROM ours INDEXED BY ours_by_key ORDER BY key"
_STRANGERS = """
    SELECT DISTINCT t.key FROM theirs t INDEXED BY theirs_by_key
    WHERE NOT EXISTS (SELECT 1 FROM ours o INDEXED BY ours_by_key WHERE o.key = t.key)
"""


class Ours(NamedTuple):
    """A delivery of the log, its amounts as plain decimals in the order of the file's columns."""

    key: str
    id: int
    status: str
    ambiguous: bool
    amounts: tuple[str | None, ...]


@dataclass(slots=True)
class Entry:
    """What the file says of a key: the lines it is in, those that are bookings, and the amounts of each of these."""

    key: str
    lines: list[int] = field(default_factory=list)
    bookings: list[int] = field(default_factory=list)
    said: list[Sequence[str | None]] = field(default_factory=list)


class Difference(NamedTuple):
    """One order on which the books differ, or that was in doubt: `known` are our amounts, `there` is the file's word.

    `id` and `status` are None where the log has no such order.
    """

    kind: Kind
    id: int | None
    status: str | None
    ambiguous: bool
    known: Sequence[str | None]
    there: Entry


class Books:
    """What is put in is compared when all of it is there."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_TABLES)
        connection.execute("BEGIN")

    def put_theirs(self, rows: Iterable[Listed]) -> None:
        for some in _some(rows, _AT_ONCE):
            given = [(row.key, row.line, _packed(row.amounts), row.booked) for row in some]
            self._connection.executemany("INSERT INTO theirs VALUES (?, ?, ?, ?)", given)

    def put_ours(self, rows: Iterable[Ours], *, inside: bool) -> None:
        """`inside`: accepted within the span; the others are there since the file has them."""
        for some in _some(rows, _AT_ONCE):
            given = [(row.key, row.id, row.status, row.ambiguous, _packed(row.amounts), inside) for row in some]
            self._connection.executemany("INSERT INTO ours VALUES (?, ?, ?, ?, ?, ?)", given)

    def index(self) -> None:
        """Once all is in but what lies outside of the span."""
        for statement in _INDEXED:
            self._connection.execute(statement)

    def strangers(self) -> Iterator[list[str]]:
        """The keys of the file that the span does not have, some at a time."""
        found = self._connection.cursor().execute(_STRANGERS)
        for some in _some(found, _LOOKED_UP):
            yield [key for (key,) in some]

    def compared(self) -> Iterator[Difference | Kind]:
        """Every order of either side: what differs as a whole, of the rest the kind alone."""
        theirs = _entries(self._connection.execute(_THEIRS))
        entry = next(theirs, None)
        for key, id_, status, ambiguous, amounts, inside in self._connection.execute(_OURS):
            while entry is not None and entry.key < key:
                yield from _unknown(entry)
                entry = next(theirs, None)
            there = entry if entry is not None and entry.key == key else Entry(key)
            known = orjson.loads(amounts)
            kind = judge(Status(status), known, there.said, len(there.bookings), inside=bool(inside))
            # Where nobody knew whether it was booked, the file says so: that is told of each.
            settled = ambiguous and status == Status.DEAD
            if kind.differs or settled:
                yield Difference(kind, id_, status, bool(ambiguous), known, there)
            else:
                yield kind
            if there is entry:
                entry = next(theirs, None)
        while entry is not None:
            yield from _unknown(entry)
            entry = next(theirs, None)


def _entries(rows: Iterable[tuple[str, int, str, int]]) -> Iterator[Entry]:
    """The file's rows, those with the same key together."""
    for key, some in groupby(rows, key=itemgetter(0)):
        entry = Entry(key)
        for _, line, amounts, booked in some:
            entry.lines.append(line)
            if booked:
                entry.bookings.append(line)
                entry.said.append(orjson.loads(amounts))
        yield entry


def _unknown(entry: Entry) -> Iterator[Difference]:
    if entry.bookings:
        yield Difference(Kind.UNKNOWN_HERE, None, None, False, [], entry)


def judge(
    status: Status, known: Sequence[str | None], theirs: Sequence[Sequence[str | None]], bookings: int, *, inside: bool
) -> Kind:
    """What one order of ours is beside what the file says of it; pure."""
    if not bookings:
        return _ABSENT[status]
    if bookings > 1:
        return Kind.BOOKED_TWICE
    if any(there is not None and there != here for said in theirs for here, there in zip(known, said, strict=True)):
        return Kind.AMOUNTS_DIFFER
    if not inside and status in _DONE:
        return Kind.OUTSIDE
    return _BOOKED[status]


_DONE = (Status.DELIVERED, Status.RESOLVED)
_ABSENT = {
    Status.PENDING: Kind.WAITING,
    Status.SENDING: Kind.WAITING,
    Status.DELIVERED: Kind.DELIVERED_ABSENT,
    Status.DEAD: Kind.MISSING_THERE,
    Status.RESOLVED: Kind.RESOLVED_ABSENT,
}
_BOOKED = {
    Status.PENDING: Kind.WAITING_BOOKED,
    Status.SENDING: Kind.WAITING_BOOKED,
    Status.DELIVERED: Kind.AGREED,
    Status.DEAD: Kind.DEAD_BOOKED,
    Status.RESOLVED: Kind.AGREED,
}


def _some(rows: Iterable[T], most: int) -> Iterator[list[T]]:
    rest = iter(rows)
    while some := list(islice(rest, most)):
        yield some


def _packed(amounts: Sequence[str | None]) -> str:
    return orjson.dumps(amounts).decode()


@contextmanager
def books(folder: Path | None) -> Iterator[Books]:
    """Empty ones, gone afterwards; `folder`: where there is room for them, the system's for None."""
    with (
        TemporaryDirectory(prefix="reconcile-", dir=folder) as place,
        closing(sqlite3.connect(Path(place) / "books.db", isolation_level=None)) as connection,
    ):
        yield Books(connection)
