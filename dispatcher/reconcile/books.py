"""Both books in a temporary file, read by key, so that ten million rows take disk and not memory."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dispatcher.ground.policy import Status
from dispatcher.reconcile.kinds import Kind
from dispatcher.reconcile.listing import Listed, parted

# Orders that are judged together: those of them that the span does not have are one look-up.
_AT_ONCE = 500

# The file's lines have numbers from 1; what the log has stands on line 0, with the columns from `id` on.
_TABLE = """
    PRAGMA page_size = 16384; PRAGMA cache_size = -32768; PRAGMA temp_store = FILE;
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
    CREATE TABLE said (
        key TEXT NOT NULL, line INTEGER NOT NULL, amounts TEXT NOT NULL, booked INTEGER,
        id INTEGER, status TEXT, ambiguous INTEGER
    );
"""
_PUT_THEIRS = "INSERT INTO said (key, line, amounts, booked) VALUES (?, ?, ?, ?)"
_PUT_OURS = "INSERT INTO said (key, line, amounts, id, status, ambiguous) VALUES (?, 0, ?, ?, ?, ?)"
# Sorted while it is read: an index would be sorted as well, and written besides.
_BY_KEY = "SELECT key, line, amounts, booked, id, status, ambiguous FROM said ORDER BY key, line"


class Ours(NamedTuple):
    """A delivery of the log, its amounts as `joined` makes one text of those that the file has a column for."""

    key: str
    amounts: str
    id: int
    status: str
    ambiguous: bool


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
    """What is put in is compared when all of it is there. `agreed`: how many orders are the same in both."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.agreed = 0
        self._connection = connection
        connection.executescript(_TABLE)
        connection.execute("BEGIN")

    def put_theirs(self, rows: Iterable[Listed]) -> None:
        self._connection.executemany(_PUT_THEIRS, rows)

    def put_ours(self, rows: Iterable[Ours]) -> None:
        """What was accepted within the span."""
        self._connection.executemany(_PUT_OURS, rows)

    def compared(self, outside: Callable[[list[str]], Iterable[Ours]]) -> Iterator[Difference]:
        """Every order of either side but for those that are only counted, by key.

        `outside` looks up keys of the file that the span does not have.
        """
        held: list[list[Any]] = []
        for _, some in groupby(self._connection.execute(_BY_KEY), key=itemgetter(0)):
            rows = list(some)
            if len(rows) == 2 and _same(*rows):
                self.agreed += 1
                continue
            held.append(rows)
            if len(held) == _AT_ONCE:
                yield from _judged(held, outside)
                held.clear()
        yield from _judged(held, outside)


def _same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    """Nearly all of them: delivered here, booked there, with the same amounts. A line of theirs has no status."""
    # Columns of _BY_KEY by their numbers, since there are ten million of these: status, booked, amounts.
    return ours[5] in _DONE and theirs[3] == 1 and ours[2] == theirs[2]


def _judged(held: list[list[Any]], outside: Callable[[list[str]], Iterable[Ours]]) -> Iterator[Difference]:
    orders = [_sides(rows) for rows in held]
    strangers = [there.key for ours, there in orders if ours is None]
    found = {ours.key: ours for ours in outside(strangers)} if strangers else {}
    for known, there in orders:
        ours = known or found.get(there.key)
        if ours is not None:
            amounts, inside = parted(ours.amounts), known is not None
            kind = judge(Status(ours.status), amounts, there.said, len(there.bookings), inside=inside)
            yield Difference(kind, ours.id, ours.status, bool(ours.ambiguous), amounts, there)
        elif there.bookings:
            yield Difference(Kind.UNKNOWN_HERE, None, None, False, [], there)


def _sides(rows: list[Any]) -> tuple[Ours | None, Entry]:
    """The rows of one key as what the log has and what the file says."""
    ours, entry = None, Entry(rows[0][0])
    for key, line, amounts, booked, id_, status, ambiguous in rows:
        if line == 0:
            ours = Ours(key, amounts, id_, status, ambiguous)
            continue
        entry.lines.append(line)
        if booked:
            entry.bookings.append(line)
            entry.said.append(parted(amounts))
    return ours, entry


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


@contextmanager
def books(folder: Path | None) -> Iterator[Books]:
    """Empty ones, gone afterwards; `folder`: where there is room for them, the system's for None."""
    with (
        TemporaryDirectory(prefix="reconcile-", dir=folder) as place,
        closing(sqlite3.connect(Path(place) / "books.db", isolation_level=None)) as connection,
    ):
        yield Books(connection)
