"""A part of the benchmark: some rows of one table, measured together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.contender import Contender
from bench.ground import Ground
from bench.results import Cell, Row

TEXT = "{}"


@dataclass(frozen=True, slots=True)
class Column:
    """`form` is the format of a number, or TEXT; text stands as it is in every column."""

    key: str
    heading: str
    form: str = "{:,.0f}"

    def show(self, cell: Cell) -> str:
        return "" if cell is None else cell if isinstance(cell, str) else self.form.format(cell)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: where to measure, how often, and which contenders (all where `who` is empty, else whose name has it)."""

    ground: Ground
    rounds: int = 3
    who: str = ""
    say: Callable[[str], None] = print

    def wants(self, contender: Contender) -> bool:
        return self.who.lower() in f"{contender.name} {contender.kind}".lower()


@dataclass(frozen=True, slots=True)
class Part:
    """`rows` measures; a row that can't be measured says so. `long`: only on demand, since it takes its time."""

    name: str
    about: str
    columns: tuple[Column, ...]
    rows: Callable[[Bench], Iterator[Row]]
    first_heading: str = "measured"
    long: bool = False
