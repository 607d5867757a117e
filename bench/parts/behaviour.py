"""What becomes of 2,000 jobs when the worker is killed, and when one endpoint is slow; fifty in flight."""

import time
from collections.abc import Iterator
from functools import partial

from bench.contender import Contender
from bench.ground import Kind
from bench.orders import FAST, SLOW, orders
from bench.ours import contender
from bench.part import Bench, Column, Part
from bench.parts.isolation import MIXED
from bench.peers import PEERS
from bench.processes import running
from bench.results import Cell, Row, attempted
from bench.sink import Tally
from bench.stats import Counted, sink

JOBS = 2_000
SLOTS = 50
# So long, and so different, that a kill finds most of the fifty on their way, in whatever beat they were sent.
ANSWER_SECONDS = "0.05-0.15"
DOWN_SECONDS = 1.0
PATIENCE_SECONDS = 110.0
# After the last one is delivered, for what is delivered again.
AFTER_SECONDS = 2.0
DEADLINE_SECONDS = 240.0


def rows(bench: Bench) -> Iterator[Row]:
    for kind in (Kind.SQLITE, Kind.POSTGRESQL):
        whole = contender(kind, slots=SLOTS)
        if bench.wants(whole):
            # Beside slow ones with the limits that operators have unless somebody sets others.
            yield _row(bench, whole, contender(kind, slots=SLOTS, more=""))
    for peer in PEERS:
        if bench.wants(peer):
            yield _row(bench, peer, peer)


def _row(bench: Bench, whole: Contender, shared: Contender) -> Row:
    name = f"{whole.name} ({whole.kind})"
    bench.say(f"{name}: killed")
    killed = attempted(name, DEADLINE_SECONDS, partial(crash, bench, whole))
    bench.say(f"{name}: beside a slow endpoint")
    beside = attempted(name, DEADLINE_SECONDS, partial(mixed, bench, shared))
    faults = dict.fromkeys(fault for fault in (killed.fault, beside.fault) if fault)
    return Row(name, {**killed.cells, **beside.cells}, "; ".join(faults))


def crash(bench: Bench, one: Contender) -> dict[str, Cell]:
    """Killed when a third is delivered, started again a second later."""
    options = ("--by-order", "--delay", f"{FAST}={ANSWER_SECONDS}")
    with sink(*options) as counted, one.open(bench.ground, counted.url, SLOTS, (FAST,)) as stand:
        stand.fill(orders(JOBS))
        with running(stand.start()) as workers:
            counted.until(JOBS // 3, workers, every=0.02)
            workers.kill()
        time.sleep(DOWN_SECONDS)
        at_kill = _tally(counted)
        with running(stand.start()) as workers:
            started = time.monotonic()
            while (orders_seen := _tally(counted).orders) < JOBS and time.monotonic() - started < PATIENCE_SECONDS:
                workers.check()
                time.sleep(0.1)
            took = time.monotonic() - started
            time.sleep(AFTER_SECONDS)
        last = _tally(counted)
    return {
        "cut_off": float(at_kill.received - at_kill.answered),
        "undelivered": float(JOBS - orders_seen),
        "again": float(last.again),
        "recovery": took if orders_seen == JOBS else None,
    }


def _tally(counted: Counted) -> Tally:
    (tally,) = counted.tallies(FAST)
    return tally


def mixed(bench: Bench, one: Contender) -> dict[str, Cell]:
    """One in five goes to an endpoint that takes two seconds."""
    given = orders(JOBS, paths=MIXED)
    with sink("--delay", f"{SLOW}=2") as counted, one.open(bench.ground, counted.url, SLOTS, (FAST, SLOW)) as stand:
        stand.fill(given)
        with running(stand.start()) as workers:
            counted.until(sum(order.path == FAST for order in given), workers, FAST)
        first = min(tally.first for tally in counted.tallies())
        return {"fast": max(tally.answered_last for tally in counted.tallies(FAST)) - first}


PART = Part(
    "behaviour",
    "2,000 jobs, fifty in flight: killed, and beside a slow endpoint",
    (
        Column("cut_off", "in flight when killed"),
        Column("undelivered", f"undelivered {PATIENCE_SECONDS:g} s later"),
        Column("again", "delivered twice"),
        Column("recovery", "all delivered after, s", "{:.1f}"),
        Column("fast", "beside a slow endpoint: last fast delivery, s", "{:.1f}"),
    ),
    rows,
    long=True,
)
