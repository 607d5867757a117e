"""Access tokens against a real token endpoint: what is asked, how long one is kept, and why there may be none."""

import asyncio
import base64
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.operator import ClientAuth, OAuth, Tls
from dispatcher.ground.policy import Reason
from dispatcher.ground.secret import Secret
from dispatcher.tls import tls_context
from dispatcher.wire import Grant, NoToken
from tests.authority import Authority
from tests.hostile import (
    OK,
    Act,
    Ahead,
    Operator,
    Peer,
    always,
    bound,
    calling,
    held,
    in_turn,
    names,
    once,
    playing,
    set_ahead,
    silent,
    until,
)

pytestmark = pytest.mark.anyio

# Long enough to connect on a busy machine.
SHORT = 500 * MILLISECOND
LONG = 60 * SECOND
SECRET = "s3cret: of+acme/ü"
FIRST, SECOND_ONE = Secret("token-1"), Secret("token-2")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return set_ahead(monkeypatch)


def oauth(url: str, **changes: Any) -> OAuth:
    given = {"client_id": "acme:id", "client_secret": Secret(SECRET), "scope": None, "client_auth": ClientAuth.BASIC}
    return OAuth(token_url=url, **{**given, **changes})


def saying(status: int, body: Any) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


def token(name: str = "token-1", **more: Any) -> bytes:
    return saying(200, {"access_token": name, "token_type": "Bearer", "expires_in": 3600} | more)


def counting(**more: Any) -> Act:
    """Another token for each request: token-1, token-2, …"""
    given = 0

    async def act(peer: Peer) -> None:
        nonlocal given
        while True:
            await peer.request()
            given += 1
            await peer.say(token(f"token-{given}", **more))

    return act


@asynccontextmanager
async def granting(act: Act, limit: int = LONG, **changes: Any) -> AsyncIterator[tuple[Operator, Grant]]:
    """A token endpoint with this act, and a grant that asks it."""
    async with playing(act) as (operator, url), calling() as caller:
        yield operator, Grant(caller.transport, oauth(url, **changes), limit)


def requests(operator: Operator) -> int:
    return sum(peer.seen.count(b"POST ") for peer in operator.peers)


async def refused(grant: Grant, deadline: int = LONG) -> NoToken:
    """Why there is no token: never in doubt, never with a secret in it."""
    with pytest.raises(NoToken) as error:
        await grant.token(deadline)
    told = error.value
    assert not told.reason.ambiguous
    assert told.detail == str(told)
    assert told.detail.startswith("oauth2: ")
    assert "s3cret" not in told.detail
    assert "token-1" not in told.detail
    return told


# What is asked.


@pytest.mark.parametrize(("scope", "form"), [(None, ""), ("a:b c", "&scope=a%3Ab+c")])
async def test_a_token_is_asked_for_by_a_form_and_the_secret_shown_by_basic_authentication(
    scope: str | None, form: str
) -> None:
    async with granting(always(token()), scope=scope) as (operator, grant):
        assert await grant.token(LONG) == FIRST
        head, _, body = operator.peers[0].seen.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /Demo/notice HTTP/1.1\r\n")
        assert b"\r\nContent-Type: application/x-www-form-urlencoded\r\n" in head
        assert body.decode() == f"grant_type=client_credentials{form}"
        sent = re.search(rb"\r\nAuthorization: Basic (\S+)\r\n", head)
        assert sent
        # Form-encoded before they are joined: RFC 6749, section 2.3.1.
        assert base64.b64decode(sent[1]) == b"acme%3Aid:s3cret%3A+of%2Bacme%2F%C3%BC"


async def test_the_secret_can_be_shown_in_the_form_instead() -> None:
    async with granting(always(token()), scope="a", client_auth=ClientAuth.POST) as (operator, grant):
        assert await grant.token(LONG) == FIRST
        head, _, body = operator.peers[0].seen.partition(b"\r\n\r\n")
        assert b"Authorization" not in head
        assert parse_qs(body.decode(), strict_parsing=True) == {
            "grant_type": ["client_credentials"],
            "scope": ["a"],
            "client_id": ["acme:id"],
            "client_secret": [SECRET],
        }


async def test_the_token_endpoint_is_reached_with_the_operators_own_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = tls_context(Tls(authority.pem, *authority.client()))
    async with (
        playing(always(token()), authority.demanding(ssl.TLSVersion.TLSv1_3)) as (_, url),
        calling(context=context) as caller,
        calling() as without,
    ):
        assert await Grant(caller.transport, oauth(url)).token(LONG) == FIRST
        assert (await refused(Grant(without.transport, oauth(url)))).reason is Reason.TLS


# How long it is kept.


@pytest.mark.parametrize(
    ("expires_in", "kept"),
    [
        (3600, 3570),
        ("3600", 3570),
        (3600.5, 3570.5),
        (300, 270),
        (100, 90),
        (10, 9),
        (10**12, 86_370),
        (-1, 300),
        (True, 300),
        (None, 300),
        ("soon", 300),
        ({}, 300),
    ],
)
async def test_a_token_is_kept_until_shortly_before_it_runs_out(expires_in: Any, kept: float, ahead: Ahead) -> None:
    async with granting(counting(expires_in=expires_in)) as (operator, grant):
        assert await grant.token(LONG) == FIRST
        ahead.seconds += kept - 3
        assert await grant.token(LONG) == FIRST
        assert requests(operator) == 1
        ahead.seconds += 3
        assert await grant.token(LONG) == SECOND_ONE
        assert requests(operator) == 2


async def test_a_token_that_does_not_say_how_long_it_lives_is_kept_for_five_minutes(ahead: Ahead) -> None:
    async with granting(always(saying(200, {"access_token": "token-1", "token_type": "bearer"}))) as (operator, grant):
        await grant.token(LONG)
        ahead.seconds += 297
        await grant.token(LONG)
        assert requests(operator) == 1
        ahead.seconds += 3
        await grant.token(LONG)
        assert requests(operator) == 2


async def test_a_token_that_has_run_out_already_is_used_once() -> None:
    async with granting(counting(expires_in=0)) as (_, grant):
        assert await grant.token(LONG) == FIRST
        assert await grant.token(LONG) == SECOND_ONE


async def test_a_token_that_the_operator_refused_is_fetched_anew_once_for_all() -> None:
    async with granting(counting()) as (operator, grant):
        held_by_all = await asyncio.gather(*(grant.token(LONG) for _ in range(5)))
        for one in held_by_all:
            grant.forget(one)
            assert await grant.token(LONG) == SECOND_ONE
        assert requests(operator) == 2
        # A late refusal of the old one leaves the new one alone; so does one while it is fetched.
        grant.forget(FIRST)
        assert await grant.token(LONG) == SECOND_ONE
        assert requests(operator) == 2


# Many at once.


async def test_those_who_ask_at_once_share_one_request() -> None:
    async with granting(counting()) as (operator, grant):
        assert set(await asyncio.gather(*(grant.token(LONG) for _ in range(20)))) == {FIRST}
        assert requests(operator) == 1


def gated(gate: asyncio.Event, answer: bytes) -> Act:
    async def act(peer: Peer) -> None:
        await peer.request()
        await gate.wait()
        await peer.say(answer)
        await peer.gone()

    return act


async def test_one_that_runs_out_of_time_or_is_cancelled_does_not_spoil_it_for_the_others() -> None:
    gate = asyncio.Event()
    async with granting(gated(gate, token())) as (operator, grant):
        patient = asyncio.create_task(grant.token(LONG))
        cancelled = asyncio.create_task(grant.token(LONG))
        told = await refused(grant, SHORT)
        assert (told.reason, told.detail) == (Reason.WRITE_ERROR, "oauth2: no token within 0.5 s")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.set()
        assert await patient == FIRST
        assert await grant.token(LONG) == FIRST
        assert requests(operator) == 1


async def test_a_fetch_that_outlives_all_who_asked_still_serves_those_who_come_after() -> None:
    gate = asyncio.Event()
    async with granting(gated(gate, token())) as (operator, grant):
        await refused(grant, SHORT)
        late = asyncio.create_task(grant.token(LONG))
        await asyncio.sleep(0)
        gate.set()
        assert await late == FIRST
        assert requests(operator) == 1


async def test_a_failed_fetch_is_shared_by_those_who_waited_and_not_kept() -> None:
    gate = asyncio.Event()
    async with granting(gated(gate, saying(500, b""))) as (operator, grant):
        waiting = [asyncio.create_task(refused(grant)) for _ in range(5)]
        await until(lambda: bool(operator.peers) and operator.peers[0].asked.is_set())
        gate.set()
        found = await asyncio.gather(*waiting)
        assert {one.detail for one in found} == {"oauth2: the token endpoint answered 500"}
        assert len({id(one) for one in found}) == 5
        assert requests(operator) == 1


async def test_after_a_failure_the_next_who_asks_asks_the_endpoint() -> None:
    act = in_turn(once(saying(500, b"")), always(token()))
    async with playing(act) as (operator, url), calling() as caller:
        grant = Grant(caller.transport, oauth(url), LONG)
        await refused(grant)
        await operator.left()
        await caller.told_of_the_end()
        assert await grant.token(LONG) == FIRST


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_an_error_of_ours() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    gate = asyncio.Event()
    async with granting(gated(gate, saying(500, b""))) as (_, grant):
        await refused(grant, SHORT)
        gate.set()
        await until(lambda: grant._fetch is None)
        await asyncio.sleep(0)
    assert not reported


# Why there is none.


@pytest.mark.parametrize(
    ("status", "body", "reason", "told"),
    [
        (400, {"error": "invalid_scope"}, Reason.CONFIG, "answered 400 (invalid_scope)"),
        (401, {"error": "invalid_client"}, Reason.CONFIG, "answered 401 (invalid_client)"),
        (403, b"", Reason.CONFIG, "answered 403"),
        (404, b"<html>", Reason.CONFIG, "answered 404"),
        (408, b"", Reason.WRITE_ERROR, "answered 408"),
        (429, {"error": "slow_down"}, Reason.WRITE_ERROR, "answered 429 (slow_down)"),
        (500, b"", Reason.WRITE_ERROR, "answered 500"),
        (503, {"error": "temporarily_unavailable"}, Reason.WRITE_ERROR, "answered 503 (temporarily_unavailable)"),
        (302, b"", Reason.WRITE_ERROR, "answered 302"),
        (201, {"access_token": "token-1", "token_type": "Bearer"}, Reason.WRITE_ERROR, "answered 201"),
        (200, b"", Reason.WRITE_ERROR, "not a JSON object"),
        (200, b"[]", Reason.WRITE_ERROR, "not a JSON object"),
        (200, b"\xff\xfe", Reason.WRITE_ERROR, "not a JSON object"),
        (200, b'{"access_token":"token-1"', Reason.WRITE_ERROR, "not a JSON object"),
        (200, b" " * 65_536 + b"{}", Reason.WRITE_ERROR, "not a JSON object"),
        (200, b"[" * 60_000, Reason.WRITE_ERROR, "not a JSON object"),
    ],
)
async def test_an_answer_that_is_no_token_has_a_reason(status: int, body: Any, reason: Reason, told: str) -> None:
    async with granting(always(saying(status, body))) as (operator, grant):
        found = await refused(grant)
        assert found.reason is reason
        assert told in found.detail
        assert not found.ours
        assert len(operator.peers) == 1


@pytest.mark.parametrize("value", [None, 7, "", "a b", "a\r\nX-Evil: 1", "投", "a" * 4097, ["token-1"], {}, True])
async def test_an_access_token_that_no_header_can_carry_is_none(value: Any) -> None:
    async with granting(always(token(access_token=value))) as (_, grant):
        assert "no access_token" in (await refused(grant)).detail


@pytest.mark.parametrize("value", ["Bearer", "bearer", "BEARER"])
async def test_the_type_bearer_is_taken_in_any_letters(value: str) -> None:
    async with granting(always(token("a" * 4096, token_type=value))) as (_, grant):
        assert await grant.token(LONG) == Secret("a" * 4096)


@pytest.mark.parametrize("value", ["mac", "DPoP", "", None, 1, ["Bearer"]])
async def test_another_type_of_token_is_refused(value: Any) -> None:
    async with granting(always(token(token_type=value))) as (_, grant):
        assert "token_type is not Bearer" in (await refused(grant)).detail


@pytest.mark.parametrize(
    "code",
    [
        "s3cret",
        f"bad-{'s3cret'}",
        base64.b64encode(b"acme%3Aid:s3cret").decode(),
        base64.b64encode(b"acme%3Aid:s3cret").decode().rstrip("="),
        "投",
        "a b",
        "line\nbreak",
        "",
        "a" * 65,
        7,
        None,
        ["invalid_client"],
    ],
)
async def test_an_answer_that_repeats_what_was_sent_or_is_no_code_is_not_quoted(code: Any) -> None:
    act = always(saying(401, {"error": code, "error_description": "is s3cret wrong?"}))
    async with granting(act, client_secret=Secret("s3cret")) as (_, grant):
        assert (await refused(grant)).detail == "oauth2: the token endpoint answered 401"


BREAKS: dict[str, Act] = {
    "a close before the answer": once(),
    "half an answer": once(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "garbage": held(b"garbage"),
    "silence": silent,
    "half an answer and silence": held(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
}


@pytest.mark.parametrize("act", BREAKS.values(), ids=BREAKS)
async def test_what_would_leave_doubt_about_an_order_leaves_none_about_a_token(act: Act) -> None:
    async with granting(act, limit=SHORT) as (_, grant):
        assert (await refused(grant)).reason is Reason.WRITE_ERROR


async def test_an_endpoint_that_is_not_there_fails_as_an_operator_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    hang = asyncio.Event()
    names(monkeypatch, mute=[silence], none=[unknown], slow=[hang])
    (deaf,) = bound("127.0.0.1")
    nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
    found = []
    async with calling() as caller, calling(allow=[]) as blocked:
        for transport, url in (
            (caller.transport, nobody),
            (blocked.transport, nobody),
            (caller.transport, "http://mute.example/"),
            (caller.transport, "http://slow.example/"),
            (caller.transport, "http://none.example/"),
        ):
            told = await refused(Grant(transport, oauth(url)), SHORT)
            found.append((told.reason, told.ours))
        hang.set()
    deaf.close()
    assert found == [
        (Reason.CONNECT_REFUSED, False),
        (Reason.BLOCKED_ADDRESS, False),
        (Reason.DNS, True),
        (Reason.DNS, True),
        (Reason.DNS, False),
    ]


@pytest.mark.parametrize(("limit", "deadline"), [(SHORT, LONG), (LONG, SHORT)], ids=["the fetch's", "the caller's"])
async def test_a_connection_that_hangs_is_a_connect_timeout_whoevers_time_runs_out(limit: int, deadline: int) -> None:
    async with playing(silent) as (_, url), calling() as caller:
        grant = Grant(caller.transport, oauth(url.replace("http:", "https:")), limit)
        assert (await refused(grant, deadline)).reason is Reason.CONNECT_TIMEOUT


async def test_a_redirect_is_not_followed() -> None:
    async with playing(always(OK)) as (elsewhere, target):
        answer = b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target.encode()
        async with granting(always(answer)) as (_, grant):
            assert (await refused(grant)).reason is Reason.WRITE_ERROR
        assert not elsewhere.peers


@pytest.mark.parametrize("raised", [httpx.ReadError, httpx.ReadTimeout, httpx.CloseError, httpx.RemoteProtocolError])
async def test_no_failure_of_any_transport_leaves_doubt(raised: type[httpx.TransportError]) -> None:
    def fails(_: httpx.Request) -> httpx.Response:
        raise raised("told so")

    told = await refused(Grant(httpx.MockTransport(fails), oauth("https://acme.example/token")))
    assert (told.reason, told.detail) == (Reason.WRITE_ERROR, "oauth2: told so")


async def test_a_deadline_that_has_passed_already_is_no_token_and_no_waiting() -> None:
    async with granting(counting()) as (_, grant):
        assert (await refused(grant, -1)).reason is not None
        assert await grant.token(LONG) == FIRST
        # What is there is given all the same.
        assert await grant.token(-1) == FIRST
