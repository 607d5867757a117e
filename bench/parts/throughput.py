"""How many a second: encrypt, POST, mark done, with everything waiting; the dispatcher and its peers by turns."""

import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.contender import Contender, Stand
from bench.deadline import Failed, deadline
from bench.ground import Kind
from bench.loader import Capacity, capacity, check
from bench.orders import FAST, orders
from bench.ours import JOBS, SLOTS, contender
from bench.part import TEXT, Bench, Column, Part
from bench.peers import PEERS
from bench.peers.job import body
from bench.processes import running
from bench.results import Cell, Row, fault
from bench.stats import Counted, sink

DEADLINE_SECONDS = 150.0
ON_SQLITE = contender(Kind.SQLITE)
ON_POSTGRESQL = contender(Kind.POSTGRESQL)
# What suits the dispatcher, and what the peers have: how much of the difference is that setting is to be seen.
AS_PEERS = tuple(
    replace(contender(kind, slots=50), name="dispatcher, 50 in flight") for kind in (Kind.SQLITE, Kind.POSTGRESQL)
)
OURS = (ON_SQLITE, ON_POSTGRESQL, contender(Kind.POSTGRESQL, 2), *AS_PEERS)
BARE = "the bare transport: no encryption, no log, no store"
SINK = "the sink itself, one request in each write, a second of its CPU"


@dataclass(frozen=True, slots=True)
class Drained:
    """Deliveries a second, µs of CPU for each, how busy one core was with the sink (0 to 1).

    `cpu` is what the workers used, `server_cpu` what the store's server did.
    """

    per_second: float
    cpu: float
    server_cpu: float
    sink_share: float


def contenders() -> list[Contender]:
    """The dispatcher's turns stand between those of the peers that come near it."""
    ours, peers = list(OURS), list(PEERS)
    mixed = [one for pair in zip(ours, peers, strict=False) for one in pair]
    return mixed + peers[len(ours) :]


def drain(bench: Bench, one: Contender) -> Drained:
    """Everything is waiting when the workers start; the rate is taken where the requests arrive."""
    with sink() as counted, one.open(bench.ground, counted.url, one.slots, (FAST,)) as stand:
        stand.fill(orders(one.jobs))
        drained = drained_by(stand, counted, one.jobs, bench.ground.server_cpu)
        check_work(counted, one.jobs)
    return drained


def check_work(counted: Counted, jobs: int) -> None:
    """Nobody saves work by sending something else. Raises Failed."""
    (tally,) = counted.tallies()
    if (tally.received, tally.octets) != (jobs, octets(jobs)):
        raise Failed(f"{tally.received} requests of {tally.octets} bytes, not {jobs} of {octets(jobs)}")


def drained_by(stand: Stand, counted: Counted, jobs: int, server_cpu: Callable[[], float] = float) -> Drained:
    """What its workers make of so many that are waiting."""
    with running(stand.start()) as workers:
        begun = counted.until(jobs // 10, workers)
        meters = (time.perf_counter, workers.cpu_seconds, server_cpu, counted.cpu_seconds)
        before = [meter() for meter in meters]
        counted.until(jobs, workers)
        elapsed, used, served, sunk = (meter() - then for meter, then in zip(meters, before, strict=True))
    if begun >= jobs:
        raise Failed(f"{jobs} jobs are too few to measure")
    (tally,) = counted.tallies()
    rate = (tally.received - 1) / (tally.last - tally.first)
    return Drained(rate, used / (jobs - begun) * 1e6, served / (jobs - begun) * 1e6, sunk / elapsed)


@functools.cache
def octets(count: int) -> int:
    """What the bodies of so many orders come to."""
    return sum(len(body(one.event, one.uid)) for one in orders(count))


def transport() -> Drained:
    with sink() as counted:
        port = counted.url.rpartition(":")[2]
        command = [sys.executable, "-m", "bench.transport", port, str(JOBS), str(SLOTS[Kind.SQLITE])]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate, cpu = told.split()
    return Drained(float(rate), float(cpu), 0.0, 0.0)


class Rounds:
    """What each brought, round by round; whoever failed once is not asked again."""

    def __init__(self) -> None:
        self.drained: dict[str, list[Drained]] = {}
        self.faults: dict[str, str] = {}

    def take(self, name: str, measure: Callable[[], Drained]) -> None:
        if name in self.faults:
            return
        try:
            with deadline(DEADLINE_SECONDS):
                found = measure()
        except Exception as error:
            self.faults[name] = fault(error)
        else:
            self.drained.setdefault(name, []).append(found)

    def row(self, name: str, **promised: Cell) -> Row:
        if name in self.faults:
            return Row(name, promised, self.faults[name])
        found = self.drained[name]
        return Row(
            name,
            {
                "rate": statistics.median(one.per_second for one in found),
                "sqlite": self._ratio(name, _named(ON_SQLITE)),
                "postgresql": self._ratio(name, _named(ON_POSTGRESQL)),
                "cpu": statistics.median(one.cpu for one in found),
                "all_cpu": statistics.median(one.cpu + one.server_cpu for one in found),
                "sink": statistics.median(one.sink_share for one in found) or None,
                **promised,
            },
        )

    def _ratio(self, name: str, base: str) -> float | None:
        """The median of the rounds' ratios: both sides of each stood beside each other in time."""
        if base in self.faults or base not in self.drained:
            return None
        pairs = zip(self.drained[name], self.drained[base], strict=False)
        return statistics.median(one.per_second / other.per_second for one, other in pairs)


def rows(bench: Bench) -> Iterator[Row]:
    rounds, wanted, found = Rounds(), [one for one in contenders() if bench.wants(one)], capacity()
    for number in range(bench.rounds):
        rounds.take(BARE, transport)
        for one in wanted:
            bench.say(f"round {number + 1} of {bench.rounds}: {_named(one)}")
            rounds.take(_named(one), functools.partial(drain, bench, one))
    order = [*OURS, *PEERS]
    for one in (one for one in order if one in wanted):
        told: dict[str, Cell] = {
            "log": one.keeps_log,
            "durable": one.durable,
            "settings": one.settings,
            "jobs": float(one.jobs),
        }
        yield rounds.row(_named(one), **told)
    yield rounds.row(BARE)
    whole = [drained for name, drained in rounds.drained.items() if name != BARE]
    yield _sink(found, [max(one.per_second for one in drained) for drained in whole])


def _sink(found: Capacity, rates: list[float]) -> Row:
    try:
        check(found, max(rates))
    except Failed as failed:
        return Row(SINK, {"rate": found.single}, fault(failed))
    return Row(SINK, {"rate": found.single, "settings": f"{found.pipelined:,.0f} with sixteen in each write"})


def _named(one: Contender) -> str:
    return f"{one.name} ({one.kind})"


PART = Part(
    "peers",
    "deliveries a second beside what a team would pick instead",
    (
        Column("rate", "deliveries/s"),
        Column("sqlite", "of the dispatcher on SQLite", "{:.2f}"),
        Column("postgresql", "of the dispatcher on PostgreSQL", "{:.2f}"),
        Column("cpu", "µs of CPU each"),
        Column("all_cpu", "with the store's server"),
        Column("sink", "sink's share of a core", "{:.2f}"),
        Column("log", "attempt log", TEXT),
        Column("durable", "durable per job", TEXT),
        Column("settings", "settings", TEXT),
        Column("jobs", "jobs"),
    ),
    rows,
)
