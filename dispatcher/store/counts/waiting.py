"""What waits, read so that its end can be reckoned: each delivery's own place in its schedule, in pages, by index."""

from collections.abc import Iterator
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, text

from dispatcher.store.databases.dialect import Dialect, Spelled
from dispatcher.store.engine import Database
from dispatcher.store.statements import SURVEY

PAGE = 20_000


class Run(NamedTuple):
    """Where a delivery stands in its schedule. `due_at` is None while it is being sent.

    `failures`: how many attempts of its run will have failed by the schedule's count, should the next one, or the one
    under way, fail. `anchor_at`: the end of the run's first attempt, on the operator's own clock.
    """

    due_at: int | None
    type: str
    failures: int
    anchor_at: int | None


def _run(place: str) -> str:
    # A claim has counted the attempt that it is for.
    counted = "d.attempts - d.run_from - d.probes + CASE WHEN d.status = 'pending' THEN 1 ELSE 0 END"
    return f"{place}, d.type, {counted}, d.anchor_at"


# By place in the index, not by number alone: however many are due at one moment, none is read twice.
def _page(its: Dialect) -> str:
    return f"""
        SELECT {its.every.format(its.values.format(_run("d.due_at, d.id")))} FROM (
            SELECT * FROM deliveries {its.by.format("due")}
            WHERE operator = :operator AND status = 'pending' AND parked = {its.no} AND (due_at, id) > (:at, :after)
            ORDER BY due_at, id LIMIT :most
        ) AS d
    """


_PAGE = Spelled(_page)
_ONE = text(f"SELECT {_run('d.due_at')} FROM deliveries d WHERE d.id = :number")
_HELD = Spelled(
    lambda its: (
        f"SELECT d.operator, {_run('d.due_at')} FROM deliveries d {its.by.format('held')} WHERE status = 'sending'"
    )
)
_PARKED = Spelled(
    lambda its: (
        f"SELECT operator, count(*) FROM deliveries d {its.by.format('line')}"
        f" WHERE in_line = {its.yes} AND parked = {its.yes} GROUP BY operator"
    )
)


def run_of(database: Database, number: int) -> Run | None:
    """Where the delivery of this number stands."""
    with database.reading() as connection:
        found = connection.execute(_ONE, {"number": number}).first()
    return None if found is None else Run._make(found)


def waiting(database: Database, operator: str) -> Iterator[Run]:
    """What is pending and not behind another one, in the order in which it will be sent, page by page."""
    at, after = -1, -1
    while True:
        given = {"operator": operator, "at": at, "after": after, "most": PAGE}
        with database.reading() as connection:
            page = orjson.loads(connection.execute(_PAGE.on(connection), given).scalar_one())
        for due_at, _, kind, failures, anchor_at in page:
            yield Run(due_at, kind, failures, anchor_at)
        if len(page) < PAGE:
            return
        at, after = page[-1][:2]


def operators_with_work(database: Database) -> set[str]:
    """Those that have something pending that is not behind another one: one index seek for each."""
    with database.glance() as connection:
        found, *_ = connection.execute(SURVEY.on(connection)).one()
    return {operator for operator, _ in orjson.loads(found)}


def sending(database: Database) -> dict[str, list[Run]]:
    """What is under way, by operator: never more than there are places."""
    found: dict[str, list[Run]] = {}
    with database.reading() as connection:
        for operator, *run in connection.execute(_HELD.on(connection)):
            found.setdefault(operator, []).append(Run._make(run))
    return found


def parked(connection: Connection) -> dict[str, int]:
    """How many of each operator's wait behind another one."""
    return {row[0]: row[1] for row in connection.execute(_PARKED.on(connection))}
