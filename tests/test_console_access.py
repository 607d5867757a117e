"""The console's pages: who comes in, what opens to whom, and that no other site does anything in somebody's name.

Walks the table of all pages: a new one is in it by itself.
"""

import re
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import select, text

from dispatcher.console import guard
from dispatcher.console.desk import Page, Visit
from dispatcher.console.guard import Guard
from dispatcher.console.look import HEADERS
from dispatcher.console.routes import PAGES
from dispatcher.console.words import TOLD, WORDS
from dispatcher.ground.account import GRANTED, Power, Role, digest, form_token
from dispatcher.ground.clock import DAY, HOUR, MINUTE
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.policy import Reason
from dispatcher.store import ledger
from dispatcher.store.accounts import STEP, change_account
from dispatcher.store.engine import Database
from dispatcher.store.schema import journal, metadata, sessions
from tests.consoled import COOKIE, Console, Visitor, consoled, token_in
from tests.ground import NOW
from tests.workshop import accept, failed, settle, take

pytestmark = pytest.mark.anyio

# What stands in the place of a parameter of a path; a page with another one wants its line here.
EXAMPLES = {"name": "bolt", "id": "2"}
WHO: list[tuple[Role, str | None]] = [(Role.ADMIN, None), (Role.SUPPORT, None), (Role.OPERATOR, "acme")]


def path_of(page: Page) -> str:
    return re.sub(r"{(\w+)}", lambda found: EXAMPLES[found[1]], page.path)


@pytest.fixture
async def at(database: Database, tmp_path: Path) -> AsyncIterator[Console]:
    """With a dead letter of acme and one of bolt, each with a name of its own."""
    for operator in ("acme", "bolt"):
        accept(database, f"order-of-{operator}", operator=operator, uid=f"player-of-{operator}")
        for later in (0, DAY, 2 * DAY, 3 * DAY):
            claims = take(database, NOW + later, operator=operator)
            settle(database, *(failed(claim, NOW + later, Reason.READ_TIMEOUT) for claim in claims), now=NOW + later)
    async with consoled(database, tmp_path) as at:
        at.clock.move(4 * DAY)  # type: ignore[attr-defined]  # it is a moved one
        at.account(Role.SUPPORT, name="bolt")
        yield at


def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Everything but who is logged in."""
    with database.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in metadata.sorted_tables
            if table.name not in ("sessions", "accounts")
        }


def is_guarded(answer: httpx.Response) -> bool:
    """Whatever is answered, a browser is told to let nothing foreign in and to keep nothing."""
    for name, value in HEADERS.items():
        assert answer.headers.get(name) == value, (answer.request.url, answer.status_code, name)
    return True


def leads_to_the_login(answer: httpx.Response) -> bool:
    return answer.status_code == 303 and answer.headers["location"].startswith("/console/login")


# Every page with everybody.


async def test_a_page_opens_to_those_who_are_granted_it_alone(at: Console) -> None:
    for role, operator in WHO:
        visitor = Visitor(at, at.session(role, operator))
        before = content(at.database)
        for page in PAGES:
            granted = page.power is None or page.power in GRANTED[role]
            if granted and page.method != "GET":
                continue
            answer = await (visitor.get(path_of(page)) if page.method == "GET" else visitor.post(path_of(page)))
            assert is_guarded(answer)
            assert (answer.status_code == 403) != granted, (page, role, answer.status_code, answer.text)
            assert answer.status_code < 500, page
            assert content(at.database) == before, (page, role)


async def test_without_a_session_in_force_every_page_leads_to_the_door(at: Console) -> None:
    expired, ended, off = (at.session(Role.ADMIN, name=name) for name in ("idle", "whole", "off"))
    with at.database.writing() as connection:
        long_ago = {"hash": digest(expired), "seen": at.clock.now() - HOUR - STEP}
        connection.execute(text("UPDATE sessions SET seen_at = :seen WHERE hash = :hash"), long_ago)
        began = {"hash": digest(ended), "began": at.clock.now() - 12 * HOUR - 1}
        connection.execute(text("UPDATE sessions SET created_at = :began WHERE hash = :hash"), began)
        connection.execute(text("UPDATE accounts SET disabled_at = 1 WHERE name = 'off'"))
    before = content(at.database)
    for session in (None, expired, ended, off, "", "x" * 43, "ü" * 10, "x" * 10_000):
        visitor = Visitor(at)
        given = [(b"cookie", f"{COOKIE}={session}".encode())] if session else []
        for page in PAGES:
            if page.power is None:
                continue
            answer = await visitor.client.request(page.method, path_of(page), headers=given)
            assert is_guarded(answer)
            assert leads_to_the_login(answer), (page, session, answer.status_code)
            live = await visitor.client.request(page.method, path_of(page), headers=[*given, (b"x-live", b"1")])
            assert is_guarded(live)
            assert live.status_code == 401, (page, session)
    assert content(at.database) == before


FOREIGN: list[tuple[str, dict[str, str]]] = [
    ("own", {"sec-fetch-site": "cross-site"}),
    ("own", {"sec-fetch-site": "same-site"}),
    ("own", {"origin": "https://elsewhere.example"}),
    ("own", {"origin": "null"}),
    ("own", {"origin": "http://dispatcher.test.elsewhere.example"}),
    ("another's", {}),
    ("of the door", {}),
    ("none", {}),
    ("wrong", {"sec-fetch-site": "same-origin"}),
]


async def test_a_form_of_another_site_or_session_does_nothing(at: Console) -> None:
    session, other = at.session(Role.ADMIN), at.session(Role.ADMIN)
    before = content(at.database)
    tokens = {"own": form_token(session), "another's": form_token(other), "of the door": form_token("")}
    tokens |= {"none": "", "wrong": "é" * 64}
    visitor = Visitor(at, session)
    for page in PAGES:
        for token, headers in FOREIGN if page.method != "GET" else ():
            answer = await visitor.post(path_of(page), tokens[token], headers, note="x", name="new", ids="1")
            assert answer.status_code == 403, (page, token, headers)
            assert is_guarded(answer)
            assert "This form is not from this session" in answer.text
    assert content(at.database) == before
    # Still logged in.
    assert (await visitor.get("/console")).status_code == 200


async def test_an_operators_people_see_nothing_of_another_one(at: Console) -> None:
    visitor = Visitor(at, at.session(Role.OPERATOR, "acme"))
    queries = ("", "?operator=bolt", "?status=dead", "?key=order-of-bolt", "?uid=player-of-bolt", "?operator=")
    for page, query in product((page for page in PAGES if page.method == "GET"), queries):
        answer = await visitor.get(f"{path_of(page)}{query}")
        asked = query.partition("=")[2]
        shown = answer.text.replace(asked, "") if asked else answer.text
        assert re.findall(r"[\w-]*(?:order|player)-of-bolt", shown) == [], (page, query)
        # What they asked for themselves may be said again; not that there is such an operator.
        assert "bolt" not in re.sub(r"/console/\S*", "", shown), (page, query)


async def test_every_way_below_the_console_is_guarded_also_where_there_is_no_page(at: Console) -> None:
    visitor = Visitor(at, at.session())
    for method, path in (
        ("GET", "/console/nothing"),
        ("GET", "/console/operators/"),
        ("POST", "/console/nothing"),
        ("DELETE", "/console"),
        ("PUT", "/console/accounts"),
        ("OPTIONS", "/console/accounts"),
        ("GET", "/console/files/0000000000000000/console.css"),
        ("GET", "/console/files/0/%2e%2e%2f%2e%2e%2fetc/passwd"),
        ("GET", "/console/%2e%2e/%00"),
        ("HEAD", "/console"),
        ("GET", "/"),
    ):
        answer = await visitor.client.request(method, path)
        assert is_guarded(answer), (method, path)
        assert answer.status_code in (200, 307, 404, 415), (method, path, answer.status_code)


async def test_a_fault_of_ours_is_a_guarded_page_and_the_log_has_the_rest(at: Console) -> None:
    async def broken(_visit: Visit) -> Any:
        raise RuntimeError("the-inside")

    async def away(_visit: Visit) -> Any:
        raise StoreUnavailable("the-inside")

    for handler, status in ((broken, 500), (away, 503)):
        transport = httpx.ASGITransport(Guard(at.desk, Page("GET", "/console", Power.VIEW, handler)))
        cookies = {COOKIE: at.session()}
        async with httpx.AsyncClient(transport=transport, base_url="http://dispatcher.test", cookies=cookies) as client:
            answer = await client.get("/console")
        assert (answer.status_code, "the-inside" in answer.text) == (status, False)
        assert is_guarded(answer)
    assert at.told("web_broke")[0]["request_id"]
    assert at.told("web_store_away")[0]["fault"] == "the-inside"


async def test_a_store_that_is_away_is_told_at_the_door_as_well(at: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise StoreUnavailable("gone")

    session = at.session()
    monkeypatch.setattr(guard, "whose_session", away)
    answer = await Visitor(at, session).get("/console")
    assert answer.status_code == 503
    assert is_guarded(answer)


# Sessions.


async def test_a_session_ends_an_hour_after_its_last_use_and_twelve_after_its_beginning(at: Console) -> None:
    visitor = Visitor(at, at.session())
    for _ in range(12):
        assert (await visitor.get("/console")).status_code == 200
        at.clock.move(HOUR - MINUTE)  # type: ignore[attr-defined]
    at.clock.move(12 * MINUTE)  # type: ignore[attr-defined]
    assert leads_to_the_login(await visitor.get("/console"))
    again = Visitor(at, at.session())
    at.clock.move(HOUR + 1)  # type: ignore[attr-defined]
    assert leads_to_the_login(await again.get("/console"))


async def test_a_page_that_keeps_itself_fresh_keeps_no_session_alive(at: Console) -> None:
    visitor = Visitor(at, at.session())
    for _ in range(4):
        assert (await visitor.get("/console", **{"x-live": "1"})).status_code == 200
        at.clock.move(20 * MINUTE)  # type: ignore[attr-defined]
    assert (await visitor.get("/console", **{"x-live": "1"})).status_code == 401


async def test_a_page_that_is_fresh_already_is_not_sent_again(at: Console) -> None:
    visitor = Visitor(at, at.session())
    first = await visitor.get("/console/accounts", **{"x-live": "1"})
    again = await visitor.get("/console/accounts", **{"x-live": "1", "if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    at.account(Role.SUPPORT, name="new-one")
    changed = await visitor.get("/console/accounts", **{"x-live": "1", "if-none-match": first.headers["etag"]})
    assert "new-one" in changed.text


@pytest.mark.each_store
@pytest.mark.parametrize("change", [{"password": "scrypt$2$8$1$$"}, {"disabled": True}])
async def test_with_another_password_or_disabled_all_sessions_of_an_account_are_over(
    at: Console, change: dict[str, Any]
) -> None:
    one, two = (Visitor(at, at.session(Role.SUPPORT)) for _ in range(2))
    other = Visitor(at, at.session(Role.ADMIN))
    change_account(at.database, "support-all", "tests", at.clock.now(), **change)
    assert [(await visitor.get("/console")).status_code for visitor in (one, two, other)] == [303, 303, 200]


async def test_whoever_logs_out_is_out_and_the_others_are_not(at: Console) -> None:
    one, two = Visitor(at, at.session()), Visitor(at, at.session())
    done = await one.post("/console/logout")
    assert leads_to_the_login(done)
    assert re.search(rf'{COOKIE}="";.* Max-Age=0', done.headers["set-cookie"])
    kept = Visitor(at, one.session)
    assert leads_to_the_login(await kept.get("/console"))
    assert (await two.get("/console")).status_code == 200


async def test_only_a_hash_of_a_session_is_stored(at: Console) -> None:
    token = at.session()
    with at.database.reading() as connection:
        stored = [tuple(row) for row in connection.execute(select(sessions))]
    assert token not in repr(stored)
    assert digest(token) in [row[0] for row in stored]


# Where one is led.


LED = {
    "/console/operators?x=1": "/console/operators?x=1",
    "/console?told=account_made": "/console?told=account_made",
    "https://elsewhere.example": "/console",
    "//elsewhere.example/console/": "/console",
    "/\\elsewhere.example": "/console",
    "/console\\..\\..//elsewhere.example": "/console",
    "/console/\\elsewhere.example": "/console",
    "/consolex.elsewhere.example": "/console",
    "javascript:alert(1)": "/console",
    "/console/\r\nset-cookie: x=1": "/console",
    "/v1/events": "/console",
    "": "/console",
}


async def test_a_login_leads_to_a_page_of_ours_and_nowhere_else(at: Console) -> None:
    at.account(name="admin-all")
    session = at.session()
    for wanted, led in LED.items():
        entered = await Visitor(at).log_in("admin-all", path=str(httpx.URL("/console/login", params={"next": wanted})))
        target = str(httpx.URL("/console/language", params={"next": wanted}))
        for answer in (entered, await Visitor(at, session).post(target, language="zh")):
            assert answer.status_code == 303
            assert answer.headers["location"] == led
            assert "x=1" not in str(answer.headers.get_list("set-cookie"))


async def test_a_page_that_was_wanted_is_shown_after_the_login(at: Console) -> None:
    at.account(name="admin-all")
    visitor = Visitor(at)
    shown = await visitor.get("/console/accounts?x=a%26b")
    assert parse_qs(urlsplit(shown.headers["location"]).query) == {"next": ["/console/accounts?x=a%26b"]}
    answer = await visitor.log_in("admin-all", path=shown.headers["location"])
    assert answer.headers["location"] == "/console/accounts?x=a%26b"


# What is shown.


async def test_the_browsers_language_is_spoken_until_another_is_chosen(at: Console) -> None:
    visitor = Visitor(at)
    for accepted, language in (("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"), ("de,en;q=0.5", "en"), ("", "en"), ("fr", "en")):
        shown = await visitor.get("/console/login", **{"accept-language": accepted})
        assert f'<html lang="{language}">' in shown.text, accepted
    shown = await visitor.get("/console/login")
    chosen = await visitor.post("/console/language?next=/console/login", token_in(shown.text), language="zh")
    assert chosen.headers["location"] == "/console/login"
    assert '<html lang="zh-CN">' in (await visitor.get("/console/login", **{"accept-language": "en"})).text


def test_both_languages_have_the_same_words() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    assert WORDS["en"].keys() >= TOLD
    assert [name for name, word in WORDS["zh"].items() if word == WORDS["en"][name]] == ["title"]
    for name, word in WORDS["en"].items():
        assert word.count("{}") == WORDS["zh"][name].count("{}"), name


async def test_no_page_has_a_script_a_style_or_an_address_that_is_not_ours(at: Console) -> None:
    session = at.session()
    for language, page in product(("en", "zh"), PAGES):
        if page.method != "GET":
            continue
        answer = await Visitor(at, session, **{"accept-language": language}).get(path_of(page))
        foreign = re.search(r"<style|\sstyle=|<script(?! src=\"/console/files/)|\son[a-z]+=|javascript:", answer.text)
        assert foreign is None, (page, foreign)
        for address in re.findall(r"(?:src|href|action)=\"([^\"]*)\"", answer.text):
            assert address.startswith(("/console", "#", "?")), (page, address)


async def test_what_strangers_wrote_is_text_on_every_page(at: Console, database: Database) -> None:
    nasty = "<img src=x onerror=alert(1)>\"'&\u202e"
    now = at.clock.now()
    with database.writing() as connection:
        connection.execute(text("UPDATE deliveries SET uid = :nasty, key = :nasty || operator"), {"nasty": nasty})
        connection.execute(text("UPDATE attempts SET response = :nasty, detail = :nasty"), {"nasty": nasty})
    dead = list(ledger.find(database, ledger.Filter(operator="bolt"), 1))
    ledger.resolve(database, dead, nasty, nasty, now)
    visitor = Visitor(at, at.session())
    for page in PAGES:
        if page.method == "GET":
            answer = await visitor.get(path_of(page))
            if not answer.headers.get("content-type", "text/html").startswith("text/html"):
                # A file, which the browser keeps and does not show.
                assert answer.headers["content-disposition"].startswith("attachment"), page.path
                continue
            assert "<img src=x" not in answer.text, page.path
            assert "\u202e" not in answer.text, page.path


async def test_what_was_done_by_somebody_is_in_the_journal_under_his_name(at: Console) -> None:
    visitor = Visitor(at, at.session(Role.ADMIN, name="li.wei"))
    form: dict[str, Any] = {"name": "new.one", "role": "support", "password": "a whole other sentence"}
    made = await visitor.post("/console/accounts/new", **form)
    assert made.status_code == 303, made.text
    for did in ("disable", "enable"):
        assert (await visitor.post(f"/console/accounts/of/new.one/{did}")).status_code == 303
    reset = await visitor.post("/console/accounts/of/new.one/password", password="one more sentence")
    assert reset.status_code == 303
    with at.database.reading() as connection:
        done = connection.execute(select(journal.c.verb, journal.c.actor, journal.c.note).order_by(journal.c.n)).all()
    told = [(one.verb, re.sub("[0-9a-f]{32}", "…", one.note)) for one in done if one.actor == "console:li.wei"]
    assert told == [
        ("account", "new.one: role support, password …"),
        ("account", "new.one: disabled"),
        ("account", "new.one: enabled"),
        ("account", "new.one: new password …"),
    ]
