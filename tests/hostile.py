"""An operator that misbehaves on command, byte for byte, over real sockets; and a caller that is to survive it."""

import asyncio
import os
import re
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from dispatcher.ground.clock import SECOND, WallClock
from dispatcher.ground.policy import Outcome, Reason
from dispatcher.wire import Headers, PinnedTransport, Request, Resolver, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOOPBACK = ("127.0.0.0/8", "::1/128")
# Only to end a hang.
PATIENCE = 60.0
# Shorter than a connection may rest: whoever is still there then has not hung up.
RESTS = 3.5


class Peer:
    """One connection as the operator sees it: what came (`seen`), how much could be sent, whether its act is over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.seen = b""
        self.sent = 0
        self.asked = asyncio.Event()
        self.over = asyncio.Event()

    async def request(self) -> bytes:
        """The next whole request, head and body."""
        whole = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", whole.lower())
        whole += await self.reader.readexactly(int(length[1]) if length else 0)
        self.seen += whole
        self.asked.set()
        return whole

    async def say(self, *parts: bytes, pause: float = 0) -> None:
        for part in parts:
            if self.writer.is_closing():
                raise ConnectionResetError
            self.writer.write(part)
            await self.writer.drain()
            self.sent += len(part)
            await asyncio.sleep(pause)

    async def gone(self) -> None:
        """Returns when the caller has hung up, whatever it sends until then."""
        with suppress(ConnectionError):
            while more := await self.reader.read(65_536):
                self.seen += more

    def reset(self) -> None:
        """RST instead of FIN: what was not read or sent yet is thrown away."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Act = Callable[[Peer], Awaitable[None]]


def always(*parts: bytes) -> Act:
    """Answers every request with these bytes, and keeps the connection open."""

    async def act(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*parts)

    return act


def once(*parts: bytes) -> Act:
    """Answers one request with these bytes, and hangs up."""

    async def act(peer: Peer) -> None:
        await peer.request()
        await peer.say(*parts)

    return act


def held(*parts: bytes, pause: float = 0) -> Act:
    """Answers one request with these bytes, says nothing more, and waits for the caller to hang up."""

    async def act(peer: Peer) -> None:
        await peer.request()
        await peer.say(*parts, pause=pause)
        await peer.gone()

    return act


def endless(head: bytes, part: bytes, pause: float = 0) -> Act:
    """One head, then the same part again and again, until the caller hangs up."""

    async def act(peer: Peer) -> None:
        await peer.request()
        await peer.say(head)
        while True:
            await peer.say(part, pause=pause)

    return act


async def silent(peer: Peer) -> None:
    """Takes whatever comes and never answers."""
    await peer.gone()


def in_turn(*acts: Act) -> Act:
    """Another act for each connection; the last one for all that follow."""
    left = list(acts)

    async def act(peer: Peer) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(peer)

    return act


class Operator:
    """Plays its act on each connection. `peers`: every connection there ever was, in order."""

    def __init__(self, act: Act) -> None:
        self.peers: list[Peer] = []
        self.act = act
        self._acts: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._acts.add(asyncio.create_task(self._play(peer)))

    async def _play(self, peer: Peer) -> None:
        try:
            await self.act(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            peer.over.set()
            peer.writer.close()

    async def left(self) -> None:
        """Returns when every caller has hung up; TimeoutError when one stays."""
        async with asyncio.timeout(RESTS):
            for peer in self.peers:
                await peer.over.wait()

    async def close(self) -> None:
        for task in self._acts:
            task.cancel()
        done = await asyncio.gather(*self._acts, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)
        for result in done:
            if isinstance(result, Exception):
                raise result


def bound(*hosts: str) -> list[socket.socket]:
    """One socket for each host, all at the same port. Until it listens, connecting to it is refused."""
    while True:
        sockets = [_bind(hosts[0], 0)]
        try:
            sockets += [_bind(host, sockets[0].getsockname()[1]) for host in hosts[1:]]
        except OSError:
            for one in sockets:
                one.close()
            continue
        return sockets


def _bind(host: str, port: int) -> socket.socket:
    bound_to = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound_to.bind((host, port))
    except OSError:
        bound_to.close()
        raise
    return bound_to


class Ahead:
    """The clock of the transport, which a test sets forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


def set_ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    """The clock of everything in the wire that keeps something for a while."""
    clock = Ahead()
    for module in ("transport", "resolver", "oauth"):
        monkeypatch.setattr(f"dispatcher.wire.{module}.time", clock)
    return clock


Answer = Sequence[str] | OSError | asyncio.Event


class Names:
    """The resolver's other side: each name's answers in turn, the last one for ever; every question is kept."""

    def __init__(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        self.asked: list[str] = []
        self._answers = {name: list(given) for name, given in answers.items()}

    async def __call__(self, host: str) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        left = self._answers[host]
        answer = left.pop(0) if len(left) > 1 else left[0]
        await asyncio.sleep(0)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return []
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer]


def names(monkeypatch: pytest.MonkeyPatch, **answers: Sequence[Answer]) -> Names:
    """What `acme.example` and the like resolve to, from now on."""
    given = Names({f"{name}.example": answer for name, answer in answers.items()})
    monkeypatch.setattr("dispatcher.wire.resolver.ask", given)
    return given


def named(url: str, name: str = "acme.example") -> str:
    return url.replace("127.0.0.1", name)


def told(outcome: Outcome) -> tuple[int | None, bytes, Reason | None]:
    return outcome.http_status, outcome.body, outcome.reason


async def until(true: Callable[[], bool]) -> None:
    """Lets the others work until it is true; TimeoutError when it never is."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


@asynccontextmanager
async def playing(
    act: Act, context: ssl.SSLContext | None = None, at: socket.socket | None = None
) -> AsyncIterator[tuple[Operator, str]]:
    """An operator at work, and its URL with a numeric host."""
    operator = Operator(act)
    at = at or bound("127.0.0.1")[0]
    host, port = at.getsockname()[:2]
    server = await asyncio.start_server(operator.connected, sock=at, ssl=context)
    try:
        yield operator, f"http{'s' if context else ''}://{f'[{host}]' if ':' in host else host}:{port}/Demo/notice"
    finally:
        server.close()
        await operator.close()
        await server.wait_closed()


class Caller:
    """What the tests call with: the real wire over the real transport."""

    def __init__(
        self,
        allow: Sequence[str] = LOOPBACK,
        connect_timeout: int = 30 * SECOND,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.resolver = Resolver()
        networks = [ip_network(text) for text in allow]
        self.transport = PinnedTransport(self.resolver, networks, connect_timeout, context)
        self.wire = Wire(WallClock())

    async def post(
        self, url: str, deadline: int = 60 * SECOND, body: bytes = b"{}", headers: Sequence[tuple[str, str]] = ()
    ) -> Outcome:
        return await self.wire.post(self.transport, Request(url, Headers(headers), body), deadline)

    async def told_of_the_end(self) -> None:
        """Returns when no connection that rests looks open any more: a request that crosses its end is a reset."""
        await until(lambda: not any(one.reusable for pool in self.transport._idle.values() for one in pool))


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Caller]:
    caller = Caller(**options)
    try:
        yield caller
    finally:
        await caller.transport.aclose()


async def played(act: Act, deadline: int = 60 * SECOND, **request: Any) -> Outcome:
    """What comes of one POST to an operator with this act. The caller has hung up by then, or it raises."""
    async with playing(act) as (operator, url), calling() as caller:
        outcome = await caller.post(url, deadline, **request)
        await caller.transport.aclose()
        await operator.left()
        return outcome
