"""`dispatcher dead`: what four attempts could not deliver, and what a person does about it."""

import csv
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import click

from dispatcher.cli.common import (
    actor,
    config_option,
    guarded,
    json_option,
    lang_option,
    opened,
    print_json,
    read_configuration,
)
from dispatcher.cli.rows import filters, paged, print_page, print_rows
from dispatcher.errors import Refused
from dispatcher.lang import words
from dispatcher.policy import Status, Verb
from dispatcher.roster import open_vault
from dispatcher.rows import FIELDS
from dispatcher.rows import as_json as row_as_json
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, Filter, Row, find, one, replay, resolve, sort_out

# A spreadsheet takes the full-width signs of a Chinese keyboard for the others.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


@click.group(name="dead")
def command() -> None:
    """Dead letters: list, replay, resolve, export."""


@command.command(name="list")
@filters
@paged
@config_option
@json_option
@lang_option
@guarded
def list_(
    where: Filter,
    limit: int,
    before: int | None,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """What is dead, newest first; --since and --until bound the time at which it died."""
    database = opened(read_configuration(config_path))
    print_page(find(database, _dead(where), limit, before), limit, words(lang), json=as_json)


def _dead(where: Filter) -> Filter:
    return replace(where, status=Status.DEAD)


_keys = click.argument("keys", nargs=-1, metavar="[OPERATOR KEY...]")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what it would touch, and change nothing.")


@command.command(name="replay")
@_keys
@filters
@_dry_run
@config_option
@json_option
@lang_option
@guarded
def replay_(
    keys: tuple[str, ...],
    where: Filter,
    dry_run: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Send again, with the whole retry schedule: OPERATOR KEY..., or filters with --since.

    Appends attempts; nothing recorded is changed. Refused while an attempt is in flight.
    """
    config = read_configuration(config_path)
    database = opened(config)
    rows = _chosen(database, keys, where)
    if dry_run:
        change = sort_out(rows, Verb.REPLAY)
    else:
        open_vault(config, database)
        change = replay(database, rows, actor(), database.clock().now())
        database.ring()
    for row in change.taken:
        if row.status == Status.RESOLVED:
            click.echo(f"{row.operator} {row.key}: was resolved by hand, and is sent again", err=True)
    _tell(change, "replayed", dry_run, as_json, lang)


@command.command(name="resolve")
@_keys
@filters
@click.option("--note", required=True, help="What was agreed, and with whom; it stands in the log for good.")
@_dry_run
@config_option
@json_option
@lang_option
@guarded
def resolve_(
    keys: tuple[str, ...],
    where: Filter,
    note: str,
    dry_run: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Close by hand what was settled with the operator in another way: OPERATOR KEY..., or filters with --since."""
    if not note.strip():
        raise click.UsageError("--note is empty: write what was agreed, and with whom")
    config = read_configuration(config_path)
    database = opened(config)
    rows = _chosen(database, keys, where)
    if dry_run:
        change = sort_out(rows, Verb.RESOLVE)
    else:
        open_vault(config, database)
        change = resolve(database, rows, actor(), note.strip(), database.clock().now())
        # Whoever stood behind it in line may go.
        database.ring()
    _tell(change, "resolved", dry_run, as_json, lang)


@command.command(name="export")
@filters
@click.option("--format", "kind_of_file", type=click.Choice(["csv", "ndjson"]), default="csv", show_default=True)
@click.option("-o", "--output", default="-", type=click.Path(dir_okay=False, allow_dash=True), help="A file, or -.")
@config_option
@json_option
@guarded
def export(
    where: Filter,
    kind_of_file: str,
    output: str,
    config_path: Path,
    as_json: bool,
) -> None:
    """Dead letters as CSV (UTF-8 with a mark, so that spreadsheets read Chinese) or NDJSON, without a limit."""
    database = opened(read_configuration(config_path))
    rows = find(database, _dead(where), None)
    with _opened(output) as file:
        if kind_of_file == "csv" and not as_json:
            _write_csv(file, rows)
        else:
            import orjson

            for row in rows:
                file.write(orjson.dumps(row_as_json(row)).decode() + "\n")


@contextmanager
def _opened(output: str) -> Iterator[IO[str]]:
    """The file, or standard output for `-`; UTF-8 in any locale."""
    try:
        with click.open_file(output, "w", encoding="utf-8") as file:
            yield file
            file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refused(f"{output} can't be written ({error.strerror}); name another file") from None


def _write_csv(file: IO[str], rows: Iterator[Row]) -> None:
    file.write("\ufeff")
    writer = csv.DictWriter(file, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: harmless(value) for name, value in row_as_json(row).items()})


def harmless(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _chosen(database: Database, keys: tuple[str, ...], where: Filter) -> list[Row]:
    """The rows that keys or filters name. Raises Refused or UsageError where they name nothing clearly."""
    if keys:
        if len(keys) < 2:
            raise click.UsageError("give OPERATOR and at least one KEY, or filters with --since")
        if (where.operator, where.uid, where.reason, where.since, where.until) != (None,) * 5:
            raise click.UsageError("give either OPERATOR KEY... or filters, not both")
        return [one(database, keys[0], key, where.type) for key in dict.fromkeys(keys[1:])]
    if where.since is None:
        raise click.UsageError("filters must be bounded in time: add --since (and --until), or give OPERATOR KEY...")
    rows = list(find(database, _dead(where), None))
    if not rows:
        raise Refused("no dead letter fits; see: dispatcher dead list")
    return rows


def _tell(change: Change, done: str, dry_run: bool, as_json: bool, lang: str | None) -> None:
    refused = [
        {"operator": row.operator, "key": row.key, "type": row.type, "reason": why} for row, why in change.refused
    ]
    if as_json:
        taken = [{"operator": row.operator, "key": row.key, "type": row.type} for row in change.taken]
        print_json({done: len(taken), "dry_run": dry_run, "deliveries": taken, "refused": refused})
    else:
        if dry_run and change.taken:
            print_rows(change.taken, words(lang), json=False)
        click.echo(f"{'would be ' if dry_run else ''}{done}: {len(change.taken)}")
    for one_refused in refused:
        click.echo(f"{one_refused['operator']} {one_refused['key']}: {one_refused['reason']}", err=True)
    if refused:
        sys.exit(1)
