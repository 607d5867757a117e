"""What was counted goes into the store every few seconds, minute by minute, and what is old goes out of it."""

import asyncio
from collections.abc import Sequence

from dispatcher.dispatch import Dispatch
from dispatcher.ground.clock import DAY, Clock
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.ground.figures import Summed
from dispatcher.store import minutes
from dispatcher.store.engine import Database
from dispatcher.store.minutes import Minute
from dispatcher.telemetry import Log

WRITE_SECONDS = 5.0
KEPT = 32 * DAY
# Minutes deleted at a time: as many as there are between two writings, and many more where nobody worked for long.
TRIMMED_AT_ONCE = 12


class Minutes:
    """Writes on the corridor's own store thread, between two turns."""

    def __init__(self, dispatch: Dispatch, database: Database, clock: Clock, log: Log) -> None:
        self._dispatch = dispatch
        self._database = database
        self._clock = clock
        self._log = log

    async def writing(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """If the power goes before it, some seconds of figures are lost, and nothing of the record."""
        rows = self._dispatch.figures.take()
        if not rows:
            return
        try:
            await self._dispatch.store.once(self._put, rows)
        except (StoreUnavailable, Refused):
            # While the store is away nothing more is settled, so that what waits here does not grow.
            self._dispatch.figures.give_back(rows)
        except Exception:
            # A bug of ours; the deliveries go on.
            self._log.exception(
                "minutes_broke", mend="a bug of ours: report this line; only figures by the minute are lost"
            )

    def write_rest(self) -> None:
        """Once the corridor has stopped. Raises StoreUnavailable, and Refused."""
        self._put(self._dispatch.figures.take())

    def _put(self, rows: Sequence[Summed]) -> None:
        minutes.add(self._database, (Minute(row.at, *row.key[:3], row.key[3] or None, *row[2:]) for row in rows))
        for _ in range(TRIMMED_AT_ONCE):
            if not minutes.trim(self._database, self._clock.now() - KEPT):
                return
