"""The corridor's statements, each written once for both databases."""

from typing import NamedTuple

from dispatcher.ground.policy import Status, Verb, move
from dispatcher.store.databases.dialect import Spelled, column


class ClaimRow(NamedTuple):
    """A delivery as DUE, TAKEN and LOST give it; `at`: when it was due, or claimed (µs); `token`: of that claim."""

    id: int
    operator: str
    type: str
    key: str
    uid: str
    body: str
    bearer: str | None
    sequence: str | None
    attempts: int
    run_from: int
    probes: int
    anchor_at: int | None
    at: int
    ambiguous: bool
    token: int = 0


# Each statement moves a whole batch, handed over and back as one JSON text: SQLite then works through it in a single
# step without Python's lock, where a row at a time would fight for it with the corridor's own thread; to PostgreSQL
# it is one way there and back.
#
# What an index is partial by is a literal, not a parameter: SQLite takes it only where it sees its condition.
CLAIM = ", ".join(ClaimRow._fields[:-3])
DUE = Spelled(
    lambda its: (
        f"""
    SELECT {its.every.format(its.values.format(f"{CLAIM}, due_at, ambiguous"))} FROM (
        SELECT * FROM deliveries
        WHERE operator = :operator AND status = 'pending' AND parked = {its.no} AND due_at <= :now
        ORDER BY due_at, id LIMIT :most {its.ours}
    ) AS due
    """
    )
)
HELD = f"{CLAIM}, claimed_at, ambiguous, token"
TAKEN = Spelled(
    lambda its: (
        f"SELECT {its.every.format(its.values.format(HELD))}"
        " FROM deliveries WHERE status = 'sending' AND worker = :worker AND token = :token"
    )
)
# Claims whose worker has no row any more, by one index seek for each worker that holds some; and our own that are older
# than a claim of ours ever is, or that we have taken over under this token before.
LOST = Spelled(
    lambda its: (
        f"""
    WITH RECURSIVE holders(worker) AS (
        SELECT min(worker) FROM deliveries WHERE status = 'sending'
        UNION ALL
        SELECT (SELECT min(d.worker) FROM deliveries d WHERE d.status = 'sending' AND d.worker > holders.worker)
        FROM holders WHERE holders.worker IS NOT NULL
    )
    SELECT {its.every.format(its.values.format(HELD))} FROM (
        SELECT d.* FROM deliveries d WHERE d.status = 'sending' AND d.worker IN (
            SELECT h.worker FROM holders h
            WHERE h.worker <> :worker AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = h.worker)
        )
        UNION ALL
        SELECT d.* FROM deliveries d
        WHERE d.status = 'sending' AND d.worker = :worker AND (d.claimed_at <= :before OR d.token = :token)
    ) AS lost
    """
    )
)
# By their tokens: of two workers that find the same claims, each is adopted by one. When it was made stays.
ADOPT = Spelled(
    lambda its: (
        f"""
    UPDATE deliveries SET worker = :worker, token = :token
    WHERE id IN (
        SELECT d.id FROM {its.each.format("lost")} JOIN deliveries d ON d.id = {column(0, "bigint")}
        WHERE d.token = {column(1, "bigint")} ORDER BY d.id {its.ours}
    )
    RETURNING id
    """
    )
)
TAKE = Spelled(
    # Who has no row is taken for dead, and what it claims for lost.
    lambda its: (
        f"""
    UPDATE deliveries
    SET status = '{move(Status.PENDING, Verb.CLAIM)}', due_at = NULL, attempts = attempts + 1,
        worker = :worker, token = :token, claimed_at = :now
    WHERE id {its.among.format("ids")}
      AND EXISTS (SELECT 1 FROM workers WHERE workers.id = :worker)
    """
    )
)
# What nearly all come to: it is the same for all of one claim, but for their numbers.
DELIVER = Spelled(
    # The token is the guard: without it a hand whose claim was taken away would overwrite its successor's result.
    lambda its: (
        f"""
    UPDATE deliveries
    SET status = '{move(Status.SENDING, Verb.DELIVER)}', finished_at = :now, reason = NULL, ambiguous = {its.no},
        in_line = {its.no}, worker = NULL, token = NULL, claimed_at = NULL
    WHERE token = :token AND id {its.among.format("ids")}
    """
    )
)
# What a settlement is on its way to the store: a list, in this order, since names would cost a third more.
SETTLED = """
    id:bigint token:bigint n:integer trigger:text started_at:bigint duration:bigint http_status:integer code:text
    reason:text doubtful:boolean key_version:integer response:text detail:text status:text due_at:bigint
    finished_at:bigint anchor_at:bigint ambiguous:boolean uncounted:boolean leaves:boolean probe:boolean
"""
_s = {
    name: column(position, kind)
    for position, (name, _, kind) in enumerate(one.partition(":") for one in SETTLED.split())
}
# A turn whose commit nobody answered for is made again: what it recorded the first time is the same attempt then,
# not another one that came late. They are counted: asked whether there is one, PostgreSQL may read all attempts.
RECORD = Spelled(
    lambda its: (
        f"""
    INSERT INTO attempts (delivery_id, n, "trigger", started_at, duration, http_status, code, reason, ambiguous,
                          key_version, response, detail, late)
    SELECT {_s["id"]}, {_s["n"]}, {_s["trigger"]}, {_s["started_at"]}, {_s["duration"]}, {_s["http_status"]},
           {_s["code"]}, {_s["reason"]}, {_s["doubtful"]}, {_s["key_version"]}, {_s["response"]}, {_s["detail"]},
           d.token IS NULL OR d.token <> {_s["token"]}
    FROM {its.each.format("rows")} JOIN deliveries d ON d.id = {_s["id"]}
    WHERE NOT {_s["uncounted"]} AND (d.token = {_s["token"]} OR 0 = (
        SELECT count(*) FROM attempts a
        WHERE a.delivery_id = {_s["id"]} AND a.n = {_s["n"]} AND a.started_at = {_s["started_at"]}
          AND coalesce(a.duration, -1) = coalesce({_s["duration"]}, -1)
          AND coalesce(a.http_status, -1) = coalesce({_s["http_status"]}, -1)
          AND coalesce(a.reason, '') = coalesce({_s["reason"]}, '')
    ))
    ON CONFLICT DO NOTHING
    """
    )
)
MOVE = Spelled(
    # The token is the guard, as above.
    lambda its: (
        f"""
    UPDATE deliveries
    SET status = {_s["status"]}, due_at = {_s["due_at"]}, finished_at = {_s["finished_at"]},
        anchor_at = {_s["anchor_at"]}, reason = {_s["reason"]}, ambiguous = {_s["ambiguous"]},
        attempts = CASE WHEN {_s["uncounted"]} THEN attempts - 1 ELSE attempts END,
        probes = CASE WHEN {_s["probe"]} THEN probes + 1 ELSE probes END,
        in_line = in_line AND NOT {_s["leaves"]}, worker = NULL, token = NULL, claimed_at = NULL
    FROM {its.each.format("rows")}
    WHERE deliveries.id = {_s["id"]} AND deliveries.token = {_s["token"]}
    """
    )
)
DECIDED = Spelled(
    lambda its: (
        "SELECT delivery_id, n, started_at, duration, http_status, reason FROM attempts"
        f" WHERE NOT late AND delivery_id {its.among.format('ids')}"
    )
)
# The operators that have work and when it is due, the latest revision of all operators, until when somebody follows.
# One index seek for each operator that has work, not one step for each row that waits.
SURVEY = Spelled(
    lambda its: (
        f"""
    WITH RECURSIVE waiting(operator) AS (
        SELECT min(operator) FROM deliveries WHERE status = 'pending' AND parked = {its.no}
        UNION ALL
        SELECT (
            SELECT min(d.operator) FROM deliveries d
            WHERE d.status = 'pending' AND d.parked = {its.no} AND d.operator > waiting.operator
        )
        FROM waiting WHERE waiting.operator IS NOT NULL
    )
    SELECT {its.every.format(its.values.format("w.operator, w.due_at"))},
        (SELECT coalesce(max(revision), 0) FROM operators), (SELECT coalesce(max(until), 0) FROM tails)
    FROM (
        SELECT operator, (
            SELECT min(d.due_at) FROM deliveries d
            WHERE d.status = 'pending' AND d.parked = {its.no} AND d.operator = waiting.operator
        ) AS due_at
        FROM waiting WHERE operator IS NOT NULL
    ) AS w
    """
    )
)
