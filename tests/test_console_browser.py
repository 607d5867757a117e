"""The console in a real browser: for everybody, on a phone, in the dark, by keyboard alone, and always fresh."""

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from dispatcher.ground.account import Role
from dispatcher.ground.clock import MINUTE
from dispatcher.ground.policy import Reason
from dispatcher.store import minutes, operators, workers
from dispatcher.store.minutes import Minute
from tests.browser import PHONE, WIDE, barred, seen, visiting
from tests.consoled import PASSWORD, Console, console_served
from tests.stores import open_store
from tests.workshop import accept, failed, settle, take

PATHS = (
    "/console/login",
    "/console",
    "/console/operators",
    "/console/operators/bolt",
    "/console/operators/acme/pause",
    "/console/accounts",
    "/console/accounts/new",
    "/console/accounts/of/li.wei",
    "/console/password",
    "/console/nothing",
)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One server for all of these, with something on every page."""
    folder = tmp_path_factory.mktemp("console")
    database = open_store(folder / "dispatcher.db")
    with console_served(database, folder) as at:
        now = at.clock.now()
        workers.enter(database)
        at.account(name="li.wei")
        at.account(Role.OPERATOR, "acme")
        begins = now - now % MINUTE
        for ago in range(0, 50, 2):
            rows = [Minute(begins - ago * MINUTE, "acme", "notice", "delivered", None, 100 + ago, 9_000_000, 0)]
            rows += [Minute(begins - ago * MINUTE, "bolt", "notice", "retry", "reset", 9, 9_000, 0)]
            minutes.add(database, rows)
        accept(database, 1, 2, operator="bolt", now=now - 5 * MINUTE)
        settle(
            database, *(failed(one, now, Reason.READ_TIMEOUT) for one in take(database, now, operator="bolt")), now=now
        )
        operators.stop(database, "coin", "held_at", ("hold", "breaker", None), now)
        yield at
    database.close()


def is_wider_than_the_screen(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (PHONE, True)], ids=["wide and light", "a phone and dark"])
def test_nothing_bars_anybody_from_a_page(chromium: Any, at: Console, size: tuple[int, int], dark: bool) -> None:
    language = "zh-CN" if dark else "en-GB"
    with visiting(chromium, at, size=size, dark=dark, locale=language) as page:
        for path in PATHS[1:]:
            page.goto(path)
            for folded in page.locator("main details").all():
                folded.locator("summary").click()
            assert barred(page) == [], path
            assert not is_wider_than_the_screen(page), path
            assert page.evaluate("document.documentElement.lang") == language.removesuffix("-GB")
    with visiting(chromium, at, None, size=size, dark=dark) as page:
        page.goto(PATHS[0])
        assert barred(page) == []


def test_axe_would_find_something(chromium: Any, at: Console) -> None:
    with visiting(chromium, at) as page:
        page.goto("/console")
        page.evaluate("document.querySelector('main').append(document.createElement('input'))")
        page.evaluate("document.querySelector('h1').style.color = '#ddd'")
        found = " ".join(barred(page))
    assert "label" in found
    assert "color-contrast" in found


def test_by_keyboard_alone_one_logs_in_and_pauses_an_operator(chromium: Any, at: Console) -> None:
    at.account(name="keys.only")
    with visiting(chromium, at, None) as page:
        page.goto("/console")
        # The name's field has the focus already.
        page.keyboard.type("keys.only")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: urlsplit(url).path == "/console")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        _to(page, "Operators")
        page.wait_for_url("**/console/operators")
        _to(page, "acme")
        page.wait_for_url("**/console/operators/acme")
        _to(page, "Pause")
        page.wait_for_url("**/pause")
        page.keyboard.type("by keyboard alone")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/operators/acme?told=operator_paused")
        seen(page.get_by_role("status").filter(has_text="The operator is paused")).to_be_visible()
    entry = operators.done_to(at.database, "acme")[-1]
    assert (entry["verb"], entry["actor"], entry["note"]) == ("pause", "console:keys.only", "by keyboard alone")
    operators.start(at.database, "acme", "paused_at", ("resume", "tests", None), at.clock.now())
    at.desk.forget()


def _to(page: Any, name: str) -> None:
    """Tab until the link of this name has the focus, which can be seen; then Enter."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"no way to {name} by Tab")


def test_a_page_keeps_itself_fresh_and_leaves_alone_what_somebody_does_on_it(chromium: Any, at: Console) -> None:
    with visiting(chromium, at) as page:
        page.goto("/console")
        page.locator("#numbers-hour summary").click()
        page.locator("#numbers-hour summary").focus()
        now = at.clock.now()
        begins = now - now % MINUTE
        minutes.add(at.database, [Minute(begins - 55 * MINUTE, "acme", "notice", "delivered", None, 123_456, 0, 0)])
        page.get_by_text("123,456").first.wait_for()
        assert page.evaluate("document.querySelector('#numbers-hour').open")
        assert page.evaluate("document.activeElement.closest('details').id") == "numbers-hour"
        # Paused, it asks no more.
        page.get_by_role("button", name="Live").click()
        seen(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.clock.install()
        page.clock.run_for(30_000)
        assert asked == []
        page.get_by_role("button", name="Paused").click()
        with page.expect_request(lambda _request: True):
            page.clock.run_for(10_000)


def test_ticks_stay_with_their_rows_when_others_come(chromium: Any, at: Console) -> None:
    row = '<tr><td class="tick"><input type="checkbox" name="ids" value="{0}"></td><td>row {0}</td></tr>'
    table = '<table id="rows" data-live><tbody>{}</tbody></table><input type="checkbox" data-ticks="ids" id="all">'
    table += '<output data-ticked="ids"></output><button data-needs="ids" id="do">x</button>'

    def page_with(*numbers: int) -> str:
        rows = "".join(row.format(number) for number in numbers)
        live = '<button id="live" data-on="" data-off="" data-away=""></button><p id="live-status"></p>'
        script = re.search(r'<script src="[^"]+"', shell)
        assert script is not None
        return f"<!doctype html><main id=main>{live}{table.format(rows)}</main>{script[0]}></script>"

    with visiting(chromium, at) as page:
        shell = page.request.get("/console").text()
        given = [page_with(1, 2, 3)]
        page.route("**/console/rows", lambda route: route.fulfill(body=given[-1], content_type="text/html"))
        page.goto("/console/rows")
        assert page.locator("#do").is_disabled()
        page.locator("[value='2']").check()
        page.locator("[value='2']").focus()
        given.append(page_with(5, 4, 2, 3))
        page.get_by_text("row 5").wait_for()
        assert page.locator("[name=ids]:checked").evaluate_all("some => some.map(one => one.value)") == ["2"]
        assert page.evaluate("document.activeElement.value") == "2"
        seen(page.locator("output")).to_have_text("1")
        seen(page.locator("#do")).to_be_enabled()
        # The ticked one is gone: nothing is ticked in its place.
        given.append(page_with(3, 5))
        page.get_by_text("row 4").wait_for(state="detached")
        seen(page.locator("[name=ids]:checked")).to_have_count(0)
        seen(page.locator("#do")).to_be_disabled()
        page.locator("#all").check()
        seen(page.locator("[name=ids]:checked")).to_have_count(2)


def test_when_the_server_is_away_it_is_said_and_it_comes_back_by_itself(chromium: Any, at: Console) -> None:
    with visiting(chromium, at) as page:
        page.clock.install()
        page.goto("/console")
        page.route("**/console", lambda route: route.abort())
        _until_said(page, "No answer from the server")
        page.unroute("**/console")
        _until_said(page, "")
        assert page.locator("#live-status").inner_text() == ""


def _until_said(page: Any, words: str) -> None:
    """Lets the page's clock run until its status begins so."""
    end = time.monotonic() + 60
    while True:
        page.clock.run_for(3_500)
        said = page.locator("#live-status").inner_text() if page.locator("#live-status").is_visible() else ""
        if said.startswith(words) and bool(said) == bool(words):
            return
        assert time.monotonic() < end, said


def test_a_session_that_ends_leads_to_the_door_by_itself(chromium: Any, at: Console) -> None:
    with visiting(chromium, at, Role.SUPPORT) as page:
        page.goto("/console/operators")
        page.context.clear_cookies(name="dispatcher_session")
        page.wait_for_url("**/console/login?next=/console/operators")


def test_times_are_the_readers_with_utc_beside(chromium: Any, at: Console) -> None:
    with visiting(chromium, at, timezone_id="Asia/Shanghai", locale="zh-CN") as page:
        page.goto("/console/accounts")
        shown = page.locator("time").first
        utc = str(shown.get_attribute("datetime"))[11:19]
        assert str(shown.get_attribute("title")).endswith(f"{utc} UTC")
        there = f"{(int(utc[:2]) + 8) % 24:02}{utc[2:]}"
        assert shown.inner_text().endswith(there)
        assert "Asia/Shanghai (UTC+08:00)" in page.locator("footer").inner_text()
        assert page.get_by_role("heading", level=1).inner_text() == "账号管理"


def test_without_a_script_everything_works(chromium: Any, at: Console) -> None:
    with visiting(chromium, at, java_script_enabled=False) as page:
        page.goto("/console/operators/acme/pause")
        page.fill("#note", "no script here")
        page.get_by_role("button", name="Pause").click()
        seen(page.get_by_text("The operator is paused")).to_be_visible()
        page.get_by_role("link", name="Resume").click()
        page.fill("#note", "over")
        page.get_by_role("button", name="Resume").click()
        seen(page.get_by_text("The operator is resumed")).to_be_visible()
        page.get_by_role("button", name="中文").click()
        seen(page.get_by_role("heading", name="最近一小时").first).to_be_visible()
        page.locator("#menu summary").click()
        page.get_by_role("button", name="退出登录").click()
        page.wait_for_url("**/console/login")


def test_a_policy_keeps_foreign_scripts_out(chromium: Any, at: Console) -> None:
    refused: list[str] = []
    with visiting(chromium, at, wrong=refused) as page:
        page.goto("/console")
        ran = page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
                return window.ran === true;
            }"""
        )
        assert ran is False
        page.evaluate("window.blocked = 0; addEventListener('securitypolicyviolation', () => window.blocked++)")
        page.evaluate("fetch('https://elsewhere.example/').catch(() => 0)")
        page.wait_for_function("window.blocked === 1")
    assert len(refused) >= 2
    assert all("Content Security Policy" in one for one in refused), refused
