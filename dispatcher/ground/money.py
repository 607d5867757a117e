"""Amounts: exact from the text they came in to the text they go out as. No float, ever.

Source: wire-contract.md, `notice` and `settle`.
"""

import re
from decimal import Decimal
from typing import Any

from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import Schema, described, shown

MAX_PLACES = 4


MAX_WHOLE_DIGITS = 20


_PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)


_USUAL_AMOUNT = re.compile(rf"-?[0-9]{{1,{MAX_WHOLE_DIGITS}}}(\.[0-9]{{1,{MAX_PLACES}}})?", re.ASCII)


def _decimal(sign: str, **bounds: float) -> Schema:
    """An amount as JSON Schema; its places are counted in a text alone, since a number's would be those of a float."""
    text = rf"^{sign}0*[0-9]{{1,{MAX_WHOLE_DIGITS}}}(\.[0-9]{{1,{MAX_PLACES}}})?$"
    told = f"At most {MAX_PLACES} decimal places, read exactly: as text, or as a number of JSON's."
    number = {"type": "number", "exclusiveMaximum": 10.0**MAX_WHOLE_DIGITS, **bounds}
    return {"anyOf": [{"type": "string", "pattern": text}, number], "description": told}


@described(_decimal("-?", exclusiveMinimum=-(10.0**MAX_WHOLE_DIGITS)))
def amount(value: Any) -> Decimal:
    """An exact amount from a JSON number or its text: at most 4 decimal places, 20 digits before the point."""
    if type(value) is Decimal:
        read = value
    elif type(value) is int or (type(value) is str and _PLAIN_DECIMAL.fullmatch(value)):
        read = Decimal(value)
    elif type(value) is float:
        raise Unfit(f"{value!r} is a float, which has lost digits already", "hand in a Decimal, or text")
    else:
        raise Unfit(f"{shown(value)} is not an amount", 'write a decimal number, like 12.5 or "12.5"')
    if _USUAL_AMOUNT.fullmatch(str(read)):
        return read if read else abs(read)
    exponent = read.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_PLACES:
        raise Unfit(f"{shown(read)} has more than {MAX_PLACES} decimal places", "amounts are exact: round it yourself")
    if read.adjusted() >= MAX_WHOLE_DIGITS:
        raise Unfit(
            f"{shown(read)} has more than {MAX_WHOLE_DIGITS} digits before the point",
            "check the amount's unit",
        )
    return read if read else abs(read)


@described(_decimal("", minimum=0))
def unsigned_amount(value: Any) -> Decimal:
    """As `amount`, and not below zero."""
    read = amount(value)
    if read < 0:
        raise Unfit(f"{shown(read)} is below zero", "write what was staked or won, without a sign")
    return read


def decimal_text(value: Decimal) -> str:
    """The decimal as digits: no exponent, no float, the places it was given with."""
    text = str(value)
    # `str` is three times quicker, and writes an exponent for the very large and very small alone.
    return text if "E" not in text else format(value, "f")


def shortest(value: Decimal) -> str:
    """As `decimal_text`, without zeros at its end: by the text, which is quicker than by the number."""
    text = decimal_text(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def settled_text(value: Decimal) -> str:
    """As `decimal_text`, with one decimal place at least: `10` is `"10.0"` (wire-contract.md, `settle`)."""
    text = decimal_text(value)
    return text if "." in text else f"{text}.0"
