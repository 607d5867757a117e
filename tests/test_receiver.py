"""The demo operator over real sockets: what it books, what it refuses, and every fault as a caller sees it."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.ground.clock import HOUR, MILLISECOND
from dispatcher.ground.crypto import CipherName, CryptoReading
from dispatcher.ground.errors import Refused, Unfit
from dispatcher.ground.events import parse_json
from dispatcher.ground.operator import Auth, Operator, TimeUnit
from dispatcher.ground.policy import Outcome, Rule, read_answer
from dispatcher.ground.secret import Secret
from dispatcher.protocols import notice as protocol
from dispatcher.receiver import Faults, Receiver, Seen, serve
from dispatcher.seal import Seal
from tests import nursery
from tests.ground import IV, KEY, NOW, claim, config_with, line, notice, operator, read_fields
from tests.story import NO_TLS, free_port

pytestmark = pytest.mark.anyio

PATH = "/Demo/notice"
ORDER = "1767225600123457049"
BOOKED = ("acme", "notice", ORDER)
TOKEN = "the-token-of-acme"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
INNER = {"order_no": ORDER, "total_bet": 10, "total_win": 12, "net_win": 2}
INNER |= {"business": "Spin投入", "game_id": 49, "time": 1767225601}
NOTHING: Mapping[str, str | None] = {}
RATE = Faults(fail_rate=0.5, seed=7)


@asynccontextmanager
async def playing(*played: Operator, **options: Any) -> AsyncIterator[tuple[Receiver, httpx.AsyncClient]]:
    async with (
        serve(played or [operator()], **options) as receiver,
        httpx.AsyncClient(base_url=receiver.url, timeout=60, verify=NO_TLS, trust_env=False) as client,
    ):
        yield receiver, client


def sealed(text: str, of: Operator | None = None) -> str:
    reading = (of or operator()).reading
    assert reading
    return Seal(reading).seal(text.encode())


def object_with(fields: Mapping[str, object], changes: Mapping[str, str | None]) -> str:
    given = {name: text for name, text in changes.items() if text is not None}
    return line(fields, [name for name in changes if name not in given], **given)


def letter(inner: Mapping[str, str | None] = NOTHING, of: Operator | None = None, **outer: str | None) -> bytes:
    """A notice's body. `inner` and `outer` put JSON text in place of a field's value, or leave the field out (None)."""
    whole = {"order_no": ORDER, "data": sealed(object_with(INNER, inner), of), "time": 1767225601, "uid": "player-1"}
    return object_with(whole, outer).encode()


def numbered(order_no: str) -> bytes:
    return letter({"order_no": f'"{order_no}"'}, order_no=f'"{order_no}"')


async def post(client: httpx.AsyncClient, body: bytes, path: str = PATH, token: str = TOKEN) -> httpx.Response:
    return await client.post(path, content=body, headers={"Authorization": f"Bearer {token}"})


def http(body: bytes) -> bytes:
    """A whole request, for those who want the bare connection."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def bare(receiver: Receiver) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(receiver.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


# What it books


async def test_an_order_is_booked_and_answered_with_0000() -> None:
    async with playing() as (receiver, client):
        answer = await post(client, letter())
        assert (answer.status_code, answer.json()["code"]) == (200, "0000")
        assert receiver.booked[BOOKED].content["total_win"] == Decimal(12)


async def test_what_the_notice_protocol_writes_is_booked_digit_by_digit() -> None:
    raw = notice(total_bet="0.1", total_win="12345678901234567890.1234")
    fields = {name: value for name, value in raw.items() if name not in ("operator", "type")}
    event = protocol.freeze(operator(), read_fields(parse_json(line(fields)), protocol.FIELDS))
    sent = protocol.body(operator(), claim(body=event.body), lambda plaintext: sealed(plaintext.decode()), NOW)
    async with playing() as (_, client):
        assert (await post(client, sent)).status_code == 200
        assert (await client.get("/received")).json() == [
            {
                "operator": "acme",
                "type": "notice",
                "order_no": ORDER,
                "uid": "player-1",
                "time": 1767225601,
                "total_bet": "0.1",
                "total_win": "12345678901234567890.1234",
                "net_win": "12345678901234567890.0234",
                "business": "Spin投入",
                "game_id": 49,
                "times": 1,
            }
        ]


async def test_an_operator_that_counts_milliseconds_takes_no_seconds() -> None:
    async with playing(operator(time_unit=TimeUnit.MILLISECONDS)) as (receiver, client):
        answer = await post(client, letter())
        assert (answer.status_code, answer.json()["message"]) == (400, "body: time is not as agreed")
        assert (await post(client, letter({"time": "1767225601000"}, time="1767225601000"))).status_code == 200
        assert receiver.booked[BOOKED].content["time"] == 1767225601000


async def test_an_operator_that_wants_more_than_200_says_yes_in_its_own_words() -> None:
    rule = Rule(field=("success",), values=(True,), numeric=("data", "wallet"))
    async with playing(operator({"rule": rule})) as (_, client):
        answer = await post(client, letter())
        assert answer.json() == {"code": "0000", "message": "ok", "success": True, "data": {"wallet": 0}}
        outcome = Outcome(NOW, NOW, 0, http_status=answer.status_code, body=answer.content)
        assert read_answer(outcome, rule).failure is None


async def test_the_same_content_again_is_success_again_and_counted_but_booked_once() -> None:
    async with playing() as (receiver, client):
        assert (await post(client, letter({"total_win": "12.50"}))).status_code == 200
        again = await post(client, letter({"total_win": "12.5"}))
        assert (again.status_code, again.json()["code"]) == (200, "0000")
        assert [row["times"] for row in (await client.get("/received")).json()] == [2]
        assert receiver.stats == {"requests": 2, "booked": 1, "duplicates": 1, "refused": 0, "faulted": 0}


async def test_other_content_under_a_known_order_number_is_a_conflict_and_the_first_stands() -> None:
    async with playing() as (receiver, client):
        await post(client, letter())
        other = await post(client, letter({"total_win": "13"}))
        elsewhere = await post(client, letter(uid='"player-2"'))
        assert (other.status_code, elsewhere.status_code) == (409, 409)
        assert receiver.booked[BOOKED].content["total_win"] == Decimal(12)
        assert receiver.booked[BOOKED].times == 1


async def test_received_lists_in_booking_order_and_finds_one_order() -> None:
    async with playing() as (_, client):
        for order_no in ("9", "10", "1"):
            await post(client, numbered(order_no))
        assert [row["order_no"] for row in (await client.get("/received")).json()] == ["9", "10", "1"]
        assert [row["order_no"] for row in (await client.get("/received?order_no=1")).json()] == ["1"]
        assert (await client.get("/received", params={"order_no": "2"})).json() == []


async def test_stats_count_what_became_of_each_request() -> None:
    async with playing(faults=Faults(fail_first=1)) as (_, client):
        for _ in range(3):
            await post(client, letter())
        await post(client, letter({"total_bet": "11"}))
        await client.get("/nowhere")
        counts = {"requests": 5, "booked": 1, "duplicates": 1, "refused": 2, "faulted": 1}
        assert (await client.get("/stats")).json() == counts


# Whom it trusts


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer the-token-of-acm")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", TOKEN)],
        [("Authorization", "Bearer")],
        [("Authorization", b"Bearer \xff")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")],
    ],
    ids=["none", "shorter", "longer", "bare", "empty", "not ASCII", "two"],
)
async def test_a_wrong_token_is_refused_and_not_told(headers: list[tuple[str, str | bytes]]) -> None:
    async with playing() as (receiver, client):
        raw = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
        answer = await client.post(PATH, content=letter(), headers=raw)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "token-of" not in answer.text
        assert not receiver.booked


async def test_an_operator_without_auth_asks_for_no_token() -> None:
    async with playing(operator({"auth": Auth.NONE}, token=None)) as (receiver, client):
        assert (await client.post(PATH, content=letter())).status_code == 200
        assert list(receiver.booked) == [BOOKED]


async def test_an_operator_with_each_players_token_takes_any_but_wants_one() -> None:
    async with playing(operator({"auth": Auth.PER_EVENT}, token=None)) as (_, client):
        assert (await post(client, letter(), token="players-own")).status_code == 200
        assert (await client.post(PATH, content=letter())).status_code == 401
        assert (await client.post(PATH, content=letter(), headers={"Authorization": "Basic x"})).status_code == 401


async def test_several_operators_are_told_apart_by_path_and_then_by_token() -> None:
    acme = operator()
    reading = CryptoReading(CipherName.AES_256_CBC, key=b"k" * 32, iv=None)
    beta = operator(name="beta", token=Secret("beta's"), reading=reading)
    gamma = operator({"url": "https://gamma.example/gamma?x=1"}, name="gamma", token=Secret("gamma's"))
    delta = operator({"auth": Auth.NONE}, name="delta", token=None)
    async with playing(delta, acme, beta, gamma) as (receiver, client):
        assert (await post(client, letter(of=acme))).status_code == 200
        assert (await post(client, letter(of=beta), token="beta's")).status_code == 200
        assert (await post(client, letter(of=gamma), "/gamma", "gamma's")).status_code == 200
        assert (await post(client, letter(of=gamma), "/gamma")).status_code == 401
        assert (await post(client, letter(of=delta), token="anybody's")).status_code == 200
        assert [name for name, _, _ in receiver.booked] == ["acme", "beta", "gamma", "delta"]


async def test_two_operators_with_the_same_path_and_token_are_refused() -> None:
    with pytest.raises(Refused, match=r"acme \(notice\) and beta \(notice\) have the same path and token"):
        async with playing(operator(), operator(name="beta")):
            pass


# What it refuses


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-4],
        lambda data: "A" + data[1:] if data[0] != "A" else "B" + data[1:],
        lambda data: data + "é",
        lambda data: "",
    ],
    ids=["cut", "changed", "not base64", "empty"],
)
async def test_tampered_data_is_refused(spoil: Any) -> None:
    data = json.loads(letter())["data"]
    async with playing() as (receiver, client):
        answer = await post(client, letter(data=json.dumps(spoil(data))))
        assert answer.status_code == 400
        assert not receiver.booked


@pytest.mark.parametrize("name", INNER)
async def test_a_missing_field_in_the_data_is_named(name: str) -> None:
    async with playing() as (_, client):
        answer = await post(client, letter({name: None}))
        assert (answer.status_code, answer.json()["message"]) == (400, f"data: {name} is missing")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("total_bet", "10.98765"),
        ("total_bet", '"98765"'),
        ("total_win", "true"),
        ("net_win", "null"),
        ("game_id", "98765.5"),
        ("time", '"98765"'),
        ("business", "98765"),
        ("order_no", ORDER),
    ],
)
async def test_a_value_that_is_not_as_agreed_is_named_and_never_shown(field: str, text: str) -> None:
    async with playing() as (_, client):
        answer = await post(client, letter({field: text}))
        assert (answer.status_code, answer.json()["message"]) == (400, f"data: {field} is not as agreed")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a":1}', "data: order_no is missing, total_bet is missing"),
        ("[1]", "data is not a JSON object"),
        ('{"a":NaN}', "data has NaN for a number"),
        ('{"total_bet":98765,"total_bet":98765}', "data has 'total_bet' twice"),
        ("98765 rubbish", "data is not JSON (Extra data)"),
    ],
)
async def test_data_that_is_no_notice_is_refused_without_showing_it(text: str, told: str) -> None:
    async with playing() as (_, client):
        answer = await post(client, letter(data=json.dumps(sealed(text))))
        assert answer.status_code == 400
        assert answer.json()["message"].startswith(told)
        assert "98765" not in answer.text


async def test_a_field_too_many_is_ignored_inside_and_outside() -> None:
    async with playing() as (receiver, client):
        for sent in (letter({"wallet": "98765"}), letter(sign='"98765"'), letter()):
            assert (await post(client, sent)).status_code == 200
        assert receiver.booked[BOOKED].times == 3
        assert not {"wallet", "sign"} & receiver.booked[BOOKED].content.keys()


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b'{"order_no":1}', b"[" * 100_000])
async def test_a_body_that_is_no_notice_is_refused(body: bytes) -> None:
    async with playing() as (receiver, client):
        answer = await post(client, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "400")
        assert receiver.stats["refused"] == 1


@pytest.mark.parametrize("name", ["order_no", "data", "time", "uid"])
async def test_a_missing_field_of_the_body_is_named(name: str) -> None:
    async with playing() as (_, client):
        answer = await post(client, letter(NOTHING, **{name: None}))
        assert (answer.status_code, answer.json()["message"]) == (400, f"body: {name} is missing")


async def test_the_data_of_another_order_is_refused() -> None:
    async with playing() as (_, client):
        answer = await post(client, letter(order_no='"1"', time="2"))
        told = "data: order_no and time not the same as outside"
        assert (answer.status_code, answer.json()["message"]) == (400, told)


async def test_unknown_paths_and_wrong_methods_are_told_what_would_be_right() -> None:
    async with playing() as (_, client):
        assert (await client.post("/nowhere")).status_code == 404
        for method, path, allowed in (("GET", PATH, "POST"), ("POST", "/received", "GET"), ("HEAD", "/stats", "GET")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


# The connection


async def test_one_connection_carries_many_requests() -> None:
    async with playing() as (receiver, _), bare(receiver) as (reader, writer):
        for _ in range(3):
            writer.write(http(letter()))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            assert json.loads(await reader.readexactly(length))["code"] == "0000"
        assert receiver.booked[BOOKED].times == 3


async def test_a_caller_who_asks_whether_to_go_on_is_told_to() -> None:
    async with playing() as (receiver, _), bare(receiver) as (reader, writer):
        head, _, body = http(letter()).partition(b"\r\n\r\n")
        writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"rubbish the-token-of-acme\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization the-token-of-acme\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nthe-token: of-acme\r\n\r\n",
    ],
    ids=["no request line", "no colon", "no length", "no host"],
)
async def test_malformed_http_gets_a_400_that_quotes_nothing_and_ends_the_connection(rubbish: bytes) -> None:
    async with playing() as (receiver, _), bare(receiver) as (reader, writer):
        writer.write(rubbish)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"acme" not in answer
        assert receiver.stats["refused"] == 1


async def test_a_caller_who_leaves_in_the_middle_harms_nobody() -> None:
    async with playing() as (receiver, client):
        async with bare(receiver) as (_, writer):
            writer.write(http(letter())[:-10])
        assert (await post(client, letter())).status_code == 200
        assert list(receiver.booked) == [BOOKED]


@pytest.mark.parametrize("length_told", [True, False])
async def test_a_body_over_1_mib_is_answered_with_413(length_told: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(1 << 20)

    async with playing() as (receiver, client):
        content = bytes(3 << 20) if length_told else pieces()
        answer = await client.post(PATH, content=content, headers=BEARER)
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert (await post(client, letter())).status_code == 200
        assert receiver.stats["refused"] == 1


async def test_the_last_answer_arrives_at_a_caller_who_is_still_sending() -> None:
    async with playing() as (receiver, _), bare(receiver) as (reader, writer):
        writer.write(http(bytes(8 << 20)))
        await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")


async def test_the_end_is_prompt_while_callers_hang_wait_or_do_not_read() -> None:
    async with serve([operator()]) as receiver, AsyncExitStack() as callers:
        for number, faults in enumerate([Faults(hang=True), Faults(delay=HOUR), Faults(endless=True)], start=1):
            receiver.faults = faults
            _, writer = await callers.enter_async_context(bare(receiver))
            writer.write(http(letter()))
            # Enough turns of the loop for an endless answer to fill every buffer of its socket, 64 kB each.
            for _ in range(500):
                await asyncio.sleep(0)
            assert receiver.stats["faulted"] == number
        await callers.enter_async_context(bare(receiver))
        async with asyncio.timeout(60):
            await receiver.close()


async def test_a_port_in_use_is_refused_with_its_address() -> None:
    async with serve([operator()]) as receiver:
        port = int(receiver.url.rpartition(":")[2])
        with pytest.raises(Refused, match=rf"can't listen on 127\.0\.0\.1:{port} \(address already in use\)"):
            async with serve([operator()], port=port):
                pass


# The faults


@pytest.mark.parametrize("status", [200, 201, 204, 304, 403, 500, 503, 599])
async def test_a_faulty_status_is_answered_and_nothing_booked(status: int) -> None:
    async with playing(faults=Faults(status=status)) as (receiver, client):
        for _ in range(2):
            assert (await post(client, letter())).status_code == status
        assert not receiver.booked
        assert receiver.stats["faulted"] == 2


async def test_a_redirect_says_where_to() -> None:
    async with playing(faults=Faults(redirect="http://127.0.0.1:1/x")) as (_, client):
        answer = await post(client, letter())
        assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.1:1/x")


async def test_a_reset_is_a_reset_and_not_an_end() -> None:
    async with playing(faults=Faults(reset=True)) as (receiver, _), bare(receiver) as (reader, writer):
        writer.write(http(letter()))
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_hanging_operator_never_answers() -> None:
    async with playing(faults=Faults(hang=True)) as (receiver, client):
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PATH, content=letter(), headers=BEARER, timeout=1)
        assert not receiver.booked


async def test_an_endless_body_goes_on() -> None:
    async with (
        playing(faults=Faults(endless=True)) as (_, client),
        client.stream("POST", PATH, content=letter(), headers=BEARER) as answer,
    ):
        assert answer.status_code == 200
        read = 0
        async for part in answer.aiter_raw():
            read += len(part)
            if read > 1_000_000:
                break
        assert read > 1_000_000


async def test_a_dripping_body_comes_byte_by_byte() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with (
        playing(faults=Faults(drip=True)) as (_, client),
        client.stream("POST", PATH, content=letter(), headers=BEARER) as answer,
    ):
        assert answer.status_code == 200
        drops: list[int] = []
        async for part in answer.aiter_raw():
            drops.append(len(part))
            if len(drops) == 3:
                break
        assert drops == [1, 1, 1]
        assert loop.time() - started >= 0.2


async def test_a_delay_alone_answers_late_but_rightly() -> None:
    async with playing(faults=Faults(delay=100 * MILLISECOND)) as (receiver, client):
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert (await post(client, letter())).status_code == 200
        assert loop.time() - started >= 0.1
        assert (receiver.stats["booked"], receiver.stats["faulted"]) == (1, 1)


@pytest.mark.parametrize("fault", [{"status": 500}, {"hang": True}, {"reset": True}, {"delay": 10_000 * MILLISECOND}])
async def test_book_first_books_what_the_caller_takes_for_failed(fault: dict[str, Any]) -> None:
    async with playing(faults=Faults(book_first=True, **fault)) as (receiver, client):
        with suppress(httpx.ReadTimeout, httpx.ReadError):
            assert (await client.post(PATH, content=letter(), headers=BEARER, timeout=1)).status_code == 500
        assert receiver.booked[BOOKED].times == 1
        receiver.faults = Faults()
        assert (await post(client, letter())).status_code == 200
        assert receiver.booked[BOOKED].times == 2


async def test_fail_first_fails_the_first_requests_of_each_order() -> None:
    async with playing(faults=Faults(fail_first=2)) as (_, client):
        statuses: dict[str, list[int]] = {"1": [], "2": []}
        for order_no in ("1", "2", "1", "1", "2", "2", "1"):
            statuses[order_no].append((await post(client, numbered(order_no))).status_code)
        assert statuses == {"1": [500, 500, 200, 200], "2": [500, 500, 200]}


async def test_fail_first_narrows_another_fault() -> None:
    async with playing(faults=Faults(fail_first=1, status=403)) as (_, client):
        assert [(await post(client, letter())).status_code for _ in range(2)] == [403, 200]


async def test_fail_rate_with_a_seed_hits_the_same_requests_in_every_order_of_arrival() -> None:
    orders = [str(number) for number in range(40)]
    runs = []
    for _ in range(2):
        random.shuffle(orders)
        async with playing(faults=RATE) as (_, client):
            runs.append({order_no: (await post(client, numbered(order_no))).status_code for order_no in orders})
    assert runs[0] == runs[1]
    assert 10 < list(runs[0].values()).count(500) < 30


@pytest.mark.parametrize(("rate", "status"), [(0.0, 200), (1.0, 500)])
async def test_fail_rate_takes_none_and_all(rate: float, status: int) -> None:
    async with playing(faults=Faults(fail_rate=rate)) as (_, client):
        assert {(await post(client, letter())).status_code for _ in range(20)} == {status}


async def test_the_watcher_hears_of_each_request_what_became_of_it() -> None:
    heard: list[Seen] = []
    async with playing(faults=Faults(fail_first=1), tell=heard.append) as (_, client):
        for _ in range(3):
            await post(client, letter())
        await post(client, letter(data='"AAAA"'))
        await post(client, letter(), token="wrong")
        await client.get("/received")
    assert [seen[1:] for seen in heard] == [
        ("acme", ORDER, 500, False, "status 500", "notice", ORDER, None),
        ("acme", ORDER, 200, True, None, "notice", ORDER, None),
        ("acme", ORDER, 200, False, None, "notice", ORDER, None),
        ("acme", ORDER, 400, False, None, "notice", ORDER, None),
        (None, None, 401, False, None, None, None, None),
    ]


WRONG = {
    "--status 500 --hang": "--status and --hang contradict each other",
    "--reset --drip --endless": "--reset and --endless and --drip contradict each other",
    "--hang --delay 1s": "--hang never answers",
    "--status 99": "--status 99 is no answer",
    "--status 0": "--status 0 is no answer",
    "--delay 1": "'1' is not a duration",
    "--fail-first -1": "--fail-first is negative",
    "--fail-rate 1.5": "--fail-rate 1.5 is no share",
    "--fail-rate nan": "--fail-rate nan is no share",
    "--fail-rate 0.5 --fail-first 1": "--fail-first and --fail-rate exclude each other",
    "--seed 1": "--seed has no dice to throw",
    "--book-first": "--book-first has no fault",
    "--redirect ü": "--redirect is no URL",
    "--code 1005 --status 500": "--status and --code contradict each other",
    "--operator nobody": 'there is no operator nobody; write "acme" or "beta"',
    "--listen 9000": "--listen 9000 is not an address and a port",
    "--listen a:66000": "--listen a:66000 is not an address and a port",
    "--operator beta": "the notice_url of beta is not plain http on this machine",
}


@pytest.mark.parametrize(("options", "told"), WRONG.items(), ids=list(WRONG))
def test_wrong_options_end_the_command_with_2_and_a_sentence(configuration: Path, options: str, told: str) -> None:
    result = CliRunner().invoke(main, ["receiver", "-c", str(configuration), *options.split()])
    assert result.exit_code == 2
    assert f"Error: {told}" in result.stderr


def test_faults_that_contradict_each_other_are_refused_in_process_too() -> None:
    with pytest.raises(Unfit, match="contradict"):
        Faults(hang=True, reset=True)


# The command


@pytest.fixture
def configuration(tmp_path: Path) -> Iterator[Path]:
    """A configuration whose first operator is on a free port of this machine."""
    with free_port() as port:
        text = f"""
[egress]
allow = ["127.0.0.0/8"]
[operators.acme]
notice_url = "http://127.0.0.1:{port}{PATH}"
token = "{TOKEN}"
crypto = {{ key = "{KEY}", iv = "{IV}" }}
[operators.beta]
notice_url = "https://beta.example/"
auth = "none"
crypto = {{ key = "{KEY}", iv = "{IV}" }}
"""
        config_with(text)
        path = tmp_path / "config.toml"
        path.write_text(text, "utf-8")
        yield path


@contextmanager
def running(configuration: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command once it listens, and its URL."""
    line = [sys.executable, "-m", "dispatcher", "receiver", "-c", str(configuration), *options]
    with nursery.start(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            told = next(text for text in process.stderr if text.startswith("receiver listens on "))
            yield process, told.split()[3]
        finally:
            process.kill()


def ask(url: str, body: bytes) -> httpx.Response:
    return httpx.post(url + PATH, content=body, headers=BEARER, verify=NO_TLS, trust_env=False, timeout=60)


def test_the_command_listens_where_its_operator_is_and_ends_with_0_while_a_caller_hangs(configuration: Path) -> None:
    with running(configuration, "--hang", "--fail-first", "1", "--operator", "acme") as (process, url):
        assert f'"{url}{PATH}"' in configuration.read_text("utf-8")
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as hanging:
            hanging.sendall(http(letter()))
            assert process.stderr
            assert process.stderr.readline() == f"acme {ORDER}: no answer (fault: hang)\n"
            assert ask(url, letter()).status_code == 200
            assert process.stderr.readline() == f"acme {ORDER}: 200, booked\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0


def test_the_command_writes_one_json_object_for_each_request_and_no_secret(configuration: Path) -> None:
    with running(configuration, "--listen", "127.0.0.1:0", "--fail-first", "1", "--book-first", "--json") as (
        process,
        url,
    ):
        assert [ask(url, letter()).status_code for _ in range(2)] == [500, 200]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    rows = [json.loads(text) for text in out.splitlines()]
    assert (process.returncode, err) == (0, "")
    assert all(row.pop("at").endswith("Z") for row in rows)
    same = {"operator": "acme", "order_no": ORDER, "type": "notice", "key": ORDER, "code": None}
    assert rows == [
        {**same, "status": 500, "booked": True, "fault": "status 500"},
        {**same, "status": 200, "booked": False, "fault": None},
    ]


def test_the_command_ends_with_1_when_nobody_reads_its_lines(configuration: Path) -> None:
    with running(configuration, "--listen", "127.0.0.1:0", "--json") as (process, url):
        assert process.stdout
        process.stdout.close()
        ask(url, letter())
        assert process.wait(timeout=60) == 1


def test_the_command_ends_with_1_and_a_sentence_when_its_port_is_taken(configuration: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(main, ["receiver", "-c", str(configuration), "--listen", address])
    assert result.exit_code == 1
    assert f"Error: can't listen on {address} (address already in use)" in result.stderr


def test_the_command_warns_of_an_operator_who_is_posted_to_elsewhere(configuration: Path) -> None:
    port = configuration.read_text("utf-8").partition("127.0.0.1:")[2].partition("/")[0]
    with socket.create_server(("127.0.0.1", int(port))):
        # The command stops here, at its port; by then it has warned.
        result = CliRunner().invoke(main, ["receiver", "-c", str(configuration)])
    assert "Warning: the notice_url of beta points elsewhere, to beta.example" in result.stderr
