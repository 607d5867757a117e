"""`dispatcher tail`: attempts as they happen, wherever the workers are."""

import secrets
import time
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from dispatcher.cli.common import Length, print_json, read_configuration, tabled, until_stopped
from dispatcher.cli.opening import opened_about
from dispatcher.cli.rows import NUMBER
from dispatcher.ground.clock import MILLISECOND, SECOND, iso, to_datetime
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import Words, words
from dispatcher.ground.policy import Reason, Status
from dispatcher.protocols import PROTOCOLS
from dispatcher.store.engine import Database
from dispatcher.store.feed import LAPSE, Attempt, Follower, Heard

# Between two looks, and so long at most until an attempt is seen.
LOOK_SECONDS = 0.5
RENEW_SECONDS = LAPSE / SECOND / 3
# While it is away it is not hammered at.
AWAY_SECONDS = 2.0


class Filter(NamedTuple):
    """Which attempts are shown; what is None is of no account."""

    operator: str | None = None
    type: str | None = None
    key: str | None = None
    uid: str | None = None
    status: str | None = None
    reason: str | None = None

    def fits(self, attempt: Attempt) -> bool:
        return all(wanted is None or getattr(attempt, name) == wanted for name, wanted in self._asdict().items())


@click.command(name="tail")
@click.option("--operator", help="To this operator.")
@click.option("--type", "kind", type=click.Choice(list(PROTOCOLS)), help="Of this message type.")
@click.option("--key", help="Of this order number (or txId).")
@click.option("--uid", help="Of this player.")
@click.option(
    "--status", type=click.Choice([one.value for one in Status]), help="That left the delivery in this status."
)
@click.option("--reason", type=click.Choice([one.value for one in Reason]), help="That failed for this reason.")
@click.option("--failed", is_flag=True, help="That failed, for whatever reason.")
@click.option("-n", "--limit", type=NUMBER, help="End after so many.")
@click.option("--for", "length", type=Length(), help='End after so long, like "30s".')
@tabled
def command(
    failed: bool,
    limit: int | None,
    length: int | None,
    config_path: Path,
    as_json: bool,
    lang: str | None,
    **given: Any,
) -> None:
    """Follow attempts as they happen, of all workers on this database, one line each; Ctrl-C ends it.

    What ended before it began is not shown: that is in the log. A worker tells of what it does from its next look at
    the store on, at most 5 s later. Where something was missed, a line says so. A * : the operator may have booked it.
    """
    where = Filter(type=given.pop("kind"), **given)
    database, said = opened_about(read_configuration(config_path), where.operator), words(lang)
    end = None if length is None else time.monotonic() + length / SECOND
    with until_stopped(), closing(_follow(database, end, said, as_json=as_json)) as every:
        chosen = (one for one in every if where.fits(one) and (one.reason is not None or not failed))
        for attempt in islice(chosen, limit):
            if as_json:
                print_json(_document(attempt))
            else:
                _print(attempt, said)


def _follow(database: Database, end: float | None, said: Words, *, as_json: bool) -> Generator[Attempt, None, None]:
    """Until `end` (monotonic, s); while the store is away it says so, and tries again."""
    follower, away = Follower(database, secrets.randbits(63)), False
    try:
        # Within: whoever is ended while this is being written leaves nothing behind either.
        follower.begin()
        renewed = time.monotonic()
        click.echo(said["following"], err=True)
        while end is None or time.monotonic() < end:
            try:
                lapsed = follower.lapsed
                if lapsed or time.monotonic() - renewed > RENEW_SECONDS:
                    follower.stay()
                    renewed = time.monotonic()
                heard = follower.hear()
            except StoreUnavailable as error:
                if not away:
                    click.echo(f"{said['store_away']}: {error}", err=True)
                away = True
                time.sleep(AWAY_SECONDS)
                continue
            if away:
                click.echo(said["store_back"], err=True)
            away = False
            yield from heard.attempts
            _own_up(heard, said, lapsed=lapsed, as_json=as_json)
            time.sleep(LOOK_SECONDS)
    finally:
        with suppress(StoreUnavailable):
            follower.end()


def _own_up(heard: Heard, said: Words, *, lapsed: bool, as_json: bool) -> None:
    """What nobody will see is said."""
    if not heard.missed and not lapsed:
        return
    if as_json:
        print_json({"missed": True, "turns": heard.missed or None})
    click.echo(said["missed"], err=True)


def _document(attempt: Attempt) -> Mapping[str, object]:
    shown = attempt._asdict()
    late, duration = shown.pop("late"), shown.pop("duration")
    return {
        "at": iso(attempt.ended_at),
        **shown,
        "started_at": iso(attempt.started_at),
        "duration_ms": None if duration is None else duration // MILLISECOND,
        "ambiguous": bool(attempt.ambiguous),
        "superseded": bool(late),
    }


def _print(attempt: Attempt, said: Words) -> None:
    at = to_datetime(attempt.ended_at).strftime("%H:%M:%S.%f")[:12]
    took = "" if attempt.duration is None else f"{attempt.duration // MILLISECOND} ms"
    if attempt.reason is None:
        came = said["delivered"]
    else:
        came = f"{said[attempt.status]}: {attempt.reason}{' *' if attempt.ambiguous else ''}"
    parts = [at, attempt.operator, attempt.type, attempt.key, f"#{attempt.n}", came, attempt.http_status, attempt.code]
    told = "  ".join(str(part) for part in (*parts, took, attempt.detail) if part not in (None, ""))
    colour = None if attempt.reason is None else "red" if attempt.status == Status.DEAD else "yellow"
    click.secho(printable(told), fg=colour)
