"""Moves, schedules and the judge: exhaustive where the set is finite, property-based where it is not."""

import dataclasses
from itertools import product
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.policy import (
    MOVES,
    Outcome,
    Reason,
    Rule,
    Status,
    Trigger,
    Verb,
    Verdict,
    judge,
    judge_interrupted,
    move,
    read_answer,
)
from dispatcher.ground.schedule import Delays, Interval, Schedule
from tests.ground import NOW, claim, outcome

ALLOWED = {
    ("pending", "claim"): "sending",
    ("sending", "deliver"): "delivered",
    ("sending", "retry"): "pending",
    ("sending", "bury"): "dead",
    ("sending", "put_off"): "pending",
    ("dead", "replay"): "pending",
    ("dead", "resolve"): "resolved",
    ("resolved", "replay"): "pending",
}
STARRED = {"read_timeout", "reset", "interrupted"}
UNSTARRED = {
    *("dns", "connect_refused", "connect_timeout", "tls", "blocked_address", "write_error", "redirect"),
    *("http_status", "body_too_large", "body_not_json", "body_field", "config"),
}
FOUR = Delays()
SETTLE = Interval(60 * SECOND, 3 * HOUR)

moments = st.integers(0, 4 * 10**15)
lengths = st.integers(0, 10**12)
schedules: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(Delays, st.lists(lengths, max_size=6).map(tuple), st.sampled_from(["previous", "first"])),
    st.builds(Interval, st.integers(SECOND, 10**12), lengths),
)


@pytest.mark.parametrize(("status", "verb"), list(product(Status, Verb)))
def test_a_status_moves_by_a_verb_as_the_table_says_and_in_no_other_way(status: Status, verb: Verb) -> None:
    expected = ALLOWED.get((str(status), str(verb)))
    if expected is None:
        with pytest.raises(KeyError):
            move(status, verb)
    else:
        assert move(status, verb) == expected


def test_the_table_of_moves_has_nothing_beyond_what_is_allowed() -> None:
    assert {(str(status), str(verb)): str(after) for (status, verb), after in MOVES.items()} == ALLOWED


def test_what_is_delivered_never_moves_again() -> None:
    assert not [verb for status, verb in MOVES if status is Status.DELIVERED]


def test_the_reasons_are_those_of_the_contract() -> None:
    assert {str(reason) for reason in Reason} == STARRED | UNSTARRED


@pytest.mark.parametrize("reason", list(Reason))
def test_exactly_the_starred_reasons_are_ambiguous(reason: Reason) -> None:
    assert reason.ambiguous is (str(reason) in STARRED)


@pytest.mark.parametrize("status", range(100, 600))
def test_only_200_is_a_yes_and_a_redirect_is_told_apart(status: int) -> None:
    verdict = judge(claim(), outcome(status), FOUR, Rule())
    if status == 200:
        assert verdict._replace(anchor_at=None) == Verdict(Verb.DELIVER)
        assert verdict.status is Status.DELIVERED
    else:
        why = Reason.REDIRECT if 300 <= status <= 399 else Reason.HTTP_STATUS
        assert verdict._replace(anchor_at=None) == Verdict(Verb.RETRY, outcome().ended_at + MINUTE, why)
        assert verdict.status is Status.PENDING


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("status", [None, 200])
def test_an_attempt_that_failed_on_the_way_keeps_its_reason_whatever_status_came(
    reason: Reason, status: int | None
) -> None:
    verdict = judge(claim(), outcome(status, reason), FOUR, Rule())
    assert verdict._replace(anchor_at=None) == Verdict(Verb.RETRY, outcome().ended_at + MINUTE, reason)


def test_an_answer_without_a_status_is_no_yes() -> None:
    assert judge(claim(), outcome(), FOUR, Rule()).verb is Verb.RETRY


def test_a_rule_may_name_other_statuses_even_a_redirect() -> None:
    rule = Rule(frozenset({200, 202, 302}))
    yes = [status for status in range(100, 600) if read_answer(outcome(status), rule).failure is None]
    assert yes == [200, 202, 302]


def dues(schedule: Schedule, ends: list[int]) -> list[int | None]:
    """When the next attempt is due after each failed one, told from the attempts' ends."""
    return [schedule.next_due(n, ends[0], ended) for n, ended in enumerate(ends, 1)]


def test_the_default_schedule_is_1_30_and_50_minutes_each_from_the_end_of_the_attempt_before() -> None:
    ends = [NOW, NOW + 2 * MINUTE, NOW + 40 * MINUTE, NOW + 100 * MINUTE]
    assert dues(FOUR, ends) == [NOW + 1 * MINUTE, NOW + 32 * MINUTE, NOW + 90 * MINUTE, None]


def test_a_schedule_from_the_first_attempt_counts_from_its_end() -> None:
    schedule = Delays((1 * MINUTE, 30 * MINUTE, 50 * MINUTE), "first")
    ends = [NOW, NOW + 2 * MINUTE, NOW + 31 * MINUTE, NOW + 51 * MINUTE]
    assert dues(schedule, ends) == [NOW + 1 * MINUTE, NOW + 30 * MINUTE, NOW + 50 * MINUTE, None]


def test_a_schedule_from_the_first_attempt_that_runs_late_goes_on_at_once() -> None:
    schedule = Delays((1 * MINUTE, 2 * MINUTE), "first")
    assert schedule.next_due(2, NOW, NOW + 10 * MINUTE) == NOW + 10 * MINUTE


def test_an_interval_ends_with_its_window() -> None:
    ends = [NOW + n * MINUTE for n in range(200)]
    answers = dues(SETTLE, ends)
    assert answers[:180] == [NOW + n * MINUTE for n in range(1, 181)]
    assert answers[180:] == [None] * 20


@pytest.mark.parametrize(
    ("ended", "due"),
    [(120, 180), (121, None), (180, None), (119, 179)],
)
def test_a_window_that_ends_between_two_attempts_ends_the_run(ended: int, due: int | None) -> None:
    schedule = Interval(60 * SECOND, 180 * SECOND)
    told = schedule.next_due(3, NOW, NOW + ended * SECOND)
    assert told == (None if due is None else NOW + due * SECOND)


def test_a_window_shorter_than_its_interval_leaves_one_attempt() -> None:
    assert Interval(60 * SECOND, 30 * SECOND).next_due(1, NOW, NOW) is None


@pytest.mark.parametrize("schedule", [Delays((60 * SECOND,)), Interval(60 * SECOND, HOUR)])
def test_what_an_operator_asks_for_is_heeded_only_where_the_schedule_says_so(schedule: Schedule) -> None:
    heeding = dataclasses.replace(schedule, retry_after=10 * MINUTE)
    ended = NOW + 3 * SECOND
    assert schedule.next_due(1, NOW, ended, HOUR) == ended + MINUTE
    assert heeding.next_due(1, NOW, ended) == ended + MINUTE
    assert heeding.next_due(1, NOW, ended, 59 * SECOND) == ended + MINUTE
    assert heeding.next_due(1, NOW, ended, 61 * SECOND) == ended + 61 * SECOND
    assert heeding.next_due(1, NOW, ended, HOUR) == ended + 10 * MINUTE


def test_without_a_delay_and_without_being_asked_the_next_attempt_is_due_at_once() -> None:
    assert Delays((0,)).next_due(1, NOW, NOW, HOUR) == NOW
    assert Delays((0,), retry_after=HOUR).next_due(1, NOW, NOW) == NOW
    assert Interval(0, HOUR).next_due(1, NOW, NOW, HOUR) == NOW
    assert Interval(0, HOUR, retry_after=HOUR).next_due(1, NOW, NOW) == NOW


def test_what_an_operator_asks_for_goes_to_the_end_of_the_window_and_no_further() -> None:
    schedule = Interval(60 * SECOND, 10 * MINUTE, retry_after=HOUR)
    assert schedule.next_due(5, NOW, NOW + 4 * MINUTE, HOUR) == NOW + 10 * MINUTE
    assert schedule.next_due(5, NOW, NOW + 4 * MINUTE, 5 * MINUTE) == NOW + 9 * MINUTE


@pytest.mark.parametrize(("late", "dead"), [(0, 180), (10, 130), (179, 179), (180, 180), (181, 181)])
def test_a_window_is_given_up_at_the_end_of_its_last_whole_interval(late: int, dead: int) -> None:
    schedule = Interval(60 * SECOND, 180 * SECOND)
    assert schedule.given_up(1, NOW, NOW + late * SECOND) == NOW + dead * SECOND


def test_a_window_of_nothing_is_given_up_at_once_whatever_the_interval() -> None:
    assert Interval(1, 0).given_up(1, NOW, NOW) == NOW


def test_delays_are_given_up_when_the_last_has_passed() -> None:
    assert FOUR.given_up(1, NOW, NOW) == NOW + 81 * MINUTE
    assert FOUR.given_up(3, NOW, NOW) == NOW + 50 * MINUTE
    assert FOUR.given_up(4, NOW, NOW) == NOW


def run(schedule: Schedule, run_from: int = 0) -> list[tuple[Verdict, int]]:
    """Attempts of 3 s that all fail, each begun when it is due, until one is buried: (verdict, its end)."""
    due_at, anchor, story = NOW, None, []
    for attempt in range(run_from + 1, run_from + 500):
        ended = due_at + 3 * SECOND
        hand = claim(attempt=attempt, run_from=run_from, anchor_at=anchor, due_at=due_at)
        verdict = judge(hand, outcome(500, started_at=due_at, ended_at=ended), schedule, Rule())
        story.append((verdict, ended))
        if verdict.due_at is None:
            break
        due_at, anchor = verdict.due_at, ended if anchor is None else anchor
    return story


@pytest.mark.parametrize("run_from", [0, 4, 9])
def test_the_fourth_failure_buries_and_a_replayed_run_gets_the_whole_schedule_again(run_from: int) -> None:
    story = run(FOUR, run_from)
    assert [verdict.verb for verdict, _ in story] == [Verb.RETRY, Verb.RETRY, Verb.RETRY, Verb.BURY]
    waits = [verdict.due_at - ended for verdict, ended in story if verdict.due_at is not None]
    assert waits == [1 * MINUTE, 30 * MINUTE, 50 * MINUTE]
    last, _ = story[-1]
    assert last._replace(anchor_at=None) == Verdict(Verb.BURY, None, Reason.HTTP_STATUS)
    assert last.status is Status.DEAD


@pytest.mark.parametrize("run_from", [0, 172])
def test_a_run_by_interval_is_buried_when_the_window_is_over(run_from: int) -> None:
    story = run(SETTLE, run_from)
    first_end, last_end = story[0][1], story[-1][1]
    assert story[-1][0].verb is Verb.BURY
    assert first_end + 3 * HOUR - MINUTE < last_end <= first_end + 3 * HOUR + 3 * SECOND
    assert len(story) == 1 + 3 * 60 * 60 // 63


def test_the_window_opens_at_the_end_of_the_first_attempt_and_not_at_its_start() -> None:
    slow = outcome(500, started_at=NOW, ended_at=NOW + 50 * SECOND)
    verdict = judge(claim(), slow, Interval(60 * SECOND, 60 * SECOND), Rule())
    assert verdict._replace(anchor_at=None) == Verdict(Verb.RETRY, NOW + 110 * SECOND, Reason.HTTP_STATUS)


def test_a_schedule_without_delays_is_one_attempt() -> None:
    assert [verdict.verb for verdict, _ in run(Delays(()))] == [Verb.BURY]


def test_the_yes_of_the_last_attempt_is_a_yes() -> None:
    assert judge(claim(attempt=4, anchor_at=NOW), outcome(200), FOUR, Rule())._replace(anchor_at=None) == Verdict(
        Verb.DELIVER
    )


@pytest.mark.parametrize(
    ("attempt", "run_from", "trigger"),
    [
        (1, 0, Trigger.FIRST),
        (2, 0, Trigger.RETRY),
        (4, 0, Trigger.RETRY),
        (5, 4, Trigger.REPLAY),
        (6, 4, Trigger.RETRY),
    ],
)
def test_an_attempt_knows_what_brought_it_about(attempt: int, run_from: int, trigger: Trigger) -> None:
    assert claim(attempt=attempt, run_from=run_from).trigger is trigger


@settings(max_examples=300)
@given(schedules, st.integers(1, 4), moments, st.none() | lengths, st.sampled_from([500, 302, 404, 204]))
def test_a_retry_is_never_due_before_the_end_of_the_attempt(
    schedule: Schedule, failures: int, ended: int, since: int | None, status: int
) -> None:
    anchor = None if since is None else ended - since
    came = Outcome(ended - 1, ended, 1, http_status=status)
    verdict = judge(claim(attempt=failures, anchor_at=anchor), came, schedule, Rule())
    assert verdict.verb in (Verb.RETRY, Verb.BURY)
    assert verdict.reason is not None
    assert (verdict.due_at is None) == (verdict.verb is Verb.BURY)
    assert verdict.due_at is None or verdict.due_at >= ended


@given(schedules, st.integers(1, 8), st.integers(0, 100), moments, st.none() | moments)
def test_a_verdict_does_not_depend_on_the_attempts_of_earlier_runs(
    schedule: Schedule, failures: int, before: int, ended: int, anchor: int | None
) -> None:
    came = Outcome(ended - 1, ended, 1, http_status=500)
    first_run = claim(attempt=failures, anchor_at=anchor)
    later_run = claim(attempt=before + failures, run_from=before, anchor_at=anchor)
    assert judge(first_run, came, schedule, Rule()) == judge(later_run, came, schedule, Rule())


@given(
    st.lists(lengths, max_size=6).map(tuple),
    st.sampled_from(["previous", "first"]),
    st.integers(1, 12),
    moments,
    moments,
)
def test_a_list_of_delays_gives_one_attempt_more_than_it_has_delays(
    delays: tuple[int, ...], measured_from: Literal["previous", "first"], failures: int, anchor: int, ended: int
) -> None:
    due = Delays(delays, measured_from).next_due(failures, anchor, ended)
    assert (due is None) == (failures > len(delays))


@given(st.integers(SECOND, 10**12), lengths, moments, moments)
def test_an_interval_never_starts_an_attempt_after_its_window(every: int, window: int, anchor: int, ended: int) -> None:
    due = Interval(every, window).next_due(1, anchor, ended)
    assert due in (ended + every, None)
    assert due is None or due <= anchor + window


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_an_interrupted_attempt_counts_and_goes_on_at_once(attempt: int) -> None:
    anchor = None if attempt == 1 else NOW - HOUR
    verdict = judge_interrupted(claim(attempt=attempt, anchor_at=anchor), NOW, FOUR)
    assert verdict._replace(anchor_at=None) == Verdict(Verb.RETRY, NOW, Reason.INTERRUPTED)
    assert verdict.reason is not None
    assert verdict.reason.ambiguous


@pytest.mark.parametrize("run_from", [0, 4])
def test_an_interruption_of_the_last_attempt_buries(run_from: int) -> None:
    hand = claim(attempt=run_from + 4, run_from=run_from, anchor_at=NOW - HOUR)
    assert judge_interrupted(hand, NOW, FOUR)._replace(anchor_at=None) == Verdict(Verb.BURY, None, Reason.INTERRUPTED)


def test_an_interruption_after_the_window_goes_on_once_more_since_nobody_tried_whether_the_operator_is_well() -> None:
    hand = claim(attempt=9, anchor_at=NOW - 3 * HOUR)
    again = judge_interrupted(hand, NOW, SETTLE)
    assert (again.verb, again.due_at, again.reason) == (Verb.RETRY, NOW, Reason.INTERRUPTED)
    assert judge(hand, outcome(500, ended_at=NOW), SETTLE, Rule()).verb is Verb.BURY


@given(schedules, st.integers(1, 8), moments, st.none() | moments)
def test_an_interruption_is_a_failure_like_any_other_but_does_not_wait(
    schedule: Schedule, failures: int, now: int, anchor: int | None
) -> None:
    hand = claim(attempt=failures, anchor_at=anchor)
    interrupted = judge_interrupted(hand, now, schedule)
    failed = judge(hand, Outcome(now - 1, now, 1, reason=Reason.INTERRUPTED), schedule, Rule())
    goes_on = isinstance(schedule, Interval) or failed.verb is Verb.RETRY
    assert interrupted.verb is (Verb.RETRY if goes_on else Verb.BURY)
    assert interrupted.due_at == (now if goes_on else None)


CLOSED = 7 * MINUTE


@pytest.mark.parametrize("schedule", [SETTLE, Delays((60 * SECOND, HOUR), "first")])
def test_the_first_attempt_opens_its_window_on_the_operators_own_clock(schedule: Schedule) -> None:
    came = outcome(500)
    verdict = judge(claim(), came, schedule, Rule(), CLOSED)
    assert verdict.anchor_at == came.ended_at - CLOSED
    assert verdict.due_at == came.ended_at + MINUTE
    assert judge_interrupted(claim(), NOW, schedule, CLOSED).anchor_at == NOW - CLOSED


def test_an_operator_that_was_never_closed_has_the_same_clock_as_everybody() -> None:
    assert judge(claim(), outcome(500), FOUR, Rule()).anchor_at == outcome().ended_at
    assert judge_interrupted(claim(), NOW, FOUR).anchor_at == NOW


@pytest.mark.parametrize(("ended", "verb"), [(180 * MINUTE, Verb.RETRY), (181 * MINUTE, Verb.BURY)])
def test_what_was_closed_is_in_no_window(ended: int, verb: Verb) -> None:
    hand = claim(attempt=20, anchor_at=NOW)
    came = outcome(500, ended_at=NOW - MINUTE + CLOSED + ended)
    assert judge(hand, came, SETTLE, Rule(), CLOSED).verb is verb
    assert judge(hand, came, SETTLE, Rule(), CLOSED).anchor_at == NOW


def test_an_interruption_counts_what_was_closed_by_no_schedule_either() -> None:
    """By the first attempt's end as well, which leaves the delays where they were."""
    hand = claim(attempt=2, anchor_at=NOW)
    verdict = judge_interrupted(hand, NOW + HOUR, Delays((MINUTE, MINUTE), "first"), CLOSED)
    assert verdict == Verdict(Verb.RETRY, NOW + HOUR, Reason.INTERRUPTED, anchor_at=NOW)


def test_a_probe_that_fails_uses_nothing_up_and_is_due_again_at_once() -> None:
    hand = claim(attempt=4, anchor_at=NOW - HOUR)
    verdict = judge(hand, outcome(503), FOUR, Rule(), probe=True)
    assert verdict == Verdict(Verb.RETRY, outcome().ended_at, Reason.HTTP_STATUS, anchor_at=NOW - HOUR, probe=True)
    assert judge(hand, outcome(200), FOUR, Rule(), probe=True) == Verdict(Verb.DELIVER, anchor_at=NOW - HOUR)
    assert judge(hand._replace(probes=1), outcome(503), FOUR, Rule()).due_at == outcome().ended_at + 50 * MINUTE


@pytest.mark.parametrize(("reason", "wait"), [(Reason.CONFIG, MINUTE), (Reason.DNS, 5 * SECOND), (None, 5 * SECOND)])
def test_a_fault_of_our_own_puts_off_and_costs_neither_attempt_nor_window(reason: Reason | None, wait: int) -> None:
    came = outcome(reason=reason, ours=True)
    first = judge(claim(), came, FOUR, Rule())
    assert first == Verdict(Verb.PUT_OFF, came.ended_at + wait, reason)
    assert first.status is Status.PENDING
    later = claim(attempt=3, anchor_at=NOW - HOUR, due_at=NOW - 20 * SECOND)
    waited = came.ended_at + wait - later.due_at
    assert judge(later, came, SETTLE, Rule()).anchor_at == NOW - HOUR + waited
    assert judge(later, came, SETTLE, Rule(), kept=4 * SECOND).anchor_at == NOW - HOUR + waited - 4 * SECOND
    assert judge(later, came, SETTLE, Rule(), kept=HOUR).anchor_at == NOW - HOUR


def test_an_attempt_whose_operator_asked_to_be_left_alone_waits_as_long_as_the_schedule_heeds() -> None:
    came = outcome(503, retry_after=5 * MINUTE)
    assert judge(claim(), came, Delays(retry_after=HOUR), Rule()).due_at == came.ended_at + 5 * MINUTE
    assert judge(claim(), came, FOUR, Rule()).due_at == came.ended_at + MINUTE
    assert judge(claim(), outcome(503), Delays((0,), retry_after=HOUR), Rule()).due_at == outcome().ended_at


def test_an_attempt_that_is_overdue_and_was_asked_for_nothing_follows_at_once() -> None:
    hand = claim(attempt=2, anchor_at=NOW - HOUR)
    schedule = Delays((0, MINUTE), "first", HOUR)
    assert judge(hand, outcome(503), schedule, Rule()).due_at == outcome().ended_at


def test_a_claim_and_an_outcome_say_nothing_that_nobody_told_them() -> None:
    assert (claim().probes, claim().sequence) == (0, None)
    assert (outcome().truncated, outcome().ours, Verdict(Verb.DELIVER).probe) == (False, False, False)
