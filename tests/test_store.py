"""The corridor on a real store: accept, survey, claim, settle, rescue, and what the schema refuses."""

import secrets
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import ANY

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.ground.events import Event
from dispatcher.ground.policy import Claim, Outcome, Reason, Status, Verb, judge_interrupted, move
from dispatcher.ground.schedule import Delays
from dispatcher.store import acceptance, corridor, ledger, statements, workers
from dispatcher.store.acceptance import Fate
from dispatcher.store.corridor import Adopted, Settlement
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.engine import Database, open_database
from dispatcher.store.operators import Declared, declare, standings
from tests.ground import NOW
from tests.stores import STORES, PostgreSQL, open_store, trap, untrap
from tests.workshop import accept, adopt, attempts_of, event, failed, row, rows, settle, settled, take

pytestmark = pytest.mark.each_store

FOUR = Delays()


def keys(claims: list[Claim]) -> list[str]:
    return [claim.key for claim in claims]


def run(database: Database, statement: str, **parameters: Any) -> Any:
    """Direct SQL past the corridor, with no error translated."""
    with database.engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return result.fetchall() if result.returns_rows else result.rowcount


def words(database: Database, statement: Spelled) -> str:
    with database.reading() as connection:
        return statement.on(connection).text


def interrupted(adopted: Adopted, now: int) -> Settlement:
    outcome = Outcome(adopted.claimed_at, now, None, reason=Reason.INTERRUPTED)
    return Settlement(adopted.claim, outcome, judge_interrupted(adopted.claim, now, FOUR))


def rescue(database: Database, now: int, held: frozenset[tuple[int, int]] = frozenset()) -> list[Adopted]:
    found = adopt(database, now, held)
    corridor.turn(database, [interrupted(one, now) for one in found], {}, now)
    return found


# Accepting.


def test_a_new_event_is_pending_and_due_at_once(database: Database) -> None:
    assert accept(database, 1) == [Fate.ACCEPTED]
    kept = row(database)
    assert kept[1:6] == ("acme", "notice", "1", "player-1", "pending")
    assert (kept.attempts, kept.due_at, kept.accepted_at, kept.finished_at) == (0, NOW, NOW, None)
    assert (kept.reason, kept.ambiguous, kept.body) == (None, False, event(1).body)


def test_each_event_of_a_batch_gets_its_fate_in_order(database: Database) -> None:
    accept(database, 1, 2)
    batch = [event(3), event(1), event(2, total_bet="11"), event(4), event(3), event(4, uid="player-2")]
    assert acceptance.accept(database, batch, NOW + 1) == [
        Fate.ACCEPTED,
        Fate.DUPLICATE,
        Fate.CONFLICT,
        Fate.ACCEPTED,
        Fate.DUPLICATE,
        Fate.CONFLICT,
    ]
    assert [one.key for one in rows(database)] == ["1", "2", "3", "4"]


def test_of_two_contents_under_one_key_the_first_stands(database: Database) -> None:
    assert accept(database, 1) == [Fate.ACCEPTED]
    assert accept(database, 1, total_bet="11") == [Fate.CONFLICT]
    assert acceptance.accept(database, [event(2), event(2, total_win="1")], NOW) == [Fate.ACCEPTED, Fate.CONFLICT]
    assert [one.body for one in rows(database)] == [event(1).body, event(2).body]


def test_a_second_handing_in_changes_nothing_of_a_delivery_on_its_way(database: Database) -> None:
    accept(database, 1)
    take(database)
    before = rows(database)
    assert accept(database, 1, now=NOW + MINUTE) == [Fate.DUPLICATE]
    assert rows(database) == before


def test_amounts_that_are_equal_are_the_same_content_however_they_are_written(database: Database) -> None:
    accept(database, 1, total_bet="0.1", total_win="12.50")
    assert accept(database, 1, total_bet="0.10", total_win="12.5") == [Fate.DUPLICATE]
    assert accept(database, 1, total_bet="0.1001", total_win="12.5") == [Fate.CONFLICT]
    assert '"total_bet":"0.1"' in row(database).body


def test_one_key_at_two_operators_makes_two_deliveries(database: Database) -> None:
    assert acceptance.accept(database, [event(1), event(1, operator="bolt")], NOW) == [Fate.ACCEPTED] * 2
    assert {(one.operator, one.key) for one in rows(database)} == {("acme", "1"), ("bolt", "1")}


def test_one_key_under_two_types_makes_two_deliveries(database: Database) -> None:
    assert acceptance.accept(database, [event(1), event(1)._replace(type="other")], NOW) == [Fate.ACCEPTED] * 2


def test_a_batch_that_cannot_be_written_leaves_nothing_behind(database: Database) -> None:
    trap(database, "BEFORE INSERT ON deliveries WHEN (new.key = '3')", "full")
    with pytest.raises(IntegrityError):
        accept(database, 1, 2, 3)
    assert rows(database) == []


def test_an_empty_batch_is_accepted(database: Database) -> None:
    assert acceptance.accept(database, [], NOW) == []


def test_a_batch_of_thousands_with_some_known_ones_is_accepted(database: Database) -> None:
    accept(database, *range(0, 3000, 7))
    fates = accept(database, *range(3000))
    assert [fate is Fate.DUPLICATE for fate in fates] == [key % 7 == 0 for key in range(3000)]
    assert len(rows(database)) == 3000


# Surveying.


def test_the_survey_tells_when_each_operators_earliest_delivery_is_due(database: Database) -> None:
    assert corridor.survey(database).earliest == {}
    acceptance.accept(database, [event(1), event(1, operator="coin")], NOW + 5)
    acceptance.accept(database, [event(2), event(2, operator="bolt")], NOW + 3)
    stranger = event(1)._replace(operator="nobody")
    acceptance.accept(database, [stranger], NOW + 9)
    assert corridor.survey(database).earliest == {"acme": NOW + 3, "bolt": NOW + 3, "coin": NOW + 5, "nobody": NOW + 9}


def test_the_survey_counts_only_what_waits(database: Database) -> None:
    accept(database, 1, 2)
    first, second = take(database)
    assert corridor.survey(database).earliest == {}
    settle(database, settled(first, NOW), failed(second, NOW))
    assert corridor.survey(database).earliest == {"acme": NOW + MINUTE}


# Claiming.


def test_a_claim_gives_the_whole_delivery(database: Database) -> None:
    acceptance.accept(database, [event(1)._replace(bearer="LOCKED")], NOW)
    (claim,) = take(database, NOW + 5)
    kept = row(database)
    assert claim[:7] == (kept.id, "acme", "notice", "1", "player-1", event(1).body, "LOCKED")
    assert (claim.attempt, claim.run_from, claim.anchor_at, claim.due_at, claim.ambiguous) == (1, 0, None, NOW, False)
    assert (kept.status, kept.attempts, kept.due_at) == ("sending", 1, None)
    assert run(database, "SELECT token, claimed_at FROM deliveries") == [(claim.token, NOW + 5)]


def test_claims_come_in_the_order_in_which_they_are_due(database: Database) -> None:
    for key, due_at in ((1, NOW + 3), (2, NOW + 1), (3, NOW + 2), (4, NOW + 1)):
        accept(database, key, now=due_at)
    assert keys(take(database, NOW + 3)) == ["2", "4", "3", "1"]


def test_no_more_is_claimed_than_was_asked_for_and_the_earliest_first(database: Database) -> None:
    for key in range(5):
        accept(database, key, now=NOW + 5 - key)
    assert keys(take(database, NOW + 9, most=2)) == ["4", "3"]
    assert keys(take(database, NOW + 9, most=2)) == ["2", "1"]
    assert keys(take(database, NOW + 9, most=2)) == ["0"]
    assert take(database, NOW + 9, most=2) == []


def test_each_operator_gets_its_own_share(database: Database) -> None:
    events = [event(key, operator=name) for name in ("acme", "bolt", "coin") for key in range(5)]
    acceptance.accept(database, events, NOW)
    claimed = corridor.turn(database, [], {"acme": 2, "coin": 4, "nobody": 3}, NOW).claimed
    assert [(claim.operator, claim.key) for claim in claimed] == [
        *(("acme", key) for key in "01"),
        *(("coin", key) for key in "0123"),
    ]


def test_nothing_is_claimed_before_it_is_due(database: Database) -> None:
    accept(database, 1, now=NOW)
    assert take(database, NOW - 1) == []
    assert keys(take(database, NOW)) == ["1"]


def test_what_is_claimed_delivered_or_dead_is_never_claimed(database: Database) -> None:
    accept(database, 1, 2)
    for _ in range(3):
        (bad,) = [claim for claim in take(database, NOW) if claim.key == "2"] or take(database, NOW)
        settle(database, failed(bad, NOW)._replace(verdict=failed(bad, NOW).verdict._replace(due_at=NOW)))
    good = [one for one in rows(database) if one.status == "sending"]
    assert [one.key for one in good] == ["1"]
    (bad,) = take(database, NOW)
    settle(database, failed(bad, NOW))
    assert row(database, 2).status == "dead"
    assert take(database, NOW + 10**15) == []


def test_two_claims_of_one_delivery_are_impossible(database: Database) -> None:
    accept(database, *range(10))
    other = open_database(database.place)
    claimed = [claim for _ in range(5) for hand in (database, other) for claim in take(hand, most=1)]
    assert sorted(keys(claimed)) == [str(key) for key in range(10)]
    assert take(database) == take(other) == []
    other.close()


def test_two_turns_never_share_a_token(database: Database) -> None:
    accept(database, *range(20))
    tokens = {take(database, most=1)[0].token for _ in range(20)}
    assert len(tokens) == 20


@pytest.mark.sqlite_only
def test_a_claim_uses_the_index_of_what_is_due_and_sorts_nothing(database: Database) -> None:
    plan = run(database, f"EXPLAIN QUERY PLAN {words(database, statements.DUE)}", operator="acme", now=NOW, most=1)
    told = "\n".join(step.detail for step in plan)
    assert "SEARCH deliveries USING INDEX due (operator=? AND due_at<?)" in told
    assert "TEMP B-TREE" not in told


def about(statement: str) -> dict[str, int]:
    return {"worker": 1, "before": NOW, "token": 1} if statement == "LOST" else {}


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("statement", "index"), [("LOST", "held"), ("SURVEY", "due")])
def test_rescue_and_survey_use_their_partial_indexes(database: Database, statement: str, index: str) -> None:
    plan = run(database, f"EXPLAIN QUERY PLAN {words(database, getattr(statements, statement))}", **about(statement))
    read = [step.detail for step in plan if "deliveries" in step.detail or step.detail.startswith("SEARCH d ")]
    assert read
    assert all(f"INDEX {index}" in detail for detail in read), read


# Settling.


def test_a_yes_delivers(database: Database) -> None:
    accept(database, 1)
    (claim,) = take(database)
    assert settle(database, settled(claim, NOW + 7, body=b"ok", key_version=3), now=NOW + 9) == []
    kept = row(database)
    assert (kept.status, kept.due_at, kept.finished_at, kept.reason) == ("delivered", None, NOW + 9, None)
    (made,) = attempts_of(database)
    assert (made["n"], made["late"], made["trigger"], made["started_at"]) == (1, False, "first", NOW + 7)
    assert (made["http_status"], made["reason"], made["ambiguous"]) == (200, None, False)
    assert (made["key_version"], made["response"], made["detail"]) == (3, "ok", None)


def test_a_failure_waits_until_its_verdict_says(database: Database) -> None:
    accept(database, 1)
    (claim,) = take(database)
    settle(database, settled(claim, NOW + 7, 500, detail="no"), now=NOW + 9)
    kept = row(database)
    assert (kept.status, kept.due_at, kept.finished_at) == ("pending", NOW + 7 + MINUTE, None)
    assert (kept.reason, kept.ambiguous) == ("http_status", False)
    assert run(database, "SELECT token, claimed_at, anchor_at FROM deliveries") == [(None, None, NOW + 7)]
    assert attempts_of(database)[0]["detail"] == "no"


def test_the_end_of_the_first_attempt_stays_the_anchor(database: Database) -> None:
    accept(database, 1)
    now = NOW
    for _ in range(3):
        (claim,) = take(database, now)
        settle(database, failed(claim, now))
        assert run(database, "SELECT anchor_at FROM deliveries") == [(NOW,)]
        now = row(database).due_at or 0


def test_once_doubtful_a_delivery_stays_doubtful_until_it_is_delivered(database: Database) -> None:
    accept(database, 1)
    now, marks = NOW, []
    for number, status in enumerate((500, None, 500, 200)):
        (claim,) = take(database, now)
        reason = None if status else Reason.RESET
        settle(database, settled(claim, now, status, reason=reason))
        marks.append(row(database).ambiguous)
        assert attempts_of(database)[number]["ambiguous"] is (status is None)
        now = row(database).due_at or now
    assert marks == [False, True, True, False]


def test_a_late_hand_cannot_settle_what_another_hand_holds_now(database: Database) -> None:
    accept(database, 1)
    (first,) = take(database)
    assert [one.claim for one in rescue(database, NOW + MINUTE)] == [first._replace(due_at=NOW, token=ANY)]
    (second,) = take(database, NOW + MINUTE)
    before = run(database, "SELECT * FROM deliveries")
    late = settled(first, NOW + MINUTE + 5, 500, body=b"too late")
    assert settle(database, late, now=NOW + MINUTE + 5) == [late]
    assert run(database, "SELECT * FROM deliveries") == before
    assert settle(database, settled(second, NOW + MINUTE + 9)) == []
    assert row(database).status == "delivered"
    made = attempts_of(database)
    assert [(one["n"], one["late"], one["reason"]) for one in made] == [
        (1, False, "interrupted"),
        (1, True, "http_status"),
        (2, False, None),
    ]
    assert made[1]["response"] == "too late"


def test_a_late_hand_and_the_one_that_holds_it_may_settle_in_one_batch(database: Database) -> None:
    for order in (1, -1):
        database_key = 1 if order == 1 else 2
        accept(database, database_key)
        (first,) = take(database)
        rescue(database, NOW)
        (second,) = take(database)
        late, right = settled(first, NOW, 500), settled(second, NOW)
        assert settle(database, *(late, right)[::order]) == [late]
        assert (row(database, database_key).status, row(database, database_key).attempts) == ("delivered", 2)
        assert [(one["n"], one["late"], one["http_status"]) for one in attempts_of(database, database_key)] == [
            (1, False, None),
            (1, True, 500),
            (2, False, 200),
        ]


@pytest.mark.parametrize("status", [200, 500])
def test_a_late_hand_changes_nothing_that_is_finished_or_waits(database: Database, status: int) -> None:
    accept(database, 1)
    (first,) = take(database)
    rescue(database, NOW)
    late = settled(first, NOW, status)
    waiting = run(database, "SELECT * FROM deliveries")
    assert settle(database, late) == [late]
    assert run(database, "SELECT * FROM deliveries") == waiting
    (second,) = take(database)
    settle(database, settled(second, NOW))
    finished = run(database, "SELECT * FROM deliveries")
    assert settle(database, late) == [late]
    assert run(database, "SELECT * FROM deliveries") == finished


def test_what_was_settled_cannot_be_settled_again(database: Database) -> None:
    accept(database, 1)
    (claim,) = take(database)
    settle(database, failed(claim, NOW))
    before = run(database, "SELECT * FROM deliveries")
    again = settled(claim, NOW + 1)
    assert settle(database, again) == [again]
    assert run(database, "SELECT * FROM deliveries") == before


def test_a_turn_settles_before_it_claims(database: Database) -> None:
    accept(database, 1)
    (claim,) = take(database)
    soon = failed(claim, NOW)._replace(verdict=failed(claim, NOW).verdict._replace(due_at=NOW))
    turned = corridor.turn(database, [soon], {"acme": 5}, NOW)
    assert [(one.key, one.attempt) for one in turned.claimed] == [("1", 2)]
    assert turned.late == []


@pytest.mark.parametrize(
    "trigger",
    [
        "BEFORE UPDATE ON deliveries WHEN (new.status = 'sending')",
        "BEFORE UPDATE ON deliveries WHEN (new.status = 'delivered')",
        "BEFORE INSERT ON attempts WHEN (new.n = 1)",
        "AFTER UPDATE ON deliveries WHEN (new.status = 'sending')",
    ],
)
def test_of_a_turn_that_fails_nothing_is_on_disk(database: Database, trigger: str) -> None:
    accept(database, 1, 2)
    (claim,) = take(database, most=1)
    before = run(database, "SELECT * FROM deliveries ORDER BY id")
    trap(database, trigger, "the disk is full")
    with pytest.raises(IntegrityError, match="the disk is full"):
        corridor.turn(database, [settled(claim, NOW)], {"acme": 5}, NOW)
    assert run(database, "SELECT * FROM deliveries ORDER BY id") == before
    assert run(database, "SELECT * FROM attempts") == []
    untrap(database)
    turned = corridor.turn(database, [settled(claim, NOW)], {"acme": 5}, NOW)
    assert (keys(turned.claimed), turned.late) == (["2"], [])
    assert row(database, 1).status == "delivered"


def test_an_error_of_our_own_within_a_turn_leaves_nothing_on_disk(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(database, 1, 2)
    (claim,) = take(database, most=1)
    before = run(database, "SELECT * FROM deliveries ORDER BY id")

    def broken(*_arguments: object) -> list[Claim]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(corridor, "_claim", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        corridor.turn(database, [settled(claim, NOW)], {"acme": 5}, NOW)
    assert run(database, "SELECT * FROM deliveries ORDER BY id") == before
    assert run(database, "SELECT * FROM attempts") == []


def unanswered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit is made, and the store is gone before it says so."""
    writing = database.writing

    @contextmanager
    def once() -> Iterator[Connection]:
        monkeypatch.setattr(database, "writing", writing)
        with writing() as connection:
            yield connection
        raise StoreUnavailable("gone")

    monkeypatch.setattr(database, "writing", once)


def test_a_turn_of_which_nobody_knows_whether_it_was_committed_is_made_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(database, 1, 2, 3)
    (first, second) = take(database, most=2)
    done = [settled(first, NOW + 5), failed(second, NOW + 6)]
    unanswered(database, monkeypatch)
    with pytest.raises(StoreUnavailable):
        corridor.turn(database, done, {"acme": 5}, NOW + 7)
    turned = corridor.turn(database, done, {"acme": 5}, NOW + 7)
    assert turned.late == []
    assert [(claim.key, claim.attempt) for claim in turned.claimed] == [("3", 1)]
    assert [len(attempts_of(database, key)) for key in (1, 2)] == [1, 1]
    assert settle(database, settled(turned.claimed[0], NOW + 8)) == []
    assert [(one.status, one.attempts) for one in rows(database)] == [
        ("delivered", 1),
        ("pending", 1),
        ("delivered", 1),
    ]


def test_a_turn_that_was_not_committed_is_made_whole_the_second_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(database, 1, 2)
    (first,) = take(database, most=1)
    claim = corridor._claim
    monkeypatch.setattr(corridor, "_claim", gone)
    with pytest.raises(StoreUnavailable):
        corridor.turn(database, [settled(first, NOW)], {"acme": 5}, NOW)
    monkeypatch.setattr(corridor, "_claim", claim)
    assert row(database, 1).status == "sending"
    turned = corridor.turn(database, [settled(first, NOW)], {"acme": 5}, NOW)
    assert (keys(turned.claimed), turned.late, row(database, 1).status) == (["2"], [], "delivered")


def gone(*_arguments: object) -> list[Claim]:
    raise StoreUnavailable("gone")


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"", None),
        (b"\0", "\ufffd"),
        (b"before\0after", "before\ufffdafter"),
        (b"\xff\xfe ok \x80", "\ufffd\ufffd ok \ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        ("余额不足 🎰\u2028".encode(), "余额不足 🎰\u2028"),
        (b"x" * 5000, "x" * 1024),
        (b"x" * 1023 + "余".encode(), "x" * 1023 + "\ufffd"),
        (b"\"]', NULL); DROP TABLE deliveries; --\x1b[2J\r\n", "\"]', NULL); DROP TABLE deliveries; --\x1b[2J\r\n"),
    ],
)
def test_whatever_an_operator_answers_is_kept_without_harm(database: Database, answer: bytes, kept: str | None) -> None:
    accept(database, 1, 2)
    first, second = take(database)
    assert settle(database, settled(first, NOW, 500, body=answer), settled(second, NOW)) == []
    assert attempts_of(database, 1)[0]["response"] == kept
    assert (row(database, 1).status, row(database, 2).status) == ("pending", "delivered")


@pytest.mark.parametrize("said", ["\0", "\ud800", "\udfff\ud800", "余额不足", "x" * 5000], ids=ascii)
def test_whatever_code_and_words_an_operator_uses_the_attempt_is_settled(database: Database, said: str) -> None:
    accept(database, 1, 2)
    first, second = take(database)
    doubtful = failed(first, NOW)
    said_so = doubtful._replace(verdict=doubtful.verdict._replace(code=said, words=said))
    assert settle(database, said_so, settled(second, NOW)) == []
    assert (row(database, 1).status, row(database, 2).status) == ("pending", "delivered")
    (made,) = attempts_of(database, 1)
    for kept in (made["code"], made["detail"]):
        assert kept
        assert "\0" not in kept
        assert len(kept) <= 1024


def test_a_thousand_deliveries_are_claimed_and_settled_each_with_its_own_result(database: Database) -> None:
    names = ("acme", "bolt", "coin")
    acceptance.accept(database, [event(key, operator=names[key % 3]) for key in range(1000)], NOW)
    claims = corridor.turn(database, [], dict.fromkeys(names, 1000), NOW).claimed
    assert len({(claim.operator, claim.key) for claim in claims}) == 1000
    done = [settled(claim, NOW + int(claim.key), 200 if int(claim.key) % 2 else 500) for claim in claims]
    assert settle(database, *done, now=NOW + 5000) == []
    for one in rows(database):
        number = int(one.key)
        good = number % 2 == 1
        assert (one.status, one.operator) == ("delivered" if good else "pending", names[number % 3])
        assert one.due_at == (None if good else NOW + number + MINUTE)
    made = run(
        database,
        "SELECT key, n, started_at, http_status, late FROM attempts JOIN deliveries ON deliveries.id = delivery_id",
    )
    assert sorted(made) == sorted(
        (str(number), 1, NOW + number, 200 if number % 2 else 500, 0) for number in range(1000)
    )


# Rescuing.


def test_of_its_own_claims_a_worker_adopts_those_made_by_then_that_it_does_not_hold(database: Database) -> None:
    accept(database, 1, 2, 3)
    first, second, third = (take(database, NOW + n, most=1)[0] for n in range(3))
    assert adopt(database, NOW - 1) == []
    found = adopt(database, NOW + 2, {(third.id, third.token)})
    assert sorted((one.claim.key, one.claimed_at) for one in found) == [("1", NOW), ("2", NOW + 1)]
    assert {one.claim.attempt for one in found} == {1}
    assert {one.claim.token for one in found}.isdisjoint({first.token, second.token, third.token})
    assert keys([one.claim for one in adopt(database, NOW)]) == ["1"]


def test_who_holds_an_older_token_does_not_hold_the_delivery(database: Database) -> None:
    accept(database, 1)
    (first,) = take(database)
    rescue(database, NOW)
    take(database)
    assert len(adopt(database, NOW, {(first.id, first.token)})) == 1


def test_what_is_pending_or_finished_is_never_adopted(database: Database) -> None:
    accept(database, 1, 2)
    first, second = take(database)
    settle(database, settled(first, NOW), failed(second, NOW))
    assert adopt(database, NOW + 10**15) == []


# Key versions.


def declared(database: Database, operator: str, fingerprint: str | None, now: int = NOW) -> int | None:
    """The version that this key of an operator gets."""
    declare(database, [Declared(operator, "LOCKED", fingerprint)], [], "file", ("set", "somebody"), now)
    return next(one.key_version for one in standings(database) if one.name == operator)


def test_key_versions_count_up_only_when_the_key_changes(database: Database) -> None:
    told = [
        declared(database, operator, fingerprint)
        for operator, fingerprint in (
            ("acme", "a"),
            ("acme", "a"),
            ("bolt", "b"),
            ("acme", "b"),
            ("acme", "b"),
            ("acme", "a"),
            ("bolt", "b"),
            ("acme", None),
        )
    ]
    assert told == [1, 1, 1, 2, 2, 3, 1, None]


def test_a_key_version_outlives_the_process(database: Database) -> None:
    declared(database, "acme", "a")
    declared(database, "acme", "b")
    database.close()
    again = open_store(database.place)
    assert declared(again, "acme", "b") == 2
    again.close()


# What the schema refuses.

HALF_STATES = {
    "pending without a due time": "status = 'pending', due_at = NULL",
    "pending and held": "token = 5, claimed_at = 5, worker = 5",
    "sending without a token": "status = 'sending', due_at = NULL",
    "sending and due": "status = 'sending', token = 5, claimed_at = 5, worker = 5",
    "held since nobody knows when": "status = 'sending', due_at = NULL, token = 5, worker = 5",
    "held by nobody": "status = 'sending', due_at = NULL, token = 5, claimed_at = 5",
    "claimed without a token": "claimed_at = 5",
    "held by a worker without a token": "worker = 5",
    "delivered without an end": "status = 'delivered', due_at = NULL",
    "delivered and due": "status = 'delivered', finished_at = 5",
    "delivered and held": "status = 'delivered', due_at = NULL, finished_at = 5, token = 5, claimed_at = 5, worker = 5",
    "dead without an end": "status = 'dead', due_at = NULL",
    "resolved without an end": "status = 'resolved', due_at = NULL",
    "pending and ended": "finished_at = 5",
    "an unknown status": "status = 'retrying'",
    "no status": "status = NULL",
    "a run that starts after the last attempt": "run_from = 1",
    "no operator": "operator = NULL",
    "no body": "body = NULL",
    "no digest": "digest = NULL",
}


@pytest.mark.parametrize("half", HALF_STATES)
def test_the_schema_refuses_a_half_state(database: Database, half: str) -> None:
    accept(database, 1)
    with pytest.raises(IntegrityError):
        run(database, f"UPDATE deliveries SET {HALF_STATES[half]}")
    assert row(database).status == "pending"


def test_the_schema_refuses_a_second_delivery_under_one_key(database: Database) -> None:
    accept(database, 1)
    columns = "operator, type, key, uid, body, digest, status, accepted_at, due_at"
    with pytest.raises(IntegrityError):
        run(database, f"INSERT INTO deliveries ({columns}) SELECT {columns} FROM deliveries")


def test_the_schema_refuses_an_attempt_of_no_delivery_and_a_second_one_under_its_number(database: Database) -> None:
    accept(database, 1)
    (claim,) = take(database)
    settle(database, settled(claim, NOW))
    columns = "n, late, trigger, started_at, ambiguous"
    for delivery in ("99", "delivery_id"):
        with pytest.raises(IntegrityError):
            run(database, f"INSERT INTO attempts (delivery_id, {columns}) SELECT {delivery}, {columns} FROM attempts")


# Everything at once, against a model.


class Model:
    """What one delivery must look like after all that was done to it."""

    def __init__(self, digest: bytes, now: int) -> None:
        self.status = Status.PENDING
        self.digest = digest
        self.attempts = 0
        self.run_from = 0
        self.due_at: int | None = now
        self.token: int | None = None
        self.worker: int | None = None
        # By number: what came of it, for an attempt that decided.
        self.recorded: dict[int, Outcome] = {}
        self.late: set[int] = set()

    def move(self, verb: Verb, due_at: int | None = None) -> None:
        """By the table of moves only; a move that it does not have raises."""
        self.status = move(self.status, verb)
        self.due_at = due_at
        self.token = self.worker = None


class Corridor(RuleBasedStateMachine):
    """Two workers that come and go, and hands that are late or never come: the store says what the model says."""

    server: ClassVar[PostgreSQL | None] = None

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        with STORES.on(self.server):
            self.workers = [STORES.open(Path(self.folder.name)) for _ in range(2)]
        self.database = self.workers[0]
        # Those that have a row: whoever claims has one, until it is taken for dead.
        self.living: set[int] = set()
        self.now = NOW
        self.models: dict[tuple[str, str], Model] = {}
        self.hands: list[Claim] = []

    def teardown(self) -> None:
        if hasattr(self, "database"):
            for database in self.workers:
                database.close()
            self.folder.cleanup()

    @rule(by=st.sampled_from([1, SECOND, MINUTE, 30 * MINUTE, 50 * MINUTE]))
    def the_clock_goes_on(self, by: int) -> None:
        self.now += by

    @rule(
        batch=st.lists(
            st.tuples(st.sampled_from(["acme", "bolt"]), st.sampled_from("1234"), st.sampled_from(["1", "2"])),
            min_size=1,
            max_size=5,
        )
    )
    def events_are_handed_in(self, batch: list[tuple[str, str, str]]) -> None:
        events = [event(key, operator=operator, total_bet=bet) for operator, key, bet in batch]
        assert acceptance.accept(self.database, events, self.now) == [self._fate(one) for one in events]

    def _fate(self, one: Event) -> Fate:
        known = self.models.get((one.operator, one.key))
        if known is None:
            self.models[one.operator, one.key] = Model(one.digest, self.now)
            return Fate.ACCEPTED
        return Fate.DUPLICATE if known.digest == one.digest else Fate.CONFLICT

    @rule(which=st.integers(0, 1), acme=st.integers(0, 4), bolt=st.integers(0, 4))
    def a_worker_claims(self, which: int, acme: int, bolt: int) -> None:
        due = sorted(
            (model.due_at, operator, key)
            for (operator, key), model in self.models.items()
            if model.due_at is not None and model.due_at <= self.now
        )
        at = self.workers[which]
        claims = corridor.turn(at, [], {"acme": acme, "bolt": bolt}, self.now).claimed
        self.living |= {at.worker} if claims else set()
        by_operator = defaultdict(list)
        for claim in claims:
            by_operator[claim.operator].append(claim.due_at)
            model = self.models[claim.operator, claim.key]
            assert claim.due_at == model.due_at
            model.move(Verb.CLAIM)
            model.token, model.worker, model.attempts = claim.token, at.worker, model.attempts + 1
            assert (claim.attempt, claim.run_from) == (model.attempts, model.run_from)
            self.hands.append(claim)
        for operator, most in (("acme", acme), ("bolt", bolt)):
            assert by_operator[operator] == [due_at for due_at, name, _ in due if name == operator][:most]

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), again=st.integers(0, 3))
    def hands_settle_on_time_late_or_twice(self, data: st.DataObject, again: int) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.hands), min_size=1, max_size=4, unique=True))
        done = []
        for claim in chosen:
            status, reason = data.draw(st.sampled_from([(200, None), (500, None), (None, Reason.READ_TIMEOUT)]))
            done.append(settled(claim, self.now, status, reason=reason))
            if again:
                self.hands.remove(claim)
        late = {id(one) for one in settle(self.database, *done, now=self.now)}
        for settlement in done:
            self._expect(settlement, id(settlement) in late)

    def _expect(self, settlement: Settlement, late: bool) -> None:
        claim, outcome, verdict, _ = settlement
        model = self.models[claim.operator, claim.key]
        known = model.recorded.get(claim.attempt) == outcome
        assert late is (model.token != claim.token and not known)
        if late:
            model.late.add(claim.attempt)
        if late or known:
            return
        model.recorded[claim.attempt] = outcome
        model.move(verdict.verb, verdict.due_at)

    @rule(which=st.integers(0, 1), again=st.booleans())
    def a_worker_is_taken_for_dead(self, which: int, again: bool) -> None:
        """It may be alive all the same, and go on under its number; otherwise another one is started."""
        at = self.workers[which]
        workers.leave(at)
        self.living.discard(at.worker)
        if again:
            at.worker = secrets.randbits(63)

    @rule(data=st.data(), which=st.integers(0, 1), settles=st.booleans())
    def a_worker_adopts_and_settles_or_not(self, data: st.DataObject, which: int, settles: bool) -> None:
        held = data.draw(st.sets(st.sampled_from(self.hands))) if self.hands else set()
        at = self.workers[which]
        found = adopt(at, self.now, {(claim.id, claim.token) for claim in held})
        lost = {
            name
            for name, model in self.models.items()
            if model.token is not None
            and (model.worker == at.worker or model.worker not in self.living)
            and model.token not in {claim.token for claim in held if (claim.operator, claim.key) == name}
        }
        assert {(one.claim.operator, one.claim.key) for one in found} == lost
        for one in found:
            model = self.models[one.claim.operator, one.claim.key]
            assert one.claim.token != model.token
            model.token, model.worker = one.claim.token, at.worker
        if settles:
            done = [interrupted(one, self.now) for one in found]
            assert settle(at, *done, now=self.now) == []
            for settlement in done:
                self._expect(settlement, late=False)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), verb=st.sampled_from([Verb.REPLAY, Verb.RESOLVE]))
    def a_person_replays_or_resolves(self, data: st.DataObject, verb: Verb) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.models)), min_size=1, max_size=3, unique=True))
        found = [row(self.database, key, operator) for operator, key in names]
        if verb is Verb.REPLAY:
            change = ledger.replay(self.database, found, "ada", self.now)
        else:
            change = ledger.resolve(self.database, found, "ada", "agreed", self.now)
        may = {Verb.REPLAY: {Status.DEAD, Status.RESOLVED}, Verb.RESOLVE: {Status.DEAD}}[verb]
        assert {(one.operator, one.key) for one in change.taken} == {
            name for name in names if self.models[name].status in may
        }
        for one in change.taken:
            model = self.models[one.operator, one.key]
            model.move(verb, self.now if verb is Verb.REPLAY else None)
            if verb is Verb.REPLAY:
                model.run_from = model.attempts

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if not hasattr(self, "database"):
            return
        kept = rows(self.database)
        assert {(one.operator, one.key) for one in kept} == set(self.models)
        for one in kept:
            model = self.models[one.operator, one.key]
            assert (one.status, one.attempts, one.due_at) == (model.status, model.attempts, model.due_at)

    @invariant()
    def attempts_have_no_gap_and_none_is_recorded_twice(self) -> None:
        if not hasattr(self, "database"):
            return
        made = defaultdict(list)
        for operator, key, n, late in run(
            self.database,
            "SELECT operator, key, n, late FROM attempts JOIN deliveries ON deliveries.id = delivery_id ORDER BY n",
        ):
            made[operator, key].append((n, bool(late)))
        for name, model in self.models.items():
            done = model.attempts - (model.status is Status.SENDING)
            assert [n for n, late in made[name] if not late] == list(model.recorded) == list(range(1, done + 1))
            assert {n for n, late in made[name] if late} == model.late


class CorridorOnPostgreSQL(Corridor):
    """The same, by a server."""


@pytest.fixture(scope="class")
def on_the_server(postgresql: PostgreSQL) -> None:
    CorridorOnPostgreSQL.server = postgresql


class LongCorridor(Corridor):
    """As many ways through it as it takes to come by what is seldom."""


class LongCorridorOnPostgreSQL(CorridorOnPostgreSQL):
    """More than the ordinary run has time for by a server."""


Corridor.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, database=None)
TestCorridor = Corridor.TestCase
LongCorridor.TestCase.settings = settings(Corridor.TestCase.settings, max_examples=150)
TestLongCorridor = pytest.mark.slow(LongCorridor.TestCase)
CorridorOnPostgreSQL.TestCase.settings = settings(Corridor.TestCase.settings, max_examples=6)
TestCorridorOnPostgreSQL = pytest.mark.usefixtures("on_the_server")(CorridorOnPostgreSQL.TestCase)
LongCorridorOnPostgreSQL.TestCase.settings = settings(Corridor.TestCase.settings, max_examples=60)
TestLongCorridorOnPostgreSQL = pytest.mark.slow(
    pytest.mark.usefixtures("on_the_server")(LongCorridorOnPostgreSQL.TestCase)
)


@pytest.mark.sqlite_only
def test_a_file_of_another_schema_is_told_by_its_version_and_another_program_s_is_told_as_that(tmp_path: Path) -> None:
    open_database(tmp_path / "ours.db").close()
    for name, script, told in (
        ("ours.db", "UPDATE dispatcher_revision SET version_num = '9999'", "has schema 9999, this dispatcher"),
        ("ours.db", "DROP TABLE dispatcher_revision; PRAGMA user_version = 1", "has schema 1, this dispatcher"),
        ("ours.db", "PRAGMA user_version = 0", "another program's tables"),
        ("theirs.db", "CREATE TABLE notes (text); PRAGMA user_version = 1", "another program's tables"),
        ("alike.db", "CREATE TABLE notes (text); PRAGMA user_version = 2", "another program's tables"),
    ):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.executescript(script)
        with pytest.raises(Refused, match=told):
            open_database(tmp_path / name)
