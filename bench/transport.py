"""`python -m bench.transport PORT COUNT CONCURRENCY`: POSTs through the bare transport; prints rate and CPU (µs)."""

import asyncio
import sys
import time
from ipaddress import ip_network

import uvloop

from dispatcher.ground.clock import SECOND, WallClock
from dispatcher.ground.secret import Secret
from dispatcher.protocols.credentials import message_headers
from dispatcher.wire import Headers, PinnedTransport, Request, Resolver, Wire

HEADERS = Headers(message_headers(Secret("bench-token-of-thirty-two-letters"), ()))


async def measure(port: int, count: int, concurrency: int) -> tuple[float, float]:
    wire, transport = Wire(WallClock()), PinnedTransport(Resolver(), [ip_network("127.0.0.0/8")], 3 * SECOND)
    url = f"http://127.0.0.1:{port}/Demo/notice"

    async def post(times: int) -> None:
        for _ in range(times):
            outcome = await wire.post(transport, Request(url, HEADERS, b"x" * 420), 10 * SECOND)
            assert outcome.http_status == 200, outcome

    await asyncio.gather(*(post(5) for _ in range(concurrency)))
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(post(count // concurrency) for _ in range(concurrency)))
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    await transport.aclose()
    return count / elapsed, used / count * 1e6


if __name__ == "__main__":
    rate, each = uvloop.run(measure(*map(int, sys.argv[1:4])))
    sys.stdout.write(f"{rate} {each}\n")
