"""The wallet-flow log: what people find in it, and what they may do by hand."""

import dataclasses
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from dispatcher.ground.clock import HOUR, MINUTE
from dispatcher.ground.errors import Refused
from dispatcher.ground.policy import Reason, Status, Verb
from dispatcher.store import acceptance, ledger, search
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, Filter
from dispatcher.store.schema import journal
from tests.graves import bury, one_of_each
from tests.ground import NOW
from tests.stores import trap
from tests.workshop import accept, attempts_of, event, failed, row, rows, settle, settled, take

pytestmark = pytest.mark.each_store


def found(database: Database, limit: int | None = None, **where: Any) -> list[str]:
    return [one.key for one in ledger.find(database, Filter(**where), limit)]


def done_by_hand(database: Database) -> list[tuple[Any, ...]]:
    j = journal.c
    with database.reading() as connection:
        query = select(j.delivery_id, j.at, j.verb, j.actor, j.note).order_by(j.n)
        return [tuple(one) for one in connection.execute(query)]


# Finding.


def test_the_log_shows_the_newest_first(database: Database) -> None:
    accept(database, 1, 2, 3)
    assert found(database) == ["3", "2", "1"]
    assert found(database, limit=2) == ["3", "2"]
    assert found(database, limit=0) == []


def test_the_log_can_be_asked_for_each_thing(database: Database) -> None:
    one_of_each(database)
    acceptance.accept(database, [event(6, operator="bolt", uid="player-6")._replace(type="other")], NOW)
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({"operator": "bolt"}, ["6"]),
        ({"operator": "acme"}, ["3", "4", "5", "2", "1"]),
        ({"type": "other"}, ["6"]),
        ({"type": "notice", "key": "5"}, ["5"]),
        ({"uid": "player-6"}, ["6"]),
        ({"uid": "player"}, []),
        ({"key": "2"}, ["2"]),
        ({"reason": "connect_refused"}, ["2", "1"]),
        ({"reason": "dns"}, []),
        *(({"status": status}, [key]) for status, key in (("dead", "1"), ("resolved", "2"), ("sending", "4"))),
        ({"status": Status.PENDING}, ["6", "3"]),
        ({"status": Status.DELIVERED}, ["5"]),
        ({"operator": "acme", "status": Status.PENDING}, ["3"]),
        ({"operator": "bolt", "status": Status.DEAD}, []),
    ]
    for where, expected in asked:
        assert found(database, **where) == expected, where


def test_since_is_included_and_until_is_not(database: Database) -> None:
    for key in range(4):
        accept(database, key, now=NOW + key)
    assert found(database, since=NOW + 1) == ["3", "2", "1"]
    assert found(database, until=NOW + 2) == ["1", "0"]
    assert found(database, since=NOW + 1, until=NOW + 3) == ["2", "1"]
    assert found(database, since=NOW + 1, until=NOW + 1) == []


def test_for_the_dead_the_time_is_that_of_their_end(database: Database) -> None:
    accept(database, 1, now=NOW)
    bury(database, 2, now=NOW + HOUR)
    assert found(database, status=Status.DEAD, since=NOW + 1) == ["2", "1"]
    assert found(database, status=Status.DEAD, until=NOW + HOUR) == []
    assert found(database, since=NOW + 1) == ["2"]


@pytest.mark.parametrize("limit", [None, 0, 1, 2, 3, 4, 6, 7, 9, 100])
def test_the_pages_of_the_log_meet_without_gap_or_overlap(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(search, "PAGE", 3)
    accept(database, *range(9))
    acceptance.accept(database, [event(9, operator="bolt")], NOW)
    assert found(database, limit, operator="acme") == [str(key) for key in range(8, -1, -1)][:limit]


def test_what_comes_in_between_two_pages_does_not_disturb_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PAGE", 2)
    accept(database, *range(5))
    read = ledger.find(database, Filter(), None)
    first = [next(read).key, next(read).key]
    accept(database, 5, 6)
    assert first + [one.key for one in read] == ["4", "3", "2", "1", "0"]


def test_a_text_in_a_filter_is_only_ever_a_text(database: Database) -> None:
    accept(database, 1)
    assert found(database, key="' OR 1=1 --") == []
    assert found(database, uid="%") == []


def test_one_delivery_is_found_by_its_operator_and_key(database: Database) -> None:
    accept(database, 1, 2)
    assert ledger.one(database, "acme", "2", None).key == "2"
    with pytest.raises(Refused, match=r"bolt has no delivery 2; look for it with: dispatcher log --key 2"):
        ledger.one(database, "bolt", "2", None)


def test_a_key_under_two_types_asks_for_the_type(database: Database) -> None:
    acceptance.accept(database, [event(1), event(1)._replace(type="other")], NOW)
    with pytest.raises(Refused, match=r"acme has 1 under other and notice: name one with --type"):
        ledger.one(database, "acme", "1", None)
    assert ledger.one(database, "acme", "1", "other").type == "other"
    with pytest.raises(Refused, match="acme has no delivery 1"):
        ledger.one(database, "acme", "1", "third")


def test_the_history_shows_every_attempt_in_its_order(database: Database) -> None:
    accept(database, 1)
    now = NOW
    for status in (500, 302, None, 200):
        (claim,) = take(database, now)
        reason = None if status else Reason.READ_TIMEOUT
        done = settled(claim, now, status, reason=reason, body=b"said", key_version=2, duration=1_999)
        settle(database, done, now=now)
        now = row(database).due_at or now
    made, by_hand = ledger.history(database, row(database).id)
    assert by_hand == []
    assert [(one["n"], one["trigger"], one["http_status"], one["reason"], one["ambiguous"]) for one in made] == [
        (1, "first", 500, "http_status", False),
        (2, "retry", 302, "redirect", False),
        (3, "retry", None, "read_timeout", True),
        (4, "retry", 200, None, False),
    ]
    assert made[0] == {
        "n": 1,
        "trigger": "first",
        "started_at": "2026-01-01T00:00:00.000Z",
        "duration_ms": 1,
        "http_status": 500,
        "code": None,
        "reason": "http_status",
        "ambiguous": False,
        "key_version": 2,
        "response": "said",
        "detail": None,
        "superseded": False,
    }


def test_the_history_keeps_its_order_when_the_clock_was_set_back(database: Database) -> None:
    accept(database, 1, now=NOW - HOUR)
    for now in (NOW, NOW - HOUR):
        (claim,) = take(database, now)
        done = failed(claim, now)
        settle(database, done._replace(verdict=done.verdict._replace(due_at=NOW - HOUR)), now=now)
    made, _ = ledger.history(database, row(database).id)
    assert [one["n"] for one in made] == [1, 2]


def test_the_history_shows_what_came_late_and_what_was_done_by_hand(database: Database) -> None:
    (dead,) = bury(database, 1)
    ledger.replay(database, [dead], "ada", NOW + 1)
    (claim,) = take(database, NOW + 1)
    settle(database, failed(claim, NOW + 1), now=NOW + 1)
    settle(database, settled(claim, NOW + 2), now=NOW + 2)
    made, by_hand = ledger.history(database, dead.id)
    assert [(one["n"], one["trigger"], one["superseded"]) for one in made][3:] == [
        (4, "retry", False),
        (5, "replay", False),
        (5, "replay", True),
    ]
    assert by_hand == [{"at": "2026-01-01T00:00:00.000Z", "verb": "replay", "actor": "ada", "note": None}]


def test_the_operators_waiting_are_counted_by_what_is_not_finished(database: Database) -> None:
    one_of_each(database)
    acceptance.accept(database, [event(6, operator="bolt")], NOW)
    assert ledger.operators_waiting(database) == {"acme": 2, "bolt": 1}


# Replaying and resolving.


def test_a_replay_brings_a_dead_letter_back_due_now_with_the_whole_schedule_before_it(database: Database) -> None:
    (dead,) = bury(database, 1)
    before = attempts_of(database)
    now = NOW + HOUR
    assert ledger.replay(database, [dead], "ada", now) == Change([dead], [])
    back = row(database)
    assert (back.status, back.due_at, back.finished_at, back.attempts) == ("pending", now, None, 4)
    assert attempts_of(database) == before
    waits = []
    for _ in range(4):
        (claim,) = take(database, now)
        settle(database, failed(claim, now), now=now)
        due_at = row(database).due_at
        waits.append(due_at and due_at - now)
        now = due_at or now
    assert waits == [MINUTE, 30 * MINUTE, 50 * MINUTE, None]
    assert (row(database).status, row(database).attempts) == ("dead", 8)
    made = attempts_of(database)
    assert made[:4] == before
    assert [(one["n"], one["trigger"]) for one in made[4:]] == [(5, "replay"), *((n, "retry") for n in (6, 7, 8))]


def test_a_replay_starts_its_own_anchor(database: Database) -> None:
    (dead,) = bury(database, 1)
    ledger.replay(database, [dead], "ada", NOW + HOUR)
    (claim,) = take(database, NOW + HOUR)
    assert (claim.anchor_at, claim.run_from, claim.attempt) == (None, 4, 5)


def test_a_doubtful_dead_letter_stays_doubtful_through_its_replay(database: Database) -> None:
    (dead,) = bury(database, 1, reason=Reason.READ_TIMEOUT)
    assert dead.ambiguous
    ledger.replay(database, [dead], "ada", NOW)
    (claim,) = take(database)
    settle(database, failed(claim, NOW))
    assert row(database).ambiguous


WHY_NOT = {
    Verb.REPLAY: {
        "sending": "an attempt is in flight; wait until it has ended",
        "pending": "it is not dead: its next attempt is due at 2026-01-01T00:00:00.000Z",
        "delivered": "it is delivered: the operator has said yes",
    },
    Verb.RESOLVE: {
        "sending": "an attempt is in flight; wait until it has ended",
        "pending": "it is not dead: its next attempt is due at 2026-01-01T00:00:00.000Z",
        "delivered": "it is delivered: the operator has said yes",
        "resolved": "it is resolved already, resolve changes nothing",
    },
}


@pytest.mark.parametrize("verb", WHY_NOT)
def test_what_may_not_be_taken_is_refused_with_a_sentence(database: Database, verb: Verb) -> None:
    each = one_of_each(database)
    expected = [(each[status], WHY_NOT[verb][status]) for status in each if status in WHY_NOT[verb]]
    taken = [one for status, one in each.items() if status not in WHY_NOT[verb]]
    before = rows(database)
    assert ledger.sort_out(list(each.values()), verb) == Change(taken, expected)
    assert rows(database) == before, "a dry run changes nothing"
    if verb is Verb.REPLAY:
        change = ledger.replay(database, list(each.values()), "ada", NOW)
    else:
        change = ledger.resolve(database, list(each.values()), "ada", "agreed", NOW)
    assert change.taken == taken
    assert sorted(change.refused) == sorted(expected)
    after = {one.key: one for one in rows(database)}
    assert [after[one.key] for one, _ in expected] == [one for one, _ in expected]


def test_a_resolved_one_can_be_replayed(database: Database) -> None:
    (dead,) = bury(database, 1)
    ledger.resolve(database, [dead], "ada", "agreed", NOW)
    change = ledger.replay(database, [row(database)], "eve", NOW + 1)
    assert [one.key for one in change.taken] == ["1"]
    assert (row(database).status, row(database).due_at) == ("pending", NOW + 1)


def test_resolving_closes_a_dead_letter_and_leaves_what_is_recorded(database: Database) -> None:
    (dead,) = bury(database, 1)
    before = attempts_of(database)
    ledger.resolve(database, [dead], "ada", "paid by hand", NOW + HOUR)
    closed = row(database)
    assert (closed.status, closed.finished_at, closed.attempts, closed.due_at) == ("resolved", NOW + HOUR, 4, None)
    assert (closed.reason, attempts_of(database)) == ("connect_refused", before)
    assert take(database, NOW + 10**15) == []


def test_everything_done_by_hand_is_written_down(database: Database) -> None:
    one, two = bury(database, 1, 2)
    ledger.replay(database, [one], "ada", NOW + 1)
    ledger.resolve(database, [two, one], "eve", "agreed with the operator", NOW + 2)
    ledger.replay(database, [two], "ada", NOW + 3)
    assert done_by_hand(database) == [
        (one.id, NOW + 1, "replay", "ada", None),
        (two.id, NOW + 2, "resolve", "eve", "agreed with the operator"),
        (two.id, NOW + 3, "replay", "ada", None),
    ]


def test_what_changed_since_it_was_read_is_refused(database: Database) -> None:
    one, two = bury(database, 1, 2)
    ledger.replay(database, [one], "eve", NOW + MINUTE)
    change = ledger.replay(database, [one, two], "ada", NOW + HOUR)
    assert [taken.key for taken in change.taken] == ["2"]
    ((refused, why),) = change.refused
    assert (refused.status, refused.due_at) == ("pending", NOW + MINUTE)
    assert why == "it is not dead: its next attempt is due at 2026-01-01T00:01:00.000Z"
    assert row(database, 1).due_at == NOW + MINUTE
    (claim,) = take(database, NOW + MINUTE)
    assert ledger.replay(database, [one], "ada", NOW).refused[0][1].startswith("an attempt is in flight")
    settle(database, settled(claim, NOW))
    assert ledger.resolve(database, [one], "ada", "x", NOW).refused[0][1].startswith("it is delivered")


def test_a_replay_of_nothing_does_nothing(database: Database) -> None:
    assert ledger.replay(database, [], "ada", NOW) == Change([], [])
    assert done_by_hand(database) == []


def test_one_delivery_named_twice_is_replayed_once(database: Database) -> None:
    (dead,) = bury(database, 1)
    change = ledger.replay(database, [dead, dead], "ada", NOW)
    assert [one.key for one in change.taken] == ["1"]
    assert len(done_by_hand(database)) == 1


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_replay_of_many_goes_by_pages_and_takes_them_all(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(ledger, "PAGE", size)
    dead = bury(database, *range(7))
    change = ledger.replay(database, dead, "ada", NOW + 1)
    assert sorted(one.key for one in change.taken) == [str(key) for key in range(7)]
    assert {one.status for one in rows(database)} == {"pending"}
    assert len(done_by_hand(database)) == 7


def test_a_page_whose_entry_cannot_be_written_is_not_replayed_either(database: Database) -> None:
    (dead,) = bury(database, 1)
    trap(database, "BEFORE INSERT ON journal WHEN (new.verb = 'replay')", "no room")
    with pytest.raises(IntegrityError):
        ledger.replay(database, [dead], "ada", NOW)
    assert row(database) == dead


def test_a_filter_can_ask_for_these_things() -> None:
    assert {field.name for field in dataclasses.fields(Filter)} == {
        *("operator", "type", "status", "key", "uid", "reason", "since", "until")
    }
