"""One HTTP/1.1 connection, on asyncio and llhttp: knows at every moment what was sent and what came back.

Ours, because the exact answer to "can the operator have booked it?" hangs on it, and because it is the hot path
(docs/architecture.md, Dependencies, has the figures).
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable
from typing import cast

import httptools
import httpx

from dispatcher.wire.failures import TlsFailure

# Of status lines, headers, chunk extensions, trailers: what may come beyond what the body pays for. Each of its bytes
# pays for its framing, be it in a chunk of its own. Counted by reads: what comes in one may be paid for within it.
MAX_BARE_BYTES = 64 * 1024
FRAMING_BYTES = 8
# Of the headers those that anybody reads. Kept as they come, 64 KiB of the shortest would take 2 MiB of memory.
_KEPT_HEADERS = frozenset({b"retry-after"})
# Of the body; whoever sends more is hung up on.
MAX_RESPONSE_BYTES = 64 * 1024
# The alerts (RFC 8446, section 6.2) that refuse our certificate, or its absence, as OpenSSL names them.
_CERTIFICATE_REFUSED = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)


class Traffic:
    """What the exchanges of one transport share.

    The deadline: one timer for all, since hardly any ever needs its own, and each would cost more than the rest of an
    exchange does here. And the moment of writing: what one round of the event loop has ready goes out in one go. A
    request here and a request there wakes the other side for each, which costs more than to write it.
    """

    def __init__(self) -> None:
        self._ready: list[Connection] = []
        self._ends: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def begin(self, connection: "Connection", end: float) -> None:
        """`end` by the monotonic clock (s)."""
        self._ready.append(connection)
        if len(self._ready) == 1:
            asyncio.get_running_loop().call_soon(self._write)
        self._ends[connection] = end
        if self._timer is None or end < self._rings_at:
            self._arm(end)

    def end(self, connection: "Connection") -> None:
        # The timer stays: when it rings, whatever is left has its next one.
        self._ends.pop(connection, None)

    def _write(self) -> None:
        ready, self._ready = self._ready, []
        for connection in ready:
            connection.write()

    def _arm(self, end: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = end
        self._timer = asyncio.get_running_loop().call_later(max(0.0, end - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = time.monotonic()
        for connection in [one for one, end in self._ends.items() if end <= now]:
            self.end(connection)
            connection.expire()
        if self._ends:
            self._arm(min(self._ends.values()))

    def close(self) -> None:
        """Whatever is under way keeps its deadline."""
        if self._timer is not None and not self._ends:
            self._timer.cancel()
            self._timer = None


class Connection(asyncio.Protocol):
    """One exchange at a time; then `reusable` tells whether another may follow."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.idle_since = 0.0
        self._status = 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Exception | None] | None = None
        self._busy = False
        self._request = b""
        self._unsent = False
        self._first = True
        self._begin()

    def _begin(self) -> None:
        self.headers = []
        self._body = bytearray()
        self._bare_bytes = 0
        self._answering = False
        self._complete = False
        self._keep = True
        self._framed = False

    def exchange(self, request: bytes, end: float, traffic: Traffic) -> Awaitable[Exception | None]:
        """One request and its answer, until `end` (monotonic s); when it is over, tell `traffic` so.

        Gives None where the answer came whole, else what kept it: TimeoutError, WriteError, ReadError,
        RemoteProtocolError; TlsFailure where the handshake was refused after all.
        """
        waiter: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._begin()
        if self._transport.is_closing():
            waiter.set_result(httpx.WriteError("the connection was closed before the request was sent"))
            return waiter
        self._busy = self._unsent = True
        self._waiter, self._request = waiter, request
        traffic.begin(self, end)
        return waiter

    def write(self) -> None:
        """Called by Traffic. Where the connection has been closed meanwhile, nothing was sent, and that stays known."""
        if not self._transport.is_closing():
            self._unsent = False
            self._transport.write(self._request)

    def expire(self) -> None:
        """The deadline has come."""
        self._end(TimeoutError())

    @property
    def status(self) -> int | None:
        """Of the answer, where its head came."""
        return self._status if self._answering else None

    @property
    def body(self) -> bytes:
        """Up to the cap."""
        return bytes(self._body[:MAX_RESPONSE_BYTES])

    @property
    def truncated(self) -> bool:
        """There was more of it than the cap."""
        return len(self._body) > MAX_RESPONSE_BYTES

    @property
    def unsent(self) -> bool:
        """A part of the request never left this process. Over TLS only the layer below could tell: False, in doubt."""
        return self._unsent

    @property
    def reusable(self) -> bool:
        """The exchange is over, and both sides keep the connection open."""
        return self._complete and self._keep and not self._unsent and not self._transport.is_closing()

    def rest(self, now: float) -> None:
        """The exchange is over; whatever the operator sends before the next one is out of turn."""
        self._busy = self._first = False
        self.idle_since = now

    def abort(self) -> None:
        self._transport.abort()

    def _end(self, failure: Exception | None) -> None:
        """The exchange is over; what comes first stands."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(failure)

    def _break(self, told: str) -> None:
        self._end(httpx.RemoteProtocolError(told))
        self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # So low that `pause_writing` means: not everything has been handed to the kernel yet. Not zero, for there
        # TLS calls it in turns with `resume_writing`, although nothing waits.
        self._transport.set_write_buffer_limits(high=1, low=0)

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False

    def data_received(self, data: bytes) -> None:
        # In pieces: a long head that comes at once, with its answer, would be taken before it is measured.
        for start in range(0, len(data), MAX_BARE_BYTES):
            self._received(data[start : start + MAX_BARE_BYTES])

    def _received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()
            return
        held = len(self._body)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            told = "an upgrade" if isinstance(error, httptools.HttpParserUpgrade) else str(error)
            self._break(f"the answer is not HTTP/1.1: {told}")
            return
        paid = FRAMING_BYTES * (len(self._body) - held)
        self._bare_bytes = max(0, self._bare_bytes + len(data) - paid)
        if self._bare_bytes > MAX_BARE_BYTES:
            self._break(f"the answer's head is longer than {MAX_BARE_BYTES} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering and not self._framed and error is None:
            # No length was given: the end of the connection is the end of the body.
            self._complete = True
            self._end(None)
        elif self._handshake_refused(error):
            self._end(TlsFailure("the operator refuses our client certificate, or wants one"))
        elif self._unsent:
            self._end(httpx.WriteError("the connection broke before the request was sent"))
        else:
            self._end(httpx.ReadError("the connection was closed before the answer was complete"))

    def _handshake_refused(self, error: Exception | None) -> bool:
        """In TLS 1.3 the handshake ends for us before the operator has looked at our certificate.

        Its refusal comes when the request is out already; but a server must not read a request in a handshake that
        it breaks off (RFC 8446, section 4.4), so nobody has booked it.
        """
        refused = isinstance(error, ssl.SSLError) and error.reason in _CERTIFICATE_REFUSED
        return refused and self._first and not self._answering and not self._bare_bytes

    # What llhttp calls.

    def on_message_begin(self) -> None:
        if self._complete:
            # A second answer to one request: whose it is, nobody knows. The first one stands.
            raise httpx.RemoteProtocolError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _KEPT_HEADERS:
            self.headers.append((name, value))
        if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:
            self.headers = []
            self._framed = False
            return
        self._answering = True
        self._keep = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self._answering or self.truncated:
            return
        self._body += body
        if len(self._body) > MAX_RESPONSE_BYTES:
            self._end(None)
            self.abort()

    def on_message_complete(self) -> None:
        if not self._answering:
            return
        self._complete = True
        self._end(None)
