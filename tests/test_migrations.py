"""Stores of earlier versions: how they are told, refused, and brought up without losing a row."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

import dispatcher
from dispatcher.ground.errors import Outdated, Refused
from dispatcher.ground.place import Place, Server
from dispatcher.store.databases.sqlite import WorkerLock
from dispatcher.store.engine import open_database, reach
from dispatcher.store.migrate import alembic_config, migrate, upgrade
from dispatcher.store.moving.mark import Mark, State, set_mark
from dispatcher.store.schema import REVISION
from dispatcher.store.version import FIRST, OURS
from tests import nursery
from tests.desk import Desk
from tests.ground import NOW
from tests.stores import STORES, apart
from tests.story import orders
from tests.workshop import accept, adopt, row, settle, settled, take

BEFORE_REVISIONS = Path(__file__).with_name("store_of_schema_2.sql").read_text("utf-8")


@pytest.fixture
def place(store: str, tmp_path: Path) -> Iterator[Place]:
    """Where no store is yet."""
    with apart(STORES.current, tmp_path, "old") as place:
        yield place


@contextmanager
def inside(place: Place) -> Iterator[Connection]:
    """A transaction on a store of whatever revision."""
    database, _ = reach(place, create=True)
    try:
        with database.writing() as connection:
            yield connection
    finally:
        database.close()


def make_first(place: Place) -> None:
    with inside(place) as connection:
        migrate(connection, FIRST)


def make_numbered(place: Place) -> None:
    """As stores were made before there were revisions."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(place)) as connection:
            connection.executescript(BEFORE_REVISIONS)
        return
    make_first(place)
    with inside(place) as connection:
        connection.execute(text("DROP TABLE dispatcher_revision"))
        connection.execute(text("CREATE TABLE dispatcher_schema (version integer PRIMARY KEY)"))
        connection.execute(text("INSERT INTO dispatcher_schema VALUES (2)"))


def shape(place: Place) -> dict[str, Any]:
    """All that makes the tables of a store what they are; not the order of columns, which no statement relies on."""
    with inside(place) as connection, warnings.catch_warnings():
        # An index of an expression, which `_texts` has.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection")
        seen = inspect(connection)
        return {table: {**_shape(seen, table), **_texts(connection, table)} for table in seen.get_table_names()}


def _shape(seen: Any, table: str) -> dict[str, Any]:
    return {
        "columns": {
            one["name"]: (repr(one["type"]), one["nullable"], one["default"]) for one in seen.get_columns(table)
        },
        "key": seen.get_pk_constraint(table),
        "unique": sorted(map(str, seen.get_unique_constraints(table))),
        "refers": sorted(map(str, seen.get_foreign_keys(table))),
        "checks": {one["name"]: one["sqltext"] for one in seen.get_check_constraints(table)},
        "options": seen.get_table_options(table),
    }


def _texts(connection: Connection, table: str) -> dict[str, Any]:
    """Each index as its database would make it again; and what a server was told of the table."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :table"
        return {"indexes": dict(map(tuple, connection.execute(text(query), {"table": table})))}
    schema = connection.scalar(text("SELECT current_schema()"))
    query = (
        "SELECT indexname, replace(indexdef, concat(schemaname, '.'), '') FROM pg_indexes"
        " WHERE schemaname = :schema AND tablename = :table"
    )
    told = text("SELECT reloptions FROM pg_class WHERE oid = to_regclass(:table)")
    return {
        "indexes": dict(map(tuple, connection.execute(text(query), {"schema": schema, "table": table}))),
        "told": connection.scalar(told, {"table": table}),
    }


# One chain, whose newest link is what this version makes.


@pytest.mark.each_store
def test_a_store_that_was_brought_up_is_like_one_that_is_made_fresh(place: Place, tmp_path: Path) -> None:
    make_first(place)
    upgrade(place)
    with apart(STORES.current, tmp_path, "fresh") as fresh:
        open_database(fresh).close()
        made = shape(fresh)
        with inside(fresh) as connection, inside(place) as brought:
            assert rows(brought, {"locks": ["id"]}) == rows(connection, {"locks": ["id"]})
    assert made.keys() > OURS
    assert "pending" in str(made["deliveries"]["indexes"]["due"])
    assert "status_is_known" in made["deliveries"]["checks"]
    assert shape(place) == made


def test_a_file_of_before_revisions_is_of_the_first_one(tmp_path: Path) -> None:
    make_numbered(tmp_path / "numbered.db")
    make_first(tmp_path / "first.db")
    numbered, first = shape(tmp_path / "numbered.db"), shape(tmp_path / "first.db")
    del first["dispatcher_revision"]
    assert numbered == first


def test_the_newest_revision_is_the_one_that_this_version_works_with() -> None:
    chain = ScriptDirectory.from_config(alembic_config())
    assert chain.get_current_head() == REVISION
    numbers = [one.revision for one in chain.walk_revisions()]
    assert numbers == [f"{number:04}" for number in range(len(numbers), 0, -1)]


def test_the_revisions_are_in_the_package() -> None:
    root = Path(dispatcher.__file__).parent
    folders = {file.parent for file in root.rglob("*.py")}
    assert root / "store" / "migrations" / "versions" in folders
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


# Bringing up.


def fill(connection: Connection) -> None:
    """What a store of the first revision can hold."""
    told = {"no": False, "yes": True, "digest": bytes(range(32)), "at": NOW}
    for statement in (
        "INSERT INTO operators (name, origin, settings, revision, updated_at, paused_at, closed_since)"
        " VALUES ('acme', 'file', 'k.locked', 7, :at, :at, :at)",
        "INSERT INTO operator_actions (operator, at, verb, actor, note) VALUES ('acme', :at, 'pause', '运营', NULL)",
        "INSERT INTO key_versions (operator, version, fingerprint, since) VALUES ('acme', 1, 'ab12', :at)",
        "INSERT INTO deliveries (operator, type, key, uid, body, digest, bearer, sequence, in_line, status,"
        " accepted_at, due_at) VALUES ('acme', 'notice', '1', 'p', '{\"business\":\"Spin投入\"}', :digest, 'k.token',"
        " 'p', :yes, 'pending', :at, :at)",
        "INSERT INTO deliveries (operator, type, key, uid, body, digest, status, accepted_at, attempts, token,"
        " claimed_at) VALUES ('acme', 'notice', '2', 'p', '{}', :digest, 'sending', :at, 3, 9, :at)",
        "INSERT INTO deliveries (operator, type, key, uid, body, digest, status, accepted_at, attempts, run_from,"
        " finished_at, reason, ambiguous)"
        " VALUES ('acme', 'settle', '3', 'p', '{}', :digest, 'dead', :at, 4, 1, :at, 'read_timeout', :yes)",
        'INSERT INTO attempts (delivery_id, n, late, "trigger", started_at, http_status, ambiguous, response)'
        " SELECT id, 1, :no, 'first', :at, 500, :yes, '余额' FROM deliveries WHERE key = '3'",
        "INSERT INTO actions (delivery_id, at, verb, actor, note)"
        " SELECT id, :at, 'replay', 'me', 'said so' FROM deliveries WHERE key = '3'",
    ):
        connection.execute(text(statement), told)


def rows(connection: Connection, columns: dict[str, list[str]]) -> dict[str, list[Any]]:
    return {
        table: sorted(map(repr, connection.execute(text(f"SELECT {', '.join(names)} FROM {table}"))))
        for table, names in columns.items()
    }


@pytest.mark.each_store
@pytest.mark.parametrize("make", [make_first, make_numbered])
def test_every_row_of_the_oldest_store_stays_as_it_was(place: Place, make: Any) -> None:
    make(place)
    with inside(place) as connection:
        fill(connection)
        seen = inspect(connection)
        columns = {name: [f'"{one["name"]}"' for one in seen.get_columns(name)] for name in OURS}
        before = rows(connection, columns)
    assert all(before.values())
    done = upgrade(place)
    assert (done.before, done.after) == (FIRST, REVISION)
    with inside(place) as connection:
        assert rows(connection, columns) == before
    database = open_database(place)
    # What was under way is in nobody's hands.
    assert [one.claim.key for one in adopt(database, 0)] == ["2"]
    accept(database, 9)
    taken = take(database)
    settle(database, *(settled(claim, NOW) for claim in taken))
    assert {row(database, 9).status, row(database, 1).status} == {"delivered"}
    database.close()
    with inside(place) as connection:
        assert "dispatcher_schema" not in inspect(connection).get_table_names()
    assert upgrade(place).before == REVISION


@pytest.mark.each_store
def test_a_store_is_made_where_there_is_none(place: Place) -> None:
    assert upgrade(place)[:2] == (None, REVISION)
    open_database(place, create=False).close()


KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from dispatcher.ground.place import Server
from dispatcher.ground.secret import Secret
from pathlib import Path
from dispatcher.store.migrate import upgrade
event.listen(Engine, "commit", lambda connection: os.kill(os.getpid(), signal.SIGKILL))
place = sys.argv[1]
upgrade(Server(Secret(place), "there") if place.startswith("postgresql") else Path(place))
"""


@pytest.mark.each_store
def test_an_upgrade_that_is_killed_at_its_end_has_changed_nothing(place: Place) -> None:
    make_numbered(place)
    with inside(place) as connection:
        fill(connection)
    before = shape(place)
    address = place.url.reveal() if isinstance(place, Server) else str(place)
    done = nursery.run([sys.executable, "-c", KILLED, address])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert shape(place) == before
    assert upgrade(place).before == FIRST


@pytest.mark.each_store
def test_an_upgrade_that_fails_in_the_middle_has_changed_nothing(place: Place) -> None:
    def fail() -> None:
        with inside(place) as connection:
            migrate(connection, FIRST)
            connection.execute(text("SELECT nothing FROM nowhere"))

    with pytest.raises(DBAPIError):
        fail()
    assert shape(place) == {}


# Who is in the way.


@pytest.mark.each_store
def test_an_upgrade_waits_for_nobody_and_is_refused_while_a_worker_runs(place: Place) -> None:
    make_numbered(place)
    before = shape(place)
    with working(place):
        with pytest.raises(Refused, match=rf"process {os.getpid()}\b.*; .*stop that"):
            upgrade(place)
        assert shape(place) == before
        if isinstance(place, Server):
            assert upgrade(place, among_workers=True).live == [f"dispatcher: process {os.getpid()} on host"]


@contextmanager
def working(place: Place) -> Iterator[None]:
    """A worker of the first revision: on a server its session bears its name."""
    if isinstance(place, Path):
        lock = WorkerLock(place)
        lock.acquire()
        yield
        lock.release()
        return
    with inside(place) as connection:
        connection.execute(text(f"SET LOCAL application_name = 'dispatcher: process {os.getpid()} on host'"))
        yield


def test_a_worker_cannot_begin_while_the_schema_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "old.db"
    make_numbered(file)

    def meanwhile(_connection: Connection) -> None:
        WorkerLock(file).acquire()

    monkeypatch.setattr("dispatcher.store.migrate.migrate", meanwhile)
    with pytest.raises(Refused, match="already runs"):
        upgrade(file)


def test_a_store_that_is_being_copied_is_not_upgraded_meanwhile(tmp_path: Path) -> None:
    database = open_database(tmp_path / "one.db")
    with database.writing() as connection:
        set_mark(connection, database.place, Mark("1", State.LEAVING, "there", NOW))
    with pytest.raises(Refused, match="is being copied to there"):
        upgrade(tmp_path / "one.db")
    database.close()


# What every command says of a store that it does not work with.


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        desk.call("db", "upgrade")
        yield desk


OPENING = (
    ["run"],
    ["log"],
    ["show", "acme", "1"],
    ["dead", "list"],
    ["reencrypt"],
    ["web"],
    ["keys", "list"],
    ["keys", "create", "game", "--scope", "read"],
    ["db", "copy", "--to", "sqlite:////tmp/absent/other.db"],
)


def test_every_command_refuses_an_older_store_with_the_command_that_brings_it_up(desk: Desk) -> None:
    desk.change("UPDATE dispatcher_revision SET version_num = '0000'")
    before = desk.database.read_bytes()
    for words in (*OPENING, ["enqueue", desk.file(orders(1))]):
        status, out, err = desk.call(*words)
        assert (status, out) == (1, ""), words
        assert f"has schema 0000, this dispatcher works with {REVISION}; stop what works on it" in err
        assert err.endswith(f": dispatcher db upgrade -c {desk.config}\n"), words
    status, out, _ = desk.call("check", "--no-network", "--json")
    (fault,) = json.loads(out)["faults"]
    assert (status, fault["mend"].rpartition(": ")[2]) == (2, f"dispatcher db upgrade -c {desk.config}")
    assert desk.database.read_bytes() == before


def test_every_command_refuses_a_newer_store_and_says_which_of_the_two_is_older(desk: Desk) -> None:
    desk.change("UPDATE dispatcher_revision SET version_num = '9999'")
    before = desk.database.read_bytes()
    for words in (*OPENING, ["enqueue", desk.file(orders(1))], ["db", "upgrade"]):
        status, out, err = desk.call(*words)
        assert (status, out) == (1, ""), words
        assert "Error: this dispatcher is older than the store: " in err
    assert desk.database.read_bytes() == before


@pytest.mark.each_store
def test_a_store_of_before_revisions_is_worked_with_or_refused_as_the_first_one(place: Place) -> None:
    make_numbered(place)
    if REVISION == FIRST:
        open_database(place, create=False).close()
    else:
        with pytest.raises(Outdated, match=f"has schema {FIRST}"):
            open_database(place)


def test_no_command_but_the_upgrade_imports_alembic(desk: Desk) -> None:
    script = """
import sys
from dispatcher.cli import main
for words in (["log"], ["enqueue", sys.argv[2]], ["db", "status"]):
    main([*words, "-c", sys.argv[1]], standalone_mode=False) if words[0] != "enqueue" else None
import dispatcher.app, dispatcher.cli.run, dispatcher.cli.enqueue
assert "sqlalchemy" in sys.modules
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("alembic", "mako")))
"""
    given = [sys.executable, "-c", script, str(desk.config), str(desk.file(orders(1)))]
    done = subprocess.run(given, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


# What the commands print.


def test_upgrade_and_status_tell_what_was_done_and_what_there_is(desk: Desk) -> None:
    for file in desk.folder.glob("dispatcher.db*"):
        file.unlink()
    status, out, _ = desk.call("db", "status", "--json")
    told = json.loads(out)
    assert (status, told["state"], told["schema"], told["upgrade_due"]) == (0, "absent", None, False)
    assert not desk.database.exists()
    make_numbered(desk.database)
    told = json.loads(desk.call("db", "status", "--json")[1])
    assert (told["schema"], told["newest_schema"], told["upgrade_due"]) == (FIRST, REVISION, True)
    status, out, _ = desk.call("db", "upgrade", "--json")
    assert (status, json.loads(out)) == (
        0,
        {"database": str(desk.database), "from": FIRST, "to": REVISION, "live": []},
    )
    assert desk.call("db", "upgrade") == (0, f"{desk.database}: has schema {REVISION}, nothing to do\n", "")
    desk.enqueue(orders(3))
    told = json.loads(desk.call("db", "status", "--json")[1])
    assert (told["kind"], told["version"]) == ("sqlite", sqlite3.sqlite_version)
    assert (told["upgrade_due"], told["state"]) == (False, "in use")
    assert told["counts"] == {"pending": 3, "sending": 0, "delivered": 0, "dead": 0, "resolved": 0}
    assert told["bytes"] >= desk.database.stat().st_size
    out = desk.call("db", "status")[1]
    assert "upgrade due: no\n" in out
    assert "counts: 3 pending, 0 sending" in out


@pytest.mark.each_store
def test_status_tells_of_a_store_on_a_server_without_its_password(place: Place, tmp_path: Path) -> None:
    if not isinstance(place, Server):
        return
    open_database(place).close()
    with Desk(tmp_path) as desk:
        desk.tables["database"] = {}
        desk.set("database", url=place.url.reveal().replace("postgres@", "postgres:geheim@"))
        status, out, err = desk.call("db", "status", "--json")
        assert status == 0, err
        told = json.loads(out)
        assert "geheim" not in out
        assert (told["kind"], told["schema"], told["bytes"] > 0) == ("postgresql", REVISION, True)
        assert told["database"].startswith("postgresql://postgres@/")
