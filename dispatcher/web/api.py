"""The API: one table of routes, and how each request goes through the same door."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from secrets import token_hex
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Send
from starlette.types import Scope as Asgi

from dispatcher.accept import Lock
from dispatcher.accept.committer import Busy, Committer
from dispatcher.config.web import Web
from dispatcher.ground.apikey import ApiKey, Scope
from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.ground.figures import Figures
from dispatcher.ground.operator import Operator
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log
from dispatcher.tracing import Traces
from dispatcher.web.deliveries import Deliveries
from dispatcher.web.doorman import Doorman
from dispatcher.web.events import Events
from dispatcher.web.openapi import document
from dispatcher.web.problem import Kind, Problem, passing
from dispatcher.web.replays import Jobs

# What keeps the daemon from working, by name; empty when it is ready.
Faults = Callable[[], dict[str, str]]
Handler = Callable[[Request, ApiKey], Awaitable[Response]]

# Whatever is asked is answered by then.
ANSWER_SECONDS = 60.0
# Looked up in the store at once; and how many may wait for that.
LOOKERS, MOST_LOOKING = 3, 100
# How often it is written down which keys were used.
NOTE_SECONDS = 30.0


class Way(NamedTuple):
    """One route: `name` is that of its operation in the OpenAPI document."""

    method: str
    path: str
    name: str
    scope: Scope
    handler: Handler


class Api:
    """All that the API works with. `operators` gives those in force; `ticks` as in `Doorman`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        web: Web,
        operators: Callable[[], Mapping[str, Operator]],
        lock: Lock,
        log: Log,
        ticks: Callable[[], float] = time.monotonic,
        figures: Figures | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.log = log
        self.figures = figures or Figures()
        self.committer = Committer(database, clock, self.figures)
        self.doorman = Doorman(database, asyncio.to_thread, clock, web.rate, ticks)
        self._threads = ThreadPoolExecutor(LOOKERS, thread_name_prefix="web")
        self._looking = 0
        events = Events(self.committer, operators, lock, self.figures, traces)
        deliveries, jobs = Deliveries(database, clock, self.ask), Jobs(database, clock, self.ask)
        self.ways = (
            Way("POST", "/v1/events", "enqueue", Scope.ENQUEUE, events.one),
            Way("POST", "/v1/events/batch", "enqueueBatch", Scope.ENQUEUE, events.many),
            Way("GET", "/v1/deliveries", "listDeliveries", Scope.READ, deliveries.list),
            Way("GET", "/v1/deliveries/{id}", "showDelivery", Scope.READ, deliveries.show),
            Way("POST", "/v1/deliveries/{id}/replay", "replayDelivery", Scope.ADMIN, deliveries.replay),
            Way("POST", "/v1/deliveries/{id}/resolve", "resolveDelivery", Scope.ADMIN, deliveries.resolve),
            Way("POST", "/v1/replays", "makeReplay", Scope.ADMIN, jobs.make),
            Way("GET", "/v1/replays", "listReplays", Scope.READ, jobs.list),
            Way("GET", "/v1/replays/{id}", "showReplay", Scope.READ, jobs.show),
            Way("POST", "/v1/replays/{id}/pause", "pauseReplay", Scope.ADMIN, jobs.pause),
            Way("POST", "/v1/replays/{id}/resume", "resumeReplay", Scope.ADMIN, jobs.resume),
            Way("POST", "/v1/replays/{id}/cancel", "cancelReplay", Scope.ADMIN, jobs.cancel),
        )

    def stuck(self, limit: float) -> dict[str, str]:
        """What is wrong where an event has waited for longer than `limit` s to be written; empty else."""
        waited = self.committer.waited
        return {"api": f"what came in has waited for {waited:.0f} s to be written"} if waited > limit else {}

    async def ask(self, function: Callable[..., Any], *given: object) -> Any:
        if self._looking >= MOST_LOOKING:
            raise Busy
        self._looking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *given))
        finally:
            self._looking -= 1

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """What was taken in when this is left is written before."""
        async with self.committer.working():
            noting = asyncio.create_task(self._noting())
            try:
                yield
            finally:
                noting.cancel()
                self._threads.shutdown(wait=False, cancel_futures=True)

    async def _noting(self) -> None:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            # Nobody's request hangs on it; what could not be written is with the next.
            with suppress(StoreUnavailable, Refused):
                await self.doorman.note()


class Operation:
    """One route as an ASGI application: who is it, what do they want, what came of it; one line in the log."""

    def __init__(self, api: Api, way: Way) -> None:
        self._api = api
        self._way = way

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive)
        request_id = request_id_of(request)
        key: ApiKey | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                key = await self._api.doorman.admit(request.headers.get("authorization"), self._way.scope)
                response = await self._way.handler(request, key)
        except Exception as error:
            response = self._failed(error, request_id)
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        self._api.figures.answered(self._way.name, response.status_code)
        self._api.log.info(
            "request",
            request_id=request_id,
            key=key and key.name,
            client=request.client and request.client.host,
            operation=self._way.name,
            path=request.url.path if request.path_params else self._way.path,
            status=response.status_code,
            duration_ms=round((time.perf_counter() - started) * 1_000, 1),
        )
        await response(scope, receive, send)

    def _failed(self, error: Exception, request_id: str) -> Response:
        if isinstance(error, Problem):
            if error.__cause__ is not None and not isinstance(error.__cause__, Busy):
                self._api.log.warning("web_store_away", request_id=request_id, fault=str(error.__cause__))
            return error.answer(request_id)
        if isinstance(error, ClientDisconnect):
            # Nobody hears this.
            return Problem(Kind.TIMEOUT, "the client has gone").answer(request_id)
        if isinstance(error, Busy):
            return passing(error).answer(request_id)
        if isinstance(error, StoreUnavailable | Refused | TimeoutError):
            self._api.log.warning("web_store_away", request_id=request_id, fault=str(error) or "no answer in time")
            return passing(error).answer(request_id)
        self._api.log.error("web_broke", request_id=request_id, exc_info=error, mend="a bug of ours: report this line")
        return Problem(Kind.BROKEN, "the log has the rest, under the request's id").answer(request_id)


def request_id_of(request: Request) -> str:
    """The client's own where it is short and plain, else a fresh one."""
    given = request.headers.get("x-request-id", "")
    plain = given.isascii() and given.isprintable() and " " not in given and '"' not in given
    return given if 0 < len(given) <= 64 and plain else token_hex(8)


def application(
    faults: Faults, api: Api | None = None, pages: Sequence[BaseRoute] = (), checks: Faults = dict
) -> Starlette:
    """`/healthz`: the process answers. `/readyz`: 200, or 503 with what keeps it from working. The API, and `pages`.

    `checks`: all that is looked at, and how it is; a fault is told in its place.
    """

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def readyz(_request: Request) -> JSONResponse:
        found, every = faults(), checks()
        told: dict[str, object] = {"status": "not ready" if found else "ready", **found}
        if every:
            told["checks"] = every | found
        return JSONResponse(told, status_code=503 if found else 200)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if api is not None:
        spec = document(api.ways)

        async def openapi(_request: Request) -> JSONResponse:
            return JSONResponse(spec)

        routes += [Route("/openapi.json", openapi), *_routes(api, api.ways)]
    app = Starlette(routes=[*routes, *pages], exception_handlers={HTTPException: _unrouted})
    # A path with another's slash is another path.
    app.router.redirect_slashes = False
    return app


class Path:
    """One path as an ASGI application: its operations by method, so that `Allow` names all of them."""

    def __init__(self, api: Api, ways: Sequence[Way]) -> None:
        self._operations = {way.method: Operation(api, way) for way in ways}

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._operations[method](scope, receive, send)


def served(app: Starlette) -> list[str]:
    """The first parts of the paths that there are."""
    return sorted({"/" + route.path.split("/")[1] for route in app.routes if isinstance(route, Route | Mount)})


def _routes(api: Api, ways: Sequence[Way]) -> list[Route]:
    by_path: dict[str, list[Way]] = {}
    for way in ways:
        by_path.setdefault(way.path, []).append(way)
    return [
        Route(path, Path(api, some), methods=[way.method for way in some], name=some[0].name)
        for path, some in by_path.items()
    ]


async def _unrouted(request: Request, error: Exception) -> Response:
    """There is no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    request_id = request_id_of(request)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        response = Problem(Kind.METHOD, f"allowed here: {allow}", headers={"allow": allow}).answer(request_id)
    else:
        response = Problem(Kind.NOT_FOUND, "there is no such path; see /openapi.json").answer(request_id)
    response.headers["x-request-id"] = request_id
    return response
