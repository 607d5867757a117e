"""One connection against operators that break HTTP in every way: an outcome each time, and never another's answer."""

import asyncio
import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.ground.clock import MILLISECOND
from dispatcher.ground.policy import Outcome, Reason
from dispatcher.wire import MAX_RESPONSE_BYTES
from dispatcher.wire.connection import MAX_BARE_BYTES, Connection, Traffic
from tests.hostile import (
    OK,
    PATIENCE,
    RESTS,
    Ahead,
    Peer,
    always,
    calling,
    endless,
    held,
    in_turn,
    once,
    played,
    playing,
    set_ahead,
    told,
    until,
)

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# Long enough to connect on a busy machine.
SHORT = 500 * MILLISECOND


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return set_ahead(monkeypatch)


# What is a whole answer.

WHOLE = {
    "with a length": (OK, 200, b"ok"),
    "of length zero": (HEAD + b"Content-Length: 0\r\n\r\n", 200, b""),
    "in chunks": (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, b"ok"),
    "in chunks with extensions and trailers": (CHUNKED + b"2;a=b\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", 200, b"ok"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "304 that names a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
    "after one of a status below 100 that has a body": (
        b"HTTP/1.1 099 Odd\r\nContent-Length: 3\r\n\r\nodd" + OK,
        200,
        b"ok",
    ),
    "after 100 and 103": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
    "of HTTP/1.0 with keep-alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    "with a status nobody knows": (b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", 799, b""),
    "without a reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "with an offer to upgrade": (
        HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    "with bytes above ASCII in a header": (HEAD + "X-A: 投\r\nContent-Length: 0\r\n\r\n".encode(), 200, b""),
}

# What ends with the connection, and is whole then.
UNTIL_CLOSED = {
    "without a length": (HEAD + b"\r\nall of it", 200, b"all of it"),
    "without a length or a body": (HEAD + b"\r\n", 200, b""),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nall of it", 200, b"all of it"),
    "without a length after a 100 that has one": (
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + HEAD + b"\r\nall",
        200,
        b"all",
    ),
    "of the encoding identity": (HEAD + b"Transfer-Encoding: identity\r\n\r\nall of it", 200, b"all of it"),
    "with Connection: close": (HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    "of HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
}


@pytest.mark.parametrize(("answer", "status", "body"), WHOLE.values(), ids=WHOLE)
async def test_a_whole_answer_is_taken_and_its_connection_used_again(answer: bytes, status: int, body: bytes) -> None:
    async with playing(always(answer)) as (operator, url), calling() as caller:
        for _ in range(3):
            assert told(await caller.post(url)) == (status, body, None)
        assert len(operator.peers) == 1


@pytest.mark.parametrize(("answer", "status", "body"), UNTIL_CLOSED.values(), ids=UNTIL_CLOSED)
async def test_an_answer_that_ends_with_the_connection_is_taken(answer: bytes, status: int, body: bytes) -> None:
    async with playing(once(answer)) as (operator, url), calling() as caller:
        for count in (1, 2):
            assert told(await caller.post(url)) == (status, body, None)
            assert len(operator.peers) == count


@pytest.mark.parametrize("answer", [UNTIL_CLOSED[name][0] for name in list(UNTIL_CLOSED)[-2:]])
async def test_a_connection_is_closed_by_us_where_the_answer_says_so(answer: bytes) -> None:
    outcome = await played(held(answer))
    assert told(outcome) == (200, b"ok", None)


@pytest.mark.parametrize(("answer", "status", "body"), (WHOLE | UNTIL_CLOSED).values(), ids=WHOLE | UNTIL_CLOSED)
async def test_an_answer_may_come_byte_by_byte(answer: bytes, status: int, body: bytes) -> None:
    outcome = await played(once(*[answer[at : at + 1] for at in range(len(answer))]))
    assert told(outcome) == (status, body, None)


CUT = {
    "a length": (OK, len(OK)),
    "chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", None),
    "an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, None),
    "no length": (HEAD + b"A: b\r\n\r\nall", len(HEAD + b"A: b\r\n\r\n")),
}


@pytest.mark.parametrize(("answer", "whole_from"), CUT.values(), ids=CUT)
async def test_an_answer_cut_off_at_any_byte_is_a_reset_until_it_is_whole(
    answer: bytes, whole_from: int | None
) -> None:
    whole_from = len(answer) if whole_from is None else whole_from
    async with calling() as caller:
        for end in range(len(answer) + 1):
            async with playing(once(answer[:end])) as (_, url):
                outcome = await caller.post(url)
            if end < whole_from:
                assert outcome.reason is Reason.RESET
                assert outcome.detail
            else:
                assert (outcome.reason, outcome.http_status) == (None, 200)


GARBAGE = {
    "bytes": bytes(range(256)),
    "zeros": bytes(1_000),
    "a page without a head (HTTP/0.9)": b"<html>welcome</html>\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2's preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d",
    "an unknown version": b"HTTP/7.3 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a header without a colon": HEAD + b"nonsense\r\n\r\n",
    "a blank before the colon": HEAD + b"Content-Length : 2\r\n\r\nok",
    "a NUL in a header": HEAD + b"A: \0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nok",
    "two lengths in one": HEAD + b"Content-Length: 2, 5\r\n\r\nok",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +2\r\n\r\nok",
    "an endless length": HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nok\r\n0\r\n\r\n",
    "a chunk size in words": CHUNKED + b"two\r\nok\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "an endless chunk size": CHUNKED + b"f" * 40 + b"\r\nok\r\n0\r\n\r\n",
    "a chunk that is longer than its size": CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
    "101 Switching Protocols": b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x01a",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_not_http_is_an_ambiguous_reset_and_we_hang_up(answer: bytes) -> None:
    outcome = await played(held(answer))
    assert outcome.reason is Reason.RESET
    assert outcome.reason.ambiguous
    assert "not HTTP/1.1" in str(outcome.detail)


LONG = {
    "one header": HEAD + b"A: " + b"a" * MAX_BARE_BYTES,
    "ten thousand headers": HEAD + b"".join(b"X-%05d: %05d\r\n" % (n, n) for n in range(10_000)),
    "a flood of 100s": b"HTTP/1.1 100 Continue\r\n\r\n" * 30_000,
    "a reason phrase": b"HTTP/1.1 200 " + b"O" * MAX_BARE_BYTES,
    "a chunk's extension": CHUNKED + b"2;" + b"a" * MAX_BARE_BYTES,
    "a trailer": CHUNKED + b"2\r\nok\r\n0\r\nA: " + b"a" * 500_000,
    "trailers": CHUNKED + b"2\r\nok\r\n0\r\n" + b"A: b\r\n" * 80_000,
}


@pytest.mark.parametrize("answer", LONG.values(), ids=LONG)
async def test_a_head_longer_than_64_kib_is_refused_and_we_hang_up(answer: bytes) -> None:
    outcome = await played(held(answer))
    assert outcome.reason is Reason.RESET
    assert "longer than 65536 bytes" in str(outcome.detail)


async def test_a_head_that_is_short_enough_is_taken() -> None:
    headers = b"".join(b"X-%05d: %05d\r\n" % (n, n) for n in range(4_000))
    assert told(await played(always(HEAD + headers, b"Content-Length: 2\r\n\r\nok"))) == (200, b"ok", None)


@pytest.mark.parametrize("head", [HEAD + b"\r\n", CHUNKED, HEAD + b"A: "], ids=["body", "chunks", "header"])
async def test_an_endless_answer_is_cut_and_the_operator_can_not_go_on_sending(head: bytes) -> None:
    part = b"10000\r\n" + b"a" * 65_536 + b"\r\n" if head == CHUNKED else b"a" * 65_536
    async with playing(endless(head, part)) as (operator, url), calling() as caller:
        outcome = await caller.post(url)
        await operator.left()
        # What the kernels of both sides take in meanwhile is not ours to bound.
        assert operator.peers[0].sent < 16 * 1024 * 1024
    if head.endswith(b"A: "):
        assert outcome.reason is Reason.RESET
    else:
        assert told(outcome) == (200, b"a" * MAX_RESPONSE_BYTES, None)
        assert outcome.truncated


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_a_body_of_64_kib_is_whole_and_one_byte_more_is_truncated(more: int) -> None:
    length = MAX_RESPONSE_BYTES + more
    answer = HEAD + b"Content-Length: %d\r\n\r\n" % length + b"a" * length
    async with playing(always(answer)) as (_, url), calling() as caller:
        for _ in range(3):
            outcome = await caller.post(url)
            assert told(outcome) == (200, b"a" * min(length, MAX_RESPONSE_BYTES), None)
            assert outcome.truncated == (more > 0)


async def test_what_comes_beside_the_body_is_bounded_though_a_byte_of_the_body_comes_now_and_then() -> None:
    """Once each byte of the body was worth another 64 KiB of nothing: four gigabytes for one answer."""
    act = endless(CHUNKED, b"1;" + b"a" * 1_000 + b"\r\na\r\n")
    async with playing(act) as (operator, url), calling() as caller:
        outcome = await caller.post(url)
        await operator.left()
        assert operator.peers[0].sent < 16 * 1024 * 1024
    assert outcome.reason is Reason.RESET
    assert "longer than 65536 bytes" in str(outcome.detail)


async def test_a_body_and_its_trailers_in_one_read_are_bounded_like_any() -> None:
    connection = Connection()
    connection.connection_made(Mock(asyncio.Transport, is_closing=lambda: False))
    sent = connection.exchange(b"", time.monotonic() + PATIENCE, Traffic())
    connection.data_received(CHUNKED + b"2\r\nok\r\n0\r\n" + b"A: b\r\n" * 40_000)
    assert type(await sent) is httpx.RemoteProtocolError


async def test_a_long_head_is_refused_though_it_comes_in_one_read_with_its_answer(connection: Connection) -> None:
    asking = asyncio.create_task(exchanged(connection))
    await asyncio.sleep(0)
    connection.data_received(HEAD + b"A:\r\n" * 50_000 + b"Content-Length: 2\r\n\r\nok")
    assert "the answer's head is longer than 65536 bytes" in str(await asking)


async def test_headers_that_nobody_reads_take_no_memory() -> None:
    async with playing(once(HEAD + b"A:\r\n" * 15_000 + b"Content-Length: 2\r\n\r\nok")) as (_, url):
        connection = await connected(url)
        tracemalloc.start()
        try:
            assert await exchanged(connection) is None
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert connection.body == b"ok"
    assert peak < 1_000_000


async def test_a_hundred_megabytes_do_not_fill_the_memory() -> None:
    act = endless(HEAD + b"Content-Length: 100000000\r\n\r\n", b"a" * 65_536)
    async with playing(act) as (operator, url), calling() as caller:
        tracemalloc.start()
        try:
            outcome = await caller.post(url)
            await operator.left()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert outcome.truncated
    assert peak < 4 * 1024 * 1024


async def test_a_body_in_chunks_of_single_bytes_is_taken() -> None:
    answer = CHUNKED + b"1\r\na\r\n" * 60_000 + b"0\r\n\r\n"
    assert told(await played(held(answer))) == (200, b"a" * 60_000, None)


async def test_a_compressed_body_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    assert told(await played(once(head + bomb))) == (200, bomb, None)


# Whose answer it is.


async def test_a_second_answer_at_once_does_not_replace_the_first() -> None:
    no = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"
    for second in (OK, OK[:5], HEAD + b"Content-Length: 1000\r\n\r\nok", b"garbage"):
        async with playing(in_turn(held(no + second), always(no))) as (operator, url), calling() as caller:
            assert told(await caller.post(url)) == (500, b"no", None)
            assert told(await caller.post(url)) == (500, b"no", None)
            assert len(operator.peers) == 2
            async with asyncio.timeout(RESTS):
                await operator.peers[0].over.wait()


@pytest.mark.parametrize("late", [OK, b"x", b"\r\n", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"])
async def test_what_comes_unasked_on_a_resting_connection_is_no_answer_to_the_next_request(late: bytes) -> None:
    go = asyncio.Event()

    async def act(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await go.wait()
        await peer.say(late)
        await peer.gone()

    no = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"
    async with playing(in_turn(act, always(no))) as (operator, url), calling() as caller:
        assert told(await caller.post(url)) == (200, b"ok", None)
        go.set()
        await operator.left()
        assert told(await caller.post(url)) == (500, b"no", None)
        assert len(operator.peers) == 2


async def test_an_answer_before_the_request_is_whole_is_taken_and_the_connection_closed() -> None:
    async def act(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    async with playing(in_turn(act, always(OK))) as (operator, url), calling() as caller:
        assert told(await caller.post(url, body=b"x" * 32_000_000)) == (413, b"no", None)
        assert told(await caller.post(url)) == (200, b"ok", None)
        assert len(operator.peers) == 2


# Keeping connections.


async def test_many_requests_at_once_open_several_connections_and_then_use_them_again() -> None:
    async with playing(always(OK)) as (operator, url), calling() as caller:
        for _ in range(2):
            outcomes = await asyncio.gather(*(caller.post(url) for _ in range(20)))
            assert {told(outcome) for outcome in outcomes} == {(200, b"ok", None)}
        assert len(operator.peers) == 20


async def test_each_of_many_requests_gets_its_own_answer() -> None:
    async def act(peer: Peer) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def ask(number: int) -> bytes:
        return (await caller.post(url, body=b"%d" % number)).body

    async with playing(act) as (operator, url), calling() as caller:
        for start in range(0, 200, 20):
            numbers = range(start, start + 20)
            assert await asyncio.gather(*map(ask, numbers)) == [b"%d" % number for number in numbers]
        assert len(operator.peers) <= 20


async def test_a_connection_that_rested_too_long_is_not_used_again(ahead: Ahead) -> None:
    async with playing(always(OK)) as (operator, url), calling() as caller:
        await caller.post(url)
        ahead.seconds += 3.9
        await caller.post(url)
        assert len(operator.peers) == 1
        ahead.seconds += 4.1
        await caller.post(url)
        assert len(operator.peers) == 2
        async with asyncio.timeout(RESTS):
            await operator.peers[0].over.wait()


async def test_resting_connections_are_closed_though_nobody_asks_for_them(
    monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    monkeypatch.setattr("dispatcher.wire.transport.IDLE_KEPT_SECONDS", 0.05)
    async with playing(always(OK)) as (operator, url), calling() as caller:
        await asyncio.gather(*(caller.post(url) for _ in range(5)))
        await operator.left()
        assert len(operator.peers) == 5
        # And so are those for which the first round comes too early.
        await caller.post(url)
        ahead.seconds -= 0.02
        await operator.left()
        assert len(operator.peers) == 6


async def test_a_connection_that_the_operator_closed_is_not_used_again() -> None:
    async with playing(once(OK)) as (operator, url), calling() as caller:
        for count in (1, 2, 3):
            assert told(await caller.post(url)) == (200, b"ok", None)
            await operator.left()
            await caller.told_of_the_end()
            assert len(operator.peers) == count


async def connected(url: str) -> Connection:
    host, port = httpx.URL(url).host, httpx.URL(url).port or 0
    return (await asyncio.get_running_loop().create_connection(Connection, host, port))[1]


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    async with playing(always(OK)) as (_, url):
        made = await connected(url)
        yield made
        made.abort()
        await asyncio.sleep(0)


async def exchanged(connection: Connection) -> Exception | None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    return await connection.exchange(request, time.monotonic() + PATIENCE, Traffic())


async def test_a_connection_that_is_closing_takes_no_request_and_says_that_nothing_was_sent(
    connection: Connection,
) -> None:
    """Between the end of a connection and the news of it, what is written is thrown away in silence."""
    assert await exchanged(connection) is None
    assert connection.body == b"ok"
    connection.rest(0)
    before = connection.reusable
    connection.abort()
    assert (before, connection.reusable) == (True, False)
    assert type(await exchanged(connection)) is httpx.WriteError


async def test_a_greeting_before_any_request_is_not_taken_as_its_answer() -> None:
    async def act(peer: Peer) -> None:
        await peer.say(OK)
        await peer.gone()

    async with playing(act) as (operator, url):
        greeted = await connected(url)
        await until(lambda: bool(operator.peers))
        await operator.left()
        assert type(await exchanged(greeted)) is httpx.WriteError


async def test_a_connection_whose_exchange_is_not_over_is_not_reusable(connection: Connection) -> None:
    assert not connection.reusable
    sending = asyncio.ensure_future(exchanged(connection))
    await asyncio.sleep(0)
    assert not connection.reusable
    await sending
    assert connection.reusable


async def test_a_cancelled_requests_connection_is_closed_and_never_used_again() -> None:
    for parts in ((), (HEAD,), (HEAD + b"Content-Length: 9\r\n\r\nok",)):
        async with playing(in_turn(held(*parts), always(OK))) as (operator, url), calling() as caller:
            task = asyncio.create_task(caller.post(url))
            await until(lambda: bool(operator.peers) and operator.peers[0].asked.is_set())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await operator.left()
            assert told(await caller.post(url)) == (200, b"ok", None)
            assert len(operator.peers) == 2


async def test_after_a_failure_the_connection_is_not_used_again() -> None:
    for act in (held(), held(HEAD + b"Content-Length: 9\r\n\r\nok"), held(b"garbage")):
        async with playing(in_turn(act, always(OK))) as (operator, url), calling() as caller:
            assert (await caller.post(url, SHORT)).reason in {Reason.READ_TIMEOUT, Reason.RESET}
            assert told(await caller.post(url)) == (200, b"ok", None)
            assert len(operator.peers) == 2


async def test_nothing_stays_open_after_closing() -> None:
    go = asyncio.Event()

    async def act(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.say(OK)
        await peer.gone()

    async with playing(in_turn(always(OK), act)) as (operator, url), calling() as caller:
        await caller.post(url)
        resting, flying = operator.peers[0], [asyncio.create_task(caller.post(url)) for _ in range(3)]
        await until(lambda: len(operator.peers) == 3 and all(peer.asked.is_set() for peer in operator.peers))
        await caller.transport.aclose()
        # A request in flight ends as it would have, and its connection is not kept.
        go.set()
        assert {told(outcome) for outcome in await asyncio.gather(*flying)} == {(200, b"ok", None)}
        assert resting in operator.peers
        await operator.left()


# Any bytes at all.

LIKELY = st.sampled_from(
    [
        *(answer for answer, *_ in (WHOLE | UNTIL_CLOSED).values()),
        *GARBAGE.values(),
        HEAD,
        CHUNKED,
        b"HTTP/1.1 ",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ]
)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LIKELY | st.binary(max_size=40), max_size=6))
async def test_whatever_an_operator_says_an_outcome_comes_of_it(parts: list[bytes]) -> None:
    outcome = await played(once(*parts))
    assert isinstance(outcome, Outcome)
    assert outcome.reason in {None, Reason.RESET}
    assert outcome.reason or outcome.http_status
