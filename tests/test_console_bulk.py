"""Bulk replays by the console: all that fit become a job, whose page tells how far it is."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.ground.account import Role
from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.replay_steps import step
from tests.consoled import Console, Visitor, consoled
from tests.flows import SCRIPT, a_day, row_of
from tests.ground import NOW

pytestmark = pytest.mark.anyio
LATER = NOW + 600 * MINUTE


@pytest.fixture
async def console(database: Database, tmp_path: Path) -> AsyncIterator[Console]:
    async with consoled(database, tmp_path) as at:
        a_day(database)
        at.clock.at = LATER  # type: ignore[attr-defined]
        yield at


def visitor(at: Console, role: Role = Role.ADMIN, operator: str | None = None) -> Visitor:
    return Visitor(at, at.session(role, operator))


def facts(page: str) -> dict[str, str]:
    found = re.findall("<dt>(.*?)</dt><dd.*?>(.*?)</dd>", page, re.S)
    return {name: " ".join(re.sub("<.*?>", " ", value).split()) for name, value in found}


@pytest.mark.each_store
async def test_all_that_fit_become_a_job_that_is_paused_resumed_and_ends(console: Console) -> None:
    reader = visitor(console, Role.SUPPORT)
    planned = await reader.post(
        "/console/dead/look", do="replay", take="all", filter="operator=acme&reason=connect_refused"
    )
    assert "6 dead letters fit the filter at this moment." in planned.text
    assert replays.all_of(console.database) == []
    filter_ = re.findall('name="filter" value="([^"]*)"', planned.text)[0].replace("&amp;", "&")
    made = await reader.post("/console/replays/make", filter=filter_, pace="2", note=f"acme is back {SCRIPT}")
    assert (made.status_code, made.headers["location"]) == (303, "/console/replays/1")
    page = (await reader.get("/console/replays/1")).text
    assert facts(page)["Sent again"] == "0 / 6"
    assert "<img" not in page.partition("<main")[2]
    assert "Waits for a worker" in page
    stepped = step(console.database, LATER)
    assert stepped is not None
    page = (await reader.get("/console/replays/1")).text
    taken = int(facts(page)["Sent again"].split(" / ")[0])
    assert 0 < taken < 6
    assert f'value="{100 * taken // 6}"' in page
    for verb, word in [("pause", "Paused"), ("resume", ""), ("pause", "Paused"), ("cancel", "Cancelled")]:
        assert (await reader.post("/console/replays/1/turn", do=verb)).status_code == 303
        assert word in (await reader.get("/console/replays/1")).text
    again = await reader.post("/console/replays/1/turn", do="resume")
    assert (again.status_code, "is cancelled" in again.text) == (409, True)
    job = replays.find(console.database, 1)
    assert job is not None
    assert (job.actor, job.which.operator, job.which.reason) == ("console:support-all", "acme", "connect_refused")
    assert f"{taken} / 6" in (await reader.get("/console/replays")).text


async def test_a_pace_and_a_note_are_wanted(console: Console) -> None:
    reader = visitor(console)
    for pace, note in [("0", "x"), ("5001", "x"), ("x", "x"), ("5", " ")]:
        answer = await reader.post("/console/replays/make", filter="", pace=pace, note=note)
        assert (answer.status_code, 'aria-invalid="true"' in answer.text) == (422, True)
    assert replays.all_of(console.database) == []


async def test_what_a_job_cannot_look_for_is_taken_at_once_instead(console: Console) -> None:
    answer = await visitor(console).post("/console/dead/look", do="replay", take="all", filter="game=50")
    assert len(re.findall('name="id" value="[0-9]+"', answer.text)) == 3
    made = await visitor(console).post("/console/replays/make", filter="game=50", pace="5", note="x")
    assert made.status_code == 422


async def test_a_bound_account_sees_the_jobs_of_its_operator_alone(console: Console) -> None:
    admin, bound = visitor(console), visitor(console, Role.OPERATOR, "acme")
    for name, found in [("acme", 200), ("bolt", 404), ("", 404)]:
        made = await admin.post(
            "/console/replays/make", filter=f"operator={name}", pace="1", note=f"for {name or 'all'}"
        )
        path = made.headers["location"]
        assert (await bound.get(path)).status_code == found, name
        assert (await bound.post(f"{path}/turn", do="cancel")).status_code == 403
    listed = (await bound.get("/console/replays")).text
    assert ("for acme" in listed, "for bolt" in listed, "for all" in listed) == (True, False, False)
    assert {job.state for job in replays.all_of(console.database)} == {"running"}


async def test_a_job_without_a_beginning_takes_what_is_dead_now_and_nothing_later(console: Console) -> None:
    made = await visitor(console).post("/console/replays/make", filter="", pace="100", note="all of it")
    assert made.status_code == 303
    for second in range(10):
        step(console.database, LATER + second * SECOND)
    assert {row_of(console.database, f"dead-{n}").status for n in range(6)} == {"pending"}
    assert row_of(console.database, "bolt-1", "bolt").status == "pending"
