"""The keys of the HTTP API, as the store has them: never a key, only its hash."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from dispatcher.apikey import ApiKey, Scope
from dispatcher.errors import Refused
from dispatcher.store.engine import Database
from dispatcher.store.schema import api_keys

_k = api_keys.c


def all_keys(database: Database) -> list[ApiKey]:
    """Every key that was ever made, in the order in which they were."""
    with database.reading() as connection:
        return [_read(row) for row in connection.execute(select(api_keys).order_by(_k.created_at, _k.id)).mappings()]


def _read(row: Mapping[Any, Any]) -> ApiKey:
    values = {name: row[name] for name in ApiKey._fields}
    return ApiKey(**values | {"hash": bytes(row["hash"]), "scopes": frozenset(map(Scope, row["scopes"].split()))})


def create_key(database: Database, key: ApiKey) -> None:
    """Raises Refused where the name is taken: a revoked key keeps its own, for what was done under it."""
    values = key._asdict() | {"scopes": " ".join(sorted(key.scopes))}
    with suppress(IntegrityError), database.writing() as connection:
        connection.execute(insert(api_keys).values(values))
        return
    raise Refused(f"there is, or was, a key named {key.name}; give this one another name")


def revoke_key(database: Database, name: str, now: int) -> ApiKey:
    """From now on no request with this key is taken; named by its name or its id. Raises Refused for no such key."""
    with database.writing() as connection:
        found = connection.execute(select(api_keys).where(or_(_k.id == name, _k.name == name))).mappings().first()
        if found is None:
            raise Refused(f"there is no key {name}; see: dispatcher keys list")
        revoked = _read(found)
        if revoked.revoked_at is not None:
            return revoked
        connection.execute(update(api_keys).where(_k.id == revoked.id).values(revoked_at=now))
        return revoked._replace(revoked_at=now)


def note_use(database: Database, used: Mapping[str, int]) -> None:
    """When each of these keys, by id, was last used (µs)."""
    with database.writing() as connection:
        for id_, at in sorted(used.items()):
            later = or_(_k.last_used_at.is_(None), _k.last_used_at < at)
            connection.execute(update(api_keys).where(_k.id == id_, later).values(last_used_at=at))
