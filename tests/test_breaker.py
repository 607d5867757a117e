"""The breaker: an operator that fails again and again is left alone and tried now and then, until it is back."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import dispatcher.dispatch
import dispatcher.dispatch.thread
from dispatcher.dispatch import Lane
from dispatcher.dispatch.lane import Turn
from dispatcher.ground.clock import DAY, HOUR, MINUTE, SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.operator import Breaker
from dispatcher.ground.policy import Verb, Verdict
from dispatcher.store import acceptance, corridor, operators
from dispatcher.store.operators import Closing, Standing
from dispatcher.wire.failures import LocalFault
from tests.ground import NOW, operator
from tests.workshop import Bench, Gate, configuration, event, rows, until

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

OK = httpx.Response(200)
NO = httpx.Response(500)
BREAKER = '{ failures = 3, probe = "30s" }'
PROBE = 30 * SECOND


def standing(at: Bench, operator: str = "acme") -> Standing:
    return next(one for one in operators.standings(at.database) if one.name == operator)


def actions(at: Bench) -> list[tuple[str, str, int]]:
    """What was done to acme beside settings, by whom, and when."""
    done = operators.done_to(at.database, "acme")
    return [(one["verb"], one["actor"], one["at"] - NOW) for one in done if one["verb"] != "set"]


def by_hand(at: Bench, verb: str) -> None:
    """What `operators pause` and `resume` write."""
    by = (verb, "tester", None)
    if verb == "pause":
        operators.stop(at.database, "acme", "paused_at", by, at.clock.now())
    else:
        operators.start(at.database, "acme", "paused_at", by, at.clock.now())
        operators.start(at.database, "acme", "held_at", by, at.clock.now())


def lane(at: Bench, operator: str = "acme") -> Lane:
    found = at.dispatch.lanes[operator]
    assert isinstance(found, Lane)
    return found


def bench(folder: Path, *answers: Any, breaker: str = BREAKER, **lines: str) -> Bench:
    """Acme gives these answers and then the last one for ever."""
    lines = {"concurrency": "1", **lines}
    made = Bench(configuration(folder, **lines, **({"breaker": breaker} if breaker else {})))
    given = iter(answers)
    made.acme.mock(side_effect=lambda _request: _given(next(given, answers[-1])))
    return made


def _given(answer: Any) -> httpx.Response:
    if isinstance(answer, Exception):
        raise answer
    found: httpx.Response = answer
    return found


class Deaf:
    """Store calls that fail as long as the store is away: those that hold and release, or all of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.away = False
        self.refused = 0
        for name in ("stop", "start"):
            patch.setattr(operators, name, self._or_away(getattr(operators, name)))
        patch.setattr(dispatcher.dispatch.thread, "BACKOFF_SECONDS", (0.001,))

    def _or_away(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            if self.away:
                self.refused += 1
                raise StoreUnavailable("the disk is full")
            return work(*given)

        return called


# When it trips.


async def test_there_is_no_breaker_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, breaker="") as at:
        await at.send(*range(100))
        assert at.sent == 100
        assert standing(at).held_at is None
        assert lane(at).operator.breaker is None


async def test_after_so_many_failures_in_a_row_the_operator_is_held(tmp_path: Path) -> None:
    async with bench(tmp_path, NO) as at:
        await at.send(1, 2)
        assert standing(at).held_at is None
        await at.send(*range(3, 11))
        assert at.sent == 3
        assert standing(at)[6:] == (None, NOW, NOW, 0)
        assert [(one["operator"], one["level"]) for one in at.told("operator_held")] == [("acme", "warning")]
        assert actions(at) == [("hold", "breaker", 0)]
        assert [at.row(key)[5:7] for key in range(1, 11)] == [("pending", 1)] * 3 + [("pending", 0)] * 7


async def test_a_success_between_failures_begins_the_count_anew(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, NO, OK, NO, NO, OK, NO, NO, NO) as at:
        await at.send(*range(8))
        assert (at.sent, standing(at).held_at) == (8, None)
        await at.send(8, 9)
        assert at.sent == 9
        assert standing(at).held_at == NOW


async def test_whatever_fails_an_attempt_counts_but_a_fault_of_our_own_does_not(tmp_path: Path) -> None:
    ours = LocalFault("no descriptors left")
    other = httpx.Response(302), httpx.ReadTimeout("late"), httpx.ConnectError("refused")
    async with bench(tmp_path, ours, other[0], ours, other[1], ours, other[2]) as at:
        for failures in range(3):
            await at.send(failures)
            assert (at.sent, standing(at).held_at, lane(at).failures) == (2 * failures + 1, None, failures)
            await at.after(5 * SECOND)
        assert (at.sent, lane(at).failures) == (6, 3)
        assert standing(at).held_at == at.clock.now()


async def test_one_operators_breaker_does_not_touch_another(tmp_path: Path) -> None:
    path = configuration(tmp_path, "acme", "bolt", "coin", breaker=BREAKER, concurrency="1")
    async with Bench(path) as at:
        at.acme.mock(return_value=NO)
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=OK)
        coin = at.router.post("https://coin.example/Demo/notice").mock(side_effect=[NO, NO, *[OK] * 18])
        for name in ("acme", "bolt", "coin"):
            acceptance.accept(at.database, [event(key, operator=name) for key in range(20)], NOW)
        await at.look()
        assert (at.sent, bolt.call_count, coin.call_count) == (3, 20, 20)
        assert [standing(at, name).held_at for name in ("acme", "bolt", "coin")] == [NOW, None, None]
        assert {one.status for one in rows(at.database, operator="bolt")} == {"delivered"}


async def test_what_is_in_flight_when_it_trips_ends_and_is_settled(tmp_path: Path) -> None:
    gate = Gate()

    async def no(request: httpx.Request) -> httpx.Response:
        await gate.answer(request)
        return NO

    async with Bench(configuration(tmp_path, breaker=BREAKER, concurrency="8"), answer=no) as at:
        await at.send(*range(30))
        gate.open()
        await at.idle()
        # No more than was under way, and what had been claimed into the first free places when the third one ended.
        assert 8 <= gate.answered["acme"] <= 8 + 2
        assert len(at.told("operator_held")) == 1
        made = [at.row(key)[5:7] for key in range(30)]
        assert made.count(("pending", 1)) == gate.answered["acme"]
        assert made.count(("pending", 0)) == 30 - gate.answered["acme"]
        assert lane(at).in_flight == 0


# While it is held.


async def test_while_it_is_held_one_delivery_at_a_time_is_tried(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, concurrency="32", retry='{ delays = ["1m", "9h"] }') as at:
        await at.send(1, 2, 3)
        await at.send(*range(4, 50))
        for probes in range(1, 6):
            await at.after(PROBE - 1)
            assert at.sent == 3 + probes - 1
            await at.after(1)
            assert at.sent == 3 + probes
            for _ in range(3):
                await at.look()
            assert at.sent == 3 + probes
        assert len(at.told("operator_held")) == 1


async def test_a_probe_that_takes_long_is_the_only_one(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, breaker=BREAKER), answer=gate.answer) as at:
        operators.stop(at.database, "acme", "held_at", ("hold", "breaker", None), NOW)
        await at.send(*range(10))
        assert gate.waiting["acme"] == 1
        await at.after(10 * PROBE)
        assert gate.waiting["acme"] == 1
        gate.open()
        await at.idle()
        assert standing(at).held_at is None
        assert gate.answered["acme"] == 10


async def test_the_alarm_is_set_for_every_probe(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, retry='{ delays = ["1h"] }') as at:
        await at.send(*range(10))
        assert NOW + PROBE in at.armed
        for _ in range(3):
            await at.after(PROBE)
            assert at.clock.now() + PROBE in at.armed


async def test_the_alarm_for_a_probe_is_set_again_when_another_has_rung_before_it(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, retry='{ delays = ["1h"] }') as at:
        await at.send(*range(10))
        at.armed.clear()
        await at.after(PROBE // 2)
        assert at.armed == [NOW + PROBE]


async def test_a_held_operator_lets_the_daemon_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, NO) as at:
        await at.send(*range(10))
        turns = 0
        work = corridor.turn

        def counted(*given: Any) -> Any:
            nonlocal turns
            turns += 1
            return work(*given)

        monkeypatch.setattr(corridor, "turn", counted)
        assert [await at.dispatch.step() for _ in range(20)] == [False] * 20
        await at.look()
        assert turns == 0


async def test_a_probe_that_a_fault_of_our_own_keeps_from_leaving_is_not_made_good_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, NO, NO, LocalFault("no descriptors left")) as at:
        await at.send(*range(50))
        await at.after(PROBE)
        assert at.sent == 4
        await at.after(PROBE)
        assert at.sent == 5
        assert standing(at).held_at == NOW


async def test_a_clock_that_is_set_back_does_not_put_the_next_probe_off(tmp_path: Path) -> None:
    async with bench(tmp_path, NO) as at:
        await at.send(*range(3))
        at.clock.move(-5 * HOUR)
        await at.send(*range(3, 9))
        assert at.sent == 4
        await at.after(PROBE)
        assert at.sent == 5


# How it ends.


async def test_the_first_success_releases_it_and_the_rest_drains_at_full_concurrency(tmp_path: Path) -> None:
    gate = Gate()
    shut = True

    async def answer(request: httpx.Request) -> httpx.Response:
        return NO if shut else await gate.answer(request)

    path = configuration(tmp_path, breaker=BREAKER, concurrency="5", retry='{ delays = ["1h"] }')
    async with Bench(path, answer=answer) as at:
        await at.send(*range(5))
        await at.send(*range(5, 40))
        shut = False
        await at.after(PROBE)
        assert gate.waiting["acme"] == 1
        gate.let_one_pass("acme")
        await at.calm()
        assert gate.waiting["acme"] == 5
        gate.open()
        await at.idle()
        assert gate.most["acme"] == 5
        assert standing(at)[6:] == (None, None, None, PROBE)
        assert [one["operator"] for one in at.told("operator_released")] == ["acme"]
        assert actions(at) == [("hold", "breaker", 0), ("release", "breaker", PROBE)]
        assert [at.row(key)[5:7] for key in range(5, 40)] == [("delivered", 1)] * 35
        assert lane(at).failures == 0


async def test_no_window_ends_while_it_is_held_and_afterwards_it_is_as_long_as_it_was(tmp_path: Path) -> None:
    lines = {"concurrency": "1", "retry": '{ every = "60s", for = "5m" }'}
    async with bench(tmp_path, NO, breaker='{ failures = 3, probe = "1d" }', **lines) as at:
        await at.send(1)
        await at.after(MINUTE)
        await at.after(MINUTE)
        assert standing(at).held_at == NOW + 2 * MINUTE
        for probes in range(1, 11):
            await at.after(DAY)
            assert at.row()[5:7] == ("pending", 3 + probes)
        await at.daemon.reload(configuration(tmp_path, **lines))
        await at.look()
        assert standing(at)[6:] == (None, None, None, 10 * DAY)
        # Two of the five minutes were over when it was held.
        for attempts, status in ((14, "pending"), (15, "pending"), (16, "pending"), (17, "dead")):
            assert at.row()[5:7] == (status, attempts)
            await at.after(MINUTE)


async def test_a_restart_while_it_is_held_leaves_it_held_and_probing(tmp_path: Path) -> None:
    async with bench(tmp_path, *[NO] * 5, OK) as at:
        await at.send(*range(10))
        at.clock.move(HOUR)
        await at.restart()
        await at.look()
        assert (at.sent, standing(at).held_at) == (4, NOW)
        await at.look()
        await at.after(PROBE - 1)
        assert at.sent == 4
        await at.after(1)
        assert (at.sent, standing(at).held_at) == (5, NOW)
        await at.after(PROBE)
        assert standing(at)[6:] == (None, None, None, HOUR + 2 * PROBE)
        assert {at.row(key).status for key in range(3, 10)} == {"delivered"}
        assert len(at.told("operator_held")) == 1


async def test_resume_releases_it_by_hand_and_the_count_begins_anew(tmp_path: Path) -> None:
    async with bench(tmp_path, *[NO] * 5, OK, retry='{ delays = ["1h"] }') as at:
        await at.send(*range(10))
        at.clock.move(7)
        by_hand(at, "resume")
        await at.look()
        assert at.sent == 10
        assert standing(at)[6:] == (None, None, None, 7)
        assert actions(at) == [("hold", "breaker", 0), ("resume", "tester", 7)]


@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_without_its_breaker_a_held_operator_is_released(tmp_path: Path, how: str) -> None:
    async with bench(tmp_path, NO, NO, NO, OK) as at:
        await at.send(*range(10))
        assert (at.sent, standing(at).held_at) == (3, NOW)
        at.clock.move(5)
        configuration(tmp_path, concurrency="1")
        if how == "reload":
            await at.daemon.reload(at.path)
            await at.daemon.reload(at.path)
        else:
            await at.restart()
        await at.look()
        assert at.sent == 10
        assert standing(at)[6:] == (None, None, None, 5)
        assert [one["operator"] for one in at.told("operator_released")] == ["acme"]
        assert lane(at).closed(at.clock.now() + HOUR) == 5


async def test_what_is_sent_first_after_a_hold_without_breaker_has_its_whole_window(tmp_path: Path) -> None:
    async def slow(_request: httpx.Request) -> httpx.Response:
        at.clock.move(7 * SECOND)
        return NO

    at = Bench(configuration(tmp_path, breaker=BREAKER, concurrency="1"), answer=slow)
    async with at:
        operators.stop(at.database, "acme", "held_at", ("hold", "breaker", None), NOW)
        await at.look()
        at.clock.move(HOUR)
        configuration(tmp_path, concurrency="1")
        at.daemon.enrolment.provision(at.config)
        await at.send(1)
        assert at.row()[5:7] == ("pending", 1)
        assert standing(at)[6:] == (None, None, None, HOUR)
        with at.database.reading() as connection:
            assert connection.exec_driver_sql("SELECT anchor_at FROM deliveries").scalar_one() == NOW + 7 * SECOND


async def test_a_daemon_that_sleeps_writes_at_once_that_an_operator_without_breaker_is_released(tmp_path: Path) -> None:
    async with bench(tmp_path, NO) as at:
        operators.stop(at.database, "acme", "held_at", ("hold", "breaker", None), NOW)
        await at.look()
        assert lane(at).held
        run = asyncio.create_task(at.dispatch.run())
        await asyncio.sleep(0)
        configuration(tmp_path, concurrency="1")
        await at.daemon.reload(at.path)
        await until(lambda: standing(at).held_at is None)
        at.dispatch.stop()
        await asyncio.wait_for(run, 60)
        assert len(at.told("operator_released")) == 1


async def test_paused_while_it_is_held_it_is_not_probed_and_resume_ends_both(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, NO, NO, OK, retry='{ delays = ["1h"] }') as at:
        await at.send(*range(10))
        at.clock.move(11)
        by_hand(at, "pause")
        for _ in range(5):
            await at.after(PROBE)
        assert at.sent == 3
        by_hand(at, "resume")
        await at.look()
        assert at.sent == 10
        assert standing(at)[6:] == (None, None, None, 11 + 5 * PROBE)


async def test_a_probe_that_succeeds_during_a_pause_ends_the_hold_but_not_the_pause(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, breaker=BREAKER), answer=gate.answer) as at:
        operators.stop(at.database, "acme", "held_at", ("hold", "breaker", None), NOW)
        await at.send(1, 2)
        assert gate.waiting["acme"] == 1
        at.clock.move(3)
        by_hand(at, "pause")
        await at.look()
        at.clock.move(4)
        gate.open()
        await at.idle()
        assert standing(at)[6:] == (NOW + 3, None, NOW, 0)
        assert (lane(at).paused, lane(at).held, lane(at).closed(at.clock.now())) == (True, False, 7)
        assert gate.answered["acme"] == 1
        at.clock.move(5)
        by_hand(at, "resume")
        await at.look()
        assert standing(at)[6:] == (None, None, None, 12)
        assert gate.answered["acme"] == 2


# What is not in the database yet.


async def trip(at: Bench, deaf: Deaf, *keys: int) -> "asyncio.Task[None]":
    """Acme trips its breaker while the store takes no hold; the corridor is busy trying to write it."""
    deaf.away = True
    acceptance.accept(at.database, [event(key) for key in keys], at.clock.now())
    working = asyncio.create_task(at.look())
    await until(lambda: bool(deaf.refused))
    return working


async def test_a_hold_that_is_written_late_holds_from_the_moment_at_which_it_tripped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(monkeypatch)
    async with bench(tmp_path, NO) as at:
        working = await trip(at, deaf, *range(10))
        at.clock.move(9 * SECOND)
        assert lane(at).closed(at.clock.now()) == 9 * SECOND
        deaf.away = False
        await working
        assert standing(at)[6:] == (None, NOW, NOW, 0)
        assert lane(at).closed(at.clock.now()) == 9 * SECOND
        assert at.sent == 3


async def test_a_breaker_that_trips_while_a_turn_is_waited_for_holds_from_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, work, away = Gate(), corridor.turn, [True]

    async def no(request: httpx.Request) -> httpx.Response:
        await gate.answer(request)
        return NO

    def refuse(*given: Any) -> Any:
        if away:
            raise StoreUnavailable("the disk is full")
        return work(*given)

    monkeypatch.setattr(dispatcher.dispatch.thread, "BACKOFF_SECONDS", (0.001,))
    async with Bench(configuration(tmp_path, breaker=BREAKER), answer=no) as at:
        await at.send(1, 2, 3)
        monkeypatch.setattr(corridor, "turn", refuse)
        gate.let_one_pass("acme")
        working = asyncio.create_task(at.calm())
        await until(lambda: bool(at.told("store_unavailable")))
        gate.open()
        await until(lambda: lane(at).held)
        at.clock.move(9 * SECOND)
        away.clear()
        await working
        assert standing(at)[6:] == (None, NOW, NOW, 0)


async def test_a_release_that_is_written_late_ends_the_hold_when_the_operator_said_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(monkeypatch)
    async with bench(tmp_path, *[NO] * 3, OK) as at:
        await at.send(*range(3))
        at.clock.move(MINUTE)
        working = await trip(at, deaf, 4)
        assert lane(at).closed(at.clock.now()) == MINUTE
        at.clock.move(9 * SECOND)
        assert (lane(at).held, lane(at).closed(at.clock.now())) == (False, MINUTE)
        deaf.away = False
        await working
        assert standing(at)[6:] == (None, None, None, MINUTE)


async def test_a_hold_that_is_not_written_yet_survives_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(monkeypatch)
    async with bench(tmp_path, NO) as at:
        working = await trip(at, deaf, *range(10))
        at.clock.move(2)
        await at.daemon.reload(configuration(tmp_path, breaker=BREAKER, concurrency="9"))
        assert (lane(at).held, lane(at).failures, lane(at).closed(at.clock.now())) == (True, 3, 2)
        assert lane(at).places(at.clock.now()) == 0
        deaf.away = False
        await working
        assert (at.sent, standing(at).held_at) == (3, NOW)


async def test_a_hold_that_is_not_written_yet_goes_with_its_breaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(monkeypatch)
    async with bench(tmp_path, NO, NO, NO, OK) as at:
        working = await trip(at, deaf, *range(10))
        at.clock.move(2)
        await at.daemon.reload(configuration(tmp_path, concurrency="1"))
        assert not lane(at).held
        deaf.away = False
        await working
        await at.look()
        assert standing(at)[6:] == (None, None, None, 2)
        assert at.sent == 10


async def test_a_pause_that_is_written_before_the_hold_it_overlaps_costs_no_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = operators.stop
    deaf = Deaf(monkeypatch)
    async with bench(tmp_path, NO) as at:
        working = await trip(at, deaf, *range(10))
        at.clock.move(5 * SECOND)
        stop(at.database, "acme", "paused_at", ("pause", "tester", None), at.clock.now())
        await at.daemon.reload(at.path)
        assert (lane(at).paused, lane(at).held, lane(at).closed(at.clock.now())) == (True, True, 5 * SECOND)
        deaf.away = False
        await working
        assert standing(at)[6:] == (NOW + 5 * SECOND, NOW, NOW, 0)
        at.clock.move(SECOND)
        by_hand(at, "resume")
        assert standing(at)[6:] == (None, None, None, 6 * SECOND)


async def test_operators_that_were_read_before_it_tripped_do_not_undo_the_hold(tmp_path: Path) -> None:
    gate = Gate()

    async def no(request: httpx.Request) -> httpx.Response:
        await gate.answer(request)
        return NO

    async with Bench(configuration(tmp_path, breaker=BREAKER, concurrency="3"), answer=no) as at:
        await at.send(*range(20))
        load = at.daemon.enrolment.load

        def loaded() -> Any:
            found = load()
            at.daemon.enrolment.load = load  # type: ignore[method-assign]  # in place of the one that reads the store
            return found

        async def read_and_trip(revision: int) -> None:
            roster = await at.dispatch.store(loaded)
            gate.open()
            async with asyncio.timeout(60):
                while not lane(at).held:  # noqa: ASYNC110 - what is waited for has no event of its own
                    await asyncio.sleep(0)
            assert revision == roster.revision
            at.daemon.enrolment.take(roster)
            at.dispatch.refresh = at.daemon._refresh
            assert lane(at).held

        at.dispatch.refresh = read_and_trip
        by_hand(at, "pause")
        by_hand(at, "resume")
        await at.look()
        await at.idle()
        assert gate.answered["acme"] == 3
        assert standing(at).held_at == NOW


async def test_a_stop_waits_until_the_hold_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = Deaf(monkeypatch)
    gate = Gate()

    async def no(request: httpx.Request) -> httpx.Response:
        await gate.answer(request)
        return NO

    async with Bench(configuration(tmp_path, breaker=BREAKER), answer=no) as at:
        await at.send(1, 2, 3)
        deaf.away = True
        at.dispatch.stop()
        run = asyncio.create_task(at.dispatch.run())
        gate.open()
        await until(lambda: deaf.refused >= 3)
        assert not run.done()
        deaf.away = False
        await asyncio.wait_for(run, 60)
        assert standing(at).held_at == NOW
        assert {one.status for one in rows(at.database)} == {"pending"}


# The lane alone.


def alone(failures: int = 3) -> Lane:
    acme = dataclasses.replace(operator(), breaker=Breaker(failures, PROBE))
    return Lane(acme, None, httpx.MockTransport(lambda _request: OK))


FAILED, YES, PUT_OFF = Verdict(Verb.RETRY, NOW), Verdict(Verb.DELIVER), Verdict(Verb.PUT_OFF, NOW)


def test_a_dead_letter_counts_as_a_failure_too() -> None:
    one = alone(2)
    assert one.note(Verdict(Verb.BURY), NOW) is None
    assert one.note(Verdict(Verb.BURY), NOW) == ("acme", Turn.HOLD, NOW)


def test_it_is_held_and_released_once() -> None:
    one = alone(1)
    told = [one.note(verdict, NOW) for verdict in (YES, FAILED, FAILED, PUT_OFF, FAILED, YES, YES, FAILED)]
    assert [change and change.turn for change in told] == [
        None,
        Turn.HOLD,
        None,
        None,
        None,
        Turn.RELEASE,
        None,
        Turn.HOLD,
    ]


def test_a_hold_and_a_release_that_are_both_unwritten_add_up_when_the_row_is_read_again() -> None:
    one = alone(1)
    row = Standing("acme", "file", "", None, 1, NOW, None, None, None, 100)
    one.stand(row)
    hold = one.note(FAILED, NOW)
    release = one.note(YES, NOW + 7)
    assert not one.stand(row)
    assert (one.held, one.closed_since, one.closed_total) == (False, None, 107)
    assert hold is not None
    assert release is not None
    one.wrote(hold)
    one.stand(row._replace(held_at=NOW, closed_since=NOW))
    assert (one.held, one.closed_since, one.closed_total) == (False, None, 107)
    one.wrote(release)
    one.stand(row._replace(closed_total=107))
    assert (one.held, one.closed(NOW + DAY)) == (False, 107)


def test_for_how_long_it_was_closed_by_a_moment_that_is_past_leaves_out_what_came_after_it() -> None:
    one, since = alone(1), NOW + 300
    row = Standing("acme", "file", "", None, 1, NOW, since, None, since, 10)
    one.stand(row, [Closing(NOW + 100, 0), Closing(since, 10)])
    past = (90, 105, 200, 300, 305)
    assert [one.closed_by(NOW + at) for at in past] == [0, 5, 10, 10, 15]
    one.stand(row._replace(paused_at=None, closed_since=None, closed_total=30), [*one.closings])
    assert [one.closed_by(NOW + at) for at in (*past, 400)] == [0, 5, 10, 10, 15, 30]
    assert [one.closed_by(NOW + at, 10) for at in (*past, 400)] == [10, 10, 10, 10, 15, 30], "the clock was set back"
    assert [one.closed_by(NOW + at, 30) for at in (*past, 400)] == [30] * 6


async def test_a_probe_that_fails_is_recorded_and_uses_nothing_up(tmp_path: Path) -> None:
    lines = {"breaker": '{ failures = 1, probe = "30s" }', "retry": '{ delays = ["1s"] }'}
    async with bench(tmp_path, *[NO] * 9, OK, **{**lines, "concurrency": "1"}) as at:
        await at.send(1)
        for probes in range(1, 9):
            await at.after(30 * SECOND)
            assert at.row()[5:7] == ("pending", 1 + probes)
        await at.after(30 * SECOND)
        assert at.row()[5:7] == ("delivered", 10)
        assert [one["n"] for one in at.attempts()] == list(range(1, 11))


async def test_after_the_hold_the_schedule_goes_on_where_it_was(tmp_path: Path) -> None:
    lines = {"breaker": '{ failures = 2, probe = "30s" }', "retry": '{ delays = ["1s", "1s"] }', "concurrency": "1"}
    async with bench(tmp_path, *[NO] * 5, OK, NO, **lines) as at:
        await at.send(1)
        await at.after(SECOND)
        assert standing(at).held_at is not None
        for _ in range(3):
            await at.after(30 * SECOND)
        assert at.row()[5:7] == ("pending", 5)
        await at.send(2)
        by_hand(at, "resume")
        at.acme.mock(return_value=NO)
        await at.after(30 * SECOND)
        assert at.row()[5:7] == ("dead", 6), "the third that counts was the last one"
