"""Lines of a CSV file (RFC 4180) that a spreadsheet opens without running anything. Pure."""

import csv
import io
import re
from collections.abc import Iterable

# In front of the first line: without it spreadsheets read UTF-8 as something else.
MARK = "\ufeff"
# A spreadsheet takes the full-width signs of a Chinese keyboard for the others.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


def line(values: Iterable[object]) -> str:
    """One line with its end; nothing for None."""
    file = io.StringIO(newline="")
    csv.writer(file).writerow([harmless(value) for value in values])
    return file.getvalue()


def harmless(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay numbers.

    Yes and no are written as in JSON.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
