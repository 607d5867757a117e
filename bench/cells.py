"""How many cells for one million spins a second? Reckoned minute by minute from what bench/costs.toml says.

A cell is one database with its workers and operators. `python -m bench.cells_page` writes answer and picture to docs/.
"""

import heapq
import math
import random
from collections import defaultdict
from functools import cache
from typing import NamedTuple

from bench.cell_costs import Costs, Load


class Part(NamedTuple):
    """One entry of an operator, with its events a second; most operators have one, a very large one has several."""

    operator: int
    rate: float


class Course(NamedTuple):
    """By minute: work (µs of CPU), rows waiting at the end, requests in flight; and how many ended dead."""

    work: tuple[float, ...]
    waiting: tuple[float, ...]
    in_flight: tuple[float, ...]
    dead: float


class Day(NamedTuple):
    """One draw: by cell and minute the share of what it can do; by minute what waits; by cell the most in flight."""

    work: list[list[float]]
    waiting: list[float]
    in_flight: list[float]
    dead: float

    @property
    def peak(self) -> float:
        return max(map(max, self.work))


class Answer(NamedTuple):
    """The least number of cells, and the most of everything in any draw; `first` has the largest operator down."""

    cells: int
    parts: int
    first: Day
    peak: float
    waiting: float
    in_flight: float
    worked_off: int
    dead: float


def parts(costs: Costs, load: Load) -> list[Part]:
    """The operators by their share, each in as few parts of equal size as may be; the largest part first."""
    shares = [1 / (place + 1) ** load.skew for place in range(load.operators)]
    most = load.largest * load.target * costs.minute_us / 60 / costs.event_us
    found = []
    for operator, share in enumerate(shares):
        # Exact sums: those of floats differ from one Python to another, and the page must not.
        rate = load.spins * share / math.fsum(shares)
        pieces = math.ceil(rate / most)
        found += [Part(operator, rate / pieces)] * pieces
    return sorted(found, key=lambda part: -part.rate)


def place(every: list[Part], cells: int) -> list[int]:
    """The cell of each part: the emptiest one, and none that has a part of the same operator if that can be helped."""
    room = [(0.0, cell) for cell in range(cells)]
    there: dict[int, set[int]] = defaultdict(set)
    placed = []
    for part in every:
        taken = there[part.operator] if len(there[part.operator]) < cells else set()
        passed = []
        while room[0][1] in taken:
            passed.append(heapq.heappop(room))
        filled, cell = room[0]
        heapq.heapreplace(room, (filled + part.rate, cell))
        for one in passed:
            heapq.heappush(room, one)
        there[part.operator].add(cell)
        placed.append(cell)
    return placed


@cache
def course(rate: float, hangs: bool, costs: Costs, load: Load) -> Course:
    """One part that is down for a while: what waits, by the minute it is due and by how often it was tried."""
    due: dict[int, list[float]] = defaultdict(lambda: [0.0] * (len(load.delays) + 1))
    work, waiting, in_flight, left, dead = [], [], [], 0.0, 0.0
    places = load.catch_up * rate * load.answer_s
    for minute in range(load.horizon):
        down = load.down(minute)
        takes = (load.timeout_s if hangs else load.refusal_s) if down else load.answer_s
        due[minute][0] += rate * 60
        most, probes = places * 60 / takes, 0.0
        if down and load.breaker:
            # Those under way when it trips fail as well; then one is tried now and then, which uses up nothing.
            most = min(most, load.failures + places) if minute == load.down_from else 0.0
            probes = 60 / load.probe_s
        tried = _take(due, minute, most)
        if down:
            for delay, before in zip(load.delays, range(len(tried)), strict=False):
                due[minute + delay][before + 1] += tried[before]
            dead += tried[-1]
        left += rate * 60 - (tried[-1] if down else math.fsum(tried))
        each = costs.failed_us if down else costs.delivery_us
        work.append(rate * 60 * costs.accepted_us + math.fsum(tried) * each + probes * costs.failed_us)
        waiting.append(left)
        in_flight.append(min(places, (math.fsum(tried) + probes) * takes / 60))
    return Course(tuple(work), tuple(waiting), tuple(in_flight), dead)


def _take(due: dict[int, list[float]], minute: int, most: float) -> list[float]:
    """At most so many of those that are due by now, the longest due first; by how often they were tried before."""
    tried = [0.0] * len(due[minute])
    for when in sorted(one for one in due if one <= minute):
        share = min(1.0, most / max(math.fsum(due[when]), 1e-9))
        most -= share * math.fsum(due[when])
        tried = [had + count * share for had, count in zip(tried, due[when], strict=True)]
        due[when] = [count * (1 - share) for count in due[when]]
        if share < 1.0:
            break
        del due[when]
    return tried


def down_in(draw: int, load: Load) -> list[int]:
    """The operators that are down; the largest one is among those of the first draw."""
    many = round(load.operators * load.down_share)
    drawn = random.Random(draw).sample(range(load.operators), many)
    return [0, *drawn[1:]] if draw == 0 and many and 0 not in drawn else drawn


def day(every: list[Part], placed: list[int], cells: int, costs: Costs, load: Load, draw: int) -> Day:
    hangs = {operator: bool(position % 2) for position, operator in enumerate(down_in(draw, load))}
    always, steady = [0.0] * cells, [0.0] * cells
    down: dict[int, list[Course]] = defaultdict(list)
    for part, cell in zip(every, placed, strict=True):
        if part.operator in hangs:
            down[cell].append(course(part.rate, hangs[part.operator], costs, load))
        else:
            always[cell] += part.rate * 60 * costs.event_us
            steady[cell] += part.rate * load.answer_s
    work = [[one / costs.minute_us] * load.horizon for one in always]
    for cell, courses in down.items():
        work[cell] = [
            (always[cell] + math.fsum(some)) / costs.minute_us for some in zip(*(c.work for c in courses), strict=True)
        ]
        steady[cell] += max(map(sum, zip(*(c.in_flight for c in courses), strict=True)))
    its = [one for courses in down.values() for one in courses]
    waiting = [math.fsum(some) for some in zip(*(one.waiting for one in its), strict=True)]
    return Day(work, waiting or [0.0] * load.horizon, steady, math.fsum(one.dead for one in its))


def answer(costs: Costs, load: Load) -> Answer:
    """The least number of cells of which none is ever above the target, and the backlog is gone in time."""
    every = parts(costs, load)
    cells = math.ceil(load.spins * 60 * costs.event_us / costs.minute_us / load.target)
    enough = 10 * cells
    while (days := _fitting(every, cells, costs, load)) is None:
        cells += 1
        if cells > enough:
            raise ValueError(
                "there is a part that is too large for any cell when its backlog comes back: lower largest"
            )
    gone = max(_worked_off(one, load) for one in days)
    if gone > load.worked_off:
        raise ValueError(f"the backlog takes {gone} minutes, however many cells there are: raise catch_up")
    each = ((one.peak, max(one.waiting), max(one.in_flight), one.dead) for one in days)
    peak, waiting, in_flight, dead = map(max, zip(*each, strict=True))
    return Answer(cells, len(every), days[0], peak, waiting, in_flight, gone, dead)


def _fitting(every: list[Part], cells: int, costs: Costs, load: Load) -> list[Day] | None:
    """Each draw's day; None where a cell is above the target in one of them."""
    placed, days = place(every, cells), []
    for draw in range(load.draws):
        days.append(day(every, placed, cells, costs, load, draw))
        if days[-1].peak > load.target:
            return None
    return days


def _worked_off(one: Day, load: Load) -> int:
    """Minutes from the end of the outage until nothing waits any more."""
    over = load.down_from + load.down_for
    return max((minute + 1 - over for minute in range(over, load.horizon) if one.waiting[minute] >= 1), default=0)
