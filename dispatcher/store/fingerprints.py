"""The keys that operators ever had, by number, and what tells one from the next: a fingerprint of no use to others.

What is stored is made with the journal's key, which is random and locked by the vault: so whoever has the database, a
backup, or what `operators show` prints, can try no guesses of an operator's key by it.
"""

from typing import Any

from sqlalchemy import Connection, insert, select, update

from dispatcher.store.databases.locks import Alone, alone
from dispatcher.store.engine import Database
from dispatcher.store.journal import key_in_force
from dispatcher.store.notary import Key
from dispatcher.store.schema import key_versions

_k = key_versions.c


def version_of(connection: Connection, key: Key, operator: str, plain: str, now: int) -> int:
    """The number of this key, counted from 1; another fingerprint than the last one is a new version.

    With a lost key of the journal nobody can tell whether it is another: it is taken for one.
    """
    last = connection.execute(
        select(_k.version, _k.fingerprint).where(_k.operator == operator).order_by(_k.version.desc()).limit(1)
    ).first()
    fingerprint = key.fingerprint(operator, plain)
    if last is not None and last.fingerprint in (fingerprint, plain):
        return int(last.version)
    version = 1 if last is None else int(last.version) + 1
    connection.execute(
        insert(key_versions).values(operator=operator, version=version, fingerprint=fingerprint, since=now)
    )
    return version


def hide_plain(database: Database, now: int) -> int:
    """Those that an older dispatcher stored plain become what this one stores; how many they were. Raises Refused.

    Nobody has to know the keys that they are of. If the power goes before the commit, the next start does it.
    """
    plain = select(_k.operator, _k.version, _k.fingerprint).where(~_k.fingerprint.contains("."))
    with database.reading() as connection:
        if connection.execute(plain.limit(1)).first() is None:
            return 0
    with database.writing() as connection:
        alone(connection, Alone.OPERATORS)
        key = key_in_force(connection, database.notary, now)
        rows = connection.execute(plain).all()
        for row in rows:
            its = (_k.operator == row.operator) & (_k.version == row.version)
            hidden = key.fingerprint(row.operator, row.fingerprint)
            connection.execute(update(key_versions).where(its).values(fingerprint=hidden))
        return len(rows)


def key_history(database: Database, name: str) -> list[dict[str, Any]]:
    """Each key it ever had, by version and fingerprint, with the time since when (µs)."""
    with database.reading() as connection:
        query = select(_k.version, _k.fingerprint, _k.since).where(_k.operator == name).order_by(_k.version)
        return [dict(row) for row in connection.execute(query).mappings()]
