"""Deliveries over HTTP: the log, one of them whole, replay and resolve. A bound key sees its operator's alone."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dispatcher.ground.apikey import ApiKey
from dispatcher.ground.clock import Clock
from dispatcher.ground.fields import Field, collect_fields, opaque
from dispatcher.ground.policy import Status
from dispatcher.rows import as_json, whole
from dispatcher.store import ledger
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, Filter, Row
from dispatcher.web.problem import Kind, Problem
from dispatcher.web.reading import (
    ROWS,
    WHICH,
    body_of,
    cursor,
    cursor_text,
    fit,
    json_object,
    note,
    one_of,
    query_of,
    row_count,
    row_number,
)

FILTERS = (
    *WHICH,
    Field("status", one_of(Status), required=False),
    Field("key", opaque(255), required=False),
    Field("limit", row_count, required=False),
    Field("cursor", cursor, required=False),
)
RESOLUTION = (Field("note", note),)
_MOST_NOTE_BYTES = 16 * 1024


class Deliveries(NamedTuple):
    """Where deliveries are looked up. `ask` runs a function of the store on another thread."""

    database: Database
    clock: Clock
    ask: Callable[..., Awaitable[Response]]

    async def list(self, request: Request, key: ApiKey) -> Response:
        values = query_of(request, FILTERS)
        limit, place = values.pop("limit", ROWS), values.pop("cursor", None)
        if key.operator is not None and values.setdefault("operator", key.operator) != key.operator:
            return json_answer({"deliveries": [], "next": None})
        return await self.ask(self._page, Filter(**values), limit, place)

    def _page(self, where: Filter, limit: int, place: tuple[int, int] | None) -> Response:
        rows = list(ledger.find_behind(self.database, where, limit + 1, place))
        more = cursor_text(rows[limit - 1].place) if len(rows) > limit else None
        return json_answer({"deliveries": [as_json(row) for row in rows[:limit]], "next": more})

    async def show(self, request: Request, key: ApiKey) -> Response:
        return await self.ask(self._whole, request.path_params["id"], key)

    def _whole(self, id_: str, key: ApiKey) -> Response:
        row = self._row(id_, key)
        return json_answer(whole(row, *ledger.history(self.database, row.id)))

    async def replay(self, request: Request, key: ApiKey) -> Response:
        return await self.ask(self._replay, request.path_params["id"], key)

    def _replay(self, id_: str, key: ApiKey) -> Response:
        row = self._row(id_, key)
        return self._done(row, ledger.replay(self.database, [row], actor_of(key), self.clock.now()), Status.PENDING)

    async def resolve(self, request: Request, key: ApiKey) -> Response:
        raw = json_object(await body_of(request, _MOST_NOTE_BYTES, ("application/json",)))
        values = fit(*collect_fields(raw, RESOLUTION, ()))
        return await self.ask(self._resolve, request.path_params["id"], key, values["note"])

    def _resolve(self, id_: str, key: ApiKey, said: str) -> Response:
        row = self._row(id_, key)
        change = ledger.resolve(self.database, [row], actor_of(key), said, self.clock.now())
        return self._done(row, change, Status.RESOLVED)

    def _row(self, id_: str, key: ApiKey) -> Row:
        """Another's is as absent for a bound key as one that never was."""
        known = row_number(id_)
        row = None if known is None else ledger.numbered(self.database, known)
        if row is None or key.operator not in (None, row.operator):
            raise Problem(Kind.NOT_FOUND, f"there is no delivery {id_[:40]}")
        return row

    def _done(self, row: Row, change: Change, status: Status) -> Response:
        for _, why in change.refused:
            raise Problem(Kind.NOT_NOW, why)
        if not change.taken:
            # Deleted between two looks.
            raise Problem(Kind.NOT_FOUND, f"there is no delivery {row.id}")
        # It is due; or whoever stood behind it in line is.
        self.database.ring()
        return json_answer({"id": row.id, "status": status.value})


def actor_of(key: ApiKey) -> str:
    """Who did it, for the record; told from people who work on this machine."""
    return f"api:{key.name}"


def json_answer(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
