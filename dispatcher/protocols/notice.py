"""`notice`, the spin callback (wire-contract.md, `notice`): amounts encrypted, HTTP 200 is the yes."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from dispatcher.config import Auth, NetCheck, Operator
from dispatcher.errors import Fault
from dispatcher.events import (
    Event,
    Field,
    amount,
    bearer_token,
    content_digest,
    decimal_text,
    identifier,
    integer,
    opaque,
)
from dispatcher.policy import Claim, Rule
from dispatcher.protocols.base import Letter, Protocol, bearer, json_text
from dispatcher.secret import Secret

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
    Field("token", bearer_token, required=False),
)
_WITH_TOKEN = (*FIELDS[:-1], Field("token", bearer_token))


def fields(operator: Operator | None) -> Sequence[Field]:
    """Each event brings its token where the operator wants the player's own."""
    return _WITH_TOKEN if operator is not None and operator.auth is Auth.PER_EVENT else FIELDS


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
    net_win = values.get("net_win", values["total_win"] - values["total_bet"])
    # A token that nobody will send is not kept.
    own = Secret(values["token"]) if operator.auth is Auth.PER_EVENT else None
    frozen = {name: values[name] for name in ("order_no", "uid", "total_bet", "total_win")}
    frozen |= {"net_win": net_win, **{name: values[name] for name in ("business", "game_id", "time")}}
    body = {name: decimal_text(value) if type(value) is Decimal else value for name, value in frozen.items()}
    return Event(
        operator.name,
        "notice",
        values["order_no"],
        values["uid"],
        orjson.dumps(body).decode(),
        content_digest(list(frozen.values())),
        own,
    )


def letter(operator: Operator, claim: Claim, seal: Callable[[bytes], str]) -> Letter:
    """`{"order_no","data","time","uid"}`, `data` being the encrypted JSON, fields in the contract's order."""
    event = orjson.loads(claim.body)
    order_no = json_text(event["order_no"])
    data = seal(
        (
            f'{{"order_no":{order_no},"total_bet":{event["total_bet"]},"total_win":{event["total_win"]},'
            f'"net_win":{event["net_win"]},"business":{json_text(event["business"])},'
            f'"game_id":{event["game_id"]},"time":{event["time"]}}}'
        ).encode()
    )
    body = f'{{"order_no":{order_no},"data":"{data}","time":{event["time"]},"uid":{json_text(event["uid"])}}}'
    return Letter(operator.notice_url or "", bearer(operator, claim), body.encode())


PROTOCOL = Protocol(
    name="notice",
    fields=fields,
    check=check,
    freeze=freeze,
    letter=letter,
    amounts=("total_bet", "total_win", "net_win"),
    rule=Rule(),
)
