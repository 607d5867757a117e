"""Events from many hands at once, written by one: whatever has come in since the last commit shares the next."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import DispatcherError
from dispatcher.ground.events import Event
from dispatcher.ground.figures import Figures
from dispatcher.store.acceptance import Fate, Receipt, accept, accept_told
from dispatcher.store.engine import Database

# Events in one transaction.
GROUP = 1_000
# More than so many that wait, or one that has waited so long, and no more are taken in.
MOST_WAITING = 10_000
LONGEST_WAIT_SECONDS = 2.0
# Where several hands are at it: what comes within this is in the same transaction. Without it half as many are, and
# each event costs a sixth more.
GATHER_SECONDS = 0.002

T = TypeVar("T")


class Busy(Exception):
    """More comes in than can be written; nothing was taken."""


class _Lot(NamedTuple):
    """Events that came together, and who waits for them."""

    events: Sequence[Event]
    told: "asyncio.Future[list[Any]]"
    since: float


class Committer:
    """Takes events in on the event loop, writes them on a thread of its own while `working` is entered."""

    def __init__(
        self, database: Database, clock: Clock, figures: Figures, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._figures = figures
        self._clock = clock
        self._ticks = ticks
        # Single events want a receipt, which costs a look-up each; those of a batch are counted only.
        self._singles: _Queue[Receipt] = _Queue(accept_told)
        self._batches: _Queue[Fate] = _Queue(accept)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._wake = asyncio.Event()
        self._ending = False

    async def one(self, event: Event) -> Receipt:
        """Once it is on disk. Raises Busy, and what kept it from getting there."""
        return (await self._put(self._singles, [event]))[0]

    async def many(self, events: Sequence[Event]) -> list[Fate]:
        """As `one`: the fate of each, in order; at most GROUP of them, in one transaction."""
        return await self._put(self._batches, events)

    @property
    def waited(self) -> float:
        """Seconds since the oldest of those that are not written yet came."""
        now = self._ticks()
        return max(self._singles.waited(now), self._batches.waited(now))

    async def _put(self, queue: "_Queue[T]", events: Sequence[Event]) -> list[T]:
        now = self._ticks()
        if queue.size + len(events) > MOST_WAITING or queue.waited(now) > LONGEST_WAIT_SECONDS:
            raise Busy
        told: asyncio.Future[list[T]] = asyncio.get_running_loop().create_future()
        queue.put(_Lot(events, told, now))
        self._wake.set()
        return await told

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """What waits when this is left is written before."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            self._ending = True
            self._wake.set()
            await task
            self._thread.shutdown()

    async def _work(self) -> None:
        while not self._ending:
            await self._wake.wait()
            self._wake.clear()
            while self._singles.size or self._batches.size:
                if self._singles.size > 1 or self._singles.last > 1:
                    await asyncio.sleep(GATHER_SECONDS)
                # By turns: neither holds up the other for longer than one transaction takes.
                await self._commit(self._singles)
                await self._commit(self._batches)

    async def _commit(self, queue: "_Queue[T]") -> None:
        lots = queue.take()
        if not lots:
            return
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._write, queue, lots)
        except Exception as error:
            # A bug of ours. Whoever waits is told; whoever comes next is served.
            answers = [error] * len(lots)
        queue.done(lots)
        for lot, answer in zip(lots, answers, strict=True):
            if not lot.told.done():
                _tell(lot.told, answer)

    def _write(self, queue: "_Queue[T]", lots: Sequence[_Lot]) -> "list[list[T] | Exception]":
        """What each lot is to be told. One that the store can't hold takes no other down with it."""
        started, events = time.perf_counter_ns(), [event for lot in lots for event in lot.events]
        try:
            found = queue.write(self._database, events, self._clock.now())
        except DispatcherError as error:
            return [error] * len(lots)
        except Exception as error:
            return [error] if len(lots) == 1 else [self._write(queue, [lot])[0] for lot in lots]
        self._figures.commits.add((time.perf_counter_ns() - started) // 1_000)
        # A lost ring loses nothing; rung after the commit, since nobody is to look for what is not there.
        self._database.ring({event.operator for event in events})
        rest = iter(found)
        return [[next(rest) for _ in lot.events] for lot in lots]


def _tell(told: "asyncio.Future[list[T]]", answer: "list[T] | Exception") -> None:
    if isinstance(answer, Exception):
        told.set_exception(answer)
    else:
        told.set_result(answer)


class _Queue(Generic[T]):
    """What waits for the same kind of writing; `size` counts events, those that are being written as well."""

    def __init__(self, write: Callable[[Database, Sequence[Event], int], list[T]]) -> None:
        self.write = write
        self.size = 0
        # How many were written together the last time.
        self.last = 0
        self._lots: deque[_Lot] = deque()
        self._oldest: float | None = None

    def put(self, lot: _Lot) -> None:
        self._lots.append(lot)
        self.size += len(lot.events)

    def waited(self, now: float) -> float:
        """Seconds since the oldest came, also while it is being written."""
        since = self._oldest if self._oldest is not None else self._lots[0].since if self._lots else now
        return now - since

    def take(self) -> list[_Lot]:
        """Those that came first, up to a group; they stay in the reckoning until they are `done`."""
        lots: list[_Lot] = []
        events = 0
        while self._lots and (not lots or events + len(self._lots[0].events) <= GROUP):
            lots.append(self._lots.popleft())
            events += len(lots[-1].events)
        self._oldest = lots[0].since if lots else None
        self.last = events
        return lots

    def done(self, lots: Sequence[_Lot]) -> None:
        self.size -= sum(len(lot.events) for lot in lots)
        self._oldest = None
