"""The page: bench/page.md with each part's table at its mark."""

import re
from collections.abc import Iterable
from pathlib import Path

from bench.part import TEXT, Part
from bench.results import Results, Stamped, stamps

TEMPLATE = Path(__file__).parent / "page.md"
NOT_YET = "Not measured yet."
_MARK = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)


def marks() -> list[str]:
    """The parts that the page has a place for."""
    return _MARK.findall(TEMPLATE.read_text("utf-8"))


def page(parts: Iterable[Part], results: Results) -> str:
    known = {part.name: part for part in parts}

    def filled(mark: re.Match[str]) -> str:
        rows = list(results.parts.get(mark[1], {}).values())
        return f"{table(known[mark[1]], rows)}\n\n{_stamped(rows)}" if rows else NOT_YET

    return _MARK.sub(filled, TEMPLATE.read_text("utf-8"))


def table(part: Part, rows: Iterable[Stamped]) -> str:
    """As Markdown. A fault stands in the first column, and the others are empty then."""
    headings = [part.first_heading, *(column.heading for column in part.columns)]
    lines = [_line(headings), _line(["---", *("---" if column.form == TEXT else "---:" for column in part.columns)])]
    for row in (one.row for one in rows):
        name = f"{row.name}: {row.fault}" if row.fault else row.name
        lines.append(_line([name, *(column.show(row.cells.get(column.key)) for column in part.columns)]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _stamped(rows: list[Stamped]) -> str:
    groups = list(stamps(rows))
    told = []
    for stamp, names in groups:
        whose = "" if len(groups) == 1 else f"{'; '.join(names)}: "
        told.append(f"*{whose}{stamp.at}, commit {stamp.commit}; {stamp.machine}.*")
    return "\n\n".join(told)
