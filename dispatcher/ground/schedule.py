"""When a failed attempt is followed by another. Pure: times are arguments, all in µs.

Source: wire-contract.md, Attempts.
"""

from dataclasses import dataclass
from typing import Literal

from dispatcher.ground.clock import MINUTE


@dataclass(frozen=True, slots=True)
class Delays:
    """One attempt at once, then one after each delay (µs), counted from the attempt before or from the first.

    `retry_after`: the most (µs) by which an operator's Retry-After may put the next attempt off; 0: it is not heeded.
    """

    delays: tuple[int, ...] = (1 * MINUTE, 30 * MINUTE, 50 * MINUTE)
    measured_from: Literal["previous", "first"] = "previous"
    retry_after: int = 0

    def next_due(self, failures: int, anchor: int, ended: int, asked: int = 0) -> int | None:
        """When the attempt after `failures` failed ones is due; None when there is none left.

        `anchor` and `ended` are the ends of the first and of the latest attempt (µs), `asked` what the operator wants
        to be left alone for (µs): it can only lengthen the delay. Never before `ended`.
        """
        if failures > len(self.delays):
            return None
        start = ended if self.measured_from == "previous" else anchor
        return max(ended + min(asked, self.retry_after), start + self.delays[failures - 1])

    def given_up(self, failures: int, anchor: int, ended: int) -> int:
        """When it is dead (µs) if the attempt that ends at `ended` is the `failures`th that fails, and all after it do.

        Each fails as soon as it is due.
        """
        while (due := self.next_due(failures, anchor, ended)) is not None:
            failures, ended = failures + 1, due
        return ended


@dataclass(frozen=True, slots=True)
class Interval:
    """One attempt every `every` µs, as long as it starts within `window` µs of the end of the first one."""

    every: int
    window: int
    retry_after: int = 0

    def next_due(self, failures: int, anchor: int, ended: int, asked: int = 0) -> int | None:
        """As `Delays.next_due`; a window that ends between two attempts ends it, what was asked for does not."""
        due, end = ended + self.every, anchor + self.window
        return max(due, min(ended + min(asked, self.retry_after), end)) if due <= end else None

    def given_up(self, failures: int, anchor: int, ended: int) -> int:
        """As `Delays.given_up`; in one step, since a window holds hundreds of attempts."""
        return ended + max(0, anchor + self.window - ended) // self.every * self.every


Schedule = Delays | Interval
