"""Ways to an operator that only a test of it goes: the same guard, the same connections, one thing done otherwise."""

import asyncio
import ssl
from collections.abc import Sequence

from dispatcher.ground.clock import SECOND
from dispatcher.ground.egress import Network
from dispatcher.wire.connection import Connection
from dispatcher.wire.resolver import Resolver
from dispatcher.wire.transport import PinnedTransport

_PIECES = 8


class LookingTransport(PinnedTransport):
    """Asks instead of telling: a GET of the request's URL."""

    method = b"GET"


class SlowTransport(PinnedTransport):
    """Every request takes `lasts` µs to be sent, in pieces, its head as well as its body."""

    def __init__(
        self,
        resolver: Resolver,
        allow: Sequence[Network],
        connect_timeout: int,
        context: ssl.SSLContext | None,
        lasts: int,
    ) -> None:
        super().__init__(resolver, allow, connect_timeout, context)
        self.pause = lasts / SECOND / (_PIECES - 1)

    def fresh(self) -> Connection:
        return _Slow(self.pause)


class _Slow(Connection):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self._pause = pause

    def write(self) -> None:
        self._send(0)

    def _send(self, start: int) -> None:
        # Where the deadline has come or the operator has hung up, the rest stays unsent, and that stays known.
        if self._transport.is_closing():
            return
        end = start + -(-len(self._request) // _PIECES)
        self._transport.write(self._request[start:end])
        self._unsent = end < len(self._request)
        if self._unsent:
            asyncio.get_running_loop().call_later(self._pause, self._send, end)
