"""One HTTP/1.1 connection, on asyncio and llhttp: knows at every moment what was sent and what came back.

Ours, because the exact answer to "can the operator have booked it?" hangs on it, and because it is the hot path
(docs/architecture.md, Dependencies, has the figures).
"""

import asyncio
import ssl
from typing import cast

import httptools
import httpx

from dispatcher.wire.failures import TlsFailure

# Of status lines, headers, chunk extensions, trailers: what may come before more of the body does.
MAX_BARE_BYTES = 64 * 1024
# Beyond this the operator is made to wait until somebody reads: memory stays bounded however fast it sends.
MAX_AHEAD_BYTES = 64 * 1024
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


class Connection(asyncio.Protocol):
    """One exchange at a time: `send` a request, `read` the body, then `reusable` tells whether another may follow."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._failure: httpx.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
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
        self._paused = False

    async def send(self, request: bytes) -> None:
        """Write one request, wait for the head of its answer.

        Raises WriteError, ReadError, RemoteProtocolError; TlsFailure where the handshake was refused after all.
        """
        if self._transport.is_closing():
            raise httpx.WriteError("the connection was closed before the request was sent")
        self._begin()
        self._busy = True
        self._transport.write(request)
        while not self._answering:
            await self._more()

    async def read(self) -> bytes:
        """The next part of the body; empty at its end. Raises as `send`."""
        while not self._body and not self._complete:
            await self._more()
        part = bytes(self._body)
        self._body.clear()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return part

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

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: httpx.TransportError) -> None:
        if not self._complete:
            self._failure = self._failure or failure
        self._wake()

    def _break(self, told: str) -> None:
        self._fail(httpx.RemoteProtocolError(told))
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
        self._bare_bytes = self._bare_bytes + len(data) if len(self._body) == held else 0
        if self._bare_bytes > MAX_BARE_BYTES:
            self._break(f"the answer's head is longer than {MAX_BARE_BYTES} bytes")
        elif len(self._body) > MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering and not self._framed and error is None:
            # No length was given: the end of the connection is the end of the body.
            self._complete = True
        if self._handshake_refused(error):
            self._fail(TlsFailure("the operator refuses our client certificate, or wants one"))
        elif self._unsent:
            self._fail(httpx.WriteError("the connection broke before the request was sent"))
        else:
            self._fail(httpx.ReadError("the connection was closed before the answer was complete"))

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
        self.headers.append((name, value))
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            self._framed = False
            return
        self._answering = True
        self._keep = self._parser.should_keep_alive()
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self._answering:
            self._body += body
            self._wake()

    def on_message_complete(self) -> None:
        if not self._answering:
            return
        self._complete = True
        self._wake()
