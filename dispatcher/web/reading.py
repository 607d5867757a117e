"""What a request brings: its body, within bounds of size and time, and its query, every fault at once."""

import asyncio
import base64
import binascii
import re
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from dispatcher.ground.clock import WallClock, parse_moment
from dispatcher.ground.errors import Fault, Unfit, choices
from dispatcher.ground.events import parse_json
from dispatcher.ground.fields import Field, Reader, collect_fields, described, opaque, shown
from dispatcher.ground.policy import Reason
from dispatcher.web.problem import Kind, Problem

BODY_SECONDS = 30.0
MOST_ROWS = 1_000
ROWS = 50

E = TypeVar("E", bound=StrEnum)


async def body_of(request: Request, most: int, types: Collection[str]) -> bytes:
    """The whole body, which is of one of these media types. Raises Problem."""
    headers = request.headers
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in types:
        raise Problem(Kind.MEDIA, f"the body is to be {choices(types)}, not {shown(given) or 'of no type'}")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(Kind.MEDIA, "the body is to be sent as it is, without a content-encoding")
    length = headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > most):
        raise _too_large(most)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _received(request, most)
    except TimeoutError:
        told = f"the body was not here within {BODY_SECONDS:.0f} s"
        raise Problem(Kind.TIMEOUT, told, headers={"connection": "close"}) from None


async def _received(request: Request, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> Problem:
    # The rest of it is not read.
    return Problem(Kind.TOO_LARGE, f"at most {most} bytes are taken", headers={"connection": "close"})


def json_object(body: bytes) -> dict[str, Any]:
    """Raises Problem; numbers are int or Decimal."""
    try:
        return parse_json(body)
    except Unfit as unfit:
        raise Problem(Kind.MALFORMED, f"the body {unfit.fault}", [unfit.at("body")]) from None


def fit(values: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    """What `collect_fields` found. Raises Problem with every fault."""
    if faults:
        raise invalid(faults)
    return values


def invalid(faults: Sequence[Fault]) -> Problem:
    return Problem(Kind.INVALID, f"{len(faults)} fault{'s' if len(faults) > 1 else ''}; nothing was done", faults)


def query_of(request: Request, fields: Sequence[Field]) -> dict[str, Any]:
    """The query's values by these fields. An unknown parameter is a fault: a filter that is not heeded would lie."""
    text = request.scope["query_string"].decode("ascii", "replace")
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=100) if text.count("&") < 100 else []
    if text and not pairs:
        raise invalid([Fault("query", "is no list of parameters", "write e.g. ?operator=acme&limit=10")])
    given = dict(pairs)
    values, faults = collect_fields(given, fields, ())
    if len(given) < len(pairs):
        faults.append(Fault("query", "has a parameter more than once", "keep one of each"))
    return fit(values, faults)


def one_of(kind: type[E]) -> Reader:
    """One of these words."""

    @described({"type": "string", "enum": [one.value for one in kind]})
    def read(value: Any) -> E:
        if value not in list(kind):
            raise Unfit(f"{shown(value)} is not known", f"write {choices(kind)}")
        return kind(value)

    return read


@described(
    {
        "type": "string",
        "maxLength": 64,
        "description": "A date, a time (no zone: UTC), or how long ago, like `2026-01-31T08:00:00Z` or `2h`.",
        "examples": ["2h"],
    }
)
def moment(value: Any) -> int:
    """A point in time, µs since 1970."""
    return parse_moment(str(opaque(64)(value)), WallClock().now())


# Which deliveries: what the log and a bulk replay are both asked by.
WHICH = (
    Field("operator", opaque(255), required=False),
    Field("type", opaque(255), required=False),
    Field("uid", opaque(255), required=False),
    Field("reason", one_of(Reason), required=False),
    Field("since", moment, required=False),
    Field("until", moment, required=False),
)


def row_number(text: str) -> int | None:
    """A delivery's or a bulk replay's, as an address or a form has it; None where it can be nobody's."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text, re.ASCII) else None


@described({"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": ROWS})
def row_count(value: Any) -> int:
    if re.fullmatch("[0-9]{1,4}", value, re.ASCII) and 1 <= int(value) <= MOST_ROWS:
        return int(value)
    raise Unfit(f"{shown(value)} is not a whole number from 1 to {MOST_ROWS}", f"write e.g. {ROWS}")


@described({"type": "string", "maxLength": 100, "description": "What `next` said on the page before."})
def cursor(value: Any) -> tuple[int, int]:
    """The place in the log behind which a page begins."""
    try:
        at, _, id_ = map(row_number, base64.urlsafe_b64decode(value).decode("ascii").partition("."))
    except (ValueError, binascii.Error):
        at = id_ = None
    if at is None or id_ is None:
        raise Unfit(f"{shown(value)} is no cursor", "take it from `next` as it is, or leave it out")
    return at, id_


def cursor_text(place: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode("{}.{}".format(*place).encode()).decode()


@described({"type": "string", "maxLength": 2_000, "pattern": r"\S"})
def note(value: Any) -> str:
    """What was agreed, and with whom; it stands in the log for good."""
    text = str(opaque(2_000)(value)).strip()
    if not text:
        raise Unfit("is empty", "write what was agreed, and with whom")
    return text
