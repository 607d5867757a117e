"""Events as they come in: JSON text read without a float, fields read by rules, every fault at once.

Source: wire-contract.md, `notice`; interface.md, Events. Pure: no clock, no I/O.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias, TypeVar

from msgspec import DecodeError
from msgspec.json import Decoder

from dispatcher.clock import gmt8
from dispatcher.errors import Fault, Unfit

MAX_EVENT_BYTES = 64 * 1024
MAX_PLACES = 4
MAX_LIST = 1_000
MAX_WHOLE_DIGITS = 20

_PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_USUAL_AMOUNT = re.compile(rf"-?[0-9]{{1,{MAX_WHOLE_DIGITS}}}(\.[0-9]{{1,{MAX_PLACES}}})?", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)
# What of ISO 8601 is read; Python's reader takes any character at all for the T, and weeks for dates.
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,]+(Z|[+-][0-9:.,]+)?", re.ASCII)
_FAULTS_TOLD = 20
# What of `identifier` and `opaque` a pattern can say.
_NAMING = r"^\S(.*\S)?$"
_PASSING = r"^[^\u0000-\u001f\u007f-\u009f]*$"


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


Reader: TypeAlias = Callable[[Any], Any]
R = TypeVar("R", bound=Reader)
# JSON Schema, draft 2020-12, as OpenAPI 3.1 has it.
Schema: TypeAlias = Mapping[str, Any]
_SCHEMAS: dict[Reader, Schema] = {}


class Field(NamedTuple):
    """One field of an event: its name and the reader that returns its value or raises Unfit."""

    name: str
    read: Reader
    required: bool = True


def described(schema: Schema) -> Callable[[R], R]:
    """Says beside a reader, as JSON Schema, what it takes, so that no second list of bounds is kept.

    A schema says no more than the reader does: what it forbids the reader refuses, not all that it allows is taken.
    """

    def mark(read: R) -> R:
        _SCHEMAS[read] = schema
        return read

    return mark


def schema_of(read: Reader) -> Schema:
    """What is known of a reader; nothing is known of one that does not say."""
    return _SCHEMAS.get(read, {})


def shown(value: object, longest: int = 40) -> str:
    """A value as an error message may show it: printable, cut short, containers only by their kind."""
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except ValueError:
        text = "a number of thousands of digits"
    if not text.isprintable():
        text = printable(text[:longest])
    return text if len(text) <= longest else f"{text[:longest]}…"


def printable(text: str) -> str:
    """The text with whatever could drive a terminal or turn its reading direction written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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
        raise Unfit("is nested too deeply", "write one flat JSON object") from None
    except (ValueError, ArithmeticError) as error:
        reason = getattr(error, "msg", None) or "a number or a byte in it can't be read"
        raise Unfit(f"is not JSON ({reason})", "write one JSON object a line, in UTF-8") from None
    if not isinstance(value, dict):
        raise Unfit("is not a JSON object", 'write one object a line, like {"operator": …, "type": …}')
    return value


def _no_constant(name: str) -> None:
    raise Unfit(f"has {name} for a number", "write a decimal number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Unfit(f"has {shown(twice)!r} twice", "keep one of them")
    return read


def collect_fields(
    raw: Mapping[str, Any], fields: Sequence[Field], also: Sequence[str]
) -> tuple[dict[str, Any], list[Fault]]:
    """The fields that are fit, and the faults of the rest; `also` names what the event has and others read."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, read, required in fields:
        if name in raw:
            try:
                values[name] = read(raw[name])
            except Unfit as unfit:
                faults.append(unfit.at(name))
        elif required:
            faults.append(Fault(name, "is missing", "add it"))
    if len(raw) > len(values):
        known = [*also, *(field.name for field in fields)]
        strange = [name for name in raw if name not in known]
        faults += [unknown(name, known) for name in strange[:_FAULTS_TOLD]]
        if len(strange) > _FAULTS_TOLD:
            faults.append(Fault("line", f"has {len(strange)} fields that are not known", "leave them out"))
    return values, faults


def unknown(name: str, known: Sequence[str]) -> Fault:
    """A key that nobody reads, with what was probably meant."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    mend = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    # A name that can't be seen stands in quotes.
    return Fault(shown(name) if name.strip() else f'"{shown(name)}"', "is not known", mend)


def identifier(longest: int) -> Callable[[Any], str]:
    """Text that names something: printable (no control, zero-width or direction marks), 1 to `longest` characters."""

    @described({"type": "string", "minLength": 1, "maxLength": longest, "pattern": _NAMING})
    def read(value: Any) -> str:
        if type(value) is not str:
            raise Unfit(f"{shown(value)} is not text", "write it in quotes: a long number would lose digits elsewhere")
        if not 0 < len(value) <= longest:
            raise Unfit(f"has {len(value)} characters", f"write 1 to {longest}")
        if not value.isprintable() or value != value.strip():
            raise Unfit(f"{shown(value)} has control, invisible or outer blank characters", "leave them out")
        return value

    return read


def opaque(longest: int) -> Callable[[Any], str]:
    """Text that is passed through: anything but control characters and broken Unicode, up to `longest` characters."""

    @described({"type": "string", "maxLength": longest, "pattern": _PASSING})
    def read(value: Any) -> str:
        if type(value) is not str:
            raise Unfit(f"{shown(value)} is not text", "write it in quotes")
        if len(value) > longest:
            raise Unfit(f"has {len(value)} characters", f"write at most {longest}")
        if _CONTROL.search(value):
            raise Unfit(f"{shown(value)} has control characters or broken Unicode", "leave them out")
        return value

    return read


def texts(longest: int) -> Callable[[Any], list[str]]:
    """A list of texts that are passed through, each as by `opaque`."""
    read_one = opaque(longest)

    @described({"type": "array", "maxItems": MAX_LIST, "items": schema_of(read_one)})
    def read(value: Any) -> list[str]:
        if type(value) is not list or len(value) > MAX_LIST:
            raise Unfit(f"{shown(value)} is not a list of texts", f'write e.g. ["A", "B"], {MAX_LIST} at most')
        return [read_one(one) for one in value]

    return read


@described({"type": "string", "format": "date-time", "description": "With its zone; `+0800` is read as well."})
def zoned_time(value: Any) -> str:
    """A time with its zone, as the 28 characters of GMT+8 (wire-contract.md, `settle`)."""
    mend = 'write it like "2022-10-14T23:00:00.000+0800"'
    if type(value) is not str:
        raise Unfit(f"{shown(value)} is not text", mend)
    try:
        moment = datetime.fromisoformat(value) if _MOMENT.fullmatch(value) else None
    except ValueError:
        moment = None
    if moment is None:
        raise Unfit(f"{shown(value)} is not a time", mend)
    if moment.tzinfo is None:
        raise Unfit(f"{shown(value)} has no zone", mend)
    if not 1970 < moment.year < 9998:
        raise Unfit(f"{shown(value)} is before 1971 or after 9997", mend)
    return gmt8(moment)


def integer(lowest: int, highest: int, meaning: str) -> Callable[[Any], int]:
    """A JSON number without a fraction, within bounds; `meaning` tells the reader of an error what is wanted."""

    @described({"type": "integer", "minimum": lowest, "maximum": highest, "description": meaning})
    def read(value: Any) -> int:
        if type(value) is not int:
            raise Unfit(f"{shown(value)} is not a whole number", f"write {meaning}")
        if not lowest <= value <= highest:
            raise Unfit(f"{shown(value)} is out of range", f"write {meaning}")
        return value

    return read


def _decimal(sign: str, **bounds: float) -> Schema:
    """An amount as JSON Schema; its places are counted in a text alone, since a number's would be those of a float."""
    text = rf"^{sign}0*[0-9]{{1,{MAX_WHOLE_DIGITS}}}(\.[0-9]{{1,{MAX_PLACES}}})?$"
    told = f"At most {MAX_PLACES} decimal places, read exactly: as text, or as a number of JSON's."
    number = {"type": "number", "exclusiveMaximum": 10.0**MAX_WHOLE_DIGITS, **bounds}
    return {"anyOf": [{"type": "string", "pattern": text}, number], "description": told}


@described(_decimal("-?", exclusiveMinimum=-(10.0**MAX_WHOLE_DIGITS)))
def amount(value: Any) -> Decimal:
    """An exact amount from a JSON number or its text: at most 4 decimal places, 20 digits before the point."""
    if type(value) is Decimal:
        read = value
    elif type(value) is int or (type(value) is str and _PLAIN_DECIMAL.fullmatch(value)):
        read = Decimal(value)
    elif type(value) is float:
        raise Unfit(f"{value!r} is a float, which has lost digits already", "hand in a Decimal, or text")
    else:
        raise Unfit(f"{shown(value)} is not an amount", 'write a decimal number, like 12.5 or "12.5"')
    if _USUAL_AMOUNT.fullmatch(str(read)):
        return read if read else abs(read)
    exponent = read.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_PLACES:
        raise Unfit(f"{shown(read)} has more than {MAX_PLACES} decimal places", "amounts are exact: round it yourself")
    if read.adjusted() >= MAX_WHOLE_DIGITS:
        raise Unfit(
            f"{shown(read)} has more than {MAX_WHOLE_DIGITS} digits before the point",
            "check the amount's unit",
        )
    return read if read else abs(read)


@described(_decimal("", minimum=0))
def unsigned_amount(value: Any) -> Decimal:
    """As `amount`, and not below zero."""
    read = amount(value)
    if read < 0:
        raise Unfit(f"{shown(read)} is below zero", "write what was staked or won, without a sign")
    return read


@described({"type": "string", "pattern": "^[!-~]{1,4096}$", "format": "password"})
def bearer_token(value: Any) -> str:
    """A token that can stand in a header: visible ASCII, no blank, no line break. Its value is never shown."""
    if type(value) is not str or not _TOKEN.fullmatch(value):
        raise Unfit("is not a token", "write 1 to 4096 visible ASCII characters without blanks or line breaks")
    return value


def decimal_text(value: Decimal) -> str:
    """The decimal as digits: no exponent, no float, the places it was given with."""
    text = str(value)
    # `str` is three times quicker, and writes an exponent for the very large and very small alone.
    return text if "E" not in text else format(value, "f")


def _shortest(value: Decimal) -> str:
    """As `decimal_text`, without zeros at its end: by the text, which is quicker than by the number."""
    text = decimal_text(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def settled_text(value: Decimal) -> str:
    """As `decimal_text`, with one decimal place at least: `10` is `"10.0"` (wire-contract.md, `settle`)."""
    text = decimal_text(value)
    return text if "." in text else f"{text}.0"


def content_digest(values: Sequence[object]) -> bytes:
    """16 bytes that are equal for equal content: 1.5, 1.50 and "1.5" are the same amount."""
    canonical = [
        value if type(value) is str else _shortest(value) if type(value) is Decimal else repr(value) for value in values
    ]
    return hashlib.blake2b("\x1f".join(canonical).encode(), digest_size=16).digest()
