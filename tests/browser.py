"""A real browser for the tests: Debian's Chromium by Playwright, and axe, which finds what bars people from a page.

The fixture `chromium` (conftest) is one browser for a module. A test opens a page by `visiting`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatcher.ground.account import Role
from tests.consoled import COOKIE, Console
from tests.story import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page
    from playwright.sync_api._generated import LocatorAssertions

PROGRAMS = (Path("/usr/bin/chromium"), Path("/usr/bin/chromium-browser"))
WIDE, PHONE = (1280, 900), (390, 844)
# Everything that axe knows of WCAG 2.2 A and AA, and what it calls best practice.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def started() -> "Iterator[Browser]":
    """Skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((one for one in PROGRAMS if one.exists()), None)
    if program is None:
        pytest.skip(f"there is no browser: {' or '.join(map(str, PROGRAMS))}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: "Browser",
    at: Console,
    role: Role | str | None = Role.ADMIN,
    operator: str | None = None,
    *,
    size: tuple[int, int] = WIDE,
    dark: bool = False,
    wrong: list[str] | None = None,
    **options: Any,
) -> "Iterator[Page]":
    """A page of a fresh browser, logged in with such an account (None: nobody).

    Its scripts must not fail, nor anything be refused to them, unless `wrong` is where the faults are to go.

    `options` are Playwright's for a context, like `locale`, `timezone_id`, `java_script_enabled`.
    """
    given = {"locale": "en-GB", "timezone_id": "UTC", **options}
    given |= {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": "dark" if dark else "light"}
    context = browser.new_context(base_url=at.url, **given)
    if role is not None:
        context.add_cookies([{"name": COOKIE, "value": at.session(role, operator), "url": f"{at.url}/console"}])
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1_000)
    faults: list[str] = [] if wrong is None else wrong
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda told: faults.append(told.text) if _is_fault(told.type, told.text) else None)
    try:
        yield page
        assert wrong is not None or faults == []
    finally:
        context.close()


def _is_fault(kind: str, text: str) -> bool:
    """Chromium says of every answer of 400 and above that it failed: such answers are often what is wanted."""
    return kind in ("error", "warning") and not text.startswith("Failed to load resource")


def seen(shown: "Locator") -> "LocatorAssertions":
    """What is to come true of it in time: behind a click the page of before may still stand there, or half of the next.

    A plain assert is for what the step before has waited for.
    """
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE * 1_000)
    return expect(shown)


def barred(page: "Page") -> list[str]:
    """What axe finds on the page, as sentences."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT)
    # Of what is in order nothing is told: to describe that takes longer than to look.
    found = page.evaluate(
        "options => axe.run(options).then(found => found.violations)",
        {"runOnly": _RULES, "resultTypes": ["violations"]},
    )
    return [
        f"{one['id']}: {one['help']}: {[(node['target'], node.get('failureSummary')) for node in one['nodes'][:3]]}"
        for one in found
    ]


def looks(at: Console, browser: "Browser", paths: Sequence[str], folder: Path, **given: Any) -> list[Path]:
    """Screenshots for people: each page light and dark, wide and on a phone."""
    made = []
    for path in paths:
        for dark in (False, True):
            for name, size in (("wide", WIDE), ("phone", PHONE)):
                with visiting(browser, at, size=size, dark=dark, **given) as page:
                    page.goto(path)
                    shown = path.strip("/").replace("/", "-").partition("?")[0]
                    made.append(folder / f"{shown}-{'dark' if dark else 'light'}-{name}.png")
                    page.screenshot(path=made[-1], full_page=True)
    return made
