"""`dispatcher check`: everything that is wrong, before it is started."""

import asyncio
import os
import sys
from collections.abc import Collection
from pathlib import Path

import click

from dispatcher.cli.common import config_option, guarded, json_option, opened, print_json
from dispatcher.config import Config, Operator, inspect_config, load_toml
from dispatcher.errors import ConfigError, DispatcherError, Fault


@click.command(name="check")
@click.option("--no-network", is_flag=True, help="Don't try whether the operators can be reached.")
@config_option
@json_option
@guarded
def command(no_network: bool, config_path: Path, as_json: bool) -> None:
    """Configuration, database, keys, and whether each operator can be reached. Starts and sends nothing."""
    operators: Collection[Operator] = ()
    try:
        config, faults = inspect_config(load_toml(config_path), config_path)
    except ConfigError as error:
        faults, warnings = list(error.faults), []
    else:
        operators, warnings = config.operators.values(), list(config.warnings)
        _check_database(config, faults, warnings)
        if not no_network:
            warnings += asyncio.run(_reach(config))
    if as_json:
        shown = {name: [_shown(fault) for fault in some] for name, some in (("faults", faults), ("warnings", warnings))}
        print_json({"ok": not faults, **shown})
    else:
        for name, some in (("fault", faults), ("warning", warnings)):
            for fault in some:
                click.echo(f"{name}: {fault}")
        for operator in operators:
            if operator.reading is not None:
                click.echo(f"{operator.name}: {operator.reading.cipher}, a key of {len(operator.reading.key)} bytes")
        click.echo("ok" if not faults else f"{len(faults)} fault(s)")
    sys.exit(2 if faults else 0)


def _shown(fault: Fault) -> dict[str, str]:
    return {"where": fault.where, "fault": fault.fault, "mend": fault.mend}


def _check_database(config: Config, faults: list[Fault], warnings: list[Fault]) -> None:
    from dispatcher.store.ledger import operators_waiting

    if any(fault.where.startswith("database") for fault in faults):
        return
    folder = config.database.parent
    if not folder.is_dir():
        faults.append(Fault("database.url", f"the folder {folder} does not exist", "create it, or name another"))
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        # Not only to make the database: its log and the worker's lock stand beside it.
        faults.append(Fault("database.url", f"the folder {folder} can't be written to", "give the rights to it"))
        return
    if not config.database.exists():
        told = f"{config.database} does not exist yet"
        warnings.append(Fault("database.url", told, "`dispatcher enqueue` or `dispatcher run` makes it"))
        return
    try:
        waiting = operators_waiting(opened(config))
    except DispatcherError as error:
        faults.append(Fault("database.url", str(error), "mend the file or its folder, or name another"))
        return
    for name, count in waiting.items():
        if name not in config.operators:
            told = f"{count} deliveries wait for it, and it is not configured"
            faults.append(Fault(f"operators.{name}", told, "configure it, or they wait for ever"))


async def _reach(config: Config) -> list[Fault]:
    """Connects to each operator, encrypted where its URL says so, and hangs up."""
    from dispatcher.wire import PinnedTransport, Resolver, reach

    resolver = Resolver()
    reachable = [operator for operator in config.operators.values() if operator.notice_url]
    transports = [PinnedTransport(resolver, config.allow, operator.connect_timeout) for operator in reachable]
    urls = [operator.notice_url or "" for operator in reachable]
    found = await asyncio.gather(*(reach(transport, url) for transport, url in zip(transports, urls, strict=True)))
    return [
        Fault(
            f"operators.{operator.name}.notice_url",
            f"can't be reached now: {told}",
            "ask the operator, or mend the URL",
        )
        for operator, told in zip(reachable, found, strict=True)
        if told
    ]
