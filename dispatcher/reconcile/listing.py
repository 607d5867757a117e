"""Reading the operator's list: CSV or NDJSON as people export it, one row at a time, nothing guessed about amounts."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from msgspec import DecodeError
from msgspec.json import Decoder

from dispatcher.errors import Refused, listed
from dispatcher.events import shown
from dispatcher.operator import Export

_AMOUNT = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]{0,40})?", re.ASCII)
# What a spreadsheet makes of a long number; and how exports keep it from doing so: ="123", '123, a tab.
_ROUNDED = re.compile(r"[0-9](\.[0-9]+)?E\+?[0-9]+", re.ASCII | re.IGNORECASE)
_SHIELDED = re.compile(r'="(.*)"|[\'\t](.*)')
_JSON = Decoder(float_hook=Decimal)
_MOST_CHARACTERS = 1_000_000


class Listed(NamedTuple):
    """One row: its line, the order's key, the amounts as plain decimals in the columns' order, None where empty."""

    line: int
    key: str
    amounts: tuple[str | None, ...]
    booked: bool


class Unreadable(NamedTuple):
    line: int
    why: str


class Listing:
    """The file of one operator and message type: `names` are those of the amounts that it has a column for."""

    def __init__(self, path: Path, export: Export, key: str, amounts: Sequence[str]) -> None:
        """Raises Refused where the file can't be opened, or has not the columns."""
        self._path = path
        self._export = export
        self._key = export.columns.get(key, key)
        columns = {name: export.columns.get(name, name) for name in amounts}
        self._as_json = path.suffix.lower() in (".ndjson", ".jsonl", ".json")
        first = self._header()
        wanted = [self._key, *([export.state] if export.state else [])]
        wanted += [export.columns[name] for name in amounts if name in export.columns]
        missing = [name for name in dict.fromkeys(wanted) if name not in first]
        if missing:
            told = f"{path} has no column {listed([repr(name) for name in missing])}"
            told += f"; it has {shown(', '.join(first), 300)}"
            raise Refused(f"{told}: name its columns in the operator's settings, in the table export")
        self.names = tuple(name for name, column in columns.items() if column in first)
        self._columns = tuple(columns[name] for name in self.names)

    def _header(self) -> list[str]:
        with self._opened() as file:
            try:
                if self._as_json:
                    return list(_object(file.readline(_MOST_CHARACTERS)))
                return list(self._rows(file).fieldnames or [])
            except (ValueError, csv.Error) as error:
                raise Refused(f"{self._path}: its first line can't be read: {self._told(error)}") from None

    def _opened(self) -> TextIO:
        try:
            return self._path.open(encoding=self._export.encoding, newline="")
        except OSError as error:
            raise Refused(f"{self._path} can't be read ({error.strerror}); name another file") from None

    def _rows(self, file: TextIO) -> "csv.DictReader[str]":
        delimiter = self._export.delimiter
        if delimiter is None:
            line = file.readline(_MOST_CHARACTERS)
            delimiter = max(",;\t|", key=line.count)
            file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        return reader

    def _told(self, error: Exception) -> str:
        if isinstance(error, UnicodeDecodeError):
            return f'it is not {self._export.encoding.removesuffix("-sig")}; write its encoding, like "gb18030"'
        return str(error)

    def lines(self) -> Iterator[Listed | Unreadable]:
        """Every row, in order. Raises Refused where the rest of the file can't be read at all."""
        with self._opened() as file:
            rows = self._objects(file) if self._as_json else self._records(file)
            try:
                for number, row in rows:
                    yield row if isinstance(row, Unreadable) else self._listed(number, row)
            except (UnicodeDecodeError, csv.Error) as error:
                raise Refused(f"{self._path}: {self._told(error)}; nothing was compared") from None

    def _records(self, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any] | Unreadable]]:
        reader = self._rows(file)
        for row in reader:
            # A row that is shorter has None, one that is longer a list under None.
            whole = None not in row and None not in row.values()
            found = row if whole else Unreadable(reader.line_num, "has another number of columns than the first line")
            yield reader.line_num, found

    @staticmethod
    def _objects(file: TextIO) -> Iterator[tuple[int, Mapping[str, Any] | Unreadable]]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, _object(line)
                except ValueError as error:
                    yield number, Unreadable(number, str(error))

    def _listed(self, line: int, row: Mapping[str, Any]) -> Listed | Unreadable:
        try:
            key = _key(row.get(self._key))
            amounts = tuple(_amount(row.get(column), column) for column in self._columns)
        except ValueError as error:
            return Unreadable(line, str(error))
        state = self._export.state
        return Listed(line, key, amounts, state is None or _text(row.get(state)) in self._export.booked)


def _object(line: str) -> Mapping[str, Any]:
    try:
        found = _JSON.decode(line)
    except (DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("is not one JSON object")
    return found


def _text(value: object) -> str:
    text = "" if value is None else str(value).strip()
    shielded = _SHIELDED.fullmatch(text)
    return text if shielded is None else (shielded[1] or shielded[2] or "").strip()


def _key(value: object) -> str:
    text = _text(value)
    if not text:
        raise ValueError("has no key")
    if isinstance(value, Decimal) or (isinstance(value, str) and _ROUNDED.fullmatch(text)):
        raise ValueError(f"the key {shown(text)} is a rounded number: a spreadsheet has cut it; export the file anew")
    return text


def _amount(value: object, column: str) -> str | None:
    text = _text(value)
    if not text:
        return None
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    if isinstance(value, bool) or not _AMOUNT.fullmatch(text):
        raise ValueError(f"{column} is {shown(text)}, which is no amount")
    return plain(text)


def plain(text: str) -> str:
    """The one text of an amount: `1.50`, `+1.5` and `1.5` are the same money."""
    whole, _, places = text.lstrip("+").partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    places = places.rstrip("0")
    digits = digits.lstrip("0") or "0"
    number = f"{digits}.{places}" if places else digits
    return number if number == "0" else sign + number
