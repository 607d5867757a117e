"""One scrape: figures are copied on the event loop, the store is asked and the text is made on threads of their own.

So neither a thousand operators nor a store that is away holds up what delivers.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from prometheus_client import GC_COLLECTOR, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.figures import Figures
from dispatcher.metrics.families import Seen, State, Work, families
from dispatcher.store.counts.backlog import Workload, workload
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log

__all__ = ["Exposition", "State", "Work"]

# So old at most is what is told of the store; whoever scrapes more often is told the same again.
FRESH_SECONDS = 10.0
# A scrape waits so long at most for the store; then it says that it is away.
PATIENCE_SECONDS = 2.0
_OPEN, _PLAIN = "application/openmetrics-text; version=1.0.0", "text/plain; version=0.0.4"


class Exposition:
    """`state` says how this process is at the moment, `types` the message types there are."""

    def __init__(
        self,
        figures: Figures,
        database: Database,
        clock: Clock,
        types: Collection[str],
        state: Callable[[], State],
        log: Log,
    ) -> None:
        self._log = log
        self._figures = figures
        self._state = state
        self._ask = partial(workload, database, types)
        self._clock = clock
        self._workload: Workload | None = None
        self._asked_at = float("-inf")
        self._asking: asyncio.Future[Workload] | None = None
        # A store that hangs holds the one, and never the other.
        self._asks = ThreadPoolExecutor(1, thread_name_prefix="backlog")
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._registry = CollectorRegistry()
        for one in (ProcessCollector(registry=None), PlatformCollector(registry=None), GC_COLLECTOR):
            self._registry.register(one)

    async def scrape(self, accept: str) -> tuple[str, bytes]:
        """The content type that fits this Accept header, and the text. Raises nothing for a store that is away."""
        fresh = await self._fresh()
        seen = Seen(self._figures.copy(), self._state(), fresh)
        text, kind = await asyncio.get_running_loop().run_in_executor(self._writes, self._written, seen, accept)
        return kind, text

    def close(self) -> None:
        for one in (self._asks, self._writes):
            one.shutdown(wait=False, cancel_futures=True)

    async def _fresh(self) -> Workload | None:
        """As the store has it now, or a few seconds ago; None where nobody can tell."""
        if time.monotonic() - self._asked_at > FRESH_SECONDS and self._asking is None:
            asked, self._workload = time.monotonic(), None
            self._asking = asyncio.get_running_loop().run_in_executor(self._asks, self._ask, self._clock.now())
            self._asking.add_done_callback(partial(self._heard, asked))
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=PATIENCE_SECONDS)
        return self._workload

    def _heard(self, asked: float, answer: "asyncio.Future[Workload]") -> None:
        self._asking = None
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._workload, self._asked_at = answer.result(), asked
        elif not isinstance(error, StoreUnavailable):
            # A bug of ours; whoever watches sees that the store could not be asked.
            self._log.error("metrics_broke", exc_info=error, mend="a bug of ours: report this line; deliveries go on")

    def _written(self, seen: Seen, accept: str) -> tuple[bytes, str]:
        """Of a registry for this scrape alone: whoever comes meanwhile gets what was seen for them."""
        # Of what Prometheus asks for only which of two it is: a version that nobody knows is no fault.
        encode, kind = choose_encoder(_OPEN if "application/openmetrics-text" in accept else _PLAIN)
        registry = CollectorRegistry()
        for one in (self._registry, _Collected(seen)):
            registry.register(one)
        return encode(registry), kind


class _Collected(Collector):
    """What was seen at one moment."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        return families(self._seen)
