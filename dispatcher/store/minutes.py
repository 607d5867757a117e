"""What came of the attempts of each minute, by operator, type, result and reason: for charts and rates.

These are figures, not the record: a worker adds up what it did every few seconds, and a crash loses those. The record
is `attempts`. There are never more rows than attempts, and after `broom` has come none older than it keeps.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import BigInteger, cast, delete, func, select

from dispatcher.ground.clock import MINUTE
from dispatcher.store.databases.dialect import Spelled, column
from dispatcher.store.engine import Database
from dispatcher.store.schema import minutes


class Minute(NamedTuple):
    """The attempts that were settled in the minute that begins `at` (µs), and came to the same.

    `result`: delivered, retry, dead, put_off, late (figures.Result); `reason` (policy.Reason) is None for a yes.
    `took`: the sum of how long they took, `late`: of how long after they were due they began (µs).
    """

    at: int
    operator: str
    type: str
    result: str
    reason: str | None
    count: int  # type: ignore[assignment]  # a tuple's own method of this name nobody misses here
    took: int
    late: int


_m = minutes.c
_ROW = "at:bigint operator:text type:text result:text reason:text count:bigint took:bigint late:bigint"
_NAMES, _KINDS = zip(*(one.split(":") for one in _ROW.split()), strict=True)
_ADD = Spelled(
    lambda its: (
        f"""
    INSERT INTO minutes ({", ".join(_NAMES)})
    SELECT {", ".join(column(position, kind) for position, kind in enumerate(_KINDS))}
    FROM {its.each.format("rows")} WHERE true
    ON CONFLICT (at, operator, type, result, reason) DO UPDATE SET
        count = minutes.count + excluded.count, took = minutes.took + excluded.took, late = minutes.late + excluded.late
    """
    )
)


def add(database: Database, rows: Iterable[Minute]) -> None:
    """Adds these to what stands there, in one transaction. Raises StoreUnavailable.

    If the power goes at the commit, nobody knows whether they are in: whoever adds them again may count them twice.
    """
    summed: dict[tuple[object, ...], list[int]] = {}
    for at, operator, kind, result, reason, *values in rows:
        key = (at, operator, kind, result, reason or "")
        summed[key] = [before + more for before, more in zip(summed.get(key, [0, 0, 0]), values, strict=True)]
    # In one order, or two workers would wait for each other's rows.
    given = [[*key, *values] for key, values in sorted(summed.items(), key=lambda one: repr(one[0]))]
    if given:
        with database.writing() as connection:
            connection.execute(_ADD.on(connection), {"rows": orjson.dumps(given).decode()})


def read(
    database: Database, since: int, until: int, operator: str | None = None, step: int = MINUTE
) -> Sequence[Minute]:
    """The minutes that begin at or after `since` and before `until` (µs), of all workers, the oldest first.

    With a longer `step` (µs, whole minutes) they are added up by so much, and `at` is where each such step begins:
    a month by the minute is a lot. Raises StoreUnavailable.
    """
    begins = _m.at if step <= MINUTE else _m.at - _m.at % step
    chosen = select(begins.label("begins"), *list(_m)[1:]).where(_m.at >= since, _m.at < until)
    if operator is not None:
        chosen = chosen.where(_m.operator == operator)
    c = chosen.subquery().c
    what = [c.begins, c.operator, c.type, c.result, c.reason]
    sums = [cast(func.sum(one), BigInteger) for one in (c["count"], c.took, c.late)]
    query = select(*what, *sums).group_by(*what).order_by(*what)
    with database.reading() as connection:
        return [
            Minute(at, who, kind, result, reason or None, *values)
            for at, who, kind, result, reason, *values in connection.execute(query)
        ]


def trim(database: Database, before: int) -> int:
    """Deletes the oldest minute, where it begins before `before` (µs); how many rows it had. Raises StoreUnavailable.

    One minute is as much as is ever deleted at once.
    """
    with database.reading() as connection:
        oldest = connection.scalar(select(func.min(_m.at)))
    if oldest is None or oldest >= before:
        return 0
    with database.writing() as connection:
        return connection.execute(delete(minutes).where(_m.at == oldest)).rowcount
