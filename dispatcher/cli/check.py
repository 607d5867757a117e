"""`dispatcher check`: everything that is wrong, before it is started."""

import asyncio
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

import click

from dispatcher.cli.common import print_json, scripted
from dispatcher.cli.opening import opened
from dispatcher.config import Config, inspect_config, load_toml, where_declared
from dispatcher.ground.egress import Network
from dispatcher.ground.errors import ConfigError, DispatcherError, Fault, NotMade, Outdated, Refused
from dispatcher.ground.operator import Operator
from dispatcher.protocols import SPOKEN
from dispatcher.roster import COMMAND, Roster, anything_locked, given_keys, key_file, lease_fault, load, open_vault
from dispatcher.seal.vault import too_open
from dispatcher.store.engine import Database
from dispatcher.store.ledger import operators_waiting
from dispatcher.store.operators import standings
from dispatcher.tls import tls_context


@click.command(name="check")
@click.option("--no-network", is_flag=True, help="Don't try whether the operators can be reached.")
@scripted
def command(no_network: bool, config_path: Path, as_json: bool) -> None:
    """Configuration, database, keys, and whether each operator can be reached. Starts, writes and sends nothing."""
    operators: Collection[Operator] = ()
    try:
        config, faults = inspect_config(load_toml(config_path), config_path)
    except ConfigError as error:
        faults, warnings = list(error.faults), []
    else:
        warnings = list(config.warnings)
        operators = [*config.declared.values(), *_check_database(config, faults, warnings)]
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


def _check_database(config: Config, faults: list[Fault], warnings: list[Fault]) -> list[Operator]:
    """The operators that stand in the database alone, and are fit."""
    try:
        given_keys(config)
    except ConfigError as error:
        faults += error.faults
    if any(fault.where.startswith("database") for fault in faults):
        return []
    if isinstance(config.database, Path) and not _fit(config.database, faults, warnings):
        return []
    try:
        return _check_operators(config, opened(config), faults, warnings)
    except ConfigError as error:
        faults += [fault for fault in error.faults if fault not in faults]
    except NotMade as error:
        warnings.append(Fault("database.url", str(error), "nothing is stored yet"))
    except Outdated as error:
        told = f"{error.command} -c {shlex.quote(str(config.path))}"
        faults.append(Fault("database.url", error.told, f"{error.mend}: {told}"))
    except DispatcherError as error:
        what = "the file or its folder" if isinstance(config.database, Path) else "the server, or the address"
        faults.append(_as_fault("database.url", error, f"mend {what}, or name another"))
    return []


def _as_fault(where: str, error: DispatcherError, otherwise: str = "") -> Fault:
    """Its sentence, whose mend stands behind the first semicolon; `otherwise`, where it has none."""
    told, _, mend = str(error).partition("; ")
    return Fault(where, told, mend or otherwise)


def _fit(file: Path, faults: list[Fault], warnings: list[Fault]) -> bool:
    """Whether there is something to look into."""
    folder = file.parent
    if not folder.is_dir():
        faults.append(Fault("database.url", f"the folder {folder} does not exist", "create it, or name another"))
    elif not os.access(folder, os.W_OK | os.X_OK):
        # Not only to make the database: its log and the worker's lock stand beside it.
        faults.append(Fault("database.url", f"the folder {folder} can't be written to", "give the rights to it"))
    elif not file.exists():
        told = f"{file} does not exist yet"
        warnings.append(Fault("database.url", told, "`dispatcher enqueue` or `dispatcher run` makes it"))
    else:
        return True
    return False


def _check_operators(config: Config, database: Database, faults: list[Fault], warnings: list[Fault]) -> list[Operator]:
    """As `_check_database`. Raises ConfigError for a master key that is missing, and whatever the store raises."""
    made = {row.name for row in standings(database) if row.settings and row.origin == COMMAND}
    for name, count in operators_waiting(database).items():
        if name not in config.declared and name not in made:
            told = f"{count} deliveries wait for it, and it is not configured"
            faults.append(Fault(where_declared(name), told, "configure it, or they wait for ever"))
    _warn_of_key_file(config, warnings)
    # Only what is locked needs the key, and where something is, none is made. A key that can't be read is told already.
    opens = anything_locked(database) and not any(fault.where.startswith("secrets.") for fault in faults)
    roster = load(database, open_vault(config, database), config) if opens else Roster({}, {}, 0)
    for name in sorted(made & config.operators.keys()):
        told = "was made by `dispatcher operators set`, and this file declares it as well"
        warnings.append(Fault(f"operators.{name}", told, "take it out of the file, or its settings there win"))
    alone = made - config.operators.keys()
    faults += _sealed_under_another(config, database, roster)
    for name in sorted((alone & roster.faults.keys()) - roster.shut):
        told = "; ".join(roster.faults[name].splitlines())
        mend = f"its deliveries wait; see: dispatcher operators set {name} --help"
        faults.append(Fault(f"operators.{name}", f"is made by a command and can't be used: {told}", mend))
    fit = [member for name, member in roster.members.items() if name in alone]
    faults += [fault for member in fit if (fault := lease_fault(member.operator, config))]
    warnings += [warning for member in fit for warning in member.draft.warnings]
    if fit:
        # That there is no operator is not so.
        warnings[:] = [warning for warning in warnings if warning.where != "operators"]
    return [member.operator for member in fit]


def _sealed_under_another(config: Config, database: Database, roster: Roster) -> list[Fault]:
    """What `run` would refuse, or could not use, for want of the master key that it was sealed under."""
    found = []
    for name in sorted(roster.shut):
        lost = "apply --lost-key" if name in config.declared else f"set {name} …"
        told, _, mend = roster.faults[name].partition("; ")
        mend = f"{mend}; or, where that is lost, write its settings anew: dispatcher operators {lost}"
        found.append(Fault(where_declared(name), f"its stored settings can't be read: {told}", mend))
    if database.notary is not None:
        try:
            with database.reading() as connection:
                database.notary.prove(connection, 0)
        except Refused as refused:
            found.append(_as_fault("secrets.master_key", refused))
    return found


def _warn_of_key_file(config: Config, warnings: list[Fault]) -> None:
    path = key_file(config)
    if config.master_key is None and path.exists() and too_open(path):
        warnings.append(Fault(str(path), "the master key can be read by others", f"chmod 600 {path.name}"))


async def reach_all(operators: Collection[Operator], allow: tuple[Network, ...]) -> list[Fault]:
    """Connects to each operator, encrypted where its URL says so, and hangs up."""
    from dispatcher.wire import PinnedTransport, Resolver, reach

    resolver = Resolver()
    ways: list[tuple[str, str, PinnedTransport]] = []
    for operator in operators:
        context = tls_context(operator.tls) if operator.tls else None
        transport = PinnedTransport(resolver, allow, operator.connect_timeout, context)
        urls = {SPOKEN[kind].url: terms.url for kind, terms in operator.terms.items()}
        urls["oauth.token_url"] = operator.oauth.token_url if operator.oauth else None
        ways += [(f"{where_declared(operator.name)}.{key}", url, transport) for key, url in urls.items() if url]
    found = await asyncio.gather(*(reach(transport, url) for _, url, transport in ways))
    return [
        Fault(where, f"can't be reached now: {told}", "ask the operator, or mend the URL")
        for (where, _, _), told in zip(ways, found, strict=True)
        if told
    ]
