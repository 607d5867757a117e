"""Attempts as they happen, for whoever follows them: only while somebody does, each turn tells what it settled.

Nobody could find them otherwise: no index tells when an attempt ended, and one more would cost every settlement. Who
follows leaves a row in `tails`, and renews it; each worker sees that with its next survey, and adds one row of `feed`
to each turn, in the same transaction. A worker's rows are numbered without a gap, in the order of its commits: so who
follows misses none, or knows that it did.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, delete, select, text

from dispatcher.ground.clock import HOUR, SECOND
from dispatcher.store.databases.dialect import Spelled, column
from dispatcher.store.engine import Database
from dispatcher.store.schema import feed, tails

# A row in `tails` that nobody renews is nobody's.
LAPSE = 30 * SECOND
# A worker keeps so many turns, and clears away the older ones now and then.
KEPT, EVERY = 4_096, 256
PAGE = 256

_f = feed.c
_TELL = text(
    "INSERT INTO feed (worker, n, at, told) VALUES (:worker, :n, :at, :told) ON CONFLICT (worker, n) DO NOTHING"
)
_FOLLOW = text(
    "INSERT INTO tails (id, until) VALUES (:id, :until) ON CONFLICT (id) DO UPDATE SET until = excluded.until"
)
# One index seek for each worker that has told something.
_WORKERS = text(
    """
    WITH RECURSIVE tellers(worker) AS (
        SELECT min(worker) FROM feed
        UNION ALL
        SELECT (SELECT min(f.worker) FROM feed f WHERE f.worker > tellers.worker)
        FROM tellers WHERE tellers.worker IS NOT NULL
    )
    SELECT t.worker, (SELECT max(f.n) FROM feed f WHERE f.worker = t.worker) FROM tellers t WHERE t.worker IS NOT NULL
    """
)
_MADE = Spelled(
    lambda its: (
        f"""
    SELECT d.id, d.operator, d.type, d.key, d.uid, d.status, a.n, a.late, a."trigger", a.started_at, a.duration,
           a.http_status, a.code, a.reason, a.ambiguous, a.detail
    FROM {its.each.format("made")}
    JOIN attempts a ON a.delivery_id = {column(0, "bigint")} AND a.n = {column(1, "bigint")}
        AND a.started_at = {column(2, "bigint")}
    JOIN deliveries d ON d.id = a.delivery_id
    ORDER BY a.started_at + coalesce(a.duration, 0), d.id
    """
    )
)

# A delivery's number, which attempt, and when that began (µs).
Made = tuple[int, int, int]


class Attempt(NamedTuple):
    """One attempt as it was recorded, and whose; times in µs. `status` is the delivery's as it is read."""

    id: int
    operator: str
    type: str
    key: str
    uid: str
    status: str
    n: int
    late: bool
    trigger: str
    started_at: int
    duration: int | None
    http_status: int | None
    code: str | None
    reason: str | None
    ambiguous: bool
    detail: str | None

    @property
    def ended_at(self) -> int:
        return self.started_at + (self.duration or 0)


class Heard(NamedTuple):
    """What has happened since the last look: the attempts, and how many turns nobody can tell of any more."""

    attempts: list[Attempt]
    missed: int


def tell(connection: Connection, database: Database, made: Iterable[Made], now: int) -> None:
    """The attempts that this turn settles, for those who follow. When nobody does any more, what was told goes away.

    The number is the last that was committed and one: a turn whose commit nobody answered for tells once.
    """
    followed = now < database.followed_until
    if not (followed or database.tells):
        return
    if not followed:
        connection.execute(delete(feed).where(_f.worker == database.worker))
        return
    if not database.tells:
        # What those left behind who are gone.
        connection.execute(delete(feed).where(_f.at < now - HOUR))
    if database.told_turns % EVERY == 0:
        gone = (_f.worker == database.worker) & (_f.n <= database.told_turns - KEPT)
        connection.execute(delete(feed).where(gone))
    about = {"worker": database.worker, "n": database.told_turns + 1, "at": now}
    connection.execute(_TELL, {**about, "told": orjson.dumps(list(made)).decode()})


def has_told(database: Database, now: int) -> None:
    """The turn is committed."""
    database.tells = now < database.followed_until
    database.told_turns += database.tells


class Follower:
    """Somebody who follows what all workers do, from now on. `number` is this one's own."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._number = number
        self._last: dict[int, int] = {}
        self._until = 0

    def begin(self) -> None:
        """What was told to others before is not for this one. Raises StoreUnavailable."""
        with self._database.reading() as connection:
            self._last = {row[0]: row[1] for row in connection.execute(_WORKERS)}
        now = self._database.clock().now()
        with self._database.writing() as connection:
            connection.execute(delete(tails).where(tails.c.until < now))
        self.stay()

    def stay(self) -> None:
        """Goes on following; to be called well within LAPSE. The workers hear of it. Raises StoreUnavailable."""
        until = self._database.clock().now() + LAPSE
        with self._database.writing() as connection:
            connection.execute(_FOLLOW, {"id": self._number, "until": until})
        lapsed, self._until = self._until < until - LAPSE, until
        if lapsed:
            self._database.ring()

    @property
    def lapsed(self) -> bool:
        """Nobody knows any more that this one follows: what happens now it may miss."""
        return self._until < self._database.clock().now()

    def end(self) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(tails).where(tails.c.id == self._number))

    def hear(self) -> Heard:
        """Since the last time. Raises StoreUnavailable; what it was to give comes the next time then."""
        last, made, missed = dict(self._last), list[Made](), 0
        with self._database.reading() as connection:
            for worker, newest in connection.execute(_WORKERS).all():
                while last.get(worker, 0) < newest:
                    rows = self._page(connection, worker, last.get(worker))
                    if worker in last and rows[0][0] > last[worker] + 1:
                        missed += rows[0][0] - last[worker] - 1
                    last[worker] = rows[-1][0]
                    made += [one for _, told in rows for one in orjson.loads(told)]
            attempts = list(_recorded(connection, made))
        self._last = last
        return Heard(attempts, missed)

    @staticmethod
    def _page(connection: Connection, worker: int, last: int | None) -> Sequence[tuple[int, str]]:
        query = select(_f.n, _f.told).where(_f.worker == worker, _f.n > (last or 0)).order_by(_f.n).limit(PAGE)
        return [(n, told) for n, told in connection.execute(query)]


def _recorded(connection: Connection, made: Sequence[Made]) -> Iterator[Attempt]:
    given = {"made": orjson.dumps(made).decode()}
    for row in connection.execute(_MADE.on(connection), given) if made else ():
        yield Attempt._make(row)
