"""`settle`, the payout callback (wire-contract.md, `settle`): everything is text, code "0000" is the yes."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from dispatcher.ground.clock import gmt8, to_datetime
from dispatcher.ground.errors import Fault
from dispatcher.ground.events import Event, content_digest
from dispatcher.ground.fields import Field, identifier, texts, zoned_time
from dispatcher.ground.money import amount, settled_text, unsigned_amount
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Claim
from dispatcher.protocols.base import Protocol

FIELDS = (
    Field("gameType", identifier(10)),
    Field("gameCode", identifier(20)),
    Field("userId", identifier(50)),
    Field("txId", identifier(20)),
    Field("roundId", identifier(20)),
    Field("status", identifier(10)),
    Field("betTime", zoned_time),
    Field("roundStartTime", zoned_time),
    Field("betAmount", unsigned_amount),
    Field("validBetAmount", unsigned_amount),
    Field("winAmount", unsigned_amount),
    Field("odds", amount),
    Field("result", texts(255)),
    Field("commission", unsigned_amount, required=False),
    Field("fee", unsigned_amount, required=False),
)


def check(operator: Operator, values: Mapping[str, Any]) -> list[Fault]:
    """Nothing: the win includes the stake, and no field of the contract depends on another."""
    return []


def freeze(operator: Operator, values: Mapping[str, Any]) -> Event:
    """The event as it is sent, but for `ts`; a commission left out is 0.0, a fee left out is not sent."""
    whole = {"commission": Decimal(0), **values}
    frozen = {field.name: whole[field.name] for field in FIELDS if field.name in whole}
    body = {name: settled_text(value) if type(value) is Decimal else value for name, value in frozen.items()}
    # With the names, since a fee may be there or not.
    digest = content_digest([part for item in frozen.items() for part in item])
    return Event(operator.name, "settle", values["txId"], values["userId"], orjson.dumps(body).decode(), digest)


def body(operator: Operator, claim: Claim, seal: Callable[[bytes], str], now: int) -> bytes:
    """`ts` of this attempt, and all the rest as it was frozen."""
    return f'{{"ts":"{gmt8(to_datetime(now))}",{claim.body[1:]}'.encode()


PROTOCOL = Protocol(
    name="settle",
    fields=FIELDS,
    check=check,
    freeze=freeze,
    body=body,
    url="callback_url",
    path="/settle",
    encrypts=False,
    defaults={
        "auth": "none",
        "retry": {"every": "60s", "for": "3h"},
        "success": {"field": "code", "values": ["0000"]},
    },
    key="txId",
    amounts=("betAmount", "validBetAmount", "winAmount", "odds", "commission", "fee"),
    columns={"bet": "betAmount", "win": "winAmount", "game": "gameCode"},
)
