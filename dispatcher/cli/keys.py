"""`dispatcher keys`: who may use the HTTP API."""

import re
import sys
from pathlib import Path

import click

from dispatcher.cli.common import actor, clock_time, print_json, print_table, read_configuration, scripted, tabled
from dispatcher.cli.opening import every_operator, no_operator, opened, opened_with_journal
from dispatcher.config.web import MOST_A_SECOND
from dispatcher.ground.apikey import ApiKey, Scope, digest, fresh_token
from dispatcher.ground.clock import iso
from dispatcher.ground.errors import Refused
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import words
from dispatcher.store.keys import all_keys, create_key, revoke_key, who

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_COLUMNS = ("id", "name_of_key", "scopes", "operator", "rate", "created_at", "last_used_at", "revoked_at")


@click.group(name="keys")
def command() -> None:
    """Keys of the HTTP API: create, list, revoke. Only a hash of each is stored."""


@command.command(name="create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it may do; may be given several times. admin: replay and resolve, and read.",
)
@click.option("--operator", help="The only operator that it sees; all of them unless given.")
@click.option("--rate", type=click.IntRange(1, MOST_A_SECOND), help="Requests a second; web.rate unless given.")
@scripted
def create(
    name: str, scopes: tuple[str, ...], operator: str | None, rate: int | None, config_path: Path, as_json: bool
) -> None:
    """Make a key named NAME, which stands in the log for whatever is done with it. It is shown this once."""
    if not _NAME.fullmatch(name):
        told = f"{printable(name)} is no name of a key"
        raise Refused(f"{told}; write 1 to 63 small letters, digits, points, hyphens, like game-server-1")
    config = read_configuration(config_path)
    known = every_operator(config)
    if operator is not None and operator not in known:
        raise Refused(no_operator(operator, known))
    database = opened_with_journal(config, create=True)
    id_, token = fresh_token()
    granted = frozenset(map(Scope, scopes))
    key = ApiKey(id_, name, digest(token.reveal()), granted, operator, rate, database.clock().now())
    create_key(database, key, actor())
    if as_json:
        print_json({**_shown(key), "token": token.reveal()})
        return
    click.echo(token.reveal())
    if sys.stderr.isatty():
        click.echo("Keep it: only its hash is stored, and it is not shown again.", err=True)


@command.command(name="list")
@tabled
def list_(config_path: Path, as_json: bool, lang: str | None) -> None:
    """Every key that was made, the revoked ones as well."""
    database = opened(read_configuration(config_path))
    keys = all_keys(database)
    if as_json:
        by = who(database)
        for key in keys:
            print_json({**_shown(key), **by.get(key.name, {"created_by": None, "revoked_by": None})})
        return
    said = words(lang)
    if keys:
        print_table(_COLUMNS, [_cells(key) for key in keys], said)
    else:
        click.echo(said["nothing"])


@command.command(name="revoke")
@click.argument("name")
@scripted
def revoke(name: str, config_path: Path, as_json: bool) -> None:
    """Nothing is taken from the key with this name or id any more, at the latest two seconds from now."""
    database = opened_with_journal(read_configuration(config_path))
    key = revoke_key(database, name, actor(), database.clock().now())
    if as_json:
        print_json(_shown(key))
    else:
        click.echo(f"{key.name}: revoked at {clock_time(key.revoked_at)}")


def _shown(key: ApiKey) -> dict[str, object]:
    """All but the hash."""
    told: dict[str, object] = {"id": key.id, "name": key.name, "scopes": sorted(key.scopes)}
    told |= {"operator": key.operator, "rate": key.rate}
    return told | {name: iso(getattr(key, name)) for name in ("created_at", "last_used_at", "revoked_at")}


def _cells(key: ApiKey) -> list[object]:
    times = (clock_time(key.created_at), clock_time(key.last_used_at), clock_time(key.revoked_at))
    return [key.id, key.name, " ".join(sorted(key.scopes)), key.operator, key.rate, *times]
