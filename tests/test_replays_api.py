"""Bulk replays over HTTP: what a request may say, what is refused, and whose job a key sees."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dispatcher.ground.apikey import Scope
from dispatcher.ground.clock import MINUTE
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.replay_steps import step
from dispatcher.web.problem import Kind
from tests.graves import dead
from tests.ground import NOW
from tests.served import Served, faults_in, served
from tests.test_api import is_problem
from tests.workshop import row

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

GOOD: dict[str, Any] = {"since": "2025-12-01", "pace": 50, "note": "the operator was down"}


@pytest.fixture
async def at(database: Database) -> AsyncIterator[Served]:
    async with served(database) as at:
        dead(database, *range(5))
        dead(database, "b1", operator="bolt")
        at.clock.move(MINUTE)
        yield at


async def test_a_job_is_made_seen_paused_resumed_and_cancelled(at: Served) -> None:
    key = at.key(Scope.ADMIN, name="back-office")
    made = await at.post("/v1/replays", key, {**GOOD, "operator": "acme"})
    told = made.json()
    assert (made.status_code, told["state"], told["total"], told["driven"]) == (201, "running", 5, False)
    assert (told["actor"], told["note"], told["pace"]) == ("api:back-office", GOOD["note"], 50)
    assert told["filter"] == {"operator": "acme", "since": "2025-12-01T00:00:00.000Z"}
    one = f"/v1/replays/{told['id']}"
    assert step(at.database, at.clock.now()) is not None
    shown = (await at.get(one, key)).json()
    assert (shown["taken"], shown["left"], shown["state"]) == (5, 0, "running")
    step(at.database, at.clock.now() + MINUTE)
    assert (await at.get(one, key)).json()["state"] == "done"
    again = (await at.post("/v1/replays", key, {**GOOD, "operator": "bolt"})).json()
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        answer = await at.post(f"/v1/replays/{again['id']}/{verb}", key)
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    refused = await at.post(f"/v1/replays/{again['id']}/cancel", key)
    assert is_problem(refused, Kind.NOT_NOW)
    assert "is cancelled: it can't be cancelled" in refused.json()["detail"]
    assert [one["id"] for one in (await at.get("/v1/replays", key)).json()["replays"]] == [again["id"], told["id"]]
    assert [one["id"] for one in (await at.get("/v1/replays?operator=acme&limit=1", key)).json()["replays"]] == [
        told["id"]
    ]


async def test_the_dry_run_counts_and_makes_nothing(at: Served) -> None:
    key = at.key(Scope.ADMIN)
    counted = await at.post("/v1/replays", key, {**GOOD, "dry_run": True})
    assert (counted.status_code, counted.json()) == (200, {"total": 6, "refused": 0})
    keys = {"operator": "acme", "keys": ["1", "2", "x"], "pace": 1, "note": "-", "dry_run": True}
    assert (await at.post("/v1/replays", key, keys)).json() == {"total": 3, "refused": 1}
    assert replays.all_of(at.database) == []


async def test_what_is_refused_of_keys_is_told_with_the_reason(at: Served) -> None:
    key = at.key(Scope.ADMIN)
    made = (await at.post("/v1/replays", key, {"operator": "acme", "keys": ["1", "x"], "pace": 9, "note": "-"})).json()
    assert made["filter"] == {"operator": "acme", "keys": 2}
    step(at.database, at.clock.now())
    step(at.database, at.clock.now() + MINUTE)
    shown = (await at.get(f"/v1/replays/{made['id']}", key)).json()
    refusal = {"operator": "acme", "type": None, "key": "x", "why": "there is no such delivery"}
    assert (shown["state"], shown["taken"], shown["refusals"]) == ("done", 1, [refusal])
    assert row(at.database, 1).status == "pending"


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"pace": 0}, {"pace"}),
        ({"pace": 5_001}, {"pace"}),
        ({"pace": "50", "note": " "}, {"pace", "note"}),
        ({"pace": 1.5}, {"pace"}),
        ({"since": "yesterday", "reason": "bad luck"}, {"since", "reason"}),
        ({"since": None}, {"since"}),
        ({"until": "2025-11-30"}, {"until"}),
        ({"keys": ["1"]}, {"operator", "keys"}),
        ({"keys": []}, {"keys"}),
        ({"keys": [1]}, {"keys"}),
        ({"keys": ["1"] * 10_001}, {"keys"}),
        ({"keys": "1"}, {"keys"}),
        ({"dry_run": "yes", "even_superseded": 1}, {"dry_run", "even_superseded"}),
        ({"speed": 9}, {"speed"}),
    ],
    ids=range(14),
)
async def test_a_request_that_is_not_fit_is_refused_with_every_fault(
    at: Served, changes: dict[str, Any], faults: set[str]
) -> None:
    answer = await at.post("/v1/replays", at.key(Scope.ADMIN), {**GOOD, **changes})
    assert is_problem(answer, Kind.INVALID)
    assert faults_in(answer) == faults
    assert all(one["mend"] for one in answer.json()["faults"])
    assert replays.all_of(at.database) == []


async def test_filters_must_be_bounded_and_something_must_fit(at: Served) -> None:
    key = at.key(Scope.ADMIN)
    unbounded = await at.post("/v1/replays", key, {"pace": 1, "note": "-"})
    assert faults_in(unbounded) == {"since"}
    nothing = await at.post("/v1/replays", key, {**GOOD, "operator": "coin"})
    assert is_problem(nothing, Kind.NOT_NOW)
    assert "no dead letter fits" in nothing.json()["detail"]


async def test_a_bound_keys_jobs_are_about_its_operator(at: Served) -> None:
    bolt, every = at.key(Scope.ADMIN, operator="bolt"), at.key(Scope.ADMIN)
    made = (await at.post("/v1/replays", bolt, GOOD)).json()
    assert (made["operator"], made["total"]) == ("bolt", 1)
    for operator in ("acme", 7, None):
        answer = await at.post("/v1/replays", bolt, {**GOOD, "operator": operator})
        assert is_problem(answer, Kind.FORBIDDEN)
    others = (await at.post("/v1/replays", every, GOOD)).json()
    assert others["operator"] is None
    for way in ("", "/pause", "/resume", "/cancel"):
        path = f"/v1/replays/{others['id']}{way}"
        answer = await (at.post(path, bolt) if way else at.get(path, bolt))
        assert is_problem(answer, Kind.NOT_FOUND)
    assert [one["id"] for one in (await at.get("/v1/replays", bolt)).json()["replays"]] == [made["id"]]
    assert (await at.get("/v1/replays?operator=acme", bolt)).json() == {"replays": []}
    for absent in ("0", "99999", "x", "9" * 30, "%00"):
        assert is_problem(await at.get(f"/v1/replays/{absent}", every), Kind.NOT_FOUND)


async def test_what_keeps_a_job_from_being_noted_is_no_fault_of_the_request(at: Served) -> None:
    key = at.key(Scope.ADMIN)
    at.database.notary = None
    answer = await at.post("/v1/replays", key, GOOD)
    assert is_problem(answer, Kind.BROKEN)
    assert replays.all_of(at.database) == []
    assert row(at.database, 1).finished_at == NOW
