"""The statements of a delivery's life: survey, turn (settle and claim), adopt. Synchronous."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.policy import Claim, Outcome, Verb, Verdict
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.engine import Database
from dispatcher.store.feed import has_told, tell
from dispatcher.store.insertion import insert_attempts
from dispatcher.store.line import Line, advance, hold, supersede
from dispatcher.store.statements import ADOPT, DECIDED, DELIVER, DUE, LOST, MOVE, RECORD, SURVEY, TAKE, TAKEN, ClaimRow
from dispatcher.store.workers import appear

SNIPPET_BYTES = 1_024


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


class Adopted(NamedTuple):
    """A claim that somebody has left behind, now ours, with the time it was made (µs)."""

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


class _TakenAway(Exception):
    """A claim among those to be settled is not ours any more."""


def survey(database: Database) -> Survey:
    """What there is to do."""
    with database.glance() as connection:
        earliest, revision, database.followed_until = connection.execute(SURVEY.on(connection)).one()
    return Survey(dict(orjson.loads(earliest)), revision)


def turn(database: Database, done: Sequence[Settlement], wanted: Mapping[str, int], now: int) -> Turned:
    """Settle what is done, then claim up to `wanted` due deliveries for each operator: one transaction for both.

    If the power goes before the commit, the attempts are unrecorded and their claims stand: they are found stranded.
    If the store goes during the commit, nobody knows whether it was made; the turn that follows finds what it claimed.
    """
    # A fresh token for each turn: no two claims of one delivery ever share theirs.
    token, again = database.in_doubt or secrets.randbits(63), database.in_doubt is not None
    try:
        try:
            turned = _turn(database, done, _settle_ours, wanted, now, token, again=again)
        except _TakenAway:
            turned = _turn(database, done, _settle_any, wanted, now, token, again=again)
    except StoreUnavailable:
        database.in_doubt = token
        raise
    database.in_doubt = None
    if done:
        has_told(database, now)
    return turned


def _turn(
    database: Database,
    done: Sequence[Settlement],
    settle: Callable[[Connection, Sequence[Settlement], int], list[Settlement]],
    wanted: Mapping[str, int],
    now: int,
    token: int,
    *,
    again: bool,
) -> Turned:
    with database.writing() as connection:
        left = _left(done)
        hold(connection, left)
        late = settle(connection, done, now) if done else []
        supersede(connection, _gone(done))
        freed = advance(connection, left)
        if done:
            # A fault of our own is no attempt: nothing is recorded under its number.
            tell(connection, database, ((one.id, one.attempt, outcome.started_at) for one, outcome, *_ in done), now)
        taken = _rows(connection, TAKEN, worker=database.worker, token=token) if again else []
        claims = [_as_claim(row, row.attempts, token) for row in taken]
        return Turned(claims or _claim(connection, wanted, now, token, database), late, freed)


def _left(done: Sequence[Settlement]) -> set[Line]:
    """The lines that may go on."""
    return {(one.claim.operator, one.claim.sequence) for one in done if one.claim.sequence is not None and one.ends}


def _gone(done: Sequence[Settlement]) -> list[tuple[str, str, int]]:
    """Those in a line that their operator has now, or may have."""
    return [
        (claim.operator, claim.sequence, claim.id)
        for claim, _, verdict, _ in done
        if claim.sequence is not None
        and (verdict.verb is Verb.DELIVER or (verdict.reason is not None and verdict.reason.ambiguous))
    ]


def _claim(connection: Connection, wanted: Mapping[str, int], now: int, token: int, database: Database) -> list[Claim]:
    claims = [
        _as_claim(row, row.attempts + 1, token)
        for operator, most in wanted.items()
        for row in _rows(connection, DUE, operator=operator, now=now, most=most)
    ]
    if claims:
        ids = _json([claim.id for claim in claims])
        values = {"ids": ids, "worker": database.worker, "token": token, "now": now}
        if connection.execute(TAKE.on(connection), values).rowcount < len(claims):
            # We were taken for dead, or are new.
            appear(connection, database)
            connection.execute(TAKE.on(connection), values)
    return claims


def _as_claim(row: ClaimRow, attempt: int, token: int) -> Claim:
    id_, operator, kind, key, uid, body, bearer, sequence, _, run_from, probes, anchor_at, at, ambiguous, _ = row
    known = (id_, operator, kind, key, uid, body, bearer, attempt, run_from, anchor_at, at, token)
    return Claim(*known, bool(ambiguous), sequence, probes)


def _rows(connection: Connection, statement: Spelled, **parameters: object) -> list[ClaimRow]:
    rows: list[list[Any]] = orjson.loads(connection.execute(statement.on(connection), parameters).scalar_one())
    return [ClaimRow(*row) for row in rows]


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _settle_ours(connection: Connection, done: Sequence[Settlement], now: int) -> list[Settlement]:
    """Move the deliveries and record their attempts; none is late. Raises _TakenAway where one is not ours any more."""
    delivered: dict[int, list[int]] = defaultdict(list)
    others = []
    for one in done:
        if one.verdict.verb is Verb.DELIVER:
            delivered[one.claim.token].append(one.claim.id)
        else:
            others.append(_settled(one, now))
    moved = 0
    for token, ids in delivered.items():
        moved += connection.execute(DELIVER.on(connection), {"token": token, "ids": _json(ids), "now": now}).rowcount
    if others:
        moved += connection.execute(MOVE.on(connection), {"rows": _json(others)}).rowcount
    if moved < len(done):
        raise _TakenAway
    insert_attempts(connection, [_attempt(one) for one in done if one.verdict.verb is not Verb.PUT_OFF])
    return []


def _settle_any(connection: Connection, done: Sequence[Settlement], now: int) -> list[Settlement]:
    """Record every attempt, move the deliveries that are still ours; returns the settlements that were late."""
    rows = {"rows": _json([_settled(settlement, now) for settlement in done])}
    connection.execute(RECORD.on(connection), rows)
    moved = connection.execute(MOVE.on(connection), rows).rowcount
    if moved == len(done):
        return []
    ids = _json([settlement.claim.id for settlement in done])
    decided = {tuple(row) for row in connection.execute(DECIDED.on(connection), {"ids": ids})}
    return [one for one in done if one.verdict.verb is not Verb.PUT_OFF and _made(one) not in decided]


def _made(one: Settlement) -> tuple[object, ...]:
    """What tells an attempt from every other under its number, as DECIDED has it."""
    claim, outcome, verdict, _ = one
    return (claim.id, claim.attempt, outcome.started_at, outcome.duration, outcome.http_status, verdict.reason)


def _attempt(settlement: Settlement) -> list[Any]:
    """One attempt as `insert_attempts` takes it."""
    claim, outcome, verdict, _ = settlement
    reason = verdict.reason
    return [
        claim.id,
        claim.attempt,
        False,
        claim.trigger,
        outcome.started_at,
        outcome.duration,
        outcome.http_status,
        _harmless(verdict.code),
        reason,
        reason is not None and reason.ambiguous,
        outcome.key_version,
        _harmless(outcome.body[:SNIPPET_BYTES].decode("utf-8", "replace")),
        _harmless(outcome.detail or verdict.words),
    ]


def _settled(settlement: Settlement, now: int) -> list[Any]:
    """One settlement as RECORD and MOVE read it: the values of SETTLED, in its order."""
    claim, _, verdict, _ = settlement
    id_, n, _, *recorded = _attempt(settlement)
    doubtful = verdict.reason is not None and verdict.reason.ambiguous
    return [
        id_,
        claim.token,
        n,
        *recorded,
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
    if not text:
        return None
    whole = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return whole.replace("\0", "\ufffd")[:SNIPPET_BYTES]


def adopt(database: Database, before: int, held: Collection[tuple[int, int]], token: int) -> list[Adopted]:
    """Takes over, under this token, what was left behind: claims whose worker is gone, and our own that are lost to us:

    made at or before `before` (µs), and their (id, token) not in `held`. Asked again with the same token, it gives what
    it has adopted already: so whoever does not know whether the commit was made asks again. If the power goes after it,
    they are ours, and left behind once more.
    """
    worker = database.worker
    with database.reading() as connection:
        rows = _rows(connection, LOST, worker=worker, before=before, token=token)
    lost = {row.id: row for row in rows if (row.id, row.token) not in held}
    if not lost:
        return []
    with database.writing() as connection:
        values = {"lost": _json([(row.id, row.token) for row in lost.values()]), "worker": worker, "token": token}
        ids = list(connection.scalars(ADOPT.on(connection), values))
    adopted = [lost[id_] for id_ in ids]
    return [Adopted(_as_claim(row, row.attempts, token), row.at) for row in adopted]
