"""The first step of a delivery's life: one line of JSON becomes one frozen event, or every fault of it."""

from collections.abc import Mapping
from typing import Any

from dispatcher.config import Operator
from dispatcher.errors import EventError, Fault, Unfit, choices
from dispatcher.events import Event, collect_fields, parse_json, shown, unknown
from dispatcher.protocols import PROTOCOLS

_ENVELOPE = ("operator", "type")


def parse_event(line: bytes | str, operators: Mapping[str, Operator]) -> Event:
    """The event in one line (interface.md, Events). Raises EventError with all its faults."""
    try:
        raw = parse_json(line)
    except Unfit as unfit:
        raise EventError([unfit.at("line")]) from None
    return read_event(raw, operators)


def read_event(raw: dict[str, Any], operators: Mapping[str, Operator]) -> Event:
    """As `parse_event`, from an object whose numbers are int or Decimal."""
    faults: list[Fault] = []
    operator = operators.get(_known(raw.pop("operator", None), "operator", operators, faults))
    protocol = PROTOCOLS.get(_known(raw.pop("type", None), "type", PROTOCOLS, faults))
    if protocol is None:
        raise EventError(faults)
    values, unfit = collect_fields(raw, protocol.fields(operator), _ENVELOPE)
    faults += unfit
    if operator is not None:
        faults += protocol.check(operator, values)
        if not faults:
            return protocol.freeze(operator, values)
    raise EventError(faults)


def _known(value: object, name: str, known: Mapping[str, object], faults: list[Fault]) -> str:
    if isinstance(value, str) and value in known:
        return value
    if value is None:
        faults.append(Fault(name, "is missing", f"write {choices(known)}" if known else "configure an operator first"))
    else:
        fault = unknown(shown(value), list(known))
        faults.append(
            Fault(name, f"{fault.where!r} is not known", fault.mend if known else "configure an operator first")
        )
    return ""
