"""What a filter finds as a file: streamed page by page, however much it is; no reader holds the store meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from weakref import WeakKeyDictionary

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from dispatcher import sheet
from dispatcher.console.desk import Page, Visit
from dispatcher.console.look import Look
from dispatcher.console.sieve import Sieve, read_sieve
from dispatcher.console.view import Place, View
from dispatcher.ground.account import Power
from dispatcher.ground.clock import to_datetime
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.policy import Status
from dispatcher.rows import FIELDS, as_json, json_line
from dispatcher.store.engine import Database
from dispatcher.web.problem import Kind, Problem, later

# At once, all readers together: each keeps a thread for as long as a page of it takes.
MOST_AT_ONCE = 2
PAGE = 1_000
# For a reader who takes nothing: then the place is somebody else's.
STALL_SECONDS = 30.0

_running: WeakKeyDictionary[Database, int] = WeakKeyDictionary()


class Download(StreamingResponse):
    """A file that comes in parts. Cut short it has no end, which browsers tell from a whole one."""

    def __init__(self, first: str, parts: AsyncGenerator[str], name: str, kind: str) -> None:
        self._parts = parts
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        super().__init__(_with(first, parts), 200, headers, kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patient(message: Message) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send(message)

        async with aclosing(self._parts):
            await super().__call__(scope, receive, patient)


async def _with(first: str, parts: AsyncGenerator[str]) -> AsyncGenerator[str]:
    yield first
    async for part in parts:
        yield part


async def _flow(visit: Visit) -> Response:
    return await _export(visit, None)


async def _dead(visit: Visit) -> Response:
    return await _export(visit, Status.DEAD)


async def _export(visit: Visit, status: Status | None) -> Response:
    now = visit.desk.clock.now()
    sieve = read_sieve(visit.request, now, visit.look.language, status=status)
    if sieve.faults:
        raise Problem(Kind.INVALID, visit.look.t["unfit_filter"])
    as_csv = visit.request.query_params.get("format") != "ndjson"
    parts = _parts(visit, sieve, as_csv=as_csv)
    # What keeps it from beginning is told on a page: the store away, too many at once.
    first = await anext(parts)
    name = f"{status or 'flow'}-{to_datetime(now):%Y%m%dT%H%M%SZ}.{'csv' if as_csv else 'ndjson'}"
    kind = "text/csv; charset=utf-8" if as_csv else "application/x-ndjson"
    visit.desk.log.info("export", account=visit.viewer.name, file=name, filter=sieve.query())
    return Download(first, parts, name, kind)


async def _parts(visit: Visit, sieve: Sieve, *, as_csv: bool) -> AsyncGenerator[str]:
    database = visit.desk.database
    if _running.get(database, 0) >= MOST_AT_ONCE:
        raise later(Kind.BUSY, visit.look.t["export_busy"], 5.0)
    _running[database] = _running.get(database, 0) + 1
    try:
        view, place = View(database, visit.viewer), None
        head = sheet.MARK + sheet.line(_names(visit.look)) if as_csv else ""
        while True:
            text, place = await visit.desk.ask(_page, view, sieve, place, as_csv)
            yield head + text
            head = ""
            if place is None:
                return
    except StoreUnavailable as error:
        visit.desk.log.warning("web_store_away", fault=str(error))
        raise
    finally:
        _running[database] -= 1


def _page(view: View, sieve: Sieve, place: Place | None, as_csv: bool) -> tuple[str, Place | None]:
    """Some lines of the file, and where it goes on."""
    rows = list(view.find(sieve.where, PAGE, place))
    fits = [row for row in rows if sieve.fits(row.type, row.body)]
    if as_csv:
        told = (as_json(row) for row in fits)
        text = "".join(sheet.line(one.get(name) for name in FIELDS) for one in told)
    else:
        text = "".join(json_line(row) for row in fits)
    return text, rows[-1].place if len(rows) == PAGE else None


def _names(look: Look) -> list[str]:
    """Above the columns: the names that every other export has, or in Chinese the words that their readers know."""
    if look.language != "zh":
        return list(FIELDS)
    return [look.t.get(name) or look.t.get(f"field_{name}", name) for name in FIELDS]


PAGES = (
    Page("GET", "/console/flow/export", Power.VIEW, _flow),
    Page("GET", "/console/dead/export", Power.VIEW, _dead),
)
