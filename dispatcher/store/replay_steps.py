"""How a bulk replay moves: one step after the other, each a transaction that replays some and notes how far it came.

If the power goes before a step's commit, none of it was done; after it, all of it: nothing is replayed twice for one
job, and nothing is passed over. Of many workers the one that has the job's row makes the step.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, bindparam, select, text, update

from dispatcher.clock import MILLISECOND, SECOND
from dispatcher.policy import Status, Verb
from dispatcher.store.dialect import Spelled, words_of
from dispatcher.store.engine import Database
from dispatcher.store.journal import Entry, append
from dispatcher.store.ledger import Row, brought_back, sort_out
from dispatcher.store.line import behind_a_later_one, behind_another, hold, lines_of
from dispatcher.store.replays import Refusal, State, Which, under_keys, which_of
from dispatcher.store.schema import deliveries, replays

# In one step at most; else a tenth of what the pace gives in a second.
MOST_AT_ONCE = 100
# Dead letters that are looked at in one step, whether they fit or not.
LOOK = 1_000
# Where so many of an operator's deliveries are due already, a replay waits: they would stand before live ones.
ROOM = 100
# For another worker's step, and for an operator to have room again (µs).
AGAIN = 200 * MILLISECOND
# Operators that are looked at in one step, for one that has room.
_OPERATORS = 50
# Of those refused so many are kept, with the reason.
KEPT = 100
# A job that nobody drove for longer than that was not driven meanwhile (µs).
_BREAK = 5 * SECOND

_d, _r = deliveries.c, replays.c

_TOO_LATE = "a later event of its ordering key went out, or may have: it would come in the wrong order"
_BEHIND = "a later event of its ordering key stands before it in line: it would come in the wrong order"
_ANEW = "it died after the replay was made; what died anew is replayed by a new one"
_RESOLVED = "it is resolved: replay it by itself, if that is meant"

_SOON = text("SELECT min(next_at) FROM replays WHERE state = 'running'")
# A clock that was set back makes no job wait for longer than its longest step.
_MINE = Spelled(
    lambda its: (
        f"""
    SELECT id, actor, note, filter, pace, refusals, cursor, worked, driven_at, next_at, created_at FROM replays
    WHERE state = 'running' AND (next_at <= :now OR next_at > :now + {SECOND})
    ORDER BY next_at, id LIMIT 1 {its.ours}
    """
    )
)
_WAITING = Spelled(
    lambda its: (
        f"""
    SELECT count(*) FROM (
        SELECT 1 FROM deliveries
        WHERE operator = :operator AND status = 'pending' AND parked = {its.no} AND due_at <= :now LIMIT {ROOM}
    ) AS waiting
    """
    )
)


class Step(NamedTuple):
    """What one step did: how many of which job; `done`: that one has ended. `wait`: how long (µs) until the next one.

    `took`: how long (s) the store was busy with it.
    """

    id: int | None
    taken: int
    refused: int
    done: bool
    wait: int
    took: float


class _Page(NamedTuple):
    """Some of an operator's dead, and how far the walk has come; `place` is None behind the last one."""

    ids: list[int]
    refused: list[Refusal]
    place: int | None


def step(database: Database, now: int) -> Step | None:
    """The next step of the job that is due first; None where no job runs. Raises Refused where it can't be noted."""
    started = time.perf_counter()
    with database.reading() as connection:
        soon = connection.execute(_SOON).scalar_one()
    if soon is None:
        return None
    if now < soon <= now + SECOND:
        return Step(None, 0, 0, False, soon - now, 0.0)
    with database.writing() as connection:
        job = connection.execute(_MINE.on(connection), {"now": now}).first()
        # Another worker has it in hand.
        stepped = Step(None, 0, 0, False, AGAIN, 0.0) if job is None else _step(connection, database, job, now)
    if stepped.taken:
        database.ring()
    return stepped._replace(took=time.perf_counter() - started)


def _step(connection: Connection, database: Database, job: Any, now: int) -> Step:
    cursor: list[tuple[str, int]] = [(operator, place) for operator, place in orjson.loads(job.cursor)]
    nominal = most_at_once(job.pace) * SECOND // job.pace
    first, rest = cursor[:_OPERATORS], cursor[_OPERATORS:]
    rooms = ((one, _room(connection, one[0], now)) for one in first)
    turn, room = next((found for found in rooms if found[1] > 0), (None, 0))
    if turn is None:
        # Live deliveries go first.
        return _move(connection, job, [*rest, *first], [], [], now + AGAIN, now)
    which = which_of(job.filter)
    page = _page(connection, which, job.created_at, *turn, min(room, most_at_once(job.pace)))
    taken, refused = _replay(connection, database, job, which, page.ids, now) if page.ids else ([], [])
    # In turn: no operator waits for another one's end.
    cursor.remove(turn)
    if page.place is not None:
        cursor.append((turn[0], page.place))
    # Behind by one step at most: after a pause, or where nobody drove it, nothing is made up for.
    base = min(max(job.next_at, now - nominal), now)
    next_at = base + len(taken) * SECOND // job.pace
    return _move(connection, job, cursor, taken, [*page.refused, *refused], next_at, now)


def most_at_once(pace: int) -> int:
    """How many one step takes at this pace: ten steps a second, where a step has no more than it may."""
    return min(max(1, pace // 10), MOST_AT_ONCE)


def _room(connection: Connection, operator: str, now: int) -> int:
    """How many more of this operator's deliveries may be due."""
    waiting = connection.execute(_WAITING.on(connection), {"operator": operator, "now": now}).scalar_one()
    return ROOM - int(waiting)


def _move(
    connection: Connection,
    job: Any,
    cursor: Sequence[tuple[str, int]],
    taken: Sequence[Row],
    refused: Sequence[Refusal],
    next_at: int,
    now: int,
) -> Step:
    """How far the job came, by the same transaction that has replayed."""
    since = 0 if job.driven_at is None else now - job.driven_at
    kept = orjson.loads(job.refusals)
    kept += map(list, refused[: max(0, KEPT - len(kept))])
    done = not cursor
    values: dict[str, Any] = {
        "cursor": orjson.dumps(cursor).decode(),
        "refusals": orjson.dumps(kept).decode(),
        "taken": _r.taken + len(taken),
        "refused": _r.refused + len(refused),
        "next_at": next_at,
        "worked": job.worked + (since if 0 < since < _BREAK else 0),
        "driven_at": now,
        "updated_at": now,
    }
    if done:
        values |= {"state": State.DONE, "finished_at": now}
    connection.execute(update(replays).where(_r.id == job.id).values(values))
    return Step(job.id, len(taken), len(refused), done, max(0, next_at - now), 0.0)


def _page(connection: Connection, which: Which, created_at: int, operator: str, place: int, most: int) -> _Page:
    if which.keys:
        return _page_of_keys(connection, which, place, most)
    its = words_of(connection)
    source = f"FROM deliveries d {its.by.format('dead_by_number')}"
    behind = "d.status = 'dead' AND d.operator = :its_operator AND d.id > :place ORDER BY d.id"
    looked = f"SELECT d.id, d.operator, d.type, d.uid, d.reason, d.finished_at {source} WHERE {behind} LIMIT {LOOK}"
    chosen = text(f"SELECT d.id FROM ({looked}) AS d WHERE {which.conditions()} ORDER BY d.id LIMIT :most")
    given = {**which.values(), "created_at": created_at, "its_operator": operator, "place": place, "most": most}
    ids = list(connection.scalars(chosen, given))
    if len(ids) == most:
        return _Page(ids, [], ids[-1])
    last = text(f"SELECT d.id {source} WHERE {behind} LIMIT 1 OFFSET {LOOK - 1}")
    return _Page(ids, [], connection.scalar(last, {"its_operator": operator, "place": place}))


def _page_of_keys(connection: Connection, which: Which, place: int, most: int) -> _Page:
    keys = which.keys[place : place + most]
    ids, refused = [], []
    for key, rows in under_keys(connection, which, keys).items():
        if len(rows) == 1:
            ids.append(rows[0].id)
        else:
            types = " and ".join(sorted(row.type for row in rows))
            why = f"it stands under {types}: name the type" if rows else "there is no such delivery"
            refused.append(Refusal(str(which.operator), which.type, key, why))
    end = place + len(keys)
    return _Page(ids, refused, end if end < len(which.keys) else None)


def _replay(
    connection: Connection, database: Database, job: Any, which: Which, ids: list[int], now: int
) -> tuple[list[Row], list[Refusal]]:
    """Those that may be replayed are due now; each has its entry in the journal."""
    hold(connection, lines_of(connection, ids))
    columns = [_d[name] for name in Row._fields]
    more = (_d.sequence, _d.superseded, behind_a_later_one(connection))
    query = select(*columns, *more).where(_d.id.in_(ids)).order_by(_d.id).with_for_update()
    taken, refused, in_line = [], [], []
    for *values, sequence, superseded, behind in connection.execute(query):
        row = Row(*values)
        late = (superseded or behind) and not which.even_superseded
        why = _why_not(row, job.created_at) or ((_TOO_LATE if superseded else _BEHIND) if late else None)
        if why is not None:
            refused.append(Refusal(row.operator, row.type, row.key, why))
            continue
        taken.append(row)
        if sequence is not None:
            in_line.append(row.id)
    if taken:
        _bring_back(connection, [row.id for row in taken], in_line, now)
        note = f"replay {job.id}: {job.note}"
        done = [Entry(Verb.REPLAY, job.actor, note, row.operator, row.type, row.key, row.id) for row in taken]
        append(connection, database.notary, done, now)
    return taken, refused


def _why_not(row: Row, created_at: int) -> str | None:
    if row.status == Status.RESOLVED:
        return _RESOLVED
    change = sort_out([row], Verb.REPLAY)
    if change.refused:
        return change.refused[0][1]
    return _ANEW if row.finished_at is not None and row.finished_at >= created_at else None


def _bring_back(connection: Connection, ids: list[int], in_line: list[int], now: int) -> None:
    """Oldest first where they have an order: each one sees those that have joined its line before it."""
    alone = set(ids) - set(in_line)
    if alone:
        connection.execute(update(deliveries).where(_d.id.in_(sorted(alone))).values(brought_back(now)))
    if in_line:
        joins = {**brought_back(now), "parked": behind_another(connection)}
        one_by_one = update(deliveries).where(_d.id == bindparam("its_id")).values(joins)
        connection.execute(one_by_one, [{"its_id": id_} for id_ in in_line])
