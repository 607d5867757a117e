"""What a protocol is: one file that says what its events look like, what is sent, and what counts as a yes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from dispatcher.ground.errors import Fault
from dispatcher.ground.events import Event
from dispatcher.ground.fields import Field
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Claim, Rule
from dispatcher.ground.secret import SecretBytes


class Protocol(NamedTuple):
    """A message type. Its functions are pure: encryption and time come as arguments.

    - `fields`: what an event carries beside `operator`, `type` and `token`, which every event may have;
    - `check(operator, values)`: what no single field shows; `values` are those that were fit;
    - `freeze(operator, values)`: the accepted event, from values without a fault;
    - `body(operator, claim, seal, now)`: the exact bytes that one attempt sends; `seal` encrypts with the operator's
      key in force, `now` is µs since 1970;
    - `url`, `path`: the setting that says where it goes, and what is added to that;
    - `encrypts`: whether `body` asks for `seal`, so that the operator needs a key;
    - `defaults`: `auth`, `retry` and `success` as an operator's settings would write them, which may say otherwise;
    - `key`: the field that is the event's key;
    - `amounts`: which of the frozen event's fields are amounts, as decimal text;
    - `columns`: the field that the log shows as bet, win, net, game and business, as far as there is one;
    - `target`: the path and query of one attempt's request, where they are no part of the URL because they are secret.
    """

    name: str
    fields: Sequence[Field]
    check: Callable[[Operator, Mapping[str, Any]], Sequence[Fault]]
    freeze: Callable[[Operator, Mapping[str, Any]], Event]
    body: Callable[[Operator, Claim, Callable[[bytes], str], int], bytes]
    url: str
    path: str
    encrypts: bool
    defaults: Mapping[str, Any]
    key: str
    amounts: Sequence[str]
    columns: Mapping[str, str]
    target: Callable[[Operator, int], SecretBytes] | None = None


def json_text(value: str) -> str:
    """A string as JSON, UTF-8 without `\\u` escapes where JSON allows it."""
    return orjson.dumps(value).decode()


def agreeing(rule: Rule, body: Mapping[str, object]) -> dict[str, object]:
    """An answer's body that this rule takes for a yes: this one, with whatever the rule reads in its place."""
    wanted: list[object] = [*rule.values, *sorted(rule.extra)]
    told = dict(body)
    if rule.field and wanted:
        told = _with(told, rule.field, wanted[0])
    return _with(told, rule.numeric, 0) if rule.numeric else told


def _with(body: object, path: Sequence[str], value: object) -> dict[str, object]:
    """The object with this value at a path, whatever stood there."""
    inside: dict[str, object] = dict(body) if isinstance(body, Mapping) else {}
    return inside | {path[0]: _with(inside.get(path[0]), path[1:], value) if path[1:] else value}
