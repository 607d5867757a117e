"""`dispatcher reencrypt`: what is stored under a former master key is locked under the current one."""

import sys
from pathlib import Path

import click

from dispatcher.cli.common import actor, print_json, read_configuration, scripted
from dispatcher.cli.opening import opened


@click.command(name="reencrypt")
@scripted
def command(config_path: Path, as_json: bool) -> None:
    """Lock every stored secret under the current master key; then the former one is no longer needed.

    Give the new key as secrets.master_key and the old one as secrets.former_master_key, restart the daemon so that it
    reads both, run this, and take the old one out of the configuration. It can be run again, and while all is running.
    What neither key opens stays as it is and is told.
    """
    from dispatcher.roster import open_vault, relock

    config = read_configuration(config_path)
    database = opened(config)
    vault = open_vault(config, database)
    done = relock(database, vault, actor(), database.clock().now())
    database.ring()
    if as_json:
        print_json({"master_key": vault.current_id, **done._asdict()})
    else:
        click.echo(f"under master key {vault.current_id} now: {done.operators} operators, {done.tokens} tokens")
    if config.former_master_key is None:
        told = "give the new key as secrets.master_key and the old one as secrets.former_master_key"
        click.echo(
            f"no former master key is given: to exchange the key, {told}, and restart the daemon first", err=True
        )
    for name, why in done.operators_left.items():
        click.echo(f"{name} stays as it is: {why}", err=True)
    if done.tokens_left:
        told = "no master key that is given opens them (secrets.master_key, secrets.former_master_key)"
        click.echo(f"{done.tokens_left} tokens stay as they are: {told}", err=True)
    sys.exit(1 if done.operators_left or done.tokens_left else 0)
