"""How long an event waits: from its acceptance to the first POST, and a retry after its time has come."""

import subprocess
import time
from collections.abc import Iterator
from functools import partial

from bench.ground import Kind
from bench.orders import Order, as_events, orders
from bench.ours import Dispatcher, dispatcher, unlimited
from bench.part import Bench, Column, Part
from bench.processes import running
from bench.results import Cell, Row, attempted
from bench.stats import sink

PER_SECOND = 1_000
SECONDS = 10
RETRIES = 1_000
SLOTS = 512
DELAYS = 'retry = { delays = ["2s", "2s", "2s"] }'
STEP_SECONDS = 0.01
DEADLINE_SECONDS = 90.0

WAITED_QUERY = """
    SELECT a.started_at - d.accepted_at FROM attempts a JOIN deliveries d ON d.id = a.delivery_id
    WHERE a.n = 1 AND d.id > {warm}
"""
LATE_QUERY = """
    SELECT later.started_at - (first.started_at + first.duration + 2000000)
    FROM attempts first JOIN attempts later ON later.delivery_id = first.delivery_id AND later.n = 2
    WHERE first.n = 1
"""


def rows(bench: Bench) -> Iterator[Row]:
    for kind in (Kind.SQLITE, Kind.POSTGRESQL):
        bench.say(kind)
        name = f"accepted to first POST, {PER_SECOND:,} accepted a second ({kind})"
        yield attempted(name, DEADLINE_SECONDS, partial(waited, bench, kind))
        name = f"due to its retry's POST, {RETRIES:,} due within a second ({kind})"
        yield attempted(name, DEADLINE_SECONDS, partial(late, bench, kind))


def waited(bench: Bench, kind: Kind) -> dict[str, Cell]:
    """Fed by a pipe at a steady rate; the commit is included."""
    warm, count = 100, PER_SECOND * SECONDS
    with sink() as counted, dispatcher(kind, 1, unlimited(SLOTS), bench.ground, counted.url, SLOTS) as stand:
        with running(stand.start()) as workers:
            with stand.producer() as producer:
                # Until both work, events would pile up in the pipe and then come in at once, not a thousand a second.
                _hand(producer, orders(warm, start=10**6))
                counted.until(warm, workers)
                _feed(producer)
            counted.until(warm + count, workers)
        return _spread(stand, WAITED_QUERY.format(warm=warm))


def _feed(producer: subprocess.Popen[bytes]) -> None:
    each, started = int(PER_SECOND * STEP_SECONDS), time.perf_counter()
    for tick in range(int(SECONDS / STEP_SECONDS)):
        _hand(producer, orders(each, start=tick * each))
        time.sleep(max(0.0, started + (tick + 1) * STEP_SECONDS - time.perf_counter()))


def _hand(producer: subprocess.Popen[bytes], given: list[Order]) -> None:
    assert producer.stdin is not None
    producer.stdin.write(as_events(given))
    producer.stdin.flush()


def late(bench: Bench, kind: Kind) -> dict[str, Cell]:
    """Each first attempt fails, and its next one is due two seconds after that."""
    more = f"{unlimited(SLOTS)}\n{DELAYS}"
    with sink("--fail-first") as counted, dispatcher(kind, 1, more, bench.ground, counted.url, SLOTS) as stand:
        stand.fill(orders(RETRIES))
        with running(stand.start()) as workers:
            counted.until(RETRIES, workers)
        return _spread(stand, LATE_QUERY)


def _spread(stand: Dispatcher, sql: str) -> dict[str, Cell]:
    """In milliseconds. The worker has ended: what it settled is written."""
    values = sorted(row[0] / 1000 for row in stand.query(sql))
    return {"least": values[0], "p50": values[len(values) // 2], "p99": values[len(values) * 99 // 100]}


PART = Part(
    "latency",
    "what an event waits, in milliseconds",
    (
        Column("least", "least, ms", "{:,.1f}"),
        Column("p50", "p50, ms", "{:,.1f}"),
        Column("p99", "p99, ms", "{:,.1f}"),
    ),
    rows,
)
