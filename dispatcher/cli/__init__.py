"""The command line. Each command is one file, imported only when it is called: `--help` stays quick."""

from importlib import import_module
from types import TracebackType
from typing import Any

import click

from dispatcher import __version__

_COMMANDS = {
    "demo": "the whole story on this machine in under a minute",
    "init": "a configuration and a master key to start with",
    "run": "the daemon: delivers what is due until it is told to stop",
    "web": "the HTTP API alone, without a worker",
    "keys": "keys of the HTTP API: create, list, revoke",
    "accounts": "accounts of the console: create, list, passwd, disable, enable",
    "enqueue": "accept events from NDJSON files or standard input",
    "log": "the wallet-flow log",
    "show": "one delivery with its event and every attempt",
    "explain": "one delivery's story in sentences, to be forwarded",
    "tail": "attempts as they happen",
    "stats": "what waits, what is under way and what comes of it; --watch",
    "forecast": "when the backlog is through, and what an outage would cost",
    "dead": "dead letters: list, replay, resolve, export",
    "reconcile": "the operator's own list held against the log",
    "replays": "bulk replays: list, show, pause, resume, cancel",
    "operators": "operators: list, show, set, apply, pause, resume, check",
    "notify": "notifications: list them, send a test message",
    "db": "the store: upgrade its schema, its status, copy it to another database",
    "audit": "prove the books: deliveries, attempts, and the journal of what was done by hand",
    "reencrypt": "lock every stored secret under the current master key",
    "check": "configuration, database and keys; starts nothing",
    "certify": "an operator's endpoint tried with test orders, and what its answers prove",
    "verify": "what a key, an IV and a ciphertext make of each other, in every reading",
    "kit": "an operator's integration kit: document, test vectors, receivers in six languages",
    "receiver": "the demo operator, with faults on demand",
    "completion": "the script that completes commands and names in bash, zsh or fish",
}


# What nearly every command takes, and so is first written where it would hold for all of them.
_OF_THE_COMMANDS = ("-c", "--config", "--json", "--lang")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"dispatcher.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in _OF_THE_COMMANDS:
                raise
            told = f"{error.option_name} stands before the command; write it after, like `dispatcher log -c FILE`"
            raise click.UsageError(told, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            # The group itself has none until one is called, and so nothing to suggest.
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=_COMMANDS, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """What no command has a sentence for is a bug of ours, and ends in one; with --debug in its traceback."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            # Without its text, which may hold whatever the code had in hand.
            told = f"a bug of ours, {type(error).__name__} in {_place(error.__traceback__)}"
            mend = "report it with what `dispatcher --debug` before the same command shows"
            click.echo(f"Error: {told}; {mend} (exit status 1)", err=True)
            ctx.exit(1)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _place(trace: TracebackType | None) -> str:
    """The last line of our own code on the way to an error."""
    ours = []
    while trace is not None:
        room = str(trace.tb_frame.f_globals.get("__name__"))
        if room.startswith("dispatcher"):
            ours.append(f"{room}:{trace.tb_lineno}")
        trace = trace.tb_next
    return ours[-1]


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of what is a bug of ours.")
def main(debug: bool) -> None:
    """Tells each operator what happened in a spin, until the operator has said yes."""
    # What `debug` does is done around the command, in `invoke`.
    del debug
