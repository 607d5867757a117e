"""`dispatcher completion`: what makes a shell complete commands, options and operators' names; click's own script."""

import click
from click.shell_completion import get_completion_class

from dispatcher.cli.common import guarded


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@guarded
def command(shell: str) -> None:
    """Print the script that completes `dispatcher` in SHELL; it goes where that looks for such scripts.

    bash: /etc/bash_completion.d/dispatcher; zsh: _dispatcher in a folder of fpath; fish:
    ~/.config/fish/completions/dispatcher.fish
    """
    main = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "dispatcher", "_DISPATCHER_COMPLETE").source())
