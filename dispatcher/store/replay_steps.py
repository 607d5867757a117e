"""How a bulk replay moves: one step after the other, each a transaction that replays some and notes how far it came.

If the power goes before a step's commit, none of it was done; after it, all of it: nothing is replayed twice for one
job, and nothing is passed over. Of many workers the one that has the job's row makes the step.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, text

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.policy import Status, Verb
from dispatcher.store.databases.dialect import Spelled, column, words_of
from dispatcher.store.engine import Database
from dispatcher.store.journal import Entry, append
from dispatcher.store.ledger import BROUGHT_BACK, why_not
from dispatcher.store.line import behind_a_later_one, hold, in_the_way, lines_of
from dispatcher.store.replays import Refusal, State, Which, under_keys, which_of

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
_MOVED = text(
    """
    UPDATE replays
    SET cursor = :cursor, refusals = :refusals, taken = taken + :taken, refused = refused + :refused,
        next_at = :next_at, worked = :worked, driven_at = :now, updated_at = :now,
        state = coalesce(:ended, state), finished_at = coalesce(:finished_at, finished_at)
    WHERE id = :id
    """
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


class _Found(NamedTuple):
    """One of those that a page names, as it stands now. `behind`: a later one of its line would go out before it."""

    id: int
    operator: str
    type: str
    key: str
    status: str
    due_at: int | None
    parked: bool
    finished_at: int | None
    sequence: str | None
    superseded: bool
    behind: bool


class _Page(NamedTuple):
    """Some of an operator's dead, and how far the walk has come; `place` is None behind the last one."""

    ids: list[int]
    refused: list[Refusal]
    place: int | None


# Whatever stands under these numbers, in one JSON text: row by row, Python's lock would have to be won for each.
_FOUND = Spelled(
    lambda its: (
        f"""
    SELECT {its.every.format(its.values.format(", ".join(_Found._fields)))} FROM (
        SELECT id, operator, type, key, status, due_at, parked, finished_at, sequence, superseded,
               {behind_a_later_one(its)} AS behind
        FROM deliveries WHERE id {its.among.format("ids")}
        ORDER BY id {its.held}
    ) AS found
    """
    )
)
_BACK = Spelled(
    lambda its: (
        f"""
    UPDATE deliveries
    SET {", ".join(f"{name} = {value}" for name, value in BROUGHT_BACK.items())},
        due_at = {column(1, "bigint")}, parked = {in_the_way(its)}
    FROM {its.each.format("rows")} WHERE deliveries.id = {column(0, "bigint")}
    """
    )
)


def step(database: Database, now: int) -> Step | None:
    """The next step of the job that is due first; None where no job runs. Raises Refused where it can't be noted."""
    started = time.perf_counter()
    with database.glance() as connection:
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
    taken: Sequence[_Found],
    refused: Sequence[Refusal],
    next_at: int,
    now: int,
) -> Step:
    """How far the job came, by the same transaction that has replayed."""
    since = 0 if job.driven_at is None else now - job.driven_at
    kept = orjson.loads(job.refusals)
    kept += map(list, refused[: max(0, KEPT - len(kept))])
    done = not cursor
    values = {
        "id": job.id,
        "cursor": orjson.dumps(cursor).decode(),
        "refusals": orjson.dumps(kept).decode(),
        "taken": len(taken),
        "refused": len(refused),
        "next_at": next_at,
        "worked": job.worked + (since if 0 < since < _BREAK else 0),
        "now": now,
        "ended": State.DONE if done else None,
        "finished_at": now if done else None,
    }
    connection.execute(_MOVED, values)
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
) -> tuple[list[_Found], list[Refusal]]:
    """Those that may be replayed are due one after the other; each has its entry in the journal."""
    given = {"ids": orjson.dumps(ids).decode()}
    hold(connection, lines_of(connection, ids))
    taken, refused = [], []
    for values in orjson.loads(connection.execute(_FOUND.on(connection), given).scalar_one()):
        one = _Found(*values)
        why = _why_not(one, job.created_at, which)
        if why is None:
            taken.append(one)
        else:
            refused.append(Refusal(one.operator, one.type, one.key, why))
    if taken:
        _bring_back(connection, taken, now, job.pace)
        note = f"replay {job.id}: {job.note}"
        done = [Entry(Verb.REPLAY, job.actor, note, one.operator, one.type, one.key, one.id) for one in taken]
        append(connection, database.notary, done, now)
    return taken, refused


def _why_not(one: _Found, created_at: int, which: Which) -> str | None:
    if one.status == Status.RESOLVED:
        return _RESOLVED
    refused = why_not(Status(one.status), one.due_at, bool(one.parked), Verb.REPLAY)
    if refused is not None:
        return refused
    if one.finished_at is not None and one.finished_at >= created_at:
        return _ANEW
    if which.even_superseded:
        return None
    return _TOO_LATE if one.superseded else _BEHIND if one.behind else None


def _bring_back(connection: Connection, taken: Sequence[_Found], now: int, pace: int) -> None:
    """Due one after the other, until the next step: at once they would stand before the live ones of that moment.

    Of each line one at a time, the oldest first: each one sees those that have joined before it.
    """
    rounds: dict[int, list[tuple[int, int]]] = defaultdict(list)
    joined: Counter[tuple[str, str]] = Counter()
    for n, one in enumerate(taken):
        line = (one.operator, one.sequence or "")
        rounds[joined[line]].append((one.id, now + n * SECOND // pace))
        joined[line] += one.sequence is not None
    for some in rounds.values():
        connection.execute(_BACK.on(connection), {"rows": orjson.dumps(some).decode()})
