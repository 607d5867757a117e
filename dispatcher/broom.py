"""Deletes what was kept for long enough: a little at a time, on the store's own thread, between two turns."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dispatcher.ground.clock import DAY, MINUTE, SECOND, Clock
from dispatcher.store.engine import Database
from dispatcher.store.retention import Swept, sweep
from dispatcher.telemetry import Log

SWEEP_SECONDS = 60.0
# Deliveries looked at in one step. A turn of the corridor that comes in between waits for one step at most.
AT_ONCE = 50
# Of the store's time, while there is something to delete: where the corridor had us wait for it, and where it had not.
SHARE = 0.05
SHARE_OF_REST = 0.25


class Broom:
    """Sweeps out deliveries that ended well longer than `keep` (µs) ago; None keeps everything.

    `store` runs something on the store's thread, and waits where the store is away.
    """

    def __init__(
        self,
        store: Callable[..., Awaitable[Any]],
        database: Database,
        clock: Clock,
        log: Log,
        keep: int | None,
    ) -> None:
        self.keep = keep
        self._store = store
        self._database = database
        self._clock = clock
        self._log = log
        self._task: asyncio.Task[None] | None = None
        # Where the walk goes on: what lies behind it is young, dead, or waits, and not looked at in every round.
        self._place = 0
        self._anew_at = 0.0

    def round(self) -> None:
        """Go on with the walk, unless it is still under way."""
        if self.keep is not None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._sweep())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _sweep(self) -> None:
        deleted, more = 0, True
        self._begin_anew()
        try:
            while more and self.keep is not None:
                before, asked = self._clock.now() - self.keep, time.perf_counter()
                swept: Swept = await self._store(sweep, self._database, self._place, before, AT_ONCE)
                self._place, more = swept.place, swept.more
                deleted += swept.deleted
                waited = time.perf_counter() - asked - swept.took
                share = SHARE if waited > swept.took / 2 else SHARE_OF_REST
                await asyncio.sleep(swept.took * (1 / share - 1))
        except Exception:
            # A bug of ours must not end the deliveries; the next round tries again.
            self._log.exception("sweep_broke", mend="a bug of ours: report this line; the next round goes on from here")
        finally:
            if deleted:
                self._log.info("swept", deleted=deleted)

    def _begin_anew(self) -> None:
        """Now and then from the beginning: what was passed over may have been resolved or delivered since."""
        now = time.monotonic()
        if now >= self._anew_at and self.keep is not None:
            self._place = 0
            self._anew_at = now + min(max(self.keep // 10, MINUTE), DAY) / SECOND
