"""The statements of a delivery's life: accept, survey, turn (settle and claim), stranded. One thread calls them."""

import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, insert, literal_column, select, text, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from dispatcher.events import Event
from dispatcher.policy import Claim, Outcome, Status, Verb, Verdict, move
from dispatcher.store.engine import Database
from dispatcher.store.schema import attempts, deliveries, key_versions

SNIPPET_BYTES = 1_024


class Fate(StrEnum):
    """What became of an event that was handed in."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Settlement(NamedTuple):
    """What one attempt came to, ready to be written. `response` is the bounded snippet of the answer."""

    claim: Claim
    outcome: Outcome
    verdict: Verdict


class Stranded(NamedTuple):
    """A claim that nobody in this process holds, with the time it was made (µs)."""

    claim: Claim
    claimed_at: int


class Turned(NamedTuple):
    """What one turn did: the deliveries now in our hands, and the settlements that came too late to decide."""

    claimed: list[Claim]
    late: list[Settlement]


# Literals, not parameters: SQLite takes a partial index only where it sees the index's condition in the statement.
_PENDING: ColumnElement[str] = literal_column("'pending'")
_SENDING: ColumnElement[str] = literal_column("'sending'")

_d = deliveries.c
_CLAIM = (_d.id, _d.operator, _d.type, _d.key, _d.uid, _d.body, _d.bearer, _d.attempts, _d.run_from, _d.anchor_at)
_DUE = (
    select(*_CLAIM, _d.due_at, _d.ambiguous)
    .where(_d.operator == bindparam("operator"), _d.status == _PENDING, _d.due_at <= bindparam("now"))
    .order_by(_d.due_at)
    .limit(bindparam("most"))
)
_TAKE = (
    update(deliveries)
    .where(_d.id.in_(bindparam("ids", expanding=True)))
    .values(
        status=move(Status.PENDING, Verb.CLAIM),
        due_at=None,
        attempts=_d.attempts + 1,
        token=bindparam("new_token"),
        claimed_at=bindparam("now"),
    )
)
_HELD = select(_d.id, _d.token).where(_d.id.in_(bindparam("ids", expanding=True)))
_MOVE = (
    update(deliveries)
    # The token is the guard: without it a hand whose claim was taken away would overwrite its successor's result.
    .where(_d.id == bindparam("row"), _d.token == bindparam("held"))
    .values(
        status=bindparam("status"),
        due_at=bindparam("due_at"),
        finished_at=bindparam("finished_at"),
        anchor_at=bindparam("anchor_at"),
        reason=bindparam("reason"),
        ambiguous=bindparam("ambiguous"),
        token=None,
        claimed_at=None,
    )
)
_STRANDED = (
    select(*_CLAIM, _d.claimed_at, _d.token, _d.ambiguous)
    .where(_d.status == _SENDING, _d.claimed_at <= bindparam("before"))
    .order_by(_d.claimed_at)
)
# One index seek for each operator that has work, not one step for each row that waits.
_SURVEY = text(
    """
    WITH RECURSIVE waiting(operator) AS (
        SELECT min(operator) FROM deliveries WHERE status = 'pending'
        UNION ALL
        SELECT (SELECT min(d.operator) FROM deliveries d WHERE d.status = 'pending' AND d.operator > waiting.operator)
        FROM waiting WHERE waiting.operator IS NOT NULL
    )
    SELECT w.operator, (SELECT min(d.due_at) FROM deliveries d WHERE d.status = 'pending' AND d.operator = w.operator)
    FROM waiting w WHERE w.operator IS NOT NULL
    """
)


def accept(database: Database, events: Sequence[Event], now: int) -> list[Fate]:
    """Insert a batch, due at once, in one transaction; the fate of each event, in order, once it is on disk."""
    rows = [{**event._asdict(), "status": Status.PENDING, "accepted_at": now, "due_at": now} for event in events]
    with database.writing() as connection:
        if _insert(connection, rows) == len(rows):
            return [Fate.ACCEPTED] * len(rows)
    # Some were there already. Nothing tells which, so the batch is looked at row by row.
    with database.writing() as connection:
        return _accept_known(connection, events, rows)


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> int:
    """How many of the rows were new; all or none of them stay."""
    statement = insert_or_ignore(deliveries).on_conflict_do_nothing()
    with connection.begin_nested() as savepoint:
        inserted = connection.execute(statement, rows).rowcount
        if inserted < len(rows):
            savepoint.rollback()
    return inserted


def _accept_known(connection: Connection, events: Sequence[Event], rows: list[dict[str, Any]]) -> list[Fate]:
    known = _known(connection, events)
    fates, fresh = [], []
    for event, row in zip(events, rows, strict=True):
        identity = event[:3]
        if identity not in known:
            known[identity] = event.digest
            fresh.append(row)
            fates.append(Fate.ACCEPTED)
        else:
            fates.append(Fate.DUPLICATE if known[identity] == event.digest else Fate.CONFLICT)
    if fresh:
        connection.execute(insert(deliveries), fresh)
    return fates


def _known(connection: Connection, events: Sequence[Event]) -> dict[tuple[str, ...], bytes]:
    """The digests that stand under the events' keys; one index look-up a key, by operator and type."""
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    for event in events:
        keys[event.operator, event.type].append(event.key)
    known: dict[tuple[str, ...], bytes] = {}
    for (operator, kind), some in keys.items():
        found = connection.execute(
            select(_d.key, _d.digest).where(_d.operator == operator, _d.type == kind, _d.key.in_(some))
        )
        known |= {(operator, kind, key): digest for key, digest in found}
    return known


def survey(database: Database) -> dict[str, int]:
    """When the earliest pending delivery of each operator that has one is due (µs)."""
    with database.reading() as connection:
        return dict(row._t for row in connection.execute(_SURVEY))


def turn(database: Database, done: Sequence[Settlement], wanted: Mapping[str, int], now: int) -> Turned:
    """Settle what is done, then claim up to `wanted` due deliveries for each operator: one transaction for both.

    If the power goes before the commit, the attempts are unrecorded and their claims stand: they are found stranded.
    """
    with database.writing() as connection:
        late = _settle(connection, done, now) if done else []
        return Turned(_claim(connection, wanted, now), late)


def _claim(connection: Connection, wanted: Mapping[str, int], now: int) -> list[Claim]:
    # A fresh token for each turn: no two claims of one delivery ever share theirs.
    token = secrets.randbits(63)
    claims = [
        _as_claim(row, attempt=row.attempts + 1, due_at=row.due_at, token=token)
        for operator, most in wanted.items()
        for row in connection.execute(_DUE, {"operator": operator, "now": now, "most": most})
    ]
    if claims:
        connection.execute(_TAKE, {"ids": [claim.id for claim in claims], "new_token": token, "now": now})
    return claims


def _as_claim(row: Any, *, attempt: int, due_at: int, token: int) -> Claim:
    return Claim(
        id=row.id,
        operator=row.operator,
        type=row.type,
        key=row.key,
        uid=row.uid,
        body=row.body,
        bearer=row.bearer,
        attempt=attempt,
        run_from=row.run_from,
        anchor_at=row.anchor_at,
        due_at=due_at,
        token=token,
        ambiguous=row.ambiguous,
    )


def _settle(connection: Connection, done: Sequence[Settlement], now: int) -> list[Settlement]:
    """Record every attempt, move the deliveries that are still ours; returns the settlements that were late."""
    held = dict(row._t for row in connection.execute(_HELD, {"ids": [settlement.claim.id for settlement in done]}))
    ours = [settlement for settlement in done if held.get(settlement.claim.id) == settlement.claim.token]
    late = [settlement for settlement in done if held.get(settlement.claim.id) != settlement.claim.token]
    if late:
        records = [_attempt(settlement, late=True) for settlement in late]
        connection.execute(insert_or_ignore(attempts).on_conflict_do_nothing(), records)
    if ours:
        connection.execute(insert(attempts), [_attempt(settlement, late=False) for settlement in ours])
        connection.execute(_MOVE, [_moved(settlement, now) for settlement in ours])
    return late


def _attempt(settlement: Settlement, *, late: bool) -> dict[str, Any]:
    claim, outcome, verdict = settlement
    return {
        "delivery_id": claim.id,
        "n": claim.attempt,
        "late": late,
        "trigger": claim.trigger,
        "started_at": outcome.started_at,
        "duration": outcome.duration,
        "http_status": outcome.http_status,
        "reason": verdict.reason,
        "ambiguous": verdict.reason is not None and verdict.reason.ambiguous,
        "key_version": outcome.key_version,
        "response": outcome.body[:SNIPPET_BYTES].decode("utf-8", "replace") if outcome.body else None,
        "detail": outcome.detail,
    }


def _moved(settlement: Settlement, now: int) -> dict[str, Any]:
    claim, outcome, verdict = settlement
    delivered = verdict.verb is Verb.DELIVER
    return {
        "row": claim.id,
        "held": claim.token,
        "status": verdict.status,
        "due_at": verdict.due_at,
        "finished_at": now if verdict.due_at is None else None,
        "anchor_at": outcome.ended_at if claim.anchor_at is None else claim.anchor_at,
        "reason": verdict.reason,
        # Once doubtful, doubtful until delivered: any of the failed attempts may have been booked.
        "ambiguous": not delivered and (claim.ambiguous or bool(verdict.reason and verdict.reason.ambiguous)),
    }


def stranded(database: Database, before: int, held: Collection[tuple[int, int]]) -> list[Stranded]:
    """Claims made at or before `before` (µs) whose (id, token) is not in `held`: their holder is gone."""
    with database.reading() as connection:
        rows = connection.execute(_STRANDED, {"before": before}).all()
    return [
        Stranded(_as_claim(row, attempt=row.attempts, due_at=row.claimed_at, token=row.token), row.claimed_at)
        for row in rows
        if (row.id, row.token) not in held
    ]


def key_version(database: Database, operator: str, fingerprint: str, now: int) -> int:
    """The number of the key now in force, counted from 1; another fingerprint than the last one is a new version."""
    k = key_versions.c
    with database.writing() as connection:
        last = connection.execute(
            select(k.version, k.fingerprint).where(k.operator == operator).order_by(k.version.desc()).limit(1)
        ).first()
        if last is not None and last.fingerprint == fingerprint:
            return int(last.version)
        version = 1 if last is None else last.version + 1
        connection.execute(
            insert(key_versions).values(operator=operator, version=version, fingerprint=fingerprint, since=now)
        )
        return int(version)
