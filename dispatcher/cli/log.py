"""`dispatcher log`: the wallet-flow log."""

from dataclasses import replace
from pathlib import Path

import click

from dispatcher.cli.common import read_configuration, tabled
from dispatcher.cli.opening import opened_about
from dispatcher.cli.rows import filters, paged, print_page
from dispatcher.ground.lang import words
from dispatcher.ground.policy import Status
from dispatcher.store.ledger import Filter, find


@click.command(name="log")
@filters
@click.option("--status", type=click.Choice([status.value for status in Status]), help="In this status.")
@click.option("--key", help="With this order number (or txId).")
@paged
@tabled
def command(
    where: Filter,
    status: str | None,
    key: str | None,
    limit: int,
    before: int | None,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """The wallet-flow log, newest first. A * after a reason: the operator may have booked it all the same."""
    database = opened_about(read_configuration(config_path), where.operator)
    where = replace(where, status=Status(status) if status else None, key=key)
    print_page(find(database, where, limit, before), limit, words(lang), json=as_json)
