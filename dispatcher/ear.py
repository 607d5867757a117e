"""The worker's ear: it hears the bell as long as the worker runs; where none can be heard, the worker looks often."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress

from dispatcher.ground.errors import StoreUnavailable
from dispatcher.store.databases.bell import Bell
from dispatcher.telemetry import Log

BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
POLL_SECONDS = 0.25
# Looks without a bell, after which it is listened for once more.
POLLS = 240


class Ear:
    """Calls `look` on every ring; where those who have work are named, and nothing else was said, `feed` with them."""

    def __init__(self, bell: Bell, look: Callable[[], None], feed: Callable[[Collection[str]], None], log: Log) -> None:
        self._bell = bell
        self._look = look
        self._feed = feed
        self._log = log
        self._deaf = False
        self._listening: asyncio.Future[int | None] | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Raises Refused where something is in the bell's way."""
        begun = asyncio.Event()
        task = asyncio.create_task(self._keep(begun))
        try:
            first = asyncio.create_task(begun.wait())
            await asyncio.wait([task, first], return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            if task.done():
                task.result()
            yield
        finally:
            task.cancel()
            if self._listening is not None:
                # What a thread has begun it ends; then nothing is left open.
                await asyncio.wait([self._listening])
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
            self._bell.deafen()

    async def _keep(self, begun: asyncio.Event) -> None:
        tried = 0
        while True:
            try:
                self._listening = asyncio.ensure_future(asyncio.to_thread(self._bell.listen))
                descriptor = await asyncio.shield(self._listening)
            except StoreUnavailable:
                begun.set()
                await asyncio.sleep(BACKOFF_SECONDS[min(tried, len(BACKOFF_SECONDS) - 1)])
                tried += 1
                continue
            if begun.is_set() and descriptor is not None:
                self._log.info("listening")
            tried, self._deaf = 0, self._deaf and descriptor is None
            begun.set()
            # Whoever rang in the meantime was not heard.
            self._look()
            await (self._poll() if descriptor is None else self._hear(descriptor))

    async def _hear(self, descriptor: int) -> None:
        """Until the bell is lost."""
        lost = asyncio.Event()

        def heard() -> None:
            told = self._bell.heard()
            if told is None:
                lost.set()
            if told is None or told.more:
                self._look()
            else:
                self._feed(told.operators)

        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, heard)
        try:
            await lost.wait()
        finally:
            loop.remove_reader(descriptor)
        self._log.warning("bell_lost", mend="look at the network to the server; the worker goes on, and listens again")

    async def _poll(self) -> None:
        if not self._deaf:
            self._deaf = True
            mend = f"LISTEN does not work here; new work is found within {POLL_SECONDS * 1000:.0f} ms"
            self._log.warning("polling", mend=mend)
        for _ in range(POLLS):
            await asyncio.sleep(POLL_SECONDS)
            self._look()
