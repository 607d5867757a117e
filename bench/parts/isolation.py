"""What one operator's slowness costs the others, when all share fifty requests in flight."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench.deadline import Failed
from bench.ground import Kind
from bench.orders import FAST, SLOW, Order, operator, orders
from bench.ours import dispatcher, unlimited
from bench.part import Bench, Column, Part
from bench.processes import Workers, running
from bench.results import Cell, Row, attempted
from bench.sink import Tally
from bench.stats import Counted, sink

SLOTS = 50
# One in five goes to the slow one.
MIXED = (FAST, FAST, FAST, FAST, SLOW)
CROWD = tuple(f"{SLOW if n % 5 == 4 else FAST}/{n:04d}" for n in range(1_000))
# How long it is watched whether the slow one's own events flow, from the first request on.
PERIOD_SECONDS = 20.0
ALONE_SECONDS = 3.0
PATIENCE_SECONDS = 90.0
DEADLINE_SECONDS = 150.0

_ACCEPTED_QUERY = f"SELECT min(accepted_at) FROM deliveries WHERE operator = '{operator(FAST)}'"


@dataclass(frozen=True, slots=True)
class Case:
    """`more` are settings of every operator; `delay` is what an answer of the slow one takes.

    `given` waits when the worker starts; `later` comes when the slow one has had the worker to itself for a while.
    """

    name: str
    delay: str
    given: Sequence[Order]
    later: Sequence[Order] = ()
    more: str = ""


def cases() -> Iterator[Case]:
    """The first two kinds twice: an operator may have all that the worker has, or what it has by default."""
    mixed, backlog, later = orders(2_000, paths=MIXED), orders(100_000, paths=(SLOW,)), orders(1_600, start=10**6)
    for limits, more in (("", ""), (", no operator limited", unlimited(SLOTS))):
        yield Case(f"one in five of 2,000 to an operator that takes 2 s{limits}", "2", mixed, more=more)
        yield Case(
            f"1,600 come, 100,000 wait for an operator that never answers{limits}", "never", backlog, later, more
        )
    yield Case("10,000 to 1,000 operators, of which 200 take 2 s", "2", orders(10_000, paths=CROWD))


def rows(bench: Bench) -> Iterator[Row]:
    for case in cases():
        for kind in (Kind.SQLITE, Kind.POSTGRESQL):
            name = f"{case.name} ({kind})"
            bench.say(name)
            yield attempted(name, DEADLINE_SECONDS, partial(isolated, bench, case, kind))


def isolated(bench: Bench, case: Case, kind: Kind) -> dict[str, Cell]:
    paths = sorted({one.path for one in (*case.given, *case.later)})
    with (
        sink("--delay", f"{SLOW}={case.delay}") as counted,
        dispatcher(kind, 1, case.more, bench.ground, counted.url, SLOTS, paths) as stand,
    ):
        stand.fill(case.given)
        with running(stand.start()) as workers:
            first = since = counted.begun(workers)
            if case.later:
                time.sleep(ALONE_SECONDS)
                stand.fill(case.later)
                since = stand.query(_ACCEPTED_QUERY)[0][0] / 1e6
            fast = sum(one.path.startswith(FAST) for one in (*case.given, *case.later))
            return watched(counted, workers, fast, first, since)


def watched(counted: Counted, workers: Workers, fast: int, first: float, since: float) -> dict[str, Cell]:
    """The last fast delivery, from `since` on; what went to the slow within the period, which begins at `first`."""
    slow: list[Tally] = []
    while counted.answered(FAST) < fast or not slow:
        workers.check()
        if not slow and time.time() - first >= PERIOD_SECONDS:
            slow = counted.tallies(SLOW) or [Tally()]
        if time.time() - first > PATIENCE_SECONDS:
            raise Failed(
                f"{fast - counted.answered(FAST)} of {fast} fast ones not delivered after {PATIENCE_SECONDS:g} s"
            )
        time.sleep(0.1)
    return {
        "fast": max(tally.answered_last for tally in counted.tallies(FAST)) - since,
        "sent": float(sum(tally.received for tally in slow)),
        "answered": float(sum(tally.answered for tally in slow)),
    }


PART = Part(
    "isolation",
    "the last delivery to a fast operator beside slow ones, fifty in flight in all",
    (
        Column("fast", "last fast delivery, s", "{:.1f}"),
        Column("sent", f"sent to the slow in {PERIOD_SECONDS:g} s"),
        Column("answered", "of these answered"),
    ),
    rows,
)
