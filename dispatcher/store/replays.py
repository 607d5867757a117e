"""Bulk replays: dead letters sent again at a pace, as a job that stands in the database and outlives whoever made it.

A job takes what was dead when it was made, once: what dies again meanwhile is left alone. Any worker drives it, by
steps (`replay_steps`). What it refuses is counted, and the first of those are kept with the reason: what is not dead
any more, and what is *superseded* (`schema.deliveries`): a later event of its line went out while it had not.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, RowMapping, insert, select, text, update

from dispatcher.ground.clock import SECOND
from dispatcher.ground.errors import Fault, Refused
from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import Spelled, column, words_of
from dispatcher.store.engine import Database
from dispatcher.store.journal import Entry, append
from dispatcher.store.schema import replays

MOST_PACE = 5_000
MOST_KEYS = 10_000
# Nobody drives a job that has had no step for so long (µs): a running one has one a second at least.
SILENT = 10 * SECOND

_r = replays.c


class State(StrEnum):
    """Where a job stands. It runs from the moment it is made; whether somebody drives it is another matter."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


_ENDED = (State.CANCELLED, State.DONE)
_DONE_TO_IT = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


class NotNow(Refused):
    """There is nothing for a job to do, or what is to be done to it is not possible in its state."""


class Which(NamedTuple):
    """Which dead letters: by filters, `since` and `until` (µs, exclusive) bounding the time of death; or by `keys`.

    `even_superseded`: those too that come too late for their line.
    """

    operator: str | None = None
    type: str | None = None
    uid: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None
    keys: tuple[str, ...] = ()
    even_superseded: bool = False

    def faults(self) -> list[Fault]:
        """What keeps it from being clear."""
        beside = [name for name in ("uid", "reason", "since", "until") if getattr(self, name) is not None]
        if self.keys:
            found = [] if self.operator else [Fault("operator", "is missing", "say whose keys these are")]
            if beside:
                found.append(Fault("keys", f"are given beside {', '.join(beside)}", "give either keys or filters"))
            if len(self.keys) > MOST_KEYS:
                found.append(Fault("keys", f"are {len(self.keys)}", f"give {MOST_KEYS} at most, or filters"))
            return found
        if self.since is None:
            return [Fault("since", "is missing", 'filters are bounded in time: write from when on, like "2h"; or keys')]
        if self.until is not None and self.until <= self.since:
            return [Fault("until", "is not after since", "write a later time, or leave it out")]
        return []

    def once(self) -> "Which":
        """Each key is meant once, however often it was given."""
        return self._replace(keys=tuple(dict.fromkeys(self.keys)))

    def conditions(self) -> str:
        """SQL for a table `d` of dead letters, but for the keys; `created_at` is when the job was made."""
        found = ["d.finished_at < :created_at"]
        found += [
            f"d.{one} = :{one}" for one in ("operator", "type", "uid", "reason") if getattr(self, one) is not None
        ]
        found += ["d.finished_at >= :since"] if self.since is not None else []
        found += ["d.finished_at < :until"] if self.until is not None else []
        return " AND ".join(found)

    def values(self) -> dict[str, Any]:
        """What of it is set, by name."""
        return {name: value for name, value in self._asdict().items() if value is not self._field_defaults[name]}


class Counted(NamedTuple):
    """How many a job would come by, and how many of these it would refuse as things stand now."""

    total: int
    refused: int


class Refusal(NamedTuple):
    """One that was not replayed, and why, as a sentence; `type` is None where there is none under the key."""

    operator: str
    type: str | None
    key: str
    why: str


class Replay(NamedTuple):
    """A job; times in µs by the database's clock. `refusals` are the first of those refused."""

    id: int
    actor: str
    note: str
    which: Which
    pace: int
    state: State
    total: int
    taken: int
    refused: int
    refusals: list[Refusal]
    worked: int
    driven_at: int | None
    created_at: int
    updated_at: int
    finished_at: int | None

    @property
    def left(self) -> int:
        """How many it has yet to come by, but for those that somebody else replays or resolves meanwhile."""
        return 0 if self.state in _ENDED else max(0, self.total - self.taken - self.refused)

    @property
    def rate(self) -> float | None:
        """Replayed a second, over the time in which it was driven."""
        return self.taken * SECOND / self.worked if self.worked else None

    def driven(self, now: int) -> bool:
        """Whether a worker makes its steps."""
        return self.state is State.RUNNING and self.driven_at is not None and now - self.driven_at < SILENT

    def ends_at(self, now: int) -> int | None:
        """When it will be done if it goes on so; None where nothing moves."""
        rate = self.pace if self.rate is None else self.rate
        return now + round(self.left / rate * SECOND) if self.driven(now) and rate else None


def count(database: Database, which: Which, now: int) -> Counted:
    """What a job made at this moment would come by; nothing is changed."""
    with database.reading() as connection:
        by_operator = _tally(connection, which.once(), now)
    return Counted(sum(one.total for one in by_operator.values()), sum(one.refused for one in by_operator.values()))


def _tally(connection: Connection, which: Which, now: int) -> dict[str, Counted]:
    if which.keys:
        return {str(which.operator): _tally_of_keys(connection, which)}
    its = words_of(connection)
    too_late = "0" if which.even_superseded else "sum(CASE WHEN d.superseded THEN 1 ELSE 0 END)"
    found = connection.execute(
        text(
            f"""
            SELECT d.operator, count(*), {too_late} FROM deliveries d {its.by.format("dead_by_number")}
            WHERE d.status = 'dead' AND {which.conditions()} GROUP BY d.operator ORDER BY d.operator
            """
        ),
        {**which.values(), "created_at": now},
    )
    return {operator: Counted(total, refused) for operator, total, refused in found}


_OF_KEYS = Spelled(
    lambda its: (
        f"""
    SELECT d.id, d.type, d.key, d.status, d.superseded
    FROM {its.each.format("keys")} CROSS JOIN deliveries d {its.by.format("identity")}
    WHERE d.key = {column(0)} AND d.operator = :operator
    """
    )
)


def _tally_of_keys(connection: Connection, which: Which) -> Counted:
    fit = sum(
        len(rows) == 1 and rows[0].status == Status.DEAD and (which.even_superseded or not rows[0].superseded)
        for rows in under_keys(connection, which, which.keys).values()
    )
    return Counted(len(which.keys), len(which.keys) - fit)


def under_keys(connection: Connection, which: Which, keys: Sequence[str]) -> dict[str, list[Any]]:
    """What stands under each of these keys: a row with id, type, key, status, superseded for each message type."""
    given = {"keys": orjson.dumps([[key] for key in keys]).decode(), "operator": which.operator}
    found: dict[str, list[Any]] = {key: [] for key in keys}
    for row in connection.execute(_OF_KEYS.on(connection), given):
        if which.type in (None, row.type):
            found[row.key].append(row)
    return found


def make(database: Database, which: Which, pace: int, actor: str, note: str, now: int) -> Replay:
    """A job that takes `pace` deliveries a second, from the commit on; noted in the journal.

    Raises Refused; NotNow where nothing fits.
    """
    which = which.once()
    if faults := which.faults():
        raise Refused("; ".join(map(str, faults)))
    if not 1 <= pace <= MOST_PACE:
        raise Refused(f"pace: {pace} is not from 1 to {MOST_PACE}; write how many are to be sent again in a second")
    if not note.strip():
        raise Refused("note: is empty; write why they are sent again")
    with database.reading() as connection:
        tally = _tally(connection, which, now)
    if not tally:
        raise NotNow("no dead letter fits; see: dispatcher dead list")
    values = {
        "actor": actor,
        "note": note.strip(),
        "operator": which.operator,
        "pace": pace,
        "state": State.RUNNING,
        "filter": orjson.dumps(which.values()).decode(),
        "total": sum(one.total for one in tally.values()),
        "refusals": "[]",
        "cursor": orjson.dumps([[operator, 0] for operator in tally]).decode(),
        "next_at": now,
        "created_at": now,
        "updated_at": now,
    }
    with database.writing() as connection:
        number = connection.execute(insert(replays).values(values).returning(_r.id)).scalar_one()
        _note(connection, database, "replay_make", actor, number, values, now)
        return _replay(_row(connection, number))


def _note(connection: Connection, database: Database, verb: str, actor: str, number: int, row: Any, now: int) -> None:
    """The verbs are none of those that the audit takes for what was done to a delivery, or to an operator's state."""
    told = f"replay {number}: {row['note']}"
    append(connection, database.notary, [Entry(verb, actor, told, operator=row["operator"])], now)


def _row(connection: Connection, number: int) -> RowMapping:
    """The job's row, which is ours until this transaction ends. Raises Refused where there is none."""
    row = connection.execute(select(replays).where(_r.id == number).with_for_update()).mappings().first()
    if row is None:
        raise Refused(f"there is no replay {number}; see: dispatcher replays list")
    return row


def _replay(row: RowMapping) -> Replay:
    known = {name: row[name] for name in Replay._fields if name not in ("which", "state", "refusals")}
    refusals = [Refusal(*one) for one in orjson.loads(row["refusals"])]
    return Replay(which=which_of(row["filter"]), state=State(row["state"]), refusals=refusals, **known)


def which_of(written: str) -> Which:
    """As `make` wrote it."""
    values = orjson.loads(written)
    return Which(**{**values, "keys": tuple(values.get("keys", ()))})


def find(database: Database, number: int) -> Replay | None:
    """The job with this number."""
    with database.reading() as connection:
        row = connection.execute(select(replays).where(_r.id == number)).mappings().first()
    return None if row is None else _replay(row)


def all_of(database: Database, operator: str | None = None, most: int = 50) -> list[Replay]:
    """The newest jobs first; only those about this operator alone, where one is named."""
    query = select(replays).order_by(_r.id.desc()).limit(most)
    if operator is not None:
        query = query.where(_r.operator == operator)
    with database.reading() as connection:
        return [_replay(row) for row in connection.execute(query).mappings()]


def pause(database: Database, number: int, actor: str, now: int) -> Replay:
    """It takes nothing more until it is resumed; what it has replayed goes on. Raises NotNow where it does not run."""
    return _turn(database, number, "pause", (State.RUNNING,), {"state": State.PAUSED, "driven_at": None}, actor, now)


def resume(database: Database, number: int, actor: str, now: int) -> Replay:
    """It goes on where it was, at its pace: nothing is made up for. Raises NotNow where it is not paused."""
    return _turn(database, number, "resume", (State.PAUSED,), {"state": State.RUNNING, "next_at": now}, actor, now)


def cancel(database: Database, number: int, actor: str, now: int) -> Replay:
    """It takes nothing more for good; what it has replayed goes on. Raises NotNow where it has ended."""
    values = {"state": State.CANCELLED, "finished_at": now, "driven_at": None}
    return _turn(database, number, "cancel", (State.RUNNING, State.PAUSED), values, actor, now)


TURNS = {"pause": pause, "resume": resume, "cancel": cancel}


def _turn(
    database: Database, number: int, verb: str, from_: Sequence[State], values: dict[str, Any], actor: str, now: int
) -> Replay:
    with database.writing() as connection:
        row = _row(connection, number)
        if row["state"] not in from_:
            raise NotNow(
                f"replay {number} is {row['state']}: it can't be {_DONE_TO_IT[verb]}; see: dispatcher replays list"
            )
        connection.execute(update(replays).where(_r.id == number).values(updated_at=now, **values))
        _note(connection, database, f"replay_{verb}", actor, number, row, now)
        return _replay(_row(connection, number))
