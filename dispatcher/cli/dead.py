"""`dispatcher dead`: what four attempts could not deliver, and what a person does about it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import click

from dispatcher import sheet
from dispatcher.cli.common import actor, print_json, read_configuration, scripted, tabled
from dispatcher.cli.opening import opened_about
from dispatcher.cli.rows import filters, paged, print_page, print_rows
from dispatcher.ground.errors import Refused
from dispatcher.ground.lang import Words, words
from dispatcher.ground.policy import Status, Verb
from dispatcher.roster import open_vault
from dispatcher.rows import FIELDS, json_line
from dispatcher.rows import as_json as row_as_json
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, Filter, Row, find, one, replay, resolve, sort_out


@click.group(name="dead")
def command() -> None:
    """Dead letters: list, replay, resolve, export."""


@command.command(name="list")
@filters
@paged
@tabled
def list_(
    where: Filter,
    limit: int,
    before: int | None,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """What is dead, newest first; --since and --until bound the time at which it died."""
    database = opened_about(read_configuration(config_path), where.operator)
    page = find(database, _dead(where), limit, before)
    print_page(page, limit, words(lang), json=as_json, dead=True)


def _dead(where: Filter) -> Filter:
    return replace(where, status=Status.DEAD)


_keys = click.argument("keys", nargs=-1, metavar="[OPERATOR KEY...]")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what it would touch, and change nothing.")


@command.command(name="replay")
@_keys
@filters
@click.option("--note", help="Why; it stands in the log for good. A job must have one.")
@click.option(
    "--pace",
    type=click.IntRange(1, replays.MOST_PACE),
    help="Not all at once: a job that sends so many again a second. Any worker drives it; see `dispatcher replays`.",
)
@click.option("--detach", is_flag=True, help="Do not follow the job.")
@click.option("--even-superseded", is_flag=True, help="The job takes those too that a later event has overtaken.")
@_dry_run
@tabled
def replay_(
    keys: tuple[str, ...],
    where: Filter,
    note: str | None,
    pace: int | None,
    detach: bool,
    even_superseded: bool,
    dry_run: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Send again, with the whole retry schedule: OPERATOR KEY..., or filters with --since.

    Appends attempts; nothing recorded is changed. Refused while an attempt is in flight.
    """
    if note is not None and not note.strip():
        raise click.UsageError("--note is empty: write why they are sent again")
    config = read_configuration(config_path)
    database = opened_about(config, where.operator)
    if pace is not None:
        which = _which(keys, where)._replace(even_superseded=even_superseded)
        if dry_run:
            _count(database, which, pace, as_json)
        else:
            open_vault(config, database)
            _make(database, which, pace, note, words(lang), detach=detach, as_json=as_json)
        return
    if detach or even_superseded:
        raise click.UsageError("--detach and --even-superseded are a job's: give it a --pace")
    rows = _chosen(database, keys, where)
    if dry_run:
        change = sort_out(rows, Verb.REPLAY)
    else:
        open_vault(config, database)
        change = replay(database, rows, actor(), database.clock().now(), note and note.strip())
        database.ring()
    for row in change.taken:
        if row.status == Status.RESOLVED:
            click.echo(f"{row.operator} {row.key}: was resolved by hand, and is sent again", err=True)
    _tell(change, "replayed", dry_run, as_json, lang)


def _which(keys: tuple[str, ...], where: Filter) -> replays.Which:
    """What a job is to take. Raises UsageError where that is not clear."""
    _check(keys, where)
    if keys:
        return replays.Which(operator=keys[0], type=where.type, keys=tuple(dict.fromkeys(keys[1:])))
    which = replays.Which(where.operator, where.type, where.uid, where.reason, where.since, where.until)
    for fault in which.faults():
        raise click.UsageError(f"--{fault}")
    return which


def _count(database: Database, which: replays.Which, pace: int, as_json: bool) -> None:
    total, refused = replays.count(database, which, database.clock().now())
    seconds = round((total - refused) / pace)
    if as_json:
        counted = {"replayed": total - refused, "dry_run": True, "total": total, "refused": refused}
        print_json({**counted, "seconds": seconds})
    else:
        click.echo(f"would be replayed: {total - refused}, in {seconds} s at {pace} a second")
        if refused:
            click.echo(f"would be refused as things stand: {refused}", err=True)
    if not total:
        raise Refused("no dead letter fits; see: dispatcher dead list")


def _make(
    database: Database, which: replays.Which, pace: int, note: str | None, said: Words, *, detach: bool, as_json: bool
) -> None:
    from dispatcher.cli.replays import finish, follow

    if note is None:
        raise click.UsageError("--note is missing; write why they are sent again: it stands in the log for good")
    job = replays.make(database, which, pace, actor(), note, database.clock().now())
    if detach:
        click.echo(f"replay {job.id} is made; see: dispatcher replays show {job.id}", err=True)
    sys.exit(finish(database, job if detach else follow(database, job), said, as_json=as_json))


@command.command(name="resolve")
@_keys
@filters
@click.option("--note", help="What was agreed, and with whom; it stands in the log for good.  [required]")
@_dry_run
@tabled
def resolve_(
    keys: tuple[str, ...],
    where: Filter,
    note: str | None,
    dry_run: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Close by hand what was settled with the operator in another way: OPERATOR KEY..., or filters with --since."""
    if note is None:
        raise click.UsageError(
            "--note is missing; say what was agreed, and who agreed to it: it stands in the log for good"
        )
    if not note.strip():
        raise click.UsageError("--note is empty: write what was agreed, and with whom")
    config = read_configuration(config_path)
    database = opened_about(config, where.operator)
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
@scripted
def export(
    where: Filter,
    kind_of_file: str,
    output: str,
    config_path: Path,
    as_json: bool,
) -> None:
    """Dead letters as CSV (UTF-8 with a mark, so that spreadsheets read Chinese) or NDJSON, without a limit."""
    database = opened_about(read_configuration(config_path), where.operator)
    rows = find(database, _dead(where), None)
    with _opened(output) as file:
        if kind_of_file == "csv" and not as_json:
            _write_csv(file, rows)
        else:
            for row in rows:
                file.write(json_line(row))


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
    file.write(sheet.MARK + sheet.line(FIELDS))
    for row in rows:
        told = row_as_json(row)
        file.write(sheet.line(told.get(name) for name in FIELDS))


def _chosen(database: Database, keys: tuple[str, ...], where: Filter) -> list[Row]:
    """The rows that keys or filters name. Raises Refused or UsageError where they name nothing clearly."""
    _check(keys, where)
    if keys:
        return [one(database, keys[0], key, where.type) for key in dict.fromkeys(keys[1:])]
    rows = list(find(database, _dead(where), None))
    if not rows:
        raise Refused("no dead letter fits; see: dispatcher dead list")
    return rows


def _check(keys: tuple[str, ...], where: Filter) -> None:
    """Raises UsageError where it is neither keys nor filters bounded in time."""
    if keys:
        if len(keys) < 2:
            raise click.UsageError("no KEY is named; give OPERATOR and at least one KEY, or filters with --since")
        if (where.operator, where.uid, where.reason, where.since, where.until) != (None,) * 5:
            raise click.UsageError("both keys and filters are given; give either OPERATOR KEY... or filters, not both")
    elif where.since is None:
        raise click.UsageError("filters must be bounded in time: add --since (and --until), or give OPERATOR KEY...")


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
