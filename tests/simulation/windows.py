"""How many attempts a schedule has room for, by the database's account and the world's time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from dispatcher.ground.policy import PUT_OFF
from dispatcher.ground.schedule import Delays, Schedule
from tests.simulation.loop import Process, World
from tests.simulation.rows import LAG, Closed, Made, Seen


class Ended(NamedTuple):
    """The end of an attempt: by whom, when (µs of the world), when by that one's clock, and how far that was behind."""

    process: Process
    at: int
    wall: int
    behind: int = 0


@dataclass(slots=True)
class Run:
    """One run of a delivery. `claimed`: for its latest attempt (µs of the world); `lost`: by how much the clock was set

    back before it began. `used`: how much of the window has passed between two attempts, at least (µs). `extra`: by
    how much it may be longer (µs). `answered`: the end of its latest attempt that had an answer. `unasked`: the ends
    for which `extra` is to be asked at the next claim: of the attempt from which the window is measured, and, in
    `put_off`, of those that were put off.
    """

    run_from: int
    attempts: int
    probes: int
    claimed: int
    lost: int
    used: int = 0
    extra: int = 0
    answered: Ended | None = None
    unasked: list[Ended] = field(default_factory=list)
    put_off: list[Ended] = field(default_factory=list)


class Windows:
    """`history`: how each operator stood in the database, in order."""

    def __init__(self, world: World, closed: Mapping[str, Closed]) -> None:
        self._world = world
        # So many workers go by clocks of which each may hear later than the others that it was set back.
        self.clocks = 1
        self.history = {name: [one] for name, one in closed.items()}
        self._runs: dict[int, Run] = {}

    def since(self, name: str, moment: int) -> list[Closed]:
        """How it has stood from that moment (µs of the world) until now."""
        states = self.history[name]
        first = max((n for n, one in enumerate(states) if one.at <= moment), default=0)
        return states[first:]

    def put_off(self, row: Seen, ended: Ended) -> None:
        run = self._run(row)
        if run is not None:
            run.put_off.append(ended)

    def answered(self, row: Seen, ended: Ended, *, begins: bool) -> None:
        """From that end on it waits for its next attempt; `begins`: its window is measured from it."""
        run = self._run(row)
        if run is not None:
            run.answered = ended
            run.unasked += [ended] * begins

    def began(self, row: Seen, ended: Ended) -> None:
        """From that end on its window is measured."""
        run = self._run(row)
        if run is not None:
            run.unasked.append(ended)

    def _run(self, row: Seen) -> Run | None:
        run = self._runs.get(row.id)
        return run if run is not None and run.run_from == row.run_from else None

    def overrun(self, row: Seen, made: Sequence[Made], schedule: Schedule) -> str | None:
        """It was claimed: what is wrong with that, by the attempts that it `made` before."""
        if isinstance(schedule, Delays):
            over = row.attempts - row.run_from - row.probes > 1 + len(schedule.delays)
            return f"{row.attempts - row.run_from} attempts, {row.probes} of them probes" if over else None
        run, closed = self._run(row), self.history[row.operator][-1]
        if run is None:
            begun = Run(row.run_from, row.attempts, row.probes, self._world.now, self._world.lost)
            self._runs[row.id] = begun
            return None
        if run.attempts == row.attempts:
            return None
        states = self.since(row.operator, run.claimed)
        stood_open = len(states) == 1 and closed.since is None
        ordinary = made[-1].reason != "interrupted" and row.probes == run.probes
        if ordinary and stood_open:
            run.used += schedule.every - self._shut(row.operator, run.answered, schedule.every)
        elif not stood_open:
            run.extra += PUT_OFF * len(run.put_off)
            run.unasked += run.put_off
        run.extra += sum(self._unheard(row.operator, one) for one in run.unasked)
        run.attempts, run.probes, run.claimed = row.attempts, row.probes, self._world.now
        run.unasked, run.put_off = [], []
        lost = self.clocks * (self._world.lost - run.lost)
        if run.used <= schedule.window + run.extra + lost:
            return None
        return f"{run.used} used of a window of {schedule.window}, longer by {run.extra} and {lost}"

    def _shut(self, name: str, ended: Ended | None, every: int) -> int:
        """How much of `every` from that end on was within a pause or a hold, by the database's account (µs).

        It is open, and was when the attempt ended; but a clock that had not heard yet of a jump ahead had it end while
        it was closed, and an `every` later it was closed still.
        """
        if ended is None or ended.behind <= 0:
            return 0
        end = ended.wall + every
        over = [
            (was.since, was.since + one.total - was.total)
            for was, one in pairwise(self.history[name])
            if was.since is not None and one.since is None
        ]
        return min(ended.behind, sum(max(0, min(end, until) - max(ended.wall, since)) for since, until in over))

    def _unheard(self, name: str, ended: Ended) -> int:
        """For how much of the time before that end it was closed, and its worker could not know (µs).

        Whoever has not asked for LAG asks before it settles. But others write what their breakers did when they can, as
        of before, and by clocks that may have been ahead.
        """
        read = max((read for read, in_force in ended.process.loads if in_force <= ended.at), default=0)
        known, *fresh = self.since(name, read)
        later = [one for one in fresh if one.at > ended.at and one.since is not None and one.since < ended.wall]
        by_then = [one for one in fresh if one.at <= ended.at]
        most = LAG + self._world.lost + max((one.late for one in by_then), default=0)
        of_then = min(most, max(one.length(ended.wall) for one in (known, *by_then[-1:])) - known.length(ended.wall))
        return max(of_then, *(one.length(ended.wall) - known.length(ended.wall) for one in later), 0)
