"""What is counted on both sides of a copy, and what differs."""

from collections import Counter

from sqlalchemy import Connection, func, select

from dispatcher.store.moving.transfer import GROWING, STREAMS, WHOLE
from dispatcher.store.schema import deliveries, metadata

# What was counted by what it is: ("attempts",), or ("deliveries", operator, status) and the same with "attempts".
Tally = Counter[tuple[str, ...]]

_d = deliveries.c


def tally_of_deliveries(connection: Connection, after: int, upto: int | None = None) -> Tally:
    """By operator and status, with the sum of their attempts; for numbers behind `after`, up to `upto`."""
    query = select(_d.operator, _d.status, func.count(), func.sum(_d.attempts)).where(_d.id > after)
    if upto is not None:
        query = query.where(_d.id <= upto)
    counted: Tally = Counter()
    for operator, status, count, attempts in connection.execute(query.group_by(_d.operator, _d.status)):
        counted[deliveries.name, operator, status] = count
        counted[deliveries.name, operator, status, "attempts"] = int(attempts)
    return counted


def tally_of_streams(connection: Connection) -> Tally:
    """What is copied by pages, and stays as it is meanwhile."""
    return _tally(connection, [table.name for table in STREAMS if table not in GROWING])


def tally_of_whole(connection: Connection) -> Tally:
    """The tables that are compared whole, and the journal, which grows meanwhile."""
    return _tally(connection, [table.name for table in (*GROWING[1:], *WHOLE)])


def _tally(connection: Connection, names: list[str]) -> Tally:
    return Counter(
        {(name,): connection.scalar(select(func.count()).select_from(metadata.tables[name])) or 0 for name in names}
    )


def by_table(counted: Tally) -> dict[str, int]:
    """Rows, by table; what grows with the work comes first."""
    rows = {str(table.name): 0 for table in (*STREAMS, *WHOLE)}
    for (table, *rest), count in counted.items():
        if len(rest) in (0, 2):
            rows[table] += count
    return rows


def differences(source: Tally, target: Tally) -> list[str]:
    """A sentence for each count that is not the same."""
    return [
        f"{' '.join(what)}: {source[what]} in the source, {target[what]} in the target"
        for what in sorted(source.keys() | target.keys())
        if source[what] != target[what]
    ]
