"""The worker's heartbeat: by it the others see that this worker lives, and it sees with how many it shares the work."""

import asyncio
from collections.abc import Callable

from dispatcher.dispatch import Dispatch
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.store import workers
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log

BEAT_SECONDS = 1.0


class Pulse:
    """Calls `rescue` when workers have gone, since what they held is in nobody's hands.

    It beats on the corridor's own store thread: a worker that hangs there is taken for dead.
    """

    def __init__(self, dispatch: Dispatch, database: Database, rescue: Callable[[], None], log: Log) -> None:
        self._dispatch = dispatch
        self._database = database
        self._rescue = rescue
        self._log = log
        self._broken = False

    async def beating(self) -> None:
        """Until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def beat(self) -> None:
        try:
            beat = await self._dispatch.store.once(workers.beat, self._database, broken=self._broken)
        except (StoreUnavailable, Refused) as error:
            # An idle corridor only reads: a server that takes no writes, or a store that is copied, is found here.
            self._broken = True
            self._dispatch.outage.failed(self, str(error))
            return
        except Exception:
            # A bug of ours; without a beat the others would take this worker for dead while it works.
            self._broken = True
            self._log.exception(
                "beat_broke", mend="a bug of ours: report this line; others take this worker over if it lasts"
            )
            return
        self._broken = False
        self._dispatch.outage.passed(self)
        self._dispatch.join(beat.crew)
        if beat.gone:
            self._log.warning("workers_gone", count=beat.gone, left=beat.crew.size)
            self._rescue()
