"""Events as they come in: JSON text read without a float, and what each is once it is accepted.

Source: wire-contract.md, `notice`; interface.md, Events. Pure: no clock, no I/O.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec import DecodeError
from msgspec.json import Decoder

from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import shown
from dispatcher.ground.money import shortest

MAX_EVENT_BYTES = 64 * 1024


class Event(NamedTuple):
    """One accepted event, frozen: what every attempt will be made from.

    `body` is compact JSON with amounts as decimal text; `digest` is the same for the same content,
    however its numbers were written. `bearer` is the player's token, where the operator wants that one, locked by the
    vault; `sequence` is what it shares with events that must go out before or after it, where there is an order.
    """

    operator: str
    type: str
    key: str
    uid: str
    body: str
    digest: bytes
    bearer: str | None = None
    sequence: str | None = None

    def __repr__(self) -> str:
        """Whose it is; never the player's token, nor what was won."""
        return f"Event({self.operator} {self.type} {self.key})"


def whose_token(one: Any) -> str:
    """What the vault ties a token to: a delivery (anything with its operator, type and key), so that it stays there."""
    return f"token of {one.operator} {one.type} {one.key}"


# Levels within levels; what Python itself refuses depends on its version, and was ten thousand in one.
DEEPEST = 500
_TOO_DEEP = ("is nested too deeply", "write one flat JSON object")
# A fifth of the time of `json`, which has to be asked key by key whether one stands twice.
_QUICK = Decoder(float_hook=Decimal)


def parse_json(raw: bytes | str) -> dict[str, Any]:
    """One JSON object; numbers become int or Decimal, never float. Raises Unfit.

    Refused: anything but an object, a key that stands twice, NaN, Infinity, text that is not UTF-8.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise Unfit(f"is longer than {MAX_EVENT_BYTES} bytes", "write one event a line")
    # What can't be read so, the slower reader refuses with its reason, or reads.
    with suppress(ValueError, ArithmeticError, RecursionError, DecodeError):
        read = _QUICK.decode(raw)
        # Each pair has a colon of its own: with as many pairs as colons, none was nested and no key stood twice.
        colons = raw.count(":") if isinstance(raw, str) else raw.count(b":")
        if type(read) is dict and len(read) == colons:
            return read
    return _parse_thoroughly(raw)


def _parse_thoroughly(raw: bytes | str) -> dict[str, Any]:
    try:
        # Decoded here: json.loads would guess at UTF-16 and UTF-32 as well.
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig")
        value = json.loads(text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except Unfit:
        raise
    except RecursionError:
        raise Unfit(*_TOO_DEEP) from None
    except (ValueError, ArithmeticError) as error:
        reason = getattr(error, "msg", None) or "a number or a byte in it can't be read"
        raise Unfit(f"is not JSON ({reason})", "write one JSON object a line, in UTF-8") from None
    if _is_deeper(value, DEEPEST):
        raise Unfit(*_TOO_DEEP)
    if not isinstance(value, dict):
        raise Unfit("is not a JSON object", 'write one object a line, like {"operator": …, "type": …}')
    return value


def _is_deeper(value: Any, than: int) -> bool:
    level = [value]
    for _ in range(than):
        if not level:
            return False
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def _no_constant(name: str) -> None:
    raise Unfit(f"has {name} for a number", "write a decimal number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Unfit(f"has {shown(twice)!r} twice", "keep one of them")
    return read


def content_digest(values: Sequence[object]) -> bytes:
    """16 bytes that are equal for equal content: 1.5, 1.50 and "1.5" are the same amount."""
    canonical = [
        value if type(value) is str else shortest(value) if type(value) is Decimal else repr(value) for value in values
    ]
    return hashlib.blake2b("\x1f".join(canonical).encode(), digest_size=16).digest()
