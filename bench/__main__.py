"""`make bench`: every measurement in one run, printed and written to docs/benchmarks.md."""

import os
import platform
import sqlite3
import statistics
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from bench import measures
from bench.measures import Rate

ROUNDS = 3
DRAIN = 40_000
PLAYERS = 100_000
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Written by `make bench`. The sink (the operator's side, which says yes to everything) runs on the same cores. Machines
are noisy: only the ratios within one run mean anything; each rate is the median of {rounds} rounds, taken in turn.

{machine}

| measured | figure | beside it |
|---|---:|---|
"""
TAIL = """
- *Settled* means: claimed, encrypted, POSTed, judged, and committed with an attempt row (`synchronous=FULL`), one log
  line each, by one process; {drain} waiting spins, 512 in flight, one operator.
- *The bare transport* sends requests of the same size in a loop: deadline, address check and body cap, but no
  encryption, no log and no store.
- *Settled in order*: `ordering = {{ key = "uid" }}`, as many spins as players, against the same spins without it.
- *Accept to first POST* is taken from the store: `accepted_at` to the attempt's `started_at`, with an `enqueue` that
  is fed by a pipe, the store's commit included.
"""


def machine() -> str:
    parts = [f"{os.cpu_count()} cores", platform.machine(), f"Python {platform.python_version()}"]
    parts += [f"SQLite {sqlite3.sqlite_version}"]
    parts += [f"{name} {version(name)}" for name in ("sqlalchemy", "httptools", "uvloop", "cryptography")]
    return ", ".join(parts) + "."


def rows() -> Iterator[tuple[str, str, str]]:
    drained, bare = [], []
    for _ in range(ROUNDS):
        bare.append(measures.transport(DRAIN))
        drained.append(measures.drain(DRAIN))
    ceiling, settled = _median(bare), _median(drained)
    share = statistics.median(d.per_second / b.per_second for d, b in zip(drained, bare, strict=True))
    yield "the bare transport", f"{ceiling.per_second:,.0f} POST/s", f"{ceiling.cpu:.0f} µs of CPU each"
    yield (
        "settled",
        f"{settled.per_second:,.0f}/s",
        f"{settled.cpu:.0f} µs of CPU each; {share:.2f} of the bare transport",
    )
    lines = _median([measures.accept(100_000) for _ in range(ROUNDS)])
    yield "accepted by `enqueue`", f"{lines.per_second:,.0f} lines/s", "validated, committed in batches of 1,000"
    yield from _ordered()
    waited = measures.latency(200, 10)
    yield "accept to first POST, 200/s", f"p50 {waited.p50:.1f} ms", f"p99 {waited.p99:.1f} ms"
    late = measures.lateness(1_000)
    yield (
        "retry after its due time, 1,000 due at once",
        f"p99 {late.p99:.1f} ms",
        f"least {late.least:.1f} ms: never early",
    )


def _ordered() -> Iterator[tuple[str, str, str]]:
    """Side by side: the same spins with one player's after the other, and all beside each other."""
    pairs = [
        (measures.lines(PLAYERS, PLAYERS, ordered=False), measures.lines(PLAYERS, PLAYERS, ordered=True))
        for _ in range(ROUNDS)
    ]
    settled = statistics.median(one.settled.per_second / other.settled.per_second for other, one in pairs)
    accepted = statistics.median(one.accepted.per_second / other.accepted.per_second for other, one in pairs)
    rate = _median([one.settled for _, one in pairs])
    yield (
        f"settled in order, {PLAYERS:,} players",
        f"{rate.per_second:,.0f}/s",
        f"{settled:.2f} of unordered; accepted at {accepted:.2f} of it",
    )


def _median(rates: list[Rate]) -> Rate:
    return Rate(statistics.median(rate.per_second for rate in rates), statistics.median(rate.cpu for rate in rates))


if __name__ == "__main__":
    text = HEAD.format(rounds=ROUNDS, machine=machine())
    sys.stdout.write(text)
    for row in rows():
        line = "| " + " | ".join(row) + " |\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        text += line
    PAGE.write_text(text + TAIL.format(drain=f"{DRAIN:,}"), "utf-8")
