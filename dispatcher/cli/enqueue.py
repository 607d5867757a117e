"""`dispatcher enqueue`: NDJSON in, accepted events out, every refused line named."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click
import orjson

from dispatcher import __version__
from dispatcher.accept.intake import COUNTED, Intake, Line
from dispatcher.cli.common import read_configuration, scripted, settle_in
from dispatcher.cli.opening import in_force, opened
from dispatcher.tracing import open_traces


class Report(Protocol):
    """Where refusals and the sum go."""

    def refuse(self, line: Line, reason: str) -> None: ...
    def close(self, counts: Counter[str]) -> None: ...


@click.command(name="enqueue")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@scripted
def command(files: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """Accept events from NDJSON files, or from standard input as `-`.

    What is counted as accepted is on disk. Good lines are kept, bad ones named; exit status 1 if there was a bad one.
    """
    config = read_configuration(config_path)
    database = opened(config, create=True)
    vault, roster = in_force(config, database)
    report: Report = _JsonReport() if as_json else _TextReport(len(files) > 1)
    settle_in(0.0002)
    traces = open_traces(config.traces, __version__, lambda told: click.echo(f"traces: {told}", err=True))
    clock = database.clock()
    intake = Intake(database, roster.operators, vault.lock, clock, report.refuse, traces, unfit=roster.faults)
    try:
        with _progress(files) as advance:
            for name in files:
                with click.open_file(name, "rb") as file:
                    intake.read(name, file, advance)
    finally:
        report.close(intake.counts)
        if traces is not None:
            traces.close()
    sys.exit(1 if intake.counts["conflict"] or intake.counts["invalid"] else 0)


@contextmanager
def _progress(files: tuple[str, ...]) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, by bytes; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    sizes = [None if name == "-" else Path(name).stat().st_size for name in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    columns = ("accepting", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("accepting", total=total)
        yield lambda size: bar.advance(task, size)


class _TextReport:
    def __init__(self, several: bool) -> None:
        self._several = several

    def refuse(self, line: Line, reason: str) -> None:
        where = f"{line.file}, line {line.number}" if self._several else f"line {line.number}"
        click.echo(f"{where}: {reason}", err=True)

    def close(self, counts: Counter[str]) -> None:
        click.echo(", ".join(f"{name} {counts[name]}" for name in COUNTED))


class _JsonReport:
    """One JSON document, written as it goes: a million bad lines take no memory."""

    def __init__(self) -> None:
        self._refused = 0
        click.echo('{"refused":[', nl=False)

    def refuse(self, line: Line, reason: str) -> None:
        comma = "," if self._refused else ""
        self._refused += 1
        # A file's name may be bytes that no text has.
        name = line.file.encode("utf-8", "backslashreplace").decode()
        told = {"file": name, "line": line.number, "reason": reason}
        click.echo(comma + orjson.dumps(told).decode(), nl=False)

    def close(self, counts: Counter[str]) -> None:
        click.echo("]," + orjson.dumps({name: counts[name] for name in COUNTED}).decode()[1:])
