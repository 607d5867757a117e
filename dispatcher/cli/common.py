"""What every command shares: the configuration option, errors as exit statuses, JSON out, tables for people."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dispatcher.config import Config, load_config
from dispatcher.errors import ConfigError, DispatcherError

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


def guarded(command: F) -> F:
    """Errors that are meant for people end the command with one sentence on stderr and their exit status."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except DispatcherError as error:
            fail(error)
        except BrokenPipeError:
            # The reader of our output (head, less) has gone: that is its right, not an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    return run  # type: ignore[return-value]  # functools.wraps keeps the signature, TypeVar can't say so


def fail(error: DispatcherError) -> NoReturn:
    if isinstance(error, ConfigError):
        click.echo(f"{len(error.faults)} fault(s) in the configuration:", err=True)
        for fault in error.faults:
            click.echo(f"  {fault}", err=True)
    else:
        click.echo(f"Error: {error}", err=True)
    sys.exit(error.exit_status)


def read_configuration(path: Path) -> Config:
    """The configuration, its warnings on stderr."""
    config = load_config(path)
    for warning in config.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return config
