"""How many attempts a schedule has room for, by the database's account and the world's time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.policy import PUT_OFF, Delays, Schedule
from tests.simulation.loop import Process, World
from tests.simulation.rows import Closed, Made, Seen


@dataclass(slots=True)
class Run:
    """One run of a delivery. `claimed`: for its latest attempt (µs of the world); `lost`: by how much the clock was set

    back before it began. `steps`: how often a whole `every` of the window has passed between two attempts, at least.
    `extra`: by how much the window may be longer (µs). `put_off`: by whom the next attempt was put off so far.
    """

    run_from: int
    attempts: int
    probes: int
    claimed: int
    lost: int
    steps: int = 0
    extra: int = 0
    put_off: list[Process] | None = None


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

    def put_off(self, row: Seen, by: Process) -> None:
        run = self._runs.get(row.id)
        if run is not None and run.run_from == row.run_from:
            run.put_off = [*(run.put_off or ()), by]

    def overrun(self, row: Seen, made: Sequence[Made], schedule: Schedule) -> str | None:
        """It was claimed: what is wrong with that, by the attempts that it `made` before."""
        if isinstance(schedule, Delays):
            over = row.attempts - row.run_from - row.probes > 1 + len(schedule.delays)
            return f"{row.attempts - row.run_from} attempts, {row.probes} of them probes" if over else None
        run, closed = self._runs.get(row.id), self.history[row.operator][-1]
        if run is None or run.run_from != row.run_from:
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
            run.extra += sum(self._counted_twice(states, one) for one in run.put_off or ())
        run.attempts, run.probes, run.claimed, run.put_off = row.attempts, row.probes, self._world.now, None
        lost = self.clocks * (self._world.lost - run.lost)
        if run.steps * schedule.every <= schedule.window + run.extra + lost:
            return None
        return f"{run.steps} times {schedule.every} in a window of {schedule.window}, longer by {run.extra} and {lost}"

    def _counted_twice(self, states: list[Closed], by: Process) -> int:
        """Of what an operator was closed, by how much a put-off may make a window longer once more (µs).

        By what it plans. By all of it, where this worker has not heard of each time, or only of its end.
        """
        for state, after in zip(states, [*states[1:], None], strict=True):
            until = after.at if after is not None else self._world.now
            if state.since is not None and not any(state.at <= read < until for read, _ in by.loads):
                return self._growth(states) + PUT_OFF
        return PUT_OFF

    def _growth(self, states: list[Closed]) -> int:
        return states[-1].length(self._world.highest) - states[0].total
