"""Hostile operators: each ends with the right reason within the deadline, in bounded memory, the others unharmed."""

import asyncio
import os
import re
import socket
import ssl
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import signature
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from httptools import HttpResponseParser

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.operator import Tls
from dispatcher.ground.policy import Outcome, Reason, read_answer
from dispatcher.tls import tls_context
from dispatcher.wire.connection import Connection
from tests.authority import Authority
from tests.behaviours import BEHAVIOURS, RULE, YES, answer
from tests.hostile import (
    Act,
    Caller,
    Operator,
    Peer,
    always,
    bound,
    calling,
    named,
    names,
    playing,
    set_ahead,
    silent,
)

SHORT = 300 * MILLISECOND
# What a busy machine may add to a deadline.
GRACE = 50 * SECOND
AMBIGUOUS = {Reason.READ_TIMEOUT, Reason.RESET}
WAYS = ["plain", "tls"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def trusting(authority: Authority) -> ssl.SSLContext:
    return tls_context(Tls(authority.pem, None, None))


def ended(outcome: Outcome, deadline: int = SHORT) -> Reason | None:
    """Why it failed, by RULE; in time, told why, and ambiguous only where the operator may have the whole request."""
    reason = read_answer(outcome, RULE).failure
    assert outcome.duration is not None
    assert outcome.duration < deadline + GRACE
    assert reason is None or reason.ambiguous == (reason in AMBIGUOUS)
    assert outcome.reason is None or outcome.detail
    return reason


async def all_left(operator: Operator) -> None:
    """Returns when every caller has hung up, however busy the machine is."""
    async with asyncio.timeout(GRACE / SECOND):
        for peer in operator.peers:
            await peer.over.wait()


async def harmed(caller: Caller, url: str, over: asyncio.Event) -> list[Outcome]:
    """What came of the POSTs to an operator that is well, one after the other until it is over, and was no yes."""
    failed = []
    while not over.is_set():
        outcome = await caller.post(url, GRACE)
        if ended(outcome):
            failed.append(outcome)
        # Without a breath it would be the whole load.
        await asyncio.sleep(0.01)
    return failed


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reason", list(dict.fromkeys(one.reason for one in BEHAVIOURS.values())), ids=str)
async def test_whatever_an_operator_does_ends_with_its_reason_and_harms_no_other(
    reason: Reason | None, way: str, authority: Authority
) -> None:
    """All behaviours that end so at the same time; each after one POST, and each caller has hung up by the end."""
    table = {name: one for name, one in BEHAVIOURS.items() if one.reason is reason}
    server, client = (authority.context(), trusting(authority)) if way == "tls" else (None, None)
    late = 3 * SECOND if way == "tls" else SECOND

    async def one(act: Act) -> tuple[Reason | None, int]:
        async with playing(act, server) as (operator, url), calling(context=client, connect_timeout=GRACE) as caller:
            outcome = await caller.post(url, late if reason is Reason.READ_TIMEOUT else GRACE)
            await caller.transport.aclose()
            await all_left(operator)
            return ended(outcome, late), sum(peer.seen.count(b"POST ") for peer in operator.peers)

    over = asyncio.Event()
    async with playing(always(answer(YES))) as (_, well), calling() as caller:
        others = asyncio.create_task(harmed(caller, well, over))
        found = await asyncio.gather(*(one(behaviour.act) for behaviour in table.values()))
        over.set()
        assert await others == []
    assert dict(zip(table, found, strict=True)) == dict.fromkeys(table, (reason, 1))


def test_the_table_has_all_that_is_asked_of_it() -> None:
    assert len(BEHAVIOURS) >= 140
    assert {one.reason for one in BEHAVIOURS.values()} >= {Reason.READ_TIMEOUT, Reason.RESET, Reason.REDIRECT, None}


# What llhttp would let pass if it were told to, and the behaviour that is taken for a yes then.
LENIENT: Mapping[str, str] = {
    "lenient_headers": "a blank before the colon",
    "lenient_chunked_length": "a length and chunks",
    "lenient_version": "HTTP/7.3",
    "lenient_optional_lf_after_cr": "a status line that ends in CR alone",
    "lenient_optional_cr_before_lf": "lines that end in LF alone",
    "lenient_optional_crlf_after_chunk": "a chunk without its line's end",
    "lenient_spaces_after_chunk_size": "blanks behind a chunk's size",
}
# No answer tells these: the first is about requests; the others about what comes behind a whole answer on a connection
# that is to be closed, and by then the exchange is over.
UNTOLD = {"lenient_transfer_encoding", "lenient_keep_alive", "lenient_data_after_close"}


@pytest.mark.anyio
@pytest.mark.parametrize("flag", LENIENT)
async def test_each_leniency_of_the_parser_would_be_found_by_a_behaviour(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Connection.__init__

    def lenient(self: Connection) -> None:
        begin(self)
        self._parser.set_dangerous_leniencies(**{flag: True})

    async with playing(BEHAVIOURS[LENIENT[flag]].act) as (_, url), calling() as caller:
        assert ended(await caller.post(url, GRACE)) is Reason.RESET
        monkeypatch.setattr(Connection, "__init__", lenient)
        assert ended(await caller.post(url, GRACE)) is None


def test_no_leniency_of_the_parser_is_left_out() -> None:
    known = signature(HttpResponseParser(object()).set_dangerous_leniencies).parameters
    assert {*LENIENT, *UNTOLD} == set(known)


# Early close at each byte.

ORDINARY = answer(YES, b"200 OK", b"Content-Type: application/json")


async def at_byte(peer: Peer) -> int:
    """Sends an ordinary answer up to the byte that the request names; as one write, so that it arrives as one."""
    asked = re.match(rb"POST /Demo/notice\?(\d+) ", await peer.request())
    assert asked
    await peer.say(ORDINARY[: int(asked[1])])
    return int(asked[1])


async def closes(peer: Peer) -> None:
    await at_byte(peer)


async def resets(peer: Peer) -> None:
    # What the caller has not read when the RST comes is lost to it; behind a whole answer that would be a race.
    if await at_byte(peer) < len(ORDINARY):
        await asyncio.sleep(0.05)
        peer.reset()


async def vanishes(peer: Peer) -> None:
    """The connection ends and TLS is not told (no close_notify), which an attacker on the way could do."""
    # Taken while the caller waits: whoever has its whole answer may hang up before we do.
    with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as twin:
        await at_byte(peer)
        await asyncio.sleep(0.05)
        with suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)


async def falls_silent(peer: Peer) -> None:
    await at_byte(peer)
    await peer.gone()


EARLY: Mapping[str, tuple[Act, bool, Reason]] = {
    "a close": (closes, False, Reason.RESET),
    "a close over TLS": (closes, True, Reason.RESET),
    "a close that TLS is not told of": (vanishes, True, Reason.RESET),
    "RST": (resets, False, Reason.RESET),
    "RST over TLS": (resets, True, Reason.RESET),
    "silence": (falls_silent, False, Reason.READ_TIMEOUT),
    "silence over TLS": (falls_silent, True, Reason.READ_TIMEOUT),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("act", "encrypted", "reason"), EARLY.values(), ids=EARLY)
async def test_an_answer_that_ends_at_any_byte_but_its_last_has_the_right_reason(
    act: Act, encrypted: bool, reason: Reason, authority: Authority
) -> None:
    server, client = (authority.context(), trusting(authority)) if encrypted else (None, None)
    deadlines = [4 * SECOND if reason is Reason.READ_TIMEOUT else GRACE] * len(ORDINARY) + [GRACE]
    async with playing(act, server) as (operator, url), calling(context=client, connect_timeout=GRACE) as caller:
        outcomes = await asyncio.gather(*(caller.post(f"{url}?{end}", one) for end, one in enumerate(deadlines)))
        await caller.transport.aclose()
        await all_left(operator)
        assert len(operator.peers) == len(deadlines)
    found = [ended(outcome, deadline) for outcome, deadline in zip(outcomes, deadlines, strict=True)]
    assert found == [reason] * len(ORDINARY) + [None]


# What keeps the encrypted connection from being made: nothing was sent, and nothing is in doubt.


class Keeper(NamedTuple):
    """A server whose certificate or manners are no good."""

    context: Callable[[Authority], ssl.SSLContext] | None
    act: Act
    reason: Reason = Reason.TLS
    told: str = ""


def with_weak_key(authority: Authority) -> ssl.SSLContext:
    return authority.context(key=rsa.generate_private_key(65537, 1024))


def of_an_unknown_authority(authority: Authority) -> ssl.SSLContext:
    folder = authority.folder / "unknown"
    folder.mkdir(exist_ok=True)
    return Authority(folder).context()


def of_tls_1_1(authority: Authority) -> ssl.SSLContext:
    context = authority.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def without_secrecy(authority: Authority) -> ssl.SSLContext:
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("eNULL:aNULL:@SECLEVEL=0")
    return context


async def _hears_hello(peer: Peer) -> None:
    await peer.reader.read(65_536)


async def _resets_hello(peer: Peer) -> None:
    await _hears_hello(peer)
    peer.reset()


def replying(*parts: bytes) -> Act:
    async def act(peer: Peer) -> None:
        await _hears_hello(peer)
        await peer.say(*parts)
        await peer.gone()

    return act


async def _speaks_first(peer: Peer) -> None:
    await peer.say(answer(YES))
    await peer.gone()


async def _endless_records(peer: Peer) -> None:
    await _hears_hello(peer)
    while True:
        await peer.say(b"\x16\x03\x03\x40\x00" + b"\x0b\xff\xff\xff" + bytes(16_380))


async def _drips_a_handshake(peer: Peer) -> None:
    await _hears_hello(peer)
    await peer.say(b"\x16\x03\x03\x40\x00\x02")
    while True:
        await peer.say(b"\0", pause=0.01)


KEEPERS: Mapping[str, Keeper] = {
    "expired": Keeper(lambda ca: ca.context(days=-1), silent, told="certificate has expired"),
    "not valid yet": Keeper(lambda ca: ca.context(days=60), silent, told="certificate is not yet valid"),
    "self-signed": Keeper(lambda ca: ca.context(signed=False), silent, told="self-signed certificate"),
    "for another host": Keeper(lambda ca: ca.context(addresses=["127.0.0.2"]), silent, told="IP address mismatch"),
    "of an unknown authority": Keeper(of_an_unknown_authority, silent, told="unable to get local issuer"),
    "with a weak key": Keeper(with_weak_key, silent, told="EE certificate key too weak"),
    "for clients only": Keeper(
        lambda ca: ca.context(usage=ExtendedKeyUsageOID.CLIENT_AUTH), silent, told="unsuitable certificate purpose"
    ),
    "TLS 1.1": Keeper(of_tls_1_1, silent),
    "no secrecy": Keeper(without_secrecy, silent),
    "HTTP without TLS": Keeper(None, replying(answer(YES))),
    "HTTP before a word": Keeper(None, _speaks_first),
    "noise for a handshake": Keeper(None, replying(bytes(range(256)))),
    "a fatal alert": Keeper(None, replying(b"\x15\x03\x03\x00\x02\x02\x28")),
    "a record of 64 KiB": Keeper(None, replying(b"\x16\x03\x03\xff\xff" + bytes(65_535))),
    "endless records": Keeper(None, _endless_records),
    "a close at hello": Keeper(None, _hears_hello),
    "RST at hello": Keeper(None, _resets_hello),
    "silence at hello": Keeper(None, replying(), Reason.CONNECT_TIMEOUT),
    "a drip of a handshake": Keeper(None, _drips_a_handshake, Reason.CONNECT_TIMEOUT),
}


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["an authority of its own", "the system's authorities"])
@pytest.mark.parametrize("keeper", KEEPERS.values(), ids=KEEPERS)
async def test_without_a_trusted_connection_nothing_is_sent_and_nothing_is_in_doubt(
    keeper: Keeper, by: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.trusted))
    context = trusting(authority) if by == "an authority of its own" else None
    server = keeper.context(authority) if keeper.context else None
    timeout = SHORT if keeper.reason is Reason.CONNECT_TIMEOUT else GRACE
    async with (
        playing(keeper.act, server, bound("127.0.0.1")[0]) as (operator, url),
        calling(context=context, connect_timeout=timeout) as caller,
    ):
        outcome = await caller.post(re.sub("^http:", "https:", url), GRACE, body=b"the-order")
        await all_left(operator)
        assert not any(b"the-order" in peer.seen for peer in operator.peers)
    assert ended(outcome, timeout) is keeper.reason
    assert keeper.told in str(outcome.detail)


# Names.

AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
HANGS = asyncio.Event
NAMES: Mapping[str, tuple[Sequence[Any], Sequence[Reason | None]]] = {
    "unknown": ([UNKNOWN], [Reason.DNS]),
    "no answer": ([AGAIN], [Reason.DNS]),
    "no address": ([[]], [Reason.DNS]),
    "no such thing as an address": ([["<script>"]], [Reason.DNS]),
    "an address among nonsense": ([["127.0.0.1", "nonsense"]], [Reason.DNS]),
    "hangs": ([HANGS], [Reason.DNS]),
    "unknown and then known": ([UNKNOWN, ["127.0.0.1"]], [Reason.DNS, None]),
    "flips to a private address": ([["127.0.0.1"], ["10.0.0.1"]], [None, Reason.BLOCKED_ADDRESS]),
    "flips to the metadata": ([["127.0.0.1"], ["169.254.169.254"]], [None, Reason.BLOCKED_ADDRESS]),
    "flips to one that refuses": ([["127.0.0.1"], ["127.0.0.9"]], [None, Reason.CONNECT_REFUSED]),
    "flips to nothing": ([["127.0.0.1"], []], [None, Reason.DNS]),
    "flips and back": ([["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1"]], [None, Reason.BLOCKED_ADDRESS, None]),
    "private and public": ([["127.0.0.1", "10.0.0.1"]], [Reason.BLOCKED_ADDRESS]),
    "ten thousand addresses": ([["127.0.0.1"] * 10_000], [None]),
    "ten thousand addresses and a private one": (
        [[*(f"127.0.{n >> 8}.{n & 255}" for n in range(1, 10_000)), "10.0.0.1"]],
        [Reason.BLOCKED_ADDRESS],
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("answers", "reasons"), NAMES.values(), ids=NAMES)
async def test_whatever_a_name_does_has_its_reason_and_leads_nowhere_else(
    answers: Sequence[Any], reasons: Sequence[Reason | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt thirty-one seconds after the one before."""
    ahead = set_ahead(monkeypatch)
    given = [one() if one is HANGS else one for one in answers]
    asked = names(monkeypatch, acme=given)
    async with playing(always(answer(YES))) as (_, url), calling() as caller:
        found = []
        for _ in reasons:
            outcome = await caller.post(named(url), SHORT if HANGS in answers else GRACE)
            found.append(ended(outcome))
            ahead.seconds += 31
        assert found == list(reasons)
        assert len(asked.asked) == len(reasons)
        # Whatever keeps its own connections from being made keeps nobody else's.
        assert ended(await caller.post(url, GRACE)) is None
    for one in given:
        if isinstance(one, asyncio.Event):
            one.set()
