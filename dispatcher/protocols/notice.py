"""`notice`, the spin callback (wire-contract.md, `notice`): amounts encrypted, HTTP 200 is the yes."""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

import orjson

from dispatcher.ground.errors import Fault
from dispatcher.ground.events import Event, content_digest
from dispatcher.ground.fields import Field, identifier, integer, opaque
from dispatcher.ground.money import amount, decimal_text
from dispatcher.ground.operator import NetCheck, Operator, TimeUnit
from dispatcher.ground.policy import Claim
from dispatcher.protocols.base import Protocol, json_text

FIELDS = (
    Field("order_no", identifier(64)),
    Field("uid", identifier(128)),
    Field("total_bet", amount),
    Field("total_win", amount),
    Field("net_win", amount, required=False),
    Field("business", opaque(255)),
    Field("game_id", integer(-(2**63), 2**63 - 1, "a whole number that fits 64 bits")),
    # Eleven digits of seconds reach the year 5138; a millisecond time has thirteen.
    Field(
        "time",
        integer(0, 10**11 - 1, "Unix seconds of the order (milliseconds would be 1000 times too much)"),
    ),
)

_PLAIN = itemgetter("order_no", "uid", "business", "game_id", "time")


def check(operator: Operator, values: Mapping[str, Any]) -> list[Fault]:
    """`net_win`, where it is given, is `total_win - total_bet`, unless the operator's `net_check` is off."""
    if operator.net_check is NetCheck.OFF or not {"total_bet", "total_win", "net_win"} <= values.keys():
        return []
    net = values["total_win"] - values["total_bet"]
    if values["net_win"] == net:
        return []
    told = f"is {decimal_text(values['net_win'])}, but total_win - total_bet is {decimal_text(net)}"
    return [Fault("net_win", told, 'leave it out, mend it, or set net_check = "off" for this operator')]


def freeze(operator: Operator, values: Mapping[str, Any]) -> Event:
    """The event as every attempt sends it; amounts are kept as decimal text, with the places they came with."""
    bet, win = values["total_bet"], values["total_win"]
    net = values["net_win"] if "net_win" in values else win - bet
    order_no, uid, business, game_id, time = _PLAIN(values)
    frozen = {
        "order_no": order_no,
        "uid": uid,
        "total_bet": decimal_text(bet),
        "total_win": decimal_text(win),
        "net_win": decimal_text(net),
        "business": business,
        "game_id": game_id,
        "time": time,
    }
    digest = content_digest((order_no, uid, bet, win, net, business, game_id, time))
    return Event(operator.name, "notice", order_no, uid, orjson.dumps(frozen).decode(), digest)


def body(operator: Operator, claim: Claim, seal: Callable[[bytes], str], now: int) -> bytes:
    """`{"order_no","data","time","uid"}`, `data` being the encrypted JSON, fields in the contract's order."""
    event = orjson.loads(claim.body)
    order_no = json_text(event["order_no"])
    time = event["time"] if operator.time_unit is TimeUnit.SECONDS else event["time"] * 1_000
    data = seal(
        (
            f'{{"order_no":{order_no},"total_bet":{event["total_bet"]},"total_win":{event["total_win"]},'
            f'"net_win":{event["net_win"]},"business":{json_text(event["business"])},'
            f'"game_id":{event["game_id"]},"time":{time}}}'
        ).encode()
    )
    return f'{{"order_no":{order_no},"data":"{data}","time":{time},"uid":{json_text(event["uid"])}}}'.encode()


PROTOCOL = Protocol(
    name="notice",
    fields=FIELDS,
    check=check,
    freeze=freeze,
    body=body,
    url="notice_url",
    path="",
    encrypts=True,
    defaults={
        "auth": "bearer",
        "retry": {"delays": ["1m", "30m", "50m"]},
        "success": {"statuses": [200]},
    },
    key="order_no",
    amounts=("total_bet", "total_win", "net_win"),
    columns={
        "bet": "total_bet",
        "win": "total_win",
        "net": "net_win",
        "game": "game_id",
        "business": "business",
    },
)
