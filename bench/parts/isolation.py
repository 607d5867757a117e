"""What one operator's slowness costs the others, when all share fifty requests in flight."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench.deadline import Failed
from bench.ground import Kind
from bench.orders import FAST, SLOW, Order, orders
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
PATIENCE_SECONDS = 90.0
DEADLINE_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Case:
    """`more` are settings of every operator; `delay` is what an answer of the slow one takes."""

    name: str
    delay: str
    given: Sequence[Order]
    more: str = ""


def cases() -> Iterator[Case]:
    mixed, backlog = orders(2_000, paths=MIXED), [*orders(100_000, paths=(SLOW,)), *orders(1_600, start=10**6)]
    own = "no operator has a limit of its own"
    yield Case("one in five of 2,000 to an operator that takes 2 s", "2", mixed)
    yield Case(f"the same, {own}", "2", mixed, unlimited(SLOTS))
    yield Case("1,600 behind 100,000 for an operator that never answers", "never", backlog)
    yield Case(f"the same, {own}", "never", backlog, unlimited(SLOTS))
    yield Case("10,000 to 1,000 operators, of which 200 take 2 s", "2", orders(10_000, paths=CROWD))


def rows(bench: Bench) -> Iterator[Row]:
    before = ""
    for case in cases():
        # A table's rows need names of their own.
        full = case.name.replace("the same", before)
        before = before if full != case.name else case.name
        for kind in (Kind.SQLITE, Kind.POSTGRESQL):
            bench.say(f"{full} ({kind})")
            yield attempted(
                f"{full} ({kind})",
                DEADLINE_SECONDS,
                partial(isolated, bench, case, kind),
            )


def isolated(bench: Bench, case: Case, kind: Kind) -> dict[str, Cell]:
    paths = sorted({one.path for one in case.given})
    with (
        sink("--delay", f"{SLOW}={case.delay}") as counted,
        dispatcher(kind, 1, case.more, bench.ground, counted.url, SLOTS, paths) as stand,
    ):
        stand.fill(case.given)
        with running(stand.start()) as workers:
            return watched(counted, workers, sum(one.path.startswith(FAST) for one in case.given))


def watched(counted: Counted, workers: Workers, fast: int) -> dict[str, Cell]:
    """From the first request on: when the last fast delivery was made, what went to the slow within the period."""
    first = counted.begun(workers)
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
        "fast": max(tally.answered_last for tally in counted.tallies(FAST)) - first,
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
