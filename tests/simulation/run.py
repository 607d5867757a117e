"""One seed, from an empty store to what became of it."""

import asyncio
import gc
import logging
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import NamedTuple

from tests.simulation.loop import Violation
from tests.simulation.machine import Memory, virtual
from tests.simulation.town import Town

_COLLECTED_EVERY = 50


def _is_told(record: logging.LogRecord) -> bool:
    """Of a round that ended with its process nobody is told."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


logging.getLogger("apscheduler.executors.default").addFilter(_is_told)


class End(NamedTuple):
    """What a seed came to: which invariant was broken and how, a hash of all that happened, and the last of it."""

    seed: int
    invariant: str
    told: str
    digest: str
    lines: list[str]
    # What there was of faults and of work: for whoever asks how much a world has seen.
    counts: dict[str, int]

    @property
    def violation(self) -> str | None:
        return self.told or None


@cache
def _memory(*, long: bool) -> Memory:
    return Memory(long=long)


def play_all(seeds: Iterable[int]) -> Iterator[End]:
    """One after the other. What is garbage is seen to now and then: to look for it all the time takes a fifth more."""
    collects = gc.isenabled()
    with virtual():
        gc.disable()
        # What was imported is no garbage, and looked through no more.
        gc.freeze()
        try:
            for number, seed in enumerate(seeds, 1):
                yield play(seed)
                if number % _COLLECTED_EVERY == 0:
                    gc.collect()
        finally:
            gc.unfreeze()
            if collects:
                gc.enable()


def play(seed: int, unblamed: Collection[str] = (), *, long: bool = False) -> End:
    """`unblamed`: invariants that are passed over, so that others which stand behind them are seen.

    `long`: by all of SQLAlchemy's engine.
    """
    with virtual():
        town = Town(seed, _memory(long=long))
        town.world.unblamed = unblamed
        invariant = told = ""
        try:
            town.play()
        except Violation as found:
            invariant, told = found.invariant, str(found)
        finally:
            town.close()
    return End(seed, invariant, told, town.world.digest, list(town.world.lines), town.counts)
