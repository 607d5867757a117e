"""What a delivery costs in a store that has grown, how long the log takes there, and what retention costs the rest."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.deadline import Failed
from bench.filling import fill
from bench.ground import Kind
from bench.growth import ask, dent, growth, moment, opened
from bench.part import TEXT, Bench, Column, Part
from bench.results import Cell, Row, attempted

FINISHED = 300_000
WAITING = 30_000
DEADLINE_SECONDS = 600.0
_KINDS = {Kind.SQLITE: "sqlite", Kind.POSTGRESQL: "postgresql"}


def rows(bench: Bench) -> Iterator[Row]:
    for kind, name in _KINDS.items():
        bench.say(kind)
        yield attempted(f"dispatcher ({kind})", DEADLINE_SECONDS, partial(_grown, name, bench.rounds))


def _grown(kind: str, rounds: int) -> dict[str, Cell]:
    with tempfile.TemporaryDirectory(prefix="dispatcher-growth-") as folder, opened(kind, Path(folder)) as make:
        empty, grown = make("empty"), make("grown")
        fill(grown, FINISHED, WAITING, moment(), alone=True)
        cost = growth(empty, grown, rounds)
        asked = sorted(ask(grown), key=lambda one: one.took)
        beside = dent(grown, rounds)
        if not beside.deleted:
            raise Failed("nothing was deleted beside the deliveries")
    return {
        "settle": cost.claim_settle,
        "accept": cost.accept,
        "log": asked[len(asked) // 2].took,
        "slowest": asked[-1].took,
        "what": asked[-1].what,
        "dent": beside.ratio,
    }


PART = Part(
    "growth",
    f"the cost of a delivery with {FINISHED:,} finished and {WAITING:,} waiting, of that in an empty store",
    (
        Column("settle", "claim and settle, of the empty store's", "{:.2f}"),
        Column("accept", "accept, of the empty store's", "{:.2f}"),
        Column("log", "the log: median of all filters, ms", "{:.1f}"),
        Column("slowest", "the slowest, ms", "{:.0f}"),
        Column("what", "which was", TEXT),
        Column("dent", "throughput while retention deletes, of without", "{:.2f}"),
    ),
    rows,
    long=True,
)
