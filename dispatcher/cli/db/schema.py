"""`dispatcher db upgrade` and `dispatcher db status`: which schema the store has."""

from pathlib import Path
from typing import Any

import click

from dispatcher.cli.common import print_json, read_configuration, scripted
from dispatcher.ground.clock import iso
from dispatcher.ground.place import Place
from dispatcher.store.schema import REVISION
from dispatcher.store.status import Condition, condition


@click.command(name="upgrade")
@click.option(
    "--among-workers",
    is_flag=True,
    help="On PostgreSQL, go on though workers run: only where the changelog says that the old version works with it.",
)
@scripted
def upgrade_(among_workers: bool, config_path: Path, as_json: bool) -> None:
    """Bring the store's schema up to this dispatcher's version; make the store where there is none.

    All of it happens in one transaction: whatever interrupts it, the store is as it was. It is refused while a worker
    runs; stop whatever else works on the store as well, and make a backup: there is no way back.
    """
    from dispatcher.store.migrate import upgrade

    config = read_configuration(config_path)
    done = upgrade(config.database, among_workers=among_workers)
    for worker in done.live:
        click.echo(f"Warning: {worker} went on meanwhile with the schema that it knew; restart it soon", err=True)
    if as_json:
        print_json({"database": str(config.database), "from": done.before, "to": done.after, "live": done.live})
    elif done.before is None:
        click.echo(f"{config.database}: made, with schema {done.after}")
    elif done.before == done.after:
        click.echo(f"{config.database}: has schema {done.after}, nothing to do")
    else:
        click.echo(f"{config.database}: from schema {done.before} to {done.after}")


@click.command(name="status")
@scripted
def status(config_path: Path, as_json: bool) -> None:
    """Where the store is, its schema, what is in it, its size on disk. Looks into a store of any version."""
    config = read_configuration(config_path)
    told = _told(config.database, condition(config.database))
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {what}" for what, count in value.items())
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        if value not in (None, ""):
            click.echo(f"{name.replace('_', ' ')}: {value}")


def _told(place: Place, found: Condition | None) -> dict[str, Any]:
    told: dict[str, Any] = {"database": str(place), "kind": "sqlite" if isinstance(place, Path) else "postgresql"}
    if found is None:
        nothing = {"version": None, "schema": None, "newest_schema": REVISION, "upgrade_due": False, "state": "absent"}
        return told | nothing | {"counts": {}, "bytes": 0}
    revision, stamped, mark = found.found
    return told | {
        "version": found.version,
        "schema": revision,
        "newest_schema": REVISION,
        "upgrade_due": not stamped or str(revision) < REVISION,
        "state": "in use" if mark is None else mark.told(place),
        "since": iso(mark.since) if mark else None,
        "counts": found.counts,
        "bytes": found.size,
    }
