"""A live view of how things stand, in place on a terminal; a line for each look where there is none."""

import os
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from select import select
from typing import TYPE_CHECKING, NamedTuple

import click

from dispatcher.cli.common import clock_time, print_json, until_stopped
from dispatcher.cli.figures import COLUMNS, age_text, cells, flow_cells, reasons_text
from dispatcher.ground.clock import SECOND
from dispatcher.ground.errors import DispatcherError
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import Words
from dispatcher.stats import Flow, Picture, since
from dispatcher.store.engine import Database
from dispatcher.store.minutes import Minute

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

# What "now" is: workers write their figures every few seconds, and a shorter time would go to and fro with that.
NOW_SECONDS = 15.0
# Keys and the terminal's size are looked at so often.
TICK_SECONDS = 0.1
# A look may take this share of the time: on a store where it takes long it is taken less often.
SHARE = 10
# The title, the sums, the table's head, what was left out, and the reasons.
FRAME_LINES = 7
# What a narrow terminal does without, the first of them first.
_SPARE = ("resolved", "parked", "delivered", "delivered_hour", "state", "lateness", "answer_ms", "sending")


class Glance:
    """Looks at the store, again and again; opens it when it can be opened. Used by one thread."""

    def __init__(self, reach: Callable[[], Database], look: Callable[[Database], Picture]) -> None:
        self._reach = reach
        self._look = look
        self._database: Database | None = None

    def take(self) -> Picture:
        """Raises StoreUnavailable, and Refused."""
        if self._database is None:
            self._database = self._reach()
        return self._look(self._database)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()


class View(NamedTuple):
    """What is shown: the last picture, what came of the attempts of the last seconds, and why there is no newer one."""

    picture: Picture | None
    flow: Flow | None
    away: str | None
    away_since: float | None


class _Watch:
    """Takes looks on a thread of its own, so that a store that does not answer keeps no key from being heard."""

    def __init__(self, glance: Glance, interval: float) -> None:
        self.view = View(None, None, None, None)
        self._glance = glance
        self._interval = interval
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._looking: Future[Picture] | None = None
        self._began = self._next = time.monotonic()
        self._seen: deque[tuple[float, tuple[Minute, ...]]] = deque()

    def news(self) -> bool:
        """Begins a look when it is time for one; True when one has ended."""
        now = time.monotonic()
        if self._looking is None:
            if now >= self._next:
                self._began, self._looking = now, self._thread.submit(self._glance.take)
            return False
        if not self._looking.done():
            return False
        done, self._looking = self._looking, None
        self._next = max(self._began + self._interval, now + SHARE * (now - self._began - TICK_SECONDS))
        try:
            self.view = self._seen_now(done.result(), now)
        except DispatcherError as error:
            # Refused, too: somebody may be making its tables, or bringing them up.
            self._next = now + self._interval
            away_since = self.view.away_since or time.time()
            self.view = self.view._replace(away=str(error), away_since=away_since, flow=None)
        return True

    def _seen_now(self, picture: Picture, now: float) -> View:
        self._seen.append((now, tuple(picture.seen)))
        while len(self._seen) > 2 and now - self._seen[1][0] >= NOW_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        flow = None
        if then < now:
            flow = Flow(now - then)
            for one in since(before, picture.seen):
                flow = flow.plus(one)
        return View(picture, flow, None, None)

    def end(self) -> None:
        self._thread.submit(self._glance.close)
        self._thread.shutdown(wait=False)


def watch(glance: Glance, said: Words, interval: float, length: float | None, *, as_json: bool) -> None:
    """Until q, Ctrl-C or SIGTERM, or for so many seconds; a store that can't be looked at is told, and tried again."""
    from rich.console import Console

    console = Console(highlight=False)
    watched, end = _Watch(glance, interval), None if length is None else time.monotonic() + length
    try:
        with until_stopped():
            if as_json or not console.is_terminal or console.is_dumb_terminal:
                _lines(watched, said, end, as_json=as_json)
            else:
                _in_place(watched, said, end, console, interval)
    finally:
        watched.end()


def _lines(watched: _Watch, said: Words, end: float | None, *, as_json: bool) -> None:
    while end is None or time.monotonic() < end:
        if watched.news():
            view = watched.view
            if view.away is not None:
                click.echo(f"{said['store_away']}: {view.away}", err=True)
            elif as_json and view.picture is not None:
                print_json(view.picture.as_json())
            elif view.picture is not None:
                click.echo(printable(f"{clock_time(view.picture.at)}  {_sums(view, said)}"))
        time.sleep(TICK_SECONDS / 2)


def _in_place(watched: _Watch, said: Words, end: float | None, console: "Console", interval: float) -> None:
    from rich.live import Live

    size = console.size
    # The alternate screen: what was there before is there again afterwards.
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(_screen(watched.view, said, console, interval), refresh=True)
        while end is None or time.monotonic() < end:
            if "q" in pressed().lower():
                return
            if watched.news() or console.size != size:
                size = console.size
                live.update(_screen(watched.view, said, console, interval), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """What was pressed within a tick; keys come one by one, and are not shown."""
    if not sys.stdin.isatty():
        yield lambda: time.sleep(TICK_SECONDS) or ""  # type: ignore[func-returns-value]  # which is the point
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed() -> str:
        ready, _, _ = select([number], [], [], TICK_SECONDS)
        # Where the terminal is gone, so is whoever looks.
        return (os.read(number, 64).decode("ascii", "replace") or "q") if ready else ""

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _screen(view: View, said: Words, console: "Console", interval: float) -> "Group":
    from rich.console import Group
    from rich.text import Text

    at = "" if view.picture is None else clock_time(view.picture.at)
    title = Text(f"dispatcher stats  {at}  {said['every']} {interval:g}s  {said['quits']}", "bold", no_wrap=True)
    parts: list[Text | Table] = [title]
    if view.away is not None:
        since_text = time.strftime("%H:%M:%S", time.gmtime(view.away_since))
        told = f"{said['store_away']} ({since_text}): {printable(view.away)}"
        parts.append(Text(told, "bold red", no_wrap=True, overflow="ellipsis"))
    if view.picture is None:
        parts.append(Text(said["looking"] if view.away is None else ""))
        return Group(*parts)
    parts.append(Text(_sums(view, said), no_wrap=True, overflow="ellipsis"))
    room = max(1, console.height - FRAME_LINES - (view.away is not None))
    parts.append(_table(view.picture, said, console.width, room))
    hidden = len(view.picture.lines) - room
    parts.append(Text(f"… {said['more']}: {hidden}" if hidden > 0 else "", "dim"))
    reasons = reasons_text(view.picture)
    parts.append(Text(f"{said['failures']}: {reasons}" if reasons else "", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _sums(view: View, said: Words) -> str:
    """Everything in one line: what comes of attempts now, and what there is."""
    picture = view.picture
    assert picture is not None
    load, flow = picture.total.load, view.flow or picture.total.flow
    rate, share, answer, late = flow_cells(flow)
    told = [
        f"{said['per_second']} {rate}",
        *([f"{said['success']} {share}"] if share else []),
        *([f"{said['answer_ms']} {answer}"] if answer else []),
        *([f"{said['lateness']} {late}"] if late else []),
        f"{said['sending']} {load.sending}",
        f"{said['pending']} {load.pending}",
        f"{said['due_now']} {load.due}",
        *([f"{said['oldest']} {age_text(picture.total.age(picture.at))}"] if load.due else []),
        f"{said['dead']} {load.dead}",
    ]
    return "  ".join(told)


def _table(picture: Picture, said: Words, width: int, room: int) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    gone = set(_SPARE[: max(0, (130 - width) // 8)])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    chosen = [place for place, name in enumerate(COLUMNS) if name not in gone]
    for place in chosen:
        table.add_column(
            said[COLUMNS[place]], no_wrap=True, overflow="ellipsis", justify="left" if place < 2 else "right"
        )
    for line in picture.lines[:room]:
        shown = cells(line, picture.at, said)
        style = "red" if line.state != "open" else "yellow" if line.age(picture.at) > 60 * SECOND else ""
        table.add_row(*(Text(printable(str(shown[place]))) for place in chosen), style=style)
    return table
