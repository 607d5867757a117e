"""One POST as a value: its bytes, every reason for failing, the deadline, names and addresses, encryption."""

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import respx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.ground.clock import MILLISECOND, SECOND, WallClock
from dispatcher.ground.policy import Outcome, Reason
from dispatcher.wire import MAX_RESPONSE_BYTES, Headers, PinnedTransport, Request, Resolver, Wire, reach
from tests.authority import Authority
from tests.hostile import (
    OK,
    Act,
    Ahead,
    Caller,
    Peer,
    always,
    bound,
    calling,
    endless,
    held,
    in_turn,
    named,
    names,
    once,
    played,
    playing,
    set_ahead,
    silent,
    told,
    until,
)

pytestmark = pytest.mark.anyio

URL = "https://acme.example/Demo/notice"
# Long enough to connect on a busy machine; and what such a machine may add to it.
SHORT = 500 * MILLISECOND
TOLERANCE = 20 * SECOND
HEAD = b"HTTP/1.1 200 OK\r\n"
BIG = b"x" * 32_000_000
AMBIGUOUS = {Reason.READ_TIMEOUT, Reason.RESET}


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


def failed(outcome: Outcome, reason: Reason, detail: str = "") -> None:
    """For this reason, with these words, and ambiguous only where the operator may have the whole request."""
    assert outcome.reason is reason
    assert outcome.reason.ambiguous == (reason in AMBIGUOUS)
    assert outcome.detail
    assert detail in outcome.detail
    assert outcome.duration is not None
    # Once the request may be out, or it is the operator that turns us away, the fault is never ours.
    assert not outcome.ours or reason in {Reason.DNS, Reason.CONNECT_REFUSED}


def in_time(outcome: Outcome, deadline: int = SHORT) -> None:
    assert outcome.duration is not None
    assert outcome.duration < deadline + TOLERANCE
    assert outcome.ended_at >= outcome.started_at


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return set_ahead(monkeypatch)


# The bytes of a request.


async def test_a_request_is_these_bytes_and_no_others() -> None:
    headers = [("Content-Type", "application/json"), ("Authorization", "Bearer the-token-of-acme")]
    async with playing(always(OK)) as (operator, url), calling() as caller:
        assert told(await caller.post(f"{url}?a=b%20c", headers=headers, body=b'{"order_no":"1"}')) == (
            200,
            b"ok",
            None,
        )
        assert told(await caller.post(url.removesuffix("/Demo/notice"), body=b"")) == (200, b"ok", None)
        port = url.split(":")[2].split("/")[0].encode()
        assert operator.peers[0].seen == (
            b"POST /Demo/notice?a=b%20c HTTP/1.1\r\n"
            b"Host: 127.0.0.1:" + port + b"\r\n"
            b"Content-Type: application/json\r\n"
            b"Authorization: Bearer the-token-of-acme\r\n"
            b"User-Agent: dispatcher\r\n"
            b"Accept: */*\r\n"
            b"Content-Length: 16\r\n"
            b"\r\n"
            b'{"order_no":"1"}'
            b"POST / HTTP/1.1\r\n"
            b"Host: 127.0.0.1:" + port + b"\r\n"
            b"User-Agent: dispatcher\r\n"
            b"Accept: */*\r\n"
            b"Content-Length: 0\r\n"
            b"\r\n"
        )


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with playing(silent) as (proxy, proxy_url), playing(always(OK)) as (_, url), calling() as caller:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy_url)
        assert told(await caller.post(url)) == (200, b"ok", None)
        assert not proxy.peers


@pytest.mark.parametrize(
    "text", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b", "a\r\n", "a\n", "\r\n\r\nGET /"]
)
async def test_a_header_that_breaks_out_of_its_line_is_refused_and_nothing_is_sent(text: str) -> None:
    async with playing(always(OK)) as (operator, url), calling() as caller:
        for header in ((text, "a"), ("X-A", text)):
            failed(await caller.post(url, headers=[header]), Reason.CONFIG, "line break or NUL")
        assert not operator.peers
        # Nor on a connection that is there already.
        await caller.post(url)
        failed(await caller.post(url, headers=[("X-A", text)]), Reason.CONFIG, "line break or NUL")
        assert operator.peers[0].seen.count(b"POST") == 1


async def test_a_redirect_is_handed_on_and_its_target_never_contacted() -> None:
    async with playing(silent) as (target, elsewhere), calling() as caller:
        for status in (301, 302, 303, 307, 308):
            answer = b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, elsewhere.encode())
            async with playing(always(answer)) as (operator, url):
                assert told(await caller.post(url)) == (status, b"", None)
                assert len(operator.peers) == 1
        assert not target.peers


# After the request was sent.


def reset_after(*parts: bytes) -> Act:
    async def act(peer: Peer) -> None:
        await peer.request()
        await peer.say(*parts, pause=0.02)
        peer.reset()

    return act


RESETS: dict[str, tuple[Act, int | None]] = {
    "RST": (reset_after(), None),
    "a close before the answer": (once(), None),
    "a close within the head": (once(HEAD + b"Content-Le"), None),
    "a close within the body": (once(HEAD + b"Content-Length: 9\r\n\r\nok"), 200),
    "a close within a chunk": (once(HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nok"), 200),
    "a close before the last chunk": (once(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"), 200),
}


@pytest.mark.parametrize(("act", "status"), RESETS.values(), ids=RESETS)
async def test_a_connection_that_breaks_after_the_request_is_an_ambiguous_reset(act: Act, status: int | None) -> None:
    outcome = await played(act)
    failed(outcome, Reason.RESET)
    assert outcome.http_status == status


@pytest.mark.parametrize("head", [HEAD + b"Content-Length: 9\r\n\r\n", HEAD + b"\r\n"], ids=["a length", "none"])
async def test_a_connection_reset_within_the_answer_is_a_reset_and_not_the_end_of_the_body(head: bytes) -> None:
    failed(await played(reset_after(head, b"ok")), Reason.RESET)


async def test_a_request_of_which_a_part_was_never_sent_is_an_unambiguous_write_error() -> None:
    async def act(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.reset()

    failed(await played(act, body=BIG), Reason.WRITE_ERROR, "before the request was sent")


async def test_a_deadline_before_the_whole_request_was_sent_is_an_unambiguous_write_error() -> None:
    async def act(peer: Peer) -> None:
        await asyncio.Event().wait()

    async with playing(act) as (_, url), calling() as caller:
        outcome = await caller.post(url, SHORT, body=BIG)
        failed(outcome, Reason.WRITE_ERROR)
        in_time(outcome)


# When to come back.

NOW = 784_111_777_000_000  # Sun, 06 Nov 1994 08:49:37 GMT, the moment of RFC 9110's examples
COME_BACK: dict[str, int | None] = {
    "0": 0,
    "120": 120 * SECOND,
    "00120": 120 * SECOND,
    "315360000": 315_360_000 * SECOND,
    "315360001": None,
    "9" * 5_000: None,
    "-1": None,
    "1.5": None,
    "+1": None,
    "1s": None,
    "12 0": None,
    "": None,
    "soon": None,
    "²": None,
    "120, 120": None,
    "Sun, 06 Nov 1994 08:51:37 GMT": 120 * SECOND,
    "Sunday, 06-Nov-94 08:51:37 GMT": 120 * SECOND,
    "Sun Nov  6 08:51:37 1994": 120 * SECOND,
    "Sun, 06 Nov 1994 08:49:37 GMT": 0,
    "Sun, 06 Nov 1994 08:49:36 GMT": None,
    "Sun, 06 Nov 2005 08:49:37 GMT": None,
    "Sun, 99 Nov 1994 08:51:37 GMT": None,
    "Sun, 06 Nov 99999999999 08:51:37 GMT": None,
}


class Stopped:
    """A clock that stands still."""

    def now(self) -> int:
        return NOW


async def come_back(status: int, value: str) -> int | None:
    answer = httpx.Response(status, headers=[(b"Retry-After", value.encode())])
    transport = httpx.MockTransport(lambda _: answer)
    return (await Wire(Stopped()).post(transport, Request(URL, Headers([]), b"{}"), SECOND)).retry_after


@pytest.mark.parametrize(("value", "wait"), COME_BACK.items(), ids=lambda one: str(one)[:40])
async def test_when_to_come_back_is_read_in_seconds_or_as_a_date(value: str, wait: int | None) -> None:
    assert await come_back(429, value) == wait
    assert await come_back(503, value) == wait


async def test_only_429_and_503_say_when_to_come_back() -> None:
    for status in (200, 202, 301, 400, 404, 413, 500, 502, 504):
        assert await come_back(status, "120") is None


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,12} [0-9:]{0,9} .{0,6}"))
async def test_whatever_stands_there_it_is_a_time_to_come_or_nothing(value: str) -> None:
    wait = await come_back(429, value)
    assert wait is None or 0 <= wait <= 315_360_000 * SECOND


async def test_when_to_come_back_is_read_off_the_wire_even_if_the_rest_breaks() -> None:
    head = b"HTTP/1.1 503 Later\r\nretry-after: 7\r\n"
    assert (await played(always(head + b"Content-Length: 0\r\n\r\n"))).retry_after == 7 * SECOND
    assert (await played(once(head + b"Content-Length: 9\r\n\r\nno"))).retry_after == 7 * SECOND
    assert (await played(always(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"))).retry_after is None


# The deadline.

HELD: dict[str, Act] = {
    "silence": silent,
    "a drip of headers": endless(HEAD, b"A: b\r\n", pause=0.01),
    "a drip of one header": endless(HEAD, b"a", pause=0.01),
    "a drip of body": endless(HEAD + b"Content-Length: 1000000\r\n\r\n", b"a", pause=0.01),
    "a drip of body without a length": endless(HEAD + b"\r\n", b"a", pause=0.01),
    "a drip of chunks": endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", pause=0.01),
    "a drip of 100s": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.01),
    "half a body": held(HEAD + b"Content-Length: 9\r\n\r\nok"),
}


@pytest.mark.parametrize("act", HELD.values(), ids=HELD)
async def test_the_deadline_ends_everything_and_the_connection_with_it(act: Act) -> None:
    outcome = await played(act, SHORT)
    failed(outcome, Reason.READ_TIMEOUT, "no whole answer within 0.5 s")
    in_time(outcome)


async def test_an_operator_that_holds_back_does_not_hold_up_the_others() -> None:
    async with playing(silent) as (_, slow), playing(always(OK)) as (_, url), calling() as caller:
        waiting = [asyncio.create_task(caller.post(slow, 3 * SECOND)) for _ in range(20)]
        for _ in range(20):
            assert told(await caller.post(url)) == (200, b"ok", None)
        assert not any(one.done() for one in waiting)
        assert {outcome.reason for outcome in await asyncio.gather(*waiting)} == {Reason.READ_TIMEOUT}


# Names and addresses.


async def test_a_name_without_an_address_is_a_dns_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, acme=[socket.gaierror(-2, "Name or service not known")], empty=[[]], odd=[["nowhere"]])
    async with calling() as caller:
        failed(await caller.post("http://acme.example/"), Reason.DNS, "acme.example: Name or service not known")
        failed(await caller.post("http://empty.example/"), Reason.DNS, "no usable address")
        failed(await caller.post("http://odd.example/"), Reason.DNS, "no usable address")
    assert asked.asked == ["acme.example", "empty.example", "odd.example"]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", ".example", "a" * 300])
async def test_a_name_that_can_not_even_be_asked_for_is_a_dns_failure(host: str) -> None:
    async with calling() as caller:
        failed(await caller.post(f"http://{host}/"), Reason.DNS)


async def test_a_resolver_that_hangs_is_a_dns_failure_at_the_deadline_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = asyncio.Event()
    asked = names(monkeypatch, acme=[hang])
    async with calling() as caller:
        for outcome in await asyncio.gather(*(caller.post("http://acme.example/", SHORT) for _ in range(5))):
            failed(outcome, Reason.DNS)
            in_time(outcome)
        assert asked.asked == ["acme.example"]
        # One that ran out of time has not spoilt the look-up for the others.
        late = asyncio.create_task(caller.post("http://acme.example/"))
        await asyncio.sleep(0)
        hang.set()
        failed(await late, Reason.DNS, "no usable address")
        assert asked.asked == ["acme.example"]


async def test_look_ups_are_shared_and_kept_for_thirty_seconds(monkeypatch: pytest.MonkeyPatch, ahead: Ahead) -> None:
    asked = names(monkeypatch, acme=[["127.0.0.1"]])
    async with playing(always(OK)) as (_, url), calling() as caller:
        await asyncio.gather(*(caller.post(named(url)) for _ in range(10)))
        await caller.post(named(url) + "?another=url")
        ahead.seconds += 29
        await caller.post(named(url))
        assert len(asked.asked) == 1
        ahead.seconds += 2
        await asyncio.gather(*(caller.post(named(url)) for _ in range(10)))
        assert len(asked.asked) == 2


async def test_a_failed_look_up_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, acme=[socket.gaierror(-3, "Temporary failure"), ["127.0.0.1"]])
    async with playing(always(OK)) as (_, url), calling() as caller:
        failed(await caller.post(named(url)), Reason.DNS, "Temporary failure")
        assert told(await caller.post(named(url))) == (200, b"ok", None)


async def test_a_name_is_asked_for_in_the_very_letters_of_its_host_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older reading of international names would turn this one into `fass.example`: another party's."""
    asked = names(monkeypatch, **{"xn--fa-hia": [["127.0.0.1"]]})
    async with playing(always(OK)) as (operator, url), calling() as caller:
        assert told(await caller.post(named(url, "xn--fa-hia.example"))) == (200, b"ok", None)
        assert asked.asked == ["xn--fa-hia.example"]
        assert b"\r\nHost: xn--fa-hia.example:" in operator.peers[0].seen


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_blocked_address_in_the_url_is_not_called(host: str) -> None:
    async with playing(silent) as (operator, url), calling(allow=[]) as caller:
        failed(await caller.post(named(url, host)), Reason.BLOCKED_ADDRESS, "not in egress.allow")
        assert not operator.peers


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost"])
async def test_a_blocked_address_in_another_spelling_is_not_called(host: str) -> None:
    async with playing(silent) as (operator, url), calling(allow=[]) as caller:
        failed(await caller.post(named(url, host)), Reason.BLOCKED_ADDRESS, "not in egress.allow")
        assert not operator.peers


@pytest.mark.parametrize("found", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]])
async def test_a_name_with_any_blocked_address_is_not_called(
    found: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[found])
    async with playing(silent) as (operator, url), calling() as caller:
        failed(await caller.post(named(url)), Reason.BLOCKED_ADDRESS, "acme.example is 10.0.0.1")
        assert not operator.peers


async def test_the_address_that_was_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    """A name that answers otherwise when asked again (DNS rebinding) leads nowhere else."""
    asked = names(monkeypatch, acme=[["127.0.0.1"], ["127.0.0.2"]])
    allowed, forbidden = bound("127.0.0.1", "127.0.0.2")
    async with playing(once(OK), at=allowed) as (operator, url), playing(always(OK), at=forbidden) as (trap, _):
        async with calling(allow=["127.0.0.1/32"]) as caller:
            for count in (1, 2, 3):
                assert told(await caller.post(named(url))) == (200, b"ok", None)
                await operator.left()
                await caller.told_of_the_end()
                assert (len(operator.peers), len(asked.asked)) == (count, 1)
            ahead.seconds += 31
            failed(await caller.post(named(url)), Reason.BLOCKED_ADDRESS, "acme.example is 127.0.0.2")
        assert not trap.peers


async def test_a_connection_to_an_address_that_the_name_has_lost_is_not_used(
    monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    monkeypatch.setattr("dispatcher.wire.transport.IDLE_KEPT_SECONDS", 60)
    names(monkeypatch, acme=[["127.0.0.1"], ["127.0.0.2"]])
    old, new = bound("127.0.0.1", "127.0.0.2")
    async with playing(always(OK), at=old) as (before, url), playing(always(OK), at=new) as (after, _):
        async with calling() as caller:
            await caller.post(named(url))
            ahead.seconds += 31
            await caller.post(named(url))
        assert [len(before.peers), len(after.peers)] == [1, 1]
        assert before.peers[0].seen.count(b"POST") == 1


async def test_after_a_failed_connect_the_next_attempt_tries_the_next_address(
    monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    asked = names(monkeypatch, acme=[["127.0.0.1", "127.0.0.2", "127.0.0.3"]])
    deaf, deaf_too, open_one = bound("127.0.0.1", "127.0.0.2", "127.0.0.3")
    async with playing(always(OK), at=open_one) as (_, url), calling() as caller:
        url = url.replace("127.0.0.3", "acme.example")
        failed(await caller.post(url), Reason.CONNECT_REFUSED, "127.0.0.1")
        failed(await caller.post(url), Reason.CONNECT_REFUSED, "127.0.0.2")
        assert told(await caller.post(url)) == (200, b"ok", None)
        # The one that works is kept, also by the next look-up: the dead one costs no further attempt.
        ahead.seconds += 31
        assert told(await caller.post(url)) == (200, b"ok", None)
        assert len(asked.asked) == 2
    deaf.close()
    deaf_too.close()


async def test_attempts_that_fail_together_move_on_by_one_address_and_after_the_last_comes_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, acme=[["127.0.0.1", "127.0.0.2"]])
    first, second = bound("127.0.0.1", "127.0.0.2")
    url = f"http://acme.example:{first.getsockname()[1]}/"
    async with calling() as caller:
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
            for outcome in await asyncio.gather(*(caller.post(url) for _ in range(5))):
                failed(outcome, Reason.CONNECT_REFUSED, host)
    first.close()
    second.close()


async def test_a_connect_that_fails_late_does_not_lead_back_to_an_address_that_failed_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, acme=[["127.0.0.1", "127.0.0.2", "127.0.0.3"]])
    hanging, deaf, open_one = bound("127.0.0.1", "127.0.0.2", "127.0.0.3")
    async with playing(silent, at=hanging), playing(says_something_else, at=open_one) as (_, url), calling() as caller:
        url = url.replace("127.0.0.3", "acme.example").replace("http:", "https:")
        late = asyncio.create_task(caller.post(url, 4 * SHORT))
        failed(await caller.post(url, SHORT), Reason.CONNECT_TIMEOUT)
        failed(await caller.post(url), Reason.CONNECT_REFUSED, "127.0.0.2")
        failed(await late, Reason.CONNECT_TIMEOUT)
        failed(await caller.post(url), Reason.TLS)
    deaf.close()


async def test_an_ipv6_address_in_the_url_is_called_where_it_is_allowed() -> None:
    async with playing(always(OK), at=bound("::1")[0]) as (operator, url), calling() as caller:
        assert told(await caller.post(url)) == (200, b"ok", None)
        assert operator.peers[0].seen.startswith(
            b"POST /Demo/notice HTTP/1.1\r\nHost: " + url[7:-12].encode() + b"\r\n"
        )
        async with calling(allow=["127.0.0.0/8"]) as other:
            failed(await other.post(url), Reason.BLOCKED_ADDRESS, "::1")


# Connecting.


async def test_a_port_where_nobody_listens_is_a_refused_connection() -> None:
    (deaf,) = bound("127.0.0.1")
    async with calling() as caller:
        failed(await caller.post(f"http://127.0.0.1:{deaf.getsockname()[1]}/"), Reason.CONNECT_REFUSED)
    deaf.close()


OURS = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "ENETDOWN", "EACCES", "EPERM")
THEIRS = ("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EHOSTDOWN")


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_that_this_machine_could_not_even_try_is_our_own_fault(
    name: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise OSError(getattr(errno, name), f"what {name} says")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fails)
    async with calling() as caller:
        outcome = await caller.post(f"{scheme}://127.0.0.1/")
    failed(outcome, Reason.CONNECT_REFUSED, f"127.0.0.1: what {name} says")
    assert outcome.ours == (name in OURS)


async def test_running_out_of_file_descriptors_is_our_own_fault() -> None:
    (deaf,) = bound("127.0.0.1")
    url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with calling() as caller:
        theirs = await caller.post(url)
        # The lowest number that is free is what a new socket would get.
        with socket.socket() as free:
            lowest = free.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            own = await caller.post(url)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    deaf.close()
    failed(theirs, Reason.CONNECT_REFUSED)
    failed(own, Reason.CONNECT_REFUSED, "Too many open files")
    assert (theirs.ours, own.ours) == (False, True)


@asynccontextmanager
async def deaf_listener() -> AsyncIterator[str]:
    """A port whose queue is full: connecting to it is neither taken nor refused."""
    (listener,) = bound("127.0.0.1")
    listener.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        for one in (listener, *fillers):
            one.close()


@pytest.mark.parametrize("options", [{"connect_timeout": SHORT}, {}], ids=["its own", "the whole deadline"])
async def test_connecting_that_takes_too_long_is_an_unambiguous_connect_timeout(options: dict[str, int]) -> None:
    async with deaf_listener() as url, calling(**options) as caller:
        outcome = await caller.post(url, deadline=60 * SECOND if options else SHORT)
        failed(outcome, Reason.CONNECT_TIMEOUT, "within 0.5 s")
        in_time(outcome)


async def says_something_else(peer: Peer) -> None:
    await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await peer.gone()


async def test_a_deadline_that_comes_while_connecting_leads_to_the_next_address_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, acme=[["127.0.0.1", "127.0.0.2"]])
    hanging, open_one = bound("127.0.0.1", "127.0.0.2")
    async with playing(says_something_else, at=open_one) as (_, url), calling() as caller:
        url = url.replace("127.0.0.2", "acme.example").replace("http:", "https:")
        async with playing(silent, at=hanging):
            failed(await caller.post(url, SHORT), Reason.CONNECT_TIMEOUT)
        failed(await caller.post(url), Reason.TLS)


async def test_reaching_connects_and_hangs_up_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, acme=[socket.gaierror(-2, "Name or service not known")])
    (deaf,) = bound("127.0.0.1")
    async with playing(silent) as (operator, url), calling() as caller, calling(allow=[]) as blocked:
        assert await reach(caller.transport, url) is None
        await until(lambda: bool(operator.peers))
        await operator.left()
        assert operator.peers[0].seen == b""
        assert str(await reach(blocked.transport, url)).startswith("blocked_address (127.0.0.1 is ")
        assert str(await reach(caller.transport, f"http://127.0.0.1:{deaf.getsockname()[1]}/")).startswith("connect_r")
        assert str(await reach(caller.transport, "http://acme.example/")).startswith("dns (acme.example: ")
    deaf.close()


# Encryption.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.trusted))
    return authority


async def test_an_encrypted_connection_is_made_for_the_name_and_used_again(
    trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[["127.0.0.1"]])
    async with playing(always(OK), trusted.context()) as (operator, url), calling() as caller:
        for _ in range(3):
            assert told(await caller.post(named(url))) == (200, b"ok", None)
        assert len(operator.peers) == 1
        assert operator.peers[0].seen.count(b"POST") == 3
        # By its number it is another place, and the certificate is checked for that one.
        assert told(await caller.post(url)) == (200, b"ok", None)
        assert len(operator.peers) == 2
        await caller.transport.aclose()
        await operator.left()


async def refused(caller: Caller, url: str, detail: str, context: ssl.SSLContext | None, act: Act = silent) -> None:
    async with playing(act, context, at=bound("127.0.0.1")[0]) as (operator, own):
        port = own.split(":")[2]
        failed(await caller.post(f"{url}:{port}"), Reason.TLS, detail)
        await operator.left()
        assert all(not peer.seen.startswith(b"POST") for peer in operator.peers)


async def test_a_certificate_that_does_not_hold_is_a_tls_failure_and_nothing_is_sent(
    trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[["127.0.0.1"]], other=[["127.0.0.1"]])
    async with calling() as caller:
        await refused(caller, "https://acme.example", "self-signed certificate", trusted.context(signed=False))
        await refused(caller, "https://acme.example", "certificate has expired", trusted.context(days=-1))
        await refused(caller, "https://other.example", "Hostname mismatch", trusted.context())


async def test_a_certificate_of_an_unknown_authority_is_a_tls_failure(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[["127.0.0.1"]])
    async with calling() as caller:
        await refused(caller, "https://acme.example", "unable to get local issuer", authority.context())


async def test_what_is_not_tls_at_all_is_a_tls_failure() -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.reader.read(10)

    async def resets(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.reset()

    async with calling() as caller:
        for act in (says_something_else, hangs_up, resets):
            await refused(caller, "https://127.0.0.1", "", None, act)


@pytest.mark.parametrize("options", [{"connect_timeout": SHORT}, {}], ids=["its own", "the whole deadline"])
async def test_a_handshake_that_hangs_is_a_connect_timeout_and_we_hang_up(options: dict[str, int]) -> None:
    async with playing(silent) as (operator, url), calling(**options) as caller:
        outcome = await caller.post(url.replace("http:", "https:"), deadline=60 * SECOND if options else SHORT)
        failed(outcome, Reason.CONNECT_TIMEOUT)
        in_time(outcome)
        await until(lambda: bool(operator.peers))
        await operator.left()
        assert len(operator.peers) == 1


@pytest.mark.parametrize("repeated", [0, 1, 2])
async def test_an_encrypted_connection_that_breaks_after_the_request_is_an_ambiguous_reset(
    trusted: Authority, repeated: int
) -> None:
    """The encrypting layer has buffers of its own: they must not make a request that was sent look unsent."""

    async def act(peer: Peer) -> None:
        for _ in range(repeated):
            await peer.request()
            await peer.say(OK)
        await peer.request()

    for end in (act, in_turn(act)):
        async with playing(end, trusted.context()) as (operator, url), calling() as caller:
            for _ in range(repeated):
                assert told(await caller.post(url)) == (200, b"ok", None)
            failed(await caller.post(url), Reason.RESET)
            assert operator.peers[0].seen.count(b"POST") == repeated + 1


async def test_an_encrypted_request_that_nobody_answers_is_an_ambiguous_read_timeout(trusted: Authority) -> None:
    async with playing(held(), trusted.context()) as (operator, url), calling() as caller:
        outcome = await caller.post(url, 4 * SHORT)
        failed(outcome, Reason.READ_TIMEOUT)
        in_time(outcome, 4 * SHORT)
        await operator.left()


async def test_an_endless_encrypted_answer_is_cut_too(trusted: Authority) -> None:
    act = endless(HEAD + b"\r\n", b"a" * 65_536)
    async with playing(act, trusted.context()) as (operator, url), calling() as caller:
        outcome = await caller.post(url)
        assert told(outcome) == (200, b"a" * MAX_RESPONSE_BYTES, None)
        assert outcome.truncated
        await operator.left()


# The same wire over a transport of httpx's own: what it raises has a name here.

RAISED: dict[type[httpx.TransportError], Reason] = {
    httpx.ConnectError: Reason.CONNECT_REFUSED,
    httpx.ConnectTimeout: Reason.CONNECT_TIMEOUT,
    httpx.PoolTimeout: Reason.CONNECT_TIMEOUT,
    httpx.WriteError: Reason.WRITE_ERROR,
    httpx.WriteTimeout: Reason.WRITE_ERROR,
    httpx.ReadTimeout: Reason.READ_TIMEOUT,
    httpx.ReadError: Reason.RESET,
    httpx.CloseError: Reason.RESET,
    httpx.RemoteProtocolError: Reason.RESET,
    httpx.ProxyError: Reason.RESET,
    httpx.LocalProtocolError: Reason.CONFIG,
    httpx.UnsupportedProtocol: Reason.CONFIG,
}


async def mocked(answer: Any, deadline: int = SECOND) -> Outcome:
    router = respx.MockRouter()
    router.post(URL).mock(side_effect=answer)
    return await Wire(WallClock()).post(
        httpx.MockTransport(router.async_handler), Request(URL, Headers([]), b"{}"), deadline
    )


@pytest.mark.parametrize(("raised", "reason"), RAISED.items(), ids=[kind.__name__ for kind in RAISED])
async def test_what_httpx_raises_has_a_reason(raised: type[httpx.TransportError], reason: Reason) -> None:
    failed(await mocked(raised("told so")), reason, "told so")
    failed(await mocked(raised), reason)


def test_every_error_of_httpxs_transports_is_in_the_table_above() -> None:
    def leaves(kind: type[httpx.TransportError]) -> set[type[httpx.TransportError]]:
        own = {one for one in kind.__subclasses__() if one.__module__.startswith("httpx")}
        return set().union(*map(leaves, own)) if own else {kind}

    assert leaves(httpx.TransportError) == set(RAISED)


async def test_an_answer_from_any_transport_is_read_up_to_the_cap() -> None:
    length = MAX_RESPONSE_BYTES
    assert told(await mocked([httpx.Response(200, content=b"ok")])) == (200, b"ok", None)
    assert told(await mocked([httpx.Response(302, headers={"Location": "https://b.example/"})])) == (302, b"", None)
    for more in (0, 1):
        outcome = await mocked([httpx.Response(200, content=b"a" * (length + more))])
        assert told(outcome) == (200, b"a" * length, None)
        assert outcome.truncated == bool(more)


async def test_an_answer_that_breaks_or_hangs_within_its_body_keeps_its_status() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"ok"
        raise httpx.ReadError("broke")

    async def hangs() -> AsyncIterator[bytes]:
        yield b"ok"
        await asyncio.Event().wait()

    outcome = await mocked([httpx.Response(200, content=breaks())])
    failed(outcome, Reason.RESET, "broke")
    assert outcome.http_status == 200
    outcome = await mocked([httpx.Response(200, content=hangs())], SHORT)
    failed(outcome, Reason.READ_TIMEOUT)
    assert outcome.http_status == 200
    in_time(outcome)


async def test_a_cancelled_post_is_cancelled_and_no_outcome() -> None:
    async def hangs(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(mocked(hangs))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_long_detail_is_cut() -> None:
    assert len(str((await mocked(httpx.ReadError("a" * 10_000))).detail)) == 200


def test_a_transport_is_made_without_a_running_loop() -> None:
    assert PinnedTransport(Resolver(), [], SECOND)
