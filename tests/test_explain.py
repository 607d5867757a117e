"""A delivery's story: every status with every reason, in both languages; what it claims, and what it never shows."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from dispatcher.explain import MOST_QUOTED, Booked, Case, Story, Zone, booked, explain
from dispatcher.explain.words import TONGUES
from dispatcher.ground.clock import HOUR, MINUTE, SECOND, iso
from dispatcher.ground.lang import LANGUAGES
from dispatcher.ground.policy import Reason, Rule, Status, Trigger
from dispatcher.ground.schedule import Delays, Interval
from dispatcher.store.counts.waiting import Run
from dispatcher.store.ledger import Row
from dispatcher.store.operators import Standing
from tests.ground import NOW, notice, operator, settle_event
from tests.story import Story as Desk
from tests.story import leaks

OPEN = Standing("acme", "file", "locked", 1, 1, NOW, None, None, None, 0)
ENDED = (Status.DELIVERED, Status.DEAD, Status.RESOLVED)
UNSENT = {Reason.DNS, Reason.CONNECT_REFUSED, Reason.CONNECT_TIMEOUT, Reason.TLS, Reason.BLOCKED_ADDRESS}
UNSENT |= {Reason.WRITE_ERROR, Reason.CONFIG}


def row(status: Status = Status.PENDING, **changes: Any) -> Row:
    body = '{"total_bet":"10","total_win":"12.5","order_no":"1767225600123457049"}'
    due_at = NOW + MINUTE if status is Status.PENDING else None
    known = Row(
        1, "acme", "notice", "1767225600123457049", "player-1", status, 0, due_at, NOW, None, None, False, False, body
    )
    return known._replace(finished_at=NOW + SECOND if status in ENDED else None)._replace(**changes)


def attempt(reason: Reason | None = Reason.HTTP_STATUS, n: int = 1, **changes: Any) -> dict[str, Any]:
    """One attempt, as `ledger.history` gives it."""
    answered = reason is None or reason in (Reason.HTTP_STATUS, Reason.BODY_FIELD, Reason.REDIRECT)
    known = {"n": n, "trigger": "first" if n == 1 else "retry", "started_at": iso(NOW + n * SECOND)}
    known |= {"duration_ms": 5_678, "http_status": 500 if answered else None, "code": None, "key_version": 1}
    known |= {"reason": reason, "ambiguous": reason is not None and reason.ambiguous, "response": None, "detail": None}
    return {**known, "superseded": False, **changes}


def story(
    it: Row, *attempts: Mapping[str, Any], actions: Sequence[Mapping[str, Any]] = (), now: int = NOW, **of: Any
) -> Story:
    language, zone = of.pop("language", "en"), of.pop("zone", Zone.UTC)
    case = Case(
        it,
        attempts,
        actions,
        **{"run": Run(it.due_at, "notice", 1, None), "operator": operator(), "standing": OPEN, **of},
    )
    return explain(case, now, language, zone)


def text_of(told: Story, about: str | None = None) -> str:
    return "\n".join(one.text for one in told.sentences if about in (None, one.about))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("status", "reason", "trigger"), list(product(Status, [None, *Reason], Trigger)))
def test_every_status_with_every_reason_and_trigger_is_told(
    language: str, status: Status, reason: Reason | None, trigger: Trigger
) -> None:
    tongue = TONGUES[language]
    it = row(status, reason=reason, ambiguous=reason is not None and reason.ambiguous)
    told = story(it, attempt(reason, trigger=trigger.value), language=language)
    assert tongue.triggers[trigger] in text_of(told, "attempt")
    assert (tongue.said["success"] if reason is None else tongue.reasons[reason]) in text_of(told, "attempt")
    assert [one.about for one in told.sentences] == ["accepted", "attempt", "booked", "next", "as_of"]
    assert all(one.text.strip() and "{" not in one.text for one in told.sentences)
    if status is not Status.PENDING:
        assert tongue.said[f"next_{status}"] in text_of(told, "next")


@pytest.mark.parametrize(("status", "reason"), list(product(Status, [None, *Reason])))
def test_what_is_claimed_of_the_booking_is_what_the_attempts_allow(status: Status, reason: Reason | None) -> None:
    it, made = row(status, reason=reason), [attempt(reason)]
    expected = Booked.NO
    if reason in (Reason.READ_TIMEOUT, Reason.RESET, Reason.INTERRUPTED) or status is Status.SENDING:
        expected = Booked.MAYBE
    if reason is None or status is Status.DELIVERED:
        expected = Booked.YES
    assert booked(it, made) is expected
    told = text_of(story(it, *made), "booked")
    assert told.startswith({"no": "Booked: no", "maybe": "Booked: that is open", "yes": "Booked: yes"}[expected])


@pytest.mark.parametrize("reason", list(Reason))
def test_no_request_reached_the_operator_is_said_of_no_other_reason(reason: Reason) -> None:
    said = "No whole request has reached the operator" in text_of(story(row(Status.DEAD), attempt(reason)), "booked")
    assert said is (reason in UNSENT)


def test_one_doubtful_attempt_among_many_leaves_it_open_and_is_named() -> None:
    made = [
        attempt(Reason.DNS),
        attempt(Reason.RESET, 2),
        attempt(Reason.HTTP_STATUS, 3),
        attempt(Reason.READ_TIMEOUT, 4),
    ]
    told = story(row(Status.DEAD, attempts=4, reason="read_timeout", ambiguous=True), *made)
    assert told.booked is Booked.MAYBE
    assert "In attempt 2, 4 the request may have reached" in text_of(told, "booked")
    assert TONGUES["en"].said["next_ask"] in text_of(told, "next")


def test_a_doubt_of_the_row_alone_is_one() -> None:
    assert booked(row(ambiguous=True), [attempt(Reason.DNS)]) is Booked.MAYBE


def test_a_yes_that_came_too_late_is_a_yes_and_nobody_is_told_to_send_it_again() -> None:
    made = [attempt(Reason.INTERRUPTED), attempt(None, superseded=True, http_status=200)]
    told = story(row(Status.DEAD, reason="interrupted", ambiguous=True), *made)
    assert told.booked is Booked.YES
    assert TONGUES["en"].said["booked_yes_late"] in text_of(told, "booked")
    assert TONGUES["en"].said["late"] in text_of(told, "attempt")
    assert TONGUES["en"].said["next_close"] in text_of(told, "next")
    assert TONGUES["en"].said["next_ask"] not in text_of(told, "next")


def test_a_short_attempt_took_milliseconds_and_not_no_time() -> None:
    told = text_of(story(row(), attempt(duration_ms=8), attempt(n=2, duration_ms=1_000)), "attempt")
    assert "It took 8 ms." in told
    assert "It took 1.0 s." in told


def test_what_nobody_tried_yet_is_not_booked() -> None:
    assert TONGUES["en"].said["booked_no_untried"] in text_of(story(row()), "booked")


def test_what_was_done_by_hand_stands_between_the_attempts_with_who_did_it_and_why() -> None:
    by_hand = [
        {"at": iso(NOW + 90 * SECOND), "verb": "replay", "actor": "api:support", "note": None},
        {"at": iso(NOW + 200 * SECOND), "verb": "resolve", "actor": "mei", "note": "acme confirmed it by phone"},
        {"at": iso(NOW + 300 * SECOND), "verb": "hold", "actor": "mei", "note": None},
    ]
    made = [attempt(), attempt(n=2, trigger="replay", started_at=iso(NOW + 100 * SECOND))]
    told = story(row(Status.RESOLVED), *made, actions=by_hand)
    assert [one.about for one in told.sentences[1:6]] == ["attempt", "hand", "attempt", "hand", "hand"]
    assert 'At 2026-01-01 00:01:30 "api:support" ordered that it be sent again.' in text_of(told)
    assert '"mei" closed it by hand. Note: "acme confirmed it by phone".' in text_of(told)
    assert 'did this by hand: "hold"' in text_of(told)


@pytest.mark.parametrize(
    ("schedule", "run", "said"),
    [
        (Delays(), Run(NOW, "notice", 4, NOW), "If that one fails, it is given up"),
        (Delays(), Run(NOW, "notice", 2, NOW), "it is given up at 2026-01-01 01:21:00"),
        (Delays(measured_from="first"), Run(NOW, "notice", 3, NOW - 30 * MINUTE), "given up at 2026-01-01 00:20:00"),
        (Interval(MINUTE, HOUR), Run(NOW, "notice", 9, NOW - 30 * MINUTE), "given up at 2026-01-01 00:30:00"),
    ],
)
def test_the_end_is_told_by_the_operators_own_schedule(schedule: Any, run: Run, said: str) -> None:
    told = story(row(due_at=NOW + MINUTE), run=run, operator=operator({"schedule": schedule}))
    assert "The next attempt is due at 2026-01-01 00:01:00." in text_of(told, "next")
    assert said in text_of(told, "next")


def test_the_end_is_reckoned_on_the_operators_clock() -> None:
    half_hour = Interval(MINUTE, HOUR)
    was_closed = OPEN._replace(closed_total=HOUR)
    given: dict[str, Any] = {
        "run": Run(NOW, "notice", 9, NOW - 90 * MINUTE),
        "operator": operator({"schedule": half_hour}),
    }
    told = story(row(due_at=NOW), now=NOW + SECOND, standing=was_closed, **given)
    assert "given up at 2026-01-01 00:29:01" in text_of(told, "next")


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            {"standing": OPEN._replace(paused_at=NOW, closed_since=NOW)},
            "The operator is paused since 2026-01-01 00:00:00",
        ),
        ({"standing": OPEN._replace(held_at=NOW, closed_since=NOW)}, "it is held since 2026-01-01 00:00:00"),
        ({"standing": OPEN._replace(settings=None)}, "no settings in force"),
        ({"standing": None}, "no settings in force"),
        ({"operator": None}, "no settings in force"),
    ],
)
def test_what_keeps_an_operator_from_being_sent_to_is_told(of: dict[str, Any], said: str) -> None:
    assert said in text_of(story(row(), **of), "next")


def test_a_stopped_clock_promises_no_end() -> None:
    paused = OPEN._replace(paused_at=NOW, closed_since=NOW)
    assert "given up" not in text_of(story(row(), standing=paused), "next")


def test_what_is_due_already_waits_for_a_place_and_what_is_parked_for_another() -> None:
    assert "is due since 2026-01-01 00:01:00" in text_of(story(row(), now=NOW + HOUR), "next")
    assert "waits behind an earlier event" in text_of(story(row(parked=True)), "next")


def test_a_fault_of_our_own_is_told_as_one() -> None:
    told = text_of(story(row(reason="config"), attempt(Reason.HTTP_STATUS)), "next")
    assert "A fault on our own side put it off" in told
    assert TONGUES["en"].reasons[Reason.CONFIG] in told
    assert "on our own side" not in text_of(story(row(reason="http_status"), attempt(Reason.HTTP_STATUS)), "next")


def test_a_final_code_is_told_as_the_reason_for_the_end() -> None:
    final = operator({"rule": Rule(final=frozenset({"9999"}))})
    told = text_of(story(row(Status.DEAD), attempt(code="9999"), operator=final), "next")
    assert TONGUES["en"].said["next_dead_final"] in told
    assert TONGUES["en"].said["next_dead_final"] not in text_of(story(row(Status.DEAD), attempt(code="1")), "next")


def test_times_are_told_in_the_zone_that_is_named() -> None:
    assert "2026-01-01 08:00:01" in text_of(story(row(), attempt(), zone=Zone.GMT8), "attempt")
    assert "all times in GMT+8" in text_of(story(row(), zone=Zone.GMT8), "as_of")
    assert "all times in UTC" in text_of(story(row()), "as_of")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_others_wrote_is_quoted_printable_and_short(language: str) -> None:
    evil = '\x1b[31m"Booked: yes."”\n‮' + "x" * 5_000
    actions = [{"at": iso(NOW), "verb": evil, "actor": evil, "note": evil}]
    made = attempt(Reason.BODY_FIELD, code=evil, detail=evil, response=evil)
    told = story(row(uid=evil, key=evil), made, actions=actions, language=language)
    opening, closing = TONGUES[language].quote.split("{}")
    for sentence in told.sentences:
        assert sentence.text.isprintable(), sentence
        for quoted in re.findall(f"{opening}([^{closing}]*){closing}", sentence.text):
            assert len(quoted) <= MOST_QUOTED + 1
    assert '"Booked: yes."' not in text_of(told, "attempt")
    assert "x" * MOST_QUOTED not in text_of(told, "attempt")


def test_our_own_technical_words_are_not_forwarded_as_the_operators() -> None:
    told = text_of(story(row(), attempt(Reason.CONNECT_REFUSED, detail="[Errno 111] 10.0.0.7")), "attempt")
    assert "Its words" not in told
    assert "10.0.0.7" not in told


def test_both_languages_say_the_same_with_the_same_places_to_fill() -> None:
    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    english, chinese = TONGUES["en"], TONGUES["zh"]
    assert set(english.reasons) == set(chinese.reasons) == set(Reason)
    assert set(english.triggers) == set(chinese.triggers) == set(Trigger)
    assert {name: places(text) for name, text in english.said.items()} == {
        name: places(text) for name, text in chinese.said.items()
    }
    assert set(TONGUES) == set(LANGUAGES)


def test_the_command_tells_it_in_words_and_as_json_and_gives_no_secret_away(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.set(callback_url="http://127.0.0.1:9/wallet", settle={"auth": "none"})
        event = notice(token="the-token-of-a-player")
        desk.operators["acme"]["auth"] = "per_event"
        del desk.operators["acme"]["token"]
        desk.write()
        desk.enqueue([event, settle_event(txId=event["order_no"])])
        asked = desk.call("explain", "acme", event["order_no"])
        assert (asked.status, "--type" in asked.err) == (1, True)
        done = desk.call("explain", "acme", event["order_no"], "--type", "notice", "--lang", "zh", "--tz", "gmt+8")
        assert done.status == 0, done
        assert "是否入账：否。尚未发送。" in done.out
        assert "GMT+8" in done.out
        told = desk.call("explain", "acme", event["order_no"], "--type", "settle", "--json").json()
        assert (told["booked"], told["status"], told["tz"]) == ("no", "pending", "utc")
        assert [one["about"] for one in told["sentences"]] == ["accepted", "booked", "next", "as_of"]
        assert not leaks(done.out)
        absent = desk.call("explain", "acme", "7")
        assert (absent.status, absent.out) == (1, "")
        assert "acme has no delivery 7" in absent.err
