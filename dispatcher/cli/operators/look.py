"""`dispatcher operators list`, `show` and `check`."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dispatcher.cli.common import clock_time, operator_names, print_json, print_table, scripted, tabled
from dispatcher.cli.operators.in_force import InForce, open_operators
from dispatcher.ground.clock import iso
from dispatcher.ground.errors import Refused
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import Words, words
from dispatcher.store import operators as store
from dispatcher.store.fingerprints import key_history
from dispatcher.store.ledger import operators_waiting
from dispatcher.store.operators import Doors

_COLUMNS = ("name", "state", "origin", "types", "concurrency", "key_version", "waiting", "updated_at")
_DONE = ("at", "verb", "actor", "note", "changed")


@click.command(name="list")
@tabled
def list_(config_path: Path, as_json: bool, lang: str | None) -> None:
    """Every operator in force, whether it is paused or held, and how much waits for it."""
    there = open_operators(config_path)
    waiting = operators_waiting(there.database)
    rows = [_row(there, name, waiting.get(name, 0)) for name in there.standings]
    fit = [row for row in rows if row["fault"] is None]
    if as_json:
        for row in rows:
            print_json(row)
    elif fit:
        print_table(_COLUMNS, [_cells(row, words(lang)) for row in fit], words(lang))
    else:
        click.echo(words(lang)["nothing"])
    for name, fault in there.roster.faults.items():
        click.echo(f"{name} can't be used: {fault}", err=True)
    sys.exit(1 if there.roster.faults else 0)


def _row(there: InForce, name: str, waiting: int) -> dict[str, Any]:
    """One line of the list; of one that can't be used it says why, and not what it would take."""
    standing = there.standings[name]
    member = there.roster.members.get(name)
    terms = member.operator.terms if member else {}
    return {
        "name": name,
        "state": standing.doors if member else Doors.UNFIT,
        "origin": standing.origin,
        "types": [kind for kind, own in terms.items() if own.url is not None],
        "concurrency": member.operator.concurrency if member else None,
        "key_version": standing.key_version,
        "waiting": waiting,
        "updated_at": iso(standing.updated_at),
        "paused_at": iso(standing.paused_at),
        "held_at": iso(standing.held_at),
        "fault": there.roster.faults.get(name),
    }


def _cells(row: Mapping[str, Any], said: Words) -> list[object]:
    shown = {**row, "state": said[row["state"]], "types": ", ".join(row["types"])}
    return [shown[name] for name in _COLUMNS]


@click.command(name="show")
@click.argument("name", shell_complete=operator_names)
@tabled
def show(name: str, config_path: Path, as_json: bool, lang: str | None) -> None:
    """One operator: its settings as they are in force, its keys, and who changed it when. Every secret is …"""
    there = open_operators(config_path)
    there.known(name)
    if name in there.roster.faults:
        mend = f"`dispatcher operators set {name} …` changes its settings"
        raise Refused(f"{name} can't be used: {there.roster.faults[name]}; {mend}")
    settings = there.roster.members[name].settings()
    row = _row(there, name, operators_waiting(there.database).get(name, 0))
    keys, done = key_history(there.database, name), store.done_to(there.database, name)
    if as_json:
        told = [_as_json(one, "since") for one in keys]
        by_hand = [_as_json(one, "at") for one in done]
        print_json({**row, "settings": settings, "keys": told, "actions": by_hand})
        return
    said = words(lang)
    print_table(_COLUMNS, [_cells(row, said)], said)
    for line in json.dumps(settings, indent=2, ensure_ascii=False).splitlines():
        click.echo(printable(line))
    click.echo()
    if keys:
        table = [[one["version"], one["fingerprint"], clock_time(one["since"])] for one in keys]
        print_table(("key_version", "fingerprint", "since"), table, said)
    cells = [{**one, "at": clock_time(one["at"]), "changed": ", ".join(one["changed"] or ())} for one in done]
    print_table(_DONE, [[one[part] for part in _DONE] for one in cells], said)


def _as_json(row: Mapping[str, Any], at: str) -> dict[str, Any]:
    """A row of the store with its time written out; its names as plain text, which the store's own are not."""
    return {str(name): iso(value) if name == at else value for name, value in row.items()}


@click.command(name="check")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=operator_names)
@scripted
def check(names: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """Whether each operator's settings are fit and its servers can be reached; nothing is sent."""
    from dispatcher.cli.check import reach_all

    there = open_operators(config_path)
    chosen = [there.known(name) for name in dict.fromkeys(names)] if names else list(there.standings)
    faults = {name: there.roster.faults[name] for name in chosen if name in there.roster.faults}
    operators = [there.roster.members[name].operator for name in chosen if name not in faults]
    unreached = asyncio.run(reach_all(operators, there.config.allow))
    if as_json:
        print_json({"ok": not (faults or unreached), "faults": faults, "unreached": [str(one) for one in unreached]})
    else:
        for name, fault in faults.items():
            click.echo(f"{name} can't be used: {fault}")
        for one in unreached:
            click.echo(str(one))
        click.echo("ok" if not (faults or unreached) else f"{len(faults) + len(unreached)} fault(s)")
    sys.exit(1 if faults or unreached else 0)
