"""Accounts of the console and their sessions, as the store has them: never a password, never a session's token."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from dispatcher.ground.account import Account, Role
from dispatcher.ground.clock import HOUR, MINUTE
from dispatcher.ground.errors import Refused
from dispatcher.store.engine import Database
from dispatcher.store.journal import append
from dispatcher.store.proof.access import account_changed, account_made
from dispatcher.store.schema import accounts, sessions

# A session ends this long after its last request, and this long after its beginning whatever happens.
IDLE = HOUR
WHOLE = 12 * HOUR
# How exactly it is known when a session was last used: a request more seldom than that writes nothing.
STEP = MINUTE

_a = accounts.c
_s = sessions.c


def all_accounts(database: Database) -> list[Account]:
    """Every account, by name."""
    with database.reading() as connection:
        return [_read(row) for row in connection.execute(select(accounts).order_by(_a.name)).mappings()]


def any_account(database: Database) -> bool:
    """Whether one was ever made."""
    with database.reading() as connection:
        return connection.scalar(select(_a.name).limit(1)) is not None


def account_named(database: Database, name: str) -> Account | None:
    with database.reading() as connection:
        row = connection.execute(select(accounts).where(_a.name == name)).mappings().first()
    return None if row is None else _read(row)


def _read(row: Mapping[Any, Any]) -> Account:
    return Account(**{name: row[name] for name in Account._fields} | {"role": Role(row["role"])})


def create_account(database: Database, account: Account, actor: str) -> None:
    """Raises Refused where the name is taken: a disabled account keeps its own, for what was done under it."""
    with suppress(IntegrityError), database.writing() as connection:
        connection.execute(insert(accounts).values(account._asdict()))
        append(connection, database.notary, [account_made(actor, account)], account.created_at)
        return
    raise Refused(f"there is, or was, an account named {account.name}; give this one another name")


def change_account(
    database: Database, name: str, actor: str, now: int, *, password: str | None = None, disabled: bool | None = None
) -> None:
    """A new password (as `account.sealed` gives it), or another state; whoever is logged in there is logged out.

    Raises Refused for no such account.
    """
    values: dict[str, Any] = {"changed_at": now}
    if password is not None:
        values["password"] = password
    if disabled is not None:
        values["disabled_at"] = now if disabled else None
    with database.writing() as connection:
        if not connection.execute(update(accounts).where(_a.name == name).values(values)).rowcount:
            raise Refused(f"there is no account {name}; see: dispatcher accounts list")
        connection.execute(delete(sessions).where(_s.account == name))
        append(connection, database.notary, [account_changed(actor, name, password, disabled)], now)


def begin_session(database: Database, token: bytes, account: Account, now: int, instead: bytes = b"") -> None:
    """From now on whoever shows this token (its digest is kept) is this account; the session of `instead` is over.

    What has expired is swept out. Raises Refused where the account was changed since it was read: somebody who has
    proved a password that is none any more comes too late.
    """
    with database.writing() as connection:
        as_it_was = (_a.name == account.name, _a.changed_at == account.changed_at, _a.disabled_at.is_(None))
        if not connection.execute(update(accounts).where(*as_it_was).values(last_login_at=now)).rowcount:
            raise Refused("the account was changed at this moment; log in again")
        connection.execute(delete(sessions).where(_expired(now) | (_s.hash == instead)))
        connection.execute(insert(sessions).values(hash=token, account=account.name, created_at=now, seen_at=now))


def _expired(now: int) -> Any:
    return (_s.seen_at < now - IDLE) | (_s.created_at < now - WHOLE)


def whose_session(database: Database, token: bytes, now: int, used: bool = True) -> Account | None:
    """The account of a session that has not expired; where it was `used`, noted so, to the minute."""
    found = select(accounts, _s.seen_at).join(sessions, _s.account == _a.name)
    found = found.where(_s.hash == token, _a.disabled_at.is_(None), ~_expired(now))
    with database.reading() as connection:
        row = connection.execute(found).mappings().first()
    if row is None:
        return None
    if used and row["seen_at"] < now - STEP:
        with database.writing() as connection:
            connection.execute(update(sessions).where(_s.hash == token).values(seen_at=now))
    return _read(row)


def end_session(database: Database, token: bytes) -> None:
    with database.writing() as connection:
        connection.execute(delete(sessions).where(_s.hash == token))
