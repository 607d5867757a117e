"""`dispatcher forecast`: when the backlog is through, and what an outage would cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dispatcher.cli.common import Length, clock_time, print_json, print_table, read_configuration, tabled
from dispatcher.cli.figures import age_text
from dispatcher.cli.opening import opened_about
from dispatcher.config import Config
from dispatcher.forecast import ASSUMED, OUTAGES, Circumstances, Outlook, circumstances, forecast
from dispatcher.ground.clock import HOUR, MILLISECOND, MINUTE, duration_text, iso
from dispatcher.ground.lang import Words, words
from dispatcher.roster import load, open_vault
from dispatcher.stats import flow_of
from dispatcher.store import minutes
from dispatcher.store.counts.waiting import operators_with_work, parked, sending, waiting
from dispatcher.store.engine import Database
from dispatcher.store.operators import standings

_COLUMNS = ("operator", "state", "pending", "due_now", "parked", "sending", "answer_ms", "drained_at")
Expected = Mapping[str, tuple[Circumstances, Outlook]]


@click.command(name="forecast")
@click.option("--operator", help="This one alone.")
@click.option(
    "--outage",
    "outages",
    type=Length(),
    multiple=True,
    help='If it lasts so much longer, like "30m"; can be repeated. Unless given: 0, 10m, 30m, 1h, 3h.',
)
@tabled
def command(operator: str | None, outages: tuple[int, ...], config_path: Path, as_json: bool, lang: str | None) -> None:
    """When each operator's backlog is through, and how many of it die if the operator is down for so much longer.

    Each delivery is reckoned by its own schedule: the attempts it has left, its window, and the time that it was paused
    or held. What is assumed stands below the table, and in --json.
    """
    config, said = read_configuration(config_path), words(lang)
    database = opened_about(config, operator)
    lengths = sorted(set(outages)) or list(OUTAGES)
    now = database.clock().now()
    expected = _expected(config, database, operator, lengths, now)
    if as_json:
        for name, (given, outlook) in expected.items():
            print_json(_document(name, given, outlook, lengths, now))
    elif expected:
        _print(expected, lengths, now, said)
    else:
        click.echo(said["nothing_open"])


def _expected(config: Config, database: Database, only: str | None, lengths: Sequence[int], now: int) -> Expected:
    there = {row.name: row for row in standings(database)}
    roster = load(database, open_vault(config, database), config)
    under_way = sending(database)
    with database.reading() as connection:
        behind = parked(connection)
    names = operators_with_work(database) | under_way.keys() | behind.keys()
    begin = now - HOUR - (now - HOUR) % MINUTE
    flows = flow_of(minutes.read(database, begin, now + MINUTE, only, step=366 * 24 * HOUR), (now - begin) / 1e6)
    expected = {}
    for name in sorted(names if only is None else {only}):
        answer = flows[name].answer if name in flows else None
        given = circumstances(roster.operators.get(name), there.get(name), config.concurrency, answer)
        held, waits = under_way.get(name, []), waiting(database, name)
        expected[name] = (given, forecast(waits, held, behind.get(name, 0), given, lengths, now))
    return expected


def _document(name: str, given: Circumstances, outlook: Outlook, lengths: Sequence[int], now: int) -> dict[str, object]:
    deaths = outlook.deaths
    return {
        "operator": name,
        "state": outlook.doors.value,
        "at": iso(now),
        "pending": outlook.waiting,
        "due": outlook.due,
        "parked": outlook.parked,
        "sending": outlook.sending,
        "places": given.places,
        "duration_ms": None if given.answer is None else given.answer // MILLISECOND,
        "drained_at": iso(outlook.drained_at),
        "outages": [
            {"outage_seconds": length // 1_000_000, "dead": None if deaths is None else deaths[place]}
            for place, length in enumerate(lengths)
        ],
        "assumed": ASSUMED["en"],
    }


def _print(expected: Expected, lengths: Sequence[int], now: int, said: Words) -> None:
    told = [f"{said['dead_after']} {duration_text(length) if length else '0'}" for length in lengths]
    rows = []
    for name, (given, outlook) in expected.items():
        deaths = ["-"] * len(lengths) if outlook.deaths is None else list(outlook.deaths)
        drained = outlook.drained_at
        through = "" if drained is None else f"{clock_time(drained)} ({age_text(drained - now) or '0s'})"
        answer = "" if given.answer is None else given.answer // MILLISECOND
        counts = (outlook.waiting, outlook.due, outlook.parked, outlook.sending, answer)
        rows.append([name, said[outlook.doors], *counts, through, *deaths])
    print_table([*_COLUMNS, *told], rows, {**said, **{one: one for one in told}})
    for number, sentence in enumerate(ASSUMED["zh" if said is words("zh") else "en"], 1):
        click.echo(f"{number}. {sentence}")
