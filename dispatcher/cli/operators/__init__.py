"""`dispatcher operators`: who is told, how, and whether at the moment; secrets are never printed."""

import click

from dispatcher.cli.operators.change import apply, pause, resume, set_
from dispatcher.cli.operators.look import check, list_, show


@click.group(name="operators")
def command() -> None:
    """Operators: list, show, set, apply, pause, resume, check."""


for _one in (list_, show, set_, apply, pause, resume, check):
    command.add_command(_one)
