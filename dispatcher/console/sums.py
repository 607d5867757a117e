"""Totals of whatever a filter finds, exact and a step at a time: ten million rows are no single question.

What was added so far travels with the page, sealed for the session and the filter: nobody can hand on false totals.
"""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from dispatcher.console.sieve import Sieve
from dispatcher.console.view import View
from dispatcher.ground.money import decimal_text
from dispatcher.protocols import PROTOCOLS
from dispatcher.rows import figures
from dispatcher.store.counts.through import Place

# One step: so many rows at most, and no longer than this once a block is done.
MOST_LOOKED = 20_000
BLOCK = 2_000
SECONDS = 0.2
# An amount has 24 digits, so that of ten to the 36th of them the sum would still be exact.
_DIGITS = 60
_NOTHING = Decimal(0)


@dataclass
class Sum:
    """Of one message type: how many, what went in, what went out, and the net as the events tell it, or out - in."""

    count: int = 0
    bet: Decimal = _NOTHING
    win: Decimal = _NOTHING
    net: Decimal = _NOTHING

    def add(self, told: Mapping[str, str]) -> None:
        bet, win = Decimal(told.get("bet", "0")), Decimal(told.get("win", "0"))
        self.count += 1
        self.bet += bet
        self.win += win
        self.net += Decimal(told["net"]) if "net" in told else win - bet

    def join(self, other: "Sum") -> None:
        with localcontext(prec=_DIGITS):
            self.count += other.count
            self.bet += other.bet
            self.win += other.win
            self.net += other.net

    @property
    def ratio(self) -> str | None:
        """Out to in, in percent; None where nothing went in."""
        if not self.bet:
            return None
        with localcontext(prec=_DIGITS):
            return decimal_text((self.win / self.bet * 100).quantize(Decimal("0.01"), ROUND_HALF_EVEN))


@dataclass
class Totals:
    """`at`: when the adding began (µs); `looked`: rows so far; `place`: where to go on, None when all is added."""

    at: int
    looked: int = 0
    place: Place | None = None
    done: bool = False
    sums: dict[str, Sum] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(one.count for one in self.sums.values())

    def sealed(self, key: str, about: str) -> str:
        """As a text that only this key's holder can have made, of this filter."""
        sums = {kind: [one.count, str(one.bet), str(one.win), str(one.net)] for kind, one in self.sums.items()}
        text = json.dumps([self.at, self.looked, self.place, sums], separators=(",", ":")).encode()
        return f"{base64.urlsafe_b64encode(text).decode()}.{_mac(key, about, text)}"


def opened(sealed: str, key: str, about: str) -> Totals | None:
    """What `sealed` gave for this key and this filter; None for anything else."""
    text, _, mac = sealed.partition(".")
    try:
        raw = base64.urlsafe_b64decode(text.encode())
    except ValueError:
        return None
    if not hmac.compare_digest(mac.encode(), _mac(key, about, raw).encode()):
        return None
    at, looked, place, sums = json.loads(raw)
    read = {kind: Sum(count, *map(Decimal, amounts)) for kind, (count, *amounts) in sums.items()}
    return Totals(at, looked, Place(*place), False, read)


def _mac(key: str, about: str, text: bytes) -> str:
    return hmac.new(key.encode(), b"totals\0" + about.encode() + b"\0" + text, "sha256").hexdigest()


def go_on(view: View, sieve: Sieve, totals: Totals) -> Totals:
    """One step more."""
    ends, looked = time.monotonic() + SECONDS, 0
    with localcontext(prec=_DIGITS):
        while not totals.done and looked < MOST_LOOKED and time.monotonic() < ends:
            found, some, totals.place = view.step(sieve.where, totals.place, BLOCK)
            for kind, body in found:
                told = figures(kind, body)
                if sieve.fits_told(told):
                    totals.sums.setdefault(kind, Sum()).add(told)
            looked += some
            totals.done = totals.place is None
    totals.looked += looked
    return totals


def as_rows(totals: Totals) -> list[dict[str, object]]:
    """A line for each type, in the types' order."""
    order = [*PROTOCOLS, *sorted(totals.sums.keys() - PROTOCOLS.keys())]
    return [
        {
            "type": kind,
            "count": one.count,
            **{name: decimal_text(getattr(one, name)) for name in ("bet", "win", "net")},
            "ratio": one.ratio,
        }
        for kind in order
        if (one := totals.sums.get(kind)) is not None
    ]
