"""What a protocol is: one file that says what its events look like, what is sent, and what counts as a yes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from dispatcher.config import Auth, Operator
from dispatcher.errors import Fault, Unfit
from dispatcher.events import Event, Field
from dispatcher.policy import Claim, Rule
from dispatcher.secret import Secret


class Letter(NamedTuple):
    """One POST, ready to go: where to, with which token, and the exact bytes."""

    url: str
    bearer: Secret | None
    body: bytes


class Protocol(NamedTuple):
    """A message type. Its functions are pure: encryption comes as an argument.

    - `fields(operator)`: what an event carries beside `operator` and `type`, by this operator's settings, or by the
      protocol's own where the operator is not known;
    - `check(operator, values)`: what no single field shows; `values` are those that were fit;
    - `freeze(operator, values)`: the accepted event, from values without a fault;
    - `letter(operator, claim, seal)`: what one attempt sends; `seal` encrypts with the key in force; raises Unfit
      where the settings in force can't make a request of it;
    - `amounts`: which of the frozen event's fields are amounts, as decimal text;
    - `rule`: what counts as a yes.
    """

    name: str
    fields: Callable[[Operator | None], Sequence[Field]]
    check: Callable[[Operator, Mapping[str, Any]], Sequence[Fault]]
    freeze: Callable[[Operator, Mapping[str, Any]], Event]
    letter: Callable[[Operator, Claim, Callable[[bytes], str]], Letter]
    amounts: Sequence[str]
    rule: Rule


def bearer(operator: Operator, claim: Claim) -> Secret | None:
    """The token of this attempt, by the settings in force now. Raises Unfit where the event brought none."""
    if operator.auth is not Auth.PER_EVENT:
        return operator.token
    if claim.bearer is None:
        raise Unfit("the event brought no token", f"set another auth for {operator.name}, or resolve it by hand")
    return claim.bearer


def json_text(value: str) -> str:
    """A string as JSON, UTF-8 without `\\u` escapes where JSON allows it."""
    return orjson.dumps(value).decode()
