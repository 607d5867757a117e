"""The console's log, a delivery's page and the dead letters: what they find, what they do, and what they never show."""

import ast
import asyncio
import base64
import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import event as happens
from sqlalchemy import text

from dispatcher.console import dead, delivery, door, export, flow, sums
from dispatcher.console.dead_words import DEAD_WORDS
from dispatcher.console.letter import letter
from dispatcher.console.log_words import LOG_WORDS
from dispatcher.console.routes import PAGES
from dispatcher.console.sieve import sieve_of
from dispatcher.console.view import View
from dispatcher.console.words import WORDS
from dispatcher.ground.account import Power, Role
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Auth, Signing
from dispatcher.ground.policy import Status
from dispatcher.ground.secret import Secret
from dispatcher.store import ledger
from dispatcher.store.counts import through
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Filter
from dispatcher.store.operators import stop
from tests.consoled import Console, Visitor, consoled
from tests.flows import SCRIPT, TURNED, a_day, bury_all, put, row_of, spin
from tests.ground import IV, KEY, NOW, operator
from tests.workshop import Bench, configuration, opened, take

pytestmark = pytest.mark.anyio
each_store = pytest.mark.each_store

Dictionary = Mapping[str, Mapping[str, str]]


@pytest.fixture
async def console(database: Database, tmp_path: Path) -> AsyncIterator[Console]:
    async with consoled(database, tmp_path) as at:
        yield at


def visitor(at: Console, role: Role = Role.ADMIN, operator: str | None = None, language: str = "en") -> Visitor:
    return Visitor(at, at.session(role, operator), **{"accept-language": language})


def orders(page: str) -> list[str]:
    """The order numbers of a page's table."""
    return re.findall(r'<a href="/console/deliveries/[0-9]+"><bdi class="mono wrap">(.*?)</bdi></a>', page)


def link(page: str, word: str) -> str:
    found = re.search(rf'<a class="button"[^>]* href="([^"]*)">{word}</a>', page)
    assert found is not None, f"no link {word}"
    return found[1].replace("&amp;", "&")


# --- the log


@each_store
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("operator=bolt", {"bolt-1"}),
        ("type=settle", {"tx-0", "tx-1", "tx-2"}),
        ("status=resolved", {"closed-1"}),
        ("status=dead&reason=read_timeout", {"doubt-1"}),
        ("reason=http_status", {"bolt-1", "closed-1", "waits-1"}),
        ("uid=player-2&status=dead", {"dead-2", "dead-5"}),
        ("key=yes-7", {"yes-7"}),
        ("status=dead&game=50", {"dead-1", "dead-3", "dead-5"}),
        ("game=fortune-mouse", {"tx-0", "tx-1", "tx-2"}),
        ("business=%3C%2Fscript%3E%3Cimg+src%3Dx+onerror%3Ddocument.title%3D%27broken%27%3E", {"hostile-1"}),
        ("game=no-such-game", set()),
    ],
)
async def test_each_filter_finds_what_it_names(console: Console, query: str, found: set[str]) -> None:
    a_day(console.database)
    answer = await visitor(console).get(f"/console/flow?{query}")
    assert answer.status_code == 200
    assert set(orders(answer.text)) == found


@each_store
async def test_pages_lead_to_every_row_once_and_back(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "ROWS", 7)
    monkeypatch.setattr(flow.found, "__defaults__", (7,))
    a_day(console.database)
    reader, path, pages = visitor(console), "/console/flow", []
    while True:
        page = (await reader.get(path)).text
        pages.append((path, orders(page)))
        if ">Older</a>" not in page:
            break
        path = link(page, "Older")
    every = [row.key for row in ledger.find(console.database, Filter(), None)]
    assert [key for _, keys in pages for key in keys] == every
    for _, keys in reversed(pages[:-1]):
        page = (await reader.get(link(page, "Newer"))).text
        assert orders(page) == keys
    assert ">Newer</a>" not in page


@each_store
async def test_a_game_is_looked_for_in_so_many_rows_and_the_page_says_how_far(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index knows games: each page looks at some rows, and the next one goes on where it stopped."""
    monkeypatch.setattr(flow, "MOST_LOOKED", 20)
    a_day(console.database)
    reader, path, seen, pages = visitor(console), "/console/flow?game=50", [], 0
    while True:
        page = (await reader.get(path)).text
        pages += 1
        seen += orders(page)
        if ">Look on</a>" not in page:
            break
        assert "20 deliveries were looked at, back to" in page
        path = link(page, "Look on")
    assert (seen, pages) == (["dead-5", "dead-3", "dead-1"], 4)


@pytest.mark.parametrize(
    "query",
    ["status=lost", "since=yesterday", "uid=a%01b", "until=9999999-01", "zone=%2B08", "key=" + "x" * 300, "reason=x"],
)
async def test_what_cannot_be_read_is_told_and_nothing_is_looked_up(console: Console, query: str) -> None:
    """A filter that is not heeded would lie."""
    a_day(console.database)
    answer = await visitor(console).get(f"/console/flow?{query}")
    assert (answer.status_code, orders(answer.text)) == (422, [])
    assert 'aria-invalid="true"' in answer.text or "zone" in query or "reason" in query or "status" in query
    for more in ("totals", "export"):
        assert (await visitor(console).get(f"/console/flow/{more}?{query}")).status_code == 422


def test_times_are_read_in_the_zone_that_is_named() -> None:
    def bounds(query: str) -> tuple[int | None, int | None]:
        where = sieve_of(query, NOW, "en").where
        return where.since, where.until

    eight = 8 * HOUR
    there = bounds("since=2026-01-01T09:30&until=2026-01-01T10:00:30&zone=%2B08:00")
    assert there == tuple(at - eight for at in bounds("since=2026-01-01T09:30&until=2026-01-01T10:00:30") if at)
    assert bounds("since=2026-01-01T09:30Z&zone=%2B08:00") == bounds("since=2026-01-01T09:30")
    assert bounds("span=1h&since=2026-01-01") == (NOW - HOUR, None)
    assert bounds("span=7d") == (NOW - 7 * 24 * HOUR, None)
    # NOW is midnight in UTC, and eight in the morning there.
    assert NOW % (24 * HOUR) == 0
    assert bounds("span=today") == (NOW, None)
    assert bounds("span=today&zone=%2B08:00") == (NOW - eight, None)
    assert bounds("span=today&zone=-03:00") == (NOW - 21 * HOUR, None)


# --- totals


def told_totals(page: str) -> dict[str, list[str]]:
    """type → count, in, out, net, ratio."""
    rows = re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', page, re.S)
    return {
        kind: [re.sub("<.*?>|,", "", cell).strip() for cell in re.findall(r"<td.*?</td>", rest, re.S)]
        for kind, rest in rows
    }


async def added_up(reader: Visitor, path: str) -> tuple[dict[str, list[str]], int]:
    """By the links that lead on, as without a script; and in how many steps."""
    steps = 0
    while True:
        page = (await reader.get(path)).text
        steps += 1
        if ">Go on</a>" not in page:
            assert "rows are added" in page
            return told_totals(page), steps
        assert "a partial total" in page
        path = link(page, "Go on")


@each_store
async def test_totals_are_exact_however_many_steps_they_take(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    a_day(console.database)
    put(console.database, spin("huge-1", total_bet="99999999999999999999.9999", total_win="0"), at=NOW - HOUR)
    put(console.database, spin("huge-2", total_bet="0.0001", total_win="99999999999999999999.9999"), at=NOW - HOUR)
    rows = [json.loads(row.body) for row in ledger.find(console.database, Filter(type="notice"), None)]
    bet, win, net = (sum(Decimal(one[name]) for one in rows) for name in ("total_bet", "total_win", "net_win"))
    wanted = {"notice": [str(len(rows)), str(bet), str(win), str(net)], "settle": ["3", "30.0", "37.5", "7.5"]}
    reader = visitor(console)
    whole, steps = await added_up(reader, "/console/flow/totals")
    assert ({kind: told[:4] for kind, told in whole.items() if kind != "all"}, steps) == (wanted, 1)
    assert whole["settle"][4] == "125.00 %"
    monkeypatch.setattr(sums, "MOST_LOOKED", 6)
    monkeypatch.setattr(sums, "BLOCK", 5)
    again, steps = await added_up(reader, "/console/flow/totals")
    assert (again, steps > 5) == (whole, True)


async def test_a_sum_of_very_many_amounts_is_rounded_nowhere(console: Console) -> None:
    """Of a hundred million of the largest amounts the sum has 32 digits: more than a decimal keeps by itself."""
    put(console.database, spin("small-1", total_bet="0.0001", total_win="0"))
    so_far = sums.Totals(NOW, sums={"notice": sums.Sum(10**8, Decimal("9" * 28 + ".9998"))})
    view = View(console.database, console.account())
    added = sums.go_on(view, sieve_of("", NOW, "en"), so_far)
    assert str(added.sums["notice"].bet) == "9" * 28 + ".9999"


@each_store
@pytest.mark.parametrize(
    "query", ["status=dead&game=50", "uid=player-1", "reason=http_status", "span=7d&operator=bolt"]
)
async def test_totals_are_those_of_the_filter(console: Console, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    monkeypatch.setattr(sums, "MOST_LOOKED", 6)
    monkeypatch.setattr(sums, "BLOCK", 5)
    a_day(console.database)
    console.clock.at = NOW + 24 * HOUR  # type: ignore[attr-defined]
    sieve = sieve_of(query, console.clock.now(), "en")
    fit = [row for row in ledger.find(console.database, sieve.where, None) if sieve.fits(row.type, row.body)]
    told, _ = await added_up(visitor(console), f"/console/flow/totals?{query}")
    counted = {kind: int(cells[0]) for kind, cells in told.items() if kind != "all"}
    assert counted == Counter(row.type for row in fit)
    assert counted["notice"] > 0


async def test_nobody_can_hand_on_false_totals(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added so far stands in the address: it holds for this session and this filter, as we wrote it."""
    monkeypatch.setattr(sums, "MOST_LOOKED", 6)
    monkeypatch.setattr(sums, "BLOCK", 5)
    a_day(console.database)
    reader = visitor(console)
    onward = link((await reader.get("/console/flow/totals")).text, "Go on")
    assert (await reader.get(onward)).status_code == 200
    other = visitor(console)
    for forged, by in [(onward, other), (f"{onward}0", reader), (onward.replace("?", "?operator=bolt&"), reader)]:
        answer = await by.get(forged)
        assert (answer.status_code, "begin again" in answer.text) == (422, True), forged


@each_store
@pytest.mark.parametrize(
    "where",
    [
        Filter(),
        Filter(operator="acme"),
        Filter(type="settle"),
        Filter(status=Status.DEAD),
        Filter(status=Status.DEAD, reason="read_timeout", since=NOW, until=NOW + 400 * MINUTE),
        Filter(status=Status.DELIVERED, since=NOW + 551 * MINUTE),
        Filter(reason="http_status"),
        Filter(uid="player-1", operator="acme"),
        Filter(operator="nobody"),
    ],
)
def test_steps_come_by_every_row_that_fits_once(database: Database, where: Filter) -> None:
    a_day(database)
    found, place, steps = [], None, 0
    while steps == 0 or place is not None:
        some, looked, place = through.step(database, where, place, 4)
        assert looked <= 4 + 1
        found += [json.loads(body).get("order_no") or json.loads(body)["txId"] for _, body in some]
        steps += 1
    assert sorted(found) == sorted(row.key for row in ledger.find(database, where, None))


# --- one place that knows whose rows are whose


async def test_a_bound_account_reaches_nothing_of_another_operator_by_any_address(console: Console) -> None:
    a_day(console.database)
    theirs = row_of(console.database, "bolt-1", "bolt")
    own = row_of(console.database, "dead-1")
    reader = visitor(console, Role.OPERATOR, "acme")
    queries = ("", "?operator=bolt", "?key=bolt-1", "?status=dead&operator=bolt&game=49", "?uid=player-1&all=1")
    asked = 0
    # Whoever logs out on the way sees nothing of anybody.
    pages = [page for page in PAGES if page not in door.PAGES]
    for page in pages:
        path = page.path.replace("{id}", str(theirs.id)).replace("{name}", "bolt")
        for query in queries:
            form = {"id": str(theirs.id), "shown": str(theirs.id), "note": "mine", "filter": "operator=bolt"}
            sent: dict[str, Any] = {"take": "all", "do": "replay", **form}
            answer = await (reader.get(path + query) if page.method == "GET" else reader.post(path + query, **sent))
            # What was asked for stands in the form again.
            shown = re.sub('value="[^"]*"|href="[^"]*key=bolt-1[^"]*"|action="[^"]*"', "", answer.text)
            marks = ("1.10", f"deliveries/{theirs.id}", f"row-{theirs.id}", "bolt-1")
            assert not [mark for mark in marks if mark in shown], (path, query)
            asked += 1
            if page.method == "POST" and page.power is not Power.VIEW:
                assert answer.status_code == 403, path
    assert asked == 5 * len(pages) > 100
    assert (await reader.get(f"/console/deliveries/{theirs.id}")).status_code == 404
    assert (await reader.get(f"/console/deliveries/{own.id}")).status_code == 200
    assert row_of(console.database, "bolt-1", "bolt").status == "dead"


def test_a_view_takes_by_hand_only_what_its_account_sees(database: Database) -> None:
    """Even if a role were given both: a binding, and the power to replay."""
    a_day(database)
    theirs, own = row_of(database, "bolt-1", "bolt"), row_of(database, "dead-1")

    class Bound:
        name, operator = "wang", "acme"

        def may(self, power: Power) -> bool:
            return True

        def sees(self, operator: str) -> bool:
            return operator == "acme"

    view = View(database, Bound())  # type: ignore[arg-type]
    assert view.chosen([theirs.id, own.id]) == [own]
    assert view.numbered(theirs.id) is None
    assert view.standing("bolt") is None
    assert [row.key for row in view.replay([theirs, own], NOW + 900 * MINUTE).taken] == ["dead-1"]
    assert view.resolve([theirs], "note", NOW).taken == []
    assert view.step(Filter(operator="bolt"), None, 10) == ([], 0, None)
    # Whatever a place says that was carried along.
    place = through.Place("notice", "bolt", 2**62, 2**62)
    own_rows = list(ledger.find(database, Filter(operator="acme"), None))
    assert len(view.step(Filter(), place, 100).found) == len(own_rows)


def test_only_the_view_looks_deliveries_up() -> None:
    """Another module that asked the store by itself could forget whose rows they are."""
    rooms = {"ledger", "search", "through", "line", "replays", "replay_steps", "corridor", "schema"}
    for path in sorted((Path(flow.__file__).parent).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if path.name == "view.py" or not isinstance(node, ast.ImportFrom):
                continue
            names = {alias.name for alias in node.names}
            if node.module == "dispatcher.store":
                assert not names & rooms, f"{path.name}: {names & rooms}"
            elif node.module and node.module.removeprefix("dispatcher.store.") in rooms:
                # What they are called may be known; what looks them up, not.
                assert not [name for name in names if name.islower()], f"{path.name}: {names}"


# --- one delivery


async def page_of(at: Console, key: str, reader: Visitor | None = None, operator: str = "acme", query: str = "") -> str:
    number = row_of(at.database, key, operator).id
    answer = await (reader or visitor(at)).get(f"/console/deliveries/{number}{query}")
    assert answer.status_code == 200, answer.text
    return answer.text


def said(page: str) -> list[str]:
    """The timeline's headings, in order."""
    found = re.findall(r'<div class="what">(.*?)</div>', page, re.S)
    return [" ".join(re.sub("<.*?>", "", one).split()) for one in found]


async def test_a_delivery_is_told_from_its_acceptance_to_what_was_done_by_hand(console: Console) -> None:
    a_day(console.database)
    page = await page_of(console, "closed-1")
    failed = "The operator's HTTP status is no success".replace("'", "&#39;")
    assert said(page) == [
        "Accepted",
        f"Attempt 1 (first): {failed}",
        *(f"Attempt {n} (by the schedule): {failed}" for n in (2, 3, 4)),
        "Resolved by hand",
    ]
    assert "HTTP 500" in page
    assert "{&#34;error&#34;: &#34;no such wallet&#34;}" in page
    assert "console:wang" in page
    assert "已与商户核对" in page
    assert "Closed by hand. Nothing more is sent by itself." in page


async def test_a_doubt_is_explained_with_the_attempt_and_with_the_whole(console: Console) -> None:
    a_day(console.database)
    page = await page_of(console, "doubt-1")
    assert page.count("the order had gone out, and no whole answer came.") == 4
    assert "although it never said so. Ask before you resolve it" in page
    chinese = await page_of(console, "doubt-1", visitor(console, language="zh"))
    assert chinese.count("订单已发出，但未收到完整应答。") == 4


async def test_what_comes_next_is_a_sentence_for_each_state(console: Console) -> None:
    a_day(console.database)
    at = NOW + 555 * MINUTE
    for key, sentence in [
        ("yes-1", "Delivered. Nothing more is sent."),
        ("dead-1", "Dead: the schedule is used up"),
        ("closed-1", "Closed by hand"),
    ]:
        assert sentence in await page_of(console, key), key
    due = row_of(console.database, "waits-1").due_at
    assert due is not None
    for now, sentence in [(at, "The next attempt is due: <time"), (due, "Due now: it is sent")]:
        console.clock.at = now  # type: ignore[attr-defined]
        assert sentence in await page_of(console, "waits-1"), sentence
    for column, sentence in [("held_at", "The breaker holds the operator"), ("paused_at", "The operator is paused")]:
        stop(console.database, "acme", column, ("pause", "tests", None), at)
        assert sentence in await page_of(console, "waits-1")
    claimed = take(console.database, due)
    assert [one.key for one in claimed] == ["waits-1"]
    assert "An attempt is in flight." in await page_of(console, "waits-1")


async def test_the_request_shows_what_is_sent_and_nothing_that_proves_us(tmp_path: Path, database: Database) -> None:
    async with consoled(database, tmp_path) as at:
        a_day(database)
        page = html.unescape(await page_of(at, "dead-1"))
        told = page[page.index("The request, as it would be sent now") :]
        body = json.loads(re.search(r'(\{"order_no":"dead-1","data".*?\})', told)[1])  # type: ignore[index]
        plain = '{"order_no":"dead-1","total_bet":10,"total_win":12.5,"net_win":2.5,"business":"Spin投入",'
        assert opened(body["data"]).startswith(plain)
        assert plain in told
        assert "POST <bdi>https://acme.example/Demo/notice</bdi>" in told
        assert "Authorization: Bearer …" in told
        for secret in ("the-token-of-acme", KEY, IV):
            assert secret not in page
        # Of what is over there is nothing to send.
        assert "as it would be sent now" not in await page_of(at, "yes-1")


def test_the_request_of_an_operator_with_every_secret_hides_each() -> None:
    """A header of its own, a signature, a minted token, an address with a secret in its path and its query."""
    url = "https://acme.example/hook/T0123456789abcdefghij/x?sig=abcdefgh&Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4=&plain"
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    acme = operator(
        {"url": url, "auth": Auth.MINTED},
        headers={"X-Api-Key": Secret("a-secret-header")},
        signing=Signing((Secret(secret),)),
    )
    body = spin("1").body
    row = ledger.Row(1, "acme", "notice", "1", "player-1", "dead", 4, None, NOW, NOW, None, False, False, body)
    made = letter(acme, row, NOW)
    assert made.url == "https://acme.example/hook/…/x?sig=…&plain=…"
    assert [(name, value) for name, value in made.headers if name not in ("webhook-id", "webhook-timestamp")] == [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer …"),
        ("X-Api-Key", "…"),
        ("webhook-signature", "v1,…"),
    ]
    assert dict(made.headers)["webhook-timestamp"] == str(NOW // SECOND)


async def test_the_request_that_is_shown_is_the_one_that_goes_out_but_for_what_proves_us(tmp_path: Path) -> None:
    signature = f'{{ secret = "whsec_{base64.b64encode(b"s" * 32).decode()}" }}'
    config = configuration(tmp_path, headers='{ X-Api-Key = "a-secret-header" }', signature=signature)
    async with Bench(config) as at:
        at.acme.mock(side_effect=[httpx.Response(500), httpx.Response(200)])
        await at.send(1)
        at.clock.move(MINUTE)
        shown = letter(at.config.operators["acme"], at.row(), at.clock.now())
        await at.look()
        sent = at.request()
    assert (shown.url, shown.body) == (str(sent.url), sent.content.decode())
    assert opened(json.loads(shown.body)["data"]) == shown.plain
    for name, value in shown.headers:
        assert sent.headers[name].startswith(value.removesuffix("…")), name
        assert ("…" in value) == (name in ("Authorization", "X-Api-Key", "webhook-signature"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"reading": None}, "no key to encrypt with"), ({"terms": {}}, "takes no notice")],
)
def test_a_request_that_can_not_be_made_says_why(changes: dict[str, Any], told: str) -> None:
    row = ledger.Row(1, "acme", "notice", "1", "u", "dead", 4, None, NOW, NOW, None, False, False, spin("1").body)
    with pytest.raises(Unfit, match=told):
        letter(replace(operator(), **changes), row, NOW)


async def test_a_parked_delivery_names_those_it_waits_for(console: Console) -> None:
    events = [spin(f"line-{n}")._replace(sequence="player-1") for n in range(3)]
    put(console.database, *events, at=NOW)
    other = spin("line-of-bolt", "bolt")._replace(sequence="player-1")
    put(console.database, other, at=NOW)
    page = await page_of(console, "line-2")
    assert "Waits behind another of its line." in page
    # Whose turn it is comes first.
    assert orders(page) == ["line-0", "line-1"]


async def test_a_long_history_shows_its_newest_and_the_rest_on_demand(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "NEWEST", 3)
    a_day(console.database)
    assert len(said(await page_of(console, "dead-1"))) == 3
    assert "2 earlier entries" in await page_of(console, "dead-1")
    assert len(said(await page_of(console, "dead-1", query="?all=1"))) == 5


@each_store
async def test_replay_and_resolve_go_into_the_journal_under_the_accounts_name(console: Console) -> None:
    a_day(console.database)
    reader = visitor(console, Role.SUPPORT)
    number = row_of(console.database, "dead-1").id
    forms: list[dict[str, Any]] = [{}, {"note": "  "}, {"note": "x" * 2_001}]
    for form in forms:
        refused = await reader.post(f"/console/deliveries/{number}/resolve", **form)
        assert (refused.status_code, "A note is needed" in refused.text) == (422, True)
    assert row_of(console.database, "dead-1").status == "dead"
    note = "已与\r\n商户 核对 <b>"
    answer = await reader.post(f"/console/deliveries/{number}/resolve", note=note)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/deliveries/{number}")
    page = await page_of(console, "dead-1", reader)
    assert "已与 商户 核对 &lt;b&gt;" in page
    assert (await reader.post(f"/console/deliveries/{number}/replay")).status_code == 303
    row = row_of(console.database, "dead-1")
    assert (row.status, row.due_at) == ("pending", console.clock.now())
    _, done = ledger.history(console.database, number)
    assert [(one["verb"], one["actor"], one["note"]) for one in done] == [
        ("resolve", "console:support-all", "已与 商户 核对 <b>"),
        ("replay", "console:support-all", None),
    ]
    again = await reader.post(f"/console/deliveries/{number}/replay")
    assert (again.status_code, "it is not dead" in again.text) == (409, True)


async def test_what_may_not_be_done_is_neither_offered_nor_done(console: Console) -> None:
    a_day(console.database)
    looker, number = visitor(console, Role.OPERATOR, "acme"), row_of(console.database, "dead-1").id
    assert "Replay…" not in await page_of(console, "dead-1", looker)
    assert 'name="take"' not in (await looker.get("/console/dead")).text
    assert "Replay…" in await page_of(console, "dead-1")
    assert "Replay…" not in await page_of(console, "yes-1")
    for by, token, status in [(looker, None, 403), (visitor(console), "0" * 64, 403)]:
        for verb in ("replay", "resolve"):
            assert (await by.post(f"/console/deliveries/{number}/{verb}", token, note="x")).status_code == status
    assert row_of(console.database, "dead-1").status == "dead"
    for path in ("0", "-1", "x", "9" * 40, str(10**17)):
        assert (await visitor(console).get(f"/console/deliveries/{path}")).status_code == 404


# --- the dead letters


def rows_of_form(page: str) -> list[str]:
    return re.findall('<input type="hidden" name="id" value="([0-9]+)">', page)


@each_store
async def test_dead_letters_are_looked_at_before_anything_is_done(console: Console) -> None:
    a_day(console.database)
    reader = visitor(console)
    ids = [str(row_of(console.database, key).id) for key in ("dead-1", "dead-2", "yes-1")]
    before = ledger.find(console.database, Filter(), None)
    shown = await reader.post("/console/dead/look", do="replay", take="ticked", id=[*ids, "12345678"], filter="")
    assert "2 would be taken" in shown.text
    assert "1 would be refused" in shown.text
    assert "it is delivered: the operator has said yes" in shown.text
    assert "Some of the chosen rows are not there" in shown.text
    assert list(ledger.find(console.database, Filter(), None)) == list(before)
    assert set(rows_of_form(shown.text)) == set(ids[:2])
    done = await reader.post("/console/dead/do", do="replay", id=rows_of_form(shown.text), filter="operator=acme&x=1")
    assert done.status_code == 303
    assert done.headers["location"] == "/console/dead?operator=acme&zone=%2B00%3A00&did_replay=2"
    assert "Replayed: 2." in (await reader.get(done.headers["location"])).text
    assert [row_of(console.database, key).status for key in ("dead-1", "dead-2")] == ["pending"] * 2
    # The same form again takes nothing, and says why.
    again = await reader.post("/console/dead/do", do="replay", id=ids[:2], filter="")
    assert ("Replayed: 0." in again.text, "it is not dead" in again.text) == (True, True)


async def test_resolving_many_wants_a_note(console: Console) -> None:
    a_day(console.database)
    reader, ids = visitor(console), [str(row_of(console.database, f"dead-{n}").id) for n in range(6)]
    shown = await reader.post("/console/dead/look", do="resolve", take="page", shown=ids, id=ids[:1], filter="")
    assert rows_of_form(shown.text) == ids[::-1]
    without = await reader.post("/console/dead/do", do="resolve", id=ids, filter="", note=" ")
    assert (without.status_code, rows_of_form(without.text)) == (422, ids[::-1])
    done = await reader.post("/console/dead/do", do="resolve", id=ids, filter="", note="agreed")
    assert done.headers["location"].endswith("did_resolve=6")
    assert {row_of(console.database, f"dead-{n}").status for n in range(6)} == {"resolved"}


async def test_all_that_fit_are_as_many_as_are_taken_at_once(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "MOST_AT_ONCE", 2)
    a_day(console.database)
    reader = visitor(console)
    shown = await reader.post("/console/dead/look", do="replay", take="all", filter="game=50&status=delivered")
    assert len(rows_of_form(shown.text)) == 2
    assert "More fit than the 2 that can be taken at once" in shown.text
    assert {row_of(console.database, f"dead-{n}").status for n in range(6)} == {"dead"}
    none = await reader.post("/console/dead/look", do="replay", take="ticked", filter="")
    assert "No row was chosen" in none.text


# --- as a file


@each_store
async def test_an_export_holds_all_that_fits_and_no_spreadsheet_runs_any_of_it(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 9)
    a_day(console.database)
    put(console.database, spin("=1+1", business='=HYPERLINK("http://x")', uid="@cmd"), at=NOW)
    every = [row.key for row in ledger.find(console.database, Filter(), None)]
    lines = await visitor(console).get("/console/flow/export?format=ndjson")
    assert [json.loads(line)["key"] for line in lines.text.splitlines()] == every
    answer = await visitor(console, language="zh").get("/console/flow/export")
    assert answer.headers["content-disposition"].startswith('attachment; filename="flow-2026')
    assert answer.content.startswith(b"\xef\xbb\xbf")
    table = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert [row["订单号"] for row in table] == [key.replace("=1+1", "'=1+1") for key in every]
    assert {"商户", "投入", "产出", "净额", "状态", "次数"} <= table[0].keys()
    assert table[-1]["用户"] == "'@cmd" or "'@cmd" in {row["用户"] for row in table}
    english = await visitor(console).get("/console/dead/export?operator=bolt")
    assert english.text.splitlines()[0].startswith("\ufeffid,operator,type,key,uid,status,")
    assert len(english.text.splitlines()) == 2
    assert english.headers["content-disposition"].startswith('attachment; filename="dead-')


async def test_so_many_exports_run_at_once_and_a_reader_who_leaves_makes_room(console: Console) -> None:
    a_day(console.database)
    token = console.session()
    visits = [started_export(console, token) for _ in range(export.MOST_AT_ONCE)]
    running = [await one for one in visits]
    busy = await Visitor(console, token).get("/console/flow/export")
    assert (busy.status_code, "Other exports are running" in busy.text) == (429, True)
    for one in running:
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    assert (await Visitor(console, token).get("/console/flow/export")).status_code == 200


async def started_export(at: Console, token: str) -> "asyncio.Task[None]":
    """An export whose reader has taken its first part, and takes no more."""
    first = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            first.set()
            await asyncio.Event().wait()

    headers = [(b"host", b"dispatcher.test"), (b"cookie", f"dispatcher_session={token}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/console/flow/export", "headers": headers, "query_string": b""}
    scope |= {"scheme": "http", "server": ("dispatcher.test", 80), "http_version": "1.1", "client": ("127.0.0.1", 1)}
    task = asyncio.create_task(at.app(scope, receive, send))
    await first.wait()
    return task


async def test_a_reader_who_takes_nothing_loses_the_place(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "STALL_SECONDS", 0.05)
    a_day(console.database)
    task = await started_export(console, console.session())
    done, _ = await asyncio.wait([task], timeout=60)
    assert done
    assert "TimeoutError" in repr(task.exception())
    assert export._running[console.database] == 0


# --- strangers' texts, words, and what it costs


async def test_strangers_texts_stay_text_on_every_page(console: Console) -> None:
    a_day(console.database)
    put(console.database, spin("dead-hostile", business=SCRIPT + TURNED), at=NOW + 900 * MINUTE)
    bury_all(console.database, NOW + 900 * MINUTE, status=500, body=(SCRIPT + TURNED).encode())
    reader = visitor(console)
    ids = [str(row_of(console.database, key).id) for key in ("dead-hostile", "hostile-1", "waits-1")]
    pages = ["/console/flow", "/console/dead", *(f"/console/deliveries/{one}" for one in ids)]
    texts = [(await reader.get(path)).text for path in pages]
    texts += [(await reader.get("/console/flow?" + urlencode({"business": SCRIPT + TURNED, "key": SCRIPT}))).text]
    texts += [(await reader.post("/console/dead/look", do="resolve", take="ticked", id=ids, filter="")).text]
    texts += [(await reader.post(f"/console/deliveries/{ids[0]}/resolve", note=SCRIPT + "x" * 2_000)).text]
    for page in texts:
        assert "onerror" not in page or "&lt;img src=x onerror" in page
        assert "<img src=x" not in page
    assert "abc\\u202egnp.exe" in texts[0]


@pytest.mark.parametrize(
    ("words", "others"),
    [(LOG_WORDS, [WORDS, DEAD_WORDS]), (DEAD_WORDS, [WORDS, LOG_WORDS])],
    ids=["log", "dead"],
)
def test_both_languages_have_the_same_words(words: Dictionary, others: list[Dictionary]) -> None:
    english, chinese = words["en"], words["zh"]
    assert english.keys() == chinese.keys()
    assert [name for name in english if english[name].count("{}") != chinese[name].count("{}")] == []
    assert [name for name in english if not (english[name] and chinese[name])] == []
    # One that the other pages have as well would be theirs no more.
    assert [english.keys() & other["en"].keys() for other in others] == [set(), set()]


FEW, MANY = 5_000, 60_000


def fill(database: Database, many: int) -> None:
    """So many delivered orders of three operators in all, as one statement makes them."""
    body = spin("1").body
    with database.writing() as connection:
        connection.execute(
            text(
                """
                WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :many)
                INSERT INTO deliveries
                    (operator, type, key, uid, body, digest, status, accepted_at, finished_at, attempts)
                SELECT CASE n % 3 WHEN 0 THEN 'acme' WHEN 1 THEN 'bolt' ELSE 'coin' END, 'notice', 'k' || n,
                    'player-' || (n % 5000), :body, x'00', CASE WHEN n % 100 = 0 THEN 'dead' ELSE 'delivered' END,
                    :at + n * 1000, :at + n * 1000 + 500, 1
                FROM n
                """
            ),
            {"many": many, "body": body, "at": NOW},
        )


async def test_pages_cost_the_same_however_many_rows_there_are(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the steps of SQLite's machine, which no other work on this one changes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(connection: Any, *_: object) -> None:
        connection.set_progress_handler(count, 100)

    monkeypatch.setattr(sums, "SECONDS", 600.0)
    monkeypatch.setattr(sums, "MOST_LOOKED", 1_000)
    monkeypatch.setattr(sums, "BLOCK", 500)
    monkeypatch.setattr(flow, "MOST_LOOKED", 1_000)
    happens.listen(console.database.engine, "checkout", watch)
    reader = visitor(console)

    async def cost(path: str) -> int:
        nonlocal steps
        steps = 0
        assert (await reader.get(path)).status_code == 200
        return steps

    paths = [
        "/console/flow",
        "/console/flow?operator=bolt",
        "/console/flow?status=delivered&type=notice",
        "/console/dead",
    ]
    paths += [
        "/console/flow?key=k77",
        "/console/flow?status=dead&span=1h",
        "/console/flow/totals",
        "/console/flow?game=7",
    ]
    fill(console.database, FEW)
    few = [await cost(path) for path in paths]
    with console.database.writing() as connection:
        connection.execute(text("DELETE FROM deliveries"))
    fill(console.database, MANY)
    many = [await cost(path) for path in paths]
    for path, before, after in zip(paths, few, many, strict=True):
        assert after < 1.5 * before + 20, (path, before, after)
