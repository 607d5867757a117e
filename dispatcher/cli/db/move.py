"""`dispatcher db copy`: a whole store from one database to another."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dispatcher.cli.common import actor, print_json, progress, read_configuration, scripted
from dispatcher.config import Config
from dispatcher.ground.clock import WallClock
from dispatcher.ground.errors import ConfigError, DispatcherError, Unfit
from dispatcher.ground.place import Place
from dispatcher.ground.readers import place
from dispatcher.roster import key_file, open_vault
from dispatcher.store.engine import Database
from dispatcher.store.moving.copy import Copied, Different, abandon, copy, open_side
from dispatcher.store.moving.quiet import quiet
from dispatcher.store.moving.tally import by_table
from dispatcher.store.notary import Notary

_LEFT = "the source is still the store; give this copy up with --abandon, and begin with an empty database"


@click.command(name="copy")
@click.option("--to", metavar="URL", help="The database to copy to. Others see it in the list of processes.")
@click.option("--to-env", metavar="NAME", help="… as the environment variable NAME has it: for a URL with a password.")
@click.option(
    "--to-config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="… as database.url of another configuration has it.",
)
@click.option(
    "--abandon", "gives_up", is_flag=True, help="Give up a copy that was begun: the source is used as before."
)
@scripted
def copy_(
    to: str | None, to_env: str | None, to_config: Path | None, gives_up: bool, config_path: Path, as_json: bool
) -> None:
    """Copy the whole store to another database, and move there: from SQLite to PostgreSQL, or any other way.

    No worker may run on either side, and none can begin. Events may still be handed in: they are copied too. When all
    is over there and counted on both sides, the store that was copied takes nothing more and says where it went.
    Whatever interrupts it, the same command goes on from where it was. Secrets go over as they are, locked: the master
    key stays the same.
    """
    ways = [one for one in (to, to_env, to_config) if one is not None]
    if len(ways) != (0 if gives_up else 1):
        raise click.UsageError(
            "it is not clear where to; give one of --to, --to-env and --to-config, or --abandon alone"
        )
    config = read_configuration(config_path)
    if gives_up:
        _abandon(config, as_json)
    else:
        _copy(config, _target(to, to_env, to_config), as_json)


def _target(to: str | None, to_env: str | None, to_config: Path | None) -> Place:
    if to_config is not None:
        return read_configuration(to_config).database
    url, named = (to, "--to") if to_env is None else (os.environ.get(to_env), "--to-env")
    if not url:
        raise click.UsageError(
            f"{named}: that variable is not set; set it to the URL" if to_env else f"{named} is empty; write the URL"
        )
    try:
        return place(url, Path.cwd())
    except Unfit as unfit:
        raise ConfigError([unfit.at(named)]) from None


def _abandon(config: Config, as_json: bool) -> None:
    source = _side(config.database, create=False)
    mark = abandon(source)
    if as_json:
        print_json({"from": str(source.place), "to": mark.other, "abandoned": True})
    else:
        told = f"what was copied to {mark.other} already is never used: empty that database, or drop it"
        click.echo(f"{source.place} is used as before; {told}")


def _copy(config: Config, to: Place, as_json: bool) -> None:
    source = _side(config.database, create=False)
    # Looked at before a target is made: one that is refused leaves nothing behind that could be taken for a store.
    with quiet(source):
        target = _side(to, create=True)
    target.notary = _notary(config, source)
    sides = {"from": str(source.place), "to": str(target.place)}
    try:
        with progress("rows") as tell:
            done = copy(source, target, WallClock().now(), tell, actor())
    except Different as different:
        if as_json:
            print_json({**sides, "complete": False, "differences": different.found})
        for one in different.found:
            click.echo(f"differs: {one}", err=True)
        click.echo(f"Error: the two do not hold the same; {_LEFT}", err=True)
        sys.exit(1)
    if as_json:
        print_json({**sides, "complete": True, "already": done.already, "differences": [], **_counts(done)})
        return
    _tell(done, sides["to"])
    if config.master_key is None and key_file(config).exists():
        told = "name it in secrets.master_key_file, or copy it to where the new configuration looks for it"
        click.echo(f"The master key stays in {key_file(config)}: {told}.")


def _notary(config: Config, source: Database) -> Notary | None:
    """Who notes in the target that it was copied; nobody where the journal's key can't be opened: copied it is."""
    with suppress(DispatcherError):
        open_vault(config, source)
        with source.reading() as connection:
            if source.notary is not None and source.notary.has_key(connection):
                source.notary.key(connection, 0)
                return source.notary
    return None


def _side(place: Place, *, create: bool) -> Database:
    database = open_side(place, create=create)
    click.get_current_context().call_on_close(database.close)
    return database


def _counts(done: Copied) -> dict[str, Any]:
    """Rows by table; deliveries by operator and status, with their attempts as each of them counts its own."""
    groups = sorted(what for what in done.counted if len(what) == 3)
    deliveries = [
        {
            "operator": what[1],
            "status": what[2],
            "rows": done.counted[what],
            "attempts": done.counted[*what, "attempts"],
        }
        for what in groups
    ]
    return {"rows": by_table(done.counted), "deliveries": deliveries}


def _tell(done: Copied, target: str) -> None:
    counts = _counts(done)
    if done.already:
        click.echo(f"It has moved to {target} before; there is now:")
    for table, rows in counts["rows"].items():
        click.echo(f"{table}: {rows}")
    for one in counts["deliveries"]:
        click.echo("  {operator} {status}: {rows}, {attempts} attempts".format_map(one))
    if not done.already:
        click.echo(
            f"The same on both sides. The store is {target} now: name it in database.url, with the URL that was given"
            " here, then start the worker."
        )
