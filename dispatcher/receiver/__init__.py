"""The demo operator: a real HTTP server that plays operators as wire-contract.md describes them, faults included.

It judges as a careful operator would: every field of the contract as agreed, fields that it does not know ignored, each
message booked once. Its books are in memory. What it refuses it names, and never shows: no token, no key, nothing that
came encrypted.

| | `notice` | `settle` |
|---|---|---|
| booked, or booked already with the same content | 200, code "0000" | 200, code "0000" |
| its key is booked with other content | 409 | 200, code "1016" |
| not as agreed; the fields at fault are named | 400 | 200, code "1002" |
| the token, a header or the signature does not fit | 401 | 401 |

A yes has whatever else the operator's success rule asks for. The words stand in `message`, in a settle's codes in
`desc`. Of a settle everything but `ts` is its content.
"""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import parse_qs

from dispatcher.ground.clock import SECOND, Clock, WallClock
from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Operator
from dispatcher.receiver.endpoints import Endpoint, Reading, open_endpoints, read_request
from dispatcher.receiver.http import Answer, Connection, Faults, Malformed, Request, says
from dispatcher.receiver.reading import Entry
from dispatcher.receiver.tokens import Tokens

__all__ = ["Entry", "Faults", "Receiver", "Seen", "serve"]


class Seen(NamedTuple):
    """One request as the watcher is told it, `at` in µs. `booked`: it was this one that booked the message.

    `type` and `key` name the message; `order_no` is the key of a notice. Who asks for a token is of type `token`.
    `code` is the one under which a settle was refused.
    """

    at: int
    operator: str | None
    order_no: str | None
    status: int | None
    booked: bool
    fault: str | None
    type: str | None = None
    key: str | None = None
    code: str | None = None


class _Said(NamedTuple):
    """An answer, and what it is counted as."""

    answer: Answer
    became: str


_NO_FAULTS = Faults()
_WALL_CLOCK = WallClock()
_KEYS = {"notice": "order_no", "settle": "txId"}


class Receiver:
    """The operators at one address. In-process, use `serve`.

    - `booked`: what is in the books, by (operator, type, key), in booking order;
    - `stats`: `requests` (all but `GET /received`, `GET /stats` and those for a token), how many of them were `booked`,
      `duplicates` or `refused`, and how many were `faulted`, which may be one of those as well;
    - `faults`: may be exchanged at any time; the next request meets the new ones.
    """

    def __init__(
        self, operators: Sequence[Operator], faults: Faults, tell: Callable[[Seen], None], clock: Clock
    ) -> None:
        self.url = ""
        self.faults = faults
        self.booked: dict[tuple[str, str, str], Entry] = {}
        self.stats = dict.fromkeys(("requests", "booked", "duplicates", "refused", "faulted"), 0)
        self._tokens = Tokens(clock)
        self._endpoints = open_endpoints(operators, self._tokens, clock)
        self._paths = {endpoint.path for endpoint in self._endpoints}
        self._tell, self._clock = tell, clock
        self._requests: Counter[tuple[str, str, str] | None] = Counter()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._closed = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._host(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def close(self) -> None:
        """Hangs up on everybody at once: a hanging or endless answer has no end to wait for."""
        self._closed = True
        for task, writer in self._open.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _host(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        # Callers that go away are everyday weather, and some of the faults are there to drive them away.
        with suppress(OSError):
            try:
                while (request := await connection.request()) is not None:
                    await self._respond(connection, request)
            except Malformed as malformed:
                await connection.send_last(self._deny(malformed.answer))
            finally:
                writer.close()
                await writer.wait_closed()

    async def _respond(self, connection: Connection, request: Request) -> None:
        taken = self._paths | self._tokens.paths
        match request.method, request.path:
            case "GET", "/received":
                await connection.send(Answer(200, self._received(request.query)))
            case "GET", "/stats":
                await connection.send(Answer(200, self.stats))
            case "POST", path if path in self._paths:
                await self._take(connection, request)
            case "POST", path if path in self._tokens.paths:
                await connection.send(self._grant(request))
            case _, path if path in taken or path in ("/received", "/stats"):
                allowed = "POST" if path in taken else "GET"
                await connection.send(self._deny(says(405, f"this path takes {allowed}", ("Allow", allowed))))
            case _:
                await connection.send(self._deny(says(404, "no operator is posted to at this path")))

    def _received(self, query: str) -> list[dict[str, object]]:
        """All that is booked, or what has one of the keys that are asked for."""
        asked = parse_qs(query, keep_blank_values=True)
        wanted = {(type_, key) for type_, name in _KEYS.items() for key in asked.get(name, ())}
        everything = not asked.keys() & {*_KEYS.values()}
        return [entry.row() for entry in self.booked.values() if everything or (entry.type, entry.key) in wanted]

    def _deny(self, answer: Answer) -> Answer:
        self.stats["requests"] += 1
        reading = Reading(None, None, answer)
        self._show(reading, self._enter(reading), answer.status, _NO_FAULTS)
        return answer

    def _grant(self, request: Request) -> Answer:
        operator, answer = self._tokens.grant(request)
        self._tell(Seen(self._clock.now(), operator, None, answer.status, booked=False, fault=None, type="token"))
        return answer

    async def _take(self, connection: Connection, request: Request) -> None:
        """One message, from its reading to its answer, or to the fault that it meets instead."""
        self.stats["requests"] += 1
        reading = read_request(self._endpoints, request)
        faults = self._faults_for(reading)
        said = self._enter(reading) if faults.book_first else None
        await asyncio.sleep(faults.delay / SECOND)
        if faults.way is None:
            said = said or self._enter(reading)
            self._show(reading, said, said.answer.status, faults)
            await connection.send(said.answer)
        else:
            self._show(reading, said, faults.shown_status, faults)
            await connection.misbehave(faults)

    def _faults_for(self, reading: Reading) -> Faults:
        named = reading.named
        self._requests[named] += 1
        if not self.faults.hit(reading.endpoint.type if reading.endpoint else None, named, self._requests[named]):
            return _NO_FAULTS
        self.stats["faulted"] += 1
        return self.faults

    def _enter(self, reading: Reading) -> _Said:
        """Books the message, unless it is in the books already or there is none."""
        if isinstance(reading.verdict, Answer):
            said = _Said(reading.verdict, "refused")
        else:
            assert reading.endpoint, "only an endpoint makes an entry"
            said = self._book(reading.endpoint, reading.verdict)
        self.stats[said.became] += 1
        return said

    def _book(self, endpoint: Endpoint, entry: Entry) -> _Said:
        known = self.booked.setdefault((entry.operator, entry.type, entry.key), entry)
        if known != entry:
            return _Said(endpoint.reader.conflict, "refused")
        known.times, known.last_ts = known.times + 1, entry.last_ts
        return _Said(endpoint.booked, "booked") if known.times == 1 else _Said(endpoint.known, "duplicates")

    def _show(self, reading: Reading, said: _Said | None, status: int | None, faults: Faults) -> None:
        operator, type_ = (reading.endpoint.operator, reading.endpoint.type) if reading.endpoint else (None, None)
        order_no = reading.key if type_ == "notice" else None
        booked = said is not None and said.became == "booked"
        code = _code(said.answer) if said is not None and said.became == "refused" and status == 200 else None
        fault, at = str(faults) or None, self._clock.now()
        self._tell(Seen(at, operator, order_no, status, booked, fault, type_, reading.key, code))


def _code(answer: Answer) -> str | None:
    return answer.body.get("code") if isinstance(answer.body, dict) else None


@asynccontextmanager
async def serve(
    operators: Sequence[Operator],
    faults: Faults = _NO_FAULTS,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tell: Callable[[Seen], None] = lambda seen: None,
    clock: Clock = _WALL_CLOCK,
) -> AsyncIterator[Receiver]:
    """Plays the operators until the block ends; port 0 takes a free one, and `url` says which (`http://HOST:PORT`).

    Of an operator's URLs only the path counts; it plays an operator's token endpoint too where that has the same host
    and port as the URL. `tell` hears of every request, before it is answered; `clock` says how old a signature or a
    token is. Raises Refused where the address can't be had, or where two operators can't be told apart.
    """
    receiver = Receiver(operators, faults, tell, clock)
    try:
        server = await asyncio.start_server(receiver.accept, host, port)
    except OSError as error:
        # What could not be bound asyncio tells in words of its own, which differ from one Python to another.
        code = error.errno or 0
        reason = os.strerror(code).lower() if code in errno.errorcode else error.strerror or str(error)
        raise Refused(f"can't listen on {host}:{port} ({reason}); stop what is there or choose another") from None
    shown = f"[{host}]" if ":" in host else host
    receiver.url = f"http://{shown}:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()
        await server.wait_closed()
