"""`notice` as an operator reads it (wire-contract.md, `notice`): outside, decrypted, and both agreeing."""

from decimal import Decimal
from typing import Any

from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import Field, integer, opaque
from dispatcher.ground.money import amount
from dispatcher.ground.operator import Operator, TimeUnit
from dispatcher.protocols import notice
from dispatcher.receiver.http import MAX_BODY, Answer, says
from dispatcher.receiver.reading import Entry, Refusal, agreed
from dispatcher.seal import Seal, SealError

_AMOUNTS = ("total_bet", "total_win", "net_win")


def _number(value: Any) -> Decimal:
    if type(value) is str:
        raise Unfit("is text", "write a JSON number")
    return amount(value)


_RULES = {rule.name: rule for rule in notice.FIELDS} | {name: Field(name, _number) for name in _AMOUNTS}
# From 1973 to 5138: seconds are below, so that the wrong unit is noticed.
_TIMES = {
    TimeUnit.SECONDS: _RULES["time"],
    TimeUnit.MILLISECONDS: Field("time", integer(10**11, 10**14 - 1, "Unix milliseconds of the order")),
}


class NoticeReader:
    """Reads one operator's notices. A refusal is a 400, another content under a known order_no a 409."""

    key = "order_no"
    word = "message"
    conflict = says(409, "this order_no is booked with other content; the first one stands")

    def __init__(self, operator: Operator) -> None:
        assert operator.reading, "no configuration is loaded without it"
        self._name, self._seal = operator.name, Seal(operator.reading)
        rules = _RULES | {"time": _TIMES[operator.time_unit]}
        self._inner = [rules[name] for name in ("order_no", *_AMOUNTS, "business", "game_id", "time")]
        self._outer = [rules["order_no"], Field("data", opaque(MAX_BODY)), rules["time"], rules["uid"]]

    def read(self, body: bytes) -> Entry:
        """The notice. Raises Refusal."""
        outer = agreed(body, self._outer, "body")
        try:
            inner = agreed(self._seal.open(outer["data"]), self._inner, "data")
        except (SealError, Refusal) as error:
            raise Refusal(str(error), outer) from None
        if differing := [name for name in ("order_no", "time") if inner[name] != outer[name]]:
            raise Refusal(f"data: {' and '.join(differing)} not the same as outside", outer)
        content = {name: outer[name] for name in ("order_no", "uid", "time")} | inner
        return Entry(operator=self._name, type="notice", key=outer["order_no"], uid=outer["uid"], content=content)

    def refuse(self, told: str) -> Answer:
        return says(400, told)
