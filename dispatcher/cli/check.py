"""`dispatcher check`: everything that is wrong, before it is started."""

import asyncio
import os
import sys
from collections.abc import Collection
from pathlib import Path

import click

from dispatcher.cli.common import config_option, guarded, json_option, opened, print_json
from dispatcher.config import Config, inspect_config, load_toml
from dispatcher.egress import Network
from dispatcher.errors import ConfigError, DispatcherError, Fault
from dispatcher.operator import Operator
from dispatcher.protocols import PROTOCOLS
from dispatcher.tls import tls_context


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
            warnings += asyncio.run(reach_all(operators, config.allow))
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


async def reach_all(operators: Collection[Operator], allow: tuple[Network, ...]) -> list[Fault]:
    """Connects to each operator, encrypted where its URL says so, and hangs up."""
    from dispatcher.wire import PinnedTransport, Resolver, reach

    resolver = Resolver()
    ways: list[tuple[str, str, PinnedTransport]] = []
    for operator in operators:
        context = tls_context(operator.tls) if operator.tls else None
        transport = PinnedTransport(resolver, allow, operator.connect_timeout, context)
        urls = {PROTOCOLS[kind].url: terms.url for kind, terms in operator.terms.items()}
        urls["oauth.token_url"] = operator.oauth.token_url if operator.oauth else None
        ways += [(f"operators.{operator.name}.{key}", url, transport) for key, url in urls.items() if url]
    found = await asyncio.gather(*(reach(transport, url) for _, url, transport in ways))
    return [
        Fault(where, f"can't be reached now: {told}", "ask the operator, or mend the URL")
        for (where, _, _), told in zip(ways, found, strict=True)
        if told
    ]
