"""The audit: walks the store in one consistent view and proves what its rows say of one another.

First the file, then the journal, the deliveries (`walk`), the lines, the operators, and who is let in (`access`). What
is in flight, or happens meanwhile, is no fault: the view is of one moment.

What can be proved of "every accepted event is accounted for": each row that is here has the whole history that its
state needs. That a row is *not* here is told on a file alone, between two that retention has yet to keep: SQLite leaves
no number out, PostgreSQL does, for a batch that was taken back. Nothing counts what is accepted (the hot path would pay
for it): whoever must know that nothing is missing on a server holds the log against the game server's own books.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, select, text

from dispatcher.store import journal
from dispatcher.store.databases.dialect import Spelled
from dispatcher.store.proof.access import held_against
from dispatcher.store.proof.findings import Finding, Freeze, Scope, Seen, Tell
from dispatcher.store.proof.proofs import Check
from dispatcher.store.proof.walk import Walk
from dispatcher.store.schema import journal as journal_table
from dispatcher.store.schema import key_versions, operators

_j, _o = journal_table.c, operators.c


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
    walk = Walk(connection, scope, freeze, now, tell, seen)
    yield from walk.findings()
    if scope.whole:
        yield from walk.rest()
    yield from _lines(connection, seen)
    yield from _operators(connection, seen)
    yield from held_against(connection, seen)


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
