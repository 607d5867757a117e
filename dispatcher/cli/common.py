"""What every command shares: the configuration option, errors as exit statuses, JSON out, tables for people."""

import functools
import gc
import getpass
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dispatcher.config import Config, LogFormat, load_config, load_toml
from dispatcher.ground.clock import WallClock, duration_text, parse_duration, parse_moment, to_datetime
from dispatcher.ground.errors import ConfigError, DispatcherError, Outdated, Refused, Unfit
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import LANGUAGES, Words

if TYPE_CHECKING:
    from dispatcher.telemetry import Log

F = TypeVar("F", bound=Callable[..., Any])

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DISPATCHER_CONFIG",
    default="config.toml",
    show_default=True,
    help="The configuration file (or DISPATCHER_CONFIG).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts instead of a table.")


lang_option = click.option("--lang", type=click.Choice(LANGUAGES), help="Words of tables; the locale's unless given.")


def operator_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For a shell's completion: the operators that the file declares; nothing where it can't be read."""
    path = ctx.params.get("config_path") or os.environ.get("DISPATCHER_CONFIG") or "config.toml"
    return [name for name in _declared(Path(path), "operators") if name.startswith(incomplete)]


def notification_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """As `operator_names`."""
    path = ctx.params.get("config_path") or os.environ.get("DISPATCHER_CONFIG") or "config.toml"
    return [name for name in _declared(Path(path), "notifications") if name.startswith(incomplete)]


def _declared(path: Path, table: str) -> list[str]:
    # Without reading what stands in it: no secret's file is opened for a name.
    with suppress(DispatcherError):
        found = load_toml(path).get(table)
        return [*found] if isinstance(found, dict) else []
    return []


class Moment(click.ParamType[int]):
    """A point in time on the command line: a date, a time, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_moment(value, WallClock().now())
        except Unfit as unfit:
            self.fail(str(unfit), param, ctx)


class Length(click.ParamType[int]):
    """A length of time on the command line, in µs."""

    name = "duration"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            length = parse_duration(value) if value != "0" else 0
        except Unfit as unfit:
            self.fail(str(unfit), param, ctx)
        if length < self._least:
            self.fail(f"{value} is shorter than {duration_text(self._least)}; write that or more", param, ctx)
        return length


def guarded(command: F) -> F:
    """Errors that are meant for people end the command with one sentence on stderr and their exit status."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, TextIOWrapper):
            # A terminal that lacks a character shows its number instead.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return command(*args, **kwargs)
        except DispatcherError as error:
            fail(error)
        except UnicodeEncodeError:
            fail(Refused("an argument is not UTF-8 text; write it again"))
        except BrokenPipeError:
            # The reader of our output (head, less) has gone: that is its right, not an error.
            _silence()
            sys.exit(1)
        except OSError as error:
            if debugged():
                raise
            # Most often the disk behind our output is full; whatever it is, the system has a sentence for it.
            _silence()
            fail(Refused(f"the system says {error}; mend that, and run it again"))

    return run  # type: ignore[return-value]  # functools.wraps keeps the signature, TypeVar can't say so


def debugged() -> bool:
    """Whether `dispatcher --debug` was called: what is no sentence for people shows its traceback."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("debug"))


def scripted(command: F) -> F:
    """What nearly every command has: --config, --json, errors as exit statuses."""
    return config_option(json_option(guarded(command)))


def tabled(command: F) -> F:
    """As `scripted`, for what shows people tables as well: --lang."""
    return config_option(json_option(lang_option(guarded(command))))


def _silence() -> None:
    """What is left of our output goes nowhere, also at the interpreter's end."""
    # Where it goes to no file, whoever runs us in its own process has it already.
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: DispatcherError) -> NoReturn:
    if isinstance(error, ConfigError):
        click.echo(f"{len(error.faults)} fault(s) in the configuration:", err=True)
        for fault in error.faults:
            click.echo(f"  {fault}", err=True)
    else:
        click.echo(f"Error: {error}{_of_this_configuration() if isinstance(error, Outdated) else ''}", err=True)
    try:
        sys.stdout.flush()
    except OSError:
        _silence()
    sys.exit(error.exit_status)


def _of_this_configuration() -> str:
    """How a command that is recommended says for which configuration; it stands at the end of the sentence."""
    path = click.get_current_context().params.get("config_path")
    return f" -c {shlex.quote(str(path))}" if path else ""


def read_configuration(path: Path, *, warn: bool = False) -> Config:
    """The configuration; its warnings on stderr where `warn` says so: told at every command, they'd bury the rest."""
    config = load_config(path)
    for warning in config.warnings if warn else ():
        click.echo(f"Warning: {warning}", err=True)
    return config


def actor() -> str:
    """Who runs this command, for the record: the name of the login, or the number where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, told how many are done of how many; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True) as bar:

        def tell(done: int, every: int) -> None:
            bar.length = every
            bar.update(done - bar.pos)

        yield tell


@contextmanager
def until_stopped() -> Iterator[None]:
    """What runs until somebody ends it: Ctrl-C and SIGTERM are no errors, and whatever it holds is given back."""

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def settle_in(switch_seconds: float) -> None:
    """For a process that works for long: call it once what lives as long as the process is made.

    A thread of the store asks for Python's lock a few times in each transaction: it gets it after `switch_seconds`, not
    after 5 ms. Nothing that is made on the way refers to itself in a circle: looking for such mostly finds nothing.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(switch_seconds)


def log_of(config: Config) -> "Log":
    """On stderr, as the configuration wants it; JSON where nobody looks at a terminal, unless it says otherwise."""
    from dispatcher.telemetry import configure_logs

    as_json = config.log_format is LogFormat.JSON if config.log_format else not sys.stderr.isatty()
    return configure_logs(as_json=as_json, level=config.log_level)


def print_json(value: object) -> None:
    """One JSON document on one line."""
    import orjson

    click.echo(orjson.dumps(value).decode())


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], words: Words) -> None:
    """A table for people, as wide as it needs to be where the output is no terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        # An order number that is cut or wrapped can't be looked up.
        table.add_column(words[heading], no_wrap=heading in ("key", "status", "id"), overflow="fold")
    for row in rows:
        # As Text: what came from an event or an operator is no markup, and no terminal escape.
        table.add_row(*(Text("" if value is None else printable(str(value))) for value in row))
    Console(width=None if sys.stdout.isatty() else 400, highlight=False).print(table)


def clock_time(at: int | None) -> str:
    """A time for a table: UTC to the second, which its Z says."""
    return "" if at is None else to_datetime(at).strftime("%Y-%m-%d %H:%M:%SZ")
