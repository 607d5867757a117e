"""What the HTTP API takes in: events one by one and by the thousand, the client on the same cores."""

import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from bench.deadline import Failed
from bench.ground import Kind
from bench.orders import FAST, orders
from bench.ours import Dispatcher, contender
from bench.part import Bench, Column, Part
from bench.processes import Workers, free_port, run, running
from bench.results import Cell, Row, attempted

SINGLES, IN_BATCHES, BATCH = 30_000, 100_000, 1_000
CONNECTIONS, BATCH_CONNECTIONS = 64, 4
DEADLINE_SECONDS = 300.0
SLOTS = 512


class Taken(NamedTuple):
    """Events a second, and µs of CPU that the API's process used for each."""

    per_second: float
    cpu: float


def rows(bench: Bench) -> Iterator[Row]:
    for kind in (Kind.SQLITE, Kind.POSTGRESQL):
        bench.say(kind)
        yield attempted(f"dispatcher web ({kind})", DEADLINE_SECONDS, partial(_measured, bench, kind))


def _measured(bench: Bench, kind: Kind) -> dict[str, Cell]:
    pairs = [_one_round(bench, kind) for _ in range(bench.rounds)]
    return {
        "singles": statistics.median(single.per_second for single, _ in pairs),
        "best": max(single.per_second for single, _ in pairs),
        "single_cpu": statistics.median(single.cpu for single, _ in pairs),
        "batches": statistics.median(batch.per_second for _, batch in pairs),
        "best_batches": max(batch.per_second for _, batch in pairs),
        "batch_cpu": statistics.median(batch.cpu for _, batch in pairs),
    }


def _one_round(bench: Bench, kind: Kind) -> tuple[Taken, Taken]:
    one = contender(kind, slots=SLOTS)
    # Nobody delivers meanwhile: where to is of no account.
    with one.open(bench.ground, "http://127.0.0.1:9", SLOTS, (FAST,)) as stand:
        assert isinstance(stand, Dispatcher)
        stand.fill(orders(1))
        with _serving(stand) as (url, token, workers):
            single = _posted(url, token, workers, SINGLES, 1_000_000, CONNECTIONS)
            return single, _posted(url, token, workers, IN_BATCHES, 2_000_000, BATCH_CONNECTIONS, BATCH)


@contextmanager
def _serving(stand: Dispatcher) -> Iterator[tuple[str, str, Workers]]:
    """`dispatcher web`, a key for it, and its process."""
    port, log = free_port(), stand.config.with_name("web.jsonl")
    text = stand.config.read_text("utf-8")
    own = f'listen = "127.0.0.1:{port}"\nrate = 1000000'
    stand.config.write_text(text.replace('listen = ""', own), "utf-8")
    made = [sys.executable, "-m", "dispatcher", "keys", "create", "bench", "--scope", "enqueue", "-c"]
    token = run([*made, str(stand.config)]).strip()
    with running(Workers(stand.command("web"), log)) as workers:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 30
        while not _answers(url):
            workers.check()
            if time.monotonic() > end:
                raise Failed("the API did not start")
            time.sleep(0.05)
        yield url, token, workers


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _posted(url: str, token: str, workers: Workers, count: int, start: int, connections: int, batch: int = 0) -> Taken:
    words = [str(count), "--start", str(start), "--connections", str(connections), "--batch", str(batch)]
    used = workers.cpu_seconds()
    told = json.loads(run([sys.executable, "-m", "bench.poster", url, token, *words]))
    used = workers.cpu_seconds() - used
    wanted = {"200": count // batch} if batch else {"202": count}
    if told["statuses"] != wanted:
        raise Failed(f"it answered {told['statuses']}, not {wanted}")
    return Taken(count / told["seconds"], used / count * 1e6)


PART = Part(
    "api",
    "events a second through the HTTP API, one by one and by the thousand",
    (
        Column("singles", "single, events/s"),
        Column("best", "best round"),
        Column("single_cpu", "µs of CPU each"),
        Column("batches", "by 1,000, events/s"),
        Column("best_batches", "best round"),
        Column("batch_cpu", "µs of CPU each"),
    ),
    rows,
)
