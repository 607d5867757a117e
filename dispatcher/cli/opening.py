"""What a configuration opens for a command: the store, its journal, and whose operators they are."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from dispatcher.cli.common import actor
from dispatcher.config import Config
from dispatcher.ground.errors import ConfigError, DispatcherError, Fault, Refused, choices
from dispatcher.ground.fields import printable
from dispatcher.ground.operator import NOTIFY

if TYPE_CHECKING:
    from dispatcher.ground.operator import Operator
    from dispatcher.roster import Roster
    from dispatcher.seal.vault import Vault
    from dispatcher.store.engine import Database


def opened(config: Config, *, create: bool = False) -> "Database":
    """The store of a configuration; it is closed when the command ends."""
    from dispatcher.store.engine import open_database

    database = open_database(config.database, create=create)
    click.get_current_context().call_on_close(database.close)
    return database


def opened_about(config: Config, operator: str | None) -> "Database":
    """As `opened`, for what is asked about one operator, if any: one that is gone is known by its deliveries.

    Raises Refused where it is known neither to the file nor to the store: nothing found would say that all is well.
    """
    from dispatcher.store.ledger import Filter, find
    from dispatcher.store.operators import standings

    database = opened(config)
    if operator is None or operator in config.declared:
        return database
    known = {*config.declared, *(row.name for row in standings(database))}
    if operator not in known and not any(find(database, Filter(operator=operator), 1)):
        fitting = known if operator.startswith(NOTIFY) else {one for one in known if not one.startswith(NOTIFY)}
        raise Refused(no_operator(operator, fitting))
    return database


def opened_with_journal(config: Config, *, create: bool = False) -> "Database":
    """As `opened`, where what is done by hand can be noted. Raises ConfigError where the master key is not there."""
    from dispatcher.roster import open_vault

    database = opened(config, create=create)
    open_vault(config, database)
    return database


def in_force(config: Config, database: "Database") -> "tuple[Vault, Roster]":
    """The vault, and the operators as the database has them.

    What the file declares and the database does not know yet is written; what it says otherwise waits for the daemon.
    """
    from dispatcher.roster import load, open_vault, provision

    vault = open_vault(config, database)
    provision(database, vault, config, database.clock().now(), actor=actor(), only_new=True)
    roster = load(database, vault, config)
    for name, fault in roster.faults.items():
        # Where they can't even be opened, it is not the settings that are at fault.
        mend = (
            "until then its events are refused" if name in roster.shut else "change its settings where it is declared"
        )
        click.echo(f"Warning: operators.{name} can't be used: {fault}; {mend}", err=True)
    for name in config.documents:
        if _waits(config, roster, name):
            told = f"operators.{name} is in force with other settings than {config.path.name} has now"
            click.echo(f"Warning: {told}; `dispatcher run` or a reload of it (SIGHUP) changes that", err=True)
    return vault, roster


def _waits(config: Config, roster: "Roster", name: str) -> bool:
    """Whether the file declares settings of this operator that are not in force yet, and others are."""
    member = roster.members.get(name)
    return member is not None and member.draft.document != config.documents[name]


def every_operator(config: Config) -> "Mapping[str, Operator]":
    """The operators of the file, and those that only the database has, if there is one; nothing is written.

    For what is made or tried beside the deliveries: by the file's settings as they stand now, whether they are in force
    yet or not. What is in force is the database's (`in_force`).
    """
    stored = _stored(config)
    return {**(stored.operators if stored else {}), **config.operators}


def operator_named(config: Config, name: str) -> "Operator":
    """One of `every_operator`; what the file declares needs no store. Where one has it otherwise, a warning says so.

    Raises ConfigError where it can't be used, UsageError where it is not known.
    """
    if name in config.operators:
        with suppress(DispatcherError):
            if (stored := _stored(config)) and _waits(config, stored, name):
                told = f"this goes by what {config.path.name} says of operators.{name}, and other settings are in force"
                click.echo(f"Warning: {told}; `dispatcher operators apply` changes that", err=True)
        return config.operators[name]
    stored = _stored(config)
    known = {**(stored.operators if stored else {}), **config.operators}
    if name in known:
        return known[name]
    if stored and name in stored.faults:
        mend = f"`dispatcher operators set {name} …` changes its settings"
        raise ConfigError([Fault(f"operators.{name}", f"can't be used: {stored.faults[name]}", mend)])
    raise click.UsageError(no_operator(name, known))


def no_operator(name: str, known: Iterable[str]) -> str:
    """What is said of an operator that nobody has configured."""
    named = sorted(known)
    mend = f"write {choices(named)}" if named else "add [operators.NAME], or `dispatcher operators set NAME …`"
    return f"there is no operator {printable(name)}; {mend}"


def _stored(config: Config) -> "Roster | None":
    """The operators that the database has; None where it has none."""
    from dispatcher.roster import load, open_vault
    from dispatcher.store.engine import is_there
    from dispatcher.store.operators import standings

    if not is_there(config.database):
        return None
    database = opened(config)
    if not any(standing.settings for standing in standings(database)):
        return None
    return load(database, open_vault(config, database), config)
