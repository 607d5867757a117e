"""The audit: walks the store in one consistent view and proves what its rows say of one another.

Deliveries are walked page by page in the order of their numbers, each with its attempts and its journal entries, so the
memory is that of one page. What is in flight, or happens meanwhile, is no fault: the view is of one moment.

What can be proved of "every accepted event is accounted for": each row that is here has the whole history that its
state needs. That a row is *not* here is told on a file alone, between two that retention has yet to keep: SQLite leaves
no number out, PostgreSQL does, for a batch that was taken back. Nothing counts what is accepted (the hot path would pay
for it): whoever must know that nothing is missing on a server holds the log against the game server's own books.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, func, select, text

from dispatcher.clock import MINUTE
from dispatcher.policy import Status
from dispatcher.store import journal, proofs
from dispatcher.store.dialect import Spelled
from dispatcher.store.proofs import ENDED, Check
from dispatcher.store.schema import attempts, deliveries, key_versions, operators, workers
from dispatcher.store.schema import journal as journal_table
from dispatcher.store.workers import LIMIT

PAGE = 1_000
# A claim whose worker is gone is adopted within seconds by whoever lives.
_ADOPTED = 10 * MINUTE

_d, _a, _j, _o = deliveries.c, attempts.c, journal_table.c, operators.c


class Finding(NamedTuple):
    """What is wrong, as a sentence, and where: a delivery, an operator, or an entry of the journal.

    `fault` is False for a remark: what a machine's clock that was set back leaves behind, too.
    """

    check: Check
    told: str
    operator: str | None = None
    type: str | None = None
    key: str | None = None
    id: int | None = None
    fault: bool = True


class Scope(NamedTuple):
    """Which deliveries are looked at, all unless it says otherwise; `keep`: for how long (µs) retention keeps them.

    `heads`: of the journal, as they were noted once: a number, and how its hash begins.
    """

    operator: str | None = None
    since: int | None = None
    keep: int | None = None
    thorough: bool = False
    heads: Sequence[tuple[int, str]] = ()

    @property
    def whole(self) -> bool:
        return self.operator is None and self.since is None


# (type, body) → (key, uid, digest) as they are frozen from it; False: it is no such event, None: nobody here can say.
Freeze = Callable[[str, str], tuple[str, str, bytes] | Literal[False] | None]
# How many rows of how many.
Tell = Callable[[int, int], None]

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


class Seen:
    """Rows looked at and faults by check, deliveries by status; `findings` are whatever was not read away."""

    def __init__(self) -> None:
        self.rows: Counter[Check] = Counter(dict.fromkeys(Check, 0))
        self.faults: Counter[Check] = Counter()
        self.remarks: Counter[Check] = Counter()
        self.statuses: Counter[str] = Counter()
        self.head = journal.Head(0, b"")
        self.sealed_from: int | None = None
        # Numbers that no row has: what retention took, and on a server what was never a row.
        self.absent = 0

    def count(self, finding: Finding) -> Finding:
        (self.faults if finding.fault else self.remarks)[finding.check] += 1
        return finding


def audit(
    connection: Connection, keys: Mapping[int, Any], scope: Scope, freeze: Freeze, now: int, tell: Tell, seen: Seen
) -> Iterator[Finding]:
    """What is wrong, in the order in which it is found; `seen` is whole when that has ended."""
    for finding in _every(connection, keys, scope, freeze, now, tell, seen):
        yield seen.count(finding)


def _every(
    connection: Connection, keys: Mapping[int, Any], scope: Scope, freeze: Freeze, now: int, tell: Tell, seen: Seen
) -> Iterator[Finding]:
    if scope.whole:
        yield from _integrity(connection, scope.thorough, seen)
    yield from _journal(connection, keys, seen)
    for n, beginning in scope.heads:
        if not journal.stands(connection, n, beginning):
            told = f"{n}:{beginning}, which was noted once, is not in it: its end was cut off, or the store put back"
            yield Finding(Check.JOURNAL, told, id=n)
    walk = _Walk(connection, scope, freeze, now, tell, seen)
    yield from walk.findings()
    if scope.whole:
        yield from walk.rest()
    yield from _lines(connection, seen)
    yield from _operators(connection, seen)


def _integrity(connection: Connection, thorough: bool, seen: Seen) -> Iterator[Finding]:
    """The file itself; a server looks after its own."""
    if connection.dialect.name != "sqlite":
        return
    seen.rows[Check.INTEGRITY] += 1
    pragma = "integrity_check" if thorough else "quick_check"
    for (told,) in connection.exec_driver_sql(f"PRAGMA {pragma}"):
        if told != "ok":
            yield Finding(Check.INTEGRITY, f"SQLite finds in its file: {told}")


def _journal(connection: Connection, keys: Mapping[int, Any], seen: Seen) -> Iterator[Finding]:
    chain = journal.Chain(connection, keys)
    for n, told in chain.broken():
        yield Finding(Check.JOURNAL, f"entry {n}: {told}", id=n)
    seen.rows[Check.JOURNAL], seen.head = chain.entries, chain.head
    for version, count in chain.shut.items():
        told = f"{count} entries can't be proved: key {version} of the journal {keys.get(version, 'is gone')}"
        yield Finding(Check.JOURNAL, told, fault=version not in chain.lost)
    if chain.sealed is None:
        if chain.entries:
            told = "it is chained but not sealed yet: start the daemon once, then note the head"
            yield Finding(Check.JOURNAL, told)
        return
    seen.sealed_from = chain.sealed.n
    if chain.unsealed and chain.unsealed < chain.sealed.n:
        told = (
            f"entries 1 to {chain.unsealed} are sealed by entry {chain.sealed.n}: what was altered before, nobody knows"
        )
        yield Finding(Check.JOURNAL, told, id=chain.sealed.n, fault=False)


class _Walk:
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
        self._copied_at = connection.scalar(select(func.max(_j.at)).where(_j.verb == journal.COPY)) or 0
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


# More than one that may be claimed; and those that wait for nobody.
_TWO_HEADS = Spelled(
    lambda its: (
        f"""
    SELECT operator, count(*), min(id) FROM deliveries
    WHERE in_line = {its.yes} AND parked = {its.no} AND status <> 'dead'
    GROUP BY operator, sequence HAVING count(*) > 1
    """
    )
)
_FORGOTTEN = Spelled(
    lambda its: (
        f"""
    SELECT operator, type, key, id FROM deliveries
    WHERE in_line = {its.yes} AND parked = {its.yes} AND NOT EXISTS (
        SELECT 1 FROM deliveries h
        WHERE h.operator = deliveries.operator AND h.sequence = deliveries.sequence
          AND h.in_line = {its.yes} AND h.parked = {its.no} AND h.id <> deliveries.id
          AND (h.status <> 'dead' OR h.id < deliveries.id)
    )
    """
    )
)


def _lines(connection: Connection, seen: Seen) -> Iterator[Finding]:
    its = "1" if connection.dialect.name == "sqlite" else "true"
    seen.rows[Check.LINES] = connection.scalar(text(f"SELECT count(*) FROM deliveries WHERE in_line = {its}")) or 0
    for operator, count, first in connection.execute(_TWO_HEADS.on(connection)):
        yield Finding(Check.LINES, f"{count} of one line may be sent at once", operator, id=first)
    for operator, kind, key, id_ in connection.execute(_FORGOTTEN.on(connection)):
        yield Finding(Check.LINES, "it waits in a line behind nobody: it is never sent", operator, kind, key, id_)


def _operators(connection: Connection, seen: Seen) -> Iterator[Finding]:
    """Whatever an operator's row says of its state, the journal has who made it so, at that time; and the last word."""
    versions = {(row.operator, row.version) for row in connection.execute(select(key_versions))}
    for row in connection.execute(select(operators).order_by(_o.name)):
        seen.rows[Check.OPERATORS] += 1
        verb = "remove" if row.settings is None else "set"
        for name, at, wanted in (
            ("settings", row.updated_at, verb),
            ("pause", row.paused_at, "pause"),
            ("hold", row.held_at, "hold"),
        ):
            if at is not None and _last(connection, row.name, wanted, at=at) is None:
                yield Finding(Check.OPERATORS, f"its {name}: the journal has nobody who did that then", row.name)
        for at, verbs in ((row.paused_at, ("pause", "resume")), (row.held_at, ("hold", "release", "resume"))):
            if at is None and _last(connection, row.name, *verbs) == verbs[0]:
                yield Finding(Check.OPERATORS, f"the journal's last word is {verbs[0]}, its row says no such", row.name)
        if row.key_version is not None and (row.name, row.key_version) not in versions:
            yield Finding(Check.KEYS, f"its key has version {row.key_version}, which was never noted", row.name)


def _last(connection: Connection, operator: str, *verbs: str, at: int | None = None) -> str | None:
    query = select(_j.verb).where(_j.delivery_id.is_(None), _j.operator == operator, _j.verb.in_(verbs))
    if at is not None:
        query = query.where(_j.at == at)
    return connection.scalar(query.order_by(_j.n.desc()).limit(1))
