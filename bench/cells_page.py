"""What `bench.cells` found, as it stands in docs/scaling.md and docs/cells.svg. Nothing is written here."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any

from bench.cell_costs import Load, read
from bench.cells import Answer, answer, day, parts, place

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "scaling.md", DOCS / "cells.svg"
WIDTH, LEFT, RIGHT = 760, 58, 742
# Legible on white and on black.
TEXT, RULE, BLUE, ORANGE = "#7a7a7a", "#9a9a9a", "#2b7de0", "#d9730d"


@cache
def found() -> dict[str, Answer]:
    """The cases of the table, by what the first column says."""
    costs, load, _ = read()
    down = f"{load.down_share:.0%} of the operators down for {load.down_for} minutes, with a breaker"
    return {
        "all operators up": answer(costs, replace(load, down_share=0.0, draws=1)),
        f"**{down}**": answer(costs, load),
        "the same without a breaker": answer(costs, replace(load, breaker=False)),
        "with a breaker; entries of at most 10%": answer(costs, replace(load, largest=0.1)),
    }


def page() -> str:
    """The page as it stands, with both blocks as they are reckoned now."""
    text = PAGE.read_text("utf-8")
    for name, block in (("costs", costs_table()), ("answer", answer_table())):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, after = text.partition(start)[0], text.partition(end)[2]
        text = f"{before}{start}\n{block}{end}{after}"
    return text


def costs_table() -> str:
    return _table(
        ("what", "figure", "where it comes from"), ([row["what"], _figure(row), row["source"]] for row in read()[2])
    )


def _figure(row: dict[str, Any]) -> str:
    figure = row["figure"]
    return f"{figure if isinstance(figure, str) else f'{figure:,}'} {row.get('unit', '')}".strip()


def answer_table() -> str:
    costs, load, _ = read()
    rows = [
        [name, f"{one.cells}", f"{one.parts:,}", f"{one.peak:.0%}", _many(one.waiting), f"{one.worked_off} min"]
        for name, one in found().items()
    ]
    head = ("case", "cells", "entries", "busiest cell", "rows waiting, at most", "worked off after")
    ours = list(found().values())[1]
    spins = load.spins / ours.cells
    told = [
        f"A cell then takes {spins:,.0f} events a second, has up to {ours.in_flight:,.0f} requests in flight and grows",
        f"by {spins * 3600 / 1e6:,.0f} million rows and {spins * 3600 * costs.event_bytes / 1e9:,.0f} GB an hour.",
        f"At worst those that are down have {ours.waiting / load.spins / load.down_for / 60:.1%} of the load.",
        f"{_many(ours.dead) if ours.dead else 'Nothing'} ends dead: the last attempt comes",
        f"{sum(load.delays)} minutes after the first.",
    ]
    return (
        f"{_assumed(load, parts(costs, load)[0].rate)}\n"
        f"**{ours.cells} cells of {costs.cores:g} cores for {load.spins:,.0f} spins a second.**\n\n"
        f"{_table(head, rows)}\n"
        f"{fill(' '.join(told), 125)}\n"
    )


def _assumed(load: Load, most: float) -> str:
    largest = 1 / math.fsum(1 / (place_ + 1) ** load.skew for place_ in range(load.operators))
    sentences = [
        f"{load.operators:,} operators of very different size (Zipf, exponent {load.skew}; the largest has",
        f"{largest:.1%} of everything) are spread over the cells, each in one entry of its cell's",
        "configuration; those above",
        f"{load.largest:.0%} of what a cell is planned for, {most:,.0f} events a second, in several.",
        f"{load.down_share:.0%} of them are down for {load.down_for} minutes, half hanging for {load.timeout_s:g} s",
        f"each time, half refusing; which ones is drawn {load.draws} times, and the largest is in the first draw.",
        f"Afterwards they take {load.catch_up:g} times their own pace. The number of cells is the smallest",
        "at which none is above",
        f"{load.target:.0%} in any minute of any draw, and all is worked off within {load.worked_off} minutes.",
    ]
    return fill(" ".join(sentences), 125) + "\n"


def _many(number: float) -> str:
    return f"{number / 1e6:,.0f} million" if number >= 1e6 else f"{number:,.0f}"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def picture() -> str:
    costs, load, _ = read()
    ours = list(found().values())[1]
    bare = replace(load, breaker=False)
    every = parts(costs, load)
    other = day(every, place(every, ours.cells), ours.cells, costs, bare, 0)
    with_, without = (max(one.work, key=max) for one in (ours.first, other))
    top, bottom = Panel(44, 200, 1.0, load.horizon), Panel(272, 388, 4e8, load.horizon)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 424" font-family="sans-serif" font-size="12">',
        f"<title>{ours.cells} cells: work and backlog over {load.horizon} minutes</title>",
        *(one.band(load.down_from, load.down_from + load.down_for) for one in (top, bottom)),
        _text(LEFT, 18, f"Work of each of {ours.cells} cells, % of what it can do", "start", 14),
        *(top.rule(share / 100, f"{share}") for share in (0, 25, 50, 75, 100)),
        *(top.line(cell, RULE, 0.6) for cell in sorted(ours.first.work, key=max)),
        top.line([load.target] * load.horizon, TEXT, 1.2, 'stroke-dasharray="6 4"'),
        top.line(without, ORANGE, 2),
        top.line(with_, BLUE, 2.4),
        _text(LEFT, 222, "the busiest", "start", 12, BLUE),
        _text(LEFT + 82, 222, "the busiest, if nobody had a breaker", "start", 12, ORANGE),
        _text(RIGHT, 222, f"grey: each cell; dashed: the target, {load.target:.0%}", "end"),
        _text(LEFT, 258, "Rows waiting in all cells, millions", "start", 14),
        *(bottom.rule(rows * 1e6, f"{rows}") for rows in (0, 100, 200, 300, 400)),
        bottom.line(ours.first.waiting, BLUE, 2.4),
        *(_text(bottom.x(hour * 60), 406, f"{hour} h") for hour in range(load.horizon // 60 + 1)),
        _text(bottom.x(load.down_from + load.down_for / 2), 420, f"{load.down_share:.0%} of the operators are down"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


class Panel:
    """One diagram of the picture: from `top` to `bottom`, values from 0 to `most`."""

    def __init__(self, top: int, bottom: int, most: float, minutes: int) -> None:
        self._top, self._bottom, self._most, self._minutes = top, bottom, most, minutes

    def x(self, minute: float) -> float:
        return LEFT + (RIGHT - LEFT) * minute / self._minutes

    def y(self, value: float) -> float:
        return self._bottom - (self._bottom - self._top) * value / self._most

    def band(self, start: int, end: int) -> str:
        size = f'width="{self.x(end) - self.x(start):.1f}" height="{self._bottom - self._top}"'
        return f'<rect x="{self.x(start):.1f}" y="{self._top}" {size} fill="{RULE}" fill-opacity="0.16"/>'

    def rule(self, value: float, label: str) -> str:
        y = f"{self.y(value):.1f}"
        line = f'<path d="M{LEFT} {y}H{RIGHT}" stroke="{RULE}" stroke-opacity="0.35"/>'
        return line + _text(LEFT - 8, self.y(value) + 4, label, "end")

    def line(self, values: Sequence[float], colour: str, width: float, more: str = "") -> str:
        """Where a value stays the same, the line goes straight on."""
        last = len(values) - 1
        corners = [
            (minute, value)
            for minute, value in enumerate(values)
            if minute in (0, last) or not values[minute - 1] == value == values[minute + 1]
        ]
        points = " ".join(f"{self.x(minute):.1f},{self.y(value):.1f}" for minute, value in corners)
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" {more}/>'


def _text(x: float, y: float, words: str, anchor: str = "middle", size: int = 12, colour: str = TEXT) -> str:
    place_ = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place_} fill="{colour}">{words}</text>'


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    PICTURE.write_text(picture(), "utf-8")
    sys.stdout.write(page().partition("<!-- answer -->")[2].partition("<!-- /answer -->")[0])
