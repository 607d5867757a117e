"""Events over HTTP: one, or NDJSON. Answered when they are on disk."""

import asyncio
import time
from collections.abc import Callable, Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dispatcher.accept import Lock, read_event
from dispatcher.accept.committer import GROUP, Busy, Committer
from dispatcher.accept.intake import COUNTED, TOO_LONG, Sieve, conflict, is_anothers
from dispatcher.ground.apikey import ApiKey
from dispatcher.ground.errors import DispatcherError, EventError
from dispatcher.ground.events import MAX_EVENT_BYTES, Event
from dispatcher.ground.figures import Figures
from dispatcher.ground.operator import Operator
from dispatcher.store.acceptance import Fate
from dispatcher.tracing import Traces
from dispatcher.web.problem import Kind, Problem, passing
from dispatcher.web.reading import body_of, invalid, json_object

JSON = ("application/json",)
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
MOST_BATCH_BYTES = 16 * 1024 * 1024
MOST_LINES = 20_000
# At once, since each is in memory until it is answered.
MOST_BATCHES = 16
# Lines read before others have their turn on the event loop: a few milliseconds.
_SLICE = 100
_STATUS = {Fate.ACCEPTED: 202, Fate.DUPLICATE: 200}


class Events:
    """Where events come in. `operators` gives those in force at the moment."""

    def __init__(
        self,
        committer: Committer,
        operators: Callable[[], Mapping[str, Operator]],
        lock: Lock,
        figures: Figures,
        traces: Traces | None,
    ) -> None:
        self._committer = committer
        self._traces = traces
        self._figures = figures
        self._operators = operators
        self._lock = lock
        self._batches = 0

    def _known_to(self, key: ApiKey) -> Mapping[str, Operator]:
        """Of the others a bound key does not even learn the names."""
        known = self._operators()
        return known if key.operator is None else {name: known[name] for name in known if name == key.operator}

    async def one(self, request: Request, key: ApiKey) -> Response:
        raw = json_object(await body_of(request, MAX_EVENT_BYTES, JSON))
        if is_anothers(raw, key.operator):
            raise Problem(Kind.FORBIDDEN, f"this key is for {key.operator} alone")
        try:
            event = read_event(raw, self._known_to(key), self._lock)
        except EventError as error:
            raise invalid(error.faults) from None
        began = time.time_ns()
        receipt = await self._committer.one(event)
        self._count(event, receipt.fate, began, request.headers.get("traceparent"))
        if receipt.fate is Fate.CONFLICT:
            raise Problem(Kind.CONFLICT, conflict(event), more={"id": receipt.id})
        told = orjson.dumps({"id": receipt.id, "status": receipt.status})
        return Response(told, _STATUS[receipt.fate], media_type="application/json")

    async def many(self, request: Request, key: ApiKey) -> Response:
        if self._batches >= MOST_BATCHES:
            raise Busy
        self._batches += 1
        try:
            return await self._batch(request, key)
        finally:
            self._batches -= 1

    async def _batch(self, request: Request, key: ApiKey) -> Response:
        lines = (await body_of(request, MOST_BATCH_BYTES, NDJSON)).split(b"\n")
        if len(lines) > MOST_LINES + 1:
            raise Problem(Kind.TOO_LARGE, f"at most {MOST_LINES} lines are taken; nothing was accepted")
        refused: list[dict[str, object]] = []
        sieve: Sieve[int] = Sieve(
            self._known_to(key),
            self._lock,
            lambda line, reason: refused.append({"line": line, "reason": reason}),
            key.operator,
        )
        try:
            await self._take(lines, sieve, request.headers.get("traceparent"))
        except (Busy, DispatcherError) as error:
            # What was written stands, and whoever is told that the rest was not is told that, too.
            raise passing(error, _counted(sieve, refused)) from error
        return Response(orjson.dumps(_counted(sieve, refused)), media_type="application/json")

    async def _take(self, lines: list[bytes], sieve: Sieve[int], caller: str | None) -> None:
        batch: list[tuple[int, Event]] = []
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_EVENT_BYTES:
                sieve.refuse(number, TOO_LONG)
            elif line.strip() and (event := sieve.read(number, line)):
                batch.append((number, event))
            if len(batch) == GROUP:
                await self._write(batch, sieve, caller)
                batch = []
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        if batch:
            await self._write(batch, sieve, caller)

    async def _write(self, batch: list[tuple[int, Event]], sieve: Sieve[int], caller: str | None) -> None:
        began = time.time_ns()
        fates = await self._committer.many([event for _, event in batch])
        for (number, event), fate in zip(batch, fates, strict=True):
            self._count(event, fate, began, caller)
            sieve.stored(number, event, fate)

    def _count(self, event: Event, fate: Fate, began: int, caller: str | None) -> None:
        self._figures.taken_in(event.operator, event.type, fate)
        if self._traces is not None and fate is Fate.ACCEPTED:
            self._traces.accepted(event.operator, event.type, event.key, began, caller)


def _counted(sieve: Sieve[int], refused: list[dict[str, object]]) -> dict[str, object]:
    return {**{name: sieve.counts[name] for name in COUNTED}, "refused": refused}
