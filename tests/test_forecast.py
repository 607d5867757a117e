"""The forecast: what dies when, by each delivery's own schedule, and when a backlog is through."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from dispatcher.forecast import ASSUMED, Circumstances, circumstances, forecast
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.lang import LANGUAGES
from dispatcher.ground.operator import Breaker
from dispatcher.ground.policy import Reason, Verb, judge
from dispatcher.ground.schedule import Delays, Interval, Schedule
from dispatcher.store import corridor
from dispatcher.store.counts import waiting
from dispatcher.store.counts.waiting import Run
from dispatcher.store.engine import Database
from dispatcher.store.operators import Doors, Standing
from tests.ground import NOW, claim, operator, outcome
from tests.workshop import accept, failed, settle, take

OPEN = Standing("acme", "file", "locked", 1, 1, NOW, None, None, None, 0)
lengths = st.integers(0, 4 * HOUR)
delays = st.builds(Delays, st.lists(lengths, max_size=4).map(tuple), st.sampled_from(["previous", "first"]), st.just(0))
intervals = st.builds(Interval, st.integers(SECOND, HOUR), lengths, st.just(0))
# Of no more than fifty attempts: whoever makes them one after the other would be at it for long.
short_intervals = st.tuples(st.integers(SECOND, HOUR), st.integers(0, 50)).flatmap(
    lambda drawn: st.integers(0, min(drawn[0] * drawn[1], 4 * HOUR)).map(lambda length: Interval(drawn[0], length, 0))
)


def given_with(schedule: Schedule | None = None, **changes: Any) -> Circumstances:
    schedules = {"notice": schedule or Delays()}
    known = Circumstances(Doors.OPEN, schedules, closed=0, places=2, answer=SECOND, most_lost=None)
    return known._replace(**changes)


def waits(due_at: int = NOW, failures: int = 1, anchor_at: int | None = None) -> Run:
    return Run(due_at, "notice", failures, anchor_at)


def deaths(
    *runs: Run, given: Circumstances | None = None, outages: tuple[int, ...] = (0, MINUTE, HOUR, 3 * HOUR)
) -> Any:
    return forecast(runs, [], 0, given or given_with(), outages, NOW).deaths


@given(st.one_of(delays, short_intervals), st.integers(1, 6), st.integers(0, 6 * HOUR), st.integers(0, 6 * HOUR))
def test_when_it_is_given_up_is_when_attempt_after_attempt_has_failed(
    schedule: Schedule, failures: int, since: int, closed: int
) -> None:
    anchor, ended = NOW - since, NOW
    judged, failed_at = claim(attempt=failures, anchor_at=anchor - closed), ended
    while True:
        refused = outcome(None, Reason.CONNECT_REFUSED, started_at=failed_at, ended_at=failed_at)
        verdict = judge(judged, refused, schedule, operator().terms["notice"].rule, closed)
        if verdict.verb is Verb.BURY:
            break
        assert verdict.due_at is not None
        judged, failed_at = judged._replace(attempt=judged.attempt + 1), verdict.due_at
    assert schedule.given_up(failures, anchor, ended) == failed_at


def test_nothing_dies_of_an_outage_that_is_over() -> None:
    assert deaths(waits(failures=4, anchor_at=NOW - HOUR))[0] == 0


def test_each_dies_when_its_own_attempts_are_used_up() -> None:
    last, third, fresh = waits(failures=4), waits(NOW + 20 * MINUTE, failures=3), waits(failures=1)
    # 4th at once; the 3rd at 20 min and its 4th 50 min later; 1 + 30 + 50 min.
    assert deaths(last, third, fresh, outages=(1, 70 * MINUTE, 70 * MINUTE + 1, 81 * MINUTE + 1)) == [1, 1, 2, 3]


def test_what_is_due_after_the_outage_outlives_it() -> None:
    assert deaths(waits(NOW + 2 * HOUR, failures=4)) == [0, 0, 0, 1]


def test_a_window_is_reckoned_on_the_operators_own_clock() -> None:
    window = Interval(MINUTE, HOUR)
    # Its first attempt ended two hours ago; the operator was closed for half of that, or not at all.
    begun = waits(failures=9, anchor_at=NOW - 2 * HOUR)
    assert deaths(begun, given=given_with(window), outages=(1, 1 + HOUR)) == [1, 1]
    assert deaths(begun, given=given_with(window, closed=90 * MINUTE), outages=(1, 30 * MINUTE + 1)) == [0, 1]


@pytest.mark.parametrize("doors", [Doors.PAUSED, Doors.HELD])
def test_nothing_dies_at_an_operator_to_whom_nothing_is_sent(doors: Doors) -> None:
    outlook = forecast([waits(failures=4)], [], 0, given_with(doors=doors), (HOUR,), NOW)
    assert (outlook.deaths, outlook.drained_at) == ([0], None)


def test_nobody_knows_what_dies_without_settings() -> None:
    given = circumstances(None, OPEN, 256, SECOND)
    assert given.doors is Doors.UNFIT
    assert forecast([waits(failures=4)], [], 0, given, (HOUR,), NOW)[-2:] == (None, None)


def test_a_breaker_that_trips_bounds_what_can_die() -> None:
    with_breaker = operator(breaker=Breaker(3, MINUTE), concurrency=2)
    given = circumstances(with_breaker, OPEN, 256, SECOND)
    assert given.most_lost == 4
    runs = [waits(failures=4) for _ in range(10)]
    assert forecast(runs, [], 0, given, (0, HOUR), NOW).deaths == [0, 4]
    assert forecast(runs[:2], [], 0, given, (0, HOUR), NOW).deaths == [0, 2]


def test_what_is_under_way_fails_too() -> None:
    assert forecast([], [waits(failures=4)], 0, given_with(), (0, 1), NOW).deaths == [0, 1]


def test_a_type_that_the_operator_does_not_take_dies_of_nothing() -> None:
    assert deaths(Run(NOW, "settle", 4, None)) == [0, 0, 0, 0]


def test_a_backlog_is_through_when_its_places_have_had_it_all_and_the_last_was_due() -> None:
    due = [waits() for _ in range(10)]
    outlook = forecast(due, [], 3, given_with(), (0,), NOW)
    assert (outlook.waiting, outlook.due, outlook.parked) == (10, 10, 3)
    assert outlook.drained_at == NOW + 5 * SECOND
    later = forecast([*due, waits(NOW + HOUR)], [], 0, given_with(), (0,), NOW)
    assert (later.drained_at, later.due) == (NOW + HOUR, 10)


def test_nobody_can_say_when_a_backlog_is_through_without_an_answer_or_with_nothing_waiting() -> None:
    assert forecast([waits()], [], 0, given_with(answer=None), (0,), NOW).drained_at is None
    assert forecast([], [], 0, given_with(), (0,), NOW).drained_at is None


def test_places_are_the_operators_or_the_workers_whichever_are_fewer() -> None:
    assert circumstances(operator(concurrency=32), OPEN, 8, None).places == 8
    assert circumstances(operator(concurrency=32), OPEN, 256, None).places == 32


def test_what_is_assumed_is_said_in_every_language() -> None:
    assert set(ASSUMED) == set(LANGUAGES)
    assert len({len(told) for told in ASSUMED.values()}) == 1


@pytest.mark.each_store
def test_what_waits_is_read_in_its_order_whole_and_by_pages(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAGE", 3)
    accept(database, *range(1, 8), now=NOW)
    accept(database, 8, operator="bolt", now=NOW)
    settle(database, *(failed(one, NOW + SECOND) for one in take(database, NOW, 2)), now=NOW + SECOND)
    found = list(waiting.waiting(database, "acme"))
    assert [(one.due_at, one.failures) for one in found] == [(NOW, 1)] * 5 + [(NOW + SECOND + MINUTE, 2)] * 2
    assert [one.anchor_at for one in found] == [None] * 5 + [NOW + SECOND] * 2
    assert waiting.operators_with_work(database) == {"acme", "bolt"}


@pytest.mark.each_store
def test_what_is_under_way_parked_or_replayed_stands_where_its_schedule_says(database: Database) -> None:
    accept(database, 1, 2, now=NOW)
    (held, *_) = take(database, NOW, 1)
    with database.writing() as connection:
        behind = "sequence = 's', in_line = {yes}, parked = {yes}".format(
            yes="1" if connection.dialect.name == "sqlite" else "true"
        )
        connection.execute(
            text(f"UPDATE deliveries SET {behind}, attempts = 7, run_from = 4, probes = 2 WHERE key = '2'")
        )
    assert waiting.sending(database) == {"acme": [Run(None, "notice", held.failures, None)]}
    assert list(waiting.waiting(database, "acme")) == []
    with database.reading() as connection:
        assert waiting.parked(connection) == {"acme": 1}
    assert waiting.run_of(database, 2) == Run(NOW, "notice", 2, None)
    assert waiting.run_of(database, 9) is None
    assert corridor.survey(database).earliest == {}
