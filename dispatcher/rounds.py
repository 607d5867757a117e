"""APScheduler as the alarm clock, and the recurring rounds. The schedule itself is `due_at` in the rows, only there.

APScheduler reckons by the machine's clock, which may jump, as may the one that times the deliveries; `watch` measures
both with one that can't, and after a jump has every round reckoned anew.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from dispatcher.clock import SECOND, Clock, WallClock
from dispatcher.telemetry import Log

LOOK_SECONDS = 5
WATCH_SECONDS = 1.0
JUMP_SECONDS = 1.0

ALARM = "alarm"


class Rounds:
    """The alarm for the earliest `due_at` to come, and the rounds that find what nobody rang for."""

    def __init__(self, clock: Clock, log: Log) -> None:
        self.scheduler = AsyncIOScheduler(
            timezone=UTC,
            # It calls a round right where the alarm rings, on the event loop. The scheduler's own choice is a thread,
            # from which no task can be begun and no waiting corridor be safely woken.
            executors={"default": DebugExecutor()},
            # A round that is late is made up for, once: `None` means that it is never too late.
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        self._clock = clock
        self._log = log
        self._look: Callable[[], None] = _nothing
        self._armed: int | None = None

    def start(self, look: Callable[[], None], rescue: Callable[[], None]) -> None:
        """From now on: `look` when something falls due and every few seconds, `rescue` every few seconds."""
        self._look = look
        for name, work in (("look", look), ("rescue", rescue)):
            self.every(LOOK_SECONDS, name, work)
        self.scheduler.start()

    def every(self, seconds: float, name: str, work: Callable[[], None]) -> None:
        """One more round of this name."""
        self.scheduler.add_job(work, IntervalTrigger(seconds=seconds, timezone=UTC), id=name)

    def stop(self) -> None:
        self.scheduler.shutdown(wait=False)

    def arm(self, due_at: int) -> None:
        """Set the alarm for `due_at` (µs), unless it is set for an earlier time."""
        if self._armed is None or due_at < self._armed:
            self._armed = due_at
            # On this machine's clock, by which the scheduler reckons: `clock` may be another one's.
            at = datetime.now(UTC) + timedelta(microseconds=due_at - self._clock.now())
            trigger = DateTrigger(at, timezone=UTC)
            self.scheduler.add_job(self._ring, trigger, id=ALARM, replace_existing=True)

    def _ring(self) -> None:
        self._armed = None
        self._look()

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


def _nothing() -> None:
    """Before `start` nobody listens."""
