"""What a process has counted since it began: plain numbers, added to as the work goes on and read when somebody asks.

Nothing here is locked: each number has one thread that adds to it, and whoever reads takes a copy.
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from dispatcher.ground.clock import HOUR, MILLISECOND, MINUTE, SECOND
from dispatcher.ground.policy import Claim, Outcome, Verb, Verdict

# Upper bounds of the histograms' buckets (µs): of what an operator takes, of what our own store takes, of lateness.
DURATIONS = tuple(n * MILLISECOND for n in (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000))
COMMITS = tuple(n * MILLISECOND for n in (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000))
LATENESS = (
    *(n * MILLISECOND for n in (10, 50, 100, 250, 500)),
    *(n * SECOND for n in (1, 2, 5, 10, 30)),
    *(n * MINUTE for n in (1, 5, 15)),
    HOUR,
)


class Result(StrEnum):
    """What came of an attempt. `late`: its claim had been taken away by the time it ended, so it decided nothing.

    `put_off`: a fault of our own, which is no attempt.
    """

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"
    PUT_OFF = "put_off"
    LATE = "late"


_RESULTS = {
    Verb.DELIVER: Result.DELIVERED,
    Verb.RETRY: Result.RETRY,
    Verb.BURY: Result.DEAD,
    Verb.PUT_OFF: Result.PUT_OFF,
}

# Operator, type, result, reason; "" where there is none.
Key = tuple[str, str, str, str]


class Summed(NamedTuple):
    """The attempts of one minute, which begins `at` (µs), that came to the same: how many, and sums (µs)."""

    at: int
    key: Key
    number: int
    took: int
    late: int


class Histogram:
    """How many were at most as large as each bound, by bucket; the last bucket is for what is larger than all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def include(self, other: "Histogram") -> None:
        """All that another one of the same bounds has counted."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Histogram":
        copied = Histogram(self.bounds)
        copied.include(self)
        return copied


class Figures:
    """Of one process. `durations` and `firsts` are by operator, `lateness` by trigger; all histograms in µs.

    `firsts`: deliveries whose first attempt was made here. `accepted` is by operator, type and fate, `requests` by
    operation and HTTP status.
    """

    def __init__(self) -> None:
        self.durations: dict[str, Histogram] = {}
        self.lateness: dict[str, Histogram] = {}
        self.firsts: dict[str, int] = {}
        self.turns = Histogram(COMMITS)
        self.commits = Histogram(COMMITS)
        self.accepted: dict[tuple[str, str, str], int] = {}
        self.requests: dict[tuple[str, int], int] = {}
        # What is not in the store's minutes yet, by minute; and what is: number, took, late.
        self._pending: dict[int, dict[Key, list[int]]] = {}
        self._written: dict[Key, list[int]] = {}

    def attempt(self, now: int, claim: Claim, outcome: Outcome, verdict: Verdict, *, late: bool) -> None:
        """One attempt is settled, `now` (µs)."""
        result = Result.LATE if late else _RESULTS[verdict.verb]
        key = (claim.operator, claim.type, result, verdict.reason or "")
        sums = self._sums(now - now % MINUTE, key)
        sums[0] += 1
        took = outcome.duration
        # What our own crash cut short nobody has measured, and what never left is no attempt.
        if took is None or result is Result.PUT_OFF:
            return
        behind = max(0, outcome.started_at - claim.due_at)
        sums[1] += took
        sums[2] += behind
        operator, trigger = claim.operator, claim.trigger
        durations = self.durations.get(operator)
        if durations is None:
            durations = self.durations[operator] = Histogram(DURATIONS)
            self.firsts[operator] = 0
        durations.add(took)
        if claim.attempt == 1:
            self.firsts[operator] += 1
        lateness = self.lateness.get(trigger)
        if lateness is None:
            lateness = self.lateness[trigger] = Histogram(LATENESS)
        lateness.add(behind)

    def _sums(self, at: int, key: Key) -> list[int]:
        minute = self._pending.get(at)
        if minute is None:
            minute = self._pending[at] = {}
        sums = minute.get(key)
        if sums is None:
            sums = minute[key] = [0, 0, 0]
        return sums

    def taken_in(self, operator: str, kind: str, fate: str) -> None:
        """One event was handed in, and this became of it."""
        about = (operator, kind, fate)
        self.accepted[about] = self.accepted.get(about, 0) + 1

    def answered(self, operation: str, status: int) -> None:
        """One request to the API."""
        about = (operation, status)
        self.requests[about] = self.requests.get(about, 0) + 1

    def take(self) -> list[Summed]:
        """What was not taken before. Whoever could not write it gives it back."""
        pending, self._pending = self._pending, {}
        rows = [Summed(at, key, *sums) for at, minute in pending.items() for key, sums in minute.items()]
        for row in rows:
            _add(self._written.setdefault(row.key, [0, 0, 0]), row, 1)
        return rows

    def give_back(self, rows: Sequence[Summed]) -> None:
        for row in rows:
            _add(self._written[row.key], row, -1)
            _add(self._sums(row.at, row.key), row, 1)

    def copy(self) -> "Figures":
        """As they are now, for another thread; made where they are added to."""
        copied = Figures()
        copied.durations = {name: one.copy() for name, one in self.durations.items()}
        copied.lateness = {name: one.copy() for name, one in self.lateness.items()}
        copied.firsts = self.firsts.copy()
        copied.turns, copied.commits = self.turns.copy(), self.commits.copy()
        copied.accepted, copied.requests = self.accepted.copy(), self.requests.copy()
        copied._written = {key: [count, 0, 0] for key, count in self.attempts().items()}
        return copied

    def attempts(self) -> dict[Key, int]:
        """How many attempts there were in all, by what came of them."""
        counted = {key: sums[0] for key, sums in self._written.items()}
        for minute in self._pending.values():
            for key, sums in minute.items():
                counted[key] = counted.get(key, 0) + sums[0]
        return counted


def _add(sums: list[int], row: Summed, sign: int) -> None:
    for position, value in enumerate(row[2:]):
        sums[position] += sign * value
