"""What a protocol is: one file that says what its events look like, what is sent, and what counts as a yes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from dispatcher.config import Operator
from dispatcher.events import Event, Field
from dispatcher.policy import Claim, Rule


class Letter(NamedTuple):
    """One POST, ready to go: where to, with which token, and the exact bytes."""

    url: str
    bearer: str | None
    body: bytes


class Protocol(NamedTuple):
    """A message type. Its functions are pure: encryption comes as an argument.

    - `fields`: the event's fields on the wire, in their order, beside `operator` and `type`;
    - `freeze(operator, values)`: the accepted event; raises EventError for what no single field shows;
    - `letter(operator, claim, seal)`: what one attempt sends; `seal` encrypts with the key in force;
    - `amounts(body)`: the frozen event's amounts by name, as decimal text;
    - `rule`: what counts as a yes.
    """

    name: str
    fields: Sequence[Field]
    freeze: Callable[[Operator, Mapping[str, Any]], Event]
    letter: Callable[[Operator, Claim, Callable[[bytes], str]], Letter]
    amounts: Sequence[str]
    rule: Rule


def json_text(value: str) -> str:
    """A string as JSON, UTF-8 without `\\u` escapes where JSON allows it."""
    return orjson.dumps(value).decode()
