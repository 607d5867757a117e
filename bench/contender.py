"""What is measured side by side: whoever can take orders in and deliver them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from bench.ground import Ground, Kind
from bench.orders import Order
from bench.processes import Workers


class Stand(Protocol):
    """A contender on an empty store, with a sink to deliver to."""

    def fill(self, given: Sequence[Order]) -> None:
        """Everything is waiting, durably, when this returns."""

    def start(self) -> Workers:
        """Its worker processes, which begin to deliver at once."""


class Setting(Protocol):
    """How a contender is set up: `slots` requests in flight at once, `paths` the operators' paths at `url`."""

    def __call__(self, ground: Ground, url: str, slots: int, paths: Sequence[str]) -> AbstractContextManager[Stand]: ...


@dataclass(frozen=True, slots=True)
class Contender:
    """`slots` in flight and `jobs` waiting suit it; `keeps_log` and `durable` say what it gives for its time."""

    name: str
    kind: Kind
    settings: str
    open: Setting
    slots: int
    jobs: int
    keeps_log: str
    durable: str
