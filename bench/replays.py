"""What a bulk replay costs the live deliveries beside it: their latency by turns with the job running and paused.

`python -m bench.replays` measures both stores. A turn with and one without stand side by side, so that what else the
machine does falls on both.
"""

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import text

from bench.ground import Ground, Kind, ground
from bench.orders import as_events, orders
from bench.ours import Dispatcher, dispatcher, unlimited
from bench.processes import running
from bench.stats import sink
from dispatcher.config import load_config
from dispatcher.roster import open_vault
from dispatcher.store import replays
from dispatcher.store.engine import Database, open_database
from dispatcher.store.replays import State, Which

SLOTS = 256
STEP_SECONDS = 0.01
# At each end of a turn, what was accepted in the other one is still under way.
MARGIN_SECONDS = 0.5
_BURY = """
    UPDATE deliveries SET status = 'dead', due_at = NULL, attempts = 4, reason = 'read_timeout',
                          finished_at = accepted_at
"""
_TOOK = """
    SELECT d.accepted_at, a.started_at + a.duration - d.accepted_at FROM deliveries d
    JOIN attempts a ON a.delivery_id = d.id WHERE d.id > {last} AND a.n = 1 AND NOT a.late
"""


class Turn(NamedTuple):
    """Live deliveries from their acceptance to the yes (ms), beside a replay and without; how many were replayed."""

    off: list[float]
    on: list[float]
    replayed: int


def measure(kind: Kind, place: Ground, dead: int, pace: int, live: int, seconds: float) -> Iterator[object]:
    """Turn by turn until all are replayed; the last line is the whole."""
    with sink() as counted, dispatcher(kind, 1, unlimited(SLOTS), place, counted.url, SLOTS) as stand:
        stand.fill(orders(dead))
        with _opened(stand) as database:
            with database.writing() as connection:
                connection.execute(text(_BURY))
            with running(stand.start()), _living(stand, live, dead):
                time.sleep(5)
                job = replays.make(database, Which(since=0), pace, "bench", "to see what it costs", _now(database))
                replays.pause(database, job.id, "bench", _now(database))
                marks = list(_turns(database, job.id, seconds))
            found = replays.find(database, job.id)
            assert found is not None
            yield f"{found.state}: {found.taken} of {found.total}, {found.refused} refused, {found.rate:.1f} a second"
            yield from _told(stand, dead, marks)


def _turns(database: Database, number: int, seconds: float) -> Iterator[tuple[int, int, int]]:
    """When each turn without began, when the one with it did, and when that ended (µs)."""
    while True:
        off = _now(database)
        time.sleep(seconds)
        replays.resume(database, number, "bench", _now(database))
        on = _now(database)
        end = time.monotonic() + seconds
        while (job := replays.find(database, number)) and job.state is State.RUNNING and time.monotonic() < end:
            time.sleep(0.1)
        yield off, on, _now(database)
        if job is None or job.state is not State.RUNNING:
            return
        replays.pause(database, number, "bench", _now(database))


def _told(stand: Dispatcher, last: int, marks: list[tuple[int, int, int]]) -> Iterator[object]:
    took = sorted(stand.query(_TOOK.format(last=last)))
    margin = MARGIN_SECONDS * 1e6
    without, beside, ratios = [], [], []
    for off, on, end in marks:
        quiet = [one / 1e3 for at, one in took if off + margin <= at < on - margin]
        busy = [one / 1e3 for at, one in took if on + margin <= at < end - margin]
        if len(busy) > 100 and len(quiet) > 100:
            ratios.append(_p99(busy) / _p99(quiet))
            without += quiet
            beside += busy
    yield f"{len(ratios)} turns, {len(without)} live without, {len(beside)} beside the replay"
    for name, values in (("without", without), ("beside", beside)):
        yield f"{name}: p50 {statistics.median(values):.1f} ms, p99 {_p99(values):.1f} ms"
    whole, turns = _p99(beside) / _p99(without), statistics.median(ratios)
    yield f"p99 beside / without: {whole:.2f}; median of the turns' {turns:.2f}"
    yield f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def _now(database: Database) -> int:
    return database.clock().now()


@contextmanager
def _opened(stand: Dispatcher) -> Iterator[Database]:
    config = load_config(stand.config)
    database = open_database(config.database)
    try:
        open_vault(config, database)
        yield database
    finally:
        database.close()


@contextmanager
def _living(stand: Dispatcher, live: int, start: int) -> Iterator[None]:
    """So many live events a second, until this is left."""
    over = threading.Event()

    def feed(pipe: int) -> None:
        begun, sent = time.perf_counter(), 0
        while not over.is_set():
            due = int((time.perf_counter() - begun) * live)
            if due > sent:
                os.write(pipe, as_events(orders(due - sent, start=start + sent)))
                sent = due
            time.sleep(STEP_SECONDS)

    with stand.producer() as producer:
        assert producer.stdin is not None
        feeder = threading.Thread(target=feed, args=(producer.stdin.fileno(),))
        feeder.start()
        try:
            yield
        finally:
            over.set()
            feeder.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dead", type=int, default=100_000)
    parser.add_argument("--pace", type=int, default=500)
    parser.add_argument("--live", type=int, default=200, help="live events a second")
    parser.add_argument("--seconds", type=float, default=10, help="of one turn")
    parser.add_argument("--store", choices=["sqlite", "postgresql", "both"], default="both")
    chosen = parser.parse_args()
    kinds = {"sqlite": [Kind.SQLITE], "postgresql": [Kind.POSTGRESQL], "both": [Kind.SQLITE, Kind.POSTGRESQL]}
    with ground() as place:
        for kind in kinds[chosen.store]:
            for line in measure(kind, place, chosen.dead, chosen.pace, chosen.live, chosen.seconds):
                sys.stdout.write(f"{kind}: {line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
