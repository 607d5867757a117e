"""One POST: its headers, its deadline, how much of the answer is read, and what is read out of it."""

import time
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from dispatcher.ground.clock import DAY, SECOND, Clock
from dispatcher.ground.policy import Outcome, Reason
from dispatcher.wire.failures import WEATHER, blame, reason_of
from dispatcher.wire.foreign import exchange_by
from dispatcher.wire.request import Answer, Request
from dispatcher.wire.transport import PinnedTransport, parse_url

# Ours, or any of httpx's: what embeds us, and what mocks an operator, speaks that.
Transport = PinnedTransport | httpx.AsyncBaseTransport

_DETAIL_CHARACTERS = 200
# The statuses with which RFC 9110 and RFC 6585 let an operator say when to come back.
_COME_BACK = frozenset({429, 503})
_LONGEST_RETRY_AFTER = 10 * 365 * DAY


class Wire:
    """Posts; failures are values, never exceptions."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def post(self, transport: Transport, request: Request, deadline: int) -> Outcome:
        """One POST; no redirect is followed, nothing is tried again. `deadline` (µs) covers DNS to last body byte.

        At most 64 KiB of the answer is read; `truncated` tells when there was more.
        """
        started_at, started = self._clock.now(), time.perf_counter_ns()
        try:
            if isinstance(transport, PinnedTransport):
                answer = await transport.exchange(request, deadline)
            else:
                answer = await exchange_by(transport, request, deadline)
        except WEATHER as error:
            answer = Answer(None, (), b"", False, error)
        reason: Reason | None = None
        detail: str | None = None
        retry_after: int | None = None
        ours, failure = False, answer.failure
        if failure is not None:
            reason, ours = blame(failure, request)
            detail = str(failure)[:_DETAIL_CHARACTERS] or _late(reason, ours, deadline)
        ended_at = self._clock.now()
        if answer.status in _COME_BACK:
            retry_after = _retry_after(answer.headers, ended_at)
        return Outcome(
            started_at=started_at,
            ended_at=ended_at,
            duration=(time.perf_counter_ns() - started) // 1_000,
            http_status=answer.status,
            reason=reason,
            body=answer.body,
            truncated=answer.truncated,
            detail=detail,
            retry_after=retry_after,
            ours=ours,
        )


async def reach(transport: PinnedTransport, url: str) -> str | None:
    """Connects and hangs up, sending nothing; None, or the reason why it could not."""
    try:
        await transport.reach(parse_url(url))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return f"{reason_of(error)} ({error})"
    return None


def _late(reason: Reason, ours: bool, deadline: int) -> str:
    """What to say of a deadline, or of an error that says nothing."""
    told = f"no whole answer within {deadline / SECOND:g} s"
    if reason is not Reason.DNS:
        return told
    return f"{told}: the look-up of its name hangs{' (our own resolver, it seems)' if ours else ''}"


def _retry_after(headers: Sequence[tuple[bytes, bytes]], now: int) -> int | None:
    """`Retry-After` (RFC 9110, section 10.2.3), seconds or a date, as µs from `now` (µs); None where it makes no sense.

    No sense: what can't be read, what has passed already, what is more than ten years away, and more than one of it.
    """
    text = ", ".join(value.decode("latin-1") for name, value in headers if name.lower() == b"retry-after")
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
