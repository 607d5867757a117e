"""One POST to an operator, and what came of it as a value. The one room that knows HTTP clients.

`Wire` holds the deadline, the body cap and the names of failures over any `httpx.AsyncBaseTransport`;
`PinnedTransport` is the transport of real life: it connects only to an address that was checked.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import lru_cache

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DecodeError, PyreqwestError, RequestTimeoutError
from pyreqwest.http import Url
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from dispatcher.clock import SECOND, Clock
from dispatcher.egress import Address, Network, may_call, parse_address
from dispatcher.policy import Outcome, Reason

MAX_RESPONSE_BYTES = 64 * 1024
DNS_KEPT_SECONDS = 30.0
# Shorter than the 5 s after which common servers close an idle connection: a request sent into that
# closing would be a `reset`, which nobody can tell from a booked one.
IDLE_KEPT = timedelta(seconds=4)
_DETAIL_CHARACTERS = 200


class DnsFailure(httpx.ConnectError):
    """The host's name has no address now."""


class TlsFailure(httpx.ConnectError):
    """No trusted encrypted connection: certificate or handshake."""


class BlockedAddress(httpx.ConnectError):
    """The address is not on the public internet and not in `egress.allow`."""


# The first that fits names the failure: special before general.
_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (DnsFailure, Reason.DNS),
    (TlsFailure, Reason.TLS),
    (BlockedAddress, Reason.BLOCKED_ADDRESS),
    (httpx.ConnectTimeout, Reason.CONNECT_TIMEOUT),
    (httpx.PoolTimeout, Reason.CONNECT_TIMEOUT),
    (httpx.ConnectError, Reason.CONNECT_REFUSED),
    (httpx.WriteTimeout, Reason.WRITE_ERROR),
    (httpx.WriteError, Reason.WRITE_ERROR),
    (httpx.TimeoutException, Reason.READ_TIMEOUT),
    (TimeoutError, Reason.READ_TIMEOUT),
    (httpx.UnsupportedProtocol, Reason.CONFIG),
    (httpx.LocalProtocolError, Reason.CONFIG),
    # Whatever else goes wrong once the request may be out: the operator may have booked it.
    (httpx.TransportError, Reason.RESET),
)
_WEATHER = tuple(kind for kind, _ in _REASONS)


_parsed = lru_cache(maxsize=4_096)(httpx.URL)


def build_request(url: str, headers: Sequence[tuple[str, str]], body: bytes) -> httpx.Request:
    """The request with just these headers (and Host): nothing is added that the contract doesn't name."""
    return httpx.Request("POST", _parsed(url), headers=headers, stream=httpx.ByteStream(body))


class Wire:
    """Posts; failures are values, never exceptions."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def post(self, transport: httpx.AsyncBaseTransport, request: httpx.Request, deadline: int) -> Outcome:
        """One POST; no redirect is followed, nothing is tried again. `deadline` (µs) covers DNS to last body byte.

        At most 64 KiB of the answer is read; `truncated` tells when there was more.
        """
        started_at, started = self._clock.now(), time.perf_counter_ns()
        status: int | None = None
        reason: Reason | None = None
        detail: str | None = None
        answer, truncated = b"", False
        try:
            async with asyncio.timeout(deadline / SECOND):
                response = await transport.handle_async_request(request)
                status = response.status_code
                answer, truncated = await _read(response)
        except _WEATHER as error:
            reason = next(name for kind, name in _REASONS if isinstance(error, kind))
            detail = str(error)[:_DETAIL_CHARACTERS] or f"no whole answer within {deadline / SECOND:g} s"
        return Outcome(
            started_at=started_at,
            ended_at=self._clock.now(),
            duration=(time.perf_counter_ns() - started) // 1_000,
            http_status=status,
            reason=reason,
            body=answer,
            truncated=truncated,
            detail=detail,
        )


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """The body up to the cap, and whether there was more; the connection is given back or closed in any case."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    read = b""
    try:
        async for chunk in stream:
            read += chunk
            if len(read) > MAX_RESPONSE_BYTES:
                return read[:MAX_RESPONSE_BYTES], True
    finally:
        await stream.aclose()
    return read, False


class Resolver:
    """Host names to addresses, kept for a short while; questions asked at once share one look-up."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[float, asyncio.Task[Sequence[Address]]]] = {}

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Raises DnsFailure. Failures are not kept."""
        until, lookup = self._kept.get((host, port), (0.0, None))
        if lookup is None or until < time.monotonic() or (lookup.done() and lookup.exception()):
            lookup = asyncio.create_task(_look_up(host, port))
            self._kept[host, port] = time.monotonic() + DNS_KEPT_SECONDS, lookup
        # Shielded: one attempt that runs out of time must not cancel the look-up of all the others.
        return await asyncio.shield(lookup)


async def _look_up(host: str, port: int) -> Sequence[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DnsFailure(f"{host}: {error.strerror or error}") from None
    addresses = [parse_address(str(entry[4][0])) for entry in found]
    return [address for address in dict.fromkeys(addresses) if address is not None]


class PinnedTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 that connects only to addresses which `may_call` passed: the one checked is the one connected to.

    No proxy from the environment, no redirect, no cookie, no decompression. Timeouts in µs.
    """

    def __init__(self, resolver: Resolver, allow: Sequence[Network], connect_timeout: int, total_timeout: int) -> None:
        self._resolver = resolver
        self._allow = allow
        self._connect_timeout = timedelta(microseconds=connect_timeout)
        self._total_timeout = timedelta(microseconds=total_timeout)
        self._clients: dict[tuple[str, Address], Client] = {}
        self._urls: dict[httpx.URL, Url] = {}
        self._avoid: Address | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        host, port = url.host, url.port or (443 if url.scheme == "https" else 80)
        address = await self._address(host, port)
        target = self._urls.get(url) or self._urls.setdefault(url, Url(str(url)))
        assert isinstance(request.stream, httpx.ByteStream)
        sending = (
            self._client(host, address, port)
            .request(request.method, target)
            .headers(request.headers.multi_items())
            .body_bytes(b"".join(request.stream))
            .build_streamed()
        )
        try:
            answer = await sending.__aenter__()
        except PyreqwestError as error:
            failure = _translated(error)
            if isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout):
                self._avoid = address
            raise failure from None
        return httpx.Response(
            answer.status, headers=list(answer.headers.items()), stream=_AnswerStream(sending, answer)
        )

    async def _address(self, host: str, port: int) -> Address:
        """One checked address of the host. Raises BlockedAddress if any is not allowed: a mixture is an attack."""
        literal = parse_address(host)
        addresses = [literal] if literal else await self._resolver.addresses(host, port)
        for address in addresses:
            if not may_call(address, self._allow):
                raise BlockedAddress(f"{host} is {address}, which is not public and not in egress.allow")
        return next((address for address in addresses if address != self._avoid), addresses[0])

    def _client(self, host: str, address: Address, port: int) -> Client:
        client = self._clients.get((host, address))
        if client is None:
            builder = (
                ClientBuilder()
                .no_proxy()
                .follow_redirects(False)
                .referer(False)
                .gzip(False)
                .brotli(False)
                .zstd(False)
                .deflate(False)
                .user_agent("dispatcher")
                .connect_timeout(self._connect_timeout)
                # A second deadline beside Wire's: only this one closes the connection of a request given up.
                .timeout(self._total_timeout)
                .pool_idle_timeout(IDLE_KEPT)
            )
            if parse_address(host) is None:
                builder = builder.resolve(host, str(address), port)
            client = self._clients[host, address] = builder.build()
        return client

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()


class _AnswerStream(httpx.AsyncByteStream):
    """The body as it comes in; nothing is read ahead of what was asked for, beyond the client's buffer."""

    def __init__(self, sending: StreamRequest, answer: Response) -> None:
        self._sending = sending
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reader = self._answer.body_reader
        try:
            while (chunk := await reader.read(MAX_RESPONSE_BYTES)) is not None:
                yield bytes(chunk)
        except PyreqwestError as error:
            raise _translated(error) from None

    async def aclose(self) -> None:
        await self._sending.__aexit__(None, None, None)


def _translated(error: PyreqwestError) -> httpx.TransportError:
    """pyreqwest tells causes as text, from the outermost to the innermost; the stage stands in front."""
    details = getattr(error, "details", None) or {}
    # The first cause names the URL; it may hold what is nobody's business.
    causes = [cause["message"] for cause in details.get("causes") or []][1:]
    innermost = causes[-1] if causes else error.message
    connecting = "client error (Connect)" in causes
    if isinstance(error, RequestTimeoutError):
        return httpx.ConnectTimeout("no connection in time") if connecting else httpx.ReadTimeout("no answer in time")
    if not connecting:
        kind = httpx.RemoteProtocolError if isinstance(error, DecodeError) else httpx.ReadError
        return kind(innermost)
    if "dns error" in causes:
        return DnsFailure(innermost)
    return httpx.ConnectError(innermost) if "tcp connect error" in causes else TlsFailure(innermost)
