"""How a worker is: what keeps it from delivering, for /readyz, for the metrics, and for the console."""

import time
from collections.abc import Callable

from dispatcher.dispatch import Dispatch
from dispatcher.metrics import State, Work
from dispatcher.roster import Roster
from dispatcher.rounds import Rounds
from dispatcher.summaries import Failing
from dispatcher.supervisor import Supervisor
from dispatcher.web import Api

STUCK_SECONDS = 15.0


class Health:
    """`roster` gives the operators in force; `api` is there once it is served."""

    def __init__(self, dispatch: Dispatch, rounds: Rounds, roster: Callable[[], Roster]) -> None:
        self.stopping = False
        self.api: Api | None = None
        self._dispatch = dispatch
        self._rounds = rounds
        self._roster = roster

    def not_ready(self) -> dict[str, str]:
        """What keeps this worker from delivering, or from noting what it does; empty when nothing does."""
        faults = {}
        if self._dispatch.outage.fault is not None:
            faults["database"] = self._dispatch.outage.fault
        if self._dispatch.own_fault is not None:
            faults["network"] = self._dispatch.own_fault
        if self._dispatch.changes.refused is not None:
            faults["journal"] = self._dispatch.changes.refused
        for name in self._roster().faults:
            faults[f"operator {name}"] = "its settings can't be used; the log says why"
        if not self._rounds.scheduler.running:
            faults["scheduler"] = "not running"
        if self.stopping:
            faults["worker"] = "it is stopping, and claims nothing more"
        elif self._idle > STUCK_SECONDS:
            faults["worker"] = f"the claim loop has not gone round for {self._idle:.0f} s"
        return faults | (self.api.stuck(STUCK_SECONDS) if self.api is not None else {})

    def checks(self) -> dict[str, str]:
        """All that `not_ready` looks at, and what there is to say of it while it is well."""
        told = dict.fromkeys(("database", "network", "journal", "operators", "scheduler", "api"), "ok")
        return told | {"worker": f"the claim loop went round {self._idle:.1f} s ago"}

    @property
    def _idle(self) -> float:
        return time.monotonic() - self._dispatch.turned_at

    def state(self) -> State:
        """As /metrics tells it."""
        dispatch = self._dispatch
        in_flight = {name: lane.in_flight for name, lane in dispatch.lanes.items()}
        work = Work(in_flight, dispatch.concurrency, self._idle, dispatch.crew.size)
        return State.of(self.checks(), self.not_ready(), work)

    def failing(self) -> dict[str, Failing]:
        """The operators of which this worker has seen no success lately, or whom the breaker holds."""
        found, members = {}, self._roster().members
        for name in self._roster().operators:
            lane, held_at = self._dispatch.lanes[name], members[name].standing.held_at
            if lane.failures or held_at is not None:
                found[name] = Failing(lane.failures, lane.failing_since, held_at)
        return found

    def show_life(self, supervisor: Supervisor) -> None:
        """Only while the claim loop goes round, or waits for a store that is away and asks for it again and again."""
        supervisor.alive(max(self._dispatch.turned_at, self._dispatch.outage.tried_at))
        told = "; ".join(f"{name}: {fault}" for name, fault in self.not_ready().items())
        supervisor.status(told or f"delivering for {len(self._roster().operators)} operators")
