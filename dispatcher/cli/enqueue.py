"""`dispatcher enqueue`: NDJSON in, accepted events out, every refused line named."""

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import click
import orjson

from dispatcher.accept import Lock, parse_event
from dispatcher.cli.common import config_option, guarded, in_force, json_option, opened, read_configuration
from dispatcher.clock import Clock
from dispatcher.errors import EventError
from dispatcher.events import MAX_EVENT_BYTES, Event
from dispatcher.operator import Operator
from dispatcher.store.corridor import Fate, accept
from dispatcher.store.engine import Database

CHUNK_BYTES = 1024 * 1024
BATCH = 1_000
COUNTED = ("accepted", "duplicate", "conflict", "invalid")


class Line(NamedTuple):
    """Where an event stood: file as given, line counted from 1."""

    file: str
    number: int


class Report(Protocol):
    """Where refusals and the sum go."""

    def refuse(self, line: Line, reason: str) -> None: ...
    def close(self, counts: Counter[str]) -> None: ...


@click.command(name="enqueue")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@config_option
@json_option
@guarded
def command(files: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """Accept events from NDJSON files, or from standard input as `-`.

    What is counted as accepted is on disk. Good lines are kept, bad ones named; exit status 1 if there was a bad one.
    """
    config = read_configuration(config_path)
    database = opened(config, create=True)
    vault, operators = in_force(config, database)
    report: Report = _JsonReport() if as_json else _TextReport(len(files) > 1)
    # Nothing that is made here refers to itself in a circle: looking for such is work that finds nothing.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    # The store's thread wants Python's lock a few times a batch; it would wait 5 ms each time for the reader to let go.
    sys.setswitchinterval(0.0002)
    intake = Intake(database, operators, vault.lock, database.clock(), report)
    try:
        with _progress(files) as advance:
            for name in files:
                with click.open_file(name, "rb") as file:
                    intake.read(name, file, advance)
    finally:
        report.close(intake.counts)
    sys.exit(1 if intake.counts["conflict"] or intake.counts["invalid"] else 0)


class Intake:
    """Reads events in constant memory and accepts them in batches; `counts` holds what is on disk."""

    def __init__(
        self,
        database: Database,
        operators: Mapping[str, Operator],
        lock: Lock,
        clock: Clock,
        report: Report,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._database = database
        self._operators = operators
        self._lock = lock
        self._clock = clock
        self._report = report
        self._batch: list[tuple[Line, Event]] = []
        # While one batch is written the next one is read; never more than these two are in memory.
        self._store = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._written: tuple[list[tuple[Line, Event]], Future[list[Fate]]] | None = None

    def read(self, name: str, file: IO[bytes], advance: Callable[[int], None]) -> None:
        """All of a file. A slow producer's events are accepted as they come, not when a batch is full."""
        for number, line, more in split_lines(file, advance):
            if line is not None and line.strip():
                self._take(Line(name, number), line)
            elif line is None:
                self._refuse(
                    Line(name, number), f"line: is longer than {MAX_EVENT_BYTES} bytes; write one event a line"
                )
            if len(self._batch) >= BATCH or not more:
                self._flush()
            if not more:
                self._wait()
        self._flush()
        self._wait()

    def _take(self, line: Line, text: bytes) -> None:
        try:
            self._batch.append((line, parse_event(text, self._operators, self._lock)))
        except EventError as error:
            self._refuse(line, "; ".join(str(fault) for fault in error.faults))

    def _refuse(self, line: Line, reason: str, count: str = "invalid") -> None:
        self.counts[count] += 1
        self._report.refuse(line, reason)

    def _flush(self) -> None:
        if not self._batch:
            return
        self._wait()
        batch, self._batch = self._batch, []
        self._written = batch, self._store.submit(self._write, [event for _, event in batch])

    def _write(self, events: Sequence[Event]) -> list[Fate]:
        fates = accept(self._database, events, self._clock.now())
        self._database.ring()
        return fates

    def _wait(self) -> None:
        """Until what was handed over is on disk, and counted. Raises what kept it from getting there."""
        if self._written is None:
            return
        (batch, fates), self._written = self._written, None
        for (line, event), fate in zip(batch, fates.result(), strict=True):
            if fate is Fate.CONFLICT:
                told = f"{event.operator} has {event.type} {event.key} with other content already; the first stands"
                self._refuse(line, told, "conflict")
            else:
                self.counts[fate] += 1


def split_lines(file: IO[bytes], advance: Callable[[int], None]) -> Iterator[tuple[int, bytes | None, bool]]:
    """Each line with its number, and whether more is at hand; None for a line over MAX_EVENT_BYTES."""
    number, rest, skipping = 0, b"", False
    while chunk := file.read1(CHUNK_BYTES):  # type: ignore[attr-defined]  # every binary file has it, IO does not
        advance(len(chunk))
        *lines, rest = (rest + chunk).split(b"\n")
        for position, line in enumerate(lines, 1):
            number += 1
            more = position < len(lines) or len(chunk) == CHUNK_BYTES
            yield number, None if skipping or len(line) > MAX_EVENT_BYTES else line, more
            skipping = False
        if len(rest) > MAX_EVENT_BYTES:
            skipping, rest = True, b""
    if rest or skipping:
        yield number + 1, None if skipping else rest, False


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
