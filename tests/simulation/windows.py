"""How many attempts a schedule has room for, by the database's account and the world's time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dispatcher.policy import PUT_OFF, Delays, Schedule
from tests.simulation.loop import Process, World
from tests.simulation.rows import Closed, Made, Seen


class Ended(NamedTuple):
    """The end of an attempt: by whom, when (µs of the world), and when by that one's clock."""

    process: Process
    at: int
    wall: int


@dataclass(slots=True)
class Run:
    """One run of a delivery. `claimed`: for its latest attempt (µs of the world); `lost`: by how much the clock was set

    back before it began. `steps`: how often a whole `every` of the window has passed between two attempts, at least.
    `extra`: by how much the window may be longer (µs). `unasked`: the ends for which that is to be asked at the next
    claim: of the attempt from which the window is measured, and, in `put_off`, of those that were put off.
    """

    run_from: int
    attempts: int
    probes: int
    claimed: int
    lost: int
    steps: int = 0
    extra: int = 0
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
            run.steps += 1
        elif not stood_open:
            run.extra += PUT_OFF * len(run.put_off)
            run.unasked += run.put_off
        run.extra += sum(self._unheard(row.operator, one) for one in run.unasked)
        run.attempts, run.probes, run.claimed = row.attempts, row.probes, self._world.now
        run.unasked, run.put_off = [], []
        lost = self.clocks * (self._world.lost - run.lost)
        if run.steps * schedule.every <= schedule.window + run.extra + lost:
            return None
        return f"{run.steps} times {schedule.every} in a window of {schedule.window}, longer by {run.extra} and {lost}"

    def _unheard(self, name: str, ended: Ended) -> int:
        """For how much of the time before that end it was closed, and its worker could not know (µs)."""
        read = max((read for read, in_force in ended.process.loads if in_force <= ended.at), default=0)
        known, *fresh = self.since(name, read)
        # Others write what their breakers did when they can: as of before.
        later = [one for one in fresh if one.at > ended.at and one.since is not None and one.since < ended.wall]
        by_then = [one for one in fresh if one.at <= ended.at][-1:]
        return max(one.length(ended.wall) for one in (known, *by_then, *later)) - known.length(ended.wall)
