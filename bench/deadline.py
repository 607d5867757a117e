"""A measurement ends in time, or with an error that says which one did not."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Failed(Exception):
    """A measurement that brought no figure; the message says why."""


class Missing(Failed):
    """What a measurement needs is not on this machine."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises Failed in the main thread when the block takes longer. Blocks don't nest."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise Failed(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
