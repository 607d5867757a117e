"""What the kills cost, from the store and the operator's books: decided by values alone."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple


class Held(NamedTuple):
    """A claim in the dead worker's hands: the delivery's key, the number of the attempt."""

    key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Kill:
    """One death at `at`; recovery is measured from `since` (s since 1970). `held`: what stood claimed, by delivery.

    `cut`: the keys of the batch that was not acknowledged yet.
    """

    point: str
    at: float
    since: float
    held: Mapping[int, Held] = field(default_factory=dict)
    cut: Collection[str] = ()


class Delivery(NamedTuple):
    """`finished_at` in s since 1970."""

    id: int
    key: str
    status: str
    attempts: int
    finished_at: float | None


class Attempt(NamedTuple):
    delivery: int
    n: int
    late: bool
    reason: str | None
    ambiguous: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at the end: the keys that were promised, the operator's bookings (s since 1970), the store's rows."""

    accepted: Collection[str]
    booked: Mapping[str, Sequence[float]]
    deliveries: Sequence[Delivery]
    attempts: Sequence[Attempt]


@dataclass(slots=True)
class Tally:
    """What the kills at one point came to. `held`: the most in flight at one; times in s, one for each kill."""

    kills: int = 0
    lost: int = 0
    duplicates: int = 0
    held: int = 0
    firsts: list[float] = field(default_factory=list)
    lasts: list[float] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.kills += other.kills
        self.lost += other.lost
        self.duplicates += other.duplicates
        self.held = max(self.held, other.held)
        self.firsts += other.firsts
        self.lasts += other.lasts

    def told(self) -> dict[str, Any]:
        return {
            "kills": self.kills,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "most_in_flight": self.held,
            "first_seconds": _spread(self.firsts),
            "last_seconds": _spread(self.lasts),
        }


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    return {"median": round(median(seconds), 3), "worst": round(max(seconds), 3)} if seconds else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """By point; `stalled`: attempts cut off without a kill, of workers that lived but were taken for dead."""

    tallies: Mapping[str, Tally]
    stalled: int
    faults: Sequence[str]


def judge(kills: Sequence[Kill], seen: Seen, *, alone: bool) -> Judgement:
    """`alone`: one worker at a time, so that nobody takes a living one for dead, and all wait for its restart."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for kill in kills:
        tally = tallies[kill.point]
        tally.kills += 1
        tally.held = max(tally.held, len(kill.held))
    faults = [
        *_losses(kills, seen, tallies),
        *_unbooked(seen),
        *_gaps(seen),
        *_cuts(kills, seen),
        *_duplicates(kills, seen, tallies),
    ]
    _times(kills, seen, tallies, alone=alone)
    cut = {(id_, one.attempt) for kill in kills for id_, one in kill.held.items()}
    stalled = sum(one.reason == "interrupted" and (one.delivery, one.n) not in cut for one in seen.attempts)
    if alone and stalled:
        faults.append(f"{stalled} attempts stand as interrupted that no kill cut off")
    return Judgement(tallies, stalled, faults)


def _losses(kills: Sequence[Kill], seen: Seen, tallies: Mapping[str, Tally]) -> Iterable[str]:
    delivered = {one.key for one in seen.deliveries if one.status == "delivered"}
    touched = {key: kill for kill in kills for key in [*kill.cut, *(one.key for one in kill.held.values())]}
    lost = sorted(set(seen.accepted) - delivered)
    for key in lost:
        if key in touched:
            tallies[touched[key].point].lost += 1
    if lost:
        yield f"lost: {len(lost)} of those accepted are not delivered: {_few(lost)}"


def _unbooked(seen: Seen) -> Iterable[str]:
    unbooked = [one.key for one in seen.deliveries if one.status == "delivered" and one.key not in seen.booked]
    if unbooked:
        yield f"unbooked: {len(unbooked)} stand as delivered that the operator never booked: {_few(unbooked)}"


def _gaps(seen: Seen) -> Iterable[str]:
    numbers: dict[int, list[int]] = defaultdict(list)
    for one in seen.attempts:
        if not one.late:
            numbers[one.delivery].append(one.n)
    gaps = [one.key for one in seen.deliveries if sorted(numbers[one.id]) != list(range(1, one.attempts + 1))]
    if gaps:
        yield f"gap: of {len(gaps)} deliveries the attempts' numbers are not whole: {_few(gaps)}"


def _cuts(kills: Sequence[Kill], seen: Seen) -> Iterable[str]:
    marked = {(one.delivery, one.n) for one in seen.attempts if one.reason == "interrupted" and one.ambiguous}
    unmarked = [one.key for kill in kills for id_, one in kill.held.items() if (id_, one.attempt) not in marked]
    if unmarked:
        yield f"unmarked: {len(unmarked)} attempts that were cut off are not marked so: {_few(unmarked)}"


def _duplicates(kills: Sequence[Kill], seen: Seen, tallies: Mapping[str, Tally]) -> Iterable[str]:
    """An order may be booked once more for each attempt of it that was cut off: so never more than was in flight.

    Each repetition is put down to the last kill before it that had the order in flight, and to each such kill one.
    """
    holders: dict[str, list[Kill]] = defaultdict(list)
    for kill in kills:
        for one in kill.held.values():
            holders[one.key].append(kill)
    keys = {one.id: one.key for one in seen.deliveries}
    marked = Counter(keys[one.delivery] for one in seen.attempts if one.reason == "interrupted")
    unexplained = []
    for key, times in seen.booked.items():
        for at in sorted(times)[:0:-1]:
            before = [kill for kill in holders[key] if kill.at <= at]
            if before:
                tallies[before[-1].point].duplicates += 1
                holders[key].remove(before[-1])
        if len(times) - 1 > marked[key]:
            unexplained.append(key)
    if unexplained:
        yield f"unexplained: {len(unexplained)} orders were booked again that were not in flight: {_few(unexplained)}"


def _times(kills: Sequence[Kill], seen: Seen, tallies: Mapping[str, Tally], *, alone: bool) -> None:
    """What was cut off again before it was delivered counts for the kill that cut it off last."""
    finished = {one.id: one.finished_at for one in seen.deliveries}
    last = {id_: number for number, kill in enumerate(kills) for id_ in kill.held}
    everybody = sorted(at for at in finished.values() if at is not None)
    for number, kill in enumerate(kills):
        ends = [finished.get(id_) for id_ in kill.held if last[id_] == number]
        back = [at - kill.since for at in ends if at is not None]
        tally = tallies[kill.point]
        if back:
            tally.lasts.append(max(back))
        if alone:
            until = kills[number + 1].at if number + 1 < len(kills) else float("inf")
            tally.firsts += [at - kill.since for at in everybody if kill.since <= at < until][:1]
        elif back:
            tally.firsts.append(min(back))


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
