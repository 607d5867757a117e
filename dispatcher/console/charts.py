"""Attempts over time, as bars that the page draws by itself, and what one wants to know of them at once."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dispatcher.ground.clock import MILLISECOND
from dispatcher.ground.figures import Result
from dispatcher.store.minutes import Minute

# What is drawn, from the ground up, with the class of its colour. What is late decides nothing, a fault of our own is
# no attempt.
SHOWN = {Result.DELIVERED: "yes", Result.RETRY: "doubt", Result.DEAD: "no"}
HEIGHT = 100


@dataclass(slots=True)
class Tally:
    """What came of some attempts: counts by result, by reason of the failed ones, and how long they took (µs)."""

    results: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    took: int = 0

    def add(self, row: Minute) -> None:
        if row.result not in SHOWN:
            return
        self.results[row.result] += row.count
        self.took += row.took
        if row.reason is not None:
            self.reasons[row.reason] += row.count

    @property
    def attempts(self) -> int:
        return self.results.total()

    @property
    def delivered(self) -> int:
        return self.results[Result.DELIVERED]

    @property
    def rate(self) -> str | None:
        """How many of a hundred succeeded; never rounded up to all of them. None where there was no attempt."""
        if not self.attempts:
            return None
        thousandths = self.delivered * 1_000 // self.attempts
        return "100" if thousandths == 1_000 else f"{thousandths / 10:.1f}"

    @property
    def latency(self) -> int | None:
        """How long one took (ms), on average."""
        return round(self.took / self.attempts / MILLISECOND) if self.attempts else None

    @property
    def reason(self) -> str | None:
        """Why most of the failed ones failed."""
        return self.reasons.most_common(1)[0][0] if self.reasons else None


def tally(rows: Iterable[Minute]) -> Tally:
    summed = Tally()
    for row in rows:
        summed.add(row)
    return summed


def by_operator(rows: Iterable[Minute]) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for row in rows:
        found.setdefault(row.operator, Tally()).add(row)
    return found


class Bar(NamedTuple):
    """One part of a column, in the units of the drawing; `colour` is its class."""

    x: float
    y: float
    height: float
    colour: str


class Column(NamedTuple):
    """All attempts of one step of time, which begins `at` (µs)."""

    at: int
    counts: dict[str, int]
    total: int


class Chart(NamedTuple):
    """`wide` units of width, HEIGHT of height; `top` is the count that the whole height stands for."""

    columns: Sequence[Column]
    bars: Sequence[Bar]
    wide: int
    top: int
    sums: dict[str, int]

    @property
    def filled(self) -> Sequence[Column]:
        """Those in which there was anything, for the table beside."""
        return [column for column in self.columns if column.total]


def lately(now: int, length: int, step: int) -> tuple[int, int, int]:
    """The last `length` (µs) in whole steps, of which the last is under way: since, until, step."""
    return now - now % step - length + step, now - now % step + step, step


def chart(rows: Iterable[Minute], since: int, until: int, step: int) -> Chart:
    """The steps from `since` (a multiple of `step`) up to `until` (µs)."""
    tallies: dict[int, Counter[str]] = {at: Counter() for at in range(since, until, step)}
    for row in rows:
        at = row.at - row.at % step
        if row.result in SHOWN and at in tallies:
            tallies[at][row.result] += row.count
    columns = [Column(at, {str(one): found[one] for one in SHOWN}, found.total()) for at, found in tallies.items()]
    top = _round(max((column.total for column in columns), default=0))
    sums = {str(one): sum(column.counts[one] for column in columns) for one in SHOWN}
    return Chart(columns, list(_bars(columns, top)), 10 * len(columns), top, sums)


def _bars(columns: Sequence[Column], top: int) -> Iterable[Bar]:
    for number, column in enumerate(columns):
        ground = float(HEIGHT)
        for result, colour in SHOWN.items():
            if column.counts[result]:
                # A single dead one among thousands is to be seen.
                height = max(column.counts[result] / top * HEIGHT, 2.0)
                ground -= height
                yield Bar(10 * number + 1, round(max(ground, 0), 2), round(height, 2), colour)


def _round(most: int) -> int:
    """The next even number that one likes to read: its first digits, and noughts."""
    size = 1
    while True:
        for first in (2, 4, 6, 8, 10, 12, 16):
            if first * size >= most:
                return first * size
        size *= 10
