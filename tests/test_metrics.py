"""What /metrics says, to whom, and what it says while the store is away; what is told of it in the documents."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain
from sqlalchemy import text

from dispatcher.config.web import Metrics
from dispatcher.ground.apikey import Scope
from dispatcher.ground.clock import SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.figures import Figures
from dispatcher.ground.policy import Reason, Verb, Verdict
from dispatcher.metrics import Exposition, State, Work, exposition, families
from dispatcher.protocols import PROTOCOLS
from dispatcher.store import operators, workers
from dispatcher.store.counts import backlog
from dispatcher.store.counts.backlog import Backlog, Workload, workload
from dispatcher.store.engine import Database
from dispatcher.web import application, metrics_route
from tests.ground import ACME, NOW, claim, config_with, faults_of, outcome
from tests.plans import asked, plan, read
from tests.served import Served, served
from tests.workshop import MovedClock, accept, failed, kept_log, settle, take

pytestmark = pytest.mark.anyio
each_store = pytest.mark.each_store

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# By name and labels.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(told: str) -> Samples:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value for family in plain(told) for one in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"dispatcher_{name}", tuple(sorted(labels.items()))))


async def scraped(database: Database, figures: Figures | None = None, state: State | None = None) -> Samples:
    made = Exposition(
        figures or Figures(), database, MovedClock(), PROTOCOLS, lambda: state or State({"database": True}), LOG
    )
    try:
        return samples((await made.scrape(""))[1].decode())
    finally:
        made.close()


LOG, LINES = kept_log()


def declare(database: Database, *names: str) -> None:
    with database.writing() as connection:
        for revision, name in enumerate(names, 1):
            connection.execute(
                text("INSERT INTO operators (name, origin, revision, updated_at) VALUES (:name, 'file', :revision, 1)"),
                {"name": name, "revision": revision},
            )


# The backlog.


@each_store
def test_the_backlog_is_what_the_store_has(database: Database) -> None:
    declare(database, "acme", "bolt", "coin")
    accept(database, 1, 2, 3, 4, now=NOW - 7 * SECOND)
    accept(database, 5, operator="bolt", now=NOW)
    first, second, *_ = take(database, now=NOW - 6 * SECOND, most=3)
    settle(database, failed(first, NOW - 6 * SECOND), now=NOW)
    dead = failed(second, NOW)
    settle(database, dead._replace(verdict=dead.verdict._replace(verb=Verb.BURY, due_at=None)), now=NOW)
    operators.stop(database, "coin", "paused_at", ("pause", "me", None), NOW)
    found = workload(database, PROTOCOLS, NOW)
    assert found.limit == backlog.MOST_READ // 9
    assert sorted(found.backlogs) == [
        Backlog("acme", False, False, NOW - 7 * SECOND, due=1, waiting=1, dead=1),
        Backlog("bolt", False, False, NOW, due=1, waiting=0, dead=0),
        Backlog("coin", True, False, None, due=0, waiting=0, dead=0),
    ]


@each_store
def test_workers_of_a_server_are_counted_as_long_as_they_beat(database: Database) -> None:
    on_server = database.engine.dialect.name == "postgresql"
    assert workload(database, PROTOCOLS, NOW).workers == (0 if on_server else None)
    workers.enter(database)
    assert workload(database, PROTOCOLS, NOW).workers == (1 if on_server else None)
    with database.writing() as connection:
        connection.execute(text("UPDATE workers SET seen_at = 1"))
    assert workload(database, PROTOCOLS, NOW).workers == (0 if on_server else None)


@each_store
def test_a_count_stops_at_its_limit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_COUNTED", 3)
    declare(database, "acme")
    accept(database, *range(9))
    (found,) = workload(database, PROTOCOLS, NOW).backlogs
    assert found.due == 3


@each_store
def test_the_backlog_is_read_from_indexes(database: Database) -> None:
    declare(database, "acme", "bolt")
    accept(database, *range(20))
    with asked(database) as statements:
        workload(database, PROTOCOLS, NOW)
    for statement, parameters in statements:
        steps = plan(database, statement, parameters)
        assert read(database, steps) == [], steps
        # With so few rows a server takes any of its indexes.
        if "dead" in statement and database.engine.dialect.name == "sqlite":
            used = [step for step in steps if re.search(r"\b(due|dead)\b", step)]
            assert len(used) >= 4, steps


def test_what_is_counted_hangs_on_no_number_of_rows_and_on_operators_up_to_a_limit(database: Database) -> None:
    declare(database, *(f"operator-{n:04}" for n in range(backlog.MOST_OPERATORS + 5)))
    found = workload(database, PROTOCOLS, NOW)
    assert (len(found.backlogs), found.limit) == (1_000, 50)


# The text.


def worked() -> Figures:
    figures = Figures()
    figures.attempt(NOW, claim(), outcome(200), Verdict(Verb.DELIVER), late=False)
    figures.attempt(NOW, claim(attempt=2), outcome(500), Verdict(Verb.RETRY, NOW, Reason.HTTP_STATUS), late=False)
    figures.taken_in("acme", "notice", "accepted")
    figures.answered("enqueue", 202)
    figures.turns.add(7_000)
    figures.commits.add(3_000)
    return figures


WORK = Work({"acme": 3}, 256, 0.5, 2)


async def test_what_was_counted_is_told_with_its_labels(database: Database) -> None:
    found = await scraped(database, worked(), State({"database": True, "worker": False}, WORK))
    about = {"operator": "acme", "type": "notice"}
    assert value(found, "attempts_total", **about, result="delivered", reason="") == 1
    assert value(found, "attempts_total", **about, result="retry", reason="http_status") == 1
    assert value(found, "deliveries_total", operator="acme") == 1
    assert value(found, "events_total", **about, fate="accepted") == 1
    assert value(found, "requests_total", operation="enqueue", status="202") == 1
    assert [value(found, "attempt_seconds_bucket", operator="acme", le=le) for le in ("0.1", "0.25", "+Inf")] == [
        0,
        2,
        2,
    ]
    assert value(found, "attempt_seconds_sum", operator="acme") == pytest.approx(0.4)
    assert value(found, "late_seconds_count", trigger="retry") == 1
    assert [value(found, "turn_seconds_bucket", le=le) for le in ("0.005", "0.01")] == [0, 1]
    assert [value(found, "commit_seconds_bucket", le=le) for le in ("0.002", "0.005")] == [0, 1]
    assert value(found, "in_flight", operator="acme") == 3
    assert (value(found, "ready"), value(found, "check", check="worker"), value(found, "workers")) == (0, 0, 2)
    assert value(found, "check", check="database") == 1
    assert ("process_cpu_seconds_total", ()) in found
    assert ("python_gc_collections_total", (("generation", "2"),)) in found


async def test_operators_beyond_a_thousand_are_told_together() -> None:
    figures = Figures()
    for n in range(1_003):
        figures.taken_in(f"operator-{n:04}", "notice", "accepted")
    work = Work({f"operator-{n:04}": 2 for n in range(1_003)}, 1, 0.0, 1)
    rows = [Backlog(f"operator-{n:04}", False, False, NOW - n * SECOND, 1, 1, 1) for n in range(1_003)]
    seen = families.Seen(figures, State({}, work), Workload(NOW, 10, rows, None))
    told = {(one.name, one.labels.get("operator")): one.value for f in families.families(seen) for one in f.samples}
    assert told["dispatcher_events_total", "other"] == 3
    assert told["dispatcher_in_flight", "other"] == 6
    assert told["dispatcher_dead", "other"] == 3
    assert told["dispatcher_oldest_due_seconds", "other"] == 1_002
    assert len({operator for _, operator in told if operator}) == 1_001


async def test_whoever_asks_for_openmetrics_gets_it_and_whoever_asks_for_nonsense_gets_text(database: Database) -> None:
    made = Exposition(worked(), database, MovedClock(), PROTOCOLS, lambda: State({}, WORK), LOG)
    kind, told = await made.scrape("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert {"dispatcher_attempts", "dispatcher_late_seconds"} <= {one.name for one in open_metrics(told.decode())}  # type: ignore[no-untyped-call]
    for accept_ in ("application/openmetrics-text; version=x", "text/plain; version=9;9", "*/*", "\xff"):
        kind, told = await made.scrape(accept_)
        assert "dispatcher_ready" in told.decode(), accept_
    made.close()


# A store that is away, and one that hangs.


async def test_while_the_store_is_away_all_else_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Workload:
        raise StoreUnavailable("away")

    monkeypatch.setattr(exposition, "workload", away)
    found = await scraped(database, worked())
    assert (
        value(found, "store_up"),
        value(found, "events_total", operator="acme", type="notice", fate="accepted"),
    ) == (0, 1)
    assert not [name for name, _ in found if name in ("dispatcher_due", "dispatcher_oldest_due_seconds")]


async def test_a_store_that_hangs_holds_up_no_scrape_and_is_asked_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go, asked_ = threading.Event(), []

    def hangs(*_: object) -> Workload:
        asked_.append(1)
        assert go.wait(60)
        return Workload(NOW, 1, [Backlog("acme", False, False, None, 1, 0, 0)], None)

    monkeypatch.setattr(exposition, "workload", hangs)
    monkeypatch.setattr(exposition, "PATIENCE_SECONDS", 0.05)
    made = Exposition(Figures(), database, MovedClock(), PROTOCOLS, lambda: State({}), LOG)
    for _ in range(3):
        assert value(samples((await made.scrape(""))[1].decode()), "store_up") == 0
    assert len(asked_) == 1
    go.set()
    async with asyncio.timeout(60):
        while value(samples((await made.scrape(""))[1].decode()), "store_up") != 1:  # noqa: ASYNC110 - as a prober does
            await asyncio.sleep(0.01)
    assert len(asked_) == 1, "what is fresh is not asked for again"
    made.close()


# To whom.


@asynccontextmanager
async def door(database: Database, to: Metrics) -> AsyncIterator[Served]:
    async with served(database) as at:
        made = Exposition(worked(), database, at.clock, PROTOCOLS, lambda: State({}), at.log)
        app = application(dict, at.api, metrics_route(made.scrape, at.api.doorman, to))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://dispatcher.test") as client:
            at.client = client
            yield at
        made.close()


async def test_open_metrics_want_no_key_and_turned_off_ones_are_not_there(database: Database) -> None:
    async with door(database, Metrics.OPEN) as at:
        assert (await at.get("/metrics", {})).status_code == 200
    async with door(database, Metrics.OFF) as at:
        assert (await at.get("/metrics", at.key(Scope.ADMIN))).status_code == 404


async def test_with_a_key_it_is_one_that_may_read_and_sees_all_operators(database: Database) -> None:
    async with door(database, Metrics.KEY) as at:
        refused = [{}, at.key(Scope.ENQUEUE), at.key(Scope.READ, operator="acme"), {"authorization": "Bearer dk_x"}]
        assert [(await at.get("/metrics", key)).status_code for key in refused] == [401, 403, 403, 401]
        assert (await at.get("/metrics", at.key(Scope.READ))).status_code == 200


async def test_a_key_that_was_good_before_the_store_went_is_good_for_the_metrics(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dispatcher.web import doorman

    async with door(database, Metrics.KEY) as at:
        key = at.key(Scope.READ)
        assert (await at.get("/metrics", key)).status_code == 200

        def away(*_: object) -> Any:
            raise StoreUnavailable("away")

        monkeypatch.setattr(doorman, "all_keys", away)
        at.seconds += 3_600
        assert (await at.get("/metrics", key)).status_code == 200
        assert (await at.get("/metrics", {"authorization": "Bearer dk_x"})).status_code == 401
        assert (await at.get("/v1/deliveries", key)).status_code == 503
    async with door(database, Metrics.KEY) as at:
        assert (await at.get("/metrics", key)).status_code == 503


@pytest.mark.parametrize(
    ("lines", "to", "warned"),
    [
        ("", Metrics.OPEN, False),
        ('listen = ""', Metrics.OPEN, False),
        ('listen = "0.0.0.0:1"', Metrics.KEY, False),
        ('proxies = ["10.0.0.0/8"]', Metrics.KEY, False),
        ('metrics = "off"', Metrics.OFF, False),
        ('metrics = "open"', Metrics.OPEN, False),
        ('listen = "0.0.0.0:1"\nmetrics = "open"', Metrics.OPEN, True),
        ('proxies = ["10.0.0.0/8"]\nmetrics = "open"', Metrics.OPEN, True),
    ],
)
def test_only_this_machine_sees_metrics_without_a_key_unless_it_is_said(lines: str, to: Metrics, warned: bool) -> None:
    config = config_with(f"[web]\n{lines}\n{ACME}")
    assert (config.web.metrics, "web.metrics" in {one.where for one in config.warnings}) == (to, warned)


def test_a_way_to_see_metrics_that_there_is_not_is_refused() -> None:
    fault = faults_of(f'[web]\nmetrics = "public"\n{ACME}')["web.metrics"]
    assert '"open"' in str(fault)
