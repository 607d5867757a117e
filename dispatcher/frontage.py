"""All that is served over HTTP, by a worker or alone: the API, the console, /metrics, and how we are."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Protocol

from dispatcher.accept import Lock
from dispatcher.config.web import Web
from dispatcher.console import Desk, routes
from dispatcher.ground.clock import Clock
from dispatcher.ground.figures import Figures
from dispatcher.metrics import Exposition, State
from dispatcher.protocols import PROTOCOLS
from dispatcher.roster import Roster
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log
from dispatcher.tracing import Traces
from dispatcher.web import Api, application, bind, metrics_route, served, serving


class Checks(Protocol):
    """How whoever serves is: what keeps it from working, all that was looked at, the same for the metrics."""

    def not_ready(self) -> dict[str, str]: ...

    def checks(self) -> dict[str, str]: ...

    def state(self) -> State: ...


class Frontage:
    """`roster` gives the operators in force, `figures` what a worker counts; without one the API's own are told."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        web: Web,
        roster: Callable[[], Roster],
        lock: Lock,
        log: Log,
        checks: Checks,
        figures: Figures | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._web = web
        figures = figures or Figures()
        self.api = Api(database, clock, web, lambda: roster().operators, lock, log, figures=figures, traces=traces)
        self._exposition = Exposition(figures, database, clock, PROTOCOLS, checks.state, log)
        self.desk = Desk(database, clock, self.api.ask, roster, checks.not_ready, log)
        pages = [*routes(self.desk), *metrics_route(self._exposition.scrape, self.api.doorman, web.metrics)]
        self.app = application(checks.not_ready, self.api, pages, checks.checks)
        # The first parts of the paths that are served.
        self.paths = served(self.app)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The URL, while the block runs. Raises Refused where the address is taken."""
        assert self._web.listen is not None
        bound = bind(self._web.listen)
        with closing(self._exposition):
            async with self.api.working(), serving(bound, self.app, self._web) as url:
                yield url
