"""The bundled receiver with one fault each: what `dispatcher certify` has to find."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from typing import Any
from urllib.parse import parse_qs

from dispatcher.ground.clock import WallClock
from dispatcher.ground.events import parse_json
from dispatcher.ground.operator import Operator
from dispatcher.protocols import PROTOCOLS
from dispatcher.receiver import Entry, Faults, Receiver
from dispatcher.receiver.endpoints import Endpoint, Reading, read_request
from dispatcher.receiver.http import Answer, Connection, Request
from dispatcher.receiver.reading import Refusal

# Rounds of the event loop in which whatever was sent at the same moment has long come in.
ROUNDS = 300
_KNOWN = {
    "notice": {"order_no", "data", "time", "uid"},
    "settle": {f.name for f in PROTOCOLS["settle"].fields} | {"ts"},
}


class Reader:
    """An endpoint's reader with something done to what it reads, or instead of what it refuses."""

    def __init__(self, endpoint: Endpoint, bend: "type[Bent]") -> None:
        self._own, self._bend, self._endpoint = endpoint.reader, bend, endpoint
        self.key, self.word, self.conflict = endpoint.reader.key, endpoint.reader.word, endpoint.reader.conflict
        self.refuse = endpoint.reader.refuse

    def read(self, body: bytes) -> Entry:
        self._bend.look(self._endpoint, body)
        try:
            return self._bend.bent(self._own.read(body))
        except Refusal as refusal:
            key = json.loads(body).get(self.key)
            if key is None or not self._bend.lenient(str(refusal)):
                raise
            content = {self.key: key, **refusal.read}
            return Entry(operator=self._endpoint.operator, type=self._endpoint.type, key=key, uid="", content=content)


class Faulty(Receiver):
    """`more`: what was booked a second time."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__(operators, Faults(), lambda _seen: None, WallClock())
        self.more: list[Entry] = []

    def _received(self, query: str) -> list[dict[str, object]]:
        keys = {key for values in parse_qs(query).values() for key in values}
        return [*super()._received(query), *(entry.row() for entry in self.more if entry.key in keys)]


class Bent(Faulty):
    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__(operators)
        for endpoint in self._endpoints:
            endpoint.reader = Reader(endpoint, type(self))

    @staticmethod
    def bent(entry: Entry) -> Entry:
        return entry

    @staticmethod
    def look(_endpoint: Endpoint, _body: bytes) -> None:
        pass

    @staticmethod
    def lenient(_told: str) -> bool:
        return False


def _each(entry: Entry, change: Callable[[str, Any], Any]) -> Entry:
    return replace(entry, content={name: change(name, value) for name, value in entry.content.items()})


def _amounts(entry: Entry, change: Callable[[Decimal], Decimal]) -> Entry:
    names = PROTOCOLS[entry.type].amounts
    return _each(entry, lambda name, value: type(value)(str(change(Decimal(value)))) if name in names else value)


class FloatAmounts(Bent):
    @staticmethod
    def bent(entry: Entry) -> Entry:
        return _amounts(entry, lambda value: Decimal(repr(float(value))))


class TwoPlaces(Bent):
    @staticmethod
    def bent(entry: Entry) -> Entry:
        return _amounts(entry, lambda value: value.quantize(Decimal("0.01"), ROUND_DOWN))


class FloatNumbers(Bent):
    @staticmethod
    def bent(entry: Entry) -> Entry:
        return replace(entry, key=str(int(float(entry.key))))


class Mojibake(Bent):
    @staticmethod
    def bent(entry: Entry) -> Entry:
        def garble(_name: str, value: Any) -> Any:
            if type(value) is list:
                return [one.encode().decode("latin-1") for one in value]
            return value.encode().decode("latin-1") if type(value) is str else value

        return _each(entry, garble)


class QuestionMarks(Bent):
    @staticmethod
    def bent(entry: Entry) -> Entry:
        def lose(_name: str, value: Any) -> Any:
            if type(value) is list:
                return [one.encode("ascii", "replace").decode() for one in value]
            return value.encode("ascii", "replace").decode() if type(value) is str else value

        return _each(entry, lose)


class TsIsContent(Bent):
    @staticmethod
    def bent(entry: Entry) -> Entry:
        return replace(entry, content={**entry.content, "ts": entry.last_ts})


class RefusesUnknown(Bent):
    @staticmethod
    def look(endpoint: Endpoint, body: bytes) -> None:
        given = parse_json(body)
        if given.keys() - _KNOWN[endpoint.type]:
            raise Refusal("body: a field is not known", given)


class TakesTampered(Bent):
    @staticmethod
    def lenient(told: str) -> bool:
        return told.startswith("data is") or "can't be decrypted" in told


class TakesAnothersData(Bent):
    @staticmethod
    def lenient(told: str) -> bool:
        return "not the same as outside" in told


class TakesLess(Bent):
    @staticmethod
    def lenient(told: str) -> bool:
        return told.endswith("is missing")


class RefusesLarge(Bent):
    """Its column holds nine digits before the point."""

    @staticmethod
    def bent(entry: Entry) -> Entry:
        if any(Decimal(entry.content[name]) > 10**9 for name in PROTOCOLS[entry.type].amounts if name in entry.content):
            raise Refusal("data: out of range", {PROTOCOLS[entry.type].key: entry.key})
        return entry


class BooksTwice(Faulty):
    def _book(self, endpoint: Endpoint, entry: Entry) -> Any:
        said = super()._book(endpoint, entry)
        if said.became == "duplicates":
            self.more.append(entry)
        return said


class LooksFirst(Faulty):
    """Looks first and books later, and something comes in between."""

    async def _take(self, connection: Connection, request: Request) -> None:
        reading = read_request(self._endpoints, request)
        known = reading.named in self.booked
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        said = self._enter(reading)
        lost = said.became == "duplicates" and not known
        await connection.send(self._lost(reading, said.answer) if lost else said.answer)

    def _lost(self, reading: Reading, answer: Answer) -> Answer:
        """What the second of two at once gets, which did not see the first."""
        raise NotImplementedError


class NotSafeForTwo(LooksFirst):
    """Both are booked."""

    def _lost(self, reading: Reading, answer: Answer) -> Answer:
        assert isinstance(reading.verdict, Entry)
        self.more.append(reading.verdict)
        return answer


class LoserGets500(LooksFirst):
    """The second runs into the unique index, and nobody catches that."""

    def _lost(self, reading: Reading, answer: Answer) -> Answer:
        return Answer(500, {})


class DuplicatesGet500(Faulty):
    def _book(self, endpoint: Endpoint, entry: Entry) -> Any:
        said = super()._book(endpoint, entry)
        return said._replace(answer=Answer(500, {})) if said.became == "duplicates" else said


class TakesOtherContent(Faulty):
    def _book(self, endpoint: Endpoint, entry: Entry) -> Any:
        said = super()._book(endpoint, entry)
        return said._replace(answer=endpoint.known) if said.answer == endpoint.reader.conflict else said


class ForgetsSoon(Faulty):
    """A cache of the latest numbers instead of an index."""

    def _book(self, endpoint: Endpoint, entry: Entry) -> Any:
        said = super()._book(endpoint, entry)
        latest = [key for _, _, key in self.booked][-3:]
        return said._replace(answer=endpoint.reader.conflict) if entry.key not in latest else said


class AnswersFirst(Faulty):
    """A yes goes out before the token is looked at; nothing is booked then."""

    def _enter(self, reading: Reading) -> Any:
        said = super()._enter(reading)
        return said._replace(answer=self._endpoints[0].booked) if said.answer.status == 401 else said


class IgnoresToken(Faulty):
    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__(operators)
        for endpoint in self._endpoints:
            endpoint.trust.knows = lambda request: True  # type: ignore[method-assign]  # the fault


class IgnoresSignature(Faulty):
    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__(operators)
        for endpoint in self._endpoints:
            endpoint.trust.objection = lambda request: None  # type: ignore[method-assign]  # the fault


class BooksWhatItRefuses(Faulty):
    def _enter(self, reading: Reading) -> Any:
        said = super()._enter(reading)
        if said.became == "refused" and reading.named is not None and said.answer.status != 401:
            operator, kind, key = reading.named
            entry = Entry(operator=operator, type=kind, key=key, uid="", content={})
            self.booked.setdefault(reading.named, entry)
        return said


class _FirstPacket:
    """What a server reads that takes one packet for the whole request."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def read(self, most: int) -> bytes:
        data = await self._reader.read(most)
        return data if not data or b"\r\n\r\n" in data else b"?\r\n\r\n"


class ReadsOnePacket(Faulty):
    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().accept(_FirstPacket(reader), writer)  # type: ignore[arg-type]  # it has what is used of it


class Hangs(Faulty):
    """Says nothing at all to what it refuses."""

    async def _take(self, connection: Connection, request: Request) -> None:
        reading = read_request(self._endpoints, request)
        said = self._enter(reading)
        if said.became == "refused":
            await connection.misbehave(Faults(reset=True))
        else:
            await connection.send(said.answer)


@asynccontextmanager
async def faulty(kind: type[Faulty], operators: Sequence[Operator]) -> AsyncIterator[Faulty]:
    """It plays the operators until the block ends; `url` says where."""
    receiver = kind(operators)
    server = await asyncio.start_server(receiver.accept, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()
        await server.wait_closed()
