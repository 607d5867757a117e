"""The key that seals the journal, and the fingerprints of keys: made here at random, kept in the store, locked.

So whoever can write the database, but has not the master key, can seal nothing; and a new master key, which locks it
anew (`dispatcher reencrypt`), leaves every seal as it is.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from dispatcher.ground.errors import DispatcherError, Refused
from dispatcher.store.schema import journal_keys

KEY_BYTES = 32
_k = journal_keys.c
_LAST = select(_k.version, _k.locked).order_by(_k.version.desc()).limit(1)


class Key(NamedTuple):
    """`fresh`: it was made this moment; `lost`: the one before it can't be opened any more, and somebody said so."""

    version: int
    raw: bytes
    fresh: bool = False
    lost: bool = False

    def __repr__(self) -> str:
        return f"Key({self.version})"

    def seal(self, digest: bytes) -> bytes:
        return hmac.digest(self.raw, digest, hashlib.sha256)

    def fingerprint(self, operator: str, plain: str) -> str:
        """What is stored of a cipher key's fingerprint, behind this key's version: by it nobody can try guesses."""
        told = f"dispatcher fingerprint 1\0{operator}\0{plain}"
        return f"{self.version}.{hmac.digest(self.raw, told.encode(), hashlib.sha256)[:8].hex()}"


class Notary:
    """`lock` and `unlock` are the vault's. `lost_key`: in the place of a key that they can't open comes a new one."""

    def __init__(
        self, lock: Callable[[bytes, str], str], unlock: Callable[[str, str], bytes], *, lost_key: bool = False
    ) -> None:
        self._lock = lock
        self._unlock = unlock
        self._lost_key = lost_key
        self._opened: Key | None = None

    def goes_by(self, unlock: Callable[[str, str], bytes]) -> bool:
        """Whether it is this vault that opens its keys."""
        return self._unlock == unlock

    def key(self, connection: Connection, now: int) -> Key:
        """The key in force; made where there is none. Nobody else makes one meanwhile: its caller sees to that.

        Raises Refused where it can't be opened.
        """
        last = connection.execute(_LAST).first()
        if last is None:
            return self._make(connection, Key(1, secrets.token_bytes(KEY_BYTES), fresh=True), now)
        if self._opened is not None and self._opened.version == last.version:
            return self._opened
        try:
            self._opened = Key(last.version, self._unlock(last.locked, about(last.version)))
        except DispatcherError as error:
            if self._lost_key:
                fresh = Key(last.version + 1, secrets.token_bytes(KEY_BYTES), fresh=True, lost=True)
                return self._make(connection, fresh, now)
            mend = "or, if that key is lost, let the journal go on with another: dispatcher operators apply --lost-key"
            raise Refused(f"the journal's key can't be opened: {error}; {mend}") from None
        return self._opened

    def prove(self, connection: Connection, now: int) -> None:
        """Raises Refused where there is a key, and it can't be opened."""
        if self.has_key(connection):
            self.key(connection, now)

    def has_key(self, connection: Connection) -> bool:
        """Whether one was made."""
        return connection.execute(select(_k.version).limit(1)).first() is not None

    def _make(self, connection: Connection, key: Key, now: int) -> Key:
        locked = self._lock(key.raw, about(key.version))
        connection.execute(insert(journal_keys).values(version=key.version, locked=locked, since=now))
        # Not remembered: nobody knows yet whether this transaction will stand.
        return key

    def every_key(self, connection: Connection) -> Mapping[int, Key | str]:
        """Each key by its version; for one that can't be opened: that, and why, as the sentence goes on behind it."""
        found: dict[int, Key | str] = {}
        for version, locked in connection.execute(select(_k.version, _k.locked)):
            try:
                found[version] = Key(version, self._unlock(locked, about(version)))
            except DispatcherError as error:
                found[version] = f"can't be opened: {error}"
        return found


def about(version: int) -> str:
    """What the vault ties the key to."""
    return f"key {version} of the journal"
