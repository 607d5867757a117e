"""What waits and what is dead, by operator, at a cost that hangs on how many operators there are, not on how many rows.

Counts end at `MOST`: whoever looks needs to know that it is a lot, and each further row would cost.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from dispatcher.store.databases.dialect import Dialect, Spelled
from dispatcher.store.engine import Database
from dispatcher.store.schema import workers

MOST = 1_000


class Heap(NamedTuple):
    """The deliveries of one operator in one state. `count` ends at MOST; `oldest`: when the oldest was accepted (µs).

    `fresh`, of dead ones: how many of those counted, the newest, have died since the time that was asked for.
    """

    operator: str
    count: int  # type: ignore[assignment]  # a tuple's own method of this name nobody misses here
    oldest: int
    fresh: int


class Queue(NamedTuple):
    """What of one operator may go out: when the earliest is due (µs), and how many (up to MOST) were by that time."""

    operator: str
    earliest: int
    late: int


class Hand(NamedTuple):
    """One worker, times in µs by the database's clock."""

    name: str
    started_at: int
    seen_at: int


class Glance(NamedTuple):
    """All of it, as it stood at one moment, by operator where it is an operator's."""

    waiting: dict[str, Heap]
    dead: dict[str, Heap]
    due: dict[str, Queue]
    workers: list[Hand]


def _heaps(its: Dialect, status: str, index: str, fresh: str, *, bound: bool) -> str:
    """Each operator that has one, by skipping from one lane of the index (type, operator) to the next."""
    source = f"FROM deliveries d {its.by.format(index)} WHERE d.status = '{status}'"
    lane = f"{source} AND d.type = lanes.type AND d.operator = lanes.operator"
    further = f"""
        UNION ALL SELECT lanes.type,
            (SELECT min(d.operator) {source} AND d.type = lanes.type AND d.operator > lanes.operator)
        FROM lanes WHERE lanes.operator IS NOT NULL
    """
    its_own = " AND d.operator = :operator" if bound else ""
    return f"""
        WITH RECURSIVE types(type) AS (
            SELECT min(d.type) {source}
            UNION ALL
            SELECT (SELECT min(d.type) {source} AND d.type > types.type) FROM types WHERE types.type IS NOT NULL
        ),
        lanes(type, operator) AS (
            SELECT types.type,
                (SELECT min(d.operator) {source} AND d.type = types.type{its_own})
            FROM types WHERE types.type IS NOT NULL
            {"" if bound else further}
        )
        SELECT lanes.operator,
            (SELECT count(*) FROM (SELECT 1 {lane} LIMIT :most) AS found),
            (SELECT min(d.accepted_at) {lane}),
            {fresh.format(lane=lane)}
        FROM lanes WHERE lanes.operator IS NOT NULL
    """


def _spelled(status: str, index: str, fresh: str) -> dict[bool, Spelled]:
    """The statement for all operators, and for one."""
    return {
        bound: Spelled(lambda its, bound=bound: _heaps(its, status, index, fresh, bound=bound))  # type: ignore[misc]
        for bound in (False, True)
    }


_FRESH = """(SELECT count(*) FROM (
    SELECT d.finished_at AS ended {lane} ORDER BY d.accepted_at DESC, d.id DESC LIMIT :most
) AS newest WHERE newest.ended >= :since)"""
_WAITING = _spelled("pending", "log_pending", "0")
_DEAD = _spelled("dead", "dead", _FRESH)
_QUEUE = """
    SELECT w.operator,
        (SELECT min(d.due_at) FROM deliveries d
         WHERE d.status = 'pending' AND d.parked = {no} AND d.operator = w.operator),
        (SELECT count(*) FROM (
            SELECT 1 FROM deliveries d
            WHERE d.status = 'pending' AND d.parked = {no} AND d.operator = w.operator AND d.due_at < :late LIMIT :most
        ) AS found)
"""
_QUEUES = Spelled(
    lambda its: (
        f"""
    WITH RECURSIVE w(operator) AS (
        SELECT min(operator) FROM deliveries WHERE status = 'pending' AND parked = {its.no}
        UNION ALL SELECT (
            SELECT min(d.operator) FROM deliveries d
            WHERE d.status = 'pending' AND d.parked = {its.no} AND d.operator > w.operator
        ) FROM w WHERE w.operator IS NOT NULL
    ) {_QUEUE.format(no=its.no)} FROM w WHERE w.operator IS NOT NULL
    """
    )
)
_ONE_QUEUE = Spelled(lambda its: f"{_QUEUE.format(no=its.no)} FROM (SELECT CAST(:operator AS text) AS operator) AS w")


_CREW = select(workers.c.name, workers.c.started_at, workers.c.seen_at).order_by(workers.c.name)


def glance(database: Database, since: int, late: int, operator: str | None = None) -> Glance:
    """What there is, of one operator or of all. `since`: dead ones are fresh since; `late`: due before it is late (µs).

    Raises StoreUnavailable.
    """
    bound = operator is not None
    given: dict[str, Any] = {"most": MOST, **({"operator": operator} if bound else {})}
    with database.reading() as connection:
        queues = connection.execute((_ONE_QUEUE if bound else _QUEUES).on(connection), {**given, "late": late})
        due = {one[0]: Queue._make(one) for one in queues if one[1] is not None}
        waiting = _summed(connection, _WAITING[bound], given)
        dead = _summed(connection, _DEAD[bound], {**given, "since": since})
        return Glance(waiting, dead, due, [Hand._make(one) for one in connection.execute(_CREW)])


def _summed(connection: Connection, statement: Spelled, given: dict[str, Any]) -> dict[str, Heap]:
    """One heap for each operator, of all its types."""
    heaps: dict[str, Heap] = {}
    for one in map(Heap._make, connection.execute(statement.on(connection), given)):
        before = heaps.get(one.operator, Heap(one.operator, 0, one.oldest, 0))
        count, oldest = min(before.count + one.count, MOST), min(before.oldest, one.oldest)
        heaps[one.operator] = Heap(one.operator, count, oldest, min(before.fresh + one.fresh, MOST))
    return heaps
