"""How a worker is: what keeps it from delivering, for /readyz, for the metrics, and for the console."""

import time
from collections.abc import Callable, Collection

from dispatcher.dispatch import Dispatch
from dispatcher.metrics import State, Work
from dispatcher.rounds import Rounds
from dispatcher.web import Api

STUCK_SECONDS = 15.0


class Health:
    """`unfit` gives the operators whose settings can't be used; `api` is there once it is served."""

    def __init__(self, dispatch: Dispatch, rounds: Rounds, unfit: Callable[[], Collection[str]]) -> None:
        self.stopping = False
        self.api: Api | None = None
        self._dispatch = dispatch
        self._rounds = rounds
        self._unfit = unfit

    def not_ready(self) -> dict[str, str]:
        """What keeps this worker from delivering, or from noting what it does; empty when nothing does."""
        faults = {}
        if self._dispatch.outage.fault is not None:
            faults["database"] = self._dispatch.outage.fault
        if self._dispatch.own_fault is not None:
            faults["network"] = self._dispatch.own_fault
        if self._dispatch.unnoted is not None:
            faults["journal"] = self._dispatch.unnoted
        for name in self._unfit():
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
        faults = {"operators" if name.startswith("operator ") else name for name in self.not_ready()}
        dispatch = self._dispatch
        in_flight = {name: lane.in_flight for name, lane in dispatch.lanes.items()}
        work = Work(in_flight, dispatch.concurrency, self._idle, dispatch.crew.size)
        return State({name: name not in faults for name in self.checks()}, work)
