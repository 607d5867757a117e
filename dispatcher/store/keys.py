"""The keys of the HTTP API, as the store has them: never a key, only its hash."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from dispatcher.ground.apikey import ApiKey, Scope
from dispatcher.ground.errors import Refused
from dispatcher.store.engine import Database
from dispatcher.store.journal import append
from dispatcher.store.proof.access import CREATE_KEY, REVOKE_KEY, key_entry
from dispatcher.store.schema import api_keys, journal

_k, _j = api_keys.c, journal.c


def all_keys(database: Database) -> list[ApiKey]:
    """Every key that was ever made, in the order in which they were."""
    with database.reading() as connection:
        return [_read(row) for row in connection.execute(select(api_keys).order_by(_k.created_at, _k.id)).mappings()]


def _read(row: Mapping[Any, Any]) -> ApiKey:
    values = {name: row[name] for name in ApiKey._fields}
    return ApiKey(**values | {"hash": bytes(row["hash"]), "scopes": frozenset(map(Scope, row["scopes"].split()))})


def create_key(database: Database, key: ApiKey, actor: str) -> None:
    """Raises Refused where the name is taken: a revoked key keeps its own, for what was done under it."""
    values = key._asdict() | {"scopes": " ".join(sorted(key.scopes))}
    with suppress(IntegrityError), database.writing() as connection:
        connection.execute(insert(api_keys).values(values))
        append(connection, database.notary, [key_entry(CREATE_KEY, actor, key)], key.created_at)
        return
    raise Refused(f"there is, or was, a key named {key.name}; give this one another name")


def revoke_key(database: Database, name: str, actor: str, now: int) -> ApiKey:
    """From now on no request with this key is taken; named by its name or its id. Raises Refused for no such key."""
    with database.writing() as connection:
        found = connection.execute(select(api_keys).where(or_(_k.id == name, _k.name == name))).mappings().first()
        if found is None:
            raise Refused(f"there is no key {name}; see: dispatcher keys list")
        revoked = _read(found)
        if revoked.revoked_at is not None:
            return revoked
        connection.execute(update(api_keys).where(_k.id == revoked.id).values(revoked_at=now))
        append(connection, database.notary, [key_entry(REVOKE_KEY, actor, revoked)], now)
        return revoked._replace(revoked_at=now)


def who(database: Database) -> dict[str, dict[str, str | None]]:
    """By the keys' names: who created it, and who revoked it; None where the journal has nobody."""
    query = select(_j.verb, _j.key, _j.actor).where(_j.delivery_id.is_(None), _j.operator.is_(None))
    found: dict[str, dict[str, str | None]] = {}
    with database.reading() as connection:
        for verb, name, actor in connection.execute(query.where(_j.verb.in_((CREATE_KEY, REVOKE_KEY)))):
            by = found.setdefault(name, {"created_by": None, "revoked_by": None})
            by["created_by" if verb == CREATE_KEY else "revoked_by"] = actor
    return found


def note_use(database: Database, used: Mapping[str, int]) -> None:
    """When each of these keys, by id, was last used (µs)."""
    with database.writing() as connection:
        for id_, at in sorted(used.items()):
            later = or_(_k.last_used_at.is_(None), _k.last_used_at < at)
            connection.execute(update(api_keys).where(_k.id == id_, later).values(last_used_at=at))
