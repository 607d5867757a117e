"""What there is, by operator: waiting, under way, dead, resolved; each by an index that is as small as what it counts.

What was delivered is in none of these: its index grows for ever, and counting ten million takes a second. It is counted
where the store is small, or where somebody asks for it.
"""

from typing import NamedTuple

from sqlalchemy import Connection, text

from dispatcher.store.counts.waiting import parked
from dispatcher.store.databases.dialect import Dialect, Spelled
from dispatcher.store.engine import Database

# With so many rows or fewer all of them are counted in a tenth of a second.
FEW = 1_000_000


class Load(NamedTuple):
    """One operator's deliveries; times in µs.

    `due` of the `pending` are due now, the first of them since `oldest_due_at`; `parked` wait behind another one, and
    are counted apart. `delivered` is None where it was not counted.
    """

    pending: int = 0
    due: int = 0
    oldest_due_at: int | None = None
    parked: int = 0
    sending: int = 0
    dead: int = 0
    resolved: int = 0
    delivered: int | None = None


_DUE = Spelled(
    lambda its: (
        f"SELECT operator, count(*), sum(CASE WHEN due_at <= :now THEN 1 ELSE 0 END), min(due_at) FROM deliveries"
        f" {its.by.format('due')} WHERE status = 'pending' AND parked = {its.no} GROUP BY operator"
    )
)


def _of_status(status: str, index: str) -> Spelled:
    # A literal, not a parameter: only then SQLite sees that the index of this status will do.
    def spell(its: Dialect) -> str:
        source = f"FROM deliveries {its.by.format(index)} WHERE status = '{status}'"
        return f"SELECT operator, count(*) {source} GROUP BY operator"

    return Spelled(spell)


_COUNTS = {
    "sending": _of_status("sending", "held"),
    "dead": _of_status("dead", "dead"),
    "resolved": _of_status("resolved", "log_resolved"),
}
_DELIVERED = _of_status("delivered", "log_delivered")
# Each by itself: asked for together, SQLite reads the whole table.
_SPAN = text("SELECT (SELECT max(id) FROM deliveries) - (SELECT min(id) FROM deliveries)")


def loads_of(database: Database, now: int, *, exact: bool = False) -> dict[str, Load]:
    """By operator, those that have deliveries. `exact`: count what was delivered, however much that is."""
    with database.reading() as connection:
        found: dict[str, dict[str, int | None]] = {}
        for operator, pending, due, oldest in connection.execute(_DUE.on(connection), {"now": now}):
            found[operator] = {"pending": pending, "due": due, "oldest_due_at": oldest if due else None}
        counts = {name: _counted(connection, query) for name, query in _COUNTS.items()} | {"parked": parked(connection)}
        if exact or int(connection.scalar(_SPAN) or 0) < FEW:
            counts["delivered"] = _counted(connection, _DELIVERED)
    for name, by_operator in counts.items():
        for operator, count in by_operator.items():
            found.setdefault(operator, {})[name] = count
    if "delivered" in counts:
        for values in found.values():
            values.setdefault("delivered", 0)
    return {operator: Load(**values) for operator, values in found.items()}  # type: ignore[arg-type]  # by name


def _counted(connection: Connection, query: Spelled) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query.on(connection))}
