"""The walk along all deliveries in the order of their numbers, page by page, so the memory is that of one page.

Each is seen with its attempts and its journal entries; what they must say of one another is in `proofs`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from dispatcher.ground.clock import MINUTE
from dispatcher.ground.policy import Status
from dispatcher.store.journal import COPY
from dispatcher.store.proof import proofs
from dispatcher.store.proof.findings import Finding, Freeze, Scope, Seen, Tell
from dispatcher.store.proof.proofs import ENDED, Check
from dispatcher.store.schema import attempts, deliveries, journal, key_versions, workers
from dispatcher.store.workers import LIMIT

PAGE = 1_000
# A claim whose worker is gone is adopted within seconds by whoever lives.
_ADOPTED = 10 * MINUTE

_d, _a, _j = deliveries.c, attempts.c, journal.c

_DELIVERY = [
    *(_d.id, _d.operator, _d.type, _d.key, _d.uid, _d.body, _d.digest, _d.status, _d.accepted_at, _d.due_at),
    *(_d.attempts, _d.run_from, _d.probes, _d.worker, _d.token, _d.claimed_at, _d.finished_at, _d.reason),
    *(_d.ambiguous, _d.in_line, _d.parked, _d.sequence),
]
_ATTEMPT = [
    *(_a.delivery_id, _a.n, _a.late, _a.trigger, _a.started_at, _a.duration, _a.reason, _a.ambiguous),
    _a.key_version,
]
_DONE = [_j.delivery_id, _j.at, _j.verb, _j.operator, _j.type, _j.key]


class Walk:
    """The deliveries, a page at a time, each with what hangs on it."""

    def __init__(self, connection: Connection, scope: Scope, freeze: Freeze, now: int, tell: Tell, seen: Seen) -> None:
        self._connection = connection
        self._scope = scope
        self._freeze = freeze
        self._now = now
        self._tell = tell
        self._seen = seen
        self._file = connection.dialect.name == "sqlite"
        query = select(key_versions.c.operator, key_versions.c.version)
        self._key_versions = {(operator, version) for operator, version in connection.execute(query)}
        crew = connection.execute(select(workers.c.id, workers.c.since, workers.c.seen_at)).all()
        self._workers = {one.id for one in crew}
        # Somebody has been here for long, and would have taken over what was left behind. On a file nobody beats: who
        # has the row came last, and took over everything.
        self._adopting = any(
            one.since < now - _ADOPTED and (self._file or abs(one.seen_at - now) <= LIMIT) for one in crew
        )
        # What was copied from a server has its gaps.
        self._copied_at = connection.scalar(select(func.max(_j.at)).where(_j.verb == COPY)) or 0
        self._last = 0
        # When the delivery before the next one was accepted.
        self._before: int | None = None

    def findings(self) -> Iterator[Finding]:
        where = []
        if self._scope.operator is not None:
            where.append(_d.operator == self._scope.operator)
        if self._scope.since is not None:
            where.append(_d.accepted_at >= self._scope.since)
        every = self._connection.scalar(select(func.count()).select_from(deliveries).where(*where)) or 0
        done = 0
        # A number below 1 is none of ours, but it is looked at.
        last: int | None = None
        while True:
            query = select(*_DELIVERY).where(*where).order_by(_d.id).limit(PAGE)
            page = self._connection.execute(query if last is None else query.where(_d.id > last)).all()
            if page:
                yield from self._page(page, last)
                last = self._last = page[-1].id
                done += len(page)
                self._tell(done, every)
            if len(page) < PAGE:
                break
        self._walked = last
        if self._scope.whole:
            yield from self._counts()

    def _page(self, page: Sequence[Row[Any]], after: int | None) -> Iterator[Finding]:
        """With all attempts that stand between its first and last number, so that an orphan is seen."""
        made: dict[int, list[Row[Any]]] = {}
        done: dict[int, list[Row[Any]]] = {}
        bounds = (page[0].id if after is None else after + 1, page[-1].id)
        tried = select(*_ATTEMPT).order_by(_a.delivery_id, _a.n, _a.late)
        ids = [row.id for row in page]
        tried = tried.where(_a.delivery_id.between(*bounds) if self._scope.whole else _a.delivery_id.in_(ids))
        for attempt in self._connection.execute(tried):
            made.setdefault(attempt.delivery_id, []).append(attempt)
        noted = select(*_DONE).where(_j.delivery_id.is_not(None), _j.delivery_id.between(*bounds)).order_by(_j.n)
        for entry in self._connection.execute(noted):
            done.setdefault(entry.delivery_id, []).append(entry)
        for row in page:
            yield from self._number(row)
            its_own = [
                one
                for one in done.get(row.id, ())
                if (one.operator, one.type, one.key) == (row.operator, row.type, row.key)
            ]
            for check, told, fault in self._delivery(row, made.pop(row.id, []), its_own):
                yield Finding(check, told, row.operator, row.type, row.key, row.id, fault)
        for orphan, left in made.items():
            yield Finding(Check.ORPHANS, f"{len(left)} attempts of a delivery that is not there", id=orphan)

    def _number(self, row: Row[Any]) -> Iterator[Finding]:
        """Between two that retention has yet to keep, on a file, there is no number that nobody has."""
        if not self._scope.whole:
            return
        self._seen.rows[Check.NUMBERS] += 1
        missing = row.id - self._last - 1 if self._before is not None else max(0, row.id - 1)
        self._seen.absent += missing
        keep = self._scope.keep
        kept_since = max(0 if keep is None else self._now - keep, self._copied_at)
        young = self._before is not None and min(self._before, row.accepted_at) > kept_since
        if missing and self._file and young:
            told = (
                f"{missing} numbers before this one are not there, and retention can't have deleted them yet: their"
                " rows were removed by hand, unless retention was shorter before"
            )
            yield Finding(Check.NUMBERS, told, row.operator, row.type, row.key, row.id)
        self._last, self._before = row.id, row.accepted_at

    def _delivery(
        self, row: Row[Any], made: Sequence[Row[Any]], done: Sequence[Row[Any]]
    ) -> Iterator[tuple[Check, str, bool]]:
        seen, decided = self._seen, [one for one in made if not one.late]
        seen.statuses[row.status] += 1
        seen.rows[Check.ATTEMPTS] += len(made)
        for check, told in (
            *((Check.STATUS, told) for told in proofs.status(row)),
            *((Check.ATTEMPTS, told) for told in proofs.attempts(row, decided)),
            *proofs.end(row, decided, done),
            *((Check.REPLAYED, told) for told in proofs.replays(row, decided, done)),
            *((Check.AMBIGUOUS, told) for told in proofs.ambiguous(row, made, decided)),
            *((Check.LATE, told) for told in proofs.late(row, made, decided)),
            *((Check.CONTENT, told) for told in self._content(row)),
            *((Check.CLAIMS, told) for told in self._claim(row)),
            *((Check.KEYS, told) for told in self._keys(row, made)),
        ):
            yield check, told, True
        for check in (Check.STATUS, Check.AMBIGUOUS, Check.TIMES, Check.REPLAYED, Check.KEYS):
            seen.rows[check] += 1
        seen.rows[Check.LATE] += len(made) - len(decided)
        if row.status in ENDED:
            seen.rows[Check(row.status)] += 1
        seen.rows[Check.CLAIMS] += row.status == Status.SENDING
        for told in proofs.times(row, decided):
            yield Check.TIMES, told, False

    def _content(self, row: Row[Any]) -> Iterator[str]:
        frozen = self._freeze(row.type, row.body)
        if frozen is None:
            return
        self._seen.rows[Check.CONTENT] += 1
        if frozen != (row.key, row.uid, bytes(row.digest)):
            yield "its body is not the one that was accepted: key, player and digest do not come from it"

    def _claim(self, row: Row[Any]) -> Iterator[str]:
        if row.status != Status.SENDING or row.worker in self._workers or row.claimed_at is None:
            return
        if self._adopting and row.claimed_at < self._now - _ADOPTED:
            yield "its worker is gone for long, others live, and none has taken it over: nobody sends it"

    def _keys(self, row: Row[Any], made: Sequence[Row[Any]]) -> Iterator[str]:
        for one in made:
            if one.key_version is not None and (row.operator, one.key_version) not in self._key_versions:
                yield f"attempt {one.n} was made with key version {one.key_version}, which {row.operator} never had"

    def _counts(self) -> Iterator[Finding]:
        """Each status by its own index, against the walk: an index that lost rows hides them from whoever looks."""
        for status in Status:
            self._seen.rows[Check.COUNTS] += 1
            walked = self._seen.statuses[status]
            # A literal: only so its index is taken.
            counted = self._connection.scalar(text(f"SELECT count(*) FROM deliveries WHERE status = '{status}'"))
            if counted != walked:
                told = f"there are {walked} {status} ones, and {counted} by index: make it anew (REINDEX)"
                yield Finding(Check.COUNTS, told)

    def rest(self) -> Iterator[Finding]:
        """What stands before the first delivery and behind the last."""
        first = self._connection.scalar(select(func.min(_d.id)))
        outside = _a.delivery_id > (self._walked or 0)
        if first is not None:
            outside |= _a.delivery_id < first
        self._seen.rows[Check.ORPHANS] = self._seen.rows[Check.ATTEMPTS]
        query = select(_a.delivery_id, func.count()).where(outside).group_by(_a.delivery_id).order_by(_a.delivery_id)
        for orphan, count in self._connection.execute(query):
            yield Finding(Check.ORPHANS, f"{count} attempts of a delivery that is not there", id=orphan)
