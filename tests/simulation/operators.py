"""The operators: what they book, what they answer, and everything that the network does in between."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import httpx
import orjson

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.crypto import CryptoReading
from dispatcher.ground.operator import Operator
from dispatcher.seal import Seal, SealError
from dispatcher.wire.failures import LocalFault
from tests.simulation.loop import Process, World

# What an operator does with one request, and how often in which mood. Those that begin with "un" book nothing.
MOODS: Mapping[str, Mapping[str, int]] = {
    "well": {"yes": 1},
    "slow": {"yes": 2, "yes_late": 3, "hang": 1, "unbooked_hang": 1},
    "bad": {
        "yes": 2,
        "refused": 2,
        "unreachable": 1,
        "unsent": 1,
        "ours": 1,
        "reset": 1,
        "unbooked_reset": 1,
        "broken": 1,
        "status": 3,
        "unbooked_status": 4,
        "come_back": 2,
        "odd": 3,
        "hang": 2,
        "unbooked_hang": 2,
        "yes_late": 2,
    },
    "down": {"refused": 4, "unreachable": 2, "unbooked_status": 4, "unbooked_hang": 1},
    "away": {"ours": 1},
}
BOOKED = frozenset({"yes", "yes_late", "hang", "reset", "broken", "status", "odd"})
STATUSES = (201, 202, 204, 301, 302, 307, 400, 401, 404, 409, 422, 500, 502, 504)
YES = b'{"code":"0000","desc":"ok"}'
# Codes that are no yes: a number, another code, none, not an object, not JSON, more than is read.
ODD = (
    b'{"code":0}',
    b'{"code":"9999","desc":"no"}',
    b'{"desc":"0000"}',
    b'["0000"]',
    b"<html>0000</html>",
    b'{"code":"0000"',
    b'{"code":"0000","pad":"' + b"x" * 70_000 + b'"}',
)
_ERRORS = {
    "refused": httpx.ConnectError,
    "unreachable": httpx.ConnectTimeout,
    "unsent": httpx.WriteError,
    "reset": httpx.ReadError,
    "unbooked_reset": httpx.RemoteProtocolError,
    "ours": LocalFault,
}

Delivery = tuple[str, str, str]


@dataclass(slots=True)
class Sent:
    """One request as it was seen from outside: by whom, for what, when (µs of the world, and of the sender's clock)."""

    process: Process
    delivery: Delivery
    kind: str
    began: int
    began_wall: int
    # Of the key that opens what was sent.
    fingerprint: str | None
    ended: int | None = None
    ended_wall: int = 0
    # How far the sender's clock was behind the world's then (µs).
    behind: int = 0
    # Whether the sender has read a whole answer that says yes.
    yes: bool = False
    asked: int = 0

    def end(self) -> None:
        if self.ended is None:
            self.ended, self.ended_wall = self.process.world.now, self.process.clock()
            self.behind = self.process.world.wall() - self.ended_wall


@dataclass(slots=True)
class Reply:
    """An answer or an error, in so many µs; what is booked is booked before, or later where no answer comes."""

    kind: str
    delay: int
    status: int = 200
    body: bytes = YES
    headers: Mapping[str, str] = field(default_factory=dict)
    booked_in: int | None = None
    asked: int = 0


def reply(chance: Random, mood: str, timeout: int) -> Reply:
    kinds = MOODS[mood]
    kind = chance.choices(list(kinds), list(kinds.values()))[0]
    delay = chance.randrange(MILLISECOND, 80 * MILLISECOND)
    answer = Reply(kind, delay)
    if kind == "unreachable":
        answer.delay = SECOND
    elif kind in ("yes_late", "hang", "unbooked_hang"):
        # Around the deadline, and behind it.
        answer.delay = chance.randrange(timeout // 2, 2 * timeout) if kind == "yes_late" else 1_000 * SECOND
    elif kind in ("status", "unbooked_status"):
        answer.status = chance.choice(STATUSES)
        answer.body = chance.choice((b"", YES))
    elif kind == "come_back":
        answer.status, seconds = chance.choice((429, 503)), chance.randrange(20)
        answer.headers, answer.asked = {"Retry-After": str(seconds)}, seconds * SECOND
    elif kind == "odd":
        answer.body = chance.choice(ODD)
    if kind in BOOKED:
        answer.booked_in = chance.randrange(min(answer.delay, 3 * timeout))
    return answer


def is_yes(kind_of_message: str, answer: Reply) -> bool:
    """By the contract: 200, and for settle the code "0000" as text."""
    return answer.status == 200 and (kind_of_message == "notice" or answer.body == YES)


class Operators:
    """All of them, behind one transport. `book`: what each has booked, and when (µs of the world)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.moods: dict[str, str] = {}
        self.book: dict[Delivery, list[int]] = {}
        self.sent: list[Sent] = []
        self.under_way: list[Sent] = []
        # By operator, all the settings it ever had.
        self.history: dict[str, list[Operator]] = {}

    def receive(self, request: httpx.Request, body: bytes) -> tuple[Sent, Reply]:
        process = self.world.current
        assert process is not None
        told = orjson.loads(body)
        name = request.url.host.partition(".")[0]
        kind = "settle" if request.url.path.endswith("/settle") else "notice"
        delivery = (name, kind, told["txId"] if kind == "settle" else told["order_no"])
        key = self._key(name, told) if kind == "notice" else None
        answer = reply(self.world.chance, self.moods[name], self.history[name][-1].total_timeout)
        sent = Sent(process, delivery, answer.kind, self.world.now, process.clock(), key)
        self.under_way = [one for one in self.under_way if one.ended is None and not one.process.dead]
        self.under_way.append(sent)
        self.sent.append(sent)
        most = self.history[name][-1].concurrency
        if live(self.under_way, process, name) > most:
            self.world.blame("places", f"{process.name} has more than {most} under way to {name}")
        self.world.tell(process, f"sends {'/'.join(delivery)}: {answer.kind} {answer.status} in {answer.delay}")
        if answer.booked_in is not None:
            self.world.after(answer.booked_in, lambda: self._book(delivery))
        return sent, answer

    def _key(self, name: str, told: Mapping[str, Any]) -> str | None:
        """Which of its keys opens the data, by its fingerprint; None where none does."""
        for operator in reversed(self.history[name]):
            assert operator.reading is not None
            try:
                opened = orjson.loads(_opener(operator.reading).open(told["data"]))
            except (SealError, orjson.JSONDecodeError):
                continue
            if opened["order_no"] == told["order_no"]:
                return operator.reading.fingerprint
        return None

    def _book(self, delivery: Delivery) -> None:
        self.world.tell("operator", f"books {'/'.join(delivery)}")
        self.book.setdefault(delivery, []).append(self.world.now)


@cache
def _opener(reading: CryptoReading) -> Seal:
    return Seal(reading)


class Network(httpx.AsyncBaseTransport):
    """What a worker reaches the operators by."""

    def __init__(self, operators: Operators, process: Process) -> None:
        self._operators = operators
        self._process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.ByteStream)
        sent, answer = self._operators.receive(request, b"".join(request.stream))
        world, arrived = self._operators.world, self._process.loop.create_future()

        def arrive() -> None:
            if not arrived.done() and not self._process.dead:
                self._process.loop.call_soon(_arrive, arrived)

        world.after(answer.delay, arrive)
        try:
            await arrived
            if error := _ERRORS.get(answer.kind):
                raise error(answer.kind)
        except BaseException:
            sent.end()
            raise
        # Whoever stood still past the deadline has not heard of it.
        sent.asked = answer.asked
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(sent, answer))


def _arrive(arrived: Any) -> None:
    if not arrived.done():
        arrived.set_result(None)


class _Body(httpx.AsyncByteStream):
    def __init__(self, sent: Sent, answer: Reply) -> None:
        self._sent = sent
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        half = len(self._answer.body) // 2
        yield self._answer.body[:half]
        if self._answer.kind == "broken":
            raise httpx.ReadError("broken off")
        # Nobody waits from here on: who asked for the rest has it, and may not ask for what comes after that.
        self._sent.yes = is_yes(self._sent.delivery[1], self._answer)
        yield self._answer.body[half:]

    async def aclose(self) -> None:
        self._sent.end()


def live(sent: Sequence[Sent], process: Process, operator: str | None = None) -> int:
    """How many of these are under way from this process, to one operator or to all."""
    return sum(
        one.ended is None and one.process is process and (operator is None or one.delivery[0] == operator)
        for one in sent
    )
