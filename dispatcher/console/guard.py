"""The way to every page: who is it, is the form theirs, may they; and what a page shows when something is wrong."""

import asyncio
import hashlib
import hmac
from secrets import token_hex
from urllib.parse import quote, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from dispatcher.accept.committer import Busy
from dispatcher.console.desk import Desk, Page, Visit
from dispatcher.console.look import HEADERS, look_for
from dispatcher.ground.account import digest, form_token, fresh_token
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.store.accounts import whose_session
from dispatcher.web.problem import Problem

LOGIN = "/console/login"
# Whatever is asked is answered by then.
ANSWER_SECONDS = 30.0
_BUG = "a bug of ours: report this line"
_READS = ("GET", "HEAD")


class Cookie:
    """A cookie of ours: over TLS under a name by which browsers hold that no other host and no plain http set it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _of(self, request: Request) -> tuple[str, str, bool]:
        if request.url.scheme == "https":
            return f"__Host-dispatcher_{self._name}", "/", True
        return f"dispatcher_{self._name}", "/console", False

    def read(self, request: Request) -> str:
        return request.cookies.get(self._of(request)[0], "")[:200]

    def write(self, visit: Visit, response: Response, value: str, seconds: int | None = None) -> None:
        """Without `seconds` the browser forgets it when it is closed."""
        name, path, secure = self._of(visit.request)
        response.set_cookie(name, value, seconds, path=path, secure=secure, httponly=True, samesite="lax")

    def clear(self, visit: Visit, response: Response) -> None:
        name, path, secure = self._of(visit.request)
        response.delete_cookie(name, path=path, secure=secure, httponly=True, samesite="lax")


SESSION = Cookie("session")
# Whose forms these are where nobody is logged in: so that no other site can log somebody in as somebody else.
DOOR = Cookie("door")


class Guard:
    """One page as an ASGI application."""

    def __init__(self, desk: Desk, page: Page) -> None:
        self._desk = desk
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        given = DOOR.read(request)
        door = given or fresh_token().reveal()
        visit = Visit(self._desk, request, look_for(request), None, form_token(door))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                visit = await self._known(visit)
                response = self._unless_known(request, await self._answer(visit))
        except Exception as error:
            response = self._failed(visit, error)
        if visit.account is None and not given:
            DOOR.write(visit, response, door)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _known(self, visit: Visit) -> Visit:
        """With the account whose session this is, if it is one's."""
        token = SESSION.read(visit.request)
        if not token:
            return visit
        desk, alone = self._desk, "x-live" in visit.request.headers
        # A page that keeps itself fresh keeps no session alive: nobody may be sitting there any more.
        account = await desk.ask(whose_session, desk.database, digest(token), desk.clock.now(), not alone)
        if account is None:
            return visit
        return Visit(desk, visit.request, visit.look, account, form_token(token))

    async def _answer(self, visit: Visit) -> Response:
        request, power = visit.request, self._page.power
        if power is not None and visit.account is None:
            return self._to_the_login(visit)
        if request.method not in _READS and not (_is_from_here(request) and await _is_its_own(visit)):
            return told(visit, "form_old", 403)
        if power is not None and not visit.may(power):
            return told(visit, "not_yours", 403)
        return await self._page.handler(visit)

    @staticmethod
    def _to_the_login(visit: Visit) -> Response:
        request = visit.request
        if "x-live" in request.headers:
            # A page that keeps itself fresh is told, and goes there as a whole.
            return Response(status_code=401)
        back = f"?next={quote(visit.address)}" if request.method in _READS else ""
        return RedirectResponse(f"{LOGIN}{back}", 303)

    @staticmethod
    def _unless_known(request: Request, response: Response) -> Response:
        """A page that keeps itself fresh gets what it does not have yet."""
        if "x-live" not in request.headers or response.status_code != 200 or not isinstance(response, HTMLResponse):
            return response
        tag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        response.headers["etag"] = tag
        return response

    def _failed(self, visit: Visit, error: Exception) -> Response:
        if isinstance(error, Problem):
            return told(visit, error.detail, int(error.kind.status))
        if isinstance(error, Refused):
            return told(visit, str(error), 409)
        if isinstance(error, ClientDisconnect):
            # Nobody hears this.
            return Response(status_code=408)
        if isinstance(error, Busy):
            return told(visit, "busy", 429)
        if isinstance(error, StoreUnavailable | TimeoutError):
            self._desk.log.warning("web_store_away", fault=str(error) or "no answer in time")
            return told(visit, "store_away", 503)
        number = token_hex(8)
        self._desk.log.error("web_broke", request_id=number, path=self._page.path, exc_info=error, mend=_BUG)
        return told(visit, f"{visit.look.t['broke']} {number}", 500)


def _is_from_here(request: Request) -> bool:
    """Another site's browser tells on itself; where it says nothing (plain http), by the page that it came from."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def _is_its_own(visit: Visit) -> bool:
    """A form that was shown to this very session, or at this door."""
    sent = await visit.field("form_token")
    return hmac.compare_digest(sent.encode("utf-8", "replace"), visit.form_token.encode())


def told(visit: Visit, what: str, status: int) -> Response:
    """A page with one sentence: a word of ours, or the sentence itself."""
    t = visit.look.t
    return visit.page("told.html", status, title=t["refused" if status != 404 else "not_found"], told=t.get(what, what))


async def unknown(visit: Visit) -> Response:
    """Where there is no page."""
    return told(visit, "no_page", 404)
