"""`dispatcher show`: one delivery, with its event and everything that was tried."""

from pathlib import Path
from typing import Any

import click
import orjson

from dispatcher.cli.common import operator_names, print_json, print_table, read_configuration, tabled
from dispatcher.cli.opening import opened
from dispatcher.cli.rows import print_rows
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import Words, words
from dispatcher.protocols import SPOKEN
from dispatcher.rows import event_of, whole
from dispatcher.store.ledger import history, one

_ATTEMPT = (
    *("n", "trigger", "started_at", "duration_ms", "http_status"),
    *("code", "reason", "key_version", "response", "detail"),
)
_ACTION = ("at", "verb", "actor", "note")


@click.command(name="show")
@click.argument("operator", shell_complete=operator_names)
@click.argument("key")
@click.option("--type", "kind", type=click.Choice(list(SPOKEN)), help="Where the key exists under several types.")
@tabled
def command(operator: str, key: str, kind: str | None, config_path: Path, as_json: bool, lang: str | None) -> None:
    """One delivery: its state, its event, every attempt, and what was done by hand."""
    database = opened(read_configuration(config_path))
    row = one(database, operator, key, kind)
    attempts, actions = history(database, row.id)
    if as_json:
        print_json(whole(row, attempts, actions))
        return
    said = words(lang)
    print_rows([row], said, json=False)
    click.echo(f"{said['event']}: {printable(orjson.dumps(event_of(row)).decode())}\n")
    print_table(_ATTEMPT, [_attempt(attempt, said) for attempt in attempts], said)
    if actions:
        print_table(_ACTION, [[action[name] for name in _ACTION] for action in actions], said)


def _attempt(attempt: dict[str, Any], said: Words) -> list[object]:
    reason = attempt["reason"]
    told = f"{reason}: {said[f'why_{reason}']}" if reason else None
    if attempt["ambiguous"]:
        told = f"{told} * {said['ambiguous']}"
    return [told if name == "reason" else attempt[name] for name in _ATTEMPT]
