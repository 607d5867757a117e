"""Who is let in is held against the journal: no key of the API, and no account, is made or altered behind its back."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import insert

from dispatcher.ground.account import Account, Role
from dispatcher.ground.apikey import ApiKey, Scope
from dispatcher.ground.clock import HOUR
from dispatcher.store.accounts import change_account, create_account
from dispatcher.store.engine import Database
from dispatcher.store.journal import Entry, append
from dispatcher.store.keys import create_key, revoke_key
from dispatcher.store.proof.access import mark
from dispatcher.store.proof.proofs import Check
from dispatcher.store.schema import accounts, api_keys
from tests.ground import NOW
from tests.test_audit import Office, altered, audited, chain

pytestmark = pytest.mark.each_store

KEY, ACCOUNT = Check.API_KEYS, Check.ACCOUNTS
GAME = ApiKey("0123456789ab", "game", b"g" * 32, frozenset({Scope.ENQUEUE}), "acme", 50, NOW)
OLD = ApiKey("ba9876543210", "old", b"o" * 32, frozenset({Scope.READ, Scope.ADMIN}), None, None, NOW)
ADA = Account("ada", Role.ADMIN, None, "scrypt$ada", NOW, NOW)
BOB = Account("bob@acme", Role.OPERATOR, "acme", "scrypt$bob", NOW, NOW)
EVE = Account("eve", Role.SUPPORT, None, "scrypt$eve", NOW, NOW)


def told(database: Database) -> None:
    """Two keys, one of them revoked; an admin with a second password, one back from being disabled, one disabled."""
    for key in (GAME, OLD):
        create_key(database, key, "ada")
    revoke_key(database, "old", "ada", NOW + 1)
    for account in (ADA, BOB, EVE):
        create_account(database, account, "root")
    change_account(database, "ada", "ada", NOW + 2, password="scrypt$new")
    for disabled in (True, False):
        change_account(database, "bob@acme", "ada", NOW + 3 + (not disabled), disabled=disabled)
    change_account(database, "eve", "ada", NOW + 5, password="scrypt$none", disabled=True)


def test_what_was_made_and_changed_by_the_dispatcher_stands(database: Database) -> None:
    told(database)
    found, seen = audited(database)
    assert found == []
    assert (seen.rows[KEY], seen.rows[ACCOUNT]) == (2, 3)


def test_the_journal_has_no_hash_of_a_key_and_no_verifier_of_a_password(database: Database) -> None:
    told(database)
    written = str(chain(database))
    for secret in ("g" * 32, (b"g" * 32).hex(), (b"o" * 32).hex(), "scrypt"):
        assert secret not in written


# Every table's columns, as somebody makes them who has only the database.
_KEY_ROW = "INSERT INTO api_keys (id, name, hash, scopes, created_at) SELECT 'aaaaaaaaaaaa', 'x', hash, 'admin', 5"
_ACCOUNT_ROW = "INSERT INTO accounts (name, role, password, created_at, changed_at)"

ALTERED: Mapping[str, tuple[Check, str, str]] = {
    "a key slipped in": (KEY, "nobody who made this key", f"{_KEY_ROW} FROM api_keys WHERE name = 'old'"),
    "a key taken out": (KEY, "this key was made, and it is not there", "DELETE FROM api_keys WHERE name = 'old'"),
    "a key renamed": (KEY, "nobody who made", "UPDATE api_keys SET name = 'x' WHERE name = 'old'"),
    "a wider scope": (KEY, "it opens '0123456789ab: admin, for acme", "UPDATE api_keys SET scopes = 'admin'"),
    "a scope more": (KEY, "it opens", "UPDATE api_keys SET scopes = 'enqueue read' WHERE name = 'game'"),
    "a scope that is none": (KEY, "it opens", "UPDATE api_keys SET scopes = 'everything' WHERE name = 'game'"),
    "bound to nobody": (KEY, "for every operator", "UPDATE api_keys SET operator = NULL WHERE name = 'game'"),
    "bound to another": (KEY, "for bolt alone", "UPDATE api_keys SET operator = 'bolt' WHERE name = 'game'"),
    "a higher rate": (KEY, "5000 a second", "UPDATE api_keys SET rate = 5000 WHERE name = 'game'"),
    "no rate of its own": (KEY, "web.rate a second", "UPDATE api_keys SET rate = NULL WHERE name = 'game'"),
    "a rate of nothing": (KEY, "0 a second", "UPDATE api_keys SET rate = 0 WHERE name = 'old'"),
    "another id": (KEY, "it opens", "UPDATE api_keys SET id = 'aaaaaaaaaaaa' WHERE name = 'game'"),
    "another secret": (KEY, "another one opens", "UPDATE api_keys SET hash = accounts_hash"),
    "valid again": (KEY, "was revoked, and it is in force", "UPDATE api_keys SET revoked_at = NULL WHERE name = 'old'"),
    "revoked by nobody": (KEY, "nobody who did that", "UPDATE api_keys SET revoked_at = 5 WHERE name = 'game'"),
    "revoked later": (KEY, "revoked at another", f"UPDATE api_keys SET revoked_at = {NOW + 2} WHERE name = 'old'"),
    "made at another time": (KEY, "made at another time", "UPDATE api_keys SET created_at = 5 WHERE name = 'old'"),
    "an admin slipped in": (
        ACCOUNT,
        "mallory: the journal has nobody",
        f"{_ACCOUNT_ROW} VALUES ('mallory', 'admin', 'scrypt$', 5, 5)",
    ),
    "an account taken out": (
        ACCOUNT,
        "eve: the journal says that this account was made",
        "DELETE FROM accounts WHERE name = 'eve'",
    ),
    "an account renamed": (ACCOUNT, "nobody who made this", "UPDATE accounts SET name = 'x' WHERE name = 'eve'"),
    "a higher role": (
        ACCOUNT,
        "admin, and the journal says support",
        "UPDATE accounts SET role = 'admin' WHERE name = 'eve'",
    ),
    "an operator's made an admin": (
        ACCOUNT,
        "its role is admin, and the journal says operator for acme",
        "UPDATE accounts SET role = 'admin', operator = NULL WHERE name = 'bob@acme'",
    ),
    "another operator's": (
        ACCOUNT,
        "operator for bolt",
        "UPDATE accounts SET operator = 'bolt' WHERE name = 'bob@acme'",
    ),
    "another password": (
        ACCOUNT,
        "bob@acme: its password",
        "UPDATE accounts SET password = 'mine' WHERE name = 'bob@acme'",
    ),
    "the password of before": (
        ACCOUNT,
        "its password",
        "UPDATE accounts SET password = 'scrypt$ada' WHERE name = 'ada'",
    ),
    "another's password": (
        ACCOUNT,
        "its password is not",
        "UPDATE accounts SET password = (SELECT a.password FROM accounts a WHERE a.name = 'eve') WHERE name = 'ada'",
    ),
    "enabled by nobody": (
        ACCOUNT,
        "was disabled, and it is in",
        "UPDATE accounts SET disabled_at = NULL WHERE name = 'eve'",
    ),
    "disabled by nobody": (ACCOUNT, "nobody who did that", "UPDATE accounts SET disabled_at = 5 WHERE name = 'ada'"),
    "disabled later": (ACCOUNT, "disabled at another time", "UPDATE accounts SET disabled_at = 5 WHERE name = 'eve'"),
    "changed at another time": (ACCOUNT, "at another time", "UPDATE accounts SET changed_at = 5 WHERE name = 'ada'"),
    "an account made earlier": (ACCOUNT, "at another time", "UPDATE accounts SET created_at = 5 WHERE name = 'ada'"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_was_altered_past_the_dispatcher_is_found_and_named(database: Database, what: str) -> None:
    check, words, statement = ALTERED[what]
    told(database)
    swapped = statement.replace("accounts_hash", "(SELECT k.hash FROM api_keys k WHERE k.name = 'old')")
    found = altered(database, swapped)
    assert {one.check for one in found} == {check}
    assert all(one.fault for one in found)
    assert any(words in one.told for one in found), found
    assert audited(database)[0] == [], "and nothing of it was kept"


def test_an_entry_for_what_was_slipped_in_is_found_by_the_chain(database: Database) -> None:
    """As one would write it who has not the journal's key."""
    told(database)
    note = f"'mallory: role admin, password {mark(b'scrypt$')}'"
    found = altered(
        database,
        f"{_ACCOUNT_ROW} VALUES ('mallory', 'admin', 'scrypt$', 5, 5)",
        f"INSERT INTO journal (n, at, verb, actor, note, hash) SELECT n + 1, 5, verb, 'root', {note}, hash FROM journal"
        " WHERE n = (SELECT max(n) FROM journal)",
    )
    assert {one.check for one in found} == {Check.JOURNAL}


# Stores of a dispatcher whose journal had no marks.


@pytest.fixture
def of_before(database: Database) -> Database:
    """A key, a revoked one, an account, one with another password that is disabled: as they were noted then."""
    rows = [one._asdict() | {"scopes": " ".join(sorted(one.scopes))} for one in (GAME, OLD)]
    rows[1]["revoked_at"] = NOW + HOUR
    noted = [
        (Entry("create_key", "ada", "0123456789ab: enqueue, for acme alone, 50 a second", key="game"), NOW),
        (Entry("create_key", "ada", "ba9876543210: admin read, for every operator, web.rate a second", key="old"), NOW),
        (Entry("account", "root", "ada: role admin"), NOW),
        (Entry("account", "root", "bob@acme: role operator for acme"), NOW),
        (
            Entry("revoke_key", "ada", "ba9876543210: admin read, for every operator, web.rate a second", key="old"),
            None,
        ),
        (Entry("account", "ada", "bob@acme: new password"), None),
        (Entry("account", "ada", "bob@acme: disabled"), None),
    ]
    with database.writing() as connection:
        connection.execute(insert(api_keys), rows)
        changed = BOB._replace(password="scrypt$b", changed_at=NOW + HOUR, disabled_at=NOW + HOUR)
        connection.execute(insert(accounts), [ADA._asdict(), changed._asdict()])
        for entry, at in noted:
            append(connection, database.notary, [entry], NOW + HOUR if at is None else at)
    return database


def test_what_an_older_dispatcher_noted_is_no_false_alarm_and_one_remark_says_what_it_can_not_prove(
    of_before: Database,
) -> None:
    found, _ = audited(of_before)
    assert [(one.check, one.fault, one.told.rpartition(": ")[2]) for one in found] == [
        (KEY, False, "game; revoke them, and make others"),
        (ACCOUNT, False, "ada, bob@acme; give them a new one"),
    ]


@pytest.mark.parametrize("what", [one for one in ALTERED if "eve" not in str(ALTERED[one])])
def test_of_what_an_older_dispatcher_noted_all_is_found_but_an_exchanged_secret(of_before: Database, what: str) -> None:
    check, words, statement = ALTERED[what]
    swapped = statement.replace("accounts_hash", "(SELECT k.hash FROM api_keys k WHERE k.name = 'old')")
    faults = [one for one in altered(of_before, swapped) if one.fault]
    if "secret" in what or "password" in what:
        assert faults == []
    else:
        assert any(one.check is check and words in one.told for one in faults), faults


def test_the_remark_ends_with_a_new_password_and_with_the_key(of_before: Database) -> None:
    change_account(of_before, "ada", "ada", NOW + 2 * HOUR, password="scrypt$newer")
    revoke_key(of_before, "game", "ada", NOW + 2 * HOUR)
    (remark,) = audited(of_before)[0]
    assert "bob@acme" in remark.told
    assert "ada" not in remark.told
    exchanged = [one for one in altered(of_before, "UPDATE accounts SET password = 'mine'") if one.fault]
    assert [one.told for one in exchanged] == ["ada: its password is not the one that was set"]


def test_of_very_many_without_a_mark_ten_are_named(database: Database) -> None:
    with database.writing() as connection:
        for n in range(30):
            key = GAME._replace(id=f"{n:012}", name=f"game-{n:02}", scopes=frozenset({Scope.READ}))
            connection.execute(insert(api_keys).values(key._asdict() | {"scopes": "read"}))
            note = f"{n:012}: read, for acme alone, 50 a second"
            append(connection, database.notary, [Entry("create_key", "ada", note, key=key.name)], NOW)
    (remark,) = audited(database)[0]
    assert remark.told.endswith("game-08, game-09 and 20 more; revoke them, and make others")


def test_page_by_page_the_same_is_found(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.store.proof.access._PAGE", 2)
    told(database)
    assert audited(database)[0] == []
    assert len(altered(database, "UPDATE accounts SET changed_at = 5")) == 3


@pytest.mark.sqlite_only
def test_the_command_names_an_admin_whom_nobody_made(tmp_path: Path) -> None:
    office = Office(tmp_path)
    assert office.call("operators", "apply").exit_code == 0
    office.write(f"{_ACCOUNT_ROW} VALUES ('mallory', 'admin', 'scrypt$', 5, 5)")
    done = office.call("audit", "--lang", "en")
    assert done.exit_code == 1
    assert "accounts: mallory: the journal has nobody who made this account" in done.stderr
    with_operator = office.call("audit", "--operator", "acme", "--lang", "en")
    assert with_operator.exit_code == 1, "whoever is let in is looked at whatever deliveries are"
