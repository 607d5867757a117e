"""A light client that posts events to the HTTP API as fast as it answers: `python -m bench.poster URL TOKEN COUNT`.

Each connection sends its next request when the one before is answered; requests are made before the clock runs.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.orders import as_events, orders

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: {type}\r\nContent-Length: "
)


class Caller(asyncio.Protocol):
    """One connection, with its own share of the requests."""

    def __init__(self, requests: Iterator[bytes], ended: "asyncio.Future[None]", statuses: Counter[str]) -> None:
        self._requests = requests
        self._ended = ended
        self._statuses = statuses
        self._got = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def begin(self) -> None:
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            self._ended.set_result(None)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(rest) >= length:
            self._statuses[head[9:12].decode()] += 1
            self._got = rest[length:]
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError(f"the server hung up: {exc}"))


async def post(url: str, token: str, bodies: list[bytes], connections: int, path: str, kind: str) -> dict[str, object]:
    """How long it took until all were answered, and how."""
    parts = urlsplit(url)
    head = _HEAD.format(path=path, host=parts.netloc, token=token, type=kind).encode()
    requests = [b"%s%d\r\n\r\n%s" % (head, len(body), body) for body in bodies]
    loop, statuses = asyncio.get_running_loop(), Counter[str]()
    callers, ends = [], []
    for number in range(connections):
        ended = loop.create_future()
        caller = Caller(iter(requests[number::connections]), ended, statuses)
        await loop.create_connection(partial(_same, caller), str(parts.hostname), int(parts.port or 80))
        callers.append(caller)
        ends.append(ended)
    started = time.perf_counter()
    for caller in callers:
        caller.begin()
    await asyncio.gather(*ends)
    return {"seconds": time.perf_counter() - started, "statuses": statuses}


def _same(caller: Caller) -> Caller:
    return caller


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.poster")
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("count", type=int)
    parser.add_argument("--start", type=int, default=0, help="the first order's number")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--batch", type=int, default=0, help="events in one request; 0: single posts")
    given = parser.parse_args()
    lines = as_events(orders(given.count, start=given.start, players=given.count)).splitlines(keepends=True)
    if given.batch:
        bodies = [b"".join(lines[at : at + given.batch]) for at in range(0, len(lines), given.batch)]
        way = ("/v1/events/batch", "application/x-ndjson")
    else:
        bodies, way = lines, ("/v1/events", "application/json")
    told = uvloop.run(post(given.url, given.token, bodies, given.connections, *way))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
