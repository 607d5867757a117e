"""How much is dead, of whom and why: what people are told in a summary (`summaries`)."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import text

from dispatcher.ground.operator import SUMMARY
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.engine import Database

# Through the index of the dead, whatever else there is: half a second of the store's thread for a million of them.
_TOLL = Spelled(
    lambda its: (
        f"""
    SELECT operator, reason, count(*),
           sum(CASE WHEN finished_at >= :since AND finished_at < :until THEN 1 ELSE 0 END)
    FROM deliveries d {its.by.format("dead")} WHERE status = 'dead' AND type <> '{SUMMARY}' GROUP BY operator, reason
    """
    )
)
_OLDEST = Spelled(
    lambda its: (
        f"""
    SELECT min(accepted_at) FROM deliveries d {its.by.format("log_pending")}
    WHERE status = 'pending' AND type = :type AND operator = :operator
    """
    )
)
_DECLARED = text("SELECT min(at) FROM journal WHERE delivery_id IS NULL AND operator = :operator")


class Toll(NamedTuple):
    """Of one operator's dead letters those that failed last for this reason: how many there are, how many are new."""

    operator: str
    reason: str
    dead: int
    died: int


def tolls(database: Database, since: int, until: int) -> list[Toll]:
    """Whatever is dead; new is what died from `since` on and before `until` (µs)."""
    with database.reading() as connection:
        found = connection.execute(_TOLL.on(connection), {"since": since, "until": until})
        return [Toll(operator, reason or "", dead, int(died)) for operator, reason, dead, died in found]


def oldest(database: Database, operator: str, types: Collection[str]) -> int | None:
    """When the oldest delivery that still waits was accepted (µs); None where none does."""
    with database.reading() as connection:
        found = [
            connection.execute(_OLDEST.on(connection), {"type": kind, "operator": operator}).scalar_one()
            for kind in types
        ]
    return min((int(at) for at in found if at is not None), default=None)


def declared_at(database: Database, name: str) -> int | None:
    """When an operator or notification was first declared (µs)."""
    with database.reading() as connection:
        at = connection.execute(_DECLARED, {"operator": name}).scalar_one()
        return None if at is None else int(at)
