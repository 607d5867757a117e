"""`dispatcher explain`: the story of one delivery, to be forwarded."""

from pathlib import Path

import click

from dispatcher.cli.common import print_json, read_configuration, tabled
from dispatcher.cli.opening import opened
from dispatcher.explain import Zone, explain, gather
from dispatcher.ground.lang import language_of
from dispatcher.protocols import PROTOCOLS
from dispatcher.roster import load, open_vault
from dispatcher.store.ledger import one
from dispatcher.store.operators import standings


@click.command(name="explain")
@click.argument("operator")
@click.argument("key")
@click.option("--type", "kind", type=click.Choice(list(PROTOCOLS)), help="Where the key exists under several types.")
@click.option(
    "--tz",
    "zone",
    type=click.Choice([zone.value for zone in Zone]),
    default=Zone.UTC.value,
    show_default=True,
    help="The zone of the times.",
)
@tabled
def command(
    operator: str, key: str, kind: str | None, zone: str, config_path: Path, as_json: bool, lang: str | None
) -> None:
    """What became of one delivery, in sentences for people: what was sent when, what came back and what that means,

    whether the operator has booked it, what was done by hand, and what happens next. No secret is in it.
    """
    config = read_configuration(config_path)
    database = opened(config)
    row = one(database, operator, key, kind)
    roster = load(database, open_vault(config, database), config)
    case = gather(database, row, roster.operators, standings(database))
    story = explain(case, database.clock().now(), language_of(lang), Zone(zone))
    if as_json:
        told = {"id": row.id, "operator": row.operator, "type": row.type, "key": row.key, "status": row.status}
        print_json({**told, "tz": zone, **story.as_json()})
        return
    for sentence in story.sentences:
        click.echo(sentence.text)
