"""`dispatcher operators set`, `apply`, `pause` and `resume`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from dispatcher.cli.common import actor, operator_names, print_json, read_configuration, scripted
from dispatcher.cli.opening import opened
from dispatcher.cli.operators.in_force import open_operators
from dispatcher.cli.operators.values import asked, assignments, changed
from dispatcher.config import Config, Draft, draft_operator, where_declared
from dispatcher.ground.errors import ConfigError, Refused
from dispatcher.ground.operator import NOTIFY
from dispatcher.ground.secret import Secret
from dispatcher.roster import FILE, document_of, lease_fault, open_vault, provision, put
from dispatcher.seal.vault import VaultError
from dispatcher.store import operators as store
from dispatcher.store.engine import Database, is_there


@click.command(name="set")
@click.argument("name")
@click.argument("settings", nargs=-1, metavar="SETTING=VALUE...")
@click.option("--unset", "unset", metavar="SETTING", multiple=True, help="Take a setting away; can be repeated.")
@click.option(
    "--secret", "secrets", metavar="SETTING", multiple=True, help="Ask for it hidden, or read a line of standard input."
)
@click.option("--dry-run", is_flag=True, help="Say what is wrong with it, and change nothing.")
@scripted
def set_(
    name: str,
    settings: tuple[str, ...],
    unset: tuple[str, ...],
    secrets: tuple[str, ...],
    dry_run: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Make an operator, or change its settings; a running daemon takes it up at once.

    SETTING is a key of [operators.NAME], like concurrency or crypto.cipher; VALUE is written as in TOML, quotes may be
    left out. Secrets come by --secret crypto.key, or crypto.key_file=PATH, or crypto.key_env=NAME: never as a VALUE,
    which would stand in the shell's history.
    """
    config = read_configuration(config_path)
    given = assignments(settings, config.defaults)
    stored = _stored(config, name)
    given += asked(secrets, config.defaults)
    version, raw = stored.key_version, json.loads(stored.document)
    changed(raw, given, unset)
    draft = draft_operator(name, raw, config.defaults, Path.cwd())
    fault = lease_fault(draft.operator, config)
    if fault:
        raise ConfigError([fault])
    for warning in draft.warnings:
        click.echo(f"Warning: {warning}", err=True)
    differs = draft.document != Secret(stored.document)
    if differs and not dry_run:
        version = _write(config, draft, stored.locked)
    if as_json:
        print_json({"name": name, "changed": differs, "dry_run": dry_run, "key_version": version})
    else:
        click.echo(f"{name}: {_outcome(differs, dry_run, version)}")


def _outcome(differs: bool, dry_run: bool, version: int | None) -> str:
    if dry_run:
        return "fit; nothing was changed"
    told = "set" if differs else "nothing to change"
    return told if version is None else f"{told}, key version {version}"


class _Stored(NamedTuple):
    """An operator's settings as they stand, `{}` for one that is new, and what they are as the store has them."""

    document: str = "{}"
    key_version: int | None = None
    locked: str | None = None


def _stored(config: Config, name: str) -> _Stored:
    """Nothing is made for it. Raises Refused."""
    if name in config.documents:
        told = f"change it there, then: dispatcher operators apply -c {config.path}"
        raise Refused(f"{name} is declared by {config.path.name}: {told}")
    if name.startswith(NOTIFY):
        raise Refused(f"notifications are declared by {config.path.name} alone: write [{where_declared(name)}] there")
    if not is_there(config.database):
        return _Stored()
    database = opened(config)
    standing = store.standing_of(database, name)
    if standing is None or not standing.settings:
        return _Stored()
    if standing.origin == FILE:
        told = f"take it out of force first: dispatcher operators apply -c {config.path}"
        raise Refused(f"{name} was declared by a file, and {config.path.name} does not declare it any more; {told}")
    try:
        return _Stored(document_of(standing, open_vault(config, database)), standing.key_version, standing.settings)
    except VaultError as error:
        click.echo(f"Warning: {name}: the stored settings are lost ({error}); all of them must be given", err=True)
        return _Stored("{}", standing.key_version, standing.settings)


def _write(config: Config, draft: Draft, instead: str | None) -> int | None:
    """The version of its key, where it has one."""
    database = opened(config, create=True)
    if not put(database, open_vault(config, database), draft, database.clock().now(), actor=actor(), instead=instead):
        raise Refused(f"somebody else has changed {draft.operator.name} meanwhile; look at it and say it again")
    database.ring()
    written = store.standing_of(database, draft.operator.name)
    return None if written is None else written.key_version


@click.command(name="apply")
@click.option("--lost-key", is_flag=True, help="The former master key is lost: write over what it locked.")
@scripted
def apply(lost_key: bool, config_path: Path, as_json: bool) -> None:
    """Bring what the file declares into force, as a reload of the daemon does; it takes it up at once.

    What the file no longer declares is taken out of force, and its deliveries wait; operators made by `set` stay.
    """
    config = read_configuration(config_path)
    database = opened(config, create=True)
    vault, now = open_vault(config, database), database.clock().now()
    written = provision(database, vault, config, now, actor=actor(), lost_key=lost_key)
    database.ring()
    declared = [name for name in written if name in config.documents]
    gone = [name for name in written if name not in config.documents]
    if as_json:
        print_json({"changed": declared, "out_of_force": gone})
    else:
        told = [
            f"{word}: {', '.join(names)}" for word, names in (("changed", declared), ("out of force", gone)) if names
        ]
        click.echo("\n".join(told) or "nothing to change")


def _stopping(command: Callable[..., None]) -> Callable[..., None]:
    """What `pause` and `resume` share."""
    for option in (
        scripted,
        click.option("--note", help="Why, for the record."),
        click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=operator_names),
    ):
        command = option(command)
    return command


@click.command(name="pause")
@_stopping
def pause(names: tuple[str, ...], note: str | None, config_path: Path, as_json: bool) -> None:
    """Send nothing until it is resumed. Nothing is dropped, and no attempt and no retry window is used up."""
    _each(config_path, names, note, store.pause, as_json, ("paused", "is paused already"))


@click.command(name="resume")
@_stopping
def resume(names: tuple[str, ...], note: str | None, config_path: Path, as_json: bool) -> None:
    """Send again, whether a person paused it or the breaker holds it; what waited goes out at the operator's pace."""
    _each(config_path, names, note, store.resume, as_json, ("resumed", "is neither paused nor held"))


def _each(
    config_path: Path,
    names: Sequence[str],
    note: str | None,
    turn: Callable[[Database, str, str, str | None, int], bool],
    as_json: bool,
    words: tuple[str, str],
) -> None:
    """All names are known before anything is changed. `words`: what is told of those it changed, and of the others."""
    there = open_operators(config_path)
    known = dict.fromkeys(map(there.known, names))
    clock = there.database.clock()
    done = {name: turn(there.database, name, actor(), note, clock.now()) for name in known}
    there.ring()
    did, did_not = words
    if as_json:
        told = {word: [name for name in done if done[name] is yes] for word, yes in ((did, True), ("unchanged", False))}
        print_json(told)
    else:
        for name, yes in done.items():
            click.echo(f"{name}: {did if yes else did_not}")
