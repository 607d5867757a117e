"""APScheduler as the alarm clock, and the recurring rounds. The schedule itself is `due_at` in the rows, only there.

APScheduler reckons by the machine's clock, which may jump, as may the one that times the deliveries; `watch` measures
both with one that can't, and after a jump has every round reckoned anew.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from dispatcher.ground.clock import SECOND, Clock, WallClock
from dispatcher.telemetry import Log

LOOK_SECONDS = 5
WATCH_SECONDS = 1.0
JUMP_SECONDS = 1.0

ALARM = "alarm"
MANY = 1_000_000


class Round(IntervalTrigger):  # type: ignore[misc]
    """Every so often; those that were missed are one, however many a clock that jumped by years makes of them."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        # The scheduler asks for each that is past, one by one, and the event loop would stand still for so long.
        if previous_fire_time is not None:
            previous_fire_time += max(0, (now - previous_fire_time) // self.interval) * self.interval
        following: datetime | None = super().get_next_fire_time(previous_fire_time, now)
        return following


class Rounds:
    """The alarm for the earliest `due_at` to come, and the rounds that find what nobody rang for."""

    def __init__(self, clock: Clock, log: Log) -> None:
        self.scheduler = AsyncIOScheduler(
            timezone=UTC,
            # A round that is late is made up for, once: `None` means that it is never too late. One may be called anew
            # before the scheduler has noticed that the last call is over. A ring of the alarm that is refused for that
            # is lost, and with it every later one: it would stay set for a time that has passed.
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": MANY},
        )
        self._clock = clock
        self._log = log
        self._due: Callable[[], None] = _nothing
        self._armed: int | None = None

    def start(self, look: Callable[[], None], rescue: Callable[[], None], due: Callable[[], None]) -> None:
        """From now on: `due` when something falls due, `look` and `rescue` every few seconds."""
        self._due = due
        for name, work in (("look", look), ("rescue", rescue)):
            self.every(LOOK_SECONDS, name, work)
        self.scheduler.start()

    def every(self, seconds: float, name: str, work: Callable[[], None]) -> None:
        """One more round of this name; `work` is called on the event loop."""
        trigger = Round(seconds=seconds, timezone=UTC)
        self.scheduler.add_job(_on_the_loop, trigger, args=[work], id=name)

    def stop(self) -> None:
        self.scheduler.shutdown(wait=False)

    def arm(self, due_at: int) -> None:
        """Set the alarm for `due_at` (µs), unless it is set for an earlier time."""
        if self._armed is None or due_at < self._armed:
            self._armed = due_at
            # On this machine's clock, by which the scheduler reckons: `clock` may be another one's.
            at = datetime.now(UTC) + timedelta(microseconds=due_at - self._clock.now())
            trigger = DateTrigger(at, timezone=UTC)
            self.scheduler.add_job(_on_the_loop, trigger, args=[self._ring], id=ALARM, replace_existing=True)

    def _ring(self) -> None:
        self._armed = None
        self._due()

    async def watch(self) -> None:
        """Until cancelled: notice when a clock jumps, say so, and reckon every round anew."""
        offsets = self._offsets()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = self._offsets()
            by = max((later - sooner for later, sooner in zip(now, offsets, strict=True)), key=abs)
            if abs(by) > JUMP_SECONDS:
                self._log.warning("clock_jumped", by_seconds=round(by, 3))
                self.reckon_anew()
            offsets = now

    def _offsets(self) -> list[float]:
        """By how much (s) each clock is ahead of the one that can't jump."""
        return [clock.now() / SECOND - time.monotonic() for clock in (self._clock, WallClock())]

    def reckon_anew(self) -> None:
        """After a jump back the rounds would sleep until the old time comes round again: run them now."""
        for job in self.scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))


async def _on_the_loop(work: Callable[[], None]) -> None:
    """What is no coroutine the scheduler calls on a thread, where nothing of the loop's may be touched."""
    work()


def _nothing() -> None:
    """Before `start` nobody listens."""
