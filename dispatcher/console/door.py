"""Logging in and out, and the language."""

import math

from starlette.responses import Response

from dispatcher.console.desk import Page, Visit
from dispatcher.console.gate import keys_of
from dispatcher.console.guard import DOOR, LOGIN, SESSION, Cookie
from dispatcher.console.look import LANGUAGES
from dispatcher.ground.account import Account, digest, fresh_token, known_browser, marked_browser, proves
from dispatcher.ground.secret import Secret
from dispatcher.store.accounts import account_named, any_account, begin_session, end_session

HOME = "/console"
YEAR = 366 * 86_400
# From which an account has logged in before (`gate`).
BROWSER = Cookie("browser")


def _next(visit: Visit) -> str:
    """Where they wanted to go: a page of ours, and nowhere else."""
    wanted = visit.request.query_params.get("next", "")
    ours = wanted == HOME or wanted.startswith((f"{HOME}/", f"{HOME}?"))
    return wanted if ours and "\\" not in wanted and wanted.isprintable() else HOME


async def show(visit: Visit) -> Response:
    desk = visit.desk
    if visit.account is not None:
        return visit.go(_next(visit))
    nobody = not await desk.remember("accounts", 5.0, lambda: any_account(desk.database))
    return visit.page("login.html", wrong=None, nobody=nobody)


async def enter(visit: Visit) -> Response:
    desk, t = visit.desk, visit.look.t
    client = visit.request.client.host if visit.request.client else ""
    name, password = (await visit.field("name")).strip()[:255], Secret((await visit.field("password"))[:1_000])
    account = await desk.ask(account_named, desk.database, name)
    keys = keys_of(name, client, known_browser(account, BROWSER.read(visit.request)))
    if wait := math.ceil(desk.gate.wait(keys)):
        response = visit.page("login.html", 429, wrong=t["too_often"].format(wait), nobody=False)
        response.headers["retry-after"] = str(wait)
        return response
    desk.gate.tried(keys)
    if not await desk.gate.work(proves, password, account) or account is None:
        # Not the name that was given: people write their password there.
        desk.log.warning("login_refused", account=account and account.name, client=client)
        return visit.page("login.html", 401, wrong=t["wrong_login"], nobody=False)
    desk.gate.passed(keys)
    response = await admit(visit, account, visit.go(_next(visit)))
    desk.log.info("login", account=account.name, client=client)
    return response


async def admit(visit: Visit, account: Account, response: Response) -> Response:
    """A session of its own, under a token that was never shown before; whatever session there was is over."""
    desk, token = visit.desk, fresh_token()
    now, before = desk.clock.now(), SESSION.read(visit.request)
    await desk.ask(begin_session, desk.database, digest(token.reveal()), account, now, digest(before))
    SESSION.write(visit, response, token.reveal())
    DOOR.clear(visit, response)
    BROWSER.write(visit, response, marked_browser(account), YEAR)
    return response


async def leave(visit: Visit) -> Response:
    desk = visit.desk
    await desk.ask(end_session, desk.database, digest(SESSION.read(visit.request)))
    response = visit.go(LOGIN)
    SESSION.clear(visit, response)
    return response


async def language(visit: Visit) -> Response:
    """The chosen language, for a year; back to where it was chosen."""
    chosen = await visit.field("language")
    response = visit.go(_next(visit))
    if chosen in LANGUAGES:
        secure = visit.request.url.scheme == "https"
        response.set_cookie("language", chosen, YEAR, secure=secure, httponly=True, samesite="lax", path="/console")
    return response


PAGES = (
    Page("GET", LOGIN, None, show),
    Page("POST", LOGIN, None, enter),
    Page("POST", "/console/logout", None, leave),
    Page("POST", "/console/language", None, language),
)
