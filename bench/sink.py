"""The operator's side of a measurement: says yes to every POST, and does so little that it isn't what is measured.

`python -m bench.sink PORT` answers until it is ended. `GET /stats` tells, for each path, what came; `bench.stats`
reads it. Every distinct head is read once, so a request costs one read, two look-ups and one write.
"""

import argparse
import heapq
import itertools
import json
import math
import random
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

YES = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"code":"0000"}'
NO = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
UNFRAMED = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
READ_BYTES = 64 * 1024
# Heads differ in their path and their length; where somebody puts a number of his own into each, memory stays bounded.
HEADS_KEPT = 20_000


@dataclass(slots=True)
class Tally:
    """What came to one path. Times are seconds since 1970; `again`: yeses to an order that had its yes already.

    `received` counts whole requests, `answered` the yeses that were written; `orders` the different ones of these,
    which are told apart only where the sink was asked to.
    """

    received: int = 0
    answered: int = 0
    orders: int = 0
    again: int = 0
    octets: int = 0
    first: float = 0.0
    last: float = 0.0
    answered_last: float = 0.0


@dataclass(slots=True)
class Place:
    """One path: how many seconds its answers take, by chance between two bounds (`inf`: for ever), and what came."""

    delay: tuple[float, float]
    tally: Tally = field(default_factory=Tally)


class Head(NamedTuple):
    """What one request's head says: the body's length; no place for a question about the tallies."""

    place: Place | None
    length: int


@dataclass(slots=True, eq=False)
class Connection:
    """`rest` is what was read and not answered yet; `waits`: an answer is due, and what came after it waits."""

    socket: socket.socket
    rest: bytes = b""
    waits: bool = False
    is_open: bool = True


class Unframed(Exception):
    """A body of which nobody said how long it is."""


class Sink:
    """`delays` are pairs of a path's beginning and the bounds of what its answers take; the first that fits counts.

    `by_order` tells orders apart; `fail_first` answers an order's first request with 500.
    """

    def __init__(
        self, delays: list[tuple[bytes, tuple[float, float]]], *, by_order: bool = False, fail_first: bool = False
    ) -> None:
        self._delays = delays
        self._by_order = by_order
        self._fail_first = fail_first
        self._refused: set[bytes] = set()
        self._delivered: set[bytes] = set()
        self._places: dict[bytes, Place] = {}
        self._heads: dict[bytes, Head] = {}
        self._due: list[tuple[float, int, Connection, Place, bytes]] = []
        self._count = itertools.count()
        # Always the same.
        self._chance = random.Random(1)
        self._connections: dict[int, Connection] = {}
        self._poll = select.epoll()

    def serve(self, listener: socket.socket) -> None:
        """For ever."""
        self._poll.register(listener.fileno(), select.EPOLLIN)
        while True:
            wait = max(0.0, self._due[0][0] - time.time()) if self._due else None
            for number, _ in self._poll.poll(wait):
                connection = self._connections.get(number)
                if connection is None:
                    self._accept(listener)
                else:
                    self._read(connection)
            if self._due:
                self._answer_due()

    def _accept(self, listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[accepted.fileno()] = Connection(accepted)
        self._poll.register(accepted.fileno(), select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        connection.is_open = False
        del self._connections[connection.socket.fileno()]
        connection.socket.close()

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._close(connection)
        elif connection.waits:
            connection.rest += data
        else:
            self._take(connection, connection.rest + data if connection.rest else data)

    def _take(self, connection: Connection, data: bytes) -> None:
        """Answers every whole request in `data`, all in one write, up to one whose answer takes its time."""
        at, now = 0, time.time()
        answers: list[bytes] = []
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            try:
                head = self._heads.get(data[at:end]) or self._learn(data[at:end])
            except Unframed:
                self._write(connection, [*answers, UNFRAMED])
                return self._close(connection) if connection.is_open else None
            body, at_end = end + 4, end + 4 + head.length
            if at_end > len(data):
                break
            at = at_end
            if head.place is None:
                answers.append(self._told())
                continue
            answer = self._receive(head.place, data, body, at_end, now)
            if head.place.delay[1] and answer is not NO:
                self._put_off(connection, head.place, answer, now)
                break
            answers.append(answer)
        connection.rest = data[at:]
        if answers:
            self._write(connection, answers)
        return None

    def _receive(self, place: Place, data: bytes, start: int, end: int, now: float) -> bytes:
        """The answer; where it takes its time the order instead, for whoever writes it."""
        tally = place.tally
        if not tally.received:
            tally.first = now
        tally.received += 1
        tally.octets += end - start
        tally.last = now
        order = _order(data, start, end) if self._by_order or self._fail_first else b""
        if self._fail_first and order not in self._refused:
            self._refused.add(order)
            return NO
        if place.delay[1]:
            return order
        self._yes(place, order, now)
        return YES

    def _yes(self, place: Place, order: bytes, now: float) -> None:
        tally = place.tally
        tally.answered += 1
        tally.answered_last = now
        if not self._by_order:
            return
        if order in self._delivered:
            tally.again += 1
        else:
            self._delivered.add(order)
            tally.orders += 1

    def _put_off(self, connection: Connection, place: Place, order: bytes, now: float) -> None:
        connection.waits = True
        if place.delay[1] < math.inf:
            heapq.heappush(
                self._due, (now + self._chance.uniform(*place.delay), next(self._count), connection, place, order)
            )

    def _answer_due(self) -> None:
        now = time.time()
        while self._due and self._due[0][0] <= now:
            _, _, connection, place, order = heapq.heappop(self._due)
            if not connection.is_open:
                continue
            self._yes(place, order, now)
            connection.waits = False
            self._write(connection, [YES])
            if connection.is_open:
                self._take(connection, connection.rest)

    def _write(self, connection: Connection, answers: list[bytes]) -> None:
        try:
            connection.socket.sendall(answers[0] if len(answers) == 1 else b"".join(answers))
        except OSError:
            self._close(connection)

    def _learn(self, raw: bytes) -> Head:
        line, *fields = raw.split(b"\r\n")
        method, path, _ = line.split(b" ")
        length = 0
        for one in fields:
            name, _, value = one.partition(b":")
            if name.lower() == b"transfer-encoding":
                raise Unframed
            if name.lower() == b"content-length":
                length = int(value)
        if len(self._heads) >= HEADS_KEPT:
            self._heads.clear()
        head = self._heads[raw] = Head(None if method == b"GET" else self._place(path), length)
        return head

    def _place(self, path: bytes) -> Place:
        if path not in self._places:
            delay = next((bounds for beginning, bounds in self._delays if path.startswith(beginning)), (0.0, 0.0))
            self._places[path] = Place(delay)
        return self._places[path]

    def _told(self) -> bytes:
        body = json.dumps({path.decode(): asdict(place.tally) for path, place in self._places.items()}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _order(data: bytes, start: int, end: int) -> bytes:
    """The order's number in the body, whether it was written with a blank after the colon or without."""
    at = data.find(b'"order_no"', start, end)
    if at < 0:
        return b""
    opening = data.find(b'"', at + 10, end)
    return data[opening + 1 : data.find(b'"', opening + 1, end)]


def _delay(text: str) -> tuple[bytes, tuple[float, float]]:
    path, _, seconds = text.rpartition("=")
    least, _, most = seconds.replace("never", "inf").partition("-")
    return path.encode(), (float(least), float(most or least))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sink")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=_delay, action="append", default=[], metavar="PATH=SECONDS|FROM-TO|never")
    parser.add_argument("--by-order", action="store_true")
    parser.add_argument("--fail-first", action="store_true")
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", given.port), backlog=4096) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        Sink(given.delay, by_order=given.by_order, fail_first=given.fail_first).serve(listener)


if __name__ == "__main__":
    main()
