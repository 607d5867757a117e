"""The books are proved: a whole story stands, and whatever is altered by hand afterwards is found."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text

from dispatcher.accept import refrozen
from dispatcher.cli import main
from dispatcher.ground.clock import DAY, MINUTE
from dispatcher.ground.errors import EventError, Refused
from dispatcher.ground.policy import Reason
from dispatcher.roster import relock
from dispatcher.seal.vault import MasterKey, Vault
from dispatcher.store import ledger, operators
from dispatcher.store.engine import Database, open_database, reach
from dispatcher.store.journal import Entry, Noted, append, begin, digest, read_head
from dispatcher.store.migrate import migrate, upgrade
from dispatcher.store.moving.copy import copy, open_side
from dispatcher.store.notary import Notary
from dispatcher.store.operators import Declared, declare
from dispatcher.store.proof.audit import audit
from dispatcher.store.proof.findings import Finding, Scope, Seen
from dispatcher.store.proof.proofs import Check
from dispatcher.store.retention import sweep
from dispatcher.store.schema import journal
from tests.ground import NOW
from tests.stores import STORES, Kept, apart, notary, open_store
from tests.workshop import OPERATORS, accept, adopt, configuration, failed, row, settle, settled, take

pytestmark = pytest.mark.each_store

WHOLE = Scope()


def freeze(kind: str, body: str) -> Any:
    try:
        event = refrozen(OPERATORS["acme"], kind, body)
    except EventError:
        return False
    return None if event is None else (event.key, event.uid, event.digest)


def audited(database: Database, scope: Scope = WHOLE, now: int = NOW) -> tuple[list[Finding], Seen]:
    seen = Seen()
    assert database.notary is not None
    with database.reading() as connection:
        keys = database.notary.every_key(connection)
        return list(audit(connection, keys, scope, freeze, now, lambda _done, _all: None, seen)), seen


def faults(database: Database, scope: Scope = WHOLE) -> set[Check]:
    return {finding.check for finding in audited(database, scope)[0] if finding.fault}


def bury(database: Database, *keys: int, now: int = NOW) -> None:
    """Each with four failed attempts, the last of which leaves a doubt."""
    accept(database, *keys, now=now)
    for delay, reason in ((0, Reason.DNS), (1, Reason.DNS), (31, Reason.DNS), (81, Reason.READ_TIMEOUT)):
        at = now + delay * MINUTE
        claims = {claim.key: claim for claim in take(database, at)}
        settle(database, *(failed(claims[str(key)], at, reason) for key in keys), now=at)


def told(database: Database) -> None:
    """A story with something of everything: 1 delivered, 2 resolved, 3 replayed and delivered, 4 replayed and waiting,

    5 dead, 6 with a late attempt, 7 being sent, 8 and 9 in a line; an operator set, its key rotated, paused, resumed.
    """
    for settings, fingerprint in (("k.one", "ab"), ("k.two", "cd")):
        row_ = Declared("acme", settings, fingerprint, ["crypto.key", "concurrency"])
        declare(database, [row_], [], "command", ("set", "ada"), NOW)
    for verb, turn in (("pause", operators.stop), ("resume", operators.start), ("pause", operators.stop)):
        turn(database, "acme", "paused_at", (verb, "eve", "maintenance"), NOW)
    bury(database, 2, 3, 4, 5)
    ended = NOW + 90 * MINUTE
    ledger.resolve(database, [row(database, 2)], "ada", "agreed", ended)
    ledger.replay(database, [row(database, 3)], "ada", ended)
    (again,) = take(database, ended)
    settle(database, settled(again, ended, key_version=2), now=ended)
    ledger.replay(database, [row(database, 4)], "ada", ended)
    accept(database, 1, 6, 7, now=ended)
    claims = {claim.key: claim for claim in take(database, ended)}
    settle(database, settled(claims["1"], ended, key_version=1), failed(claims["4"], ended), now=ended)
    with database.writing() as connection:
        connection.execute(text("DELETE FROM workers"))
    taken = {one.claim.key: one.claim for one in adopt(database, ended, [(claims["7"].id, claims["7"].token)])}
    settle(database, failed(taken["6"], ended, Reason.INTERRUPTED), now=ended)
    settle(database, settled(claims["6"], ended), now=ended)
    accept(database, 8, 9, now=ended)
    with database.writing() as connection:
        connection.execute(
            text("UPDATE deliveries SET sequence = 'p', in_line = :yes WHERE key IN ('8', '9')"), {"yes": True}
        )
        connection.execute(text("UPDATE deliveries SET parked = :yes WHERE key = '9'"), {"yes": True})


# By the kind of store.
KEPT: dict[str, Kept] = {}


@pytest.fixture
def story(store: str, tmp_path: Path) -> Iterator[Database]:
    if store not in KEPT:
        with apart(STORES.current, tmp_path, "told") as place:
            first = open_store(place)
            told(first)
            KEPT[store] = Kept(first)
            first.close()
    opened = KEPT[store].open(STORES.place(tmp_path))
    yield opened
    opened.close()


def test_a_whole_story_stands(story: Database) -> None:
    found, seen = audited(story)
    assert found == []
    assert seen.statuses == {"delivered": 2, "resolved": 1, "pending": 4, "dead": 1, "sending": 1}
    looked_at = {check for check, rows in seen.rows.items() if rows}
    others = {Check.API_KEYS, Check.ACCOUNTS} | ({Check.INTEGRITY} if STORES.current else set())
    assert looked_at == set(Check) - others
    assert (seen.rows[Check.LATE], seen.rows[Check.LINES], seen.rows[Check.JOURNAL]) == (1, 2, 8)
    assert seen.head == read_head(story)


def test_it_stands_when_retention_has_deleted_what_ended_well(story: Database) -> None:
    later = NOW + 40 * DAY
    assert sweep(story, 0, later - 30 * DAY, 100).deleted == 3
    found, seen = audited(story, Scope(keep=30 * DAY), later)
    assert found == []
    assert (seen.rows[Check.JOURNAL], seen.absent) == (8, 3)


def test_what_is_out_of_scope_is_no_orphan(story: Database) -> None:
    for scope in (Scope(operator="bolt"), Scope(since=NOW + DAY), Scope(since=NOW + 1)):
        assert faults(story, scope) == set()
    anothers = "UPDATE deliveries SET operator = 'bolt' WHERE key = '1'"
    found = altered(story, anothers, scope=Scope(operator="acme"))
    assert {Check.ORPHANS, Check.NUMBERS}.isdisjoint(one.check for one in found)


# Every check is seen red.

_YES, _NO = "{yes}", "{no}"
_ITS = "delivery_id = (SELECT id FROM deliveries WHERE key = '{}')"


def tried(key: int, n: int, values: str) -> str:
    return f"UPDATE attempts SET {values} WHERE {_ITS.format(key)} AND n = {n}"


def delivery(key: int, values: str) -> str:
    return f"UPDATE deliveries SET {values} WHERE key = '{key}'"


CORRUPTIONS: Mapping[str, tuple[Check, str]] = {
    "pending without a due time": (Check.STATUS, delivery(8, "due_at = NULL")),
    "sending without a token": (Check.STATUS, delivery(7, "token = NULL")),
    "delivered without an end": (Check.STATUS, delivery(1, "finished_at = NULL")),
    "of a status that is none": (Check.STATUS, delivery(5, "status = 'gone', finished_at = NULL")),
    "a run that begins too late": (Check.STATUS, delivery(5, "run_from = 9")),
    "delivered and in a line": (Check.STATUS, delivery(1, f"in_line = {_YES}, sequence = 'q'")),
    "in a line of none": (Check.STATUS, delivery(8, "sequence = NULL")),
    "parked and dead": (Check.STATUS, delivery(5, f"parked = {_YES}")),
    "sending without a worker": (Check.STATUS, delivery(7, "worker = NULL")),
    "a probe that is no attempt": (Check.STATUS, delivery(8, "probes = 1")),
    "dead and parked in its line": (Check.STATUS, delivery(9, "status = 'dead', due_at = NULL, finished_at = 1")),
    "an attempt taken out": (Check.ATTEMPTS, f"DELETE FROM attempts WHERE {_ITS.format(5)} AND n = 2"),
    "the last attempt taken out": (Check.ATTEMPTS, f"DELETE FROM attempts WHERE {_ITS.format(5)} AND n = 4"),
    "an attempt numbered anew": (Check.ATTEMPTS, tried(5, 3, "n = 7")),
    "an attempt too many counted": (Check.ATTEMPTS, delivery(5, "attempts = 5")),
    "an attempt behind a success": (Check.ATTEMPTS, tried(5, 2, "reason = NULL")),
    "delivered by a failure": (Check.DELIVERED, tried(1, 1, "reason = 'dns'")),
    "delivered for a reason": (Check.DELIVERED, delivery(1, "reason = 'dns'")),
    "delivered without an attempt": (Check.DELIVERED, f"DELETE FROM attempts WHERE {_ITS.format(1)}"),
    "a success that is due again": (Check.DELIVERED, delivery(1, "status = 'pending', finished_at = NULL, due_at = 1")),
    "marked as delivered": (Check.DELIVERED, delivery(5, "status = 'delivered', reason = NULL")),
    "dead for another reason": (Check.DEAD, delivery(5, "reason = 'dns'")),
    "dead without an attempt": (Check.DEAD, delivery(8, "status = 'dead', due_at = NULL, finished_at = 1")),
    "resolved by nobody": (Check.RESOLVED, delivery(5, "status = 'resolved'")),
    "resolved at another time": (Check.RESOLVED, delivery(2, "finished_at = finished_at + 1")),
    "resolved for another reason": (Check.RESOLVED, delivery(2, "reason = 'dns'")),
    "dead again by nobody": (Check.RESOLVED, delivery(2, "status = 'dead'")),
    "replayed by nobody": (Check.REPLAYED, delivery(5, "run_from = 4")),
    "a replay undone": (Check.REPLAYED, delivery(3, "run_from = 0")),
    "one replay too many": (Check.REPLAYED, tried(5, 2, "\"trigger\" = 'replay'")),
    "a doubt wiped out": (Check.AMBIGUOUS, delivery(5, f"ambiguous = {_NO}")),
    "a doubt made up": (Check.AMBIGUOUS, delivery(1, f"ambiguous = {_YES}")),
    "an attempt without its doubt": (Check.AMBIGUOUS, tried(5, 4, f"ambiguous = {_NO}")),
    "a doubt about what succeeded": (Check.AMBIGUOUS, tried(1, 1, f"ambiguous = {_YES}")),
    "a late one beside nobody": (Check.LATE, f"UPDATE attempts SET n = 9 WHERE late = {_YES}"),
    "an attempt before its acceptance": (Check.TIMES, tried(5, 1, "started_at = 1")),
    "attempts that change places": (Check.TIMES, tried(5, 3, "started_at = started_at - 3600000000")),
    "an end before the last attempt": (Check.TIMES, delivery(5, "finished_at = 1")),
    "a larger win": (Check.CONTENT, delivery(1, 'body = replace(body, \'"total_win"\\:"\', \'"total_win"\\:"9\')')),
    "no event": (Check.CONTENT, delivery(1, "body = 'nothing'")),
    "half an event": (Check.CONTENT, delivery(1, "body = '{}'")),
    "another player": (Check.CONTENT, delivery(1, "uid = 'somebody'")),
    "another order": (Check.CONTENT, delivery(1, "key = '77'")),
    "another digest": (Check.CONTENT, delivery(1, "digest = (SELECT digest FROM deliveries WHERE key = '2')")),
    "a delivery without its attempts": (Check.ATTEMPTS, f"DELETE FROM attempts WHERE {_ITS.format(5)}"),
    "attempts without their delivery": (Check.ORPHANS, "DELETE FROM deliveries WHERE key = '5'"),
    "the first one's attempts alone": (Check.ORPHANS, "DELETE FROM deliveries WHERE key = '2'"),
    "attempts of the future": (Check.ORPHANS, tried(5, 4, "delivery_id = 999")),
    "a claim that nobody takes over": (Check.CLAIMS, delivery(7, "worker = 5, claimed_at = 1")),
    "two heads of one line": (Check.LINES, delivery(9, f"parked = {_NO}")),
    "behind nobody": (Check.LINES, delivery(8, f"in_line = {_NO}")),
    "a key that was never there": (Check.KEYS, tried(1, 1, "key_version = 7")),
    "an operator's key that was never there": (Check.KEYS, "UPDATE operators SET key_version = 7"),
    "a key version taken out": (Check.KEYS, "DELETE FROM key_versions WHERE version = 2"),
    "settings of another time": (Check.OPERATORS, "UPDATE operators SET updated_at = updated_at + 1"),
    "settings taken away": (Check.OPERATORS, "UPDATE operators SET settings = NULL"),
    "paused at another time": (Check.OPERATORS, "UPDATE operators SET paused_at = paused_at + 1"),
    "resumed by nobody": (Check.OPERATORS, "UPDATE operators SET paused_at = NULL, closed_since = NULL"),
    "held by nobody": (Check.OPERATORS, "UPDATE operators SET held_at = 5"),
}


class _BackAgain(Exception):
    """What was altered is not kept."""


def altered(database: Database, *statements: str, scope: Scope = WHOLE, now: int = NOW) -> list[Finding]:
    """What an audit finds after somebody who heeds no rule of the schema has done this."""
    on_file = database.engine.dialect.name == "sqlite"
    assert database.notary is not None
    with database.engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        if on_file and driver is not None:
            driver.cursor().execute("PRAGMA foreign_keys = OFF")
            driver.cursor().execute("PRAGMA ignore_check_constraints = ON")
        try:
            with connection.begin():
                if not on_file:
                    _drop_rules(connection)
                # Somebody lives, and would take over what is left behind.
                alive = "INSERT INTO workers (id, name, started_at, since, seen_at) VALUES (99, 'me', 1, 1, :now)"
                connection.execute(text(alive), {"now": NOW})
                for statement in statements:
                    words = {"{yes}": "1", "{no}": "0"} if on_file else {"{yes}": "true", "{no}": "false"}
                    for word, its in words.items():
                        statement = statement.replace(word, its)
                    assert connection.execute(text(statement)).rowcount != 0, statement
                keys = database.notary.every_key(connection)
                found = list(audit(connection, keys, scope, freeze, now, lambda _done, _all: None, Seen()))
                raise _BackAgain
        except _BackAgain:
            return found
        finally:
            connection.invalidate()


def _drop_rules(connection: Connection) -> None:
    query = (
        "SELECT conrelid::regclass, conname FROM pg_constraint"
        " WHERE contype IN ('c', 'f') AND connamespace = current_schema()::regnamespace"
    )
    for table, name in connection.exec_driver_sql(query).all():
        connection.exec_driver_sql(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_what_was_altered_is_found(story: Database, what: str) -> None:
    check, statement = CORRUPTIONS[what]
    found = altered(story, statement)
    assert check in {finding.check for finding in found}, found
    assert all(finding.fault == (finding.check is not Check.TIMES) for finding in found)
    assert faults(story) == set(), "and nothing of it was kept"


def in_lines(found: list[Finding]) -> list[str | None]:
    return [finding.key for finding in found if finding.check is Check.LINES]


def test_a_dead_letter_holds_up_those_that_came_after_it_and_nobody_else(story: Database) -> None:
    dead = "status = 'dead', due_at = NULL, finished_at = 1"
    assert in_lines(altered(story, delivery(8, dead))) == []
    assert in_lines(altered(story, delivery(8, f"parked = {_YES}"), delivery(9, f"parked = {_NO}, {dead}"))) == ["8"]
    assert in_lines(altered(story, delivery(8, dead), delivery(9, f"parked = {_NO}"))) == []


def test_an_operator_that_was_released_past_the_journal_is_found(story: Database) -> None:
    operators.stop(story, "acme", "held_at", ("hold", "breaker", None), NOW)
    assert faults(story) == set()
    (found,) = altered(story, "UPDATE operators SET held_at = NULL")
    assert (found.check, found.told) == (Check.OPERATORS, "the journal's last word is hold, its row says no such")
    operators.start(story, "acme", "held_at", ("release", "breaker", None), NOW)
    assert faults(story) == set()


def test_a_claim_is_missed_by_nobody_whose_worker_lives_or_where_nobody_lives(story: Database) -> None:
    def found(claim: str, crew: str = "seen_at = seen_at") -> bool:
        every = altered(story, delivery(7, claim), f"UPDATE workers SET {crew}")
        return Check.CLAIMS in {finding.check for finding in every}

    assert found("worker = 5, claimed_at = 1")
    assert not found("worker = 99, claimed_at = 1")
    # On a file nobody beats: its worker has taken over everything when it came.
    assert found("worker = 5, claimed_at = 1", "seen_at = 1") == (STORES.current is None)


def test_a_row_that_was_taken_out_of_a_file_leaves_its_number(story: Database) -> None:
    gone = ["DELETE FROM attempts WHERE " + _ITS.format(6), "DELETE FROM deliveries WHERE key = '6'"]
    if STORES.current is not None:
        assert altered(story, *gone) == [], "a server leaves out numbers by itself"
        return
    (found,) = altered(story, *gone)
    assert (found.check, found.key) == (Check.NUMBERS, "7")
    later = altered(story, *gone, scope=Scope(keep=DAY), now=NOW + 3 * DAY)
    assert {found.check for found in later} == {Check.CLAIMS}, "retention may have done that; 7 is held by nobody"


@pytest.mark.sqlite_only
def test_an_index_that_lost_rows_is_found(story: Database) -> None:
    with closing(sqlite3.connect(str(story.place))) as file:
        ((whole,),) = file.execute("SELECT sql FROM sqlite_master WHERE name = 'log_delivered'")
        file.execute("DROP INDEX log_delivered")
        file.execute(f"{whole} AND key <> '1'")
        file.execute("PRAGMA writable_schema = ON")
        file.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'log_delivered'", (whole,))
        file.commit()
    story.engine.dispose()
    assert faults(story) == {Check.COUNTS}
    assert faults(story, Scope(thorough=True)) == {Check.COUNTS, Check.INTEGRITY}


# The journal.

FIELDS: Mapping[str, str] = {
    "at": "at + 1",
    "verb": "'replay'",
    "actor": "'eve'",
    "operator": "'bolt'",
    "type": "'settle'",
    "key": "'3'",
    "delivery_id": "delivery_id + 1",
    "note": "'paid'",
    "changed": "'[]'",
    "key_version": "5",
    "sealed_by": "2",
    "hash": "seal",
    "seal": "hash",
}
_RESOLVED = "(SELECT n FROM journal WHERE verb = 'resolve')"


def broken(found: list[Finding]) -> list[tuple[int | None, str]]:
    return [(one.id, one.told) for one in found if one.check is Check.JOURNAL and one.fault]


@pytest.mark.parametrize("field", FIELDS)
def test_whatever_is_altered_in_an_entry_is_found(story: Database, field: str) -> None:
    assert FIELDS.keys() == set(journal.c.keys()) - {"n"}
    (n,) = [one[0] for one in chain(story) if one[2] == "resolve"]
    assert altered(story, f"UPDATE journal SET {field} = {FIELDS[field]} WHERE n = {n}")
    assert broken(altered(story, f"UPDATE journal SET {field} = {FIELDS[field]} WHERE n = {n}"))


def chain(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        return [tuple(one) for one in connection.execute(text("SELECT * FROM journal ORDER BY n"))]


def test_an_entry_that_is_taken_out_is_found_wherever_it_stood(story: Database) -> None:
    assert broken(altered(story, "DELETE FROM journal WHERE n IN (3, 4)")) == [
        (5, "entry 5: before it entries 3 to 4 are gone")
    ]
    assert broken(altered(story, "DELETE FROM journal WHERE n = 1")) == [(2, "entry 2: before it entry 1 is gone")]
    moved_up = ["DELETE FROM journal WHERE n = 7", "UPDATE journal SET n = 7 WHERE n = 8"]
    assert [n for n, _ in broken(altered(story, *moved_up))] == [7]


def test_entries_that_change_places_are_found(story: Database) -> None:
    swap = [f"UPDATE journal SET n = {new} WHERE n = {old}" for old, new in ((3, 99), (4, 3), (99, 4))]
    assert [n for n, _ in broken(altered(story, *swap))][:2] == [3, 4]


def test_seals_that_are_taken_off_the_first_entries_are_found(story: Database) -> None:
    """They are not taken for those that an upgrade has chained without the key."""
    assert broken(altered(story, "UPDATE journal SET sealed_by = NULL, seal = NULL WHERE n <= 2"))


def test_page_by_page_the_same_is_found(story: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.store.journal._PAGE", 2)
    monkeypatch.setattr("dispatcher.store.proof.walk.PAGE", 2)
    found, seen = audited(story)
    assert found == []
    assert (seen.rows[Check.JOURNAL], seen.statuses.total(), seen.absent) == (8, 9, 0)
    assert (seen.rows[Check.ATTEMPTS], seen.head) == (21, read_head(story))
    assert broken(altered(story, "DELETE FROM journal WHERE n = 5")) == [(6, "entry 6: before it entry 5 is gone")]
    for key, count in (("2", 4), ("3", 5), ("4", 5), ("5", 4), ("1", 1), ("6", 2)):
        gone = altered(story, f"DELETE FROM deliveries WHERE key = '{key}'")
        orphans = [one.told for one in gone if one.check is Check.ORPHANS]
        assert orphans == [f"{count} attempts of a delivery that is not there"]


def test_an_operator_that_was_removed_has_its_entry(story: Database) -> None:
    declare(story, [], ["acme"], "file", ("set", "ada"), NOW + MINUTE)
    assert faults(story) == set()
    assert chain(story)[-1][2:5] == ("remove", "ada", "acme")
    (found,) = altered(story, "DELETE FROM journal WHERE n = 9")
    assert (found.check, found.operator) == (Check.OPERATORS, "acme")


def test_an_entry_that_nobody_sealed_is_found(story: Database) -> None:
    """As well as one can make it who has not the key: with the right hash."""
    last = read_head(story)
    forged = Noted(last.n + 1, NOW, "resolve", "ada", "acme", "notice", "5", 1, "paid", None, None, None)
    insertion = (
        "INSERT INTO journal (n, at, verb, actor, operator, type, key, delivery_id, note, hash, sealed_by, seal)"
    )
    blob = "x'{}'" if story.engine.dialect.name == "sqlite" else "decode('{}', 'hex')"
    for sealed_by, seal, why in (
        (None, "NULL", "it has no seal: it was not made by the dispatcher"),
        (1, blob.format("00" * 32), "its seal is wrong: who wrote it had not the key"),
    ):
        made = forged._replace(sealed_by=sealed_by)
        values = ", ".join("NULL" if one is None else repr(one) for one in made[:9])
        hashed = blob.format(digest(made, last.hash).hex())
        statement = f"{insertion} VALUES ({values}, {hashed}, {sealed_by or 'NULL'}, {seal})"
        assert broken(altered(story, statement)) == [(made.n, f"entry {made.n}: {why}")]


def test_a_chain_that_is_made_again_without_the_key_is_found(story: Database) -> None:
    rows = chain(story)
    before, statements = b"", []
    blob = "x'{}'" if story.engine.dialect.name == "sqlite" else "decode('{}', 'hex')"
    for one in rows:
        noted = Noted._make([*one[:11], one[12]])
        noted = noted._replace(note="nothing to see") if noted.verb == "resolve" else noted
        before = digest(noted, before)
        note = "NULL" if noted.note is None else f"'{noted.note}'"
        statements.append(f"UPDATE journal SET note = {note}, hash = {blob.format(before.hex())} WHERE n = {noted.n}")
    found = broken(altered(story, *statements))
    assert [why.partition(": ")[2] for _, why in found] == ["its seal is wrong: who wrote it had not the key"] * 3
    assert [n for n, _ in found] == [6, 7, 8]
    unsealed = [*statements, "UPDATE journal SET sealed_by = NULL, seal = NULL", "DELETE FROM journal_keys"]
    assert broken(altered(story, *unsealed))


def test_an_end_that_was_cut_off_is_found_by_a_head_that_was_noted(story: Database) -> None:
    number, _, beginning = str(read_head(story)).partition(":")
    noted = Scope(heads=[(int(number), beginning)])
    assert faults(story, noted) == set()
    bury(story, 20, now=NOW + 3 * DAY)
    ledger.resolve(story, [row(story, 20)], "ada", "agreed", NOW + 4 * DAY)
    assert faults(story, noted) == set(), "it grows behind it"
    cut = "DELETE FROM journal WHERE n >= 8"
    assert broken(altered(story, cut)) == []
    ((n, why),) = broken(altered(story, cut, scope=noted))
    assert (n, "was noted once, is not in it" in why) == (8, True)
    other = Scope(heads=[(8, "0" * 16)])
    assert faults(story, other) == {Check.JOURNAL}


def test_without_its_key_the_journal_is_not_taken_for_proved(story: Database) -> None:
    assert broken(altered(story, "DELETE FROM journal_keys")) == [
        (None, "8 entries can't be proved: key 1 of the journal is gone")
    ]
    stolen = "UPDATE journal_keys SET locked = 'ab12cd34.AAAA'"
    assert "8 entries can't be proved" in broken(altered(story, stolen))[0][1]


# The key, and where the journal goes.


def proved(database: Database) -> tuple[int, list[tuple[int | None, str]]]:
    """How many entries there are, and what is wrong with them."""
    found, seen = audited(database)
    return seen.rows[Check.JOURNAL], broken(found)


def test_under_another_master_key_every_seal_holds_and_new_ones_too(story: Database) -> None:
    old, new = MasterKey.parse("ab" * 32), MasterKey.fresh()
    head = read_head(story)
    both = Vault(new, old)
    assert relock(story, both, "ada", NOW) == (
        0,
        0,
        0,
        {"acme": "it is no sealed text, or was cut off; put back what stood there, or set it anew"},
    )
    assert proved(story) == (9, [])
    story.notary = Notary(Vault(new).lock, Vault(new).unlock)
    assert proved(story) == (9, []), "the old master key is of no use any more"
    operators.start(story, "acme", "paused_at", ("resume", "eve", None), NOW)
    assert proved(story) == (10, [])
    assert audited(story, Scope(heads=[(head.n, head.hash.hex()[:16])]))[0] == []
    with story.reading() as connection:
        told = connection.execute(text("SELECT verb, actor, note FROM journal WHERE n = 9")).one()
    assert tuple(told) == ("reencrypt", "ada", f"under master key {new.key_id}")


def test_with_a_lost_master_key_the_journal_goes_on_and_says_so(story: Database) -> None:
    vault = Vault(MasterKey.fresh())
    story.notary = Notary(vault.lock, vault.unlock)
    with pytest.raises(Refused, match=r"the journal's key can't be opened: it is sealed .* apply --lost-key"):
        operators.start(story, "acme", "paused_at", ("resume", "eve", None), NOW)
    assert "8 entries can't be proved" in proved(story)[1][0][1]
    story.notary = Notary(vault.lock, vault.unlock, lost_key=True)
    operators.start(story, "acme", "paused_at", ("resume", "eve", None), NOW)
    assert [one[2] for one in chain(story)][-2:] == ["new_key", "resume"]
    assert proved(story) == (10, [])
    ((remark,),) = [[one.told for one in audited(story)[0]]]
    assert remark.startswith("8 entries can't be proved: key 1 of the journal can't be opened: it is sealed under")
    later = [n for n, _ in broken(altered(story, f"UPDATE journal SET note = 'x' WHERE n = {3}"))]
    assert later == [3], "what stood before is chained all the same"


def test_a_copy_has_the_journal_as_it_was(tmp_path: Path) -> None:
    with apart(STORES.current, tmp_path, "here") as here, apart(STORES.current, tmp_path, "there") as there:
        source, target = open_store(here), open_side(there, create=True)
        told(source)
        before, head = chain(source), read_head(source)
        with source.writing() as connection:
            connection.execute(text("DELETE FROM workers"))
        target.notary = notary()
        copy(source, target, NOW + 5 * DAY, lambda _done, _all: None, "ada")
        assert chain(target)[:-1] == before
        assert chain(target)[-1][2:4] == ("copy", "ada")
        assert audited(target, Scope(heads=[(head.n, head.hash.hex())]))[0] == []
        gone = ["DELETE FROM attempts WHERE " + _ITS.format(6), "DELETE FROM deliveries WHERE key = '6'"]
        assert altered(target, *gone) == [], "what was copied may have had its gaps"
        source.close()
        target.close()


def test_two_who_note_at_once_make_one_chain(story: Database) -> None:
    """Each a connection of its own: between looking at the head and adding to it nobody else gets in."""
    doors = [open_store(story.place) for _ in range(4)]

    def note(door: Database, who: int) -> None:
        for _ in range(25):
            with door.writing() as connection:
                append(connection, door.notary, [Entry("set", f"hand {who}", operator="bolt")] * 3, NOW)

    hands = [threading.Thread(target=note, args=(door, who)) for who, door in enumerate(doors)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join(60)
    for door in doors:
        door.close()
    assert proved(story) == (8 + 4 * 25 * 3, [])
    assert {one[3] for one in chain(story)[8:]} == {f"hand {who}" for who in range(4)}


@contextmanager
def of_before(tmp_path: Path) -> Iterator[Database]:
    """A store of schema 0002, with what was done by hand then."""
    with apart(STORES.current, tmp_path, "old") as place:
        old, _ = reach(place, create=True)
        with old.writing() as connection:
            migrate(connection, "0002")
            digest = {"digest": bytes(16)}
            for statement in (
                "INSERT INTO deliveries (id, operator, type, key, uid, body, digest, status, accepted_at, due_at)"
                f" VALUES (5, 'acme', 'notice', '1', 'p', '{{}}', :digest, 'pending', {NOW}, {NOW})",
                "INSERT INTO actions (id, delivery_id, at, verb, actor, note)"
                f" VALUES (1, 5, {NOW + 2}, 'resolve', 'ada', '说好')",
                f"INSERT INTO actions (id, delivery_id, at, verb, actor) VALUES (2, 5, {NOW + 3}, 'replay', 'ada')",
                f"INSERT INTO operator_actions (id, operator, at, verb, actor) VALUES (1, 'acme', {NOW}, 'set', 'eve')",
                "INSERT INTO operator_actions (id, operator, at, verb, actor)"
                f" VALUES (2, 'acme', {NOW + 3}, 'pause', 'eve')",
            ):
                connection.execute(text(statement), digest if ":digest" in statement else {})
        old.close()
        upgrade(place)
        database = open_store(place)
        yield database
        database.close()


def test_what_was_done_before_is_chained_at_the_upgrade_and_sealed_at_the_first_start(tmp_path: Path) -> None:
    with of_before(tmp_path) as database:
        assert [(one[2], one[3], one[4], one[6]) for one in chain(database)] == [
            ("set", "eve", "acme", None),
            ("resolve", "ada", "acme", "1"),
            ("replay", "ada", "acme", "1"),
            ("pause", "eve", "acme", None),
            ("upgrade", "dispatcher", None, None),
        ]
        assert [one["note"] for one in ledger.history(database, 5)[1]] == ["说好", None]
        told = "it is chained but not sealed yet: start the daemon once, then note the head"
        assert proved(database) == (5, [(None, told)])
        for _ in range(2):
            assert database.notary is not None
            begin(database, NOW)
        assert proved(database) == (6, [])
        remarks = [(one.id, one.told) for one in audited(database)[0] if not one.fault]
        assert remarks == [(6, "entries 1 to 5 are sealed by entry 6: what was altered before, nobody knows")]
        for n in range(1, 6):
            assert broken(altered(database, f"UPDATE journal SET at = at + 1 WHERE n = {n}"))
        operators.stop(database, "acme", "held_at", ("hold", "breaker", None), NOW)


@pytest.mark.sqlite_only
def test_a_store_without_acts_of_before_has_no_journal(tmp_path: Path) -> None:
    old, _ = reach(tmp_path / "old.db", create=True)
    with old.writing() as connection:
        migrate(connection, "0002")
    old.close()
    upgrade(tmp_path / "old.db")
    database = open_store(tmp_path / "old.db")
    assert (chain(database), proved(database)) == ([], (0, []))
    database.close()


# The command.


class Office:
    """A store of a configuration, and the command."""

    def __init__(self, folder: Path) -> None:
        self.config = configuration(folder, "acme")
        self.place = STORES.place(folder)

    def call(self, *words: str) -> Any:
        return CliRunner().invoke(main, [*words, "-c", str(self.config)])

    def audit(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.call("audit", "--json", *words)
        return done.exit_code, json.loads(done.stdout)

    def write(self, statement: str) -> None:
        database = open_database(self.place)
        with database.writing() as connection:
            connection.execute(text(statement))
        database.close()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    office = Office(tmp_path)
    assert office.call("operators", "apply").exit_code == 0
    assert office.call("operators", "pause", "acme", "--note", "maintenance").exit_code == 0
    return office


def test_the_command_tells_the_checks_and_the_head(office: Office) -> None:
    status, told = office.audit()
    assert (status, told["ok"], told["faults"], told["findings"]) == (0, True, 0, [])
    assert [one["check"] for one in told["checks"]] == list(Check)
    done = office.call("audit", "--lang", "zh")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"操作日志末端，请另行记录: {told['head']}")
    assert office.audit("--head", told["head"])[0] == 0
    assert office.call("audit", "--head", "7").exit_code == 2
    office.call("operators", "resume", "acme")
    office.write("DELETE FROM journal WHERE n = 3")
    assert office.audit("--head", told["head"])[0] == 1
    assert office.audit("--head", "3:00000000")[1]["findings"][0]["id"] == 3


def test_the_command_says_what_is_wrong_and_counts_the_rest(office: Office) -> None:
    office.write(
        "INSERT INTO deliveries (operator, type, key, uid, body, digest, status, accepted_at, due_at, attempts)"
        f" SELECT 'acme', 'notice', name, 'p', '{{}}', digest, 'pending', {NOW}, {NOW}, 1"
        f" FROM ({' UNION ALL '.join(f'SELECT CAST({one} AS text) AS name' for one in range(50))}) AS names,"
        " (SELECT hash AS digest FROM journal WHERE n = 1) AS digests"
    )
    done = office.call("audit", "--lang", "en")
    assert done.exit_code == 1
    assert "attempts: acme notice 0 (id 1): it counts 1 ended attempts, and has those of number none" in done.stderr
    assert done.stderr.splitlines()[-1] == "… 60 more; all of them: --json"
    status, told = office.audit()
    assert (status, told["faults"], len(told["findings"])) == (1, 100, 100)
    assert {one["check"]: one["faults"] for one in told["checks"] if one["faults"]} == {"attempts": 50, "content": 50}
    assert 'no operator bolt; write "acme"' in office.call("audit", "--operator", "bolt").stderr
    assert office.call("operators", "set", "bolt", "callback_url=https://bolt.example").exit_code == 0
    assert office.audit("--operator", "bolt")[0] == 0
    assert office.audit("--since", "2h")[0] == 0


def test_the_journal_says_which_settings_were_changed_and_never_what_they_are(office: Office) -> None:
    first = office.call("operators", "set", "coin", "callback_url=https://coin.example", "concurrency=3")
    assert first.exit_code == 0, first.output
    assert office.call("operators", "set", "coin", "concurrency=4", "callback_url=https://other.example").exit_code == 0
    shown = json.loads(office.call("operators", "show", "coin", "--json").stdout)
    assert [one["changed"] for one in shown["actions"]][1] == ["callback_url", "concurrency"]
    table = office.call("operators", "show", "coin", "--lang", "en").stdout
    assert "callback_url, concurrency" in table
    assert "other.example" not in str(shown["actions"])
