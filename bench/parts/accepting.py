"""What `dispatcher enqueue` takes in, and what it costs to keep each player's events in order."""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from bench.ground import Kind
from bench.orders import FAST, orders
from bench.ours import contender, unlimited
from bench.part import Bench, Column, Part
from bench.parts.throughput import drained_by
from bench.results import Cell, Row, attempted
from bench.stats import sink

EVENTS = 100_000
SLOTS = 512
ORDERED = 'ordering = { key = "uid" }'
DEADLINE_SECONDS = 300.0


class Through(NamedTuple):
    """The same events through `enqueue` and through the worker, a second."""

    accepted: float
    settled: float


def rows(bench: Bench) -> Iterator[Row]:
    for kind in (Kind.SQLITE, Kind.POSTGRESQL):
        bench.say(kind)
        yield attempted(f"dispatcher ({kind})", DEADLINE_SECONDS, partial(_beside, bench, kind))


def _beside(bench: Bench, kind: Kind) -> dict[str, Cell]:
    """By turns: all events beside each other, and each player's one after the other."""
    pairs = [(through(bench, kind), through(bench, kind, ORDERED)) for _ in range(bench.rounds)]
    return {
        "accepted": statistics.median(free.accepted for free, _ in pairs),
        "ordered_accepted": statistics.median(ordered.accepted / free.accepted for free, ordered in pairs),
        "ordered_settled": statistics.median(ordered.settled / free.settled for free, ordered in pairs),
    }


def through(bench: Bench, kind: Kind, more: str = "") -> Through:
    """As many players as events, by chance some with a few."""
    one = contender(kind, slots=SLOTS, more=f"{unlimited(SLOTS)}\n{more}")
    given = orders(EVENTS, players=EVENTS)
    with sink() as counted, one.open(bench.ground, counted.url, SLOTS, (FAST,)) as stand:
        # The tables are there, as they are for every `enqueue` but the first.
        stand.fill(orders(1, start=EVENTS))
        started = time.perf_counter()
        stand.fill(given)
        accepted = EVENTS / (time.perf_counter() - started)
        return Through(accepted, drained_by(stand, counted, EVENTS + 1).per_second)


PART = Part(
    "accept",
    "lines a second through `dispatcher enqueue`, and what order costs",
    (
        Column("accepted", "accepted, lines/s"),
        Column("ordered_accepted", "in order, accepted: of that", "{:.2f}"),
        Column("ordered_settled", "in order, settled: of unordered", "{:.2f}"),
    ),
    rows,
)
