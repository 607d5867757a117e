"""`dispatcher audit`: the books are proved, and the head of the journal is told."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from dispatcher.accept import refrozen
from dispatcher.cli.common import Moment, print_table, progress, read_configuration, tabled
from dispatcher.cli.opening import opened_about
from dispatcher.ground.errors import EventError
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import Words, words
from dispatcher.ground.operator import Operator
from dispatcher.roster import load, open_vault
from dispatcher.store.notary import Notary
from dispatcher.store.proof.audit import audit
from dispatcher.store.proof.findings import Finding, Freeze, Scope, Seen
from dispatcher.store.proof.proofs import Check

SHOWN = 40
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-fA-F]{8,64})", re.ASCII)


class _Noted(click.ParamType[tuple[int, str]]):
    """A head as this command told it once."""

    name = "head"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        found = _HEAD.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is no head: write it as it was told, like 12:0f3a9c1b2d4e5f60")
        return int(found[1]), found[2].lower()


@click.command(name="audit")
@click.option("--operator", help="Only this one's deliveries; the journal is proved as a whole all the same.")
@click.option("--since", type=Moment(), help="Only deliveries accepted since: a date, a time, or how long ago (7d).")
@click.option(
    "--head", "heads", type=_Noted(), multiple=True, metavar="N:HASH", help="A head that was noted: is it still there?"
)
@click.option("--thorough", is_flag=True, help="On SQLite, hold every index against its table: much slower.")
@tabled
def command(
    operator: str | None,
    since: int | None,
    heads: tuple[tuple[int, str], ...],
    thorough: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Prove the books: attempts and statuses agree, and nobody altered or took out what was done by hand.

    Changes nothing, and works beside a running daemon. The last line is the head of the journal: note it elsewhere, day
    by day, and give it with --head later; so an end that was cut off is found. Exit status 1 with what is wrong.
    """
    config = read_configuration(config_path)
    database = opened_about(config, operator)
    vault, seen = open_vault(config, database), Seen()
    operators = load(database, vault, config).operators or config.operators
    keys = Notary(vault.lock, vault.unlock).every_key
    scope = Scope(operator, since, config.retention, thorough, heads)
    now = database.clock().now()
    with database.reading() as connection, progress("deliveries") as tell:
        found = audit(connection, keys(connection), scope, _freezer(operators), now, tell, seen)
        shown = _print_each(found, seen) if as_json else _first(found)
    if not as_json:
        _print(shown, seen, words(lang))
    sys.exit(1 if seen.faults.total() else 0)


def _freezer(operators: Mapping[str, Operator]) -> Freeze:
    """Any operator will do; where there is none, nobody can say."""
    any_operator = next(iter(operators.values()), None)

    def freeze(kind: str, body: str) -> tuple[str, str, bytes] | Literal[False] | None:
        if any_operator is None:
            return None
        try:
            event = refrozen(any_operator, kind, body)
        except EventError:
            return False
        return None if event is None else (event.key, event.uid, event.digest)

    return freeze


def _first(found: Iterable[Finding]) -> list[Finding]:
    """Some dozens for people; the rest is counted all the same."""
    shown: list[Finding] = []
    for finding in found:
        if len(shown) < SHOWN:
            shown.append(finding)
    return shown


def _print_each(found: Iterable[Finding], seen: Seen) -> list[Finding]:
    """One document, written as it is found: however much is wrong, none of it is kept."""
    click.echo('{"findings":[', nl=False)
    for number, finding in enumerate(found):
        click.echo(("," if number else "") + orjson.dumps(finding._asdict()).decode(), nl=False)
    told = {
        "ok": not seen.faults.total(),
        "faults": seen.faults.total(),
        "remarks": seen.remarks.total(),
        "head": str(seen.head),
        "sealed_from": seen.sealed_from,
        "deliveries": dict(seen.statuses),
        "absent": seen.absent,
        "checks": [
            {"check": one, "rows": seen.rows[one], "faults": seen.faults[one], "remarks": seen.remarks[one]}
            for one in Check
        ],
    }
    click.echo(f"],{orjson.dumps(told).decode()[1:]}")
    return []


def _print(shown: Sequence[Finding], seen: Seen, said: Words) -> None:
    rows = [
        [one, said[f"proof_{one}"], seen.rows[one], seen.faults[one] or "", seen.remarks[one] or ""] for one in Check
    ]
    print_table(("check", "proves", "rows", "faults", "remarks"), rows, said)
    for finding in shown:
        where = " ".join(str(part) for part in (finding.operator, finding.type, finding.key) if part is not None)
        number = "" if finding.id is None or finding.check is Check.JOURNAL else f" (id {finding.id})"
        told = f"{finding.check}: {f'{where}{number}: ' if where or number else ''}{finding.told}"
        click.echo(printable(told), err=finding.fault)
    every = seen.faults.total() + seen.remarks.total()
    if every > len(shown):
        click.echo(f"… {every - len(shown)} more; all of them: --json", err=True)
    there = (
        ", ".join(f"{count} {said.get(status, status)}" for status, count in seen.statuses.items()) or said["nothing"]
    )
    click.echo(there)
    click.echo(f"{said['head']}: {seen.head}")
