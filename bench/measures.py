"""The measurements, each against real processes: what is counted is what a user would get."""

import subprocess
import sys
import time
from typing import NamedTuple

from bench.machinery import CONCURRENCY, Stand, cpu_seconds, crowd, free_port, percentile, sink, spins, stand

PATIENCE_SECONDS = 120.0
ORDERING = 'ordering = { key = "uid" }'

WAITED_QUERY = """
    SELECT a.started_at - d.accepted_at FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE a.n = 1
"""
LATENESS_QUERY = """
    SELECT later.started_at - (first.started_at + first.duration + 2000000)
    FROM attempts first JOIN attempts later ON later.delivery_id = first.delivery_id AND later.n = 2
    WHERE first.n = 1
"""


class Rate(NamedTuple):
    """Events a second, and µs of the process's CPU for each."""

    per_second: float
    cpu: float


class Both(NamedTuple):
    """The same events through `enqueue` and through the corridor."""

    accepted: Rate
    settled: Rate


class Spread(NamedTuple):
    """Milliseconds."""

    least: float
    p50: float
    p99: float


def accept(count: int) -> Rate:
    """Lines a second through `dispatcher enqueue`, committed."""
    events = spins(0, count)
    with stand() as place:
        place.enqueue(spins(count, 1))
        return _accept(place, events, count)


def _accept(place: Stand, events: bytes, count: int) -> Rate:
    started = time.perf_counter()
    place.enqueue(events)
    return Rate(count / (time.perf_counter() - started), 0.0)


def drain(count: int, concurrency: int = CONCURRENCY) -> Rate:
    """`count` waiting spins, from claimed to settled with an attempt row each."""
    with stand(concurrency) as place:
        place.enqueue(spins(0, count))
        return _drain(place, count)


def _drain(place: Stand, count: int) -> Rate:
    with place.daemon() as daemon:
        before = _wait(place, count // 10)
        started, cpu = time.perf_counter(), cpu_seconds(daemon.pid)
        _wait(place, count)
        elapsed, used = time.perf_counter() - started, cpu_seconds(daemon.pid) - cpu
    return Rate((count - before) / elapsed, used / (count - before) * 1e6)


def lines(count: int, players: int, *, ordered: bool) -> Both:
    """`count` spins of so many players, each player's one after the other or all beside each other."""
    events = crowd(count, players)
    with stand(more=ORDERING if ordered else "") as place:
        place.enqueue(spins(10**9, 1))
        return Both(_accept(place, events, count), _drain(place, count + 1))


def transport(count: int, concurrency: int = CONCURRENCY) -> Rate:
    """The same requests through the bare transport, without encryption, judge and store: the ceiling."""
    port = free_port()
    with sink(port):
        command = [sys.executable, "-m", "bench.transport", str(port), str(count), str(concurrency)]
        rate, cpu = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Rate(float(rate), float(cpu))


def latency(per_second: int, seconds: int) -> Spread:
    """From acceptance to the first POST, at a steady rate."""
    with stand() as place:
        place.enqueue(spins(10**6, 100))
        with place.daemon(), place.producer() as producer:
            _wait(place, 100)
            _feed(producer, per_second, seconds)
            _wait(place, 100 + per_second * seconds)
        waited = [row[0] / 1000 for row in place.query(f"{WAITED_QUERY} AND d.id > 100")]
    return Spread(min(waited), percentile(waited, 0.5), percentile(waited, 0.99))


def _feed(producer: subprocess.Popen[bytes], per_second: int, seconds: int) -> None:
    assert producer.stdin is not None
    step = 0.01
    each = int(per_second * step)
    started = time.perf_counter()
    for tick in range(int(seconds / step)):
        producer.stdin.write(spins(tick * each, each))
        producer.stdin.flush()
        time.sleep(max(0.0, started + (tick + 1) * step - time.perf_counter()))


def lateness(count: int) -> Spread:
    """How long after its due time a retry is POSTed, when `count` fall due within about a second; never below zero."""
    with stand(CONCURRENCY, "--fail-first") as place:
        place.enqueue(spins(0, count))
        with place.daemon():
            _wait(place, 2 * count)
        late = [row[0] / 1000 for row in place.query(LATENESS_QUERY)]
    return Spread(min(late), percentile(late, 0.5), percentile(late, 0.99))


def _wait(place: Stand, count: int) -> int:
    """Until `count` attempts are settled; how many there are then. Raises TimeoutError instead of waiting for ever."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (settled := place.settled()) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{settled} of {count} attempts settled after {PATIENCE_SECONDS:g} s")
        # Seldom: counting costs the machine what is to be measured.
        time.sleep(0.2)
    return settled
