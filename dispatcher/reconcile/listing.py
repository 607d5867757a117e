"""Reading the operator's list: CSV or NDJSON as people export it, one row at a time, nothing guessed about amounts."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from msgspec import DecodeError
from msgspec.json import Decoder

from dispatcher.ground.errors import Refused, Unfit, listed
from dispatcher.ground.fields import shown
from dispatcher.ground.operator import Export

_AMOUNT = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]{0,40})?", re.ASCII)
# What a spreadsheet makes of a long number; and how exports keep it from doing so: ="123", '123, a tab.
_ROUNDED = re.compile(r"[0-9](\.[0-9]+)?E\+?[0-9]+", re.ASCII | re.IGNORECASE)
_SHIELDED = re.compile(r'="(.*)"|[\'\t](.*)')
_JSON = Decoder(float_hook=Decimal)
_MOST_CHARACTERS = 1_000_000


class Listed(NamedTuple):
    """One row: its order's key, its line, its amounts as `joined` has them in the columns' order; `booked`: 1, or 0."""

    key: str
    line: int
    amounts: str
    booked: int


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
        self._first = first = self._header()
        wanted = [self._key, *([export.state] if export.state else [])]
        wanted += [export.columns[name] for name in amounts if name in export.columns]
        missing = [name for name in dict.fromkeys(wanted) if name not in first]
        if missing:
            told = f"{path} has no column {listed([repr(name) for name in missing])}"
            told += f"; it has {shown(', '.join(first), 300)}"
            raise Refused(f"{told}: name its columns in the operator's settings, in the table export")
        self.names = tuple(name for name, column in columns.items() if column in first)
        self._columns = tuple(columns[name] for name in self.names)
        # The cells of a row; one for the state in any case.
        self._wanted = (self._key, export.state or self._key, *self._columns)

    def _header(self) -> list[str]:
        with self._opened() as file:
            try:
                if self._as_json:
                    return list(_object(file.readline(_MOST_CHARACTERS)))
                return [name.strip() for name in next(self._rows(file), (0, []))[1]]
            except (ValueError, csv.Error) as error:
                raise Refused(f"{self._path}: its first line can't be read: {self._told(error)}") from None

    def _opened(self) -> TextIO:
        try:
            return self._path.open(encoding=self._export.encoding, newline="")
        except OSError as error:
            raise Refused(f"{self._path} can't be read ({error.strerror}); name another file") from None

    def _rows(self, file: TextIO) -> Iterator[tuple[int, list[str]]]:
        """Every row with the number of its last line, the names of the columns first."""
        delimiter = self._export.delimiter
        if delimiter is None:
            line = file.readline(_MOST_CHARACTERS)
            delimiter = max(",;\t|", key=line.count)
            file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for row in reader:
            yield reader.line_num, row

    def _told(self, error: Exception) -> str:
        if isinstance(error, UnicodeDecodeError):
            return f'it is not {self._export.encoding.removesuffix("-sig")}; write its encoding, like "gb18030"'
        return str(error)

    def lines(self) -> Iterator[Listed | Unreadable]:
        """Every row, in order. Raises Refused where the rest of the file can't be read at all."""
        with self._opened() as file:
            try:
                yield from self._objects(file) if self._as_json else self._records(file)
            except (UnicodeDecodeError, csv.Error) as error:
                raise Refused(f"{self._path}: {self._told(error)}; nothing was compared") from None

    def _records(self, file: TextIO) -> Iterator[Listed | Unreadable]:
        # Of two columns with one name it is the last.
        place = {name: number for number, name in enumerate(self._first)}
        wanted = itemgetter(*(place[name] for name in self._wanted))
        rows = self._rows(file)
        next(rows, None)
        for line, row in rows:
            if len(row) == len(self._first):
                yield self._listed(line, *wanted(row))
            elif row:
                yield Unreadable(line, "has another number of columns than the first line; export the file anew")

    def _objects(self, file: TextIO) -> Iterator[Listed | Unreadable]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = _object(line)
                except Unfit as unfit:
                    yield Unreadable(number, str(unfit))
                else:
                    yield self._listed(number, *map(row.get, self._wanted))

    def _listed(self, line: int, key: object, state: object, *amounts: object) -> Listed | Unreadable:
        try:
            found, text = _key(key), joined(map(_amount, amounts, self._columns))
        except Unfit as unfit:
            return Unreadable(line, str(unfit))
        booked = 1 if self._export.state is None or _text(state) in self._export.booked else 0
        return Listed(found, line, text, booked)


def _object(line: str) -> Mapping[str, Any]:
    try:
        found = _JSON.decode(line)
    except (DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unfit("is not one JSON object", "write one object a line")
    return found


def _text(value: object) -> str:
    text = "" if value is None else str(value).strip()
    shielded = _SHIELDED.fullmatch(text)
    return text if shielded is None else (shielded[1] or shielded[2] or "").strip()


def _key(value: object) -> str:
    if type(value) is str and value.isdecimal():
        return value
    text = _text(value)
    if not text:
        raise Unfit("has no key", "write the order's number there, or take the line out")
    if isinstance(value, Decimal) or (isinstance(value, str) and _ROUNDED.fullmatch(text)):
        raise Unfit(f"the key {shown(text)} is a rounded number: a spreadsheet has cut it", "export the file anew")
    if "\0" in text:
        # PostgreSQL has no such text to look it up by; a file of another encoding is full of them.
        raise Unfit(f"the key {shown(text)} has a NUL in it", "write the file's encoding, or export it anew")
    return text


def _amount(value: object, column: str) -> str:
    """Empty where there is none."""
    if type(value) is str and _AMOUNT.fullmatch(value):
        return plain(value)
    text = _text(value)
    if not text:
        return text
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    if isinstance(value, bool) or not _AMOUNT.fullmatch(text):
        raise Unfit(f"{column} is {shown(text)}, which is no amount", "write a decimal number, or nothing")
    return plain(text)


def plain(text: str) -> str:
    """The one text of an amount: `1.50`, `+1.5` and `1.5` are the same money."""
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if text[:1] not in ("+", "-", "0"):
        return text
    digits = text.lstrip("+-0")
    if not digits:
        return "0"
    sign = "-" if text[0] == "-" else ""
    return f"{sign}0{digits}" if digits[0] == "." else sign + digits


def joined(amounts: Iterable[str]) -> str:
    """As one text, so that equal ones are equal texts; an empty amount is none."""
    return ";".join(("", *amounts))


def parted(amounts: str) -> list[str | None]:
    """What `joined` made one text, None for an empty amount."""
    return [amount or None for amount in amounts.split(";")[1:]]
