"""The operator's side of a measurement: says yes to every POST, and does so little that it isn't what is measured.

`python -m bench.sink PORT` answers until it gets SIGTERM; with `--fail-first` an order's first POST is answered 500.
"""

import asyncio
import re
import signal
import sys
from typing import cast

YES = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"code":"0000"}'
NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_ORDER = re.compile(rb'"order_no":"([^"]+)"')


class Sink(asyncio.Protocol):
    """Just enough HTTP/1.1 for requests with a Content-Length."""

    refuse: set[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[head + 4 : end], self._buffer[end:]
            self._transport.write(YES if self.refuse is None else self._second_time(body, self.refuse))

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
