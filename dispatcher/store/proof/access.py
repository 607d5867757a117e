"""Who is let in, as the journal tells it: keys of the API, and accounts, noted so that their rows can be held to it.

An entry names what its key or account may do, and a mark of what proves it (a key's hash, what scrypt made of a
password), so that a row that was slipped in, altered or taken out past the dispatcher is found. The mark is SHA-256
over what is stored: whoever reads the journal alone can test no guess by it, for the stored text has 128 random bits
of salt in it, or comes from 256 random ones.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from dispatcher.ground.account import Account
from dispatcher.ground.apikey import ApiKey
from dispatcher.store.journal import Entry
from dispatcher.store.proof.findings import Finding, Seen
from dispatcher.store.proof.proofs import Check
from dispatcher.store.schema import accounts, api_keys, journal

CREATE_KEY, REVOKE_KEY, ACCOUNT = "create_key", "revoke_key", "account"
_PAGE = 1_000
# Names in a sentence; there may be thousands.
_NAMED = 10

_j = journal.c
_ENTRY = [_j.n, _j.at, _j.verb, _j.key, _j.note]


def mark(stored: bytes) -> str:
    """Tells what proves one key or account from any other, in 32 hex characters."""
    return hashlib.sha256(b"dispatcher proof 1\0" + stored).hexdigest()[:32]


def key_entry(verb: str, actor: str, key: ApiKey) -> Entry:
    """A key of the API was made, or revoked."""
    scopes = " ".join(sorted(key.scopes))
    note = _opens(key.id, scopes, key.operator, key.rate)
    return Entry(verb, actor, f"{note}, hash {mark(key.hash)}", key=key.name)


def _opens(id_: str, scopes: str, operator: str | None, rate: int | None) -> str:
    """What a key opens. No two keys that can be made are told by the same text."""
    whose = "every operator" if operator is None else f"{operator} alone"
    return f"{id_}: {scopes}, for {whose}, {'web.rate' if rate is None else rate} a second"


def account_made(actor: str, account: Account) -> Entry:
    """An account was made."""
    bound = f" for {account.operator}" if account.operator else ""
    told = f"role {account.role}{bound}, password {mark(account.password.encode())}"
    return Entry(ACCOUNT, actor, f"{account.name}: {told}")


def account_changed(actor: str, name: str, password: str | None, disabled: bool | None) -> Entry:
    """It has a new password (as it is stored), or another state, or both."""
    told = [] if password is None else [f"new password {mark(password.encode())}"]
    if disabled is not None:
        told.append("disabled" if disabled else "enabled")
    return Entry(ACCOUNT, actor, f"{name}: {', '.join(told)}")


# What is told, and how an entry of a time without marks told it.
_KEY = re.compile(r"(.*? a second)(?:, hash ([0-9a-f]{32}))?", re.DOTALL)
_MADE = re.compile(r"role (admin|support|operator)(?: for ([^ ,]+))?(?:, password ([0-9a-f]{32}))?")
_CHANGED = re.compile(r"(new password)?(?: ([0-9a-f]{32}))?(?:, )?(disabled|enabled)?")


@dataclass(slots=True)
class _Key:
    """A key as the journal has it; times in µs. `mark` is None where an entry of before gave none."""

    opens: str
    mark: str | None
    made_at: int
    revoked_at: int | None = None

    @property
    def unmarked(self) -> bool:
        """Whether one that opens something may have been exchanged."""
        return self.mark is None and self.revoked_at is None


@dataclass(slots=True)
class _Account:
    """An account as the journal has it; times in µs."""

    role: str
    operator: str | None
    mark: str | None
    made_at: int
    changed_at: int
    disabled_at: int | None = None

    @property
    def unmarked(self) -> bool:
        """Whether its password may have been exchanged; one that is disabled can be enabled again."""
        return self.mark is None


def held_against(connection: Connection, seen: Seen) -> Iterator[Finding]:
    """Every key and account has its entries, says what they say, and none is missing that they tell of."""
    keys: dict[str, _Key] = {}
    people: dict[str, _Account] = {}
    for entry in _entries(connection):
        if entry.verb == ACCOUNT:
            _read_account(people, entry)
        else:
            _read_key(keys, entry)
    yield from _compared(connection, _KEYS, keys, seen)
    yield from _compared(connection, _ACCOUNTS, people, seen)


def _entries(connection: Connection) -> Iterator[Row[Any]]:
    """In order, page by page: by the index of entries that are about no delivery, those about no operator."""
    last = 0
    about = _j.delivery_id.is_(None) & _j.operator.is_(None)
    query = select(*_ENTRY).where(about, _j.verb.in_((CREATE_KEY, REVOKE_KEY, ACCOUNT)))
    while page := connection.execute(query.where(_j.n > last).order_by(_j.n).limit(_PAGE)).all():
        yield from page
        last = page[-1].n


def _read_key(keys: dict[str, _Key], entry: Row[Any]) -> None:
    found = _KEY.fullmatch(entry.note or "")
    if found is None or entry.key is None:
        return
    if entry.verb == CREATE_KEY:
        keys[entry.key] = _Key(found[1], found[2], entry.at)
    elif entry.key in keys:
        keys[entry.key].revoked_at = entry.at


def _read_account(people: dict[str, _Account], entry: Row[Any]) -> None:
    name, _, told = (entry.note or "").partition(": ")
    if made := _MADE.fullmatch(told):
        people[name] = _Account(made[1], made[2], made[3], entry.at, entry.at)
        return
    changed, known = _CHANGED.fullmatch(told), people.get(name)
    if changed is None or known is None:
        return
    known.changed_at = entry.at
    if changed[1]:
        known.mark = changed[2]
    if changed[3]:
        known.disabled_at = entry.at if changed[3] == "disabled" else None


@dataclass(frozen=True, slots=True)
class _Book:
    """How one table is held against the journal."""

    check: Check
    table: Table
    what: str
    differs: Callable[[Row[Any], Any], Iterator[str]]
    mend: str


def _compared(
    connection: Connection, book: _Book, noted: Mapping[str, _Key | _Account], seen: Seen
) -> Iterator[Finding]:
    """Row by row; then what is noted and not there, and whose proof nobody noted."""
    missing, unmarked = set(noted), []
    for row in connection.execute(select(book.table).order_by(book.table.c.name)):
        seen.rows[book.check] += 1
        known = noted.get(row.name)
        if known is None:
            yield Finding(book.check, f"{row.name}: the journal has nobody who made this {book.what}")
            continue
        missing.discard(row.name)
        if known.unmarked:
            unmarked.append(row.name)
        for told in book.differs(row, known):
            yield Finding(book.check, f"{row.name}: {told}")
    for name in noted:
        if name in missing:
            yield Finding(book.check, f"{name}: the journal says that this {book.what} was made, and it is not there")
    if unmarked:
        yield Finding(book.check, f"{_without_mark(unmarked)}; {book.mend}", fault=False)


def _key_differs(row: Row[Any], known: _Key) -> Iterator[str]:
    opens = _opens(row.id, row.scopes, row.operator, row.rate)
    if opens != known.opens:
        yield f"it opens {opens!r}, and was made to open {known.opens!r}"
    if known.mark not in (None, mark(bytes(row.hash))):
        yield "its hash is not that of the key that was made: another one opens now"
    if row.created_at != known.made_at:
        yield "it was made at another time than the journal says"
    if row.revoked_at != known.revoked_at:
        yield from _ended(row.revoked_at, known.revoked_at, "revoked")


def _account_differs(row: Row[Any], known: _Account) -> Iterator[str]:
    if (row.role, row.operator) != (known.role, known.operator):
        yield f"its role is {_bound(row.role, row.operator)}, and the journal says {_bound(known.role, known.operator)}"
    if known.mark not in (None, mark(row.password.encode())):
        yield "its password is not the one that was set"
    if (row.created_at, row.changed_at) != (known.made_at, known.changed_at):
        yield "it was made or changed at another time than the journal says"
    if row.disabled_at != known.disabled_at:
        yield from _ended(row.disabled_at, known.disabled_at, "disabled")


def _ended(there: int | None, noted: int | None, did: str) -> Iterator[str]:
    """What is told of a key or account that ended otherwise than the journal says."""
    if there is None:
        yield f"the journal says that it was {did}, and it is in force"
    elif noted is None:
        yield f"it is {did}, and the journal has nobody who did that"
    else:
        yield f"it was {did} at another time than the journal says"


_KEYS = _Book(Check.API_KEYS, api_keys, "key", _key_differs, "revoke them, and make others")
_ACCOUNTS = _Book(Check.ACCOUNTS, accounts, "account", _account_differs, "give them a new one")


def _bound(role: str, operator: str | None) -> str:
    return role if operator is None else f"{role} for {operator}"


def _without_mark(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    told = ", ".join(names[:_NAMED]) + more
    return f"made before the journal had marks of what proves it, so nobody can tell whether that was exchanged: {told}"
