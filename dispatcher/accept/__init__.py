"""The first step of a delivery's life: one object of JSON becomes one frozen event, or every fault of it.

Its way: `read_event`; with others by `intake` (files, batches over HTTP), by `committer` (whatever comes over HTTP at
one moment), or by `outbox` within a caller's own transaction; onto the disk by `store.acceptance`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dispatcher.ground.errors import EventError, Fault, Unfit, choices
from dispatcher.ground.events import Event, parse_json, whose_token
from dispatcher.ground.fields import Field, bearer_token, collect_fields, shown, unknown
from dispatcher.ground.operator import Auth, Operator, OrderingKey, Terms
from dispatcher.protocols import PROTOCOLS, SPOKEN, Protocol

_ENVELOPE = ("operator", "type")
# Any event may bring its player's token; it is kept where the operator wants that one, and must be there then.
_TOKEN = Field("token", bearer_token, required=False)
_TOKEN_WANTED = Field("token", bearer_token)

Lock = Callable[[bytes, str], str]
NONE: Mapping[str, str] = {}


def read_event(
    raw: dict[str, Any], operators: Mapping[str, Operator], lock: Lock, unfit: Mapping[str, str] = NONE
) -> Event:
    """The event in one object of JSON (interface.md, Events), whose numbers are int or Decimal; its token locked.

    `unfit`: why those operators that are configured and can't be used can't. Raises EventError with all its faults.
    """
    faults: list[Fault] = []
    named = raw.pop("operator", None)
    if isinstance(named, str) and named in unfit:
        why = "; ".join(unfit[named].splitlines())
        raise EventError([Fault("operator", f"{named!r} can't be used: {why}", "then hand it in again")])
    operator = operators.get(_known(named, "operator", operators, faults))
    protocol = PROTOCOLS.get(_known(raw.pop("type", None), "type", PROTOCOLS, faults))
    if protocol is None:
        raise EventError(faults)
    terms = None if operator is None else operator.terms[protocol.name]
    per_event = terms is not None and terms.auth is Auth.PER_EVENT
    fields = (*protocol.fields, _TOKEN_WANTED if per_event else _TOKEN)
    values, wrong = collect_fields(raw, fields, _ENVELOPE)
    faults += wrong
    if operator is not None and terms is not None:
        faults += [*_not_taken(operator, protocol, terms), *protocol.check(operator, values)]
        if not faults:
            return _whole(protocol.freeze(operator, values), operator, values, lock if per_event else None)
    raise EventError(faults)


def refrozen(operator: Operator, kind: str, body: str) -> Event | None:
    """The event whose body this is, frozen once more: with the same key, uid and digest, or the body was altered.

    None where nobody here knows the type; raises EventError where it is no such event. What the operator's settings add
    (a token, an order) is no part of the body; so any operator will do.
    """
    protocol = SPOKEN.get(kind)
    if protocol is None:
        return None
    try:
        values, faults = collect_fields(parse_json(body), protocol.fields, ())
    except Unfit as unfit:
        raise EventError([unfit.at("body")]) from None
    if faults:
        raise EventError(faults)
    return protocol.freeze(operator, values)


def _not_taken(operator: Operator, protocol: Protocol, terms: Terms) -> list[Fault]:
    if terms.url is not None:
        return []
    told = f"{operator.name} takes no {protocol.name}: it has no {protocol.url}"
    return [Fault("type", told, f"set {protocol.url} for {operator.name}, or send another type")]


def _whole(event: Event, operator: Operator, values: Mapping[str, Any], lock: Lock | None) -> Event:
    """The event with what its operator's settings add: the token as it is kept, and its place in an order."""
    if lock is not None:
        event = event._replace(bearer=lock(values["token"].encode(), whose_token(event)))
    if operator.ordering is not None:
        key = operator.ordering.key
        event = event._replace(sequence=event.uid if key is OrderingKey.UID else values.get(key))
    return event


def _known(value: object, name: str, known: Mapping[str, object], faults: list[Fault]) -> str:
    if isinstance(value, str) and value in known:
        return value
    if not isinstance(value, str):
        told = "is missing" if value is None else f"{shown(value)} is not text"
        faults.append(Fault(name, told, f"write {choices(known)}" if known else "configure an operator first"))
    else:
        fault = unknown(shown(value), list(known))
        faults.append(
            Fault(name, f"{fault.where!r} is not known", fault.mend if known else "configure an operator first")
        )
    return ""
