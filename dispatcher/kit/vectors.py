"""Test vectors: what this operator will be sent, made by the code that sends it, under throw-away keys.

`cipher` has plaintexts and what they become; `requests` whole requests in an order that matters, each with the status
that a right receiver answers and how many bookings it makes. All in the past: `now` is the clock they go by.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from dispatcher.accept import read_event
from dispatcher.ground.clock import SECOND
from dispatcher.ground.crypto import BLOCK, Output
from dispatcher.ground.operator import Auth
from dispatcher.ground.policy import Claim
from dispatcher.ground.secret import Secret
from dispatcher.kit.facts import Facts, Message
from dispatcher.kit.stand_in import PLAYERS_TOKEN, StandIn
from dispatcher.protocols import PROTOCOLS
from dispatcher.protocols.credentials import attempt_headers, message_headers, minted_token
from dispatcher.seal import Seal

# 2026-01-01T00:00:00Z, in µs.
NOW = 1_767_225_600 * SECOND
UID = "player-1"
_STALE = 10 * 60 * SECOND

_NOTICE = {
    "order_no": "1767225600123457049",
    "uid": UID,
    "total_bet": "10",
    "total_win": "12.5",
    "business": "Spin投入",
    "game_id": 49,
    "time": 1767225599,
}
_SETTLE = {
    "gameType": "SLOT",
    "gameCode": "fortune-mouse",
    "userId": UID,
    "txId": "1767225600123457049",
    "roundId": "9007199254740993001",
    "status": "settled",
    "betTime": "2026-01-01T07:59:58.000+0800",
    "roundStartTime": "2026-01-01T07:59:57.000+0800",
    "betAmount": "10",
    "validBetAmount": "10",
    "winAmount": "12.5",
    "odds": "1.25",
    "result": ["A", "K", "Q"],
}
_ROWS: Mapping[str, list[tuple[str, dict[str, Any]]]] = {
    "notice": [
        ("an order number of 19 digits, which no double can hold", {}),
        ("four decimals", {"order_no": "9223372036854775807", "total_bet": "0.0001", "total_win": "123456789.1234"}),
        (
            "a loss, and text that is not ASCII",
            {"order_no": "1767225600123457051", "total_win": "0", "business": "é🎰"},
        ),
    ],
    "settle": [
        ("amounts are text", {}),
        ("four decimals, and negative odds", {"txId": "tx-2", "winAmount": "123456789.1234", "odds": "-0.9501"}),
        ("text that is not ASCII, a fee", {"txId": "tx-3", "result": ["é投入🎰", ""], "fee": "0.5"}),
    ],
}


class Made(NamedTuple):
    """One request as it is sent: headers by name in small letters."""

    headers: dict[str, str]
    body: str


class Sender:
    """Makes requests as the dispatcher does, with the stand-in's secrets."""

    def __init__(self, given: StandIn) -> None:
        self.operator = given.operator
        self.seal = Seal(given.operator.reading) if given.operator.reading else None

    def sealed(self, plaintext: bytes) -> str:
        assert self.seal is not None, "asked only where something is encrypted"
        return self.seal.seal(plaintext)

    def opened(self, sealed: str) -> bytes:
        assert self.seal is not None, "asked only where something is encrypted"
        return self.seal.open(sealed)

    def claim(self, kind: str, event: Mapping[str, Any]) -> Claim:
        """The event, accepted and claimed."""
        auth = self.operator.terms[kind].auth
        token = {"token": PLAYERS_TOKEN} if auth is Auth.PER_EVENT else {}
        raw = {"operator": self.operator.name, "type": kind, **event, **token}
        whole = read_event(raw, {self.operator.name: self.operator}, lambda token, about: "")
        return Claim(1, whole.operator, kind, whole.key, whole.uid, whole.body, None, 1, 0, None, NOW, 1, False)

    def make(self, kind: str, event: Mapping[str, Any], *, now: int = NOW) -> Made:
        claim = self.claim(kind, event)
        body = PROTOCOLS[kind].body(self.operator, claim, self.sealed, now)
        return Made(self.headers(kind, claim, body, now), body.decode())

    def remake(self, kind: str, event: Mapping[str, Any], change: Callable[[str], str], *, now: int = NOW) -> Made:
        """With another body, signed as if it were ours."""
        body = change(self.make(kind, event, now=now).body)
        return Made(self.headers(kind, self.claim(kind, event), body.encode(), now), body)

    def headers(self, kind: str, claim: Claim, body: bytes, now: int) -> dict[str, str]:
        more = [(name, value.reveal()) for name, value in self.operator.headers.items()]
        more += attempt_headers(self.operator, claim, body, now)
        bearer = self._bearer(self.operator.terms[kind].auth, claim.uid, now)
        return {name.lower(): value for name, value in message_headers(bearer, more)}

    def _bearer(self, auth: Auth, uid: str, now: int) -> Secret | None:
        match auth:
            case Auth.NONE:
                return None
            case Auth.PER_EVENT:
                return Secret(PLAYERS_TOKEN)
            case Auth.MINTED if self.operator.mint is not None:
                return minted_token(self.operator.mint, uid, now, self.sealed)
            case Auth.OAUTH2 if self.operator.oauth is not None:
                return self.operator.oauth.client_secret
        return self.operator.token


def vectors(given: StandIn, facts: Facts) -> dict[str, Any]:
    """The file vectors.json."""
    sender = Sender(given)
    return {
        "operator": given.operator.name,
        "note": "Throw-away keys. Requests are played in this order. 测试密钥，按此顺序执行。",
        "settings": {one.name: one.value for one in facts.settings},
        "now": NOW // SECOND,
        "cipher": _cipher(sender) if facts.crypto else [],
        "requests": [row for message in facts.types for row in _Script(sender, message, facts).rows()],
    }


class Example(NamedTuple):
    """One request as it is sent, its body in a file of its own; `plaintext` is what is encrypted in it."""

    made: Made
    plaintext: str | None


def example(given: StandIn, kind: str) -> Example:
    """The first row of that message type."""
    sender = Sender(given)
    made = sender.make(kind, _event(kind))
    if not PROTOCOLS[kind].encrypts:
        return Example(made, None)
    return Example(made, sender.opened(json.loads(made.body)["data"]).decode())


def _event(kind: str, **changes: Any) -> dict[str, Any]:
    return {**(_NOTICE if kind == "notice" else _SETTLE), **changes}


def _cipher(sender: Sender) -> list[dict[str, str]]:
    """Rows for the cipher alone: every length around a block."""
    reading = sender.operator.reading
    assert reading is not None, "asked only where something is encrypted"
    rows = []
    for text in (
        "a",
        "fifteen bytes..",
        "sixteen bytes...",
        "seventeen bytes..",
        "é投入🎰",
        "exactly two blocks: 32 bytes ...."[:32],
    ):
        raw = text.encode()
        ciphertext = sender.sealed(raw)
        iv = decoded(ciphertext, reading.output)[:BLOCK] if reading.iv is None else bytes(reading.iv)
        row = {"name": f"cipher: {len(raw)} bytes", "plaintext": text, "plaintext_hex": raw.hex()}
        row |= {"key_hex": bytes(reading.key).hex(), "iv_hex": iv.hex()}
        rows.append({**row, "ciphertext": ciphertext})
    return rows


class _Script:
    """The requests of one message type; a row is (name, request, status, bookings)."""

    def __init__(self, sender: Sender, message: Message, facts: Facts) -> None:
        self.sender, self.message, self.facts = sender, message, facts
        self.kind = message.kind
        self.key = "order_no" if self.kind == "notice" else "txId"

    def rows(self) -> list[dict[str, Any]]:
        accepted = [self._row(*one) for one in self._accepted()]
        return accepted + [self._row(*one) for one in (*self._strangers(), *self._broken())]

    def _row(self, name: str, made: Made, status: int, books: int = 0) -> dict[str, Any]:
        row = {"name": f"{self.kind}: {name}", "path": self.message.path, "headers": made.headers, "body": made.body}
        answer = {"answer": self.message.answer} if status == self.message.status else {}
        return {**row, "status": status, "books": books, **answer}

    def _accepted(self) -> Iterator[tuple[str, Made, int, int]]:
        yes, make = self.message.status, self.sender.make
        for name, changes in _ROWS[self.kind]:
            yield name, make(self.kind, _event(self.kind, **changes)), yes, 1
        if self.kind == "notice":
            aligned = self._aligned()
            yield "a payload of whole blocks", make("notice", aligned), yes, 1
        again = _event(self.kind)
        yield "the same again: success, booked once", make(self.kind, again, now=NOW + SECOND), yes, 0
        shuffled = self.sender.remake(self.kind, again, self._shuffled)
        yield "the same, its fields in another order and new ones among them", shuffled, yes, 0
        other = _event(self.kind, **{"total_win" if self.kind == "notice" else "winAmount": "13"})
        yield "other content under the same key", make(self.kind, other), self.facts.refused["conflict"], 0

    def _strangers(self) -> Iterator[tuple[str, Made, int]]:
        """From callers who don't prove themselves."""
        no, event = self.facts.refused["stranger"], _event(self.kind, **{self.key: "never-booked"})
        made = self.sender.make(self.kind, event)
        if self.message.auth != "none":
            yield "no token", made._replace(headers=_without(made.headers, "authorization")), no
            wrong = made.headers | {"authorization": "Bearer kit-wrong-token"}
            yield "a wrong token", made._replace(headers=wrong), no
        if self.message.auth in ("minted", "per_event"):
            player = "uid" if self.kind == "notice" else "userId"
            other = self.sender.make(self.kind, {**event, player: "player-2"})
            yield "the token of another player", other._replace(headers=made.headers), no
        if self.message.auth == "minted" or self.facts.signed:
            yield "ten minutes old", self.sender.make(self.kind, event, now=NOW - _STALE), no
        if self.facts.signed:
            tampered = made.body.replace("never-booked", "never-signed")
            yield "a body that was changed after it was signed", made._replace(body=tampered), no
        for header in self.facts.headers:
            name = header.header.lower()
            yield f"{header.header} wrong", made._replace(headers=made.headers | {name: "wrong"}), no

    def _broken(self) -> Iterator[tuple[str, Made, int]]:
        """Proved, and nothing to book."""
        no, event = self.facts.refused["bad"], _event(self.kind, **{self.key: "never-booked"})

        def changed(change: Callable[[str], str]) -> Made:
            return self.sender.remake(self.kind, event, change)

        yield "no JSON", changed(lambda body: body[:-1]), no
        yield "a field is missing", changed(lambda body: body.replace(f'"{self.key}"', '"another"')), no
        if self.kind == "notice":
            yield "a ciphertext that was changed", changed(self._tampered), no
            yield "a ciphertext that was cut", changed(self._cut), no
            yield "order_no outside is not the one inside", changed(lambda body: body.replace("never", "other")), no
        else:
            yield "an amount with an exponent", changed(lambda body: body.replace('"12.5"', '"1e3"')), no

    def _aligned(self) -> dict[str, Any]:
        """A notice whose JSON fills whole blocks: PKCS#7 adds one more, zero padding nothing."""
        for length in range(BLOCK):
            event = _event("notice", order_no="1767225600123457052", business="x" * length)
            data = json.loads(self.sender.make("notice", event).body)["data"]
            if len(self.sender.opened(data)) % BLOCK == 0:
                return event
        raise AssertionError("one of sixteen lengths in a row is a multiple of sixteen")

    def _shuffled(self, body: str) -> str:
        fields = json.loads(body, parse_float=_Number, parse_int=_Number)
        if self.kind == "notice":
            inner = json.loads(self.sender.opened(fields["data"]), parse_float=_Number, parse_int=_Number)
            fields["data"] = self.sender.sealed(_reversed(inner).encode())
        return _reversed(fields)

    def _tampered(self, body: str) -> str:
        """A bit of the first block is not what it was, which makes garbage of the whole block."""
        data = json.loads(body)["data"]
        reading = self.sender.operator.reading
        assert reading is not None, "a notice is encrypted"
        raw = bytearray(decoded(data, reading.output))
        # Behind the IV where one stands in front; that alone would change but a bit of the text.
        raw[(BLOCK if reading.iv is None else 0) + 3] ^= 0x40
        return body.replace(data, encoded(bytes(raw), reading.output))

    def _cut(self, body: str) -> str:
        data = json.loads(body)["data"]
        reading = self.sender.operator.reading
        assert reading is not None, "a notice is encrypted"
        return body.replace(data, encoded(decoded(data, reading.output)[:-1], reading.output))


class _Number(str):
    """A number of JSON as it was written."""

    __slots__ = ()


def _reversed(fields: Mapping[str, Any]) -> str:
    """Last field first, behind some that nobody knows: text, a table, a list and a number."""
    strange = '"new":"x","newer":{"a":[1,null,{"b":true}]},"newest":[1.5,"\\u00e9\\"\\\\"],"n":-1.5e-3'
    told = {name: value if isinstance(value, _Number) else json.dumps(value) for name, value in fields.items()}
    return "{" + strange + "".join(f", {json.dumps(name)} : {told[name]}" for name in reversed(told)) + "}"


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {one: value for one, value in headers.items() if one != name}


def decoded(text: str, output: Output) -> bytes:
    match output:
        case Output.BASE64:
            return base64.b64decode(text)
        case Output.BASE64URL:
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        case Output.HEX:
            return bytes.fromhex(text)


def encoded(raw: bytes, output: Output) -> str:
    match output:
        case Output.BASE64:
            return base64.b64encode(raw).decode()
        case Output.BASE64URL:
            return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        case Output.HEX:
            return raw.hex()
