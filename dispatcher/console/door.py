"""Logging in and out."""

from starlette.responses import Response

from dispatcher.account import digest, fresh_token, proves
from dispatcher.console.desk import Page, Visit
from dispatcher.console.guard import COOKIE, LOGIN
from dispatcher.console.look import LANGUAGES
from dispatcher.secret import Secret
from dispatcher.store.accounts import account_named, begin_session, end_session

HOME = "/console"


def _next(visit: Visit) -> str:
    """Where they wanted to go: a page of ours, and nowhere else."""
    wanted = visit.request.query_params.get("next", "")
    ours = wanted == HOME or wanted.startswith((f"{HOME}/", f"{HOME}?"))
    return wanted if ours and "\\" not in wanted else HOME


async def show(visit: Visit) -> Response:
    return visit.go(HOME) if visit.account is not None else visit.page("login.html", wrong=False)


async def enter(visit: Visit) -> Response:
    desk = visit.desk
    account = await desk.ask(account_named, desk.database, (await visit.field("name"))[:255])
    proved = await desk.ask(proves, Secret((await visit.field("password"))[:1_000]), account)
    if account is None or not proved:
        return visit.page("login.html", 401, wrong=True)
    token = fresh_token()
    await desk.ask(begin_session, desk.database, digest(token.reveal()), account.name, desk.clock.now())
    desk.log.info("login", account=account.name, client=visit.request.client and visit.request.client.host)
    response = visit.go(_next(visit))
    secure = visit.request.url.scheme == "https"
    response.set_cookie(COOKIE, token.reveal(), httponly=True, samesite="lax", secure=secure, path="/console")
    return response


async def leave(visit: Visit) -> Response:
    desk = visit.desk
    await desk.ask(end_session, desk.database, digest(visit.request.cookies.get(COOKIE, "")))
    response = visit.go(LOGIN)
    response.delete_cookie(COOKIE, path="/console")
    return response


async def language(visit: Visit) -> Response:
    """The chosen language, for a year; back to where it was chosen."""
    chosen = await visit.field("language")
    response = visit.go(_next(visit))
    if chosen in LANGUAGES:
        response.set_cookie("language", chosen, max_age=366 * 86_400, samesite="lax", path="/console")
    return response


PAGES = (
    Page("GET", LOGIN, None, show),
    Page("POST", LOGIN, None, enter),
    Page("POST", "/console/logout", None, leave),
    Page("POST", "/console/language", None, language),
)
