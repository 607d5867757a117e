"""Taking events in: a batch is on disk as a whole, and each event's fate is told by what stands there. Synchronous."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple, TypeVar

import orjson
from sqlalchemy import Connection

from dispatcher.ground.errors import Contended
from dispatcher.ground.events import Event
from dispatcher.store.databases.dialect import Spelled, column
from dispatcher.store.engine import Database
from dispatcher.store.insertion import insert_new
from dispatcher.store.line import hold

T = TypeVar("T")


class Fate(StrEnum):
    """What became of an event that was handed in."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Receipt(NamedTuple):
    """The delivery's number and status, and what became of the event itself."""

    id: int
    status: str
    fate: Fate


# A look-up a key, written so that it can be nothing else: in a table that grows faster than it is analysed, PostgreSQL
# takes a join, or an index that begins with operators and types, and reads the whole of it once for each batch.
_UNDER_KEYS = Spelled(
    lambda its: (
        f"""
    SELECT {its.every.format("under")} FROM (
        SELECT (
            SELECT d.id || ' ' || d.status || ' ' || {its.hex.format("d.digest")}
            FROM deliveries d {its.by.format("identity")}
            WHERE d.key = {column(0)} AND d.operator || '' = {column(1)} AND d.type || '' = {column(2)}
        ) AS under FROM {its.each.format("keys")}
    ) AS looked_up
    """
    )
)

# How often a batch is begun again because another process hands in the same events at the same moment.
_TRIES = 5


def accept(database: Database, events: Sequence[Event], now: int) -> list[Fate]:
    """Insert a batch, due at once, in one transaction; the fate of each event, in order, once it is on disk."""
    return _accepted(database, events, now, lambda _connection, fates: fates)


def accept_told(database: Database, events: Sequence[Event], now: int) -> list[Receipt]:
    """As `accept`, with a receipt for each event; who needs none is quicker without."""

    def told(connection: Connection, fates: list[Fate]) -> list[Receipt]:
        found = _under_keys(connection, events)
        if None in found:
            raise Contended("some of these events were deleted at this moment; try again")
        return [Receipt(*under[:2], fate) for under, fate in zip(filter(None, found), fates, strict=True)]

    return _accepted(database, events, now, told)


def _accepted(
    database: Database, events: Sequence[Event], now: int, told: Callable[[Connection, list[Fate]], list[T]]
) -> list[T]:
    """As `accept`; instead of the fates what `told` makes of them within the same transaction."""
    if not events:
        return []
    for _ in range(_TRIES):
        with suppress(Contended):
            return _accept(database, events, now, told)
    return _accept(database, events, now, told)


def _accept(
    database: Database, events: Sequence[Event], now: int, told: Callable[[Connection, list[Fate]], list[T]]
) -> list[T]:
    with suppress(Contended), database.writing() as connection:
        _insert(connection, events, now)
        return told(connection, [Fate.ACCEPTED] * len(events))
    # Some were there already. Nothing tells which, so the batch is looked at row by row.
    with database.writing() as connection:
        return told(connection, _accept_known(connection, events, now))


def accept_within(connection: Connection, events: Sequence[Event], now: int) -> list[Fate]:
    """As `accept`, in a transaction of somebody else's. Raises Contended, after which that one can't go on."""
    with suppress(Contended), connection.begin_nested():
        _insert(connection, events, now)
        return [Fate.ACCEPTED] * len(events)
    return _accept_known(connection, events, now)


def _insert(connection: Connection, events: Sequence[Event], now: int) -> None:
    """All of them. Raises Contended where one of them is known already: none may stay then."""
    hold(connection, {(event.operator, event.sequence) for event in events if event.sequence is not None})
    if insert_new(connection, events, now) < len(events):
        raise Contended("some of these events are known, or are being handed in by another process; try again")


def _accept_known(connection: Connection, events: Sequence[Event], now: int) -> list[Fate]:
    found = zip(events, _under_keys(connection, events), strict=True)
    known = {event[:3]: under[2] for event, under in found if under is not None}
    fates, fresh = [], []
    for event in events:
        identity = event[:3]
        if identity not in known:
            known[identity] = event.digest
            fresh.append(event)
            fates.append(Fate.ACCEPTED)
        else:
            fates.append(Fate.DUPLICATE if known[identity] == event.digest else Fate.CONFLICT)
    if fresh:
        _insert(connection, fresh, now)
    return fates


def _under_keys(connection: Connection, events: Sequence[Event]) -> list[tuple[int, str, bytes] | None]:
    """Number, status and digest of what stands under each event's key, in the events' order."""
    keys = orjson.dumps([(event.key, event.operator, event.type) for event in events]).decode()
    rows = orjson.loads(connection.execute(_UNDER_KEYS.on(connection), {"keys": keys}).scalar_one())
    found = (None if under is None else under.split(" ") for under in rows)
    return [None if one is None else (int(one[0]), one[1], bytes.fromhex(one[2])) for one in found]
