"""The listening socket and the connections on it. What a stranger can cost us is bounded here."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dispatcher.config.web import Web
from dispatcher.ground.errors import Refused

# A connection beyond these is closed at once: the daemon's own requests need descriptors as well.
MOST_CONNECTIONS = 1_000
# For the head of a request, from its first byte, or from the connection; and between two requests.
HEAD_SECONDS = 10.0
HEAD_BYTES = 32 * 1024
IDLE_SECONDS = 75
BACKLOG = 1_024
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to heads that never end: it waits for ever, and keeps whatever comes."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, transport.close)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()

    def data_received(self, data: bytes) -> None:
        went_on = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes = self._head_bytes + len(data) if went_on else 0
        if self._head_bytes > HEAD_BYTES:
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._cancel_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def bind(listen: tuple[str, int]) -> socket.socket:
    """Raises Refused where the address is taken or not ours."""
    host, port = listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise Refused(
            f'web.listen: {host}:{port} can\'t be used ({error.strerror}); write another address, or "" to turn it off'
        ) from None
    return bound


@contextlib.asynccontextmanager
async def serving(bound: socket.socket, app: ASGIApp, web: Web) -> AsyncIterator[str]:
    """The URL; serves on a bound socket while the block runs; signals stay the daemon's."""
    server = uvicorn.Server(_configuration(app, web))
    # From now on nobody is refused: who comes before the server is up waits for it.
    bound.listen(BACKLOG)
    # `_serve` is `serve` without uvicorn's signal handlers, which would end the daemon past its own way of stopping.
    running = asyncio.create_task(server._serve([bound]))
    host, port = bound.getsockname()[:2]
    scheme = "http" if web.tls is None else "https"
    try:
        yield f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    finally:
        server.should_exit = True
        await running
        bound.close()


def _configuration(app: ASGIApp, web: Web) -> uvicorn.Config:
    context = web.tls
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        # Its own lines are about strangers' bytes, and no JSON; what matters the API logs itself.
        log_level="critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        # Nobody's word is taken for where a request comes from, unless the proxy is named.
        proxy_headers=bool(web.proxies),
        forwarded_allow_ips=[str(proxy) for proxy in web.proxies],
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )
