"""`dispatcher stats`: how things stand, once or as long as somebody looks."""

from contextlib import suppress
from pathlib import Path

import click

from dispatcher.cli.common import Length, print_json, print_table, read_configuration, tabled
from dispatcher.cli.figures import COLUMNS, cells, reasons_text
from dispatcher.cli.opening import opened_about
from dispatcher.cli.watch import Glance, watch
from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.lang import Words, words
from dispatcher.stats import Picture, picture
from dispatcher.store.engine import open_database

# A live view is to say soon that the store does not answer.
PATIENCE_SECONDS, SILENCE_SECONDS = 1.0, 4.0


@click.command(name="stats")
@click.option("--operator", help="This one alone.")
@click.option("--exact", is_flag=True, help="Count what was delivered however much it is: a second for ten million.")
@click.option(
    "--watch", "watching", is_flag=True, help="A live view; q or Ctrl-C ends it. Where there is no terminal, lines."
)
@click.option("--interval", type=Length(least=200 * MILLISECOND), default="2s", show_default=True, help="With --watch.")
@click.option("--for", "length", type=Length(), help='With --watch: end after so long, like "30s".')
@tabled
def command(
    operator: str | None,
    exact: bool,
    watching: bool,
    interval: int,
    length: int | None,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """What waits, what is under way and what comes of it, by operator, the worst first.

    Rates are of the last five minutes. What was delivered is counted where the store has less than a million rows, or
    with --exact; of the last hour it is always told.
    """
    config, said = read_configuration(config_path), words(lang)
    if watching:
        # A live view says itself that the store is away.
        with suppress(StoreUnavailable):
            opened_about(config, operator)
        glance = Glance(
            lambda: open_database(config.database, create=False, patience=PATIENCE_SECONDS, silence=SILENCE_SECONDS),
            lambda database: picture(database, database.clock().now(), operator=operator, exact=exact),
        )
        watch(glance, said, interval / SECOND, None if length is None else length / SECOND, as_json=as_json)
        return
    database = opened_about(config, operator)
    shown = picture(database, database.clock().now(), operator=operator, exact=exact)
    if as_json:
        print_json(shown.as_json())
    else:
        _print(shown, said)


def _print(shown: Picture, said: Words) -> None:
    if not shown.lines:
        click.echo(said["nothing"])
        return
    lines = [*shown.lines, shown.total] if len(shown.lines) > 1 else shown.lines
    print_table(COLUMNS, [cells(line, shown.at, said) for line in lines], said)
    if shown.reasons:
        click.echo(f"{said['failures']}: {reasons_text(shown)}")
    if shown.total.load.delivered is None:
        click.echo(said["not_counted"])
