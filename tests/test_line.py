"""The line: one player's events go out one after the other, in the order in which they were accepted."""

import asyncio
import dataclasses
import json
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import text

import dispatcher.rounds
from dispatcher.cli import main
from dispatcher.ground.clock import HOUR, MINUTE, SECOND, WallClock
from dispatcher.ground.events import Event
from dispatcher.ground.operator import Ordering, OrderingKey, WhenDead
from dispatcher.ground.policy import Claim, Outcome, Reason, Status, Verb, Verdict, judge_interrupted
from dispatcher.ground.schedule import Delays
from dispatcher.store import acceptance, corridor, ledger, statements
from dispatcher.store.acceptance import Fate
from dispatcher.store.corridor import Adopted, Settlement
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.engine import Database
from dispatcher.store.line import _ADVANCE, behind_another, insert_in_line
from dispatcher.store.schema import deliveries
from tests.ground import NOW, line, lock, notice, operator, parse_event, settle_event
from tests.stores import STORES, PostgreSQL, bury, open_store, trap, untrap
from tests.workshop import Bench, Gate, MovedClock, adopt, configuration, event, failed, row, settle, take, until

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

FOUR = (0, 1 * MINUTE, 30 * MINUTE, 50 * MINUTE)
RULE = operator().terms["notice"].rule


def of(uid: str | None, key: int | str, operator: str = "acme", kind: str = "notice", bet: str = "10") -> Event:
    """An event in this player's line; in none, where there is no player."""
    made = event(key, operator, uid=uid or "player-9", total_bet=bet)
    return made._replace(type=kind, sequence=uid)


def accept(database: Database, *events: Event, now: int = NOW) -> list[Fate]:
    return acceptance.accept(database, events, now)


def keys(claims: list[Claim]) -> list[str]:
    return [claim.key for claim in claims]


def yes(claim: Claim, now: int = NOW) -> Settlement:
    return Settlement(claim, Outcome(now, now, 0, 200), Verdict(Verb.DELIVER))


def grave(claim: Claim, now: int = NOW, *, blocks: bool) -> Settlement:
    outcome = Outcome(now, now, 0, None, Reason.CONNECT_REFUSED)
    return Settlement(claim, outcome, Verdict(Verb.BURY, reason=Reason.CONNECT_REFUSED), blocks)


def go(database: Database, most: int = 100, now: int = NOW) -> list[str]:
    """The keys that go out, one after the other, when the operator says yes to each."""
    gone: list[str] = []
    while claims := take(database, now, most):
        gone += keys(claims)
        settle(database, *(yes(claim, now) for claim in claims), now=now)
    return gone


def replay(database: Database, *some: int, now: int = NOW) -> None:
    assert len(ledger.replay(database, [row(database, key) for key in some], "ada", now).taken) == len(some)


def resolve(database: Database, *some: int, now: int = NOW) -> None:
    assert len(ledger.resolve(database, [row(database, key) for key in some], "ada", "agreed", now).taken) == len(some)


def dies(database: Database, key: int, *, blocks: bool, now: int = NOW) -> None:
    """The one that may go goes, and is dead."""
    (claim,) = take(database, now)
    assert claim.key == str(key)
    settle(database, grave(claim, now, blocks=blocks), now=now)


# Standing in line.


def test_of_one_player_only_the_first_is_claimed(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p2", 3), of("p1", 4))
    assert keys(take(database)) == ["1", "3"]
    assert take(database) == []
    assert [row(database, key).parked for key in (1, 2, 3, 4)] == [False, True, False, True]


def test_the_next_one_goes_as_soon_as_the_first_is_delivered(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p1", 3))
    assert go(database) == ["1", "2", "3"]


def test_the_turn_that_settles_one_claims_the_next(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    (first,) = take(database)
    assert keys(corridor.turn(database, [yes(first)], {"acme": 5}, NOW).claimed) == ["2"]


def test_message_types_share_a_line(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 1, kind="settle"), of("p1", 2))
    for kind, key in (("notice", "1"), ("settle", "1"), ("notice", "2")):
        (claim,) = take(database)
        assert (claim.type, claim.key) == (kind, key)
        settle(database, yes(claim))


def test_two_operators_with_the_same_player_share_no_line(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 1, "bolt"), of("p1", 2), of("p1", 2, "bolt"))
    claims = corridor.turn(database, [], {"acme": 5, "bolt": 5}, NOW).claimed
    assert [(claim.operator, claim.key) for claim in claims] == [("acme", "1"), ("bolt", "1")]
    settle(database, *(yes(claim) for claim in claims if claim.operator == "acme"))
    claims = corridor.turn(database, [], {"acme": 5, "bolt": 5}, NOW).claimed
    assert [(claim.operator, claim.key) for claim in claims] == [("acme", "2")]


def test_what_has_no_order_is_never_parked(database: Database) -> None:
    accept(database, of("p1", 1), of(None, 2), of("p1", 3), of(None, 4))
    assert keys(take(database)) == ["1", "2", "4"]


def test_a_failing_one_holds_up_its_own_line_only_and_for_as_long_as_it_fails(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p2", 3), of("p2", 4))
    first, other = take(database)
    settle(database, failed(first, NOW), yes(other))
    assert go(database) == ["4"]
    assert take(database, NOW + MINUTE - 1) == []
    assert go(database, now=NOW + MINUTE) == ["1", "2"]


def test_what_was_put_off_stays_at_the_head(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    (first,) = take(database)
    settle(database, Settlement(first, Outcome(NOW, NOW, 0, ours=True), Verdict(Verb.PUT_OFF, NOW + SECOND)))
    assert take(database) == []
    assert go(database, now=NOW + SECOND) == ["1", "2"]


def test_a_dead_one_that_blocks_stops_its_line_and_no_other(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p2", 3))
    first, other = take(database)
    settle(database, grave(first, blocks=True), yes(other))
    accept(database, of("p1", 4), of("p2", 5), now=NOW + HOUR)
    assert go(database, now=NOW + 365 * 24 * HOUR) == ["5"]


def test_a_dead_one_that_releases_lets_the_next_go(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    dies(database, 1, blocks=False)
    assert go(database) == ["2"]


@pytest.mark.parametrize("blocks", [True, False])
def test_a_late_hand_moves_no_line(database: Database, blocks: bool) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    (first,) = take(database)
    (stranded,) = adopt(database)
    settle(database, Settlement(stranded.claim, Outcome(NOW, NOW, 0), Verdict(Verb.RETRY, NOW, Reason.INTERRUPTED)))
    assert len(settle(database, yes(first))) == 1
    assert len(settle(database, grave(first, blocks=blocks))) == 1
    assert go(database) == ["1", "2"]


def test_a_turn_tells_for_which_operators_somebody_has_come_to_the_head_of_a_line(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p2", 3), of("p1", 4, "bolt"), of("p1", 5, "bolt"))
    claims = corridor.turn(database, [], {"acme": 5, "bolt": 5}, NOW)
    assert (keys(claims.claimed), set(claims.freed)) == (["1", "3", "4"], set())
    first, second, bolts = claims.claimed
    assert set(corridor.turn(database, [yes(second), failed(bolts, NOW)], {}, NOW).freed) == set()
    assert set(corridor.turn(database, [yes(first)], {}, NOW).freed) == {"acme"}


# Accepting.


def test_a_batch_with_duplicates_and_conflicts_keeps_the_order_of_the_rest(database: Database) -> None:
    accept(database, of("p1", 1))
    batch = [of("p1", 2), of("p1", 1), of("p1", 3), of("p1", 2), of("p1", 1, bet="11"), of("p1", 4), of("p2", 5)]
    fates = [Fate.ACCEPTED, Fate.DUPLICATE, Fate.ACCEPTED, Fate.DUPLICATE, Fate.CONFLICT, Fate.ACCEPTED, Fate.ACCEPTED]
    assert accept(database, *batch) == fates
    assert [row(database, key).parked for key in (1, 2, 3, 4, 5)] == [False, True, True, True, False]
    assert go(database, 1) == ["1", "2", "3", "4", "5"]


def test_a_batch_that_is_known_already_parks_nobody_behind_itself(database: Database) -> None:
    batch = [of("p1", 1), of("p1", 2)]
    accept(database, *batch)
    assert accept(database, *batch) == [Fate.DUPLICATE] * 2
    assert go(database) == ["1", "2"]
    assert accept(database, *batch) == [Fate.DUPLICATE] * 2
    accept(database, of("p1", 3))
    assert go(database) == ["3"]


def test_an_event_that_follows_a_delivered_one_does_not_wait(database: Database) -> None:
    accept(database, of("p1", 1))
    assert go(database) == ["1"]
    accept(database, of("p1", 2))
    assert not row(database, 2).parked


def test_two_processes_that_accept_keep_one_line(database: Database) -> None:
    other = open_store(database.place)
    accept(database, of("p1", 1))
    accept(other, of("p1", 2))
    accept(database, of("p1", 3))
    other.close()
    assert go(database) == ["1", "2", "3"]


def parsed(ordering: Ordering | None, raw: dict[str, Any]) -> Event:
    terms = operator().terms
    settles = dataclasses.replace(terms["settle"], url="https://acme.example/settle")
    acme = dataclasses.replace(operator(ordering=ordering), terms={**terms, "settle": settles})
    return parse_event(line(raw), {"acme": acme}, lock)


@pytest.mark.parametrize(
    ("ordering", "of_notice", "of_settle"),
    [
        (None, None, None),
        (Ordering(OrderingKey.UID, WhenDead.BLOCK), "player-1", "player-1"),
        (Ordering(OrderingKey.ROUND_ID, WhenDead.BLOCK), None, "round-1"),
    ],
)
def test_the_setting_says_what_ties_events_together(
    ordering: Ordering | None, of_notice: str | None, of_settle: str | None
) -> None:
    assert parsed(ordering, notice()).sequence == of_notice
    assert parsed(ordering, settle_event()).sequence == of_settle


def test_by_round_only_those_of_one_round_wait_for_each_other(database: Database) -> None:
    by_round = Ordering(OrderingKey.ROUND_ID, WhenDead.BLOCK)
    rounds = {"t1": "r1", "t2": "r1", "t3": "r2"}
    accept(
        database,
        *(parsed(by_round, settle_event(txId=key, roundId=of_round)) for key, of_round in rounds.items()),
        *(parsed(by_round, notice(order_no=str(key))) for key in (1, 2)),
    )
    assert keys(take(database)) == ["t1", "t3", "1", "2"]


def test_what_came_before_the_order_was_switched_on_stands_in_nobodys_way(database: Database) -> None:
    accept(database, of(None, 1), of(None, 2))
    accept(database, of("player-9", 3), of("player-9", 4))
    assert keys(take(database)) == ["1", "2", "3"]


def test_what_came_before_the_order_was_switched_off_keeps_it(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    accept(database, of(None, 3))
    assert keys(take(database, most=5)) == ["1", "3"]
    settle(database, *(yes(one.claim) for one in adopt(database)))
    assert go(database) == ["2"]


# What a person does.


def test_to_resolve_a_dead_one_lets_the_next_go(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p1", 3))
    dies(database, 1, blocks=True)
    resolve(database, 1)
    assert go(database) == ["2", "3"]


def test_a_replayed_dead_one_goes_before_those_that_it_blocks(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    dies(database, 1, blocks=True)
    replay(database, 1)
    assert go(database) == ["1", "2"]


@pytest.mark.parametrize("page", [1, 2, 1_000])
def test_several_that_are_replayed_at_once_keep_their_order(
    database: Database, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PAGE", page)
    accept(database, *(of("p1", key) for key in range(1, 6)))
    for key in range(1, 6):
        dies(database, key, blocks=False)
    replay(database, 5, 3, 1, 4, 2)
    assert go(database) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("page", [1, 1_000])
def test_a_resolved_and_a_dead_one_that_are_replayed_at_once_keep_their_order(
    database: Database, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PAGE", page)
    accept(database, *(of("p1", key) for key in (1, 2, 3)))
    dies(database, 1, blocks=True)
    resolve(database, 1)
    dies(database, 2, blocks=True)
    replay(database, 2, 1)
    assert go(database) == ["1", "2", "3"]


def test_a_resolved_one_that_is_replayed_does_not_wait_for_a_later_dead_one(database: Database) -> None:
    accept(database, *(of("p1", key) for key in (1, 2, 3)))
    dies(database, 1, blocks=True)
    resolve(database, 1)
    dies(database, 2, blocks=True)
    replay(database, 1)
    assert go(database) == ["1"]
    assert row(database, 3).parked
    resolve(database, 2)
    assert go(database) == ["3"]


def test_one_that_is_replayed_while_a_later_one_is_in_flight_waits_for_it(database: Database) -> None:
    accept(database, *(of("p1", key) for key in (1, 2, 3)))
    dies(database, 1, blocks=False)
    (second,) = take(database)
    replay(database, 1)
    assert take(database) == []
    settle(database, yes(second))
    assert go(database) == ["1", "3"]


def test_one_that_waits_for_a_later_one_goes_when_that_dies(database: Database) -> None:
    accept(database, *(of("p1", key) for key in (1, 2, 3)))
    dies(database, 1, blocks=False)
    (second,) = take(database)
    replay(database, 1)
    settle(database, grave(second, blocks=True))
    assert go(database) == ["1"]
    assert row(database, 3).parked


def test_a_replay_of_what_has_no_order_waits_for_nobody(database: Database) -> None:
    accept(database, of(None, 1))
    dies(database, 1, blocks=True)
    accept(database, of("p1", 2), of("p1", 3))
    replay(database, 1)
    assert keys(take(database)) == ["1", "2"]


def test_a_replay_at_the_head_of_its_own_line_waits_for_no_other_line(database: Database) -> None:
    accept(database, of("p1", 1))
    dies(database, 1, blocks=False)
    accept(database, of("p2", 2), of("p2", 3), of("p1", 4, "bolt"), of("p1", 5, "bolt"))
    replay(database, 1)
    assert not row(database, 1).parked


def test_who_stands_in_line_is_not_said_to_be_due(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    ((_, why),) = ledger.replay(database, [row(database, 2)], "ada", NOW).refused
    assert why == "it is not dead: it waits for another one of its line"
    unaware = row(database, 2)._replace(parked=False)
    ((_, why),) = ledger.replay(database, [unaware], "ada", NOW).refused
    assert why == "it is not dead: it waits for another one of its line"


# A crash in between.


def test_a_line_outlives_the_process(database: Database) -> None:
    accept(database, of("p1", 1), of("p1", 2), of("p1", 3))
    assert keys(take(database)) == ["1"]
    database.close()
    other = open_store(database.place)
    assert take(other) == []
    bury(other.place)
    (stranded,) = adopt(other)
    verdict = judge_interrupted(stranded.claim, NOW, Delays())
    settle(other, Settlement(stranded.claim, Outcome(NOW, NOW, None), verdict, blocks=True))
    assert go(other) == ["1", "2", "3"]
    other.close()


@pytest.mark.parametrize("doing", ["old.parked AND NOT new.parked", "new.status = 'delivered'"])
def test_a_settlement_and_its_lines_next_are_one_transaction(database: Database, doing: str) -> None:
    accept(database, of("p1", 1), of("p1", 2))
    (first,) = take(database)
    trap(database, f"BEFORE UPDATE ON deliveries WHEN ({doing})", "the power is gone")
    with pytest.raises(Exception, match="the power is gone"):
        settle(database, yes(first))
    assert (row(database, 1).status, row(database, 2).parked) == ("sending", True)
    untrap(database)
    assert settle(database, yes(first)) == []
    assert go(database) == ["2"]


# What it costs.


def plan(database: Database, statement: Any, **parameters: Any) -> list[str]:
    """How SQLite goes about it: the steps that read deliveries."""
    with database.reading() as connection:
        spelled = statement.on(connection) if isinstance(statement, Spelled) else statement
        compiled = str(spelled.compile(dialect=database.engine.dialect))
        values = (parameters.get("one", ""),) * compiled.count("?")
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values).all()
    return [step[3] for step in steps if step[3].startswith(("SEARCH", "SCAN"))]


BY_LINE = "USING INDEX line (operator=? AND sequence=?"
BY_ID = "USING INTEGER PRIMARY KEY (rowid=?)"
BY_REVISION = "SEARCH operators USING COVERING INDEX ix_operators_revision"


@pytest.mark.sqlite_only
def test_a_claim_looks_at_what_is_due_only(database: Database) -> None:
    assert plan(database, statements.DUE) == [
        "SEARCH deliveries USING INDEX due (operator=? AND due_at<?)",
        *[step for step in plan(database, statements.DUE) if not step.startswith("SEARCH deliveries")],
    ]


@pytest.mark.sqlite_only
def test_the_survey_looks_at_what_is_due_only(database: Database) -> None:
    steps = [step for step in plan(database, statements.SURVEY) if not step.startswith(("SCAN w", "SCAN waiting"))]
    read = [step for step in steps if step not in (BY_REVISION, "SEARCH tails")]
    assert len(read) == 3
    assert all("USING" in step and "INDEX due" in step for step in read), read


@pytest.mark.sqlite_only
def test_to_join_a_line_is_one_look_into_it(database: Database) -> None:
    assert plan(database, insert_in_line()) == [f"SEARCH other {BY_LINE})"]


@pytest.mark.sqlite_only
def test_to_leave_a_line_is_one_look_for_the_next_and_one_for_who_stands_in_its_way(database: Database) -> None:
    assert plan(database, _ADVANCE, one="[]") == [
        f"SEARCH deliveries {BY_ID}",
        "SCAN r VIRTUAL TABLE INDEX 1:",
        f"SEARCH n {BY_LINE} AND parked=?)",
        f"SEARCH h {BY_LINE} AND parked=?)",
    ]


@pytest.mark.sqlite_only
def test_to_join_a_line_again_is_one_look_into_it(database: Database) -> None:
    with database.reading() as connection:
        parked = behind_another(connection)
    again = deliveries.update().where(deliveries.c.id == 1).values(parked=parked)
    assert plan(database, again) == [f"SEARCH deliveries {BY_ID}", f"SEARCH h {BY_LINE} AND parked=?)"]


def crowd(database: Database, count: int) -> None:
    """So many parked behind the first of player p1, who is dead."""
    accept(database, of("p1", 1), of("p1", 2))
    dies(database, 1, blocks=True)
    names = "operator, type, uid, body, digest, sequence, in_line, parked, status, accepted_at, due_at"
    with database.writing() as connection:
        connection.execute(
            text(
                "WITH RECURSIVE some(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < :count)"
                f" INSERT INTO deliveries (key, {names}) SELECT 'x' || n, {names} FROM deliveries, some WHERE key = '2'"
            ),
            {"count": count},
        )


def steps(database: Database, work: Callable[[], object]) -> int:
    """How many steps of its machine SQLite takes for the work."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    with database.writing() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(count, 1)
    try:
        work()
    finally:
        driver.set_progress_handler(None, 1)
    assert taken
    return taken


def cost(database: Database) -> list[int]:
    """Of a claim, a settlement, a survey, a new event in the long line and another beside it, and of its next."""
    others = [of("p2", f"p2-{n}") for n in range(4)]
    accept(database, *others)
    held: list[Claim] = []
    return [
        steps(database, lambda: held.extend(take(database, most=2))),
        steps(database, lambda: settle(database, *(yes(claim) for claim in held))),
        steps(database, lambda: corridor.survey(database)),
        steps(database, lambda: accept(database, of("p1", "last"))),
        steps(database, lambda: accept(database, of("p2", "other"))),
        steps(database, lambda: resolve(database, 1)),
        steps(database, lambda: replay(database, 1)),
    ]


@pytest.mark.sqlite_only
def test_a_hundred_thousand_that_wait_behind_one_cost_nobody_anything(database: Database, tmp_path: Path) -> None:
    small = open_store(tmp_path / "small.db")
    crowd(small, 10)
    crowd(database, 100_000)
    few, many = cost(small), cost(database)
    small.close()
    assert [taken for taken, usual in zip(many, few, strict=True) if taken > usual + 100] == [], (few, many)


# At work.


class Acme:
    """An operator who says no to some events, and keeps for which it was asked, in order."""

    def __init__(self, *refused: int | str) -> None:
        self.refused = set(map(str, refused))
        self.asked: list[str] = []
        self.gate: Gate | None = None

    async def answer(self, request: httpx.Request) -> httpx.Response:
        said = json.loads(request.content)
        key = said["order_no"] if "order_no" in said else said["txId"]
        self.asked.append(key)
        if self.gate is not None:
            await self.gate.answer(request)
        return httpx.Response(500 if key in self.refused else 200, json={"code": "0000"})

    def takes(self, key: int | str) -> None:
        self.refused.remove(str(key))


def ordered(folder: Path, acme: Acme, ordering: str = '{ key = "uid" }', clock: MovedClock | None = None) -> Bench:
    config = configuration(folder, ordering=ordering, callback_url='"https://acme.example/cb"')
    return Bench(config, clock, acme.answer)


async def hand_in(at: Bench, *raw: dict[str, Any]) -> None:
    """Accepted by the settings in force; looked for, worked until calm."""
    events = [parse_event(line(one), at.config.operators, lock) for one in raw]
    acceptance.accept(at.database, events, at.clock.now())
    await at.look()


def spin(uid: str, key: int, operator: str = "acme") -> dict[str, Any]:
    return notice(order_no=str(key), uid=uid, operator=operator)


async def until_dead(at: Bench, key: int = 1) -> None:
    """Four attempts, from the first that has failed already."""
    for delay in FOUR[1:]:
        await at.after(delay)
    assert at.row(key)[5:7] == ("dead", 4)


async def test_one_players_failing_event_holds_up_his_other_ones_alone(tmp_path: Path) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2), spin("p2", 3), settle_event(userId="p1", txId="t4"))
        for made, delay in enumerate(FOUR[1:], start=1):
            await hand_in(at, spin("p2", 10 + made), spin("p1", 20 + made))
            await at.after(delay - 1)
            assert (acme.asked.count("1"), acme.asked.count(str(10 + made))) == (made, 1)
            await at.after(1)
        assert acme.asked.count("1") == 4
        assert set(acme.asked) == {"1", "3", "11", "12", "13"}


async def test_once_it_is_taken_the_others_follow_in_their_order_at_the_same_moment(tmp_path: Path) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), settle_event(userId="p1", txId="t2"), spin("p1", 3))
        acme.takes(1)
        await at.after(MINUTE)
        assert acme.asked == ["1", "1", "t2", "3"]


async def test_behind_a_dead_one_nobody_goes_until_it_is_resolved(tmp_path: Path) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2), spin("p1", 3))
        await until_dead(at)
        await at.after(365 * 24 * HOUR)
        assert acme.asked == ["1"] * 4
        resolve(at.database, 1, now=at.clock.now())
        await at.look()
        assert acme.asked[4:] == ["2", "3"]


async def test_behind_a_dead_one_nobody_goes_until_it_is_replayed_and_taken(tmp_path: Path) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2))
        await until_dead(at)
        replay(at.database, 1, now=at.clock.now())
        await at.look()
        assert acme.asked == ["1"] * 5
        acme.takes(1)
        await at.after(MINUTE)
        assert acme.asked[5:] == ["1", "2"]


async def test_where_the_dead_release_the_next_goes_at_the_moment_of_the_burial(tmp_path: Path) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme, '{ key = "uid", dead = "release" }') as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2), spin("p1", 3))
        await until_dead(at)
        assert acme.asked == ["1"] * 4 + ["2", "3"]
        acme.takes(1)
        replay(at.database, 1, now=at.clock.now())
        await at.look()
        assert acme.asked[6:] == ["1"]


async def test_two_of_one_player_are_never_under_way_at_once(tmp_path: Path) -> None:
    gate = Gate()
    config = configuration(tmp_path, "acme", "bolt", ordering='{ key = "uid" }')
    async with Bench(config, answer=gate.answer) as at:
        await hand_in(at, *(spin(f"p{n % 3}", n, name) for n in range(12) for name in ("acme", "bolt")))
        assert gate.waiting == {"acme": 3, "bolt": 3}
        for done in range(1, 4):
            gate.let_one_pass("acme")
            await until(lambda: gate.answered["acme"] == done)  # noqa: B023 - called within the round
            await at.calm()
            assert gate.waiting == {"acme": 3, "bolt": 3}
        gate.open()
        await at.idle()
        assert gate.answered == {"acme": 12, "bolt": 12}
        assert gate.most == {"acme": 3, "bolt": 3}


async def test_by_round_notices_go_out_beside_each_other_and_a_rounds_settlements_one_by_one(tmp_path: Path) -> None:
    acme = Acme()
    acme.gate = Gate()
    async with ordered(tmp_path, acme, '{ key = "roundId" }') as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2), settle_event(txId="t1"), settle_event(txId="t2"))
        assert sorted(acme.asked) == ["1", "2", "t1"]
        acme.gate.open()
        await at.idle()
        assert acme.asked[3:] == ["t2"]


async def test_an_order_that_a_reload_switches_on_binds_what_is_accepted_from_then_on(tmp_path: Path) -> None:
    acme = Acme(1, 2, 3)
    at = Bench(configuration(tmp_path), answer=acme.answer)
    async with at:
        await hand_in(at, spin("p1", 1), spin("p1", 2))
        await at.daemon.reload(configuration(tmp_path, ordering='{ key = "uid" }'))
        await hand_in(at, spin("p1", 3), spin("p1", 4))
        assert acme.asked == ["1", "2", "3"]
        acme.takes(3)
        await at.after(MINUTE)
        assert sorted(acme.asked[3:6]) == ["1", "2", "3"]
        assert acme.asked[6:] == ["4"]


@pytest.mark.parametrize("then", ["", '{ key = "uid", dead = "release" }', '{ key = "roundId" }'])
async def test_what_stands_in_line_when_a_reload_changes_the_order_goes_on_in_its_line(
    tmp_path: Path, then: str
) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2), spin("p1", 3))
        await at.daemon.reload(configuration(tmp_path, **({"ordering": then} if then else {})))
        await at.after(MINUTE)
        assert acme.asked == ["1", "1"]
        acme.takes(1)
        await at.after(30 * MINUTE)
        assert acme.asked == ["1", "1", "1", "2", "3"]


@pytest.mark.parametrize("then", ["", '{ key = "uid", dead = "release" }'])
async def test_what_dies_after_a_reload_blocks_by_the_settings_of_that_moment(tmp_path: Path, then: str) -> None:
    acme = Acme(1)
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2))
        await at.daemon.reload(configuration(tmp_path, **({"ordering": then} if then else {})))
        await until_dead(at)
        assert acme.asked == ["1"] * 4 + ["2"]


async def test_after_a_crash_the_head_is_sent_again_before_those_behind_it(tmp_path: Path) -> None:
    acme = Acme()
    acme.gate = Gate()
    async with ordered(tmp_path, acme) as at:
        await hand_in(at, spin("p1", 1), spin("p1", 2))
        await at.restart()
        acme.gate.open()
        await at.idle()
        assert acme.asked == ["1", "1", "2"]
        assert [one["reason"] for one in at.attempts()] == ["interrupted", None]


def still(at: Bench) -> Callable[[], bool]:
    """Whether the daemon has had nothing to do for a while."""
    seen: list[float] = []

    def condition() -> bool:
        seen.append(at.dispatch.turned_at)
        return len(seen) > 100 and len(set(seen[-100:])) == 1

    return condition


@pytest.mark.parametrize("verb", [["replay"], ["resolve", "--note", "agreed"]], ids=["replay", "resolve"])
async def test_the_daemon_hears_of_it_at_once_when_a_person_lets_a_line_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.setattr(dispatcher.rounds, "LOOK_SECONDS", 3_600)
    acme = Acme(1)
    at = ordered(tmp_path, acme, clock=MovedClock(WallClock().now()))
    async with at:
        await hand_in(at, spin("p1", 1), spin("p1", 2))
        await until_dead(at)
    acme.takes(1)
    # As the command does; and a clock that stood still would be noticed as one that jumps, and every round be run.
    at.clock = cast(MovedClock, WallClock())
    at.daemon = at.build()
    run = asyncio.create_task(at.daemon.run())
    await until(lambda: bool(at.told("running")))
    await until(still(at))
    assert acme.asked == ["1"] * 4
    done = CliRunner().invoke(main, ["dead", *verb, "acme", "1", "-c", str(at.path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    await until(lambda: acme.asked[-1] == "2")
    at.dispatch.stop()
    await asyncio.wait_for(run, 60)
    assert acme.asked[4:] == (["1", "2"] if verb == ["replay"] else ["2"])


# Everything at once, against a model.


@dataclasses.dataclass(eq=False)
class Stand:
    """One delivery as the model has it. `place`: how many were accepted before it."""

    place: int
    name: tuple[str, str, str]
    sequence: str | None
    digest: bytes
    due_at: int | None
    status: Status = Status.PENDING
    token: int | None = None
    replayed: bool = False

    @property
    def done(self) -> bool:
        return self.status in (Status.DELIVERED, Status.RESOLVED, Status.DEAD)


class Queue:
    """One line by the book: somebody may go, the others wait by their places, and dead ones stop those behind them."""

    def __init__(self) -> None:
        self.head: Stand | None = None
        self.waiting: list[Stand] = []
        self.stoppers: list[Stand] = []

    def join(self, one: Stand, *, again: bool = False) -> None:
        """At the end; or again, at its own place, where only what is before it or under way stops it."""
        if one in self.stoppers:
            self.stoppers.remove(one)
        if again:
            free = self.head is None and not self._stopped(one)
        else:
            free = not (self.head or self.waiting or self.stoppers)
        if free:
            self.head = one
        else:
            self.waiting.append(one)

    def leave(self, one: Stand, *, stops: bool = False) -> None:
        if self.head is one:
            self.head = None
        if one in self.stoppers:
            self.stoppers.remove(one)
        if stops:
            self.stoppers.append(one)
        if self.head is None and self.waiting:
            first = min(self.waiting, key=lambda waiting: waiting.place)
            if not self._stopped(first):
                self.waiting.remove(first)
                self.head = first

    def _stopped(self, one: Stand) -> bool:
        return any(stopper.place < one.place for stopper in self.stoppers)


OPERATORS = ("acme", "bolt")
PLAYERS = ("p1", "p2", None)
ONE_EVENT = st.tuples(
    st.sampled_from(PLAYERS),
    st.integers(1, 12),
    st.sampled_from(OPERATORS),
    st.sampled_from(["notice", "settle"]),
    st.sampled_from(["10", "11"]),
)
ENDS = st.sampled_from([Verb.DELIVER, Verb.DELIVER, Verb.RETRY, Verb.BURY, Verb.BURY, Verb.PUT_OFF])


class Lines(RuleBasedStateMachine):
    """Few players, two operators, dead ones that stop and that release, hands that are late or gone, a person."""

    server: ClassVar[PostgreSQL | None] = None

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        with STORES.on(self.server):
            self.database = STORES.open(Path(self.folder.name))
        self.now = NOW
        self.stands: dict[tuple[str, str, str], Stand] = {}
        self.queues: dict[tuple[str, str], Queue] = {}
        self.hands: list[Claim] = []

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    def queue(self, one: Stand) -> Queue:
        assert one.sequence is not None
        return self.queues.setdefault((one.name[0], one.sequence), Queue())

    @rule(by=st.sampled_from([1, MINUTE, 50 * MINUTE]))
    def the_clock_goes_on(self, by: int) -> None:
        self.now += by

    @rule()
    def the_process_is_another(self) -> None:
        """With the number of the one before: what that held is as if it had been left behind."""
        self.database.close()
        worker, self.database = self.database.worker, open_store(self.database.place)
        self.database.worker = worker

    @rule(batch=st.lists(ONE_EVENT, min_size=1, max_size=6))
    def events_are_handed_in(self, batch: list[tuple[str | None, int, str, str, str]]) -> None:
        events = [of(*drawn) for drawn in batch]
        assert acceptance.accept(self.database, events, self.now) == [self._fate(one) for one in events]

    def _fate(self, one: Event) -> Fate:
        known = self.stands.get(one[:3])
        if known is not None:
            return Fate.DUPLICATE if known.digest == one.digest else Fate.CONFLICT
        stand = Stand(len(self.stands), one[:3], one.sequence, one.digest, self.now)
        self.stands[one[:3]] = stand
        if stand.sequence is not None:
            self.queue(stand).join(stand)
        return Fate.ACCEPTED

    def may_go(self, one: Stand) -> bool:
        return one.status is Status.PENDING and (one.sequence is None or self.queue(one).head is one)

    @rule(most=st.integers(1, 4), operators=st.sets(st.sampled_from(OPERATORS), min_size=1))
    def a_hand_claims(self, most: int, operators: set[str]) -> None:
        due = [one for one in self.stands.values() if self.may_go(one) and (one.due_at or 0) <= self.now]
        due.sort(key=lambda one: (one.due_at, one.place))
        claims = corridor.turn(self.database, [], dict.fromkeys(operators, most), self.now).claimed
        for name in operators:
            came = [(claim.operator, claim.type, claim.key) for claim in claims if claim.operator == name]
            assert came == [one.name for one in due if one.name[0] == name][:most]
        for claim in claims:
            self._in_hand(claim)

    def _in_hand(self, claim: Claim) -> None:
        one = self.stands[claim.operator, claim.type, claim.key]
        assert claim.sequence == one.sequence
        for other in self.stands.values():
            if one.sequence is not None and (other.name[0], other.sequence) == (one.name[0], one.sequence):
                # Whatever the model's queue says: none beside it, and none that was accepted before it.
                assert other.status is not Status.SENDING
                gone = other.done and other not in self.queue(one).stoppers
                assert gone or other.place >= one.place or other.replayed
        one.status, one.token, one.due_at = Status.SENDING, claim.token, None
        self.hands.append(claim)

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), again=st.booleans(), blocks=st.booleans())
    def hands_settle_on_time_late_or_twice(self, data: st.DataObject, again: bool, blocks: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.hands), min_size=1, max_size=4, unique=True))
        done = [self._settlement(claim, data.draw(ENDS), blocks) for claim in chosen]
        if not again:
            self.hands = [claim for claim in self.hands if claim not in chosen]
        late = {id(one) for one in settle(self.database, *done, now=self.now)}
        self._settled([one for one in done if id(one) not in late])

    def _settlement(self, claim: Claim, verb: Verb, blocks: bool) -> Settlement:
        due_at = {Verb.RETRY: self.now + MINUTE, Verb.PUT_OFF: self.now + SECOND}.get(verb)
        reason = None if verb is Verb.DELIVER else Reason.CONNECT_REFUSED
        outcome = Outcome(self.now, self.now, 0, reason=reason, ours=verb is Verb.PUT_OFF)
        return Settlement(claim, outcome, Verdict(verb, due_at, reason), blocks)

    def _settled(self, done: list[Settlement]) -> None:
        for claim, _, verdict, blocks in done:
            one = self.stands[claim.operator, claim.type, claim.key]
            if one.token != claim.token:
                continue
            one.status, one.due_at, one.token = verdict.status, verdict.due_at, None
            if one.sequence is not None and one.done:
                self.queue(one).leave(one, stops=one.status is Status.DEAD and blocks)

    def _adopted(self, found: list[Adopted]) -> None:
        for claim, _ in found:
            self.stands[claim.operator, claim.type, claim.key].token = claim.token

    @rule(data=st.data(), verb=st.sampled_from([Verb.RETRY, Verb.BURY]), blocks=st.booleans())
    def whoever_is_gone_is_rescued(self, data: st.DataObject, verb: Verb, blocks: bool) -> None:
        held = data.draw(st.sets(st.sampled_from(self.hands))) if self.hands else set()
        found = adopt(self.database, self.now, {(claim.id, claim.token) for claim in held})
        self._adopted(found)
        done = [self._settlement(one.claim, verb, blocks) for one in found]
        assert settle(self.database, *done, now=self.now) == []
        self._settled(done)

    @precondition(lambda self: self.stands)
    @rule(data=st.data(), verb=st.sampled_from([Verb.REPLAY, Verb.RESOLVE]))
    def a_person_replays_or_resolves(self, data: st.DataObject, verb: Verb) -> None:
        may = {Verb.REPLAY: {Status.DEAD, Status.RESOLVED}, Verb.RESOLVE: {Status.DEAD}}[verb]
        names = data.draw(st.lists(st.sampled_from(sorted(self.stands)), min_size=1, max_size=5, unique=True))
        self._by_hand(verb, [ledger.one(self.database, name[0], name[2], name[1]) for name in names])
        for one in sorted((self.stands[name] for name in names), key=lambda one: one.place):
            if one.status in may:
                self._moved_by_hand(one, verb)

    def _by_hand(self, verb: Verb, rows: list[ledger.Row]) -> None:
        if verb is Verb.REPLAY:
            ledger.replay(self.database, rows, "ada", self.now)
        else:
            ledger.resolve(self.database, rows, "ada", "agreed", self.now)

    def _moved_by_hand(self, one: Stand, verb: Verb) -> None:
        if verb is Verb.REPLAY:
            one.status, one.due_at, one.replayed = Status.PENDING, self.now, True
            if one.sequence is not None:
                self.queue(one).join(one, again=True)
        else:
            one.status = Status.RESOLVED
            if one.sequence is not None:
                self.queue(one).leave(one)

    @rule()
    def in_the_end_everybody_is_sent(self) -> None:
        """Operators who say yes to everything, and a person who resolves what is dead: nobody is left waiting."""
        self.now += HOUR
        self._everybody_comes_back()
        for one in ledger.find(self.database, ledger.Filter(status=Status.DEAD), None):
            self._by_hand(Verb.RESOLVE, [one])
            self._moved_by_hand(self.stands[one.operator, one.type, one.key], Verb.RESOLVE)
        while claims := corridor.turn(self.database, [], dict.fromkeys(OPERATORS, 3), self.now).claimed:
            for claim in claims:
                self._in_hand(claim)
            done = [self._settlement(claim, Verb.DELIVER, False) for claim in claims]
            assert settle(self.database, *done, now=self.now) == []
            self._settled(done)
        assert [one.name for one in self.stands.values() if not one.done] == []

    def _everybody_comes_back(self) -> None:
        self.hands = []
        found = adopt(self.database, self.now)
        self._adopted(found)
        done = [self._settlement(one.claim, Verb.RETRY, True) for one in found]
        settle(self.database, *done, now=self.now)
        self._settled(done)
        self.now += MINUTE

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.reading() as connection:
            kept = connection.execute(deliveries.select().order_by(deliveries.c.id)).all()
        assert [(one.operator, one.type, one.key) for one in kept] == list(self.stands)
        for one in kept:
            stand = self.stands[one.operator, one.type, one.key]
            assert (one.status, one.due_at, one.token) == (stand.status, stand.due_at, stand.token)
            assert one.parked == (stand.status is Status.PENDING and not self.may_go(stand))

    @invariant()
    def nobody_is_parked_without_a_reason(self) -> None:
        """By the rows alone: at most one of a line is under way, and it or an earlier dead one stops the others."""
        if not hasattr(self, "database"):
            return
        with self.database.reading() as connection:
            kept = connection.execute(deliveries.select().where(deliveries.c.in_line)).all()
        for line_of in {(one.operator, one.sequence) for one in kept}:
            members = [one for one in kept if (one.operator, one.sequence) == line_of]
            live = [one for one in members if not one.parked and one.status != Status.DEAD]
            dead = [one.id for one in members if one.status == Status.DEAD]
            assert len(live) <= 1
            for one in members:
                assert not one.parked or live or any(earlier < one.id for earlier in dead)


class LinesOnPostgreSQL(Lines):
    """The same, by a server."""


@pytest.fixture(scope="class")
def on_the_server(postgresql: PostgreSQL) -> None:
    LinesOnPostgreSQL.server = postgresql


class ManyLines(Lines):
    """As many as it takes to come by what is seldom."""


class ManyLinesOnPostgreSQL(LinesOnPostgreSQL):
    """More than the ordinary run has time for by a server."""


Lines.TestCase.settings = settings(max_examples=20, stateful_step_count=40, deadline=None, database=None)
TestLines = Lines.TestCase
ManyLines.TestCase.settings = settings(Lines.TestCase.settings, max_examples=200)
TestManyLines = pytest.mark.slow(ManyLines.TestCase)
LinesOnPostgreSQL.TestCase.settings = settings(Lines.TestCase.settings, max_examples=5)
TestLinesOnPostgreSQL = pytest.mark.usefixtures("on_the_server")(LinesOnPostgreSQL.TestCase)
ManyLinesOnPostgreSQL.TestCase.settings = settings(Lines.TestCase.settings, max_examples=60)
TestManyLinesOnPostgreSQL = pytest.mark.slow(pytest.mark.usefixtures("on_the_server")(ManyLinesOnPostgreSQL.TestCase))
