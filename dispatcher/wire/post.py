"""One POST: its headers, its deadline, how much of the answer is read, and what is read out of it."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache

import httpx

from dispatcher.clock import DAY, SECOND, Clock
from dispatcher.policy import Outcome, Reason
from dispatcher.secret import Secret
from dispatcher.wire.failures import WEATHER, blame, reason_of
from dispatcher.wire.transport import PinnedTransport

Transport = httpx.AsyncBaseTransport

MAX_RESPONSE_BYTES = 64 * 1024
_DETAIL_CHARACTERS = 200
# The statuses with which RFC 9110 and RFC 6585 let an operator say when to come back.
_COME_BACK = frozenset({429, 503})
_LONGEST_RETRY_AFTER = 10 * 365 * DAY

_parsed = lru_cache(maxsize=4_096)(httpx.URL)


def build_request(url: str, headers: httpx.Headers | Sequence[tuple[str, str]], body: bytes) -> httpx.Request:
    """The request with just these headers; the transport adds what HTTP itself needs."""
    return httpx.Request("POST", _parsed(url), headers=headers, stream=httpx.ByteStream(body))


def json_headers(bearer: Secret | None, more: Sequence[tuple[str, str]] = ()) -> httpx.Headers:
    """What every message carries: its type, the token where there is one; and more, in this order and these letters."""
    return httpx.Headers([*_of_every_message(bearer), *more]) if more else _plain(bearer)


@lru_cache(maxsize=4_096)
def _plain(bearer: Secret | None) -> httpx.Headers:
    return httpx.Headers(_of_every_message(bearer))


def _of_every_message(bearer: Secret | None) -> list[tuple[str, str]]:
    headers = [("Content-Type", "application/json")]
    if bearer is not None:
        headers.append(("Authorization", f"Bearer {bearer.reveal()}"))
    return headers


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
        retry_after: int | None = None
        answer, truncated, ours = b"", False, False
        try:
            async with asyncio.timeout(deadline / SECOND):
                response = await transport.handle_async_request(request)
                status = response.status_code
                if status in _COME_BACK:
                    retry_after = _retry_after(response.headers.get("Retry-After", ""), self._clock.now())
                answer, truncated = await _read(response)
        except WEATHER as error:
            reason, ours = blame(error, request)
            detail = str(error)[:_DETAIL_CHARACTERS] or _late(reason, ours, deadline)
        return Outcome(
            started_at=started_at,
            ended_at=self._clock.now(),
            duration=(time.perf_counter_ns() - started) // 1_000,
            http_status=status,
            reason=reason,
            body=answer,
            truncated=truncated,
            detail=detail,
            retry_after=retry_after,
            ours=ours,
        )


async def reach(transport: PinnedTransport, url: str) -> str | None:
    """Connects and hangs up, sending nothing; None, or the reason why it could not."""
    try:
        await transport.reach(_parsed(url))
    except httpx.TransportError as error:
        return f"{reason_of(error)} ({error})"
    return None


def _late(reason: Reason, ours: bool, deadline: int) -> str:
    """What to say of a deadline, or of an error that says nothing."""
    told = f"no whole answer within {deadline / SECOND:g} s"
    if reason is not Reason.DNS:
        return told
    return f"{told}: the look-up of its name hangs{' (our own resolver, it seems)' if ours else ''}"


def _retry_after(text: str, now: int) -> int | None:
    """`Retry-After` (RFC 9110, section 10.2.3), seconds or a date, as µs from `now` (µs); None where it makes no sense.

    No sense: what can't be read, what has passed already, and what is more than ten years away.
    """
    if text.isascii() and text.isdigit():
        # Zeros aside, twelve digits are more than ten years, and int() must not be fed thousands.
        wait = int(text.lstrip("0")[:12] or "0") * SECOND
    else:
        try:
            moment = parsedate_to_datetime(text)
            # HTTP's dates are in GMT whether they say so or not (asctime's form does not).
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            wait = int(moment.timestamp() * SECOND) - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return wait if 0 <= wait <= _LONGEST_RETRY_AFTER else None


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
