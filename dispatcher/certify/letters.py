"""Requests as production makes them, and the same with one thing wrong."""

import base64
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from dispatcher.certify.check import Flaw
from dispatcher.dispatch.attempt import Attempts
from dispatcher.dispatch.lane import Lane
from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.egress import Network
from dispatcher.ground.operator import Auth, Operator, Signing
from dispatcher.ground.policy import Claim, Outcome
from dispatcher.ground.secret import Secret
from dispatcher.seal import Seal
from dispatcher.tls import tls_context
from dispatcher.wire import Grant, PinnedTransport, Resolver, SlowTransport, Wire

# How long a slow request takes on its way: it must leave the operator time to answer.
SLOW = 2 * SECOND
_PLAYER = {"notice": "uid", "settle": "userId"}
_WIN = re.compile(rb'"total_win":[0-9.]+,')

_Body = Callable[[Operator, Claim, Callable[[bytes], str], int], bytes]


def _same(raw: bytes) -> bytes:
    return raw


def _sealed(text: str) -> str:
    return text


class _Bend(NamedTuple):
    """What is done to a body: to what is sealed, to what came of that, to the whole."""

    inside: Callable[[bytes], bytes] = _same
    data: Callable[[str], str] = _sealed
    outside: Callable[[bytes], bytes] = _same

    def bent(self, body: _Body) -> _Body:
        def write(operator: Operator, claim: Claim, seal: Callable[[bytes], str], now: int) -> bytes:
            return self.outside(body(operator, claim, lambda plain: self.data(seal(self.inside(plain))), now))

        return write


def _altered(data: str) -> str:
    """Another first byte: of the first block, or of the IV. Both letters stand in every alphabet there is."""
    return ("b" if data[0] == "a" else "a") + data[1:]


def _halved(data: str) -> str:
    return data[: len(data) // 8 * 4]


def _with_unknown(raw: bytes) -> bytes:
    return raw[:-1] + b',"dispatcher_test":"a field of a later version"}'


def _without(name: str) -> Callable[[bytes], bytes]:
    """For a body without amounts that are numbers: those would be floats on this way."""

    def cut(raw: bytes) -> bytes:
        fields = {key: value for key, value in json.loads(raw).items() if key != name}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    return cut


def _bend(flaw: Flaw, kind: str) -> _Bend:
    match flaw:
        case Flaw.TAMPERED:
            return _Bend(data=_altered)
        case Flaw.CUT:
            return _Bend(data=_halved)
        case Flaw.NO_AMOUNT if kind == "notice":
            return _Bend(inside=lambda plain: _WIN.sub(b"", plain, count=1))
        case Flaw.NO_AMOUNT:
            return _Bend(outside=_without("winAmount"))
        case Flaw.NO_PLAYER:
            return _Bend(outside=_without(_PLAYER[kind]))
        case Flaw.UNKNOWN:
            return _Bend(inside=_with_unknown, outside=_with_unknown)
    return _Bend()


def _with_data_of(other: Claim, body: _Body) -> _Body:
    def write(operator: Operator, claim: Claim, seal: Callable[[bytes], str], now: int) -> bytes:
        read: list[bytes] = []

        def keep(plain: bytes) -> str:
            read.append(plain)
            return ""

        body(operator, other, keep, now)
        return body(operator, claim, lambda _own: seal(read[0]), now)

    return write


class _Stopped:
    """A clock that stands: what a check sends twice is the same to the last byte."""

    def __init__(self, at: int) -> None:
        self._at = at

    def now(self) -> int:
        return self._at


class Sender:
    """Posts one operator's test orders over connections of its own; close it."""

    def __init__(self, operator: Operator, kind: str, allow: tuple[Network, ...], slow: int = SLOW) -> None:
        self._operator, self._kind = operator, kind
        way = (Resolver(), allow, operator.connect_timeout, tls_context(operator.tls) if operator.tls else None)
        self._transport = PinnedTransport(*way)
        self._slow = SlowTransport(*way, lasts=min(slow, operator.total_timeout // 3))
        self._grant = Grant(self._transport, operator.oauth) if operator.oauth else None
        self._seal = Seal(operator.reading) if operator.reading else None

    async def send(self, claim: Claim, flaw: Flaw, now: int, other: Claim) -> Outcome:
        """One attempt at `now` (µs); `other` is the order whose data is put into this one's place."""
        clock = _Stopped(now + SECOND + MILLISECOND if flaw is Flaw.LATER else now)
        attempts = Attempts(Wire(clock), clock, lambda locked, _about: locked.encode())
        return await attempts.make(self._lane(flaw, other), claim)

    async def aclose(self) -> None:
        await self._transport.aclose()
        await self._slow.aclose()

    def _lane(self, flaw: Flaw, other: Claim) -> Lane:
        transport = self._slow if flaw is Flaw.SLOW else self._transport
        lane = Lane(self._misled(flaw), self._seal, transport, self._grant)
        form = lane.form(self._kind)
        body = _with_data_of(other, form.body) if flaw is Flaw.ANOTHERS else _bend(flaw, self._kind).bent(form.body)
        lane.forms[self._kind] = replace(form, body=body)
        return lane

    def _misled(self, flaw: Flaw) -> Operator:
        """The operator with a proof that is not the one agreed on."""
        operator, terms = self._operator, self._operator.terms[self._kind]
        if flaw is Flaw.WRONG_SIGNATURE:
            key = Secret("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
            return replace(operator, signing=Signing((key,)))
        if flaw is Flaw.WRONG_TOKEN:
            terms = replace(terms, auth=Auth.BEARER)
            operator = replace(operator, token=Secret(f"wrong-{secrets.token_urlsafe(24)}"))
        elif flaw is Flaw.NO_TOKEN:
            terms = replace(terms, auth=Auth.NONE)
        return replace(operator, terms={**operator.terms, self._kind: terms})
