"""The API for the tests: the real application on a real store, reached in process; time is moved, keys are made."""

import itertools
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from dispatcher.config.web import Web
from dispatcher.ground.apikey import ApiKey, Scope, digest, fresh_token
from dispatcher.ground.operator import Operator
from dispatcher.store.engine import Database
from dispatcher.store.keys import create_key
from dispatcher.tracing import Traces
from dispatcher.web import Api, application
from tests.ground import ACME, config_with, lock
from tests.workshop import MovedClock, kept_log

OPERATORS: Mapping[str, Operator] = config_with(
    "".join(
        ACME.replace("acme", name).replace("token =", f'callback_url = "https://{name}.example/wallet"\ntoken =')
        for name in ("acme", "bolt")
    ),
    Path("/nowhere"),
).operators
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}


class Served:
    """The application, its log, its clocks, and a client that nobody knows yet."""

    def __init__(self, database: Database, web: Web, traces: Traces | None = None) -> None:
        self.database = database
        self.clock = MovedClock()
        self.seconds = 0.0
        self.log, self.lines = kept_log()
        ticks = lambda: self.seconds  # noqa: E731 - moved by hand
        self.api = Api(database, self.clock, web, lambda: OPERATORS, lock, self.log, ticks, traces=traces)
        self.app = application(dict, self.api)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://dispatcher.test")
        self._numbers = itertools.count(1)

    def key(
        self, *scopes: Scope, operator: str | None = None, rate: int | None = 1_000_000, name: str | None = None
    ) -> dict[str, str]:
        """The headers that a new key goes into."""
        id_, token = fresh_token()
        name = name or f"key-{next(self._numbers)}"
        granted = frozenset(scopes or Scope)
        fresh = ApiKey(id_, name, digest(token.reveal()), granted, operator, rate, self.clock.now())
        create_key(self.database, fresh, "ada")
        # It is read at the next request.
        self.seconds += 1.5
        return {"authorization": f"Bearer {token.reveal()}"}

    async def post(self, path: str, key: Mapping[str, str], body: object = None) -> httpx.Response:
        """A JSON body, or bytes as they are; none for None."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        kind = NDJSON if path.endswith("/batch") else JSON
        return await self.client.post(path, content=content, headers={**kind, **key})

    async def get(self, path: str, key: Mapping[str, str]) -> httpx.Response:
        return await self.client.get(path, headers=dict(key))

    def told(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        return [line for line in self.lines if line["event"] == name]


@asynccontextmanager
async def served(database: Database, rate: int = 1_000_000) -> AsyncIterator[Served]:
    at = Served(database, Web(("127.0.0.1", 0), rate=rate))
    async with at.api.working(), at.client:
        yield at


def faults_in(answer: httpx.Response) -> Collection[str]:
    """Where each fault of a problem stands."""
    return {one["field"] for one in answer.json()["faults"]}
