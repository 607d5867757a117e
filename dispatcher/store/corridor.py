"""The statements of a delivery's life: accept, survey, turn (settle and claim), stranded. Synchronous."""

import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, TextClause, select, text
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from dispatcher.events import Event
from dispatcher.policy import Claim, Outcome, Status, Verb, Verdict, move
from dispatcher.store.engine import Database
from dispatcher.store.line import Line, advance, insert_in_line
from dispatcher.store.operators import latest_revision
from dispatcher.store.schema import deliveries

SNIPPET_BYTES = 1_024


class Fate(StrEnum):
    """What became of an event that was handed in."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Settlement(NamedTuple):
    """What one attempt came to, ready to be written. `blocks`: once dead, it is in the way of those behind it."""

    claim: Claim
    outcome: Outcome
    verdict: Verdict
    blocks: bool = False

    @property
    def ends(self) -> bool:
        """True where nothing more will be sent by itself."""
        return self.verdict.verb in (Verb.DELIVER, Verb.BURY)

    @property
    def leaves(self) -> bool:
        """True where the delivery leaves the line that it stands in, if it stands in one."""
        return self.verdict.verb is Verb.DELIVER or (self.verdict.verb is Verb.BURY and not self.blocks)


class Stranded(NamedTuple):
    """A claim that nobody in this process holds, with the time it was made (µs)."""

    claim: Claim
    claimed_at: int


class Turned(NamedTuple):
    """What one turn did: the deliveries now in our hands, and the settlements that came too late to decide.

    `freed`: the operators for which somebody has come to the head of a line; that one may be among the claimed.
    """

    claimed: list[Claim]
    late: list[Settlement]
    freed: Collection[str] = ()


class Survey(NamedTuple):
    """When the earliest delivery of each operator that has one is due (µs), and the operators' latest revision."""

    earliest: dict[str, int]
    revision: int


_d = deliveries.c
_AT_ONCE = sqlite_insert(deliveries).on_conflict_do_nothing()
_IN_LINE = insert_in_line()

# Each statement moves a whole batch, handed over and back as one JSON text: SQLite then works through it in a single
# step without Python's lock, where a row at a time would fight for it with the corridor's own thread.
#
# What an index is partial by is a literal, not a parameter: SQLite takes it only where it sees its condition.
_CLAIM = "id, operator, type, key, uid, body, bearer, sequence, attempts, run_from, probes, anchor_at"
_DUE = text(
    f"""
    SELECT json_group_array(json_array({_CLAIM}, due_at, ambiguous)) FROM (
        SELECT * FROM deliveries
        WHERE operator = :operator AND status = 'pending' AND parked = 0 AND due_at <= :now
        ORDER BY due_at LIMIT :most
    )
    """
)
_STRANDED = text(
    f"SELECT json_group_array(json_array({_CLAIM}, claimed_at, ambiguous, token))"
    " FROM deliveries WHERE status = 'sending' AND claimed_at <= :before"
)
_TAKE = text(
    f"""
    UPDATE deliveries
    SET status = '{move(Status.PENDING, Verb.CLAIM)}', due_at = NULL, attempts = attempts + 1,
        token = :token, claimed_at = :now
    WHERE id IN (SELECT value FROM json_each(:ids))
    """
)
# What a settlement is on its way to SQLite: a list, in this order, since names would cost a third more.
_SETTLED = (
    *("id", "token", "n", "trigger", "started_at", "duration", "http_status", "code", "reason", "doubtful"),
    *("key_version", "response", "detail", "status", "due_at", "finished_at", "anchor_at", "ambiguous"),
    *("uncounted", "leaves", "probe"),
)
_s = {name: f"r.value->>{position}" for position, name in enumerate(_SETTLED)}
_RECORD = text(
    f"""
    INSERT INTO attempts (delivery_id, n, "trigger", started_at, duration, http_status, code, reason, ambiguous,
                          key_version, response, detail, late)
    SELECT {_s["id"]}, {_s["n"]}, {_s["trigger"]}, {_s["started_at"]}, {_s["duration"]}, {_s["http_status"]},
           {_s["code"]}, {_s["reason"]}, {_s["doubtful"]}, {_s["key_version"]}, {_s["response"]}, {_s["detail"]},
           d.token IS NOT {_s["token"]}
    FROM json_each(:rows) r JOIN deliveries d ON d.id = {_s["id"]}
    WHERE NOT {_s["uncounted"]} ON CONFLICT DO NOTHING
    """
)
_MOVE = text(
    # The token is the guard: without it a hand whose claim was taken away would overwrite its successor's result.
    f"""
    UPDATE deliveries
    SET status = {_s["status"]}, due_at = {_s["due_at"]}, finished_at = {_s["finished_at"]},
        anchor_at = {_s["anchor_at"]}, reason = {_s["reason"]}, ambiguous = {_s["ambiguous"]},
        attempts = attempts - {_s["uncounted"]}, probes = probes + {_s["probe"]},
        in_line = in_line AND NOT {_s["leaves"]},
        token = NULL, claimed_at = NULL
    FROM json_each(:rows) r
    WHERE deliveries.id = {_s["id"]} AND deliveries.token = {_s["token"]}
    """
)
_LATE = text("SELECT delivery_id, n FROM attempts WHERE late AND delivery_id IN (SELECT value FROM json_each(:ids))")
# One index seek for each operator that has work, not one step for each row that waits.
_SURVEY = text(
    """
    WITH RECURSIVE waiting(operator) AS (
        SELECT min(operator) FROM deliveries WHERE status = 'pending' AND parked = 0
        UNION ALL
        SELECT (
            SELECT min(d.operator) FROM deliveries d
            WHERE d.status = 'pending' AND d.parked = 0 AND d.operator > waiting.operator
        )
        FROM waiting WHERE waiting.operator IS NOT NULL
    )
    SELECT w.operator, (
        SELECT min(d.due_at) FROM deliveries d
        WHERE d.status = 'pending' AND d.parked = 0 AND d.operator = w.operator
    )
    FROM waiting w WHERE w.operator IS NOT NULL
    """
)


def accept(database: Database, events: Sequence[Event], now: int) -> list[Fate]:
    """Insert a batch, due at once, in one transaction; the fate of each event, in order, once it is on disk."""
    if not events:
        return []
    rows = [_row(event, now) for event in events]
    with database.writing() as connection:
        if _insert(connection, rows) == len(rows):
            return [Fate.ACCEPTED] * len(rows)
    # Some were there already. Nothing tells which, so the batch is looked at row by row.
    with database.writing() as connection:
        return _accept_known(connection, events, rows)


def _row(event: Event, now: int) -> dict[str, Any]:
    return {**event._asdict(), "status": Status.PENDING, "accepted_at": now, "due_at": now}


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> int:
    """How many of the rows were new; all or none of them stay."""
    with connection.begin_nested() as savepoint:
        inserted = connection.execute(_statement(rows), rows).rowcount
        if inserted < len(rows):
            savepoint.rollback()
    return inserted


def _statement(rows: list[dict[str, Any]]) -> Insert:
    """Standing in line costs a look-up a row, which only those pay who are in one."""
    return _IN_LINE if any(row["sequence"] is not None for row in rows) else _AT_ONCE


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
        connection.execute(_statement(fresh), fresh)
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


def survey(database: Database) -> Survey:
    """What there is to do."""
    with database.reading() as connection:
        earliest = {row[0]: row[1] for row in connection.execute(_SURVEY)}
        return Survey(earliest, latest_revision(connection))


def turn(database: Database, done: Sequence[Settlement], wanted: Mapping[str, int], now: int) -> Turned:
    """Settle what is done, then claim up to `wanted` due deliveries for each operator: one transaction for both.

    If the power goes before the commit, the attempts are unrecorded and their claims stand: they are found stranded.
    """
    with database.writing() as connection:
        late = _settle(connection, done, now) if done else []
        freed = advance(connection, _left(done))
        return Turned(_claim(connection, wanted, now), late, freed)


def _left(done: Sequence[Settlement]) -> set[Line]:
    """The lines that may go on."""
    return {(one.claim.operator, one.claim.sequence) for one in done if one.claim.sequence is not None and one.ends}


def _claim(connection: Connection, wanted: Mapping[str, int], now: int) -> list[Claim]:
    # A fresh token for each turn: no two claims of one delivery ever share theirs.
    token = secrets.randbits(63)
    claims = [
        _as_claim(row, row[8] + 1, token)
        for operator, most in wanted.items()
        for row in _rows(connection, _DUE, operator=operator, now=now, most=most)
    ]
    if claims:
        ids = _json([claim.id for claim in claims])
        connection.execute(_TAKE, {"ids": ids, "token": token, "now": now})
    return claims


def _as_claim(row: list[Any], attempt: int, token: int) -> Claim:
    """From the columns of _CLAIM, the time that the row is chosen by, and `ambiguous`."""
    id_, operator, kind, key, uid, body, bearer, sequence, _, run_from, probes, anchor_at, at, ambiguous = row[:14]
    known = (id_, operator, kind, key, uid, body, bearer, attempt, run_from, anchor_at, at, token)
    return Claim(*known, bool(ambiguous), sequence, probes)


def _rows(connection: Connection, statement: TextClause, **parameters: object) -> list[list[Any]]:
    rows: list[list[Any]] = orjson.loads(connection.execute(statement, parameters).scalar_one())
    return rows


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _settle(connection: Connection, done: Sequence[Settlement], now: int) -> list[Settlement]:
    """Record every attempt, move the deliveries that are still ours; returns the settlements that were late."""
    rows = {"rows": _json([_settled(settlement, now) for settlement in done])}
    connection.execute(_RECORD, rows)
    moved = connection.execute(_MOVE, rows).rowcount
    if moved == len(done):
        return []
    ids = _json([settlement.claim.id for settlement in done])
    late = {(row.delivery_id, row.n) for row in connection.execute(_LATE, {"ids": ids})}
    return [settlement for settlement in done if (settlement.claim.id, settlement.claim.attempt) in late]


def _settled(settlement: Settlement, now: int) -> list[object]:
    """One settlement as _RECORD and _MOVE read it: the values of _SETTLED, in its order."""
    claim, outcome, verdict, _ = settlement
    reason = verdict.reason
    doubtful = reason is not None and reason.ambiguous
    return [
        claim.id,
        claim.token,
        claim.attempt,
        claim.trigger,
        outcome.started_at,
        outcome.duration,
        outcome.http_status,
        _harmless(verdict.code),
        reason,
        doubtful,
        outcome.key_version,
        _harmless(outcome.body[:SNIPPET_BYTES].decode("utf-8", "replace") or None),
        _harmless(outcome.detail or verdict.words),
        verdict.status,
        verdict.due_at,
        now if verdict.due_at is None else None,
        verdict.anchor_at,
        # Once doubtful, doubtful until delivered: any of the failed attempts may have been booked.
        verdict.verb is not Verb.DELIVER and (claim.ambiguous or doubtful),
        verdict.verb is Verb.PUT_OFF,
        settlement.leaves,
        verdict.probe,
    ]


def _harmless(text: str | None) -> str | None:
    """What every store can hold: no half characters, and no NUL, behind which an answer could hide its end."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:SNIPPET_BYTES] if text else None


def stranded(database: Database, before: int, held: Collection[tuple[int, int]]) -> list[Stranded]:
    """Claims made at or before `before` (µs) whose (id, token) is not in `held`: their holder is gone."""
    with database.reading() as connection:
        rows = _rows(connection, _STRANDED, before=before)
    claims = [Stranded(_as_claim(row, row[8], row[14]), row[12]) for row in rows]
    return [one for one in claims if (one.claim.id, one.claim.token) not in held]
