"""The operators as every process of the dispatcher sees them: their locked settings, their keys' versions, their state.

Whatever changes a row gives it a higher revision than any row had; by that a running worker notices.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, case, insert, select, text, update

from dispatcher.store.databases.locks import Alone, alone
from dispatcher.store.engine import Database
from dispatcher.store.fingerprints import version_of
from dispatcher.store.journal import Entry, append, entries_about, key_in_force
from dispatcher.store.schema import deliveries, journal, journal_keys, operators

_o, _j = operators.c, journal.c
# Asked with every survey: a text is not built anew each time.
_LATEST = text("SELECT coalesce(max(revision), 0) FROM operators")


class Doors(StrEnum):
    """Whether anything is sent to an operator; UNFIT where its settings can't be used, or it has none."""

    OPEN = "open"
    PAUSED = "paused"
    HELD = "held"
    UNFIT = "unfit"


class Standing(NamedTuple):
    """One operator's row; times in µs. `settings` is locked, None for an operator that is gone."""

    name: str
    origin: str
    settings: str | None
    key_version: int | None
    revision: int
    updated_at: int
    paused_at: int | None
    held_at: int | None
    closed_since: int | None
    closed_total: int

    @property
    def doors(self) -> Doors:
        """What a person did counts before what the breaker did."""
        if self.paused_at is not None:
            return Doors.PAUSED
        return Doors.OPEN if self.held_at is None else Doors.HELD


class Declared(NamedTuple):
    """An operator's new settings, locked, with the plain fingerprint of its key where it has one; that is not stored.

    `changed`: which of them differ from those before, by name; None where nobody can tell.
    """

    name: str
    settings: str
    fingerprint: str | None
    changed: Sequence[str] | None = None


def latest_revision(connection: Connection) -> int:
    return int(connection.execute(_LATEST).scalar_one())


def _next_revision(connection: Connection) -> int:
    """Nobody else changes an operator until we have: two changes with one number, and a worker could miss one."""
    alone(connection, Alone.OPERATORS)
    return latest_revision(connection) + 1


def standings(database: Database) -> list[Standing]:
    """Every operator that was ever declared, by name."""
    with database.reading() as connection:
        return _standings(connection)


def standing_of(database: Database, name: str) -> Standing | None:
    """One of them; None for one that never was."""
    return next((one for one in standings(database) if one.name == name), None)


def _standings(connection: Connection) -> list[Standing]:
    columns = [_o[name] for name in Standing._fields]
    return [Standing._make(row) for row in connection.execute(select(*columns).order_by(_o.name))]


def declare(
    database: Database,
    rows: Sequence[Declared],
    gone: Sequence[str],
    origin: str,
    by: tuple[str, str],
    now: int,
    instead: Mapping[str, str | None] | None = None,
) -> bool:
    """Writes settings, and takes them from those that are `gone`, in one transaction.

    A key with another fingerprint than the latest gets the next version. `by`: the verb and the actor, for the record.
    `instead`: what must stand there now, by name; False, and nothing is written, where something else does.
    """
    verb, actor = by
    with database.writing() as connection:
        revision = _next_revision(connection)
        if instead and instead != _settings(connection, instead.keys()):
            return False
        entries = []
        ciphered = any(row.fingerprint for row in rows)
        key = key_in_force(connection, database.notary, now) if ciphered else None
        for row in rows:
            version = version_of(connection, key, row.name, row.fingerprint, now) if key and row.fingerprint else None
            values = {
                "origin": origin,
                "settings": row.settings,
                "key_version": version,
                "revision": revision,
                "updated_at": now,
            }
            if not connection.execute(update(operators).where(_o.name == row.name).values(**values)).rowcount:
                connection.execute(insert(operators).values(name=row.name, **values))
            entries.append(Entry(verb, actor, operator=row.name, changed=row.changed, key_version=version))
        if gone:
            values = {"settings": None, "revision": revision, "updated_at": now}
            connection.execute(update(operators).where(_o.name.in_(gone)).values(**values))
        entries += [Entry("remove", actor, operator=name) for name in gone]
        if entries:
            append(connection, database.notary, entries, now, key)
    return True


def _settings(connection: Connection, names: Collection[str]) -> dict[str, str | None]:
    """The settings of these operators as they are locked; None for one that is gone, or never was."""
    found = connection.execute(select(_o.name, _o.settings).where(_o.name.in_(names)))
    return {**dict.fromkeys(names), **{str(name): settings for name, settings in found}}


def stop(database: Database, name: str, column: str, by: tuple[str, str, str | None], now: int) -> bool:
    """Closes an operator as of `now`: `column` is `paused_at` or `held_at`. False where it was so already."""
    # A hold that began before a pause may be written after it.
    values = {column: now, "closed_since": case((_o.closed_since < now, _o.closed_since), else_=now)}
    return _turn(database, name, _o[column].is_(None), values, by, now)


def start(database: Database, name: str, column: str, by: tuple[str, str, str | None], now: int) -> bool:
    """Takes one of its stops from an operator; with the last one the time that it was closed is added up."""
    other = _o.held_at if column == "paused_at" else _o.paused_at
    open_again = other.is_(None)
    values = {
        column: None,
        "closed_total": case(
            (open_again & (_o.closed_since < now), _o.closed_total + now - _o.closed_since),
            else_=_o.closed_total,
        ),
        "closed_since": case((open_again, None), else_=_o.closed_since),
    }
    return _turn(database, name, _o[column].is_not(None), values, by, now)


def pause(database: Database, name: str, actor: str, note: str | None, now: int) -> bool:
    """By hand. False where it was paused already."""
    return stop(database, name, "paused_at", ("pause", actor, note), now)


def resume(database: Database, name: str, actor: str, note: str | None, now: int) -> bool:
    """By hand, whether a person paused it or the breaker holds it. False where neither was so."""
    # Both stops, also where the first one was there.
    return sum(start(database, name, column, ("resume", actor, note), now) for column in ("paused_at", "held_at")) > 0


def _turn(
    database: Database,
    name: str,
    condition: ColumnElement[bool],
    values: dict[str, Any],
    by: tuple[str, str, str | None],
    now: int,
) -> bool:
    verb, actor, note = by
    with database.writing() as connection:
        values["revision"] = _next_revision(connection)
        changed = connection.execute(update(operators).where(_o.name == name, condition).values(**values)).rowcount
        if changed:
            append(connection, database.notary, [Entry(verb, actor, note, operator=name)], now)
        return bool(changed)


# What closes an operator, and what opens it: an entry stands for one stop of its row that was set, or taken away.
_STOPS, _STARTS = ("pause", "hold"), ("resume", "release")


class Closing(NamedTuple):
    """A time that an operator was closed: since when, and for how long it had been before, in all (µs)."""

    since: int
    total: int


def closings(database: Database, names: Collection[str], most: int) -> dict[str, list[Closing]]:
    """By name, the latest times that each operator was closed, in order, as far as its `most` last stops tell.

    Its row has only their sum; when each was, the journal knows, which is written with the row.
    """
    found = {}
    with database.reading() as connection:
        for row in _standings(connection):
            if row.name in names and (row.closed_since is not None or row.closed_total):
                found[row.name] = _closings(connection, row, most)
    return found


def _closings(connection: Connection, row: Standing, most: int) -> list[Closing]:
    """Back from how it stands now: with each entry there is one stop less, or one more."""
    turns = _j.delivery_id.is_(None) & (_j.operator == row.name) & _j.verb.in_((*_STOPS, *_STARTS))
    entries = connection.execute(select(_j.verb, _j.at).where(turns).order_by(_j.n.desc()).limit(2 * most))
    stops = (row.paused_at is not None) + (row.held_at is not None)
    since, until, total = row.closed_since, None, row.closed_total
    found = []
    for verb, at in entries:
        if verb in _STARTS:
            until = at if stops == 0 else until
            stops += 1
            continue
        stops -= 1
        if stops < 0:
            # An entry is not there: what was before it, nobody can tell.
            break
        since = at if since is None else min(since, at)
        if stops == 0:
            total -= max(0, until - since) if until is not None else 0
            found.append(Closing(since, total))
            since = until = None
    return found[::-1]


def done_to(database: Database, name: str, most: int | None = None) -> list[dict[str, Any]]:
    """Who changed, paused, resumed, held or released it, in order, the last `most`; and which settings, by name."""
    with database.reading() as connection:
        return [
            {
                "at": one.at,
                "verb": one.verb,
                "actor": one.actor,
                "note": one.note,
                "changed": None if one.changed is None else orjson.loads(one.changed),
                "key_version": one.key_version,
            }
            for one in entries_about(connection, name, most)
        ]


def locked_keys(database: Database) -> list[tuple[int, str]]:
    """The journal's keys by version, as they are locked."""
    with database.reading() as connection:
        rows = connection.execute(select(journal_keys.c.version, journal_keys.c.locked))
        return [(version, locked) for version, locked in rows]


def relock(
    database: Database,
    renewed: Sequence[tuple[str, str, str]],
    keys: Sequence[tuple[int, str]],
    by: tuple[str, str],
    now: int,
) -> int:
    """(name, locked, locked anew): replaces settings that nobody has changed meanwhile; how many were replaced.

    `keys`: the journal's, by version, locked anew. `by`: the actor, and the note of the entry that tells of it.
    """
    actor, note = by
    with database.writing() as connection:
        revision = _next_revision(connection)
        replaced = sum(
            connection.execute(
                update(operators).where(_o.name == name, _o.settings == old).values(settings=new, revision=revision)
            ).rowcount
            for name, old, new in renewed
        )
        for version, locked in keys:
            connection.execute(update(journal_keys).where(journal_keys.c.version == version).values(locked=locked))
        append(connection, database.notary, [Entry("reencrypt", actor, note)], now)
        return replaced


class LockedToken(NamedTuple):
    """A delivery's token as it is locked."""

    id: int
    operator: str
    type: str
    key: str
    bearer: str


def locked_tokens(database: Database, current: str, after: int, most: int) -> list[LockedToken]:
    """By id, those behind `after` whose token is locked under another master key than `current`."""
    d = deliveries.c
    query = select(d.id, d.operator, d.type, d.key, d.bearer).where(
        d.id > after, d.bearer.is_not(None), ~d.bearer.startswith(f"{current}.", autoescape=True)
    )
    with database.reading() as connection:
        return [LockedToken._make(row) for row in connection.execute(query.order_by(d.id).limit(most))]


def relock_tokens(database: Database, renewed: Sequence[tuple[int, str]]) -> None:
    """(id, token locked anew)."""
    d = deliveries.c
    with database.writing() as connection:
        for id_, token in renewed:
            connection.execute(update(deliveries).where(d.id == id_).values(bearer=token))
