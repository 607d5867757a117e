"""The operator's side of a measurement: says yes to every POST, and does so little that it isn't what is measured.

`python -m bench.sink PORT` answers until it gets SIGTERM; with `--fail-first` an order's first POST is answered 500.
"""

import asyncio
import re
import signal
import sys
from typing import cast

import httptools

YES = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"code":"0000"}'
NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
_ORDER = re.compile(rb'"order_no":"([^"]+)"')


class Sink(asyncio.Protocol):
    """Just enough HTTP/1.1 to tell where a request ends."""

    refuse: set[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._transport.write(YES if self.refuse is None else self._second_time(self._body, self.refuse))
        self._body = b""

    def _second_time(self, body: bytes, seen: set[bytes]) -> bytes:
        order = _ORDER.search(body)
        if order is None or order[1] in seen:
            return YES
        seen.add(order[1])
        return NO


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(Sink, "127.0.0.1", port, backlog=4096)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    import uvloop

    Sink.refuse = set() if "--fail-first" in sys.argv else None
    uvloop.run(serve(int(sys.argv[1])))
