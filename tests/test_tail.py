"""Following attempts: nothing is missed or told twice without a word, and nobody pays for it when nobody follows."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, text

from dispatcher.ground.clock import HOUR
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.policy import Outcome, Reason, Verb, Verdict
from dispatcher.store import corridor, feed
from dispatcher.store.corridor import Settlement
from dispatcher.store.engine import Database, open_database
from dispatcher.store.feed import KEPT, LAPSE, Follower
from dispatcher.store.schema import feed as told
from dispatcher.store.schema import tails
from tests import nursery
from tests.ground import NOW
from tests.story import Story, orders, until
from tests.workshop import accept, failed, settle, settled, take

pytestmark = pytest.mark.each_store


def rows_of(database: Database, table: object = told) -> int:
    with database.reading() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)  # type: ignore[arg-type]  # a table


def now_of(database: Database) -> int:
    return database.clock().now()


def worked(database: Database, *keys: int | str, at: int | None = None) -> None:
    """These are accepted, claimed, and refused by their operator, in one turn each."""
    now = now_of(database) if at is None else at
    accept(database, *keys, now=now)
    settle(database, *(failed(claim, now) for claim in take(database, now)), now=now)


@contextmanager
def following(database: Database) -> Iterator[Follower]:
    """Somebody follows, and the worker has noticed."""
    follower = Follower(database, 7)
    follower.begin()
    corridor.survey(database)
    yield follower


def numbers(heard: feed.Heard) -> list[tuple[str, int]]:
    return [(one.key, one.n) for one in heard.attempts]


def test_each_attempt_is_heard_once_with_what_was_recorded_of_it(database: Database) -> None:
    with following(database) as follower:
        worked(database, "1", "2")
        worked(database, "3")
        heard = follower.hear()
        assert sorted(numbers(heard)) == [("1", 1), ("2", 1), ("3", 1)]
        one = heard.attempts[0]
        assert (one.operator, one.type, one.uid, one.status) == ("acme", "notice", "player-1", "pending")
        assert (one.reason, one.ambiguous, one.trigger) == (Reason.CONNECT_REFUSED, False, "first")
        assert follower.hear() == ([], 0)


def test_who_does_not_follow_costs_a_turn_nothing(database: Database) -> None:
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    corridor.survey(database)
    event.listen(database.engine, "before_cursor_execute", note)
    worked(database, "1")
    event.remove(database.engine, "before_cursor_execute", note)
    assert any("attempts" in statement for statement in asked)
    assert [statement for statement in asked if " feed" in statement or " tails" in statement] == []
    assert (rows_of(database), database.told_turns) == (0, 0)


def test_what_was_told_goes_away_when_nobody_follows_any_more(database: Database) -> None:
    with following(database) as follower:
        worked(database, "1")
        assert rows_of(database) == 1
        follower.end()
        assert rows_of(database, tails) == 0
    corridor.survey(database)
    worked(database, "2")
    assert rows_of(database) == 0
    worked(database, "3")
    assert (rows_of(database), database.tells) == (0, False)


def test_who_does_not_renew_is_forgotten(database: Database) -> None:
    with following(database) as follower:
        worked(database, "1", at=now_of(database) + LAPSE + 1_000_000)
        assert follower.hear().attempts == []


def test_who_comes_second_hears_only_what_happens_from_then_on(database: Database) -> None:
    with following(database):
        worked(database, "1")
        second = Follower(database, 8)
        second.begin()
        worked(database, "2")
        assert numbers(second.hear()) == [("2", 1)]


def test_two_workers_are_heard_with_no_row_of_either_lost(database: Database, store: str) -> None:
    other = open_database(database.place)
    try:
        with following(database) as follower:
            corridor.survey(other)
            worked(database, "1")
            worked(other, "2")
            worked(database, "3")
            assert sorted(numbers(follower.hear())) == [("1", 1), ("2", 1), ("3", 1)]
    finally:
        other.close()


def test_who_was_too_slow_is_told_how_many_turns_are_gone(database: Database) -> None:
    with following(database) as follower:
        worked(database, "1")
        follower.hear()
        for key in ("2", "3", "4"):
            worked(database, key)
        with database.writing() as connection:
            connection.execute(text("DELETE FROM feed WHERE n < 4"))
        heard = follower.hear()
        assert (numbers(heard), heard.missed) == ([("4", 1)], 2)
        assert follower.hear() == ([], 0)


def test_a_worker_keeps_so_many_turns_and_no_more(database: Database) -> None:
    with following(database):
        database.tells, database.told_turns = True, KEPT + feed.EVERY
        with database.writing() as connection:
            given = [{"worker": database.worker, "n": n, "at": NOW, "told": "[]"} for n in (feed.EVERY, feed.EVERY + 1)]
            connection.execute(told.insert(), given)
        worked(database, "1")
        with database.reading() as connection:
            left = list(connection.scalars(select(told.c.n).order_by(told.c.n)))
        assert left == [feed.EVERY + 1, KEPT + feed.EVERY + 1]


def test_what_a_dead_worker_told_long_ago_is_cleared_away_by_the_next_that_tells(database: Database) -> None:
    with database.writing() as connection:
        row = {"worker": 5, "n": 1, "at": now_of(database) - 2 * HOUR, "told": "[]"}
        connection.execute(told.insert(), [row])
    with following(database):
        worked(database, "1")
        assert rows_of(database) == 1


def test_a_turn_whose_commit_nobody_answered_for_is_told_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(database) as follower:
        now = now_of(database)
        accept(database, "1", now=now)
        done = [failed(claim, now) for claim in take(database, now)]
        whole = corridor._turn

        def broken(*given: object, **named: object) -> object:
            whole(*given, **named)  # type: ignore[arg-type]  # as they came
            raise StoreUnavailable("the connection broke at the commit")

        monkeypatch.setattr(corridor, "_turn", broken)
        with pytest.raises(StoreUnavailable):
            settle(database, *done, now=now)
        monkeypatch.setattr(corridor, "_turn", whole)
        settle(database, *done, now=now)
        assert numbers(follower.hear()) == [("1", 1)]
        worked(database, "2")
        assert follower.hear().missed == 0


def test_a_fault_of_our_own_is_no_attempt_and_a_late_one_is_heard_as_late(database: Database) -> None:
    with following(database) as follower:
        now = now_of(database)
        accept(database, "1", "2", now=now)
        first, second = take(database, now)
        put_off = Settlement(first, Outcome(now, now, 0, ours=True), Verdict(Verb.PUT_OFF, now, Reason.DNS))
        late = settled(second._replace(token=1), now, duration=5)
        settle(database, put_off, late, now=now)
        (heard,) = follower.hear().attempts
        assert (heard.key, bool(heard.late), heard.reason) == ("2", True, None)


@pytest.mark.sqlite_only
def test_the_command_shows_what_a_daemon_does_as_lines_and_as_json(tmp_path: Path) -> None:
    with Story(tmp_path) as story, story.receiving("--fail-first", "1") as receiver:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        story.enqueue(orders(1, uid="somebody-else"))
        line = [*story.line("tail", "--json", "--uid", "player-1", "--limit", "4", "--for", "60s")]
        failed_only = story.line("tail", "--failed", "--limit", "1", "--for", "60s", "--operator", "acme")
        with (
            nursery.start(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail,
            nursery.start(failed_only, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as short,
        ):
            until(lambda: story.query("SELECT count(*) FROM tails") == [(2,)])
            with story.running():
                story.enqueue(orders(2, start=1))
                out, err = tail.communicate(timeout=60)
                words, _ = short.communicate(timeout=60)
        heard = [json.loads(one) for one in out.splitlines()]
        assert (tail.returncode, len(heard)) == (0, 4), err
        assert sorted((one["n"], one["reason"], one["http_status"]) for one in heard) == [
            (1, "http_status", 500),
            (1, "http_status", 500),
            (2, None, 200),
            (2, None, 200),
        ]
        assert {one["uid"] for one in heard} == {"player-1"}
        assert "#1  pending: http_status  500" in words
        assert "following" in err
        assert story.query("SELECT count(*) FROM tails") == [(0,)]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with Story(tmp_path) as story:
        story.enqueue(orders(1))
        with nursery.start(story.line("tail"), stderr=subprocess.PIPE, text=True) as tail:
            until(lambda: story.query("SELECT count(*) FROM tails") == [(1,)])
            tail.send_signal(number)
            assert tail.wait(60) == 0
        assert story.query("SELECT count(*) FROM tails") == [(0,)]
