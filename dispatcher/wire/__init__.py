"""One POST to an operator, and what came of it as a value. The one room that knows HTTP.

`Wire` holds the deadline, the body cap and the names of failures over any `httpx.AsyncBaseTransport`.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import httpx

from dispatcher.clock import SECOND, Clock
from dispatcher.policy import Outcome, Reason
from dispatcher.secret import Secret
from dispatcher.wire.transport import IF_LATE, BlockedAddress, DnsFailure, PinnedTransport, Resolver, TlsFailure

__all__ = [
    "MAX_RESPONSE_BYTES",
    "PinnedTransport",
    "Resolver",
    "Transport",
    "Wire",
    "build_request",
    "json_headers",
    "reach",
]

Transport = httpx.AsyncBaseTransport

MAX_RESPONSE_BYTES = 64 * 1024
_DETAIL_CHARACTERS = 200

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
    (httpx.UnsupportedProtocol, Reason.CONFIG),
    (httpx.LocalProtocolError, Reason.CONFIG),
    # Whatever else goes wrong once the request may be out: the operator may have booked it.
    (httpx.TransportError, Reason.RESET),
)
_WEATHER: tuple[type[Exception], ...] = (TimeoutError, *(kind for kind, _ in _REASONS))

_parsed = lru_cache(maxsize=4_096)(httpx.URL)


def build_request(url: str, headers: httpx.Headers | Sequence[tuple[str, str]], body: bytes) -> httpx.Request:
    """The request with just these headers; the transport adds what HTTP itself needs."""
    return httpx.Request("POST", _parsed(url), headers=headers, stream=httpx.ByteStream(body))


@lru_cache(maxsize=4_096)
def json_headers(bearer: Secret | None) -> httpx.Headers:
    """What every message carries: its type, and the token where there is one."""
    headers = [("Content-Type", "application/json")]
    if bearer is not None:
        headers.append(("Authorization", f"Bearer {bearer.reveal()}"))
    return httpx.Headers(headers)


class Wire:
    """Posts; failures are values, never exceptions."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def post(self, transport: Transport, request: httpx.Request, deadline: int) -> Outcome:
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
            reason = _reason(error, request)
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


async def reach(transport: PinnedTransport, url: str) -> str | None:
    """Connects and hangs up, sending nothing; None, or the reason why it could not."""
    try:
        await transport.reach(_parsed(url))
    except httpx.TransportError as error:
        return f"{next(name for kind, name in _REASONS if isinstance(error, kind))} ({error})"
    return None


def _reason(error: Exception, request: httpx.Request) -> Reason:
    if isinstance(error, TimeoutError):
        return cast(Reason, request.extensions.get(IF_LATE, Reason.READ_TIMEOUT))
    return next(name for kind, name in _REASONS if isinstance(error, kind))


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """The body up to the cap, and whether there was more; the connection is given back or closed in any case."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    read = b""
    try:
        async for part in stream:
            read += part
            if len(read) > MAX_RESPONSE_BYTES:
                return read[:MAX_RESPONSE_BYTES], True
    finally:
        await stream.aclose()
    return read, False
