"""The test orders: whole events, accepted and frozen as any other, with numbers that nobody takes for real ones."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from dispatcher.accept import read_event
from dispatcher.ground.clock import SECOND, gmt8, to_datetime
from dispatcher.ground.errors import EventError, Fault
from dispatcher.ground.fields import schema_of
from dispatcher.ground.operator import Auth, Operator
from dispatcher.ground.policy import Claim
from dispatcher.ground.secret import Secret
from dispatcher.protocols import PROTOCOLS

# Real order numbers begin with the time; as a signed 64-bit number this still fits into a database's column.
PREFIX = "7777"
PLAYER = "dispatcher-test"
# Two runs are a second apart at least, and have so many numbers of their own.
_NUMBERS_A_SECOND = 100_000
# An operator may keep the numbers of both in one place.
_OF_TYPE = {"notice": 0, "settle": 50_000}
# Numbers of 19 digits that are so far apart stay apart in a float, which keeps about 16.
SPACING = 2_048
FLOAT_STEP = 1_024

_NUMBER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_FOREIGN = "Spin投入·測試 Größe 🎰"
_LOST = _FOREIGN.encode("ascii", "replace").decode()


class Content(StrEnum):
    """What an order says: the usual, or what two checks of the same number differ in."""

    USUAL = "usual"
    OTHER = "other"
    LARGE = "large"
    LARGE_NEXT = "large_next"
    FINE = "fine"
    FINE_NEXT = "fine_next"
    FOREIGN = "foreign"
    FOREIGN_LOST = "foreign_lost"


# 16 digits: the fewest with a neighbour that is the same float, and still within DECIMAL(18, 4).
_LARGE, _LARGE_NEXT = "99999999999999.99", "99999999999999.98"
_SAID: Mapping[str, Mapping[Content, Mapping[str, object]]] = {
    "notice": {
        Content.USUAL: {},
        Content.OTHER: {"total_win": "7.5"},
        Content.LARGE: {"total_win": _LARGE},
        Content.LARGE_NEXT: {"total_win": _LARGE_NEXT},
        Content.FINE: {"total_bet": "1.2345", "total_win": "2.3456"},
        Content.FINE_NEXT: {"total_bet": "1.2345", "total_win": "2.3457"},
        Content.FOREIGN: {"business": _FOREIGN},
        Content.FOREIGN_LOST: {"business": _LOST},
    },
    "settle": {
        Content.USUAL: {},
        Content.OTHER: {"winAmount": "7.5"},
        Content.LARGE: {"winAmount": _LARGE},
        Content.LARGE_NEXT: {"winAmount": _LARGE_NEXT},
        Content.FINE: {"betAmount": "1.2345", "winAmount": "2.3456"},
        Content.FINE_NEXT: {"betAmount": "1.2345", "winAmount": "2.3457"},
        Content.FOREIGN: {"result": [_FOREIGN]},
        Content.FOREIGN_LOST: {"result": [_LOST]},
    },
}
# What of a booking is held against what was sent, beside the amounts.
TEXTS = {"notice": ("business",), "settle": ("result",)}


class Orders:
    """One run's test orders of one message type, begun at `started` (µs). `more` replaces fields of every event.

    `token` is the player's, where the operator wants that one. Raises EventError for fields that are not fit.
    """

    def __init__(
        self, operator: Operator, kind: str, started: int, more: Mapping[str, str], token: Secret | None
    ) -> None:
        self.kind, self._operator, self._started, self._token = kind, operator, started, token
        first = int(f"{PREFIX}{started // SECOND:010}") * _NUMBERS_A_SECOND
        first += _OF_TYPE[kind]
        # On the grid of what a float can say, and beside it: such a one is rounded, and its neighbour to the same.
        self._first = first + -first % FLOAT_STEP + 3
        self._places: dict[str, int] = {}
        self._more = _read(kind, more)
        self.player = str(self._event("0", Content.USUAL)[_NAMES[kind]["player"]])
        self.claim("right", Content.USUAL)

    def key(self, name: str) -> str:
        """The number of this order; `NAME+1` is the next number after that of `NAME`."""
        base, plus, _ = name.partition("+")
        place = self._places.setdefault(base, len(self._places))
        return str(self._first + place * SPACING + (1 if plus else 0))

    def claim(self, name: str, content: Content) -> Claim:
        """The order as a worker would hold it for its first attempt."""
        raw = self._event(self.key(name), content)
        if self._operator.terms[self.kind].auth is Auth.PER_EVENT and self._token is not None:
            raw["token"] = self._token.reveal()
        event = read_event(raw, {self._operator.name: self._operator}, lambda text, _about: text.decode())
        held = (event.operator, event.type, event.key, event.uid, event.body, event.bearer)
        return Claim(0, *held, 1, 0, None, self._started, 0, ambiguous=False)

    def sent(self, name: str, content: Content) -> Mapping[str, Any]:
        """The fields of this order as they are frozen: amounts are text."""
        fields: dict[str, Any] = json.loads(self.claim(name, content).body)
        return fields

    def _event(self, key: str, content: Content) -> dict[str, Any]:
        at = to_datetime(self._started)
        usual: dict[str, Any] = {"operator": self._operator.name, "type": self.kind}
        if self.kind == "notice":
            usual |= {"order_no": key, "uid": PLAYER, "total_bet": "1", "total_win": "2.5"}
            usual |= {"business": "dispatcher certify", "game_id": 1, "time": self._started // SECOND}
        else:
            usual |= {"gameType": "SLOT", "gameCode": "certify", "userId": PLAYER, "txId": key, "roundId": key}
            usual |= {"status": "settled", "betTime": gmt8(at), "roundStartTime": gmt8(at), "result": ["test"]}
            usual |= dict.fromkeys(("betAmount", "validBetAmount"), "1.0") | {"winAmount": "2.5", "odds": "2.5"}
        return {**usual, **self._more, **_SAID[self.kind][content]}


_NAMES = {"notice": {"player": "uid"}, "settle": {"player": "userId"}}


def _read(kind: str, more: Mapping[str, str]) -> dict[str, Any]:
    """Fields as they were written: text, or a number where the field is one. Raises EventError."""
    protocol = PROTOCOLS[kind]
    free = [one.name for one in protocol.fields if one.name not in {protocol.key, "net_win", *protocol.amounts}]
    if faults := [
        Fault(f"--field {name}", "is not to be set", f"known here: {', '.join(free)}")
        for name in more
        if name not in free
    ]:
        raise EventError(faults)
    whole = {one.name for one in protocol.fields if schema_of(one.read).get("type") == "integer"}
    return {name: int(text) if name in whole and _NUMBER.fullmatch(text) else text for name, text in more.items()}
