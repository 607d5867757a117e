"""`dispatcher reconcile`: the operator's books held against ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatcher import sheet
from dispatcher.cli.common import Moment, actor, print_json, print_table, read_configuration, tabled
from dispatcher.cli.opening import in_force, no_operator, opened
from dispatcher.config import Config
from dispatcher.ground.errors import Refused
from dispatcher.ground.lang import Words, words
from dispatcher.protocols import PROTOCOLS

if TYPE_CHECKING:
    from dispatcher.ground.operator import Operator
    from dispatcher.reconcile.books import Difference
    from dispatcher.reconcile.comparison import Comparison, Plan, Question
    from dispatcher.store.engine import Database
    from dispatcher.store.ledger import Change

_FIELDS = ("difference", "operator", "type", "key", "id", "status", "ambiguous", "bookings", "lines", "mend")
_DONE = ("replayed", "resolved")


@click.command(name="reconcile")
@click.argument("operator")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--since", type=Moment(), required=True, help="What we accepted from this time on.")
@click.option("--until", type=Moment(), help="Before this time; now unless given.")
@click.option("--type", "kind", type=click.Choice(list(PROTOCOLS)), help="Of this message type.")
@click.option(
    "-o",
    "--differences",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Every difference into this file: .csv, or .ndjson.",
)
@click.option("--mend", is_flag=True, help="Replay what is dead and not booked there, resolve what is dead and booked.")
@click.option("--dry-run", is_flag=True, help="With --mend: show what that would touch, and change nothing.")
@tabled
def command(
    operator: str,
    path: Path,
    since: int,
    until: int | None,
    kind: str | None,
    output: Path | None,
    mend: bool,
    dry_run: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Compare FILE, the operator's list of what it booked (CSV, or NDJSON), with the log.

    What its columns are called stands in the operator's settings, in the table TYPE.export. The list should reach a
    little beyond both ends of the span: what was accepted just before its end is booked just after it. Exit status 1
    where anything differs.
    """
    from dispatcher.reconcile.comparison import Question, carry_out, type_of

    if dry_run and not mend:
        raise click.UsageError(
            "--dry-run goes with --mend, without which nothing is changed; add that, or leave it out"
        )
    config = read_configuration(config_path)
    database = opened(config)
    whose, now = _whose(config, database, operator), database.clock().now()
    asked = Question(whose, type_of(whose, kind), path, since, until or now)
    if asked.since >= asked.until:
        raise click.UsageError("--since is not before --until; write an earlier time, or leave --until out")
    comparison, plan = _compared(database, asked, output)
    done: tuple[Change, Change] | None = None
    if mend:
        unfit = comparison.unfit_to_mend()
        if unfit is not None:
            _tell(comparison, None, output, dry_run=dry_run, as_json=as_json, lang=lang)
            mend_it = "give the whole list of that time, or change --since and --until"
            raise Refused(f"nothing was changed: {unfit}; {mend_it}")
        done = carry_out(database, asked, plan, actor(), now, dry_run=dry_run)
        if not dry_run:
            database.ring()
    _tell(comparison, done, output, dry_run=dry_run, as_json=as_json, lang=lang)
    if not comparison.summary.agree:
        sys.exit(1)


def _compared(database: "Database", asked: "Question", output: Path | None) -> "tuple[Comparison, Plan]":
    """Every difference goes where it was asked for, and what would mend it into the plan."""
    from dispatcher.reconcile.comparison import Comparison, Plan

    with _counting() as tell:
        comparison, plan = Comparison(database, asked, tell), Plan([], [])
        with _written(output, comparison) as write:
            for one in comparison.differences():
                write(_told(one, asked.operator.name, asked.type, comparison.names))
                plan.add(one)
    return comparison, plan


def _whose(config: Config, database: "Database", name: str) -> "Operator":
    """As it is in force: what its list looks like stands in its settings."""
    _, roster = in_force(config, database)
    if name in roster.faults:
        raise Refused(f"{name} can't be used: {roster.faults[name]}; then run it again")
    if name not in roster.operators:
        raise Refused(no_operator(name, roster.operators))
    return roster.operators[name]


@contextmanager
def _counting() -> Iterator[Any]:
    """On a terminal: how many rows of which book are in."""
    shown = sys.stderr.isatty()

    def tell(book: str, count: int) -> None:
        if shown:
            click.echo(f"\r{book}: {count:,} ", nl=False, err=True)

    yield tell
    if shown:
        click.echo("\r\033[K", nl=False, err=True)


@contextmanager
def _written(output: Path | None, comparison: "Comparison") -> Iterator[Any]:
    """Takes one difference after the other to where it was asked for."""
    if output is None:
        yield lambda _row: None
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            if output.suffix.lower() != ".csv":
                import orjson

                yield lambda row: file.write(orjson.dumps(row).decode() + "\n")
                return
            columns = [*_FIELDS, *(f"{name}_{side}" for name in comparison.names for side in ("here", "there"))]
            file.write(sheet.MARK + sheet.line(columns))
            yield lambda row: file.write(sheet.line(map(_flat(row).get, columns)))
    except OSError as error:
        raise Refused(f"{output} can't be written ({error.strerror}); name another file") from None


def _told(one: "Difference", operator: str, kind: str, names: Any) -> dict[str, object]:
    there = one.there
    return {
        "difference": one.kind.word,
        "operator": operator,
        "type": kind,
        "key": there.key,
        "id": one.id,
        "status": one.status,
        "ambiguous": one.ambiguous,
        "bookings": len(there.bookings),
        "lines": there.lines[:100],
        "mend": one.kind.mend and one.kind.mend.value,
        "here": dict(zip(names, one.known, strict=False)),
        "there": [dict(zip(names, said, strict=True)) for said in there.said[:100]],
    }


def _flat(row: dict[str, Any]) -> dict[str, object]:
    """For a spreadsheet: several bookings' amounts with blanks between."""
    flat: dict[str, object] = {name: row[name] for name in _FIELDS} | {"lines": " ".join(map(str, row["lines"]))}
    for name, amount in row["here"].items():
        flat[f"{name}_here"] = amount
    for said in row["there"][:1]:
        flat |= {f"{name}_there": " ".join(str(one[name]) for one in row["there"]) for name in said}
    return flat


def _tell(
    comparison: "Comparison",
    done: "tuple[Change, Change] | None",
    output: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
    lang: str | None,
) -> None:
    for line, why in comparison.summary.named:
        click.echo(f"line {line}: {why}", err=True)
    if as_json:
        print_json(_document(comparison, done, dry_run=dry_run))
    else:
        _print(comparison, done, words(lang), each=output is None, dry_run=dry_run)


def _document(comparison: "Comparison", done: "tuple[Change, Change] | None", *, dry_run: bool) -> dict[str, object]:
    summary = comparison.summary
    kinds = {kind.word: count for kind, count in summary.kinds.items()}
    told: dict[str, object] = {"listed": summary.listed, "unreadable": summary.unreadable, "agree": summary.agree}
    told |= {"orders": kinds, "in_doubt": dict(summary.doubt), "compared": list(comparison.names)}
    if done is not None:
        taken = {name: [row.key for row in one.taken] for name, one in zip(_DONE, done, strict=True)}
        refused = [{"key": row.key, "reason": why} for one in done for row, why in one.refused]
        told["mended"] = {"dry_run": dry_run, **taken, "refused": refused}
    return told


def _print(
    comparison: "Comparison", done: "tuple[Change, Change] | None", said: Words, *, each: bool, dry_run: bool
) -> None:
    """`each`: the differences went nowhere, so how to have them is said."""
    from dispatcher.reconcile.kinds import Kind

    summary = comparison.summary
    found = [(said[f"books_{kind.word}"], summary.kinds[kind]) for kind in Kind if summary.kinds[kind]]
    found += [(said[f"books_doubt_{what}"], count) for what, count in sorted(summary.doubt.items())]
    found += [(said["books_unreadable"], summary.unreadable)] if summary.unreadable else []
    print_table(("books", "rows"), found, said)
    if each and not summary.agree:
        click.echo(said["books_each"])
    for name, one in zip(_DONE, done or (), strict=False):
        done_or_not = said[f"books_would_be_{name}" if dry_run else f"books_{name}"]
        click.echo(f"{done_or_not}: {len(one.taken)}")
        for row, why in one.refused:
            click.echo(f"{row.operator} {row.key}: {why}", err=True)
