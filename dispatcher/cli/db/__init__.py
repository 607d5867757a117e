"""`dispatcher db`: the store itself: its schema, and the way from one database to another."""

import click

from dispatcher.cli.db.move import copy_
from dispatcher.cli.db.schema import status, upgrade_


@click.group(name="db")
def command() -> None:
    """The store: upgrade, status, copy."""


for _one in (upgrade_, status, copy_):
    command.add_command(_one)
