"""The receiver's side of the wire: whole requests in, right answers or faults out.

h11 speaks HTTP over asyncio's streams, because half of the faults (a reset, an endless body) need the bare connection.
"""

import asyncio
import json
import re
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import responses
from random import Random
from typing import NamedTuple

import h11

from dispatcher.ground.clock import duration_text
from dispatcher.ground.errors import Unfit

MAX_BODY = 1 << 20
_CHUNK = 1 << 16
_LINGER = 2.0
_HEADER = re.compile(r"[!-~]+")
_WAYS = ("status", "hang", "reset", "endless", "drip", "redirect", "code")


@dataclass(frozen=True, slots=True)
class Faults:
    """How the operator misbehaves: in at most one way, after `delay` µs, towards every message or some of them.

    `fail_first` hits the first n requests of each order or settle, `fail_rate` (0 to 1) a share of all; with a `seed`
    the same request of the same order is hit in every run. Either one without a way means status 500. `delay` without a
    way answers late, but rightly. `book_first` books what can be booked before anything else: the ambiguous case.
    `code` is a settle's no under status 200, and meets nothing else: to a notice every 200 is a yes.
    Raises Unfit for options that contradict each other or are out of range.
    """

    status: int | None = None
    delay: int = 0
    hang: bool = False
    reset: bool = False
    endless: bool = False
    drip: bool = False
    redirect: str | None = None
    code: str | None = None
    book_first: bool = False
    fail_first: int | None = None
    fail_rate: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        ways, status, rate = self._ways(), self.status, self.fail_rate
        for wrong, fault, mend in (
            (len(ways) > 1, f"{' and '.join(ways)} contradict each other", "keep one of them"),
            (None not in (self.fail_first, rate), "--fail-first and --fail-rate exclude each other", "keep one"),
            (self.hang and self.delay, "--hang never answers, so there is nothing to --delay", "keep one of them"),
            (status is not None and not 200 <= status <= 599, f"--status {status} is no answer", "write 200 to 599"),
            (self.delay < 0, "--delay is negative", 'write e.g. "2s"'),
            (self.redirect is not None and not _HEADER.fullmatch(self.redirect), "--redirect is no URL", "use ASCII"),
            (self.code is not None and not self.code.isprintable(), "--code is no code", 'write e.g. "1005"'),
            ((self.fail_first or 0) < 0, "--fail-first is negative", "write how many requests of each order fail"),
            (rate is not None and not 0 <= rate <= 1, f"--fail-rate {rate} is no share", "write 0 to 1, like 0.3"),
            (self.seed is not None and rate is None, "--seed has no dice to throw", "add --fail-rate"),
            (self.book_first and not (self.way or self.delay), "--book-first has no fault", "add e.g. --status 500"),
        ):
            if wrong:
                raise Unfit(fault, mend)

    def _ways(self) -> list[str]:
        return [f"--{way}" for way in _WAYS if getattr(self, way) not in (None, False)]

    @property
    def way(self) -> str | None:
        """The one misbehaviour; None where the answer is right, if late."""
        if ways := self._ways():
            return ways[0].removeprefix("--")
        narrowed = self.fail_first is not None or self.fail_rate is not None
        return "status" if narrowed and not self.delay else None

    @property
    def shown_status(self) -> int | None:
        """The status that the misbehaviour shows; None for no answer at all."""
        shown = {"status": self.status or 500, "redirect": 302, "endless": 200, "drip": 200, "code": 200}
        return shown.get(self.way or "")

    def hit(self, type_: str | None, order: tuple[str, str, str] | None, nth: int) -> bool:
        """Whether the order's nth request (from 1) gets the fault; None for requests that name no order.

        `order` is the operator, the message type and the key; `type_` is known of more requests than that.
        """
        if self.code is not None and type_ != "settle":
            return False
        if self.fail_first is not None:
            return order is not None and nth <= self.fail_first
        if self.fail_rate is not None:
            # Each request has dice of its own: the order in which they arrive differs from run to run.
            return Random(None if self.seed is None else f"{self.seed} {order} {nth}").random() < self.fail_rate
        return self.way is not None or self.delay > 0

    def __str__(self) -> str:
        delay = f"delay {duration_text(self.delay)}" if self.delay else None
        way = {"status": f"status {self.shown_status}", "code": f"code {self.code}"}.get(self.way or "", self.way)
        return ", ".join(part for part in (delay, way) if part)


class Request(NamedTuple):
    """One request, whole; the names of its headers are in small letters."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> bytes:
        """Empty where the header is absent or stands more than once."""
        given = [value for key, value in self.headers if key == name.lower().encode()]
        return given[0] if len(given) == 1 else b""


class Answer(NamedTuple):
    """A status, what becomes the JSON body, and headers beside its type and length."""

    status: int
    body: object
    headers: Sequence[tuple[str, str]] = ()


def says(status: int, told: str, *headers: tuple[str, str], code: str | None = None, word: str = "message") -> Answer:
    """The answer `{"code","message"}`; the code is the status unless given. A settle's `word` is `desc`."""
    return Answer(status, {"code": str(status) if code is None else code, word: told}, headers)


class Malformed(Exception):
    """What came is not HTTP or too much; `answer` is to be the last one on this connection."""

    def __init__(self, status: int) -> None:
        told = "the body is over 1 MiB" if status == 413 else "this is not HTTP/1.1 as it should be"
        # Not h11's own words: they quote the line, and that may be the token's.
        self.answer = says(status, told, ("Connection", "close"))


class Connection:
    """One caller: h11 knows the rules of HTTP, this knows the socket. OSError means that the caller has gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER)
        self._head_only = False

    async def request(self) -> Request | None:
        """The next request; None when there is none to come. Raises Malformed."""
        if self._http.our_state is h11.DONE is self._http.their_state:
            self._http.start_next_cycle()
        try:
            return await self._read() if self._http.our_state is h11.IDLE else None
        except h11.RemoteProtocolError as error:
            raise Malformed(error.error_status_hint) from None

    async def _read(self) -> Request | None:
        head, body = await self._event(), bytearray()
        if not isinstance(head, h11.Request):
            return None
        self._head_only = head.method == b"HEAD"
        while isinstance(part := await self._event(), h11.Data):
            body += part.data
            if len(body) > MAX_BODY:
                raise Malformed(413)
        path, _, query = head.target.decode("ascii").partition("?")
        return Request(head.method.decode("ascii"), path, query, list(head.headers), bytes(body))

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_CHUNK))
        return event

    async def _write(self, *events: h11.Event) -> None:
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()

    async def send(self, answer: Answer) -> None:
        body = json.dumps(answer.body, ensure_ascii=False).encode()
        if self._head_only or answer.status in (204, 304):
            body = b""
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *answer.headers]
        head = h11.Response(status_code=answer.status, headers=headers, reason=responses.get(answer.status, ""))
        await self._write(head, h11.Data(data=body), h11.EndOfMessage())

    async def send_last(self, answer: Answer) -> None:
        """Answers and hangs up. Closing with bytes unread would reset the connection and take the answer with it."""
        await self.send(answer)
        self._writer.write_eof()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._until_gone(), _LINGER)

    async def _until_gone(self) -> None:
        while await self._reader.read(_CHUNK):
            pass

    async def misbehave(self, faults: Faults) -> None:
        """Does what `faults.way` says, until it is done or the caller has gone."""
        match faults.way:
            case "hang":
                await self._until_gone()
            case "reset":
                # Lingering for zero seconds makes the kernel send RST where it would have sent FIN.
                peer: socket.socket = self._writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._writer.transport.abort()
            case "endless":
                await self._pour(b" " * _CHUNK, 0)
            case "drip":
                await self._pour(b" ", 0.1)
            case _:
                place = [("Location", faults.redirect)] if faults.redirect else []
                word = "message" if faults.code is None else "desc"
                told = says(faults.shown_status or 500, "a fault on demand", *place, code=faults.code, word=word)
                await self.send(told)

    async def _pour(self, drop: bytes, pause: float) -> None:
        await self._write(h11.Response(status_code=200, headers=[("Content-Type", "application/json")]))
        while True:
            await self._write(h11.Data(data=drop))
            await asyncio.sleep(pause)
