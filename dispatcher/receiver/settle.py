"""`settle` as an operator reads it (wire-contract.md, `settle`): everything is text, and every no comes under 200."""

import re
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import Field
from dispatcher.ground.operator import Operator
from dispatcher.protocols import settle
from dispatcher.receiver.http import Answer, says
from dispatcher.receiver.reading import Entry, agreed

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}\+0800", re.ASCII)
_AMOUNT = re.compile(r"-?(0|[1-9][0-9]{0,19})\.[0-9]{1,4}", re.ASCII)
_TIMES = ("betTime", "roundStartTime")
_SIGNED = ("odds",)


def _gmt8(value: Any) -> str:
    """The 28 characters of GMT+8, and a moment that exists."""
    if type(value) is not str or not _TIME.fullmatch(value):
        raise Unfit("is no time in the agreed form", 'write it like "2022-10-14T23:00:00.000+0800"')
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise Unfit("is no time that there is", "write one that is in the calendar") from None
    return value


def _decimal(*, signed: bool) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if type(value) is not str or not _AMOUNT.fullmatch(value) or (value.startswith("-") and not signed):
            raise Unfit("is no decimal text", 'write one to four places and no exponent, like "10.0"')
        return value

    return read


def _on_the_wire(rule: Field, amounts: Collection[str]) -> Field:
    """What an event may leave out or write differently stands on the wire in one form; only `fee` may be absent."""
    required = rule.required or rule.name != "fee"
    if rule.name in amounts:
        return Field(rule.name, _decimal(signed=rule.name in _SIGNED), required)
    return Field(rule.name, _gmt8 if rule.name in _TIMES else rule.read, required)


FIELDS = [Field("ts", _gmt8), *(_on_the_wire(rule, settle.PROTOCOL.amounts) for rule in settle.FIELDS)]


class SettleReader:
    """Reads one operator's settles. A refusal is code 1002, another content under a known txId code 1016."""

    key = "txId"
    word = "desc"
    conflict = says(200, "this txId is booked with other content; the first one stands", code="1016", word="desc")

    def __init__(self, operator: Operator) -> None:
        self._name = operator.name

    def read(self, body: bytes) -> Entry:
        """The settle. Raises Refusal."""
        content = agreed(body, FIELDS, "body")
        ts = content.pop("ts")
        key, uid = content["txId"], content["userId"]
        return Entry(operator=self._name, type="settle", key=key, uid=uid, content=content, last_ts=ts)

    def refuse(self, told: str) -> Answer:
        return says(200, told, code="1002", word="desc")
