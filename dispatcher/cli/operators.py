"""`dispatcher operators`: who is told, how, and whether at the moment; secrets are never printed."""

import asyncio
import json
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from dispatcher.cli.common import (
    actor,
    clock_time,
    config_option,
    guarded,
    json_option,
    lang_option,
    opened,
    print_json,
    print_table,
    read_configuration,
)
from dispatcher.clock import WallClock, iso
from dispatcher.config import Config, Draft, draft_operator
from dispatcher.errors import Refused
from dispatcher.lang import Words, words
from dispatcher.roster import FILE, Member, Roster, load, open_vault, provision, put
from dispatcher.seal.vault import Vault
from dispatcher.store import operators as store
from dispatcher.store.engine import Bell, Database
from dispatcher.store.ledger import operators_waiting
from dispatcher.store.operators import Standing

_COLUMNS = ("name", "state", "origin", "types", "concurrency", "key_version", "waiting", "updated_at")
_DONE = ("at", "verb", "actor", "note")


@click.group(name="operators")
def command() -> None:
    """Operators: list, show, set, apply, pause, resume, check."""


class _Desk(NamedTuple):
    """What every one of these commands works with."""

    config: Config
    database: Database
    vault: Vault
    roster: Roster

    def member(self, name: str) -> Member:
        """Raises Refused for a name that is not in force."""
        if name in self.roster.faults:
            raise Refused(f"{name} can't be used: {self.roster.faults[name]}")
        if name not in self.roster.members:
            known = ", ".join(self.roster.members) or "none yet"
            raise Refused(f"there is no operator {name} in force (there are: {known})")
        return self.roster.members[name]

    def ring(self) -> None:
        Bell(self.config.database).ring()


def _desk(config_path: Path) -> _Desk:
    """The operators in force; those that the file declares and the database has never seen are written first."""
    config = read_configuration(config_path)
    database = opened(config, create=True)
    vault = open_vault(config, database)
    provision(database, vault, config, WallClock().now(), actor=actor(), only_new=True)
    return _Desk(config, database, vault, load(database, vault, config))


@command.command(name="list")
@config_option
@json_option
@lang_option
@guarded
def list_(config_path: Path, as_json: bool, lang: str | None) -> None:
    """Every operator in force, whether it is paused or held, and how much waits for it."""
    desk = _desk(config_path)
    waiting = operators_waiting(desk.database)
    rows = [_row(member, waiting.get(name, 0)) for name, member in desk.roster.members.items()]
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        print_table(_COLUMNS, [_cells(row, words(lang)) for row in rows], words(lang))
    else:
        click.echo(words(lang)["nothing"])
    for name, fault in desk.roster.faults.items():
        click.echo(f"{name} can't be used: {fault}", err=True)
    sys.exit(1 if desk.roster.faults else 0)


def _row(member: Member, waiting: int) -> dict[str, Any]:
    operator, standing = member.operator, member.standing
    return {
        "name": operator.name,
        "state": _state(standing),
        "origin": standing.origin,
        "types": [kind for kind, terms in operator.terms.items() if terms.url is not None],
        "concurrency": operator.concurrency,
        "key_version": standing.key_version,
        "waiting": waiting,
        "updated_at": iso(standing.updated_at),
        "paused_at": iso(standing.paused_at),
        "held_at": iso(standing.held_at),
    }


def _state(standing: Standing) -> str:
    if standing.paused_at is not None:
        return "paused"
    return "held" if standing.held_at is not None else "open"


def _cells(row: Mapping[str, Any], said: Words) -> list[object]:
    shown = {**row, "state": said[row["state"]], "types": ", ".join(row["types"])}
    return [shown[name] for name in _COLUMNS]


@command.command(name="show")
@click.argument("name")
@config_option
@json_option
@lang_option
@guarded
def show(name: str, config_path: Path, as_json: bool, lang: str | None) -> None:
    """One operator: its settings as they are in force, its keys, and who changed it when. Every secret is …"""
    desk = _desk(config_path)
    member = desk.member(name)
    row = _row(member, operators_waiting(desk.database).get(name, 0))
    keys, done = store.key_history(desk.database, name), store.done_to(desk.database, name)
    if as_json:
        told = [{**one, "since": iso(one["since"])} for one in keys]
        by_hand = [{**one, "at": iso(one["at"])} for one in done]
        print_json({**row, "settings": member.settings(), "keys": told, "actions": by_hand})
        return
    said = words(lang)
    print_table(_COLUMNS, [_cells(row, said)], said)
    click.echo(json.dumps(member.settings(), indent=2, ensure_ascii=False) + "\n")
    if keys:
        table = [[one["version"], one["fingerprint"], clock_time(one["since"])] for one in keys]
        print_table(("key_version", "fingerprint", "since"), table, said)
    print_table(_DONE, [[clock_time(one["at"]), *(one[part] for part in _DONE[1:])] for one in done], said)


@command.command(name="set")
@click.argument("name")
@click.argument("settings", nargs=-1, metavar="SETTING=VALUE...")
@click.option("--unset", "unset", metavar="SETTING", multiple=True, help="Take a setting away; can be repeated.")
@click.option(
    "--secret", "secrets", metavar="SETTING", multiple=True, help="Ask for it hidden, or read a line of standard input."
)
@click.option("--dry-run", is_flag=True, help="Say what is wrong with it, and change nothing.")
@config_option
@guarded
def set_(
    name: str,
    settings: tuple[str, ...],
    unset: tuple[str, ...],
    secrets: tuple[str, ...],
    dry_run: bool,
    config_path: Path,
) -> None:
    """Make an operator, or change its settings; a running daemon takes it up at once.

    SETTING is a key of [operators.NAME], like concurrency or crypto.cipher; VALUE is written as in TOML, quotes may be
    left out. Secrets come by --secret crypto.key, or crypto.key_file=PATH, or crypto.key_env=NAME: never as a VALUE,
    which would stand in the shell's history.
    """
    desk = _desk(config_path)
    member = desk.roster.members.get(name)
    if member is not None and member.standing.origin == FILE:
        told = f"change it there, then: dispatcher operators apply -c {desk.config.path}"
        raise Refused(f"{name} is declared by {desk.config.path.name}: {told}")
    raw = json.loads(member.draft.document.reveal()) if member else {}
    given = [_assignment(text) for text in settings]
    for path, value in [*given, *((tuple(one.split(".")), _asked(one)) for one in secrets)]:
        _forget_other_forms(raw, path)
        _put(raw, path, value)
    for path in (tuple(one.split(".")) for one in unset):
        _put(raw, path, None)
    draft = draft_operator(name, raw, desk.config.defaults, Path.cwd())
    _refuse_open_secrets(draft, [path for path, _ in given])
    for warning in draft.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if dry_run:
        click.echo(f"{name}: fit; nothing was changed")
        return
    put(desk.database, desk.vault, draft, WallClock().now(), actor=actor())
    desk.ring()
    version = next(one.key_version for one in store.standings(desk.database) if one.name == name)
    click.echo(f"{name}: set" + ("" if version is None else f", key version {version}"))


def _assignment(text: str) -> tuple[tuple[str, ...], Any]:
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise click.UsageError(f"{key!r} is no SETTING=VALUE: write e.g. concurrency=8 or crypto.cipher=aes-256-cbc")
    try:
        return path, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return path, value


def _asked(setting: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(setting, hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _forget_other_forms(raw: dict[str, Any], path: Sequence[str]) -> None:
    """A secret that comes in one form takes the place of the one that came in another."""
    last = path[-1].removesuffix("_env").removesuffix("_file")
    if last != path[-1]:
        _put(raw, (*path[:-1], last), None)


def _put(raw: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a value below tables that are made as needed; None takes it away."""
    for part in path[:-1]:
        below = raw.setdefault(part, {})
        if not isinstance(below, dict):
            raise click.UsageError(f"{'.'.join(path)}: {part} is no table")
        raw = below
    if value is None:
        raw.pop(path[-1], None)
    else:
        raw[path[-1]] = value


def _refuse_open_secrets(draft: Draft, given: Sequence[tuple[str, ...]]) -> None:
    for path in given:
        if any(secret[: len(path)] == path for secret in draft.secrets):
            name = ".".join(path)
            raise click.UsageError(f"{name} is a secret: use --secret {name}, {name}_file=PATH or {name}_env=NAME")


@command.command(name="apply")
@config_option
@json_option
@guarded
def apply(config_path: Path, as_json: bool) -> None:
    """Bring what the file declares into force, as a reload of the daemon does; it takes it up at once."""
    desk = _desk(config_path)
    changed = provision(desk.database, desk.vault, desk.config, WallClock().now(), actor=actor())
    desk.ring()
    if as_json:
        print_json({"changed": changed})
    else:
        click.echo(f"changed: {', '.join(changed)}" if changed else "nothing to change")


@command.command(name="pause")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--note", help="Why, for the record.")
@config_option
@guarded
def pause(names: tuple[str, ...], note: str | None, config_path: Path) -> None:
    """Send nothing until it is resumed. Nothing is dropped, and no attempt and no retry window is used up."""

    def one(desk: _Desk, member: Member, now: int) -> str:
        by = ("pause", actor(), note)
        return (
            "paused" if store.stop(desk.database, member.operator.name, "paused_at", by, now) else "is paused already"
        )

    _each(config_path, names, one)


@command.command(name="resume")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--note", help="Why, for the record.")
@config_option
@guarded
def resume(names: tuple[str, ...], note: str | None, config_path: Path) -> None:
    """Send again, whether a person paused it or the breaker holds it; what waited goes out at the operator's pace."""

    def one(desk: _Desk, member: Member, now: int) -> str:
        by = ("resume", actor(), note)
        stopped = [store.start(desk.database, member.operator.name, column, by, now) for column in _STOPS]
        return "resumed" if any(stopped) else "is neither paused nor held"

    _each(config_path, names, one)


_STOPS = ("paused_at", "held_at")


def _each(config_path: Path, names: Sequence[str], work: Callable[[_Desk, Member, int], str]) -> None:
    """All names are known before anything is changed."""
    desk = _desk(config_path)
    members = [desk.member(name) for name in dict.fromkeys(names)]
    for member in members:
        click.echo(f"{member.operator.name}: {work(desk, member, WallClock().now())}")
    desk.ring()


@command.command(name="check")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@config_option
@json_option
@guarded
def check(names: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """Whether each operator's settings are fit and its servers can be reached; nothing is sent."""
    from dispatcher.cli.check import reach_all

    desk = _desk(config_path)
    members = [desk.member(name) for name in dict.fromkeys(names)] if names else list(desk.roster.members.values())
    unreached = asyncio.run(reach_all([member.operator for member in members], desk.config.allow))
    faults = {name: fault for name, fault in desk.roster.faults.items() if not names}
    if as_json:
        print_json({"ok": not (faults or unreached), "faults": faults, "unreached": [str(one) for one in unreached]})
    else:
        for name, fault in faults.items():
            click.echo(f"{name} can't be used: {fault}")
        for one in unreached:
            click.echo(str(one))
        click.echo("ok" if not (faults or unreached) else f"{len(faults) + len(unreached)} fault(s)")
    sys.exit(1 if faults or unreached else 0)
