"""The console's log in a real browser: found in both languages, replayed and seen delivered; no stranger's script."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatcher.console import sums
from dispatcher.ground.clock import MINUTE
from dispatcher.store.engine import Database
from tests.browser import PHONE, barred, seen, visiting
from tests.consoled import PASSWORD, Console, console_served
from tests.flows import SCRIPT, TURNED, a_day, row_of
from tests.ground import notice
from tests.story import PATIENCE, Story, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_DAY = 560 * MINUTE


@pytest.fixture
def at(database: Database, tmp_path: Path) -> Iterator[Console]:
    with console_served(database, tmp_path) as at:
        a_day(database, at.clock.now() - _DAY)
        yield at


def fill_in(page: "Page", **fields: str) -> None:
    for name, value in fields.items():
        page.fill(f".filters [name={name}]", value)


@pytest.mark.parametrize(
    ("locale", "flow", "button", "status", "next_"),
    [
        ("en-GB", "Wallet flow", "Filter", "Dead", "Dead: the schedule is used up"),
        ("zh-CN", "钱包流水", "查询", "通知失败", "通知失败：重试次数已用完"),
    ],
)
def test_an_order_is_found_and_told_in_both_languages(
    chromium: "Browser", at: Console, locale: str, flow: str, button: str, status: str, next_: str
) -> None:
    with visiting(chromium, at, locale=locale, timezone_id="Asia/Shanghai") as page:
        page.goto("/console")
        page.get_by_role("link", name=flow).first.click()
        # The reader's own zone stands in the filter, and in its address.
        seen(page.locator("[name=zone]")).to_have_value("+08:00")
        fill_in(page, key="doubt-1")
        page.get_by_role("button", name=button).click()
        page.wait_for_url(re.compile("key=doubt-1.*zone=%2B08%3A00"))
        seen(page.locator("tbody tr").filter(has_text="doubt-1").locator(".badge.dead")).to_have_text(status)
        page.get_by_role("link", name="doubt-1", exact=True).first.click()
        seen(page.locator("#next")).to_contain_text(next_)
        seen(page.locator(".timeline > li")).to_have_count(5)


@pytest.mark.parametrize("look", [{}, {"dark": True, "size": PHONE}], ids=["light", "dark phone"])
def test_nobody_is_barred(chromium: "Browser", at: Console, look: dict[str, Any]) -> None:
    number = row_of(at.database, "doubt-1").id
    with visiting(chromium, at, **look) as page:
        for path in ("/console/flow?status=dead", "/console/dead", f"/console/deliveries/{number}"):
            page.goto(path)
            if "flow" in path:
                page.wait_for_selector("#totals .badge.ok")
            for summary in page.locator("details.act summary").all():
                summary.click()
            assert barred(page) == [], path
            # No page is wider than its window.
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path


def test_totals_add_themselves_up_and_stop_when_they_are_told_to(
    chromium: "Browser", at: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "MOST_LOOKED", 6)
    monkeypatch.setattr(sums, "BLOCK", 5)
    with visiting(chromium, at) as page:
        page.goto("/console/flow")
        page.wait_for_selector("#totals .badge.ok")
        seen(page.locator("#totals")).to_contain_text("All rows are added: 74.")
        seen(page.locator("#totals-said")).to_have_text("All rows are added: 74.")
        seen(page.get_by_role("button", name="Stop")).to_have_count(0)
        # Nobody answers it.
        page.route("**/console/flow/totals?*so_far=*", lambda _route: None)
        page.reload()
        page.get_by_role("button", name="Stop").click()
        seen(page.locator("#totals .badge.warn")).to_contain_text("a partial total")
        page.unroute("**/console/flow/totals?*so_far=*")
        page.get_by_role("link", name="Go on").click()
        page.wait_for_selector("#totals .badge.ok")


def test_without_a_script_all_of_it_works(chromium: "Browser", at: Console) -> None:
    with visiting(chromium, at, java_script_enabled=False) as page:
        page.goto("/console/flow?status=dead")
        page.get_by_role("link", name="Add up").click()
        seen(page.locator("#totals")).to_contain_text("All rows are added: 8.")
        page.goto("/console/dead")
        page.get_by_label("Tick dead-3").check()
        page.get_by_role("button", name="Replay…").click()
        page.get_by_role("button", name="Replay 1").click()
        seen(page.get_by_role("status").filter(has_text="Replayed: 1.")).to_be_visible()
        number = row_of(at.database, "dead-4").id
        page.goto(f"/console/deliveries/{number}")
        page.get_by_text("Resolve…").click()
        page.get_by_label("Note: what was agreed").fill("已核对")
        page.get_by_role("button", name="Resolve", exact=True).click()
        seen(page.locator("#next")).to_contain_text("Closed by hand")


def test_ticks_are_counted_and_stay_while_the_list_keeps_itself_fresh(chromium: "Browser", at: Console) -> None:
    with visiting(chromium, at) as page:
        page.goto("/console/dead")
        page.get_by_label("Tick all on this page").check()
        seen(page.locator("[data-ticked]")).to_have_text("8")
        page.get_by_label("Tick dead-3").uncheck()
        # Somebody else takes one of them meanwhile.
        with visiting(chromium, at) as other:
            other.goto(f"/console/deliveries/{row_of(at.database, 'dead-2').id}")
            other.get_by_text("Replay…").click()
            other.get_by_role("button", name="Replay", exact=True).click()
        page.get_by_label("Tick dead-2").wait_for(state="detached")
        seen(page.locator("[data-ticked]")).to_have_text("6")
        seen(page.get_by_label("Tick dead-3")).not_to_be_checked()


def test_no_strangers_text_runs_or_turns_a_page_round(chromium: "Browser", at: Console) -> None:
    with visiting(chromium, at) as page:
        for key in ("hostile-1", "waits-1"):
            page.goto(f"/console/deliveries/{row_of(at.database, key).id}")
            assert page.title().startswith(key)
            assert page.locator("img[src=x]").count() == 0
        shown = page.locator(".timeline").inner_text()
        assert SCRIPT in shown
        assert TURNED not in page.content()
        assert "abc\\u202egnp.exe" in shown
        page.get_by_text("Show all").first.click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_dead_letter_is_replayed_and_seen_delivered(chromium: "Browser", tmp_path: Path) -> None:
    """A real daemon and a real operator: log in, find it, replay it, and the open page says when it is delivered."""
    with Story(tmp_path) as story:
        story.set(retry={"delays": ["1s"]})
        with story.running() as daemon:
            made = story.call("accounts", "create", "wang", "--role", "support", "--password-stdin", stdin=PASSWORD)
            assert made.status == 0, made
            story.enqueue([notice(order_no="lost-1")])
            until(lambda: story.all_are("dead"), told=daemon.text)
            context = chromium.new_context(base_url=daemon.web, locale="zh-CN")
            try:
                page = context.new_page()
                page.set_default_timeout(PATIENCE * 1_000)
                page.goto("/console/flow?key=lost-1")
                page.get_by_label("账号").fill("wang")
                page.get_by_label("密码").fill(PASSWORD)
                page.get_by_role("button", name="登录").click()
                page.get_by_role("link", name="lost-1", exact=True).first.click()
                with story.receiving("--listen", story.operators["acme"]["notice_url"].split("/")[2]) as receiver:
                    page.get_by_text("重发…").click()
                    page.get_by_role("button", name="重发", exact=True).click()
                    page.wait_for_selector(".badge.delivered")
                    assert receiver.booked() == {"lost-1": 1}
                seen(page.locator(".timeline .what").last).to_have_text("第 3 次通知（人工重发）： 商户确认成功")
                told = page.locator(".timeline .what").all_inner_texts()
                assert " ".join(told[-2].split()) == "人工重发"
                seen(page.locator(".timeline")).to_contain_text("console:wang")
            finally:
                context.close()
        story.prove()
