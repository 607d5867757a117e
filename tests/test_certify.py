"""`dispatcher certify`: the bundled receiver passes in full, and each fault planted in it is found where it is."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from html import escape
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.certify import text
from dispatcher.certify.books import Books
from dispatcher.certify.check import Flaw, Result
from dispatcher.certify.checks import CHECKS, checks_of
from dispatcher.certify.letters import Sender
from dispatcher.certify.orders import FLOAT_STEP, PREFIX, Content, Orders
from dispatcher.certify.report import Run, document, page
from dispatcher.certify.suite import Answered, Finding, Plan, Suite
from dispatcher.certify.text import Text
from dispatcher.config import Config
from dispatcher.dispatch.attempt import Attempts
from dispatcher.dispatch.lane import Lane
from dispatcher.ground.clock import MILLISECOND, SECOND, WallClock
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Reason
from dispatcher.ground.secret import Secret
from dispatcher.seal import Seal
from dispatcher.wire import Headers, LookingTransport, Request, Resolver, SlowTransport, Wire
from tests import faulty as faults
from tests.desk import Desk
from tests.faulty import Faulty, faulty
from tests.ground import IV, KEY, NOW, config_with, notice
from tests.story import leaks
from tests.workshop import MovedClock

SLOW = 50 * MILLISECOND
BEARER = 'auth = "bearer"\ntoken = "the-token-of-acme"'
MINTED = 'auth = "minted"\nmint = { account = "provider-7" }'
OAUTH2 = """auth = "oauth2"
oauth = { token_url = "http://127.0.0.1:9/token", client_id = "provider-7", client_secret = "secret-of-it" }"""
SIGNED = 'signature = { secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }'


def configured(more: str = "") -> Config:
    return config_with(
        f"""
[egress]
allow = ["127.0.0.0/8"]
[http]
total_timeout = "60s"
[worker]
lease = "90s"
[operators.acme]
notice_url = "http://127.0.0.1:9/Demo/notice"
callback_url = "http://127.0.0.1:9"
{"" if "auth =" in more else BEARER}
crypto = {{ key = "{KEY}", iv = "{IV}" }}
{more}
"""
    )


def at(url: str, operator: Operator) -> Operator:
    """The operator at this address, its token endpoint too."""
    paths = {"notice": "/Demo/notice", "settle": "/settle"}
    terms = {kind: replace(one, url=url + paths[kind]) for kind, one in operator.terms.items()}
    oauth = replace(operator.oauth, token_url=f"{url}/token") if operator.oauth else None
    return replace(operator, terms=terms, oauth=oauth)


async def certify(
    kind: type[Faulty], type_: str, *, looks: bool = True, more: str = "", listed: str = "/received"
) -> dict[str, Finding]:
    """What a run against such a receiver finds, by the checks' names."""
    config = configured(more)
    played = config.operators["acme"]
    async with faulty(kind, [played]) as receiver, AsyncExitStack() as stack:
        operator = at(receiver.url, played)
        token = Secret("a-players-token") if "per_event" in more else None
        sender = Sender(operator, type_, config.allow, SLOW)
        stack.push_async_callback(sender.aclose)
        books = Books(f"{receiver.url}{listed}", operator, type_, config.allow) if looks else None
        if books is not None:
            stack.push_async_callback(books.aclose)
        orders = Orders(operator, type_, WallClock().now(), {}, token)
        found = await Suite(operator, orders, sender, books, lambda _finding: None).run()
    return {finding.check.name: finding for finding in found}


def results(found: Mapping[str, Finding]) -> dict[str, set[str]]:
    return {result.value: {name for name, one in found.items() if one.result is result} for result in Result}


@pytest.mark.anyio
@pytest.mark.parametrize("type_", ["notice", "settle"])
async def test_the_bundled_receiver_passes_in_full(type_: str) -> None:
    found = await certify(Faulty, type_, more=SIGNED)
    assert {name: (one.result, one.came("en"), one.notes) for name, one in found.items() if one.result != "pass"} == {}
    assert len(found) > 12


N, S = "notice", "settle"
FAULTS = [
    (faults.BooksTwice, N, {"again"}),
    (faults.BooksTwice, S, {"again"}),
    (faults.NotSafeForTwo, N, {"two_at_once"}),
    (faults.DuplicatesGet500, N, {"again"}),
    (faults.TakesOtherContent, N, {"other_content"}),
    (faults.TakesOtherContent, S, {"other_content"}),
    (faults.AnswersFirst, N, {"wrong_token"}),
    (faults.IgnoresToken, S, {"wrong_token"}),
    (faults.FloatAmounts, N, {"large_amount"}),
    (faults.FloatAmounts, S, {"large_amount"}),
    (faults.TwoPlaces, N, {"four_decimals"}),
    (faults.TwoPlaces, S, {"four_decimals"}),
    (faults.Mojibake, N, {"non_ascii"}),
    (faults.Mojibake, S, {"non_ascii"}),
    (faults.TsIsContent, S, {"refreshed_ts"}),
    (faults.ForgetsSoon, S, {"late"}),
    (faults.RefusesUnknown, N, {"unknown_field"}),
    (faults.RefusesUnknown, S, {"unknown_field"}),
    (faults.TakesTampered, N, {"tampered"}),
    (faults.TakesLess, N, {"missing_field"}),
    (faults.TakesLess, S, {"missing_field"}),
    (faults.ReadsOnePacket, N, {"slow"}),
]


@pytest.mark.parametrize(("kind", "type_", "wrong"), FAULTS)
@pytest.mark.anyio
async def test_each_fault_fails_on_exactly_its_point(kind: type[Faulty], type_: str, wrong: set[str]) -> None:
    found = await certify(kind, type_)
    assert results(found)["fail"] == wrong, {name: (one.came("en"), one.notes) for name, one in found.items()}


@pytest.mark.parametrize(
    ("kind", "type_", "wrong"),
    [
        (faults.FloatNumbers, N, {"long_number"}),
        (faults.FloatNumbers, S, {"long_number"}),
        (faults.FloatAmounts, N, {"large_amount"}),
        (faults.FloatAmounts, S, {"large_amount"}),
        (faults.TwoPlaces, N, {"four_decimals"}),
        (faults.TwoPlaces, S, {"four_decimals"}),
        (faults.QuestionMarks, N, {"non_ascii"}),
        (faults.QuestionMarks, S, {"non_ascii"}),
        (faults.IgnoresToken, N, {"wrong_token"}),
        (faults.TsIsContent, S, {"refreshed_ts"}),
        (faults.BooksWhatItRefuses, N, {"tampered", "missing_field"}),
        # What the answers don't show is not made up.
        (faults.BooksTwice, N, set()),
        (faults.NotSafeForTwo, S, set()),
        (faults.Mojibake, N, set()),
    ],
)
@pytest.mark.anyio
async def test_by_the_answers_alone_this_is_found_and_no_more(kind: type[Faulty], type_: str, wrong: set[str]) -> None:
    assert results(await certify(kind, type_, looks=False))["fail"] == wrong


ONCE = {"again", "two_at_once", "non_ascii"}
DIGITS = {"large_amount", "four_decimals", "long_number"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "type_", "unseen"),
    [
        (Faulty, N, ONCE),
        (Faulty, S, ONCE | {"refreshed_ts", "late"}),
        (faults.TakesOtherContent, N, ONCE | DIGITS),
        (faults.DuplicatesGet500, N, ONCE - {"again"} | DIGITS),
    ],
)
async def test_what_no_answer_shows_is_called_not_seen_and_says_where_to_look(
    kind: type[Faulty], type_: str, unseen: set[str]
) -> None:
    found = await certify(kind, type_, looks=False, more=SIGNED)
    assert results(found)["not_seen"] == unseen
    assert all(found[name].notes for name in unseen)


@pytest.mark.anyio
@pytest.mark.parametrize("more", [MINTED, OAUTH2])
async def test_the_bundled_receiver_passes_with_every_proof_that_it_can_know(more: str) -> None:
    found = results(await certify(Faulty, N, more=more))
    assert (found["fail"], found["warning"], found["not_seen"]) == (set(), set(), set())
    assert found["not_applicable"] == {"wrong_signature"}


@pytest.mark.anyio
async def test_whoever_takes_any_players_token_fails_there_alone() -> None:
    assert results(await certify(Faulty, N, more='auth = "per_event"'))["fail"] == {"wrong_token"}


@pytest.mark.anyio
async def test_an_ignored_signature_is_found() -> None:
    assert results(await certify(faults.IgnoresSignature, S, more=SIGNED))["fail"] == {"wrong_signature"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "doubtful"),
    [
        (faults.LoserGets500, {"two_at_once"}),
        (faults.TakesAnothersData, {"anothers_data"}),
        (faults.RefusesLarge, {"large_amount"}),
        (faults.Hangs, {"other_content", "wrong_token", "tampered", "anothers_data", "missing_field"}),
    ],
)
async def test_what_costs_a_retry_or_is_no_duty_is_a_warning(kind: type[Faulty], doubtful: set[str]) -> None:
    found = results(await certify(kind, N, looks=kind is not faults.TakesAnothersData))
    assert (found["warning"], found["fail"]) == (doubtful, set())


@pytest.mark.anyio
async def test_what_needs_a_check_that_failed_is_not_sent_and_says_so() -> None:
    found = await certify(faults.DuplicatesGet500, S)
    for name in ("refreshed_ts", "two_at_once", "late"):
        assert (found[name].result, found[name].answers) == (Result.NOT_SEEN, ())
        assert "needs again" in found[name].notes[0].en


@pytest.mark.anyio
async def test_without_a_right_callback_nothing_else_is_sent() -> None:
    config = configured()
    played = config.operators["acme"]
    async with faulty(Faulty, [replace(played, token=Secret("another-token"))]) as receiver:
        operator = at(receiver.url, played)
        sender = Sender(operator, N, config.allow, SLOW)
        orders = Orders(operator, N, WallClock().now(), {}, None)
        found = await Suite(operator, orders, sender, None, lambda _finding: None).run()
        await sender.aclose()
        assert receiver.stats["requests"] == 1
    first, *rest = found
    assert first.result is Result.FAIL
    moot = Result.NOT_APPLICABLE
    assert [one.result for one in rest] == [
        moot if one.check.name == "wrong_signature" else Result.NOT_SEEN for one in rest
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("type_", "more", "moot"),
    [(N, "", {"wrong_signature"}), (N, SIGNED, set()), (S, 'auth = "none"', {"wrong_signature", "wrong_token"})],
)
async def test_what_nobody_agreed_on_is_not_applicable_in_every_shape_and_no_word_of_mending_stands_there(
    type_: str, more: str, moot: set[str]
) -> None:
    found = await certify(Faulty, type_, more=more)
    assert results(found)["not_applicable"] == moot
    run = Run("acme", "2026-01-01 00:00:00", [Plan(type_, "https://a.example/", "p", 1, 1)], list(found.values()))
    told = json.loads(json.dumps(document(run, "en")))
    assert told["counts"]["not_applicable"] == len(moot)
    assert {one["check"] for one in told["checks"] if one["result"] == "not_applicable"} == moot
    for language, word in (("en", "<td>not applicable</td>"), ("zh", "<td>不适用</td>")):
        assert page(run, language).count(word) == len(moot)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/Demo/notice", "/stats", "/nowhere"])
async def test_a_list_that_can_not_be_read_leaves_unseen_what_answers_do_not_show(path: str) -> None:
    found = await certify(Faulty, N, listed=path)
    assert not results(found)["fail"]
    assert found["again"].result is Result.NOT_SEEN
    assert "--received could not be read" in found["again"].notes[-1].en


@pytest.mark.anyio
async def test_a_list_with_numbers_is_read_digit_by_digit() -> None:
    rows = b'[{"order_no":"7","total_win":99999999999999.99},{"order_no":"8","total_win":1}]'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /?a=b&order_no=7 HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(rows), rows))
        await writer.drain()
        writer.close()

    server, config = await asyncio.start_server(serve, "127.0.0.1", 0), configured()
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?a=b"
        books = Books(url, config.operators["acme"], N, config.allow)
        found = await books.bookings("7")
        await books.aclose()
    assert [row["total_win"] for row in found] == [Decimal("99999999999999.99")]
    assert books.faults("7", {"total_win": "99999999999999.99"}, found) == []
    (wrong,) = books.faults("7", {"total_win": "99999999999999.98"}, found)
    assert wrong.en == "7: total_win was sent as 99999999999999.98 and booked as 99999999999999.99"


# What is sent


class Kept:
    """What went out, as the operator would get it."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, json={"code": "0000"})


async def sent(type_: str, flaw: Flaw, more: str = "") -> tuple[httpx.Request, httpx.Request]:
    """The request with this flaw, and the one that production sends of the same order at the same moment."""
    operator, kept = configured(more).operators["acme"], Kept()
    orders, now = Orders(operator, type_, NOW, {}, None), NOW
    transport = httpx.MockTransport(kept.answer)
    claim, other = orders.claim("x", Content.OTHER), orders.claim("right", Content.USUAL)
    sender = Sender(operator, type_, ())
    sender._transport = transport  # type: ignore[assignment]  # the network
    await sender.send(claim, flaw, now, other)
    clock = MovedClock(now + SECOND + MILLISECOND if flaw is Flaw.LATER else now)
    seal = Seal(operator.reading) if operator.reading else None
    await Attempts(Wire(clock), clock, lambda locked, _: locked.encode()).make(Lane(operator, seal, transport), claim)
    one, two = kept.requests
    return one, two


@pytest.mark.anyio
@pytest.mark.parametrize("type_", [N, S])
@pytest.mark.parametrize("more", ["", SIGNED, MINTED, 'headers = { X-Api-Key = "a-key-of-acme" }'])
@pytest.mark.parametrize("flaw", [Flaw.NONE, Flaw.LATER])
async def test_a_right_order_goes_out_as_production_sends_it(type_: str, more: str, flaw: Flaw) -> None:
    one, two = await sent(type_, flaw, more)
    assert (one.url, one.content, one.headers.raw) == (two.url, two.content, two.headers.raw)


def inside(request: httpx.Request) -> dict[str, Any]:
    reading = configured().operators["acme"].reading
    assert reading
    read: dict[str, Any] = json.loads(Seal(reading).open(json.loads(request.content)["data"]), parse_float=str)
    return read


@pytest.mark.anyio
@pytest.mark.parametrize("type_", [N, S])
async def test_a_broken_order_differs_in_one_thing(type_: str) -> None:
    for flaw in (Flaw.WRONG_TOKEN, Flaw.NO_TOKEN):
        one, two = await sent(type_, flaw)
        names = {*one.headers.keys()} ^ {*two.headers.keys()}
        assert one.content == two.content
        assert names == ({"authorization"} if flaw is Flaw.NO_TOKEN else set())
        assert one.headers.get("authorization") != two.headers["authorization"]
    one, two = await sent(type_, Flaw.WRONG_SIGNATURE, SIGNED)
    differing = {name for name in one.headers if one.headers[name] != two.headers[name]}
    assert (one.content, differing) == (two.content, {"webhook-signature"})
    one, two = await sent(type_, Flaw.UNKNOWN)
    more = json.loads(one.content)
    assert more.pop("dispatcher_test")
    assert more.keys() == json.loads(two.content).keys()
    one, two = await sent(type_, Flaw.NO_PLAYER)
    assert json.loads(two.content).keys() - json.loads(one.content).keys() == {"uid" if type_ == N else "userId"}


@pytest.mark.anyio
async def test_what_is_broken_in_the_encrypted_part_is_broken_there_alone() -> None:
    one, two = await sent(N, Flaw.NO_AMOUNT)
    assert inside(two).keys() - inside(one).keys() == {"total_win"}
    one, two = await sent(N, Flaw.UNKNOWN)
    assert inside(one).keys() - inside(two).keys() == {"dispatcher_test"}
    one, two = await sent(N, Flaw.ANOTHERS)
    assert inside(one)["order_no"] != json.loads(one.content)["order_no"] == inside(two)["order_no"]
    for flaw in (Flaw.TAMPERED, Flaw.CUT):
        one, two = await sent(N, flaw)
        bent, whole = json.loads(one.content), json.loads(two.content)
        assert {name for name in bent if bent[name] != whole[name]} == {"data"}
        assert flaw is Flaw.CUT or bent["data"][1:] == whole["data"][1:]


@pytest.mark.parametrize("type_", [N, S])
def test_order_numbers_are_recognised_and_stay_apart_even_as_floats(type_: str) -> None:
    operator = configured().operators["acme"]
    names = list(dict.fromkeys(step.order for check in checks_of(type_) for step in check.steps))

    def numbers(second: int, kind: str = type_) -> dict[str, int]:
        orders = Orders(operator, kind, NOW + second * SECOND, {}, None)
        return {name: int(orders.key(name)) for name in names}

    for second in range(0, 10_000, 997):
        found = numbers(second)
        assert all(len(str(one)) == 19 and str(one).startswith(PREFIX) and one < 2**63 for one in found.values())
        assert float(found["long"]) == float(found.pop("long+1"))
        assert len({float(one) for one in found.values()}) == len(found)
        # Just beside what a float can say: so it is rounded, its neighbour to the same, and neither upwards.
        assert {one % FLOAT_STEP for one in found.values()} == {3}
        assert max(found.values()) < min(numbers(second + 1).values())
        assert not {*found.values()} & {*numbers(second, N if type_ == S else S).values()}


class Heard:
    """A server that keeps each piece of a request as it came, and answers when all is there."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.pieces.append(data)
            if b"".join(self.pieces).endswith(b"the end"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                break
        writer.close()


@asynccontextmanager
async def hearing() -> AsyncIterator[tuple[Heard, str]]:
    heard = Heard()
    server = await asyncio.start_server(heard.serve, "127.0.0.1", 0)
    async with server:
        yield heard, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.mark.anyio
async def test_a_slow_request_comes_in_pieces_and_is_whole() -> None:
    body = b"x" * 300 + b"the end"
    async with hearing() as (heard, url):
        transport = SlowTransport(Resolver(), LOOPBACK, 60 * SECOND, None, 400 * MILLISECOND)
        outcome = await Wire(WallClock()).post(transport, Request(url, Headers([("A", "b")]), body), 60 * SECOND)
        await transport.aclose()
    assert (outcome.http_status, outcome.reason) == (200, None)
    assert b"".join(heard.pieces).startswith(b"POST / HTTP/1.1\r\n")
    assert b"".join(heard.pieces).endswith(b"\r\n\r\n" + body)
    assert len(heard.pieces) > 1
    assert outcome.duration is not None
    assert outcome.duration >= 400 * MILLISECOND


@pytest.mark.anyio
async def test_a_slow_request_that_its_deadline_cuts_off_was_not_sent() -> None:
    async with hearing() as (heard, url):
        transport = SlowTransport(Resolver(), LOOPBACK, 60 * SECOND, None, 3600 * SECOND)
        outcome = await Wire(WallClock()).post(transport, Request(url, Headers([]), b"the end"), 100 * MILLISECOND)
        await transport.aclose()
    assert outcome.reason is Reason.WRITE_ERROR
    assert not b"".join(heard.pieces).endswith(b"the end")


@pytest.mark.anyio
async def test_a_probe_goes_where_production_may_go_and_nowhere_else() -> None:
    for transport in (SlowTransport(Resolver(), (), SECOND, None, SECOND), LookingTransport(Resolver(), (), SECOND)):
        async with hearing() as (heard, url):
            outcome = await Wire(WallClock()).post(transport, Request(url, Headers([]), b"the end"), 60 * SECOND)
            await transport.aclose()
        assert (outcome.reason, heard.pieces) == (Reason.BLOCKED_ADDRESS, [])


# What is said


def texts() -> Iterator[tuple[str, Text]]:
    for name, one in vars(text).items():
        if isinstance(one, Text):
            yield name, one
        elif isinstance(one, dict) and name.isupper():
            yield from ((f"{name}.{key}", below) for key, below in one.items())
    for check in CHECKS:
        for name in ("title", "expected", "why", "mend", "unseen"):
            if getattr(check, name) is not None:
                yield f"{check.name}.{name}", getattr(check, name)


def test_every_sentence_stands_in_both_languages_with_the_same_places() -> None:
    places = re.compile(r"\{(\w+)\}")
    found = dict(texts())
    assert len(found) > 80
    for name, one in found.items():
        assert re.search(r"[\u4e00-\u9fff]", one.zh), name
        assert one.en.isascii(), name
        assert sorted(places.findall(one.en)) == sorted(places.findall(one.zh)), name
    assert {*text.RESULTS} == {*Result}


def test_the_page_shows_what_an_operator_says_as_text_and_needs_nothing_else() -> None:
    check = CHECKS[0]
    answer = Answered("7777", False, 500, None, "<script>alert(1)</script>", "http_status", 3)
    finding = Finding(N, check, Result.FAIL, [answer], [text.NOT_LOOKED.fill(told="<b>")])
    run = Run("acme", "2026-01-01 00:00:00", [Plan(N, "https://a.example/?a=<i>", "p<u>", 1, 1)], [finding])
    for language in ("en", "zh"):
        shown = page(run, language)
        assert not re.search(r"<(script|b|i|u)\b", shown)
        assert not re.search(r"(\bsrc=|\bhref=|url\(|@import)", shown)
        assert f'lang="{"zh-CN" if language == "zh" else "en"}"' in shown
        assert escape(check.mend.said(language)) in shown


# The command


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


def test_a_run_says_all_and_leaves_no_trace_in_the_store(desk: Desk) -> None:
    desk.enqueue([notice()])
    before = desk.content()
    report = desk.folder / "report.html"
    with desk.receiving() as receiver:
        words = ["certify", "acme", "--url", f"{receiver.url}/Demo/notice", "--field", "uid=player-7", "--json"]
        words += ["--received", f"{receiver.url}/received", "-o", str(report), "--lang", "zh"]
        asked = desk.call(*words)
        assert (asked.status, receiver.requests()) == (2, 0)
        assert "--yes-test-orders" in asked.err
        (plan,) = re.findall(r"notice: (\d+) requests for (\d+) test orders .* player player-7\) to (\S+)", asked.err)
        done = desk.call(*words, "--yes-test-orders")
        assert int(plan[0]) == receiver.requests()
        assert plan[2] == f"{receiver.url}/Demo/notice"
    told = done.json()
    assert (done.status, told["ok"], told["counts"]["fail"], told["counts"]["warning"]) == (0, True, 0, 0)
    assert told["sent"][0]["orders"] == int(plan[1])
    assert all(order.startswith(told["prefix"]) for check in told["checks"] for order in check["orders"])
    assert {"check", "result", "expected", "came", "why", "mend", "answers"} <= told["checks"][0].keys()
    assert desk.content() == before
    assert not leaks(report.read_text("utf-8"))
    assert "对接验收报告" in report.read_text("utf-8")


def test_a_failure_is_a_table_with_what_to_change_and_status_1(desk: Desk) -> None:
    other = desk.write(desk.folder / "other.toml")
    other.write_text(other.read_text("utf-8").replace(IV, IV[::-1]), "utf-8")
    with desk.receiving(config=other) as receiver:
        desk.set(notice_url=f"{receiver.url}/Demo/notice")
        done = desk.call("certify", "acme", "--yes-test-orders", "--lang", "en")
    assert (done.status, done.out.splitlines()[-1]) == (1, "1 check(s) failed.")
    assert re.search(r"a right callback +FAIL +a yes +no \(400", done.out)
    assert "what to change: see what came" in done.out
    assert not desk.database.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nobody"], 'there is no operator nobody; write "acme"'),
        (["acme"], "--yes-test-orders"),
        (["acme", "--url", "ftp://a.example/"], "--url has the scheme ftp; write https://"),
        (["acme", "--url", "http://10.0.0.1/"], "--url "),
        (["acme", "--received", "nowhere"], "--received "),
        (["acme", "--type", "settle"], "acme takes no settle: it has no callback_url; write --type notice"),
        (["acme", "--field", "uid"], "--field uid is no FIELD=VALUE"),
        (["acme", "--field", "total_win=1"], "--field total_win: is not to be set; known here: uid, business"),
        (["acme", "--field", "order_no=1"], "--field order_no: is not to be set"),
        (["acme", "--field", "game_id=x"], "game_id: x is not a whole number"),
        (["acme", "--field", "game_id=" + "9" * 5_000], "game_id: "),
        (["acme", "--field", "uid=\u200b"], "uid: "),
        (["bolt"], "give --token-file"),
        (["bolt", "--token-file", "nowhere"], "--token-file can't be read"),
        (["bolt", "--token-file", "-"], "--token-file is not a token"),
        (
            ["both", "--url", "http://127.0.0.1:9/"],
            "--url does not say for which message type; add --type notice or --type settle",
        ),
    ],
)
def test_wrong_use_is_told_with_what_to_write(desk: Desk, words: list[str], told: str) -> None:
    desk.add_operator("bolt", auth="per_event")
    del desk.operators["bolt"]["token"]
    desk.add_operator("both", callback_url="http://127.0.0.1:9/")
    done = desk.call("certify", *words, *(["--yes-test-orders"] if words != ["acme"] else []), stdin="a b")
    assert done.status == 2
    assert told in done.err
    assert not desk.database.exists()


def oauth(desk: Desk, url: str, secret: str) -> None:
    """Acme wants a token of its own endpoint."""
    client = {"token_url": f"{url}/token", "client_id": "provider-7", "client_secret": secret}
    desk.operators["acme"].pop("token", None)
    desk.set(notice_url=f"{url}/Demo/notice", auth="oauth2", oauth=client)


def test_an_operator_that_is_not_there_gets_one_order_and_fails(desk: Desk) -> None:
    desk.set(notice_url=f"http://127.0.0.1:{desk.port()}/")
    done = desk.call("certify", "acme", "--yes-test-orders", "--json")
    told = done.json()
    assert (done.status, told["sent"][0]["requests"], told["counts"]["fail"]) == (1, 1, 1)
    assert told["checks"][0]["answers"][0]["reason"] == "connect_refused"


def test_what_our_own_settings_can_not_send_is_no_verdict_on_the_operator(desk: Desk) -> None:
    oauth(desk, f"http://127.0.0.1:{desk.port()}", "a-secret")
    with desk.receiving("--listen", "127.0.0.1:0", config=desk.write(desk.folder / "other.toml")) as receiver:
        oauth(desk, receiver.url, "another-secret")
        done = desk.call("certify", "acme", "--yes-test-orders")
    assert (done.status, done.out) == (1, "")
    assert "this can't be sent: oauth2: the token endpoint answered 401 (invalid_client)" in done.err
