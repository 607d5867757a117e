"""What an operator's own list of its orders looks like, for `dispatcher reconcile`: [operators.NAME.TYPE.export]."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.ground.errors import Unfit, listed
from dispatcher.ground.fields import shown
from dispatcher.ground.operator import Export
from dispatcher.ground.settings import Table
from dispatcher.protocols import Protocol


def read_export(table: Table, protocol: Protocol) -> Export:
    """Without a word of it the columns have the names of the event's fields, and every row was booked."""
    state = table.read("state", None, _column)
    booked = table.read("booked", frozenset(), _texts)
    if (state is None) != (not booked) and not table.faulty("state") and not table.faulty("booked"):
        missing = "state" if state is None else "booked"
        table.fault(missing, "is missing", 'write both, like state = "status" and booked = ["success"], or neither')
    export = Export(
        columns=table.read("columns", {}, lambda value: _columns(value, (protocol.key, *protocol.amounts))),
        state=state,
        booked=booked,
        encoding=table.read("encoding", "utf-8-sig", _encoding),
        delimiter=table.read("delimiter", None, _delimiter),
    )
    table.close()
    return export


def _columns(value: Any, fields: Sequence[str]) -> Mapping[str, str]:
    """Our field → their column."""
    if not isinstance(value, Mapping) or not value.keys() <= set(fields):
        raise Unfit(f"{shown(value)} names other fields than can be compared", f"write some of {listed(fields)}")
    return {name: _column(column) for name, column in value.items()}


def _column(value: Any) -> str:
    if type(value) is not str or not value.strip() or len(value) > 255:
        raise Unfit(f"{shown(value)} is no name of a column", "write it as it stands in the file's first line")
    return value


def _texts(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value or any(type(one) is not str for one in value):
        raise Unfit(f"{shown(value)} is not a list of texts", 'write it like ["success", "1"]')
    return frozenset(value)


def _encoding(value: Any) -> str:
    try:
        # Of bytes and text: Python knows others as well.
        "1".encode(codecs.lookup(value).name).decode(value)
    except (LookupError, TypeError, UnicodeError):
        raise Unfit(f"{shown(value)} is not known", 'write "utf-8", "gb18030" or "big5"') from None
    return "utf-8-sig" if codecs.lookup(value).name == "utf-8" else str(value)


def _delimiter(value: Any) -> str:
    if type(value) is not str or len(value) != 1 or value in '"\r\n':
        raise Unfit(f"{shown(value)} is not one character", r'write e.g. ";" or "\t"')
    return value
