"""Finding deliveries, newest first, at a cost that hangs on how many are shown and not on how many there are.

The log's indexes begin with type and operator: for each two of them that there are, a *lane*, the newest is one
look-up. Whatever has not one of the newest heads can't be among the first, so only those lanes are read on.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, select, text

from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import NOTIFY, SUMMARY
from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import Dialect, Spelled, column, words_of
from dispatcher.store.engine import Database
from dispatcher.store.schema import deliveries

PAGE = 1_000
# Two to the power of it: the rows of one bucket of the index by players.
_BUCKET = 14
# Where there are many lanes: each may have all that is shown.
LANES = 200

# What each index of the log has beside type, operator, accepted_at and id; all others are read from the row.
INDEXES = {
    None: "by_operator",
    Status.PENDING: "log_pending",
    Status.DELIVERED: "log_delivered",
    Status.DEAD: "dead",
    Status.RESOLVED: "log_resolved",
}
# Those that can have a reason: the others have none, or forget it.
_FAILED = (Status.PENDING, Status.SENDING, Status.DEAD, Status.RESOLVED)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries. Times in µs; `since` and `until` (exclusive) bound the acceptance, for the dead their end.

    What the dispatcher itself tells people is no spin: it is found only by its type, or under its own name.
    """

    operator: str | None = None
    type: str | None = None
    status: Status | None = None
    key: str | None = None
    uid: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self, *names: str) -> str:
        """SQL for these of them that are set, and for status and times; for a table `d`."""
        found = ["1 = 1", *(f"d.{name} = :{name}" for name in names if getattr(self, name) is not None)]
        if self.status is not None:
            # A literal, not a parameter: only then SQLite sees that the index of this status will do.
            found.append(f"d.status = '{self.status}'")
        if self.type is None and not (self.operator or "").startswith(NOTIFY):
            found.append(f"d.type <> '{SUMMARY}'")
        at = "finished_at" if self.status == Status.DEAD else "accepted_at"
        found += [f"d.{at} >= :since"] if self.since is not None else []
        found += [f"d.{at} < :until"] if self.until is not None else []
        return " AND ".join(found)

    def values(self) -> dict[str, Any]:
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


class Row(NamedTuple):
    """One line of the log, times in µs; `parked`: waits behind an earlier one; `body` is the frozen event's JSON."""

    id: int
    operator: str
    type: str
    key: str
    uid: str
    status: str
    attempts: int
    due_at: int | None
    accepted_at: int
    finished_at: int | None
    reason: str | None
    ambiguous: bool
    parked: bool
    body: str

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the log."""
        return (self.accepted_at, self.id)


_COLUMNS = ", ".join(f'd."{name}"' for name in Row._fields)
_NEWEST = "ORDER BY d.accepted_at DESC, d.id DESC LIMIT :most"


def find(database: Database, where: Filter, limit: int | None, before: int | None = None) -> Iterator[Row]:
    """Newest first, page by page: memory stays constant, and no reader holds the store between two pages.

    `before`: only what stands behind the delivery of this number. Raises Refused where there is none.
    """
    yield from find_behind(database, where, limit, None if before is None else _place_of(database, before))


def find_behind(database: Database, where: Filter, limit: int | None, place: tuple[int, int] | None) -> Iterator[Row]:
    """As `find`; `place`: only what stands behind it in the log, whether its row is still there or not."""
    if where.reason is not None and where.status is None:
        failed = [_walk(database, replace(where, status=status), limit, place) for status in _FAILED]
        yield from islice(heapq.merge(*failed, key=lambda row: row.place, reverse=True), limit)
    elif where.reason is None or where.status in _FAILED:
        yield from _walk(database, where, limit, place)


def _place_of(database: Database, number: int) -> tuple[int, int]:
    d = deliveries.c
    with database.reading() as connection:
        at = connection.scalar(select(d.accepted_at).where(d.id == number))
    if at is None:
        raise Refused(f"there is no delivery {number}, or no more; begin again without --before, or with --until")
    return (at, number)


def _walk(database: Database, where: Filter, limit: int | None, place: tuple[int, int] | None) -> Iterator[Row]:
    while limit is None or limit > 0:
        # Whoever wants all of one status is quicker through its whole index.
        by_lanes = where.operator is not None or limit is not None or where.status is None
        size = PAGE if where.operator is not None or not by_lanes else min(PAGE, LANES)
        size = size if limit is None else min(size, limit)
        with database.reading() as connection:
            rows = _page(connection, where, place, size, by_lanes=by_lanes)
        yield from rows
        if len(rows) < size:
            return
        place = rows[-1].place
        limit = None if limit is None else limit - len(rows)


def _page(
    connection: Connection, where: Filter, place: tuple[int, int] | None, size: int, *, by_lanes: bool
) -> list[Row]:
    its, given = words_of(connection), {**where.values(), "most": size}
    behind = ""
    if place is not None:
        behind = " AND (d.accepted_at, d.id) < (:at, :before)"
        given |= {"at": place[0], "before": place[1]}
    index = "identity" if where.key is not None else None
    if index is None and where.uid is not None:
        return _of_player(connection, where, place, given)
    if where.status == Status.SENDING and index is None:
        # As many as there are places, at most.
        index = "held"
    if index is None and not by_lanes:
        index = INDEXES[where.status]
    if index is not None:
        fits = where.conditions("operator", "type", "key", "uid", "reason") + behind
        chosen = f"SELECT d.id FROM deliveries d {its.by.format(index)} WHERE {fits} {_NEWEST}"
        found = f"SELECT {_COLUMNS} FROM deliveries d WHERE d.id IN ({chosen}) ORDER BY d.accepted_at DESC, d.id DESC"
        return [Row._make(row) for row in connection.execute(text(found), given)]
    return _from_lanes(connection, where, where.conditions("reason") + behind, given)


def _of_player(
    connection: Connection, where: Filter, place: tuple[int, int] | None, given: dict[str, Any]
) -> list[Row]:
    """By their numbers, newest first: some buckets, and more of them as long as the page is not full."""
    its, size = words_of(connection), given["most"]
    # Each by itself: asked for together, SQLite reads the whole table.
    ends = "SELECT (SELECT min(id) FROM deliveries), (SELECT max(id) FROM deliveries)"
    lowest, highest = connection.execute(text(ends)).one()
    bucket = -1 if lowest is None else (highest if place is None else place[1]) >> _BUCKET
    behind = "" if place is None else " AND d.id < :before"
    fits = where.conditions("uid", "operator", "type", "reason") + behind
    statement = f"""
        SELECT {_COLUMNS} FROM {its.each.format("buckets")} CROSS JOIN deliveries d {its.by.format("by_player")}
        WHERE (d.id >> {_BUCKET}) = {its.number} AND {fits}
        ORDER BY d.id DESC LIMIT :most
    """
    rows: list[Row] = []
    some = 32
    while bucket >= 0 and bucket >= lowest >> _BUCKET and len(rows) < size:
        buckets = range(max(0, bucket - some + 1), bucket + 1)
        given |= {"buckets": orjson.dumps(list(buckets)).decode(), "most": size - len(rows)}
        rows += [Row._make(row) for row in _run(connection, statement, given)]
        bucket, some = buckets[0] - 1, some * 2
    return rows


def _from_lanes(connection: Connection, where: Filter, fits: str, given: dict[str, Any]) -> list[Row]:
    its, size = words_of(connection), given["most"]
    # Each lane with the place of its newest, the newest lane first.
    heads = sorted(
        (
            (*orjson.loads(place), kind, operator)
            for kind, operator, place in _run(connection, _heads(its, where, fits), given)
        ),
        reverse=True,
    )[:size]
    # So many are at least as new as the last of these heads: whatever is older is not among the first.
    floor_at, floor = heads[-1][:2] if len(heads) == size else (-1, -1)
    lanes = orjson.dumps([head[2:] for head in heads]).decode()
    given |= {"lanes": lanes, "floor_at": floor_at, "floor": floor}
    found = _run(connection, _places(its, where, fits), given)
    chosen = heapq.nlargest(size, (tuple(place) for (places,) in found for place in orjson.loads(places)))
    ids = {"ids": orjson.dumps([number for _, number in chosen]).decode()}
    return [Row._make(row) for row in _run(connection, _CHOSEN.format(its.among.format("ids")), ids)]


def _run(connection: Connection, statement: str, given: dict[str, Any]) -> Sequence[Any]:
    return connection.execute(text(statement), given).all()


_CHOSEN = f"""
    SELECT {_COLUMNS} FROM deliveries d WHERE d.id {{}}
    ORDER BY d.accepted_at DESC, d.id DESC
"""


def _heads(its: Dialect, where: Filter, fits: str) -> str:
    """Each lane, and the place of the newest in it that fits: one index seek for either."""
    any_of_it = Filter(status=where.status, type=where.type, operator=where.operator).conditions()
    source = f"FROM deliveries d {its.by.format(INDEXES[where.status])} WHERE {any_of_it}"
    types = f"""
        SELECT min(d.type) {source}
        UNION ALL SELECT (SELECT min(d.type) {source} AND d.type > types.type) FROM types WHERE types.type IS NOT NULL
    """
    lanes = f"""
        SELECT types.type, (SELECT min(d.operator) {source} AND d.type = types.type)
        FROM types WHERE types.type IS NOT NULL
        UNION ALL SELECT lanes.type,
            (SELECT min(d.operator) {source} AND d.type = lanes.type AND d.operator > lanes.operator)
        FROM lanes WHERE lanes.operator IS NOT NULL
    """
    newest = f"""
        SELECT CAST({its.values.format("d.accepted_at, d.id")} AS text) {source}
        AND d.type = lanes.type AND d.operator = lanes.operator AND {fits}
        ORDER BY d.accepted_at DESC, d.id DESC LIMIT 1
    """
    return f"""
        WITH RECURSIVE
        types(type) AS ({types if where.type is None else "SELECT CAST(:type AS text)"}),
        lanes(type, operator) AS (
            {lanes if where.operator is None else "SELECT types.type, CAST(:operator AS text) FROM types"}
        ),
        heads(type, operator, place) AS MATERIALIZED (SELECT lanes.type, lanes.operator, ({newest}) FROM lanes)
        SELECT type, operator, place FROM heads WHERE place IS NOT NULL
    """


def _places(its: Dialect, where: Filter, fits: str) -> str:
    """For each of these lanes the places of its newest that fit, none below the floor."""
    places = its.every.format(its.values.format("lane.accepted_at, lane.id"))
    return f"""
        SELECT (SELECT {places} FROM (
            SELECT d.accepted_at, d.id FROM deliveries d {its.by.format(INDEXES[where.status])}
            WHERE {fits} AND d.type = {column(0)} AND d.operator = {column(1)}
              AND (d.accepted_at, d.id) >= (:floor_at, :floor) {_NEWEST}
        ) AS lane) FROM {its.each.format("lanes")}
    """


def one(database: Database, operator: str, key: str, kind: str | None) -> Row:
    """The delivery with this key. Raises Refused where there is none, or one under each of several types."""
    where = Filter(operator=operator, key=key, type=kind)
    rows = list(find(database, where, 2))
    if not rows:
        raise Refused(f"{operator} has no delivery {key}; look for it with: dispatcher log --key {key}")
    if len(rows) > 1:
        types = " and ".join(row.type for row in rows)
        raise Refused(f"{operator} has {key} under {types}: name one with --type")
    return rows[0]


_UNDER_KEYS = Spelled(
    lambda its: (
        f"""
    SELECT {_COLUMNS} FROM {its.each.format("keys")} CROSS JOIN deliveries d {its.by.format("identity")}
    WHERE d.key = {column(0)} AND d.operator = :operator AND d.type = :type
    """
    )
)


def under_keys(database: Database, operator: str, kind: str, keys: Sequence[str]) -> list[Row]:
    """Those of these keys that the operator has a delivery of this type under, in any order."""
    given = {"keys": orjson.dumps([[key] for key in keys]).decode(), "operator": operator, "type": kind}
    with database.reading() as connection:
        return [Row._make(row) for row in connection.execute(_UNDER_KEYS.on(connection), given)]


_ACCEPTED = Spelled(
    lambda its: (
        f"""
    SELECT d.accepted_at, d.id, d."key", d.status, d.ambiguous, d.body
    FROM deliveries d {its.by.format("by_operator")}
    WHERE d.type = :type AND d.operator = :operator
      AND (d.accepted_at, d.id) > (:at, :last) AND d.accepted_at < :until
    ORDER BY d.accepted_at, d.id LIMIT :most
    """
    )
)


def accepted(
    database: Database, operator: str, kind: str, since: int, until: int
) -> Iterator[tuple[str, int, str, bool, str]]:
    """Key, number, status, `ambiguous` and body of all that was accepted in this span (µs), oldest first.

    Page by page, as `find`, for whoever takes all of one lane: each page is one walk along its index.
    """
    given = {"operator": operator, "type": kind, "until": until, "at": since, "last": -(2**63), "most": PAGE}
    while True:
        with database.reading() as connection:
            page = connection.execute(_ACCEPTED.on(connection), given).all()
        for _, number, key, status, ambiguous, body in page:
            yield key, number, status, ambiguous, body
        if len(page) < PAGE:
            return
        given |= {"at": page[-1][0], "last": page[-1][1]}


def numbered(database: Database, number: int) -> Row | None:
    """The delivery with this number."""
    with database.reading() as connection:
        found = connection.execute(
            text(f"SELECT {_COLUMNS} FROM deliveries d WHERE d.id = :number"), {"number": number}
        )
        row = found.first()
    return None if row is None else Row._make(row)


def all_numbered(database: Database, numbers: Sequence[int]) -> list[Row]:
    """The deliveries with these numbers, as far as there are any, newest first."""
    ids = {"ids": orjson.dumps(list(numbers)).decode()}
    with database.reading() as connection:
        return [
            Row._make(row) for row in _run(connection, _CHOSEN.format(words_of(connection).among.format("ids")), ids)
        ]
