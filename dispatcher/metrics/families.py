"""Every metric: its name, type, labels, and where its numbers come from. docs/metrics.md says what each is good for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple, Self

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from dispatcher import __version__
from dispatcher.ground.clock import SECOND
from dispatcher.ground.figures import Figures, Histogram
from dispatcher.store.counts.backlog import MOST_OPERATORS, Backlog, Workload
from dispatcher.store.schema import REVISION

# What stands for all operators beyond those that are told by name.
OTHER = "other"
Name = Callable[[str], str]


class Work(NamedTuple):
    """How the worker is: requests in flight by operator, how many there may be, and how long (s) since its loop last

    went round. `workers`: with how many it shares the work, itself among them.
    """

    in_flight: Mapping[str, int]
    concurrency: int
    idle: float
    workers: int


class State(NamedTuple):
    """`checks`: each thing that /readyz looks at, and whether it is well. `work` is None where there is no worker."""

    checks: Mapping[str, bool]
    work: Work | None = None

    @classmethod
    def of(cls, checks: Iterable[str], faults: Iterable[str], work: Work | None = None) -> Self:
        """From the names of what /readyz looks at, and of what is wrong: `operator NAME` is about the operators."""
        wrong = {"operators" if name.startswith("operator ") else name for name in faults}
        return cls({name: name not in wrong for name in checks}, work)


class Seen(NamedTuple):
    """All that one scrape tells. `workload` is None where the store could not be asked."""

    figures: Figures
    state: State
    workload: Workload | None


def families(seen: Seen) -> Iterator[Metric]:
    """Operators beyond MOST_OPERATORS are summed up under OTHER, so that nothing grows without end."""
    name = _naming(seen)
    yield InfoMetricFamily(
        "dispatcher_build", "Which dispatcher this is.", value={"version": __version__, "schema": REVISION}
    )
    yield _gauge("ready", "1 where /readyz is 200.", float(all(seen.state.checks.values())))
    yield _by("check", "1 where this check of /readyz is well.", "check", seen.state.checks)
    yield from _of_the_api(seen.figures, name)
    if seen.state.work is not None:
        yield from _of_the_worker(seen.figures, seen.state.work, name)
    workers = seen.state.work.workers if seen.state.work is not None else seen.workload and seen.workload.workers
    if workers is not None:
        yield _gauge("workers", "Workers that live.", workers)
    yield _gauge("store_up", "1 where the store could be asked.", float(seen.workload is not None))
    if seen.workload is not None:
        yield from _of_the_store(seen.workload, name)


def _of_the_api(figures: Figures, name: Name) -> Iterator[Metric]:
    accepted = CounterMetricFamily(
        "dispatcher_events", "Events handed in over HTTP, by what became of them.", labels=["operator", "type", "fate"]
    )
    for (operator, kind, fate), count in _merged(figures.accepted.items(), name).items():
        accepted.add_metric([operator, kind, fate], count)
    yield accepted
    requests = CounterMetricFamily("dispatcher_requests", "Requests to the API.", labels=["operation", "status"])
    for (operation, status), count in figures.requests.items():
        requests.add_metric([operation, str(status)], count)
    yield requests
    yield _histogram("commit_seconds", "Transactions that wrote events handed in over HTTP.", {(): figures.commits})


def _of_the_worker(figures: Figures, work: Work, name: Name) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "dispatcher_attempts",
        "Attempts of this worker that are settled, by what came of them.",
        labels=["operator", "type", "result", "reason"],
    )
    for key, count in _merged(figures.attempts().items(), name).items():
        attempts.add_metric(list(key), count)
    yield attempts
    firsts = CounterMetricFamily(
        "dispatcher_deliveries", "Deliveries whose first attempt this worker made.", labels=["operator"]
    )
    for operator, count in _summed(figures.firsts, name).items():
        firsts.add_metric([operator], count)
    yield firsts
    durations: dict[tuple[str, ...], Histogram] = {}
    for operator, histogram in figures.durations.items():
        durations.setdefault((name(operator),), Histogram(histogram.bounds)).include(histogram)
    yield _histogram("attempt_seconds", "How long attempts took.", durations, "operator")
    lateness: dict[tuple[str, ...], Histogram] = {(trigger,): one for trigger, one in figures.lateness.items()}
    yield _histogram("late_seconds", "How long after they were due attempts began.", lateness, "trigger")
    yield _histogram("turn_seconds", "Transactions that settle and claim.", {(): figures.turns})
    yield _by("in_flight", "Requests under way.", "operator", _summed(work.in_flight, name))
    yield _gauge("concurrency", "How many requests this worker may have under way.", work.concurrency)
    yield _gauge("idle_seconds", "Since the claim loop last went round.", work.idle)


def _of_the_store(workload: Workload, name: Name) -> Iterator[Metric]:
    for what, told, count in _COUNTS:
        yield _by(what, told, "operator", _summed({one.operator: count(one) for one in workload.backlogs}, name))
    oldest: dict[str, float] = {}
    for one in workload.backlogs:
        age = 0 if one.oldest_due_at is None else max(0, workload.now - one.oldest_due_at)
        oldest[name(one.operator)] = max(oldest.get(name(one.operator), 0), age / SECOND)
    yield _by("oldest_due_seconds", "Since when the longest waiting delivery is due.", "operator", oldest)
    yield _gauge("count_limit", "Where due, waiting and dead stop counting.", workload.limit)


_COUNTS: tuple[tuple[str, str, Callable[[Backlog], int]], ...] = (
    ("due", "Deliveries that are due and not under way, up to count_limit.", lambda one: one.due),
    ("waiting", "Deliveries that are due later, up to count_limit.", lambda one: one.waiting),
    ("dead", "Deliveries that are dead and wait for a person, up to count_limit.", lambda one: one.dead),
    ("paused", "1 where a person has paused the operator.", lambda one: one.paused),
    ("held", "1 where the breaker holds the operator.", lambda one: one.held),
)


def _naming(seen: Seen) -> Name:
    figures, workload, work = seen.figures, seen.workload, seen.state.work
    named = {key[0] for key in (*figures.accepted, *figures.attempts())}
    named |= {one.operator for one in workload.backlogs} if workload is not None else set()
    named |= work.in_flight.keys() if work is not None else set()
    kept = frozenset(sorted(named)[:MOST_OPERATORS])
    return lambda operator: operator if operator in kept else OTHER


def _merged(counts: Iterable[tuple[tuple[str, ...], int]], name: Name) -> dict[tuple[str, ...], int]:
    """The first of each key is the operator."""
    merged: dict[tuple[str, ...], int] = {}
    for (operator, *rest), count in counts:
        key = (name(operator), *rest)
        merged[key] = merged.get(key, 0) + count
    return merged


def _summed(values: Mapping[str, int], name: Name) -> dict[str, int]:
    merged = _merged((((operator,), value) for operator, value in values.items()), name)
    return {operator: value for (operator,), value in merged.items()}


def _gauge(what: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"dispatcher_{what}", told, value=value)


def _by(what: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"dispatcher_{what}", told, labels=[label])
    for one, value in values.items():
        family.add_metric([one], float(value))
    return family


def _histogram(what: str, told: str, by: Mapping[tuple[str, ...], Histogram], *labels: str) -> Metric:
    """In seconds."""
    family = HistogramMetricFamily(f"dispatcher_{what}", told, labels=labels)
    for key, histogram in by.items():
        bounds = [*(str(bound / SECOND) for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
        family.add_metric(key, buckets, histogram.total / SECOND)
    return family
