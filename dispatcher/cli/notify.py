"""`dispatcher notify`: the webhooks by which people are told what died."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from dispatcher.cli.common import notification_names, print_json, print_table, read_configuration, tabled
from dispatcher.cli.opening import in_force, opened
from dispatcher.config import Config
from dispatcher.ground.clock import duration_text
from dispatcher.ground.errors import Refused, choices
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import words
from dispatcher.ground.operator import NOTIFY, SUMMARY, Operator
from dispatcher.ground.policy import Status
from dispatcher.protocols import summary
from dispatcher.store.acceptance import accept
from dispatcher.store.engine import Database, is_there
from dispatcher.store.ledger import Filter, Row, find, history, one

_LOOK_SECONDS = 0.1
_COLUMNS = ("notification", "preset", "every", "of", "last", "status", "attempts", "reason")


@click.group(name="notify")
def command() -> None:
    """Notifications: list, test. They are declared in the configuration, as [notifications.NAME]."""


@command.command(name="list")
@tabled
def list_(config_path: Path, as_json: bool, lang: str | None) -> None:
    """Every notification that the file declares, and what became of its latest summary."""
    config = read_configuration(config_path)
    database = opened(config) if is_there(config.database) else None
    rows = [_row(database, told) for told in config.notifications.values()]
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        said = words(lang)
        cells = [{**row, "status": said.get(str(row["status"]), ""), "of": ", ".join(row["of"])} for row in rows]
        print_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in cells], said)
    else:
        click.echo(words(lang)["nothing"])


def _row(database: Database | None, operator: Operator) -> dict[str, Any]:
    notification = operator.notification
    assert notification is not None
    found = find(database, Filter(operator=operator.name, type=SUMMARY), 1) if database else iter(())
    last = next(found, None)
    return {
        "notification": operator.name.removeprefix(NOTIFY),
        "preset": notification.preset.value,
        "every": duration_text(notification.every),
        "of": sorted(notification.operators),
        "last": last and last.key,
        "status": last and last.status,
        "attempts": last and last.attempts,
        "reason": last and last.reason,
    }


@command.command(name="test")
@click.argument("name", shell_complete=notification_names)
@click.option("--wait", type=click.IntRange(0, 3600), default=20, show_default=True, help="Seconds to wait for it.")
@tabled
def test(name: str, wait: int, config_path: Path, as_json: bool, lang: str | None) -> None:
    """Send a test message, as summaries are sent: by the running daemon, recorded and retried. Status 1 unless it

    arrived within the time.
    """
    config = read_configuration(config_path)
    operator = _named(config, name)
    database = opened(config, create=True)
    in_force(config, database)
    now = database.clock().now()
    facts = {"window": f"test-{now}", "since": now, "until": now, "operators": [], "others": 0, "console": None}
    event = summary.freeze(operator, facts)
    accept(database, [event], now)
    database.ring()
    row = _followed(database, operator.name, event.key, wait)
    made, _ = history(database, row.id)
    said = words(lang)
    detail = next((f"{made[-1][part]}" for part in ("detail", "response") if made and made[-1][part]), None)
    if as_json:
        names = ("operator", "key", "status", "attempts", "reason")
        print_json({**{name: getattr(row, name) for name in names}, "detail": detail})
    else:
        why = f": {said[f'why_{row.reason}']}" if row.reason else ""
        told = f"{row.operator} {row.key}: {said[row.status]}{why}{f' ({detail})' if why and detail else ''}"
        click.echo(printable(told))
    if row.status == Status.DELIVERED:
        return
    if not row.attempts:
        click.echo("no worker has taken it: is `dispatcher run` running? It is sent as soon as one does.", err=True)
    elif row.status != Status.DEAD:
        click.echo(f"it is tried again; see: dispatcher show {row.operator} {row.key}", err=True)
    sys.exit(1)


def _named(config: Config, name: str) -> Operator:
    operator = config.notifications.get(f"{NOTIFY}{name.removeprefix(NOTIFY)}")
    if operator is None:
        known = [one.removeprefix(NOTIFY) for one in config.notifications]
        mend = f"there are {choices(known)}" if known else f"write [notifications.{name}] in {config.path.name}"
        raise Refused(f"{name} is no notification; {mend}")
    return operator


def _followed(database: Database, operator: str, key: str, wait: int) -> Row:
    """As it stands once an attempt has ended, or the time is over."""
    end = time.monotonic() + wait
    while True:
        row = one(database, operator, key, SUMMARY)
        tried = row.reason is not None or row.status in (Status.DELIVERED, Status.DEAD)
        if tried or time.monotonic() >= end:
            return row
        time.sleep(_LOOK_SECONDS)
