"""Through very many deliveries in short steps, for sums: these want every row, and no order.

Lane by lane, as `search` names type and operator, in the index of the log: a step is one range of it with the rows
behind that, however many rows there are. No reader holds the store between two steps.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import words_of
from dispatcher.store.engine import Database
from dispatcher.store.search import INDEXES, Filter, find_behind

_NEWEST = 2**63 - 1
# Beyond these a reason is in no index, and is looked for as `search` does.
_WITH_REASON = (Status.PENDING, Status.DEAD, Status.RESOLVED)


class Place(NamedTuple):
    """Behind which a step begins: a lane, and where in it (µs and number)."""

    type: str
    operator: str
    at: int
    id: int


class Step(NamedTuple):
    """What fitted, as (type, the event's JSON); how many rows were looked at; where to go on, None at the end."""

    found: list[tuple[str, str]]
    looked: int
    place: Place | None


def step(database: Database, where: Filter, place: Place | None, most: int) -> Step:
    """Some `most` rows more; from the beginning for None."""
    if _is_for_search(where):
        rows = list(find_behind(database, where, most, None if place is None else (place.at, place.id)))
        on = Place("", "", *rows[-1].place) if len(rows) == most else None
        return Step([(row.type, row.body) for row in rows], len(rows), on)
    found: list[tuple[str, str]] = []
    looked = hops = 0
    with database.reading() as connection:
        place = _next_lane(connection, where, None) if place is None else place
        if place is not None and where.operator is not None:
            # Whatever a place says that came from elsewhere.
            place = place._replace(operator=where.operator)
        while place is not None and looked + hops < most:
            size = most - looked - hops
            rows_of_lane = _range(connection, where, place, size)
            found += [(place.type, body) for *_, body in rows_of_lane if body is not None]
            looked += len(rows_of_lane)
            if len(rows_of_lane) == size:
                place = Place(place.type, place.operator, *rows_of_lane[-1][:2])
            else:
                place = _next_lane(connection, where, place)
                # It is a look, too: there may be thousands of small lanes.
                hops += 1
    return Step(found, looked, place)


def _is_for_search(where: Filter) -> bool:
    """By a key, a player, or what few rows have: they are found by indexes of their own."""
    by_reason = where.reason is not None and where.status not in _WITH_REASON
    return where.key is not None or where.uid is not None or where.status == Status.SENDING or by_reason


def _range(connection: Connection, where: Filter, place: Place, size: int) -> list[tuple[int, int, str | None]]:
    """The next rows of a lane: where each stands, and its event if it fits."""
    by = words_of(connection).by.format(INDEXES[where.status])
    # What bounds the range in the index; the rest is asked of each row in it, so that a step stays short.
    dead = where.status == Status.DEAD
    bounds = (replace(where, since=None, until=None) if dead else where).conditions()
    statement = f"""
        SELECT d.accepted_at, d.id, CASE WHEN {where.conditions("reason")} THEN d.body END FROM deliveries d {by}
        WHERE {bounds} AND d.type = :type AND d.operator = :operator AND (d.accepted_at, d.id) < (:at, :id)
        ORDER BY d.accepted_at DESC, d.id DESC LIMIT :most
    """
    given = {**where.values(), **place._asdict(), "most": size}
    return [(at, number, body) for at, number, body in connection.execute(text(statement), given)]


def _next_lane(connection: Connection, where: Filter, place: Place | None) -> Place | None:
    """The beginning of the lane behind this one; each is one look into the index."""
    if place is not None and where.operator is None:
        operator = _first(connection, where, "operator", " AND d.type = :type", place._asdict())
        if operator is not None:
            return Place(place.type, operator, _NEWEST, _NEWEST)
    if where.type is not None:
        kind = where.type if place is None else None
    else:
        kind = _first(connection, where, "type", "", {"type": "" if place is None else place.type})
    if kind is None:
        return None
    operator = where.operator
    if operator is None:
        operator = _first(connection, where, "operator", " AND d.type = :type", {"type": kind, "operator": ""})
    return None if operator is None else Place(kind, operator, _NEWEST, _NEWEST)


def _first(connection: Connection, where: Filter, name: str, within: str, given: Mapping[str, Any]) -> str | None:
    by = words_of(connection).by.format(INDEXES[where.status])
    fits = f"{Filter(status=where.status).conditions()}{within}"
    statement = f"SELECT min(d.{name}) FROM deliveries d {by} WHERE {fits} AND d.{name} > :{name}"
    found: str | None = connection.scalar(text(statement), given)
    return found
