"""The operator at its socket: books every whole order that comes, and answers a little later."""

import asyncio
import random
import re
import threading
import time
from collections import defaultdict
from functools import partial
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ORDER = re.compile(rb'"order_no": *"([^"]*)"')
_YES = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok"
_NO = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n%b\r\nno"
_LAST = b"Connection: close\r\n"
# Of all answers so many in one end the connection.
_CLOSED_ONE_IN = 8
_DELAY_SECONDS = (0.01, 0.06)


class Operator:
    """`booked`: by number, when each booking was made (s since 1970); `last_at`: the latest.

    `cut`: requests that came in part. Of all orders one in `refusing` is refused the first time it comes, none for 0.
    """

    def __init__(self, seed: int, refusing: int) -> None:
        self.booked: dict[str, list[float]] = defaultdict(list)
        self.last_at = 0.0
        self.cut = 0
        self.port = 0
        self._refusing = refusing
        self._refused: set[str] = set()
        self._chance = random.Random(seed)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Operator":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Visit(self), "127.0.0.1", 0, backlog=1_024)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def take(self, visit: "_Visit", order: str) -> None:
        """Books first and answers later: an operator whose answer is lost has booked all the same."""
        refuse = self._refusing and int(order) % self._refusing == 0 and order not in self._refused
        if refuse:
            self._refused.add(order)
        else:
            self.last_at = time.time()
            self.booked[order].append(self.last_at)
        ends = self._chance.randrange(_CLOSED_ONE_IN) == 0
        answer = (_NO if refuse else _YES) % (_LAST if ends else b"")
        self._loop.call_later(self._chance.uniform(*_DELAY_SECONDS), partial(visit.answer, answer, ends))


class _Visit(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._come = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._come += data
        head, end, body = self._come.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head + b"\r\n")
        assert length
        if len(body) >= int(length[1]):
            order = _ORDER.search(body)
            assert order
            self._come = b""
            self._operator.take(self, order[1].decode())

    def connection_lost(self, _error: Exception | None) -> None:
        self._operator.cut += bool(self._come)

    def answer(self, answer: bytes, ends: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)
            if ends:
                self._transport.close()
