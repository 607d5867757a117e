"""Time as the dispatcher stores it: whole microseconds since 1970 UTC, and durations in microseconds."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Protocol

from dispatcher.ground.errors import Unfit

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LONGEST = 366 * DAY

GMT8 = timezone(timedelta(hours=8))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999 = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_UNITS = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)


class Clock(Protocol):
    """The wall clock as an argument, so that tests move it instead of sleeping."""

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        ...


class WallClock:
    """The machine's clock. It may jump; nothing that measures a length of time asks it."""

    def now(self) -> int:
        return time.time_ns() // 1_000


class CarriedClock:
    """Another machine's clock as far as readings tell, carried on between them by one that can't jump.

    Never ahead of it: a reading is taken for the moment at which it arrived. What this clock says stands until a
    reading disproves it, so that it does not go to and fro with the readings' time on the way.
    """

    def __init__(self) -> None:
        self._offset: int | None = None

    @property
    def is_set(self) -> bool:
        return self._offset is not None

    @staticmethod
    def ticks() -> int:
        """Microseconds of the clock that can't jump."""
        return time.monotonic_ns() // 1_000

    def heard(self, reading: int, asked: int) -> None:
        """The other clock showed `reading` at some moment since `asked` (ticks)."""
        least, most = reading - self.ticks(), reading - asked
        if self._offset is None or not least <= self._offset <= most:
            self._offset = least

    def now(self) -> int:
        if self._offset is None:
            raise ValueError("this clock was never set")
        return self.ticks() + self._offset


def parse_duration(text: str, longest: int = LONGEST) -> int:
    """`"500ms"`, `"1m"`, `"3h"` (interface.md, Configuration) → microseconds. Raises Unfit."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Unfit(f"{_short(text)} is not a duration", 'write a whole number with a unit, like "500ms", "1m" or "3h"')
    length = int(match[1]) * _UNITS[match[2]]
    if length > longest:
        raise Unfit(f"{_short(text)} is longer than {_in_years(longest)}", "write a shorter duration")
    return length


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _in_years(length: int) -> str:
    years = length // LONGEST
    return "a year" if years == 1 else f"{years} years"


def duration_text(microseconds: int) -> str:
    """The shortest text that `parse_duration` reads back; below a millisecond it is rounded."""
    for unit in ("d", "h", "m", "s"):
        if microseconds and microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    return f"{round(microseconds / MILLISECOND)}ms"


def to_datetime(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def iso(at: int | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, as every `--json` document writes times."""
    return None if at is None else to_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def gmt8(moment: datetime) -> str:
    """The 28 characters of wire-contract.md, `settle`: GMT+8 on any machine, milliseconds cut off, not rounded."""
    there = moment.astimezone(GMT8)
    return there.strftime("%Y-%m-%dT%H:%M:%S.") + f"{there.microsecond // 1_000:03}+0800"


def parse_moment(text: str, now: int) -> int:
    """`2026-01-31`, `2026-01-31T08:00:00Z` (no zone: UTC), or a duration back from now like `2h`. Raises Unfit."""
    if _DURATION.fullmatch(text):
        return now - parse_duration(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Unfit(
            f"{_short(text)} is not a time",
            'write "2026-01-31", "2026-01-31T08:00:00Z", or how long ago, like "2h"',
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    at = (moment - _EPOCH) // timedelta(microseconds=1)
    if not 0 <= at < _YEAR_9999:
        raise Unfit(f"{_short(text)} is before 1970 or after 9998", "write a time in between")
    return at
