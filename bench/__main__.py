"""`make bench`: every measurement in one run, printed and written to docs/benchmarks.md.

`python -m bench [PART…]` measures some parts only; the others' figures stay on the page as they were taken.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.deadline import Failed
from bench.ground import ground
from bench.loader import capacity, check
from bench.machine import machine
from bench.page import page, table
from bench.part import Bench, Part
from bench.parts import PARTS
from bench.results import Results, Row, Stamp, Stamped, fault, stamp

DOCS = Path(__file__).parent.parent / "docs"


def main() -> int:
    given = _arguments()
    # What was started is ended, whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    wanted = [part for part in PARTS if part.name in given.parts or (not given.parts and not part.long)]
    results = Results(DOCS / "benchmarks.json")
    try:
        check(capacity(), _highest(results))
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    now = stamp(f"{machine()}; rounds: {given.rounds}")
    _write(f"{now.machine}.\n")
    with ground() as place:
        bench = Bench(place, given.rounds, given.who, _say)
        for part in wanted:
            _measure(part, bench, results, now, whole=not given.who)
            (DOCS / "benchmarks.md").write_text(page(PARTS, results), "utf-8")
            results.save()
    return 0


def _measure(part: Part, bench: Bench, results: Results, now: Stamp, *, whole: bool) -> None:
    rows = []
    for row in _rows(part, replace(bench, say=lambda told: _say(f"{part.name}, {told}"))):
        results.put(part.name, row, now)
        rows.append(Stamped(row, now))
    if whole:
        results.keep_only(part.name, [one.row.name for one in rows])
    _write(f"\n{part.about}\n\n{table(part, rows)}\n")


def _rows(part: Part, bench: Bench) -> Iterator[Row]:
    """The part's own, and one for what broke it."""
    try:
        yield from part.rows(bench)
    except Exception as error:
        yield Row(part.name, fault=fault(error))


def _highest(results: Results) -> float:
    """The highest rate of whole deliveries that was ever written down."""
    rows = (one.row for one in results.parts.get("peers", {}).values())
    rates = (row.cells.get("rate") for row in rows if "jobs" in row.cells)
    return max((rate for rate in rates if isinstance(rate, float)), default=0.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="\n".join(_parts()))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", metavar="PART", help="all but those on demand unless given")
    parser.add_argument("--rounds", type=int, default=3, help="of what is measured by turns (3)")
    parser.add_argument("--who", default="", metavar="NAME", help="only contenders in whose name or store this stands")
    given = parser.parse_args()
    unknown = set(given.parts) - {part.name for part in PARTS}
    if unknown:
        parser.error(f"there is no part {' and '.join(sorted(unknown))}")
    return given


def _parts() -> Iterator[str]:
    for part in PARTS:
        yield f"{part.name:12}{part.about}" + (" (on demand)" if part.long else "")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(told: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {told}\n")


if __name__ == "__main__":
    sys.exit(main())
