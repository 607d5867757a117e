"""The wallet-flow log: what people look up, and what they do by hand. Nothing recorded is ever changed by it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    RowMapping,
    Table,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from dispatcher.ground.clock import iso
from dispatcher.ground.policy import MOVES, Status, Verb
from dispatcher.store.engine import Database
from dispatcher.store.journal import Entry, append, entries_of
from dispatcher.store.line import advance, behind_another, hold, lines_of
from dispatcher.store.schema import attempts, deliveries
from dispatcher.store.search import Filter, Row, accepted, all_numbered, find, find_behind, numbered, one, under_keys

__all__ = ["Change", "Filter", "Row", "accepted", "all_numbered", "find", "find_behind", "history", "numbered", "one"]
__all__ += ["operators_waiting", "replay", "resolve", "sort_out", "under_keys"]

PAGE = 1_000

_d = deliveries.c

# What a replay makes of a row, in SQL, but for when it is due; and `parked`, which depends on who else is in its line.
BROUGHT_BACK = {
    "status": f"'{Status.PENDING}'",
    "finished_at": "NULL",
    "run_from": "attempts",
    "anchor_at": "NULL",
    "probes": "0",
    "in_line": "sequence IS NOT NULL",
}


class Change(NamedTuple):
    """What a person's command did, or would do: the deliveries it takes, and those it refuses with the sentence why."""

    taken: list[Row]
    refused: list[tuple[Row, str]]


def history(database: Database, delivery: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every attempt of a delivery and every change made by hand, in order, as `--json` shows them."""
    with database.reading() as connection:
        made = _of(connection, attempts, delivery, attempts.c.n, attempts.c.late)
        done = entries_of(connection, delivery)
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
    by_hand = [{"at": iso(row.at), "verb": row.verb, "actor": row.actor, "note": row.note} for row in done]
    return shown, by_hand


def _of(connection: Connection, table: Table, delivery: int, *order: Column[Any]) -> Sequence[RowMapping]:
    query = select(table).where(table.c.delivery_id == delivery).order_by(*order)
    return connection.execute(query).mappings().all()


def sort_out(rows: Sequence[Row], verb: Verb) -> Change:
    """Which of the rows a replay or resolve may take: what MOVES allows, and why not the others."""
    change = Change([], [])
    for row in rows:
        why = why_not(Status(row.status), row.due_at, row.parked, verb)
        if why is None:
            change.taken.append(row)
        else:
            change.refused.append((row, why))
    return change


def why_not(status: Status, due_at: int | None, parked: bool, verb: Verb) -> str | None:
    """The sentence why a replay or resolve does not take a delivery in this state; None where MOVES allows it."""
    if (status, verb) in MOVES:
        return None
    match status:
        case Status.SENDING:
            return "an attempt is in flight; wait until it has ended"
        case Status.PENDING if parked:
            return "it is not dead: it waits for another one of its line"
        case Status.PENDING:
            return f"it is not dead: its next attempt is due at {iso(due_at)}"
        case Status.DELIVERED:
            return "it is delivered: the operator has said yes"
        case _:
            return f"it is {status} already, {verb} changes nothing"


def replay(database: Database, rows: Sequence[Row], actor: str, now: int, note: str | None = None) -> Change:
    """Bring deliveries back: due now, with the whole schedule before them; their attempts stay as they are."""
    values: dict[str, Any] = {name: literal_column(value) for name, value in BROUGHT_BACK.items()}
    return _change(database, rows, Verb.REPLAY, {**values, "due_at": now}, (actor, note, now))


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
                done = [Entry(verb, actor, note, row.operator, row.type, row.key, row.id) for row in sorted_out.taken]
                append(connection, database.notary, done, now)
        change.taken.extend(sorted_out.taken)
        change.refused.extend(sorted_out.refused)
    return change


def operators_waiting(database: Database) -> dict[str, int]:
    """How many deliveries of each operator are not finished."""
    open_ones = _d.status.in_([Status.PENDING, Status.SENDING])
    with database.reading() as connection:
        counted = connection.execute(select(_d.operator, func.count()).where(open_ones).group_by(_d.operator))
        return {row[0]: row[1] for row in counted}
