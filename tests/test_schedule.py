"""The schedule as the operator sees it: what goes out, when, how often, and with what in it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.dispatch import GATHER
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.events import whose_token
from dispatcher.ground.policy import Reason
from dispatcher.store import acceptance
from tests.ground import NOW
from tests.stores import bury
from tests.workshop import Bench, Gate, MovedClock, configuration, event, opened, until

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

OK = httpx.Response(200)
NO = httpx.Response(500)
FOUR = (0, 1 * MINUTE, 30 * MINUTE, 50 * MINUTE)

FAILURES: dict[str, tuple[Any, Reason, bool]] = {
    "HTTP 500": (NO, Reason.HTTP_STATUS, False),
    "a redirect": (httpx.Response(302, headers={"Location": "https://acme.example/else"}), Reason.REDIRECT, False),
    "no connection": (httpx.ConnectError, Reason.CONNECT_REFUSED, False),
    "no answer": (httpx.ReadTimeout, Reason.READ_TIMEOUT, True),
}


def bench(folder: Path, answers: Sequence[Any] = (), clock: MovedClock | None = None, **lines: str) -> Bench:
    """A daemon whose operator acme gives these answers, one after the other."""
    made = Bench(configuration(folder, **lines), clock)
    made.acme.mock(side_effect=list(answers))
    return made


async def test_the_four_attempts_go_out_at_their_moment_and_not_a_microsecond_before(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO] * 4) as at:
        await at.send(1)
        assert at.sent == 1
        for made, delay in enumerate(FOUR[1:], start=1):
            assert at.row().due_at == at.clock.now() + delay
            await at.after(delay - 1)
            assert at.sent == made
            await at.after(1)
            assert at.sent == made + 1
        assert at.row()[5:7] == ("dead", 4)
        await at.after(365 * 24 * HOUR)
        assert at.sent == 4


async def test_the_alarm_is_set_for_every_next_attempt(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO] * 4) as at:
        await at.send(1)
        for delay in FOUR[1:]:
            due_at = at.row().due_at
            assert due_at == at.armed[-1]
            await at.after(delay)
        # Behind the last claim one more look, and no attempt.
        assert max(at.armed) == NOW + sum(FOUR) + GATHER


async def test_each_delay_counts_from_the_end_of_the_attempt_before(tmp_path: Path) -> None:
    at = bench(tmp_path)

    def slow(_request: httpx.Request) -> httpx.Response:
        at.clock.move(7 * SECOND)
        return NO

    at.acme.mock(side_effect=slow)
    async with at:
        await at.send(1)
        for number, delay in enumerate(FOUR[1:], start=1):
            assert at.row().due_at == at.clock.now() + delay
            await at.after(delay)
            assert at.sent == number + 1
        assert [one["started_at"] - NOW for one in at.attempts()] == [
            0,
            7 * SECOND + MINUTE,
            14 * SECOND + 31 * MINUTE,
            21 * SECOND + 81 * MINUTE,
        ]


async def test_delays_measured_from_the_first_attempt_count_from_its_end(tmp_path: Path) -> None:
    at = bench(tmp_path, retry='{ delays = ["1m", "30m", "50m"], measured_from = "first" }')

    def slow(_request: httpx.Request) -> httpx.Response:
        at.clock.move(7 * SECOND)
        return NO

    at.acme.mock(side_effect=slow)
    async with at:
        await at.send(1)
        end_of_first = NOW + 7 * SECOND
        for number, delay in enumerate(FOUR[1:], start=1):
            assert at.row().due_at == end_of_first + delay
            await at.after(end_of_first + delay - 1 - at.clock.now())
            assert at.sent == number
            await at.after(1)
            assert at.sent == number + 1
        assert at.row()[5:7] == ("dead", 4)


async def test_an_interval_sends_every_minute_until_its_window_ends(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO] * 6, retry='{ every = "60s", for = "5m" }') as at:
        await at.send(1)
        for number in range(1, 6):
            await at.after(MINUTE - 1)
            assert at.sent == number
            await at.after(1)
            assert at.sent == number + 1
        assert at.row()[5:7] == ("dead", 6)


@pytest.mark.parametrize("failure", FAILURES)
async def test_four_failures_end_dead_with_their_reason_and_mark(tmp_path: Path, failure: str) -> None:
    answer, reason, ambiguous = FAILURES[failure]
    async with bench(tmp_path, [answer] * 4) as at:
        await at.send(1)
        for delay in FOUR[1:]:
            assert at.row().status == "pending"
            await at.after(delay)
        dead = at.row()
        assert (dead.status, dead.attempts, dead.due_at) == ("dead", 4, None)
        assert (dead.reason, dead.ambiguous, dead.finished_at) == (reason, ambiguous, at.clock.now())
        made = at.attempts()
        assert [one["n"] for one in made] == [1, 2, 3, 4]
        assert [one["trigger"] for one in made] == ["first", "retry", "retry", "retry"]
        assert {(one["reason"], one["ambiguous"], one["late"]) for one in made} == {(reason, ambiguous, False)}
        assert [one["started_at"] - NOW for one in made] == [0, MINUTE, 31 * MINUTE, 81 * MINUTE]


async def test_one_doubtful_attempt_among_four_marks_the_dead_letter(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO, httpx.ReadTimeout, NO, NO]) as at:
        await at.send(1)
        for delay in FOUR[1:]:
            await at.after(delay)
        assert (at.row().status, at.row().reason, at.row().ambiguous) == ("dead", "http_status", True)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_yes_on_any_of_the_four_attempts_delivers_and_ends_it(tmp_path: Path, number: int) -> None:
    async with bench(tmp_path, [httpx.ReadTimeout] * (number - 1) + [OK]) as at:
        await at.send(1)
        for delay in FOUR[1:number]:
            await at.after(delay)
        done = at.row()
        assert (done.status, done.attempts, done.due_at) == ("delivered", number, None)
        assert done.finished_at == at.clock.now()
        assert (done.reason, done.ambiguous) == (None, False)
        await at.after(24 * HOUR)
        assert at.sent == number


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (201, "http_status"),
        (202, "http_status"),
        (204, "http_status"),
        (206, "http_status"),
        (301, "redirect"),
        (302, "redirect"),
        (307, "redirect"),
        (308, "redirect"),
        (400, "http_status"),
        (401, "http_status"),
        (404, "http_status"),
        (410, "http_status"),
        (429, "http_status"),
        (500, "http_status"),
        (503, "http_status"),
    ],
)
async def test_only_200_delivers(tmp_path: Path, status: int, reason: str) -> None:
    answer = httpx.Response(status, headers={"Location": "https://acme.example/else", "Retry-After": "7200"})
    async with bench(tmp_path, [answer, OK]) as at:
        await at.send(1)
        assert (at.row().status, at.row().reason, at.sent) == ("pending", reason, 1)
        assert at.row().due_at == NOW + MINUTE
        await at.after(MINUTE)
        assert at.row().status == "delivered"


async def test_a_yes_delivers_whatever_its_body_says(tmp_path: Path) -> None:
    async with bench(tmp_path, [httpx.Response(200, content=b'{"success":false}\xff\x00')]) as at:
        await at.send(1)
        assert at.row().status == "delivered"


async def test_an_operator_that_hangs_is_given_up_at_its_deadline(tmp_path: Path) -> None:
    path = configuration(tmp_path, connect_timeout='"20ms"', total_timeout='"20ms"')
    async with Bench(path, answer=Gate().answer) as at:
        await at.send(1)
        await at.idle()
        assert (at.row().status, at.row().reason, at.row().ambiguous) == ("pending", "read_timeout", True)
        assert at.attempts()[0]["duration"] >= 20_000


async def test_a_restart_between_two_attempts_keeps_the_schedule(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO, NO, NO, OK]) as at:
        await at.send(1)
        for made, delay in enumerate(FOUR[1:], start=1):
            at.clock.move(delay - 1)
            await at.restart()
            await at.look()
            assert at.sent == made
            await at.restart()
            await at.after(1)
            assert at.sent == made + 1
        assert [one["n"] for one in at.attempts()] == [1, 2, 3, 4]
        assert at.row().status == "delivered"


async def test_after_a_long_stop_everything_overdue_goes_out_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO] * 20 + [OK] * 20) as at:
        await at.send(*range(20))
        await at.cut_off()
        at.clock.move(72 * HOUR)
        await at.start()
        await at.look()
        assert at.sent == 40
        assert {at.row(key)[5:7] for key in range(20)} == {("delivered", 2)}


async def cut_off_in_flight(folder: Path, times: int) -> Bench:
    """Acme's delivery 1, cut off in its first attempts this many times; the last start has been made."""
    path = configuration(folder)
    at = Bench(path, answer=Gate().answer)
    await at.start()
    await at.send(1)
    for _ in range(times):
        assert at.row().status == "sending"
        at.clock.move(3 * SECOND)
        await at.restart()
        await at.look()
    return at


async def test_an_attempt_that_was_cut_off_is_found_by_the_next_start_and_made_again_at_once(tmp_path: Path) -> None:
    at = await cut_off_in_flight(tmp_path, 1)
    try:
        found = at.row()
        assert (found.status, found.attempts, found.reason, found.ambiguous) == ("sending", 2, "interrupted", True)
        (first,) = at.attempts()
        assert (first["n"], first["reason"], first["ambiguous"], first["late"]) == (1, "interrupted", True, False)
        assert (first["started_at"], first["duration"], first["http_status"]) == (NOW, None, None)
        assert [line["count"] for line in at.told("claims_rescued")] == [1]
    finally:
        await at.cut_off()


async def test_after_a_cut_off_the_rest_of_the_schedule_follows(tmp_path: Path) -> None:
    at = await cut_off_in_flight(tmp_path, 1)
    await at.cut_off()
    async with bench(tmp_path, [NO, NO], clock=at.clock) as then:
        assert then.row()[5:7] == ("pending", 2)
        await then.look()
        assert then.row()[5:7] == ("pending", 3)
        assert then.row().due_at == then.clock.now() + 50 * MINUTE
        await then.after(50 * MINUTE)
        assert then.row()[5:7] == ("dead", 4)
        assert [one["reason"] for one in then.attempts()] == ["interrupted"] * 2 + ["http_status"] * 2
        assert then.row().ambiguous


async def test_four_cut_offs_in_a_row_end_dead(tmp_path: Path) -> None:
    at = await cut_off_in_flight(tmp_path, 4)
    try:
        dead = at.row()
        assert (dead.status, dead.attempts, dead.reason, dead.ambiguous) == ("dead", 4, "interrupted", True)
        assert [one["n"] for one in at.attempts()] == [1, 2, 3, 4]
        assert {one["reason"] for one in at.attempts()} == {"interrupted"}
    finally:
        await at.cut_off()


async def test_a_cut_off_attempt_is_found_by_the_next_start_even_if_the_clock_was_set_back(tmp_path: Path) -> None:
    at = await cut_off_in_flight(tmp_path, 0)
    try:
        at.clock.move(-5 * HOUR)
        await at.restart()
        assert (at.row().status, at.row().reason) == ("pending", "interrupted")
        await at.look()
        assert (at.row().status, at.row().attempts) == ("sending", 2)
    finally:
        await at.cut_off()


@pytest.mark.parametrize("jump", [5 * HOUR, -5 * HOUR], ids=["forward", "back"])
async def test_a_clock_that_jumps_while_a_delivery_waits_neither_loses_nor_doubles_an_attempt(
    tmp_path: Path, jump: int
) -> None:
    async with bench(tmp_path, [NO, NO, OK]) as at:
        await at.send(1)
        await at.after(jump)
        assert at.sent == (2 if jump > 0 else 1)
        for _ in range(20):
            at.daemon._rescue()
            await at.after(HOUR)
        assert at.sent == 3
        assert [one["n"] for one in at.attempts()] == [1, 2, 3]
        assert at.row().status == "delivered"


@pytest.mark.parametrize("jump", [5 * HOUR, -5 * HOUR], ids=["forward", "back"])
async def test_a_clock_that_jumps_during_an_attempt_neither_loses_nor_doubles_it(tmp_path: Path, jump: int) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        await at.send(1)
        at.clock.move(jump)
        for _ in range(3):
            at.daemon._rescue()
            await at.look()
        assert gate.waiting["acme"] == 1
        gate.open()
        await at.calm()
        assert at.row()[5:7] == ("delivered", 1)
        assert gate.answered["acme"] == 1
        assert [(one["n"], one["late"], one["reason"]) for one in at.attempts()] == [(1, False, None)]


async def test_a_failure_while_the_clock_jumps_is_retried_by_the_clock_as_it_is_now(tmp_path: Path) -> None:
    at = bench(tmp_path)

    def jumping(_request: httpx.Request) -> httpx.Response:
        at.clock.move(-5 * HOUR)
        return NO

    at.acme.mock(side_effect=jumping)
    async with at:
        await at.send(1)
        assert at.row().due_at == NOW - 5 * HOUR + MINUTE


async def test_the_request_is_the_contracts_to_the_byte(tmp_path: Path) -> None:
    async with bench(tmp_path, [OK]) as at:
        await at.send("1767225600123457049", total_bet="0.10", total_win="12345678901234567890.1234")
        request = at.request()
        assert (request.method, str(request.url)) == ("POST", "https://acme.example/Demo/notice")
        assert request.headers.get_list("Content-Type") == ["application/json"]
        assert request.headers.get_list("Authorization") == ["Bearer the-token-of-acme"]
        body = request.content.decode()
        data = json.loads(body)["data"]
        assert body == f'{{"order_no":"1767225600123457049","data":"{data}","time":1767225601,"uid":"player-1"}}'
        assert opened(data) == (
            '{"order_no":"1767225600123457049","total_bet":0.10,"total_win":12345678901234567890.1234,'
            '"net_win":12345678901234567890.0234,"business":"Spin投入","game_id":49,"time":1767225601}'
        )


@pytest.mark.parametrize(("auth", "sent"), [("per_event", ["Bearer the-players-own"]), ("none", [])])
async def test_a_players_own_token_goes_only_to_an_operator_that_wants_it(
    tmp_path: Path, auth: str, sent: list[str]
) -> None:
    async with bench(tmp_path, [OK]) as at:
        at.path.write_text(at.path.read_text().replace('token = "the-token-of-acme"', f'auth = "{auth}"'))
        await at.daemon.reload(at.path)
        own = at.daemon._vault.lock(b"the-players-own", whose_token(event(1)))
        acceptance.accept(at.database, [event(1)._replace(bearer=own)], NOW)
        await at.look()
        assert at.request().headers.get_list("Authorization") == sent


async def test_an_event_without_the_token_that_its_operator_wants_now_is_not_sent(tmp_path: Path) -> None:
    async with bench(tmp_path, [OK]) as at:
        await at.cut_off()
        at.path.write_text(at.path.read_text().replace('token = "the-token-of-acme"', 'auth = "per_event"'))
        await at.start()
        await at.send(1)
        assert at.sent == 0
        assert (at.row().status, at.row().reason, at.row().ambiguous) == ("pending", "config", False)
        assert "the event brought no token" in at.attempts()[0]["detail"]


async def test_every_attempt_sends_the_same_bytes_while_the_key_stays(tmp_path: Path) -> None:
    async with bench(tmp_path, [NO] * 4) as at:
        await at.send(1)
        for delay in FOUR[1:]:
            await at.after(delay)
        assert len({call.request.content for call in at.acme.calls}) == 1


async def test_a_key_that_is_changed_by_a_reload_is_used_by_the_next_attempt(tmp_path: Path) -> None:
    new_key, new_iv = "fedcba9876543210", "h8G7f6E5d4C3b2A1"
    async with bench(tmp_path, [NO, NO, OK]) as at:
        await at.send(1)
        await at.daemon.reload(configuration(tmp_path, key=new_key, iv=new_iv))
        await at.after(MINUTE)
        await at.daemon.reload(at.path)
        await at.after(30 * MINUTE)
        first, second, third = (json.loads(call.request.content)["data"] for call in at.acme.calls)
        assert opened(first) == opened(second, new_key, new_iv) == opened(third, new_key, new_iv)
        assert [one["key_version"] for one in at.attempts()] == [1, 2, 2]


async def test_an_attempt_that_began_before_a_reload_records_the_key_it_used(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        await at.send(1)
        await at.daemon.reload(configuration(tmp_path, key="fedcba9876543210"))
        gate.open()
        await at.calm()
        assert [one["key_version"] for one in at.attempts()] == [1]


async def test_the_daemon_left_to_itself_delivers_rescues_and_stops_clean(tmp_path: Path) -> None:
    at = await cut_off_in_flight(tmp_path, 0)
    await at.cut_off()
    bury(at.config.database)
    then = bench(tmp_path, [OK], clock=at.clock)
    then.daemon = then.build()
    run = asyncio.create_task(then.daemon.run())
    await until(lambda: len(then.told("attempt")) == 2)
    then.dispatch.stop()
    await asyncio.wait_for(run, 60)
    assert [line["reason"] for line in then.told("attempt")] == ["interrupted", None]
    assert [line["event"] for line in then.lines][-1] == "stopped"
    async with then:
        assert then.row()[5:7] == ("delivered", 2)
