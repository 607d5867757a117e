"""Who may send how much, so that no operator's slowness is another's. Pure.

Free places go to whoever has the fewest under way. That alone is not enough: an operator that takes seconds, or never
answers, holds each place that it gets, and a few of them would come to hold all. So those that are slow, or have not
answered yet, have three quarters of the places together; the last quarter is kept for those that answer. Nobody
starves: whoever is slow is given more as its own places come free, and whoever is new may always try one.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from dispatcher.ground.clock import MILLISECOND

SLOW = 500 * MILLISECOND


class Wish(NamedTuple):
    """How much one operator has under way, and how much more it may have by its own settings.

    `slow`: its latest answer took long, or none has come for long, or none at all: then it is `new`.
    """

    in_flight: int
    places: int
    slow: bool
    new: bool


def slow_share(concurrency: int) -> int:
    """How many may be under way to all slow operators together."""
    return max(1, concurrency * 3 // 4)


def shares(wishes: Sequence[Wish], free: int, slow_free: int) -> list[int]:
    """How many of the `free` places each one is given; those that are slow get `slow_free` of them at most."""
    given = [0] * len(wishes)
    queue = [(wish.in_flight, position) for position, wish in enumerate(wishes) if wish.places > 0]
    heapq.heapify(queue)
    while queue and free > 0:
        busy, position = queue[0]
        wish = wishes[position]
        if wish.slow and slow_free <= 0 and not (wish.new and busy == 0):
            heapq.heappop(queue)
            continue
        given[position] += 1
        free -= 1
        slow_free -= wish.slow
        if given[position] < wish.places:
            heapq.heapreplace(queue, (busy + 1, position))
        else:
            heapq.heappop(queue)
    return given
