"""The demo operator: a real HTTP server that plays operators as wire-contract.md describes them, faults included.

It judges as a strict operator would: exactly the fields of the contract, each order booked once. Its books are in
memory. What it refuses it names, and never shows: no token, no key, nothing that came encrypted.
"""

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from dispatcher.clock import SECOND, WallClock
from dispatcher.config import Auth, Operator
from dispatcher.errors import EventError, Refused, Unfit
from dispatcher.events import Field, amount, decimal_text, opaque, parse_json, read_fields
from dispatcher.protocols import notice
from dispatcher.receiver.http import MAX_BODY, Answer, Connection, Faults, Malformed, Request, says
from dispatcher.seal import Seal, SealError

__all__ = ["Faults", "Order", "Receiver", "Seen", "serve"]


@dataclass(slots=True, kw_only=True)
class Order:
    """What one notice says; equal for equal content, however its amounts were written. It was accepted `times`."""

    operator: str
    type: str = "notice"
    order_no: str
    uid: str
    time: int
    total_bet: Decimal
    total_win: Decimal
    net_win: Decimal
    business: str
    game_id: int
    times: int = field(default=0, compare=False)

    def row(self) -> dict[str, object]:
        """As `GET /received` shows it: amounts are text."""
        return {name: decimal_text(v) if type(v) is Decimal else v for name, v in asdict(self).items()}


class Seen(NamedTuple):
    """One request as the watcher is told it, `at` in µs. `booked`: it was this one that booked the order."""

    at: int
    operator: str | None
    order_no: str | None
    status: int | None
    booked: bool
    fault: str | None


_NO_FAULTS = Faults()
_BOOKED, _AGAIN = says(200, "ok", code="0000"), says(200, "ok, known already", code="0000")
_CONFLICT = says(409, "this order_no is booked with other content; the first one stands")


class _Refusal(Exception):
    """Why a request is no order, for its 400."""


def _number(value: Any) -> Decimal:
    if type(value) is str:
        raise Unfit("is text", "write a JSON number")
    return amount(value)


_AMOUNTS = ("total_bet", "total_win", "net_win")
_RULES = {rule.name: rule for rule in notice.FIELDS} | {name: Field(name, _number) for name in _AMOUNTS}
_INNER = [_RULES[name] for name in ("order_no", *_AMOUNTS, "business", "game_id", "time")]
_OUTER = [_RULES["order_no"], Field("data", opaque(MAX_BODY)), _RULES["time"], _RULES["uid"]]


def _agreed(raw: bytes, fields: Sequence[Field], where: str) -> dict[str, Any]:
    """Exactly these fields, or a refusal that names the others."""
    try:
        return read_fields(parse_json(raw), fields)
    except Unfit as unfit:
        raise _Refusal(f"{where} {unfit.fault}") from None
    except EventError as error:
        # The other faults quote the value.
        plain = ("is missing", "is not known")
        told = [f"{f.where} {f.fault if f.fault in plain else 'is not as agreed'}" for f in error.faults]
        raise _Refusal(f"{where}: {', '.join(told)}") from None


class _Desk:
    """One operator as it is played: where it is posted to, whom it trusts, how it reads."""

    def __init__(self, operator: Operator) -> None:
        assert operator.notice_url, "no configuration is loaded without it"
        assert operator.reading, "no configuration is loaded without it"
        self.name, self.auth, self._seal = operator.name, operator.auth, Seal(operator.reading)
        self.path = urlsplit(operator.notice_url).path or "/"
        self.bearer = f"Bearer {operator.token.reveal() if operator.token else ''}".encode()

    def trusts(self, authorization: bytes) -> bool:
        if self.auth is Auth.BEARER:
            return hmac.compare_digest(authorization, self.bearer)
        return self.auth is Auth.NONE or authorization.startswith(self.bearer)

    def read(self, outer: dict[str, Any]) -> Order:
        try:
            inner = _agreed(self._seal.open(outer["data"]), _INNER, "data")
        except SealError as error:
            raise _Refusal(str(error)) from None
        if differing := [name for name in ("order_no", "time") if inner[name] != outer[name]]:
            raise _Refusal(f"data: {' and '.join(differing)} not the same as outside")
        return Order(operator=self.name, uid=outer["uid"], **inner)


def _desks(operators: Sequence[Operator]) -> list[_Desk]:
    """In the order in which they are asked: one that trusts everybody comes last. Raises Refused."""
    desks: dict[tuple[str, Auth, bytes], _Desk] = {}
    for desk in map(_Desk, operators):
        other = desks.setdefault((desk.path, desk.auth, desk.bearer), desk)
        if other is not desk:
            raise Refused(f"{other.name} and {desk.name} have the same path and token: play one of them")
    return sorted(desks.values(), key=lambda desk: [Auth.BEARER, Auth.PER_EVENT, Auth.NONE].index(desk.auth))


class _Reading(NamedTuple):
    """What is known of a request after it was read: the order, or why it is none."""

    operator: str | None
    order_no: str | None
    verdict: Order | Answer


class Receiver:
    """The operators at one address. In-process, use `serve`.

    - `booked`: what is in the books, by (operator, order_no), in booking order;
    - `stats`: `requests` (all but `GET /received` and `GET /stats`), how many of them were `booked`, `duplicates` or
      `refused`, and how many were `faulted`, which may be one of those as well;
    - `faults`: may be exchanged at any time; the next request meets the new ones.
    """

    def __init__(self, operators: Sequence[Operator], faults: Faults, tell: Callable[[Seen], None]) -> None:
        self.url = ""
        self.faults = faults
        self.booked: dict[tuple[str, str], Order] = {}
        self.stats = dict.fromkeys(("requests", "booked", "duplicates", "refused", "faulted"), 0)
        self._desks = _desks(operators)
        self._paths = {desk.path for desk in self._desks}
        self._tell = tell
        self._requests: Counter[tuple[str, str] | None] = Counter()
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
        match request.method, request.path:
            case "GET", "/received":
                await connection.send(Answer(200, self._received(request.query)))
            case "GET", "/stats":
                await connection.send(Answer(200, self.stats))
            case "POST", path if path in self._paths:
                await self._take(connection, request)
            case _, path if path in self._paths or path in ("/received", "/stats"):
                allowed = "POST" if path in self._paths else "GET"
                await connection.send(self._deny(says(405, f"this path takes {allowed}", ("Allow", allowed))))
            case _:
                await connection.send(self._deny(says(404, "no operator is posted to at this path")))

    def _received(self, query: str) -> list[dict[str, object]]:
        wanted = parse_qs(query, keep_blank_values=True).get("order_no")
        return [order.row() for order in self.booked.values() if wanted is None or order.order_no in wanted]

    def _deny(self, answer: Answer) -> Answer:
        self.stats["requests"] += 1
        self._show(_Reading(None, None, answer), self._settle(answer), answer.status, _NO_FAULTS)
        return answer

    async def _take(self, connection: Connection, request: Request) -> None:
        """One notice, from its reading to its answer, or to the fault that it meets instead."""
        self.stats["requests"] += 1
        reading = self._read(request)
        faults = self._faults_for(reading)
        answer = self._settle(reading.verdict) if faults.book_first else None
        await asyncio.sleep(faults.delay / SECOND)
        if faults.way is None:
            answer = answer or self._settle(reading.verdict)
            self._show(reading, answer, answer.status, faults)
            await connection.send(answer)
        else:
            self._show(reading, answer, faults.shown_status, faults)
            await connection.misbehave(faults)

    def _read(self, request: Request) -> _Reading:
        desk = next((d for d in self._desks if d.path == request.path and d.trusts(request.authorization)), None)
        if desk is None:
            told = "the bearer token is missing or not the one of an operator here"
            return _Reading(None, None, says(401, told, ("WWW-Authenticate", "Bearer")))
        order_no = None
        try:
            outer = _agreed(request.body, _OUTER, "body")
            order_no = outer["order_no"]
            return _Reading(desk.name, order_no, desk.read(outer))
        except _Refusal as refusal:
            return _Reading(desk.name, order_no, says(400, str(refusal)))

    def _faults_for(self, reading: _Reading) -> Faults:
        order = (reading.operator, reading.order_no) if reading.operator and reading.order_no else None
        self._requests[order] += 1
        if not self.faults.hit(order, self._requests[order]):
            return _NO_FAULTS
        self.stats["faulted"] += 1
        return self.faults

    def _settle(self, verdict: Order | Answer) -> Answer:
        """Books the order, unless it is in the books already or there is none."""
        count, answer = self._book(verdict) if isinstance(verdict, Order) else ("refused", verdict)
        self.stats[count] += 1
        return answer

    def _book(self, order: Order) -> tuple[str, Answer]:
        known = self.booked.setdefault((order.operator, order.order_no), order)
        if known != order:
            return "refused", _CONFLICT
        known.times += 1
        return ("booked", _BOOKED) if known.times == 1 else ("duplicates", _AGAIN)

    def _show(self, reading: _Reading, answer: Answer | None, status: int | None, faults: Faults) -> None:
        at, booked, fault = WallClock().now(), answer is _BOOKED, str(faults) or None
        self._tell(Seen(at, reading.operator, reading.order_no, status, booked, fault))


@asynccontextmanager
async def serve(
    operators: Sequence[Operator],
    faults: Faults = _NO_FAULTS,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tell: Callable[[Seen], None] = lambda seen: None,
) -> AsyncIterator[Receiver]:
    """Plays the operators until the block ends; port 0 takes a free one, and `url` says which (`http://HOST:PORT`).

    Of an operator's notice_url only the path counts. `tell` hears of every request, before it is answered.
    Raises Refused where the address can't be had, or where two operators can't be told apart.
    """
    receiver = Receiver(operators, faults, tell)
    try:
        server = await asyncio.start_server(receiver.accept, host, port)
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition(": ")[2]
        raise Refused(f"can't listen on {host}:{port} ({reason}); stop what is there or choose another") from None
    shown = f"[{host}]" if ":" in host else host
    receiver.url = f"http://{shown}:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()
        await server.wait_closed()
