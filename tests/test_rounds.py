"""The alarm and the rounds, on the real scheduler: rung when something is due, unharmed by a clock that jumps."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import dispatcher.rounds
from dispatcher.ground.clock import HOUR, MILLISECOND, SECOND, WallClock, to_datetime
from dispatcher.rounds import ALARM, LOOK_SECONDS, Round, Rounds
from tests.ground import NOW
from tests.workshop import Bench, accept, configuration, kept_log, until

pytestmark = pytest.mark.anyio


class ShiftedClock:
    """The machine's clock, set wrong by `shift` µs."""

    def __init__(self) -> None:
        self.shift = 0

    def now(self) -> int:
        return WallClock().now() + self.shift


class Rung:
    """Counts how often it was called, and when."""

    def __init__(self) -> None:
        self.at: list[int] = []

    def __call__(self) -> None:
        self.at.append(WallClock().now())

    async def times(self, number: int) -> None:
        """Until it has been called so often; fails after ten seconds."""
        await until(lambda: len(self.at) >= number)


class Tower:
    """Rounds with counters for ears."""

    def __init__(self) -> None:
        self.clock = ShiftedClock()
        self.log, self.lines = kept_log()
        self.rounds = Rounds(self.clock, self.log)
        self.look = Rung()
        self.rescue = Rung()

    def start(self) -> None:
        self.rounds.start(self.look, self.rescue, self.look)

    def set_for(self) -> Any:
        """When the alarm will ring; None while it is not set."""
        job = self.rounds.scheduler.get_job(ALARM)
        return job and job.next_run_time


@pytest.fixture
async def tower() -> AsyncIterator[Tower]:
    made = Tower()
    made.start()
    yield made
    made.rounds.stop()


def ahead(by: int) -> int:
    return WallClock().now() + by


def near(moment: datetime, at: int) -> bool:
    return abs(moment - to_datetime(at)) < timedelta(seconds=1)


async def test_an_alarm_by_another_machine_s_clock_rings_when_that_says_so(tower: Tower) -> None:
    tower.clock.shift = -HOUR
    tower.rounds.arm(ahead(50 * MILLISECOND) - HOUR)
    await tower.look.times(1)
    tower.clock.shift = HOUR
    tower.rounds.arm(ahead(2 * HOUR) + HOUR)
    assert near(tower.set_for(), ahead(2 * HOUR))


async def test_the_alarm_rings_when_it_is_due(tower: Tower) -> None:
    due_at = ahead(50 * MILLISECOND)
    tower.rounds.arm(due_at)
    await tower.look.times(1)
    assert due_at <= tower.look.at[0] < due_at + 5 * SECOND
    assert tower.set_for() is None
    assert tower.rescue.at == []


async def test_alarm_and_rounds_are_called_on_the_event_loop_where_tasks_can_be_begun(tower: Tower) -> None:
    called: list[asyncio.AbstractEventLoop] = []

    def note() -> None:
        called.append(asyncio.get_running_loop())

    rounds = Rounds(tower.clock, tower.log)
    rounds.every(0.02, "sweep", note)
    rounds.start(note, note, note)
    rounds.arm(ahead(20 * MILLISECOND))
    await until(lambda: len(called) >= 4)
    rounds.stop()
    assert set(called) == {asyncio.get_running_loop()}


async def test_the_alarm_is_set_for_the_earliest_time(tower: Tower) -> None:
    late, early, later = ahead(2 * HOUR), ahead(HOUR), ahead(3 * HOUR)
    tower.rounds.arm(late)
    assert near(tower.set_for(), late)
    tower.rounds.arm(later)
    assert near(tower.set_for(), late)
    tower.rounds.arm(early)
    assert near(tower.set_for(), early)
    tower.rounds.arm(early)
    assert [job.id for job in tower.rounds.scheduler.get_jobs()].count(ALARM) == 1


async def test_after_it_has_rung_the_alarm_can_be_set_again(tower: Tower) -> None:
    for number in (1, 2, 3):
        tower.rounds.arm(ahead(20 * MILLISECOND))
        await tower.look.times(number)
    tower.rounds.arm(ahead(HOUR))
    assert tower.set_for() is not None


async def test_alarms_that_follow_one_another_at_once_all_ring(tower: Tower) -> None:
    rung = []

    def look() -> None:
        rung.append(tower.rounds)
        if len(rung) < 100:
            tower.rounds.arm(ahead(len(rung) % 3 * MILLISECOND))

    tower.rounds._due = look
    tower.rounds.arm(ahead(0))
    await until(lambda: len(rung) == 100)


async def test_rings_and_rounds_come_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere they could neither wake the corridor nor begin a task."""
    monkeypatch.setattr(dispatcher.rounds, "LOOK_SECONDS", 0.02)
    tower, loops = Tower(), []

    def note() -> None:
        loops.append(asyncio.get_running_loop())

    tower.rounds.every(0.02, "sweep", note)
    tower.rounds.start(note, note, note)
    tower.rounds.arm(ahead(HOUR))
    await until(lambda: len(loops) >= 6)
    tower.rounds.arm(ahead(0))
    await until(lambda: tower.set_for() is None)
    tower.rounds.stop()
    assert set(loops) == {asyncio.get_running_loop()}


async def test_an_alarm_that_was_armed_before_the_start_rings_after_it() -> None:
    tower = Tower()
    tower.rounds.arm(ahead(HOUR))
    tower.rounds.arm(ahead(20 * MILLISECOND))
    tower.start()
    await tower.look.times(1)
    tower.rounds.stop()


@pytest.mark.parametrize("ago", [0, 1, SECOND, 24 * HOUR])
async def test_an_alarm_for_a_time_that_is_over_rings_at_once(tower: Tower, ago: int) -> None:
    tower.rounds.arm(ahead(-ago))
    await tower.look.times(1)


async def test_an_alarm_that_the_loop_kept_from_ringing_is_made_up_for_once(tower: Tower) -> None:
    tower.rounds.arm(ahead(10 * MILLISECOND))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - the loop stands still, as on a machine that is too busy
    await tower.look.times(1)
    await asyncio.sleep(0.02)
    assert len(tower.look.at) == 1


async def test_no_round_is_ever_too_late_and_none_is_made_up_for_twice(tower: Tower) -> None:
    tower.rounds.arm(ahead(HOUR))
    jobs = {job.id: job for job in tower.rounds.scheduler.get_jobs()}
    assert set(jobs) == {"look", "rescue", ALARM}
    for job in jobs.values():
        assert (job.coalesce, job.misfire_grace_time) == (True, None)
    for name in ("look", "rescue"):
        assert jobs[name].trigger.interval.total_seconds() == LOOK_SECONDS


async def test_both_rounds_come_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.rounds, "LOOK_SECONDS", 0.02)
    tower = Tower()
    tower.start()
    await tower.look.times(3)
    await tower.rescue.times(3)
    tower.rounds.stop()


async def watched(tower: Tower, monkeypatch: pytest.MonkeyPatch, jump: Callable[[], None]) -> None:
    """`watch` runs, has taken its first measure, and then the clock jumps."""
    monkeypatch.setattr(dispatcher.rounds, "WATCH_SECONDS", 0.01)
    watch = asyncio.create_task(tower.rounds.watch())
    await asyncio.sleep(0.03)
    assert not watch.done()
    jump()
    try:
        await until(lambda: bool(tower.lines))
    finally:
        watch.cancel()


@pytest.mark.parametrize("jump", [2 * HOUR, -2 * HOUR, 2 * SECOND, -2 * SECOND])
async def test_after_a_jump_of_the_clock_every_round_is_made_anew_and_it_is_told(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    tower.rounds.arm(ahead(HOUR))

    def set_wrong() -> None:
        tower.clock.shift = jump

    await watched(tower, monkeypatch, set_wrong)
    await tower.look.times(2)
    await tower.rescue.times(1)
    (line,) = tower.lines
    assert (line["event"], line["level"]) == ("clock_jumped", "warning")
    assert abs(line["by_seconds"] - jump / SECOND) < 1
    assert tower.set_for() is None
    tower.rounds.arm(ahead(HOUR))
    assert tower.set_for() is not None


@pytest.mark.parametrize("by", [timedelta(seconds=11), timedelta(days=36_525)], ids=str)
def test_rounds_that_a_jump_of_the_clock_has_missed_are_not_counted_one_by_one(by: timedelta) -> None:
    due = to_datetime(NOW)
    following = Round(seconds=LOOK_SECONDS).get_next_fire_time(due, due + by)
    assert following is not None
    assert timedelta() < following - (due + by) <= timedelta(seconds=LOOK_SECONDS)
    assert (following - due) % timedelta(seconds=LOOK_SECONDS) == timedelta()


async def test_a_clock_that_is_drawn_slowly_is_no_jump(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.rounds, "WATCH_SECONDS", 0.001)
    watch = asyncio.create_task(tower.rounds.watch())
    await asyncio.sleep(0)
    for _ in range(20):
        tower.clock.shift += SECOND // 5
        await asyncio.sleep(0.005)
    watch.cancel()
    assert tower.lines == []
    assert tower.look.at == []


async def test_in_the_daemon_the_real_alarm_sends_the_retries(tmp_path: Path) -> None:
    """By the machine's own clock: four attempts, 40 ms apart."""
    at = Bench(configuration(tmp_path, retry='{ delays = ["40ms", "40ms", "40ms"] }'))
    at.clock = WallClock()  # type: ignore[assignment]  # the one test that lets real time pass
    at.acme.mock(side_effect=[httpx.Response(500)] * 3 + [httpx.Response(200)])
    at.daemon = at.build()
    accept(at.database, 1, now=NOW)
    run = asyncio.create_task(at.daemon.run())
    await until(lambda: len(at.told("attempt")) == 4)
    at.dispatch.stop()
    await asyncio.wait_for(run, 60)
    lines = at.told("attempt")
    assert [(line["n"], line["status"]) for line in lines] == [
        *((n, "pending") for n in (1, 2, 3)),
        (4, "delivered"),
    ]
    assert max(line["late_by_ms"] for line in lines[1:]) < LOOK_SECONDS * 1_000, "rung, not found by a round"
