"""The journal: what was done by hand, who, when, why, to what. Each entry is chained to the one before it, and sealed.

An entry's `hash` is SHA-256 over all that it says and the hash before it; its `seal` is an HMAC of that under the
journal's key (`notary`). The numbers have no gap. What that finds, when somebody who can write the database

- alters, inserts, removes or exchanges entries: the hashes, or where all of them were made again, the seals;
- cuts off the end, or puts all of the store back to what it was once: nothing within the store can tell. So the last
  number and hash, the *head*, are told: noted elsewhere, they are found again in the journal, or it was cut off.

Who has the database *and* the master key can write what he likes, up to a head that was noted.

Entries are made one after the other (`Alone.JOURNAL`), by the last statements of the transaction that does what they
tell. If the power goes before its commit, neither was done; after it, both were.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from hmac import compare_digest
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from dispatcher.store.databases.locks import Alone, alone
from dispatcher.store.engine import Database
from dispatcher.store.moving.transfer import put
from dispatcher.store.notary import Key, Notary
from dispatcher.store.schema import deliveries, journal

# Beside what policy.Verb and the commands about operators call it.
SEAL, NEW_KEY, COPY = "seal", "new_key", "copy"
_SEALED = "what was altered before this entry can't be told"
_LOST = "the key before was lost with its master key; the entries before stay chained"
# Begins what is hashed, so that no text of another kind, or of another version, has the same hash.
FORM = "dispatcher journal 1"
SHORT = 16
_PAGE = 2_000

_j = journal.c


class Entry(NamedTuple):
    """What is to be noted: a verb, who, why, and what it was done to: a delivery, an operator, or a key of the API.

    That one is named in `key` alone. `changed`: which settings, by name. `key_version`: of the operator's key, as it is
    from now on.
    """

    verb: str
    actor: str
    note: str | None = None
    operator: str | None = None
    type: str | None = None
    key: str | None = None
    delivery_id: int | None = None
    changed: Sequence[str] | None = None
    key_version: int | None = None


class Noted(NamedTuple):
    """An entry as it stands, up to what holds it; `at` in µs. The order is that in which it is hashed."""

    n: int
    at: int
    verb: str
    actor: str
    operator: str | None
    type: str | None
    key: str | None
    delivery_id: int | None
    note: str | None
    changed: str | None
    key_version: int | None
    sealed_by: int | None


_NOTED = [_j[name] for name in Noted._fields]
_LAST = select(_j.n, _j.hash, _j.seal).order_by(_j.n.desc()).limit(1)


class Head(NamedTuple):
    """The last entry's number and hash; an empty journal has 0 and no bytes."""

    n: int
    hash: bytes
    sealed: bool = True

    def __str__(self) -> str:
        return f"{self.n}:{self.hash.hex()[:SHORT]}"


def digest(noted: Noted, before: bytes) -> bytes:
    """A JSON list has one reading: no two entries are hashed as the same text."""
    told = [FORM, before.hex(), *noted]
    return hashlib.sha256(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()).digest()


def head(connection: Connection) -> Head:
    last = connection.execute(_LAST).first()
    return Head(0, b"") if last is None else Head(last.n, last.hash, last.seal is not None)


def key_in_force(connection: Connection, notary: Notary | None, now: int) -> Key:
    """What the journal is sealed with; until this transaction ends nobody else adds to it. Raises Refused."""
    if notary is None:
        raise RuntimeError("something is to be noted, and nobody has opened the vault")
    alone(connection, Alone.JOURNAL)
    return notary.key(connection, now)


def append(
    connection: Connection, notary: Notary | None, entries: Sequence[Entry], now: int, key: Key | None = None
) -> Head:
    """Adds entries at the end. Until this transaction ends nobody else does. Raises Refused.

    `key`: in force, where this transaction has asked for it already.
    """
    key = key or key_in_force(connection, notary, now)
    last = head(connection)
    if key.lost:
        entries = [Entry(NEW_KEY, entries[0].actor, _LOST), *entries]
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        noted = _numbered(entry, last.n + 1, now, key)
        last = Head(noted.n, digest(noted, last.hash))
        rows.append((*noted[:-1], last.hash, noted.sealed_by, key.seal(last.hash)))
    put(connection, journal, rows)
    return last


def _numbered(entry: Entry, n: int, now: int, key: Key) -> Noted:
    verb, actor, note, operator, kind, name, delivery, changed, key_version = entry
    listed = None if changed is None else json.dumps(changed, ensure_ascii=False)
    # A verb may be a member of an enumeration: what is hashed is the text that is stored.
    return Noted(n, now, str(verb), actor, operator, kind, name, delivery, note, listed, key_version, key.version)


def begin(database: Database, now: int) -> None:
    """What an upgrade has chained without the key is sealed. Raises Refused where the key is there and can't be opened:

    better at a daemon's start than when its breaker wants to note something.
    """
    notary = database.notary
    if notary is None:
        raise RuntimeError("the journal begins, and nobody has opened the vault")
    with database.reading() as connection:
        sealed = head(connection).sealed
        notary.prove(connection, now)
    if not sealed:
        with database.writing() as connection:
            append(connection, notary, [Entry(SEAL, "dispatcher", _SEALED)], now)


def read_head(database: Database) -> Head:
    with database.reading() as connection:
        return head(connection)


def entries_of(connection: Connection, delivery: int) -> list[Noted]:
    """What was done to a delivery, in order; not to one that had its number before it, and was deleted."""
    d = deliveries.c
    its_own = (_j.operator == d.operator) & (_j.type == d.type) & (_j.key == d.key) & (_j.delivery_id == d.id)
    query = select(*_NOTED).join(deliveries, its_own).where(_j.delivery_id == delivery, d.id == delivery)
    return [Noted._make(row) for row in connection.execute(query.order_by(_j.n))]


def entries_about(connection: Connection, operator: str, most: int | None = None) -> list[Noted]:
    """What was done to an operator, in order; of it all, the last `most`."""
    query = select(*_NOTED).where(_j.delivery_id.is_(None), _j.operator == operator)
    newest = connection.execute(query.order_by(_j.n.desc()).limit(most)).all()
    return [Noted._make(row) for row in reversed(newest)]


class Broken(NamedTuple):
    """What is wrong at an entry, as a sentence."""

    n: int
    told: str


class Chain:
    """A walk along the whole journal: `broken` gives what is wrong, and afterwards the rest says what was seen."""

    def __init__(self, connection: Connection, keys: Mapping[int, Key | str]) -> None:
        self._connection = connection
        self._keys = keys
        self.head = Head(0, b"")
        self.entries = 0
        # The last entry that was chained without the key, and the first one that is sealed.
        self.unsealed = 0
        self.sealed: Noted | None = None
        # How many entries can't be looked at, by the version of their key; which keys were given up as lost.
        self.shut: dict[int, int] = {}
        self.lost: set[int] = set()

    def broken(self) -> Iterator[Broken]:
        for noted, hashed, sealed in self._rows():
            gap = noted.n != self.head.n + 1
            if gap:
                yield Broken(noted.n, _gap(self.head.n, noted.n))
            elif not compare_digest(digest(noted, self.head.hash), hashed):
                yield Broken(noted.n, "it was altered, inserted or moved: its hash is another one")
            yield from self._seal(noted, hashed, sealed)
            self.head = Head(noted.n, hashed, sealed is not None)
            self.entries += 1

    def _seal(self, noted: Noted, hashed: bytes, sealed: bytes | None) -> Iterator[Broken]:
        if noted.sealed_by is None or sealed is None:
            if self.sealed is not None:
                yield Broken(noted.n, "it has no seal: it was not made by the dispatcher")
            self.unsealed = noted.n
            return
        if self.sealed is None:
            self.sealed = noted
        key = self._keys.get(noted.sealed_by)
        if not isinstance(key, Key):
            self.shut[noted.sealed_by] = self.shut.get(noted.sealed_by, 0) + 1
        elif not compare_digest(key.seal(hashed), sealed):
            yield Broken(noted.n, "its seal is wrong: who wrote it had not the key")
        elif noted.verb == NEW_KEY:
            # Sealed by who has the master key: what this one says of the key before it holds.
            self.lost.add(noted.sealed_by - 1)

    def _rows(self) -> Iterator[tuple[Noted, bytes, bytes | None]]:
        last: int | None = None
        while True:
            query = select(*_NOTED, _j.hash, _j.seal).order_by(_j.n).limit(_PAGE)
            rows = self._connection.execute(query if last is None else query.where(_j.n > last)).all()
            for row in rows:
                yield Noted._make(row[:-2]), row[-2], row[-1]
            if len(rows) < _PAGE:
                return
            last = rows[-1].n


def _gap(before: int, after: int) -> str:
    if after <= before + 1:
        return f"its number is out of order behind {before}"
    first, last = before + 1, after - 1
    return f"before it entry {first} is gone" if first == last else f"before it entries {first} to {last} are gone"


def stands(connection: Connection, n: int, beginning: str) -> bool:
    """Whether the head that was noted once (a number, and how its hash begins) is still in the journal."""
    found = connection.scalar(select(_j.hash).where(_j.n == n))
    return found is not None and bytes(found).hex().startswith(beginning.lower())
