"""What is counted of the attempts: in the process, and minute by minute in the store."""

import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as listening

from dispatcher.dispatch.minutes import KEPT
from dispatcher.ground.clock import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.figures import DURATIONS, Figures, Histogram, Result
from dispatcher.ground.policy import Reason, Verb, Verdict
from dispatcher.store.engine import Database, open_database
from dispatcher.store.minutes import Minute, add, read, trim
from tests.ground import NOW, claim, outcome
from tests.workshop import Bench, MovedClock, configuration

pytestmark = pytest.mark.anyio
each_store = pytest.mark.each_store

OK = httpx.Response(200)


def minute(at: int = NOW, reason: str | None = None, count: int = 1, **changes: str) -> Minute:
    about = {"operator": "acme", "type": "notice", "result": "retry" if reason else "delivered"} | changes
    return Minute(at, about["operator"], about["type"], about["result"], reason, count, 10 * count, 3 * count)


# In the process.


@given(st.lists(st.integers(0, 10**8) | st.sampled_from(DURATIONS)))
def test_a_histogram_has_each_value_in_the_first_bucket_that_holds_it(values: list[int]) -> None:
    histogram = Histogram(DURATIONS)
    for value in values:
        histogram.add(value)
    assert (sum(histogram.counts), histogram.total) == (len(values), sum(values))
    for position, bound in enumerate(DURATIONS):
        assert sum(histogram.counts[: position + 1]) == sum(value <= bound for value in values)


def test_what_came_of_attempts_is_counted_by_what_it_was() -> None:
    figures = Figures()
    late = outcome(200)._replace(started_at=NOW + SECOND, ended_at=NOW + SECOND, duration=7 * MILLISECOND)
    figures.attempt(NOW, claim(), late, Verdict(Verb.DELIVER), late=False)
    figures.attempt(NOW, claim(attempt=2), outcome(500), Verdict(Verb.RETRY, NOW, Reason.HTTP_STATUS), late=False)
    figures.attempt(NOW, claim(attempt=3), outcome(500), Verdict(Verb.BURY, None, Reason.HTTP_STATUS), late=False)
    figures.attempt(NOW, claim(attempt=3), outcome(200), Verdict(Verb.DELIVER), late=True)
    assert figures.attempts() == {
        ("acme", "notice", "delivered", ""): 1,
        ("acme", "notice", "retry", "http_status"): 1,
        ("acme", "notice", "dead", "http_status"): 1,
        ("acme", "notice", "late", ""): 1,
    }
    assert figures.firsts == {"acme": 1}
    assert {name: sum(one.counts) for name, one in figures.lateness.items()} == {"first": 1, "retry": 3}
    assert (figures.lateness["first"].total, figures.durations["acme"].total) == (SECOND, 607 * MILLISECOND)
    (first,) = [one for one in figures.take() if one.key[2] == Result.DELIVERED]
    assert (first.at, first.number, first.took, first.late) == (NOW, 1, 7 * MILLISECOND, SECOND)


def test_what_was_no_attempt_or_was_cut_short_has_no_length() -> None:
    figures = Figures()
    put_off = outcome(reason=Reason.CONNECT_REFUSED, ours=True)
    figures.attempt(NOW, claim(), put_off, Verdict(Verb.PUT_OFF, NOW, put_off.reason), late=False)
    cut = outcome(reason=Reason.INTERRUPTED)._replace(duration=None)
    figures.attempt(NOW, claim(), cut, Verdict(Verb.RETRY, NOW, cut.reason), late=False)
    assert (figures.durations, figures.lateness, figures.firsts) == ({}, {}, {})
    assert sorted(one[2:] for one in figures.take()) == [(1, 0, 0), (1, 0, 0)]


def test_what_was_taken_is_still_counted_and_what_is_given_back_comes_again() -> None:
    figures = Figures()
    for _ in range(2):
        figures.attempt(NOW, claim(), outcome(200), Verdict(Verb.DELIVER), late=False)
    rows = figures.take()
    figures.attempt(NOW, claim(), outcome(200), Verdict(Verb.DELIVER), late=False)
    assert (list(figures.attempts().values()), figures.take()[0].number) == ([3], 1)
    figures.give_back(rows)
    assert (list(figures.attempts().values()), figures.take(), figures.take()) == ([3], rows, [])


# In the store.


@each_store
def test_what_several_add_is_added_up(database: Database) -> None:
    other = open_database(database.place)
    try:
        for one in (database, other, database):
            add(one, [minute(), minute(reason="reset", count=2), minute(at=NOW + MINUTE), minute()])
    finally:
        other.close()
    found = read(database, NOW, NOW + HOUR)
    assert found == [minute(count=6), minute(reason="reset", count=6), minute(at=NOW + MINUTE, count=3)]
    add(database, [])
    assert read(database, NOW, NOW + HOUR) == found


@each_store
def test_what_is_read_begins_at_since_and_ends_before_until(database: Database) -> None:
    add(database, [minute(at=NOW + n * MINUTE, operator=name) for n in range(3) for name in ("acme", "bolt")])
    assert [(one.at, one.operator) for one in read(database, NOW + MINUTE, NOW + 2 * MINUTE)] == [
        (NOW + MINUTE, "acme"),
        (NOW + MINUTE, "bolt"),
    ]
    assert [one.at for one in read(database, NOW, NOW + DAY, "bolt")] == [NOW, NOW + MINUTE, NOW + 2 * MINUTE]
    assert read(database, NOW, NOW + DAY, "coin") == []


@each_store
def test_a_longer_step_adds_up_and_begins_where_the_step_does(database: Database) -> None:
    start = NOW - NOW % HOUR
    given = [minute(at=start + n * MINUTE, reason=reason) for n in (0, 59, 60, 125) for reason in (None, "reset")]
    add(database, given)
    found = read(database, start, start + DAY, step=HOUR)
    assert [(one.at, one.reason, one.count) for one in found] == [
        (start, None, 2),
        (start, "reset", 2),
        (start + HOUR, None, 1),
        (start + HOUR, "reset", 1),
        (start + 2 * HOUR, None, 1),
        (start + 2 * HOUR, "reset", 1),
    ]
    assert all(type(value) is int for one in found for value in one[5:])


@each_store
def test_workers_that_add_the_same_rows_at_once_are_not_in_each_others_way(database: Database) -> None:
    """In whatever order they have them: were they locked in that, each would wait for the other."""
    names = [f"operator-{n}" for n in range(40)]

    def work(order: Sequence[str]) -> None:
        own = open_database(database.place)
        for _ in range(10):
            add(own, [minute(operator=name) for name in order])
        own.close()

    hands = [threading.Thread(target=work, args=(order,)) for order in (names, names[::-1])]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join(60)
    assert {one.count for one in read(database, NOW, NOW + MINUTE)} == {20}
    assert len(read(database, NOW, NOW + MINUTE)) == 40


@each_store
def test_one_old_minute_is_trimmed_at_a_time_and_a_young_one_never(database: Database) -> None:
    add(database, [minute(at=NOW + n * MINUTE, operator=name) for n in range(3) for name in ("acme", "bolt")])
    assert [trim(database, NOW + 2 * MINUTE) for _ in range(3)] == [2, 2, 0]
    assert {one.at for one in read(database, 0, NOW + DAY)} == {NOW + 2 * MINUTE}


# By the worker.


@each_store
async def test_a_worker_adds_what_it_did_and_trims_what_is_old(tmp_path: Path) -> None:
    clock = MovedClock()
    async with Bench(configuration(tmp_path), clock) as at:
        at.acme.mock(side_effect=[OK, httpx.Response(500), OK])
        add(at.database, [minute(at=NOW - KEPT - MINUTE), minute(at=NOW - KEPT + HOUR)])
        await at.send(1, 2)
        await at.idle()
        await at.daemon.minutes.write()
        assert [(one.result, one.reason, one.count) for one in read(at.database, NOW, NOW + DAY)] == [
            ("delivered", None, 1),
            ("retry", "http_status", 1),
        ]
        await at.after(MINUTE + SECOND)
        await at.idle()
        at.daemon.minutes.write_rest()
        (made,) = read(at.database, NOW + MINUTE, NOW + DAY)
        assert (made.at, made.result, made.count, made.late) == (NOW + MINUTE, "delivered", 1, SECOND)
        assert [one.at for one in read(at.database, 0, NOW)] == [NOW - KEPT + HOUR]
        assert sum(at.dispatch.figures.attempts().values()) == 3


@each_store
async def test_what_the_store_did_not_take_is_added_the_next_time(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        await at.send(1, 2, 3)
        await at.idle()

        def away(*_: object) -> None:
            raise StoreUnavailable("away")

        listening.listen(at.database.engine, "begin", away)
        await at.daemon.minutes.write()
        listening.remove(at.database.engine, "begin", away)
        assert read(at.database, NOW, NOW + DAY) == []
        for _ in range(2):
            await at.daemon.minutes.write()
            assert [one.count for one in read(at.database, NOW, NOW + DAY)] == [3]
        assert not at.told("minutes_broke")
