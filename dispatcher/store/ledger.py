"""The wallet-flow log: what people look up, and what they do by hand. Nothing recorded is ever changed by it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)

from dispatcher.clock import iso
from dispatcher.errors import Refused
from dispatcher.policy import MOVES, Status, Verb
from dispatcher.store.engine import Database
from dispatcher.store.line import advance, behind_another, hold, lines_of
from dispatcher.store.schema import actions, attempts, deliveries

PAGE = 1_000

_d = deliveries.c
_ROW = (
    _d.id,
    _d.operator,
    _d.type,
    _d.key,
    _d.uid,
    _d.status,
    _d.attempts,
    _d.due_at,
    _d.accepted_at,
    _d.finished_at,
    _d.reason,
    _d.ambiguous,
    _d.parked,
    _d.body,
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries. Times in µs; `since` and `until` (exclusive) bound the acceptance, for the dead their end."""

    operator: str | None = None
    type: str | None = None
    status: Status | None = None
    key: str | None = None
    uid: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        equal = {name: getattr(self, name) for name in ("operator", "type", "key", "uid", "reason")}
        found: list[ColumnElement[bool]] = [_d[name] == value for name, value in equal.items() if value is not None]
        if self.status is not None:
            # A literal, not a parameter: only then SQLite sees that the index of the dead will do.
            found.append(_d.status == literal_column(f"'{self.status}'"))
        at = _d.finished_at if self.status is Status.DEAD else _d.accepted_at
        if self.since is not None:
            found.append(at >= self.since)
        if self.until is not None:
            found.append(at < self.until)
        return found


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


class Change(NamedTuple):
    """What a person's command did, or would do: the deliveries it takes, and those it refuses with the sentence why."""

    taken: list[Row]
    refused: list[tuple[Row, str]]


def find(database: Database, where: Filter, limit: int | None) -> Iterator[Row]:
    """Newest first, page by page: memory stays constant, and no reader holds the store between two pages."""
    before: int | None = None
    while limit is None or limit > 0:
        page = PAGE if limit is None else min(PAGE, limit)
        with database.reading() as connection:
            rows = _page(connection, where, before, page)
        yield from rows
        if len(rows) < page:
            return
        before = rows[-1].id
        limit = None if limit is None else limit - len(rows)


def _page(connection: Connection, where: Filter, before: int | None, size: int) -> list[Row]:
    query = select(*_ROW).where(*where.conditions()).order_by(_d.id.desc()).limit(size)
    if before is not None:
        query = query.where(_d.id < before)
    return [Row._make(row) for row in connection.execute(query)]


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


def history(database: Database, delivery: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every attempt of a delivery and every change made by hand, in order, as `--json` shows them."""
    with database.reading() as connection:
        made = _of(connection, attempts, delivery, attempts.c.n, attempts.c.late)
        done = _of(connection, actions, delivery, actions.c.id)
    shown = [
        {
            "n": row["n"],
            "trigger": row["trigger"],
            "started_at": iso(row["started_at"]),
            "duration_ms": None if row["duration"] is None else row["duration"] // 1_000,
            "http_status": row["http_status"],
            "code": row["code"],
            "reason": row["reason"],
            "ambiguous": row["ambiguous"],
            "key_version": row["key_version"],
            "response": row["response"],
            "detail": row["detail"],
            "superseded": row["late"],
        }
        for row in made
    ]
    by_hand = [{"at": iso(row["at"]), "verb": row["verb"], "actor": row["actor"], "note": row["note"]} for row in done]
    return shown, by_hand


def _of(connection: Connection, table: Table, delivery: int, *order: Column[Any]) -> Sequence[RowMapping]:
    query = select(table).where(table.c.delivery_id == delivery).order_by(*order)
    return connection.execute(query).mappings().all()


def sort_out(rows: Sequence[Row], verb: Verb) -> Change:
    """Which of the rows a replay or resolve may take: what MOVES allows, and why not the others."""
    taken = [row for row in rows if (Status(row.status), verb) in MOVES]
    refused = [(row, _why_not(row, verb)) for row in rows if (Status(row.status), verb) not in MOVES]
    return Change(taken, refused)


def _why_not(row: Row, verb: Verb) -> str:
    match Status(row.status):
        case Status.SENDING:
            return "an attempt is in flight; wait until it has ended"
        case Status.PENDING if row.parked:
            return "it is not dead: it waits for another one of its line"
        case Status.PENDING:
            return f"it is not dead: its next attempt is due at {iso(row.due_at)}"
        case Status.DELIVERED:
            return "it is delivered: the operator has said yes"
        case _:
            return f"it is {row.status} already, {verb} changes nothing"


def replay(database: Database, rows: Sequence[Row], actor: str, now: int) -> Change:
    """Bring deliveries back: due now, with the whole schedule before them; their attempts stay as they are."""
    values = {"status": Status.PENDING, "due_at": now, "finished_at": None, "run_from": _d.attempts, "anchor_at": None}
    values |= {"probes": 0, "in_line": _d.sequence.is_not(None)}
    return _change(database, rows, Verb.REPLAY, values, (actor, None, now))


def resolve(database: Database, rows: Sequence[Row], actor: str, note: str, now: int) -> Change:
    """Close dead letters by hand: somebody agreed on them with the operator, and says how in `note`."""
    values = {"status": Status.RESOLVED, "finished_at": now, "in_line": False}
    return _change(database, rows, Verb.RESOLVE, values, (actor, note, now))


def _change(
    database: Database, rows: Sequence[Row], verb: Verb, values: dict[str, Any], by: tuple[str, str | None, int]
) -> Change:
    """In pages, each with its entries in one transaction. What changed since `rows` were read is sorted out anew."""
    actor, note, now = by
    change = Change([], [])
    # Oldest first: each replayed one sees those that have joined its line before it.
    in_order = sorted(rows, key=lambda row: row.id)
    for start in range(0, len(in_order), PAGE):
        page = {row.id: row for row in in_order[start : start + PAGE]}
        with database.writing() as connection:
            lines = lines_of(connection, page)
            hold(connection, lines)
            current = select(_d.id, _d.status, _d.due_at, _d.parked).where(_d.id.in_(page)).with_for_update()
            now_is = {row["id"]: row for row in connection.execute(current).mappings()}
            fresh = [row._replace(**now_is[row.id]) for row in page.values() if row.id in now_is]
            sorted_out = sort_out(fresh, verb)
            ids = [row.id for row in sorted_out.taken]
            if ids:
                joins = {"parked": behind_another(connection)} if verb is Verb.REPLAY else {}
                one_by_one = update(deliveries).where(_d.id == bindparam("its_id")).values(**values, **joins)
                connection.execute(one_by_one, [{"its_id": id_} for id_ in ids])
                if verb is Verb.RESOLVE:
                    advance(connection, lines_of(connection, ids))
                entry = {"at": now, "verb": verb, "actor": actor, "note": note}
                connection.execute(insert(actions), [{**entry, "delivery_id": id_} for id_ in ids])
        change.taken.extend(sorted_out.taken)
        change.refused.extend(sorted_out.refused)
    return change


def operators_waiting(database: Database) -> dict[str, int]:
    """How many deliveries of each operator are not finished."""
    open_ones = _d.status.in_([Status.PENDING, Status.SENDING])
    with database.reading() as connection:
        counted = connection.execute(select(_d.operator, func.count()).where(open_ones).group_by(_d.operator))
        return {row[0]: row[1] for row in counted}
