"""Bulk replays over HTTP: make one, see how far it is, pause, resume, cancel. A bound key's are about its operator."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from dispatcher.ground.apikey import ApiKey
from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import Field, collect_fields, described, identifier, integer, opaque, schema_of, shown
from dispatcher.rows import replay_as_json
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.replays import MOST_KEYS, MOST_PACE, NotNow, Replay, Which
from dispatcher.web.deliveries import actor_of, json_answer
from dispatcher.web.problem import Kind, Problem
from dispatcher.web.reading import (
    ROWS,
    WHICH,
    body_of,
    fit,
    invalid,
    json_object,
    note,
    query_of,
    row_count,
    row_number,
)

_MOST_BYTES = 1024 * 1024
_key = identifier(255)


@described({"type": "array", "minItems": 1, "maxItems": MOST_KEYS, "items": schema_of(_key)})
def keys(value: Any) -> tuple[str, ...]:
    """Order numbers."""
    if type(value) is not list or not 1 <= len(value) <= MOST_KEYS:
        raise Unfit(f"{shown(value)} is not a list of keys", f"write 1 to {MOST_KEYS} order numbers, each in quotes")
    return tuple(_key(one) for one in value)


@described({"type": "boolean"})
def boolean(value: Any) -> bool:
    """Yes or no."""
    if type(value) is not bool:
        raise Unfit(f"{shown(value)} is neither true nor false", "write true or false")
    return value


REQUEST = (
    *WHICH,
    Field("keys", keys, required=False),
    Field("even_superseded", boolean, required=False),
    Field("pace", integer(1, MOST_PACE, f"how many a second, 1 to {MOST_PACE}")),
    Field("note", note),
    Field("dry_run", boolean, required=False),
)
LIST = (Field("operator", opaque(255), required=False), Field("limit", row_count, required=False))


class Jobs(NamedTuple):
    """Where bulk replays are made and looked after. `ask` runs a function of the store on another thread."""

    database: Database
    clock: Clock
    ask: Callable[..., Awaitable[Response]]

    async def make(self, request: Request, key: ApiKey) -> Response:
        raw = json_object(await body_of(request, _MOST_BYTES, ("application/json",)))
        if key.operator is not None and raw.setdefault("operator", key.operator) != key.operator:
            raise Problem(Kind.FORBIDDEN, f"this key is for {key.operator} alone")
        values = fit(*collect_fields(raw, REQUEST, ()))
        which = Which(**{name: value for name, value in values.items() if name in Which._fields})
        if faults := which.faults():
            raise invalid(faults)
        answer = self._counted if values.get("dry_run") else self._made
        return await self.ask(answer, which, values["pace"], actor_of(key), values["note"])

    def _counted(self, which: Which, *_: object) -> Response:
        return json_answer(replays.count(self.database, which, self.clock.now())._asdict())

    def _made(self, which: Which, pace: int, actor: str, said: str) -> Response:
        now = self.clock.now()
        try:
            job = replays.make(self.database, which, pace, actor, said, now)
        except NotNow as error:
            raise Problem(Kind.NOT_NOW, str(error)) from None
        return json_answer(replay_as_json(job, now), 201)

    async def list(self, request: Request, key: ApiKey) -> Response:
        values = query_of(request, LIST)
        operator = values.get("operator", key.operator)
        if key.operator not in (None, operator):
            return json_answer({"replays": []})
        return await self.ask(self._list, operator, values.get("limit", ROWS))

    def _list(self, operator: str | None, most: int) -> Response:
        now = self.clock.now()
        jobs = replays.all_of(self.database, operator, most)
        return json_answer({"replays": [replay_as_json(job, now) for job in jobs]})

    async def show(self, request: Request, key: ApiKey) -> Response:
        return await self.ask(self._shown, request.path_params["id"], key)

    def _shown(self, id_: str, key: ApiKey) -> Response:
        return json_answer(replay_as_json(self._job(id_, key), self.clock.now()))

    async def pause(self, request: Request, key: ApiKey) -> Response:
        return await self._turned(replays.pause, request, key)

    async def resume(self, request: Request, key: ApiKey) -> Response:
        return await self._turned(replays.resume, request, key)

    async def cancel(self, request: Request, key: ApiKey) -> Response:
        return await self._turned(replays.cancel, request, key)

    async def _turned(self, turn: Callable[..., Replay], request: Request, key: ApiKey) -> Response:
        return await self.ask(self._turn, turn, request.path_params["id"], key)

    def _turn(self, turn: Callable[..., Replay], id_: str, key: ApiKey) -> Response:
        now = self.clock.now()
        try:
            job = turn(self.database, self._job(id_, key).id, actor_of(key), now)
        except NotNow as error:
            raise Problem(Kind.NOT_NOW, str(error)) from None
        return json_answer(replay_as_json(job, now))

    def _job(self, id_: str, key: ApiKey) -> Replay:
        """Another operator's is as absent for a bound key as one that never was."""
        known = row_number(id_)
        job = None if known is None else replays.find(self.database, known)
        if job is None or key.operator not in (None, job.which.operator):
            raise Problem(Kind.NOT_FOUND, f"there is no replay {id_[:40]}")
        return job
