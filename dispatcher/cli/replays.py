"""`dispatcher replays`: bulk replays, which `dead replay --pace` makes and any worker drives."""

import time
from pathlib import Path

import click

from dispatcher.cli.common import actor, clock_time, print_json, print_table, progress, read_configuration, tabled
from dispatcher.cli.opening import opened, opened_about
from dispatcher.cli.rows import NUMBER, limit_option
from dispatcher.ground.errors import Refused
from dispatcher.ground.lang import Words, words
from dispatcher.roster import open_vault
from dispatcher.rows import replay_as_json
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.replays import SILENT, Replay, State

_COLUMNS = ("id", "state", "operator", "pace", "total", "taken", "refused", "left", "rate", "ends_at", "actor", "note")
_REFUSED = ("operator", "type", "key", "why")
# Looked at so often while it is followed.
_LOOK_SECONDS = 0.3

_number = click.argument("number", metavar="ID", type=NUMBER)


@click.group(name="replays")
def command() -> None:
    """Bulk replays: list, show, pause, resume, cancel. `dispatcher dead replay --pace` makes one."""


@command.command(name="list")
@click.option("--operator", help="Those about this operator alone.")
@limit_option
@tabled
def list_(operator: str | None, limit: int, config_path: Path, as_json: bool, lang: str | None) -> None:
    """The newest first, with their progress."""
    database = opened_about(read_configuration(config_path), operator)
    jobs, now = replays.all_of(database, operator, limit), database.clock().now()
    if as_json:
        for job in jobs:
            print_json(replay_as_json(job, now))
    elif jobs:
        _print(jobs, now, words(lang))
    else:
        click.echo(words(lang)["nothing"])


@command.command(name="show")
@_number
@tabled
def show(number: int, config_path: Path, as_json: bool, lang: str | None) -> None:
    """One of them: how far it is, and which it has refused."""
    database = opened(read_configuration(config_path))
    _tell(database, _found(database, number), words(lang), as_json=as_json)


def _changing(verb: str, about: str) -> None:
    @command.command(name=verb, help=about)
    @_number
    @tabled
    def change(number: int, config_path: Path, as_json: bool, lang: str | None) -> None:
        config = read_configuration(config_path)
        database = opened(config)
        open_vault(config, database)
        job = replays.TURNS[verb](database, number, actor(), database.clock().now())
        _tell(database, job, words(lang), as_json=as_json)


for _verb, _about in (
    ("pause", "Send nothing more again until it is resumed. What it has replayed goes on."),
    ("resume", "Go on where it was, at its pace."),
    ("cancel", "Send nothing more again, for good. What it has replayed goes on."),
):
    _changing(_verb, _about)


def _found(database: Database, number: int) -> Replay:
    job = replays.find(database, number)
    if job is None:
        raise Refused(f"there is no replay {number}; see: dispatcher replays list")
    return job


def _tell(database: Database, job: Replay, said: Words, *, as_json: bool) -> None:
    now = database.clock().now()
    if as_json:
        print_json(replay_as_json(job, now))
        return
    _print([job], now, said)
    if job.refusals:
        print_table(_REFUSED, job.refusals, said)
    _warn(job, now)


def _print(jobs: list[Replay], now: int, said: Words) -> None:
    rows = []
    for job in jobs:
        state = "undriven" if job.state is State.RUNNING and not job.driven(now) else job.state.value
        rate = None if job.rate is None else f"{job.rate:.1f}"
        ends_at = clock_time(job.ends_at(now) if job.finished_at is None else job.finished_at)
        counts = (job.total, job.taken, job.refused, job.left)
        rows.append((job.id, said[state], job.which.operator, job.pace, *counts, rate, ends_at, job.actor, job.note))
    print_table(_COLUMNS, rows, said)


def _warn(job: Replay, now: int) -> None:
    if job.state is State.RUNNING and not job.driven(now):
        click.echo(
            f"no worker drives replay {job.id}: it waits until `dispatcher run` works on this database", err=True
        )


def follow(database: Database, job: Replay) -> Replay:
    """A bar until it ends or is paused; it goes on without us. Ends early where no worker takes it up."""
    begun = time.monotonic()
    try:
        with progress(f"replay {job.id}") as tell:
            while job.state is State.RUNNING:
                tell(job.taken + job.refused, max(job.total, 1))
                now = database.clock().now()
                if not job.driven(now) and time.monotonic() - begun > SILENT / 1_000_000:
                    break
                time.sleep(_LOOK_SECONDS)
                job = _found(database, job.id)
            if job.state is State.DONE:
                tell(1, 1)
    except KeyboardInterrupt:
        click.echo(err=True)
        click.echo(f"replay {job.id} goes on without this command; see: dispatcher replays show {job.id}", err=True)
        job = _found(database, job.id)
    return job


def finish(database: Database, job: Replay, said: Words, *, as_json: bool) -> int:
    """Says what came of it, or how it stands; gives the exit status."""
    _tell(database, job, said, as_json=as_json)
    return 1 if job.state is State.CANCELLED or job.refused else 0
