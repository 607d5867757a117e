"""The readers of an event's fields: each returns its value or says what is wrong with it, and how to mend it.

Source: wire-contract.md, `notice` and `settle`; interface.md, Events. Pure: no clock, no I/O.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias, TypeVar

from dispatcher.ground.clock import gmt8
from dispatcher.ground.errors import Fault, Unfit

MAX_LIST = 1_000


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


# A text that was to be a number.
_NUMBER = re.compile(r"\s*[-+]?[0-9]+(\.[0-9]+)?\s*", re.ASCII)


# What of ISO 8601 is read; Python's reader takes any character at all for the T, and weeks for dates.
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,]+(Z|[+-][0-9:.,]+)?", re.ASCII)


_FAULTS_TOLD = 20


# What of `identifier` and `opaque` a pattern can say.
_NAMING = r"^\S(.*\S)?$"


_PASSING = r"^[^\u0000-\u001f\u007f-\u009f]*$"


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
        # A Decimal by its own digits: as JSON it would be a text.
        text = str(value) if isinstance(value, str | Decimal) else json.dumps(value, default=str)
    except ValueError:
        text = "a number of thousands of digits"
    if not text.isprintable():
        text = printable(text[:longest])
    return text if len(text) <= longest else f"{text[:longest]}…"


def printable(text: str) -> str:
    """The text with whatever could drive a terminal or turn its reading direction written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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
    meant = probably(name, known)
    mend = f"did you mean {meant!r}?" if meant else f"known here: {', '.join(known)}"
    # A name that can't be seen stands in quotes.
    return Fault(shown(name) if name.strip() else f'"{shown(name)}"', "is not known", mend)


def probably(name: str, known: Sequence[str]) -> str | None:
    """What was probably meant by a name that nobody knows."""
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.6)), None)


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
        if type(value) is str and _NUMBER.fullmatch(value):
            raise Unfit(f'"{shown(value)}" is text', f"write it without quotes: {meaning}")
        if type(value) is not int:
            raise Unfit(f"{shown(value)} is not a whole number", f"write {meaning}")
        if not lowest <= value <= highest:
            raise Unfit(f"{shown(value)} is out of range", f"write {meaning}")
        return value

    return read


@described({"type": "string", "pattern": "^[!-~]{1,4096}$", "format": "password"})
def bearer_token(value: Any) -> str:
    """A token that can stand in a header: visible ASCII, no blank, no line break. Its value is never shown."""
    if type(value) is not str or not _TOKEN.fullmatch(value):
        raise Unfit("is not a token", "write 1 to 4096 visible ASCII characters without blanks or line breaks")
    return value
