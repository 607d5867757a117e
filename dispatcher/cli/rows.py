"""Rows of the wallet-flow log as commands print them; the filters of every command that picks deliveries."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from dispatcher.cli.common import Moment, clock_time, operator_names, print_json, print_table
from dispatcher.ground.lang import Words
from dispatcher.ground.policy import Reason
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
    "accepted_at",
)


# Up to the largest that a database counts to.
NUMBER = click.IntRange(1, 2**63 - 1)


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
        click.option(
            "--type", "kind", type=click.Choice(list(SPOKEN)), help="Of this message type; summary: a notification's."
        ),
        click.option("--operator", shell_complete=operator_names, help="Of this operator."),
    ):
        run = option(run)
    return run


limit_option = click.option("--limit", type=NUMBER, default=50, show_default=True, help="At most so many.")
_before_option = click.option(
    "--before", type=NUMBER, metavar="ID", help="Only what is behind the row with this id: page by page."
)


def paged(command: Callable[..., Any]) -> Callable[..., Any]:
    """--limit and --before."""
    return limit_option(_before_option(command))


def print_page(rows: Iterable[Row], limit: int, words: Words, *, json: bool, dead: bool = False) -> None:
    """As `print_rows`; tells people how to go on where the page is full."""
    rows = rows if json else list(rows)
    print_rows(rows, words, json=json, dead=dead)
    if isinstance(rows, list) and len(rows) == limit:
        click.echo(f"{words['older']}: --before {rows[-1].id}")


def print_rows(rows: Iterable[Row], words: Words, *, json: bool, dead: bool = False) -> None:
    """One JSON object a line, or a table. Where all are `dead`, none is due: in place of that stands when it died."""
    if json:
        for row in rows:
            print_json(as_json(row))
        return
    table = [(*_cells(row, words), clock_time(row.finished_at if dead else row.due_at)) for row in rows]
    if table:
        print_table((*_COLUMNS, "died_at" if dead else "due_at"), table, words)
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
    )
