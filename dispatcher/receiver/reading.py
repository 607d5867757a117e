"""What the message types share: fields as agreed, refusals that name those that are not, entries of the books."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from dispatcher.ground.errors import Unfit
from dispatcher.ground.events import parse_json
from dispatcher.ground.fields import Field, collect_fields
from dispatcher.ground.money import decimal_text

_NOTHING: Mapping[str, Any] = {}


class Refusal(Exception):
    """Why a body is nothing to book; `read` are those of its fields that were as agreed."""

    def __init__(self, told: str, read: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__(told)
        self.read = read


@dataclass(slots=True, kw_only=True)
class Entry:
    """One message in the books; equal for equal content, however a number in it was written.

    `content` has its fields by their names on the wire, but for `ts`. It was accepted `times`, with `last_ts` the last
    time; a notice has none.
    """

    operator: str
    type: str
    key: str
    uid: str
    content: Mapping[str, Any]
    last_ts: str | None = field(default=None, compare=False)
    times: int = field(default=0, compare=False)

    def row(self) -> dict[str, object]:
        """As `GET /received` shows it: amounts are text."""
        content = {name: decimal_text(v) if type(v) is Decimal else v for name, v in self.content.items()}
        stamp = {} if self.last_ts is None else {"last_ts": self.last_ts}
        return {"operator": self.operator, "type": self.type, **content, "times": self.times, **stamp}


def agreed(raw: bytes, fields: Sequence[Field], where: str) -> dict[str, Any]:
    """These fields, whatever else is there: a later version may send more. Raises Refusal, which shows no value."""
    try:
        given = parse_json(raw)
    except Unfit as unfit:
        raise Refusal(f"{where} {unfit.fault}") from None
    values, faults = collect_fields(given, fields, tuple(given))
    if faults:
        # The other faults quote the value.
        told = [f"{one.where} {one.fault if one.fault == 'is missing' else 'is not as agreed'}" for one in faults]
        raise Refusal(f"{where}: {', '.join(told)}", values)
    return values
