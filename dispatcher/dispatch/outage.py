"""Whether the store is away, as those find who ask it: told when it begins, now and then, and when it is over."""

import time
from collections.abc import Callable

from dispatcher.telemetry import Log

# While an outage lasts it is told again: soon, since what breaks a connection is seldom what keeps the next from being
# made; then now and then, for whoever begins to read the log only then.
SOON_SECONDS = 5.0
AGAIN_SECONDS = 60.0
_MEND = "mend what the error says; what is held is kept and settled then, so leave this process running"


class Outage:
    """It lasts from the first who fails until nobody does: one who reads what is there clears no one who can't write.

    `held` says how many deliveries wait in memory for the end of it.
    """

    def __init__(self, log: Log, held: Callable[[], int]) -> None:
        self._log = log
        self._held = held
        self._faults: dict[object, str] = {}
        self._since = 0.0
        self._tell_at = 0.0
        # When the store was last asked in vain (s, monotonic).
        self.tried_at = 0.0

    @property
    def fault(self) -> str | None:
        """What the store said last; None while it works."""
        return next(reversed(self._faults.values()), None)

    def failed(self, who: object, fault: str) -> None:
        now, begins = time.monotonic(), not self._faults
        self.tried_at = now
        self.forget(who)
        self._faults[who] = fault
        if begins:
            self._since = now
        if begins or now >= self._tell_at:
            self._tell_at = now + (SOON_SECONDS if begins else AGAIN_SECONDS)
            lasted = round(now - self._since, 1)
            self._log.error("store_unavailable", error=fault, held=self._held(), away_seconds=lasted, mend=_MEND)

    def passed(self, who: object) -> None:
        if self.forget(who) and not self._faults:
            lasted = round(time.monotonic() - self._since, 1)
            self._log.warning("store_back", held=self._held(), away_seconds=lasted)

    def forget(self, who: object) -> bool:
        """Who has failed asks no more; whether there was such a one."""
        return self._faults.pop(who, None) is not None
