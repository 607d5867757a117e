"""The transport of real life: connects only to an address that was checked, and keeps connections for a while."""

import asyncio
import os
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import NamedTuple

import httpx

from dispatcher.ground.clock import SECOND
from dispatcher.ground.egress import Address, Network, may_call
from dispatcher.ground.policy import Reason
from dispatcher.wire.connection import Connection, Traffic
from dispatcher.wire.failures import OUR_ERRNOS, BlockedAddress, DnsFailure, LocalFault, TlsFailure
from dispatcher.wire.request import Answer, Request
from dispatcher.wire.resolver import Resolver

# Shorter than the 5 s after which common servers close an idle connection: a request sent into that
# closing would end as `reset`, which nobody can tell from one that was booked.
IDLE_KEPT_SECONDS = 4.0
# For `reach`, which has no deadline of its own: about what a resolver takes that tries two servers twice.
REACH_DNS_SECONDS = 10.0

parse_url = lru_cache(maxsize=4_096)(httpx.URL)


class _Route(NamedTuple):
    """A checked way to one URL, good `until` (monotonic s); `resting`: the open connections to its place."""

    place: tuple[str, int, Address]
    encrypted: bool
    start: bytes
    until: float
    resting: list[Connection]


def _next(addresses: Sequence[Address], old: _Route | None) -> Address:
    """The address used before, while it works and is still the host's; after a failure the one that follows it."""
    if old is None or old.place[2] not in addresses:
        return addresses[0]
    step = 0 if old.until else 1
    return addresses[(addresses.index(old.place[2]) + step) % len(addresses)]


class PinnedTransport:
    """HTTP/1.1 that connects only to addresses which `may_call` passed: the one checked is the one connected to.

    No proxy from the environment, no redirect, no cookie, no decompression, no second try. `connect_timeout` in µs.
    `context`: what encrypted connections trust and show; None for the system's authorities and no certificate.
    """

    method = b"POST"

    def __init__(
        self,
        resolver: Resolver,
        allow: Sequence[Network],
        connect_timeout: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._resolver = resolver
        self._allow = allow
        self._connect_timeout = connect_timeout / SECOND
        self._routes: dict[str, _Route] = {}
        self._idle: dict[tuple[str, int, Address], list[Connection]] = {}
        self._traffic = Traffic()
        self._sweep: asyncio.TimerHandle | None = None
        self._tls = context
        self._closed = False

    async def exchange(self, request: Request, deadline: int) -> Answer:
        """One POST and its answer, up to the cap; `deadline` (µs) covers DNS to last body byte.

        Raises what keeps the request from being sent: TimeoutError, and httpx's errors with ours among them.
        """
        lines = request.headers.lines
        if lines is None:
            raise httpx.LocalProtocolError("a header has a line break or NUL in it")
        now = time.monotonic()
        route = self._routes.get(request.url)
        connection = self._rested(route, now) if route is not None and now <= route.until else None
        if route is None or connection is None:
            async with asyncio.timeout(deadline / SECOND):
                route, connection = await self._way(request)
        body = request.body
        start = route.start if request.target is None else _aimed(route.start, request.target)
        written = b"".join((start, lines, b"%d\r\n\r\n" % len(body), body))
        try:
            failure = await connection.exchange(written, now + deadline / SECOND, self._traffic)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._traffic.end(connection)
        if failure is None:
            answer = Answer(connection.status, connection.headers, connection.body, connection.truncated)
            self._give_back(connection, route)
            return answer
        if connection.unsent:
            request.if_late = Reason.WRITE_ERROR
        connection.abort()
        return Answer(connection.status, connection.headers, b"", False, failure)

    async def _way(self, request: Request) -> tuple[_Route, Connection]:
        """A checked route and a connection on it, new where none rests."""
        url, now = request.url, time.monotonic()
        request.if_late = Reason.DNS
        route = self._routes.get(url)
        if route is None or route.until < now:
            parsed = parse_url(url)
            request.ours_if_late = partial(self._resolver.ours, _host(parsed), now)
            route = await self._find(parsed, url)
        request.if_late = Reason.CONNECT_TIMEOUT
        connection = self._rested(route, time.monotonic()) or await self._connect(route, url)
        request.if_late = Reason.READ_TIMEOUT
        return route, connection

    async def reach(self, url: httpx.URL) -> None:
        """Connects as for a request, and hangs up. Raises as connecting does; bounded, the look-up too."""
        try:
            async with asyncio.timeout(REACH_DNS_SECONDS):
                route = await self._find(url, str(url))
        except TimeoutError:
            raise DnsFailure(f"{_host(url)}: no answer to the look-up within {REACH_DNS_SECONDS:g} s") from None
        connection = await self._connect(route, str(url))
        connection.abort()

    async def _find(self, url: httpx.URL, text: str) -> _Route:
        """Raises DnsFailure; BlockedAddress if any of the host's addresses is not allowed: a mixture is an attack."""
        encrypted = url.scheme == "https"
        host, port = _host(url), url.port or (443 if encrypted else 80)
        addresses, until = await self._resolver.addresses(host)
        for address in addresses:
            if not may_call(address, self._allow):
                raise BlockedAddress(f"{host} is {address}, which is not public and not in egress.allow")
        place = (host, port, _next(addresses, self._routes.get(text)))
        start = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (self.method, url.raw_path, url.netloc)
        route = self._routes[text] = _Route(place, encrypted, start, until, self._idle.setdefault(place, []))
        return route

    def _rested(self, route: _Route, now: float) -> Connection | None:
        """A connection that is open and has not rested too long; the latest first."""
        while route.resting:
            connection = route.resting.pop()
            if connection.reusable and connection.idle_since > now - IDLE_KEPT_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, route: _Route, url: str) -> Connection:
        """As `_open`; when it fails or the deadline comes, the next attempt tries the host's next address."""
        try:
            return await self._open(route)
        except BaseException:
            if self._routes[url].place == route.place:
                self._routes[url] = route._replace(until=0.0)
            raise

    async def _open(self, route: _Route) -> Connection:
        """Raises ConnectTimeout, TlsFailure, LocalFault, ConnectError."""
        host, port, address = route.place
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await asyncio.get_running_loop().create_connection(
                    self.fresh,
                    str(address),
                    port,
                    ssl=self._context() if route.encrypted else None,
                    server_hostname=host if route.encrypted else None,
                )
            return connection
        except TimeoutError:
            raise httpx.ConnectTimeout(f"{address}: no connection within {self._connect_timeout:g} s") from None
        except ssl.SSLError as error:
            told = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
            raise TlsFailure(told) from None
        except OSError as error:
            raise _not_connected(route, error) from None

    def fresh(self) -> Connection:
        """A connection that is about to be made."""
        return Connection()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = _public(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return self._tls

    def _give_back(self, connection: Connection, route: _Route) -> None:
        """After an exchange: keep the connection for the next one, or close it."""
        if self._closed or not connection.reusable:
            connection.abort()
            return
        connection.rest(time.monotonic())
        route.resting.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_KEPT_SECONDS, self._close_rested)

    def _close_rested(self) -> None:
        self._sweep = None
        limit = time.monotonic() - IDLE_KEPT_SECONDS
        for pool in self._idle.values():
            for connection in pool:
                if connection.idle_since <= limit:
                    connection.abort()
            pool[:] = [connection for connection in pool if connection.reusable]
        if any(self._idle.values()):
            self._sweep = asyncio.get_running_loop().call_later(IDLE_KEPT_SECONDS, self._close_rested)

    async def aclose(self) -> None:
        self._closed = True
        self._traffic.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for pool in self._idle.values():
            for connection in pool:
                connection.abort()
        self._idle.clear()
        with suppress(RuntimeError):
            # Lets the loop deliver `connection_lost` before whoever closes us closes the loop.
            await asyncio.sleep(0)


@lru_cache(maxsize=1)
def _public(*_where: str | None) -> ssl.SSLContext:
    """Trusts the system's authorities, and is one for all: to read them takes the loop 25 ms, to keep them 1 MiB."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _aimed(start: bytes, target: bytes) -> bytes:
    """The first line of a request to `/`, sent to this target instead: what is secret in it is kept in no route."""
    return b"POST " + target + start.removeprefix(b"POST /")


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


def _not_connected(route: _Route, error: OSError) -> httpx.ConnectError:
    told = f"{route.place[2]}: {error.strerror or 'the connection was closed'}"
    if error.errno in OUR_ERRNOS:
        return LocalFault(f"{told} (here, before anything was sent)")
    # Behind TLS a connection that opens and then breaks is a handshake that failed.
    lost = route.encrypted and isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError)
    return TlsFailure(told) if lost else httpx.ConnectError(told)
