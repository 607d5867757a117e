"""A third message type, in one file: `jackpot`, which an operator hears of in a form post of its own."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from dispatcher.ground.errors import Fault
from dispatcher.ground.events import Event, content_digest
from dispatcher.ground.fields import Field, identifier
from dispatcher.ground.money import amount, decimal_text
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Claim
from dispatcher.protocols import Protocol


def check(operator: Operator, values: Mapping[str, Any]) -> list[Fault]:
    if values.get("pot", 1) > 0:
        return []
    return [Fault("pot", "is empty", "send a jackpot only when something was won")]


def freeze(operator: Operator, values: Mapping[str, Any]) -> Event:
    body = {"win_id": values["win_id"], "player": values["player"], "pot": decimal_text(values["pot"])}
    digest = content_digest(list(values.values()))
    return Event(operator.name, "jackpot", body["win_id"], body["player"], orjson.dumps(body).decode(), digest)


def body(operator: Operator, claim: Claim, seal: Callable[[bytes], str], now: int) -> bytes:
    return f'{{"attempt_at":{now},"win":{claim.body}}}'.encode()


PROTOCOL = Protocol(
    name="jackpot",
    fields=(Field("win_id", identifier(32)), Field("player", identifier(64)), Field("pot", amount)),
    check=check,
    freeze=freeze,
    body=body,
    url="jackpot_url",
    path="/jackpot",
    encrypts=False,
    defaults={"auth": "none", "retry": {"delays": ["10s"]}, "success": {"field": "ok", "values": [True]}},
    key="win_id",
    amounts=("pot",),
    columns={"win": "pot"},
)
