"""Drives bulk replays: step by step, on a file between two turns of the corridor, on a server beside them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dispatcher.ground.clock import SECOND, Clock
from dispatcher.ground.errors import Refused
from dispatcher.store.engine import Database
from dispatcher.store.replay_steps import Step, step
from dispatcher.telemetry import Log

# How soon a job that was made or resumed is found.
LOOK_SECONDS = 1.0
# Of the time at most, whatever the pace: the rest of the store's, or of a server's, is the live deliveries'.
SHARE = 0.25


class Pacer:
    """Drives whatever job runs in the database; beside other workers' pacers each job keeps its one pace.

    `store` asks something of the store, and waits where that is away.
    """

    def __init__(self, store: Callable[..., Awaitable[Any]], database: Database, clock: Clock, log: Log) -> None:
        self._store = store
        self._database = database
        self._clock = clock
        self._log = log
        self._task: asyncio.Task[None] | None = None
        # Why no step can be noted, so that it is told once.
        self._refused: str | None = None

    def round(self) -> None:
        """See whether a job runs, unless one is being driven."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drive())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _drive(self) -> None:
        try:
            while (stepped := await self._store(self._step)) is not None:
                self._refused = None
                if stepped.done:
                    self._log.info("replay_done", replay=stepped.id)
                await asyncio.sleep(max(stepped.wait / SECOND, stepped.took * (1 / SHARE - 1)))
        except Refused as error:
            if self._refused != str(error):
                self._refused = str(error)
                self._log.error(
                    "replay_refused",
                    fault=self._refused,
                    mend="mend that: the replays wait for it, and go on by themselves",
                )
        except Exception:
            # A bug of ours must not end the deliveries; the next round tries again.
            self._log.exception("replay_broke", mend="a bug of ours: report this line; the next round tries again")

    def _step(self) -> Step | None:
        # The time is that of the step, however long the store was away before.
        return step(self._database, self._clock.now())
