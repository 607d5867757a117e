"""The way to every page: who is it, is the form theirs, may they; and what a page shows when something is wrong."""

import hmac
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from dispatcher.accept.committer import Busy
from dispatcher.account import digest, form_token
from dispatcher.console.desk import Desk, Page, Visit
from dispatcher.console.look import HEADERS, look_for
from dispatcher.errors import Refused, StoreUnavailable
from dispatcher.store.accounts import whose_session
from dispatcher.web.problem import Problem

COOKIE = "dispatcher_session"
LOGIN = "/console/login"


class Guard:
    """One page as an ASGI application."""

    def __init__(self, desk: Desk, page: Page) -> None:
        self._desk = desk
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        token = request.cookies.get(COOKIE, "")
        visit = Visit(self._desk, request, look_for(request), None, form_token(token))
        try:
            account = None
            if token:
                now = self._desk.clock.now()
                account = await self._desk.ask(whose_session, self._desk.database, digest(token), now)
            visit = Visit(self._desk, request, visit.look, account, visit.form_token)
            if self._page.power is not None and account is None:
                return self._to_the_login(request)
            if request.method != "GET" and not await self._is_ours(visit):
                return told(visit, "form_old", 403)
            if self._page.power is not None and not visit.may(self._page.power):
                return told(visit, "not_yours", 403)
            return await self._page.handler(visit)
        except Problem as problem:
            return visit.page("told.html", problem.kind.status, title=visit.look.t["refused"], told=problem.detail)
        except Refused as refused:
            return visit.page("told.html", 409, title=visit.look.t["refused"], told=str(refused))
        except (StoreUnavailable, Busy) as error:
            self._desk.log.warning("web_store_away", fault=str(error))
            return told(visit, "store_away", 503)

    def _to_the_login(self, request: Request) -> Response:
        if request.headers.get("x-live"):
            # A page that keeps itself fresh is told, and goes there as a whole.
            return Response(status_code=401)
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(asked)}" if request.method == "GET" else LOGIN, 303)

    @staticmethod
    async def _is_ours(visit: Visit) -> bool:
        """A form of this very session. Another site's browser tells on itself, and does not know the form's token."""
        if visit.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        sent = await visit.field("form_token")
        return hmac.compare_digest(sent.encode(), visit.form_token.encode())


def told(visit: Visit, word: str, status: int) -> Response:
    """A page with one sentence."""
    return visit.page("told.html", status, title=visit.look.t["refused"], told=visit.look.t[word])


async def unknown(request: Request) -> Response:
    """Where there is no page."""
    look = look_for(request)
    page = look.render("told.html", visit=None, title="404", told=look.t["no_page"])
    return Response(page, 404, dict(HEADERS), "text/html")
