"""The console's front page and operators: what needs a person is told, and nothing else; who pauses stands for it."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from dispatcher.cli import main
from dispatcher.console import desk
from dispatcher.console.charts import chart, tally
from dispatcher.ground.account import Role
from dispatcher.ground.clock import DAY, HOUR, MINUTE
from dispatcher.ground.policy import Reason
from dispatcher.store import minutes, operators, workers
from dispatcher.store.engine import Database
from dispatcher.store.minutes import Minute
from tests.consoled import Console, Visitor, consoled
from tests.ground import KEY, NOW
from tests.plans import asked, plan, read
from tests.workshop import accept, failed, settle, take

pytestmark = pytest.mark.anyio


@pytest.fixture
async def at(database: Database, tmp_path: Path) -> AsyncIterator[Console]:
    """With a worker, so that all is well."""
    workers.enter(database)
    async with consoled(database, tmp_path) as at:
        yield at


async def page(at: Console, path: str = "/console", role: Role = Role.SUPPORT, operator: str | None = None) -> str:
    """Its text for people, without what is between the signs."""
    at.desk.forget()
    answer = await Visitor(at, at.session(role, operator)).get(path)
    assert answer.status_code == 200, answer.text
    return " ".join(re.sub(r"<[^>]*>", " ", answer.text.partition("<main")[2]).split())


def attempts(at: Console, operator: str, result: str, count: int, ago: int, reason: str | None = None) -> Minute:
    now = at.clock.now() - ago
    return Minute(now - now % MINUTE, operator, "notice", result, reason, count, count * 120_000, 0)


# What needs a person.


async def test_where_nothing_needs_a_person_it_says_so_plainly(at: Console) -> None:
    accept(at.database, 1, operator="acme")
    minutes.add(
        at.database, [attempts(at, "acme", "delivered", 1_500, 0), attempts(at, "acme", "retry", 1, 0, "reset")]
    )
    told = await page(at)
    assert "All is well: nothing needs a person." in told
    # Not rounded up to all of them.
    assert "99.9 %" in told
    assert "1,500 of 1,501 attempts" in told
    assert "120 ms" in told


@pytest.mark.parametrize("kind", ["fault", "worker", "dead", "failing", "held", "paused", "long", "late"])
async def test_each_thing_that_needs_a_person_is_told_with_whom_it_is_about(at: Console, kind: str) -> None:
    database, expected = at.database, ""
    match kind:
        case "fault":
            at.faults["journal"] = "the key is <gone>"
            expected = "journal : the key is &lt;gone&gt;"
        case "worker":
            with database.writing() as connection:
                connection.execute(text("DELETE FROM workers"))
            expected = "No worker is there"
        case "dead":
            accept(database, 1, 2, operator="bolt", now=NOW)
            for later in (0, DAY, 2 * DAY, 3 * DAY):
                claims = take(database, NOW + later, operator="bolt")
                settle(database, *(failed(one, NOW + later, Reason.READ_TIMEOUT) for one in claims), now=NOW + later)
            at.clock.move(3 * DAY + HOUR)  # type: ignore[attr-defined]
            expected = "Dead letters: 2, 2 of them from the last 24 hours. 2 of the newest may have been booked"
        case "failing":
            minutes.add(database, [attempts(at, "bolt", "retry", 7, 2 * MINUTE, "connect_refused")])
            expected = "bolt : 7 attempts in the last 15 minutes, and none succeeded. Mostly: No connection"
        case "held":
            operators.stop(database, "bolt", "held_at", ("hold", "breaker", None), NOW)
            expected = "bolt : held by its breaker"
        case "paused":
            operators.stop(database, "bolt", "paused_at", ("pause", "tests", None), NOW)
            expected = "bolt : paused by a person since"
        case "long":
            operators.stop(database, "bolt", "paused_at", ("pause", "tests", None), NOW - HOUR - 1)
            expected = "bolt : paused by a person, for more than an hour: was it forgotten?"
        case "late":
            accept(database, 1, 2, 3, operator="bolt", now=NOW - MINUTE)
            expected = "bolt : 3 deliveries are due and have not gone out."
    told = await page(at)
    assert expected in told, told
    assert "All is well" not in told
    own = await page(at, role=Role.OPERATOR, operator="acme")
    assert "All is well: nothing needs a person." in own


async def test_what_waits_for_a_paused_operator_is_not_called_late(at: Console) -> None:
    accept(at.database, 1, operator="bolt", now=NOW - HOUR)
    operators.stop(at.database, "bolt", "paused_at", ("pause", "tests", None), NOW)
    assert "have not gone out" not in await page(at)


async def test_an_operator_that_succeeds_now_and_then_is_not_said_to_fail_throughout(at: Console) -> None:
    rows = [attempts(at, "bolt", "retry", 50, MINUTE, "reset"), attempts(at, "bolt", "delivered", 1, MINUTE)]
    # Nor one whose failures are of before.
    rows += [attempts(at, "acme", "retry", 50, 20 * MINUTE, "reset")]
    minutes.add(at.database, rows)
    assert "none succeeded" not in await page(at)


async def test_the_page_asks_the_store_once_however_many_look_at_it(
    at: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = [Visitor(at, at.session()) for _ in range(3)]
    asked: list[object] = []
    read = minutes.read

    def counted(*given: Any) -> Any:
        asked.append(given)
        return read(*given)

    monkeypatch.setattr(minutes, "read", counted)
    monkeypatch.setattr(desk, "time", SimpleNamespace(monotonic=lambda: 0.0))
    for visitor in visitors:
        assert (await visitor.get("/console", **{"x-live": "1"})).status_code == 200
    assert len(asked) == 2, "the hour and the day"


# Charts.


def test_a_chart_has_every_step_and_each_attempt_once() -> None:
    rows = [
        Minute(0, "acme", "notice", "delivered", None, 90, 0, 0),
        Minute(0, "acme", "notice", "retry", "reset", 9, 0, 0),
        Minute(0, "bolt", "notice", "dead", "reset", 1, 0, 0),
        Minute(2 * MINUTE, "bolt", "notice", "delivered", None, 50, 0, 0),
        # What decides nothing, and what is no attempt.
        Minute(2 * MINUTE, "bolt", "notice", "late", None, 7, 0, 0),
        Minute(2 * MINUTE, "bolt", "notice", "put_off", "config", 7, 0, 0),
        # Not of this time.
        Minute(4 * MINUTE, "bolt", "notice", "delivered", None, 1_000, 0, 0),
    ]
    drawn = chart(rows, 0, 4 * MINUTE, MINUTE)
    assert [column.total for column in drawn.columns] == [100, 0, 50, 0]
    assert drawn.sums == {"delivered": 140, "retry": 9, "dead": 1}
    assert drawn.top == 100
    assert [(bar.x, bar.y, bar.height, bar.colour) for bar in drawn.bars] == [
        (1, 10.0, 90.0, "yes"),
        (1, 1.0, 9.0, "doubt"),
        # One among thousands is to be seen.
        (1, 0, 2.0, "no"),
        (21, 50.0, 50.0, "yes"),
    ]
    assert tally(rows[:4]).rate == "93.3"
    assert tally([]).rate is None
    assert chart([], 0, 3 * MINUTE, MINUTE).top > 0


# Operators.


async def test_the_operators_stand_with_how_it_goes(at: Console) -> None:
    minutes.add(
        at.database, [attempts(at, "acme", "delivered", 9, MINUTE), attempts(at, "acme", "dead", 1, MINUTE, "tls")]
    )
    accept(at.database, 1, 2, operator="acme")
    operators.stop(at.database, "bolt", "paused_at", ("pause", "tests", None), NOW)
    told = await page(at, "/console/operators")
    assert "acme Open 90.0 % of 10 120 ms 2 2026-01-01 00:00:00 UTC 0" in told
    assert "bolt Paused – – 0 – 0" in told
    own = await page(at, "/console/operators", Role.OPERATOR, "acme")
    assert "acme" in own
    assert "bolt" not in own


async def test_an_operators_page_says_why_it_failed_last_and_shows_no_secret(at: Console) -> None:
    accept(at.database, 77, operator="acme")
    settle(at.database, *(failed(one, NOW, Reason.READ_TIMEOUT) for one in take(at.database, operator="acme")))
    told = await page(at, "/console/operators/acme", Role.ADMIN)
    assert "Last failure: No whole answer in time · The operator may have booked it Order 77" in told
    assert "https://acme.example/Demo/notice" in told
    assert "…" in told
    for secret in (KEY, "the-token-of-acme"):
        assert secret not in told
    # Its own people see how it goes, not how it is set, nor who works here.
    own = await page(at, "/console/operators/acme", Role.OPERATOR, "acme")
    assert "Last failure" in own
    assert "/Demo/notice" not in own
    assert "What was done by hand" not in own


@pytest.mark.parametrize("role", [Role.ADMIN, Role.SUPPORT])
async def test_whoever_pauses_an_operator_stands_in_the_journal_with_the_reason(
    at: Console, role: Role, tmp_path: Path
) -> None:
    visitor = Visitor(at, at.session(role, name="li.wei"))
    for verb, told in (("pause", "operator_paused"), ("pause", "operator_unchanged"), ("resume", "operator_resumed")):
        asked = await visitor.get(f"/console/operators/bolt/{verb}")
        assert asked.status_code == 200
        done = await visitor.post(f"/console/operators/bolt/{verb}", note=f"because of {told}")
        assert done.headers["location"] == f"/console/operators/bolt?told={told}"
        assert (operators.standings(at.database)[1].paused_at is not None) is (verb == "pause")
    by_hand = [one for one in operators.done_to(at.database, "bolt") if one["verb"] != "set"]
    assert [(one["verb"], one["actor"], one["note"]) for one in by_hand] == [
        ("pause", "console:li.wei", "because of operator_paused"),
        ("resume", "console:li.wei", "because of operator_resumed"),
    ]
    shown = await page(at, "/console/operators/bolt", role)
    assert "because of operator_resumed" in shown
    audited = CliRunner().invoke(main, ["audit", "-c", str(tmp_path / "config.toml"), "--json"])
    assert audited.exit_code == 0, audited.output


async def test_what_the_breaker_holds_is_resumed_too(at: Console) -> None:
    operators.stop(at.database, "bolt", "held_at", ("hold", "breaker", None), NOW)
    visitor = Visitor(at, at.session())
    done = await visitor.post("/console/operators/bolt/resume", note="they are back")
    assert done.headers["location"].endswith("operator_resumed")
    assert operators.standings(at.database)[1].held_at is None


@pytest.mark.parametrize("note", ["", "   ", "x" * 2_001])
async def test_nothing_is_paused_without_a_reason(at: Console, note: str) -> None:
    answer = await Visitor(at, at.session()).post("/console/operators/bolt/pause", note=note)
    assert answer.status_code == 422
    assert "Write why" in answer.text
    assert operators.standings(at.database)[1].paused_at is None


@pytest.mark.parametrize("name", ["nobody", "bolt%2f..%2facme", "<b>", "x" * 300])
async def test_an_operator_that_is_not_there_is_not_found(at: Console, name: str) -> None:
    for who in (at.session(), at.session(Role.OPERATOR, "acme")):
        assert (await Visitor(at, who).get(f"/console/operators/{name}")).status_code == 404
    assert (await Visitor(at, at.session()).post("/console/operators/nobody/pause", note="x")).status_code == 404
    assert (await Visitor(at, at.session(Role.OPERATOR, "acme")).get("/console/operators/bolt")).status_code == 404


async def test_an_operator_whose_settings_cannot_be_used_is_shown_as_that(at: Console) -> None:
    with at.database.writing() as connection:
        connection.execute(text("UPDATE operators SET settings = 'x' || settings WHERE name = 'bolt'"))
    at.faults["operator bolt"] = "its settings can't be used; the log says why"
    assert "Unfit" in await page(at, "/console/operators")
    assert "Unfit" in await page(at, "/console/operators/bolt", Role.ADMIN)
    assert "operator bolt : its settings can&#39;t be used" in await page(at)
    assert "bolt" not in await page(at, role=Role.OPERATOR, operator="acme")


@pytest.mark.each_store
async def test_pages_cost_the_same_however_many_rows_there_are(at: Console) -> None:
    """Each statement that a page asks goes by an index, or reads what is as small as the operators are few."""
    accept(at.database, *range(40), operator="acme")
    settle(at.database, *(failed(one, NOW) for one in take(at.database, operator="acme", most=20)))
    for path in ("/console", "/console/operators", "/console/operators/acme"):
        visitor = Visitor(at, at.session())
        at.desk.forget()
        with asked(at.database) as statements:
            assert (await visitor.get(path)).status_code == 200
        assert statements
        for statement, parameters in statements:
            steps = plan(at.database, statement, parameters)
            assert read(at.database, steps) == [], (path, statement)
            assert not [step for step in steps if re.match(r"SCAN (attempts|journal)\b", step)], (path, statement)
