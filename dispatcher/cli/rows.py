"""Rows of the wallet-flow log as commands print them; the filters of every command that picks deliveries."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from dispatcher.cli.common import Moment, clock_time, operator_names, print_json, print_table
from dispatcher.lang import Words
from dispatcher.policy import Reason
from dispatcher.protocols import PROTOCOLS, SPOKEN
from dispatcher.rows import amounts, as_json
from dispatcher.store.ledger import Filter, Row

_COLUMNS = (
    "operator",
    "type",
    "key",
    "uid",
    "bet",
    "win",
    "net",
    "status",
    "attempts",
    "reason",
    "at",
    "due_at",
)


# The largest number that a database counts to.
_MOST = 2**63 - 1


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """--operator, --type, --uid, --reason, --since, --until; the command gets them as `where`."""

    @functools.wraps(command)
    def run(
        operator: str | None,
        kind: str | None,
        uid: str | None,
        reason: str | None,
        since: int | None,
        until: int | None,
        **others: Any,
    ) -> Any:
        where = Filter(operator=operator, type=kind, uid=uid, reason=reason, since=since, until=until)
        return command(where=where, **others)

    for option in (
        click.option("--until", type=Moment(), help="Before this time."),
        click.option("--since", type=Moment(), help='From this time on: "2026-01-31", "2026-01-31T08:00:00Z", "2h".'),
        click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="Why it failed last."),
        click.option("--uid", help="Of this player."),
        click.option("--type", "kind", type=click.Choice(list(SPOKEN)), help="Of this message type."),
        click.option("--operator", shell_complete=operator_names, help="Of this operator."),
    ):
        run = option(run)
    return run


def paged(command: Callable[..., Any]) -> Callable[..., Any]:
    """--limit and --before."""
    for option in (
        click.option(
            "--before",
            type=click.IntRange(1, _MOST),
            metavar="ID",
            help="Only what is behind the row with this id: page by page.",
        ),
        click.option("--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most so many."),
    ):
        command = option(command)
    return command


def print_page(rows: Iterable[Row], limit: int, words: Words, *, json: bool) -> None:
    """As `print_rows`; tells people how to go on where the page is full."""
    rows = rows if json else list(rows)
    print_rows(rows, words, json=json)
    if isinstance(rows, list) and len(rows) == limit:
        click.echo(f"{words['older']}: --before {rows[-1].id}")


def print_rows(rows: Iterable[Row], words: Words, *, json: bool) -> None:
    """One JSON object a line, or a table."""
    if json:
        for row in rows:
            print_json(as_json(row))
        return
    table = [_cells(row, words) for row in rows]
    if table:
        print_table(_COLUMNS, table, words)
    else:
        click.echo(words["nothing"])


def _cells(row: Row, words: Words) -> Sequence[object]:
    sums = amounts(row)
    columns = PROTOCOLS[row.type].columns if row.type in PROTOCOLS else {}
    mark = " *" if row.ambiguous else ""
    return (
        row.operator,
        row.type,
        row.key,
        row.uid,
        *(sums.get(columns.get(name, "")) for name in ("bet", "win", "net")),
        words["parked"] if row.parked else words[row.status],
        row.attempts,
        (row.reason or "") + mark,
        clock_time(row.accepted_at),
        clock_time(row.due_at),
    )
