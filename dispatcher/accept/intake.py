"""From lines of NDJSON to events on disk, counted: what `dispatcher enqueue` and a batch over HTTP have in common."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, Generic, NamedTuple, TypeVar

from dispatcher.accept import NONE, Lock, read_event
from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import EventError, Unfit
from dispatcher.ground.events import MAX_EVENT_BYTES, Event, parse_json
from dispatcher.ground.operator import Operator
from dispatcher.store.acceptance import Fate, accept
from dispatcher.store.engine import Database
from dispatcher.tracing import Traces

CHUNK_BYTES = 1024 * 1024
BATCH = 1_000
COUNTED = ("accepted", "duplicate", "conflict", "invalid")
TOO_LONG = f"line: is longer than {MAX_EVENT_BYTES} bytes; write one event a line"

# Where an event stood.
W = TypeVar("W")
# Called with where an event stood and why it was refused.
Refuse = Callable[[W, str], None]


class Line(NamedTuple):
    """Where an event stood: file as given, line counted from 1."""

    file: str
    number: int


class Sieve(Generic[W]):
    """Reads single lines, and counts what became of them; each refusal is told at once.

    `only` is the one operator whose events are taken; nothing of another's is looked at. `unfit`: as in `read_event`.
    """

    def __init__(
        self,
        operators: Mapping[str, Operator],
        lock: Lock,
        refuse: Refuse[W],
        only: str | None = None,
        unfit: Mapping[str, str] = NONE,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._operators = operators
        self._lock = lock
        self._unfit = unfit
        self._tell = refuse
        self._only = only

    def read(self, where: W, text: bytes) -> Event | None:
        """The event in a line that is not blank; None where it was refused."""
        try:
            raw = parse_json(text)
            if self._only is not None and is_anothers(raw, self._only):
                raise EventError([not_yours(self._only).at("operator")])
            return read_event(raw, self._operators, self._lock, self._unfit)
        except Unfit as unfit:
            self.refuse(where, str(unfit.at("line")))
        except EventError as error:
            self.refuse(where, "; ".join(str(fault) for fault in error.faults))
        return None

    def refuse(self, where: W, reason: str, count: str = "invalid") -> None:
        self.counts[count] += 1
        self._tell(where, reason)

    def stored(self, where: W, event: Event, fate: Fate) -> None:
        """An event of `read` is on disk, or another one with its key."""
        if fate is Fate.CONFLICT:
            self.refuse(where, conflict(event), "conflict")
        else:
            self.counts[fate] += 1


def is_anothers(raw: Mapping[str, Any], only: str | None) -> bool:
    """Whether an event names another operator than the one whose events alone are taken."""
    named = raw.get("operator")
    return only is not None and isinstance(named, str) and named != only


def not_yours(only: str) -> Unfit:
    """Says nothing of the operator that was named: neither that there is one, nor how it is called rightly."""
    return Unfit(f"is not {only}, the only one whose events are taken here", f'write "{only}"')


def conflict(event: Event) -> str:
    """The sentence for an event whose key is taken."""
    return f"{event.operator} has {event.type} {event.key} with other content already; the first stands"


class Intake:
    """Reads files in constant memory and accepts their events in batches; `counts` holds what is on disk."""

    def __init__(
        self,
        database: Database,
        operators: Mapping[str, Operator],
        lock: Lock,
        clock: Clock,
        refuse: Refuse[Line],
        traces: Traces | None = None,
        unfit: Mapping[str, str] = NONE,
    ) -> None:
        self._traces = traces
        self._began = 0
        self._sieve = Sieve(operators, lock, refuse, unfit=unfit)
        self.counts = self._sieve.counts
        self._database = database
        self._clock = clock
        self._batch: list[tuple[Line, Event]] = []
        # While one batch is written the next one is read; never more than these two are in memory.
        self._store = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._written: tuple[list[tuple[Line, Event]], Future[list[Fate]]] | None = None

    def read(self, name: str, file: IO[bytes], advance: Callable[[int], None]) -> None:
        """All of a file. A slow producer's events are accepted as they come, not when a batch is full."""
        for number, line, more in split_lines(file, advance):
            where = Line(name, number)
            if line is None:
                self._sieve.refuse(where, TOO_LONG)
            elif line.strip() and (event := self._sieve.read(where, line)):
                self._batch.append((where, event))
            if len(self._batch) >= BATCH or not more:
                self._flush()
            if not more:
                self._wait()
        self._flush()
        self._wait()

    def _flush(self) -> None:
        if not self._batch:
            return
        self._wait()
        batch, self._batch = self._batch, []
        self._began = time.time_ns()
        self._written = batch, self._store.submit(self._write, [event for _, event in batch])

    def _write(self, events: Sequence[Event]) -> list[Fate]:
        fates = accept(self._database, events, self._clock.now())
        self._database.ring({event.operator for event in events})
        return fates

    def _wait(self) -> None:
        """Until what was handed over is on disk, and counted. Raises what kept it from getting there."""
        if self._written is None:
            return
        (batch, fates), self._written = self._written, None
        for (line, event), fate in zip(batch, fates.result(), strict=True):
            self._sieve.stored(line, event, fate)
            if self._traces is not None and fate is Fate.ACCEPTED:
                self._traces.accepted(event.operator, event.type, event.key, self._began)


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
