"""The operator's side of a measurement: says yes to every POST and does nothing else, so that it isn't what is measured.

`python -m bench.sink PORT [REPORT]` answers until it gets SIGTERM; then it writes, for every order number it saw, the
time of its first POST to REPORT (JSON). With `--fail-first`, an order's first POST is answered with 500.
"""

import asyncio
import re
import signal
import sys
import time
from typing import cast

import orjson

YES = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"code":"0000"}'
NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_ORDER = re.compile(rb'"order_no":"([^"]+)"')


class Sink(asyncio.Protocol):
    """Just enough HTTP/1.1 for requests with a Content-Length."""

    seen: dict[str, list[float]] | None = None
    fail_first = False

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
            answer = self._answer(self._buffer[head + 4 : end]) if self.seen is not None else YES
            self._buffer = self._buffer[end:]
            self._transport.write(answer)

    def _answer(self, body: bytes) -> bytes:
        assert self.seen is not None
        order = _ORDER.search(body)
        times = self.seen.setdefault(order[1].decode() if order else "", [])
        times.append(time.time())
        return NO if self.fail_first and len(times) == 1 else YES


async def serve(port: int, report: str | None) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(Sink, "127.0.0.1", port, backlog=4096)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()
    if report:
        with open(report, "wb") as file:
            file.write(orjson.dumps(Sink.seen))


if __name__ == "__main__":
    import uvloop

    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    Sink.fail_first = "--fail-first" in sys.argv
    Sink.seen = {} if len(arguments) > 1 else None
    uvloop.run(serve(int(arguments[0]), arguments[1] if len(arguments) > 1 else None))
