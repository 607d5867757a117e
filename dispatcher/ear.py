"""The worker's ear: it hears the bell as long as the worker runs, and takes its post again when that was lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from dispatcher.errors import Refused, StoreUnavailable
from dispatcher.store.engine import Post
from dispatcher.telemetry import Log

BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class Ear:
    """Calls `look` on every ring, and `displaced` when another worker has taken the post that was lost."""

    def __init__(self, post: Post, look: Callable[[], None], displaced: Callable[[], None], log: Log) -> None:
        self._post = post
        self._look = look
        self._displaced = displaced
        self._log = log

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Raises Refused where something is in the bell's way."""
        lost = asyncio.Event()
        descriptor = self._hear(lost)
        task = asyncio.create_task(self._keep(descriptor, lost))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._post.deafen()

    def _hear(self, lost: asyncio.Event) -> int | None:
        """The descriptor that is read from now on; None where the post is lost already."""
        try:
            descriptor = self._post.listen()
        except StoreUnavailable:
            lost.set()
            return None

        def heard() -> None:
            if not self._post.heard():
                lost.set()
            self._look()

        asyncio.get_running_loop().add_reader(descriptor, heard)
        return descriptor

    async def _keep(self, descriptor: int | None, lost: asyncio.Event) -> None:
        while True:
            try:
                await lost.wait()
            finally:
                if descriptor is not None:
                    asyncio.get_running_loop().remove_reader(descriptor)
            self._log.warning("post_lost", mend="the worker goes on, and takes its post again")
            if not await self._take_again():
                return
            lost.clear()
            descriptor = self._hear(lost)
            # Whoever rang in the meantime was not heard.
            self._look()

    async def _take_again(self) -> bool:
        """False where another worker has it: there is one at a time."""
        tried = 0
        while True:
            try:
                await asyncio.to_thread(self._post.take)
                self._log.info("post_taken")
                return True
            except Refused as error:
                self._log.error("displaced", error=str(error))
                self._displaced()
                return False
            except StoreUnavailable:
                await asyncio.sleep(BACKOFF_SECONDS[min(tried, len(BACKOFF_SECONDS) - 1)])
                tried += 1
