"""What the daemon takes of the machine: while nothing is to be done, and while everything is."""

import time
from collections.abc import Iterator
from functools import partial

from bench.ground import Ground, Kind
from bench.orders import orders
from bench.ours import dispatcher, unlimited
from bench.part import Bench, Column, Part
from bench.processes import running
from bench.results import Cell, Row, attempted
from bench.stats import sink

IDLE_SECONDS = 30.0
# After its start, until what that needed is done.
SETTLING_SECONDS = 5.0
SLOTS = 512
LOAD = 100_000
MIB = 1024 * 1024
DEADLINE_SECONDS = 180.0


def rows(bench: Bench) -> Iterator[Row]:
    for kind in (Kind.SQLITE, Kind.POSTGRESQL):
        bench.say(kind)
        yield attempted(f"dispatcher ({kind})", DEADLINE_SECONDS, partial(_both, bench.ground, kind))


def _both(ground: Ground, kind: Kind) -> dict[str, Cell]:
    with sink() as counted, dispatcher(kind, 1, unlimited(SLOTS), ground, counted.url, SLOTS) as stand:
        stand.fill(orders(1, start=10**6))
        with running(stand.start()) as workers:
            counted.until(1, workers)
            time.sleep(SETTLING_SECONDS)
            used, started = workers.cpu_seconds(), time.perf_counter()
            time.sleep(IDLE_SECONDS)
            workers.check()
            share = (workers.cpu_seconds() - used) / (time.perf_counter() - started)
            idle = workers.resident_bytes()
            stand.fill(orders(LOAD))
            counted.until(LOAD // 10, workers)
            early = workers.resident_bytes()
            counted.until(LOAD + 1, workers)
            late = workers.resident_bytes()
    return {"idle_cpu": share * 100, "idle": idle / MIB, "early": early / MIB, "late": late / MIB}


PART = Part(
    "rest",
    "the daemon's share of one core and its memory, idle and busy",
    (
        Column("idle_cpu", "idle: % of a core", "{:.2f}"),
        Column("idle", "idle: MiB"),
        Column("early", f"after a tenth of {LOAD:,}: MiB"),
        Column("late", "after all of them: MiB"),
    ),
    rows,
)
