"""`dispatcher accounts`: who may use the console. A password is never an argument, and is never shown."""

import sys
from pathlib import Path

import click

from dispatcher.cli.common import actor, clock_time, print_json, print_table, read_configuration, scripted, tabled
from dispatcher.cli.opening import every_operator, no_operator, opened, opened_with_journal
from dispatcher.ground.account import NAME, Account, Role, Weakness, sealed, weakness
from dispatcher.ground.clock import iso
from dispatcher.ground.errors import Refused
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import words
from dispatcher.ground.secret import Secret
from dispatcher.store.accounts import account_named, all_accounts, change_account, create_account
from dispatcher.store.engine import Database

_COLUMNS = ("account", "role", "operator", "created_at", "last_login_at", "disabled_at")
_WEAK = {
    Weakness.SHORT: "is too short; choose one of at least 12 characters",
    Weakness.LONG: "is too long; choose one of at most 256 characters",
    Weakness.NAMED: "has the account's name in it; choose another",
    Weakness.COMMON: "is among the first that are guessed; choose another, a few words of your own",
}

stdin_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="The password is the first line of standard input."
)


@click.group(name="accounts")
def command() -> None:
    """Accounts of the console: create, list, passwd, disable, enable. There is none at first, and no default."""


@command.command(name="create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]), help="What it may do.")
@click.option("--operator", help="With the role operator: the only one that it sees.")
@stdin_option
@scripted
def create(name: str, role: str, operator: str | None, from_stdin: bool, config_path: Path, as_json: bool) -> None:
    """Make an account named NAME, which stands in the journal for whatever is done with it. Asks for its password."""
    if not NAME.fullmatch(name):
        told = f"{printable(name)} is no name of an account"
        raise Refused(f"{told}; write 1 to 63 small letters, digits, points, hyphens or @, like li.wei")
    if (role == Role.OPERATOR) != (operator is not None):
        raise click.UsageError("--operator goes with --role operator, and that with --operator; give both, or neither")
    config = read_configuration(config_path)
    database = opened_with_journal(config, create=True)
    known = every_operator(config)
    if operator is not None and operator not in known:
        raise Refused(no_operator(operator, known))
    if account_named(database, name) is not None:
        raise Refused(f"there is, or was, an account named {name}; give this one another name")
    password, now = _password(name, from_stdin=from_stdin), database.clock().now()
    account = Account(name, Role(role), operator, sealed(password), now, now)
    create_account(database, account, actor())
    _tell(account, as_json=as_json, did="made")


@command.command(name="list")
@tabled
def list_(config_path: Path, as_json: bool, lang: str | None) -> None:
    """Every account that was made, the disabled ones as well."""
    accounts = all_accounts(opened(read_configuration(config_path)))
    said = words(lang)
    if as_json:
        for account in accounts:
            print_json(_shown(account))
    elif accounts:
        print_table(_COLUMNS, [_cells(account) for account in accounts], said)
    else:
        click.echo(said["nothing"])


@command.command(name="passwd")
@click.argument("name")
@stdin_option
@scripted
def passwd(name: str, from_stdin: bool, config_path: Path, as_json: bool) -> None:
    """Give NAME another password; whoever is logged in with it is logged out."""
    database = opened_with_journal(read_configuration(config_path))
    _known(database, name)
    kept = sealed(_password(name, from_stdin=from_stdin))
    change_account(database, name, actor(), database.clock().now(), password=kept)
    _tell(_known(database, name), as_json=as_json, did="new password")


@command.command(name="disable")
@click.argument("name")
@scripted
def disable(name: str, config_path: Path, as_json: bool) -> None:
    """Nobody logs in as NAME any more; whoever is, is logged out."""
    _turn(config_path, name, disabled=True, as_json=as_json)


@command.command(name="enable")
@click.argument("name")
@scripted
def enable(name: str, config_path: Path, as_json: bool) -> None:
    """NAME may log in again, with the password that it had."""
    _turn(config_path, name, disabled=False, as_json=as_json)


def _turn(config_path: Path, name: str, *, disabled: bool, as_json: bool) -> None:
    database = opened_with_journal(read_configuration(config_path))
    if (_known(database, name).disabled_at is not None) != disabled:
        change_account(database, name, actor(), database.clock().now(), disabled=disabled)
    _tell(_known(database, name), as_json=as_json, did="disabled" if disabled else "in force")


def _known(database: Database, name: str) -> Account:
    account = account_named(database, name)
    if account is None:
        raise Refused(f"there is no account {name}; see: dispatcher accounts list")
    return account


def _password(name: str, *, from_stdin: bool) -> Secret:
    """One that will do. Raises Refused."""
    if from_stdin:
        given = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    elif sys.stdin.isatty():
        given = click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt="The same again", err=True)
    else:
        raise Refused("there is no terminal to ask for the password; give it by --password-stdin")
    password = Secret(given)
    if weak := weakness(password, name):
        raise Refused(f"the password {_WEAK[weak]}; nothing was changed")
    return password


def _tell(account: Account, *, as_json: bool, did: str) -> None:
    if as_json:
        print_json(_shown(account))
    else:
        click.echo(f"{account.name}: {did}")


def _shown(account: Account) -> dict[str, object]:
    """All but what is kept of the password."""
    told: dict[str, object] = {"name": account.name, "role": account.role, "operator": account.operator}
    times = ("created_at", "changed_at", "last_login_at", "disabled_at")
    return told | {name: iso(getattr(account, name)) for name in times}


def _cells(account: Account) -> list[object]:
    times = (clock_time(account.created_at), clock_time(account.last_login_at), clock_time(account.disabled_at))
    return [account.name, account.role, account.operator, *times]
