"""The threads on which the store is asked: one after the other, and again until it answers."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from dispatcher.dispatch.outage import Outage
from dispatcher.ground.errors import Contended, StoreUnavailable
from dispatcher.ground.place import Place

P = ParamSpec("P")
T = TypeVar("T")

# Between two tries (s), the last one from then on.
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

# For the corridor to have nothing to do: half of the time between two steps of a bulk replay.
PATIENCE_SECONDS = 0.05


class StoreThread:
    """What is asked here waits for what was asked before, and keeps nobody on another thread waiting."""

    def __init__(self, name: str, outage: Outage) -> None:
        self._outage = outage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def once(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises what the work raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """While the store is away, wait and try again: nothing held here is given up."""
        who, tried = object(), 0
        try:
            while True:
                try:
                    given = await self.once(work, *args, **kwargs)
                except StoreUnavailable as error:
                    if tried or not isinstance(error, Contended):
                        self._outage.failed(who, str(error))
                    await asyncio.sleep(BACKOFF_SECONDS[min(tried, len(BACKOFF_SECONDS) - 1)])
                    tried += 1
                else:
                    self._outage.passed(who)
                    return given
        finally:
            self._outage.forget(who)

    def close(self) -> None:
        """When what was asked is done."""
        self._thread.shutdown()


class SpareTime:
    """What is asked here is done on the corridor's own thread while that has nothing to do, or soon all the same."""

    def __init__(self, store: StoreThread, rests: asyncio.Event) -> None:
        self._store = store
        self._rests = rests

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Never between a look at the store and the claims that follow it, if that can be helped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._rests.wait()
        return await self._store(work, *args, **kwargs)

    def close(self) -> None:
        """Its thread is another's to end."""


def store_threads(place: Place, outage: Outage) -> tuple[StoreThread, StoreThread | SpareTime, asyncio.Event]:
    """The corridor's, and that of what no delivery waits for: another one where several can write at once.

    On a file, which has one writer at a time, it is what the corridor leaves of its own: the event is to be set while
    nothing is under way and nothing to be done.
    """
    store, rests = StoreThread("store", outage), asyncio.Event()
    return store, SpareTime(store, rests) if isinstance(place, Path) else StoreThread("beside", outage), rests
