"""The PostgreSQL database: how it is reached, what is weather there, who may work on it, how its worker is woken."""

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import cast

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from dispatcher.errors import Contended, Refused, StoreUnavailable
from dispatcher.place import Server
from dispatcher.store.dialect import Alone, alone
from dispatcher.store.mark import MARKS, READ_MARK, mark_of
from dispatcher.store.schema import metadata
from dispatcher.store.version import FIRST, READ_REVISION, REVISIONS, Found, is_ours, of_number, stamp

# For jsonb's casts, and for what was looked at by its makers this decade.
OLDEST_POSTGRESQL = (12,)
READING = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

# What may pass by itself, by the beginning of its SQLSTATE: connection, authorization (a password is being changed),
# database missing, resources (disk, memory, connections), somebody stopped it, I/O, corruption, read-only, rights,
# locks; and serialization and deadlock, which trying again mends at once.
_WEATHER = ("08", "28", "3D", "53", "57", "58", "XX001", "XX002", "25006", "42501", "55")
_CONTENDED = ("40001", "40P01")
_LOCK_NOT_AVAILABLE = "55P03"

# The table that had a store's number before there were revisions.
_NUMBER = "dispatcher_schema"

# A commit that returned is on disk, whatever the server's settings say; the rest keeps a lost peer from holding us.
_SETTINGS = """
    SELECT set_config('lock_timeout', %s, false), set_config('jit', 'off', false),
           set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
                                                 THEN 'on' ELSE current_setting('synchronous_commit') END, false)
"""
_TABLES = text(
    """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    """
)


def open_engine(place: Server, patience: float) -> Engine:
    """Nothing is connected yet. Raises Refused for an address that can't be read."""
    url = make_url(place.url.reveal())
    given = {
        "application_name": "dispatcher",
        "connect_timeout": max(2, round(patience)),
        # A server that is gone without a word is noticed while something is under way, and while nothing is.
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    arguments = {name: value for name, value in given.items() if name not in url.query}
    # An error's text would show the parameters: events, players' tokens.
    engine = create_engine(url, connect_args=arguments, isolation_level="READ COMMITTED", hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _settings(connection: psycopg.Connection, _record: object) -> None:
        try:
            connection.execute(_SETTINGS, (str(max(1, int(patience * 1000))),))
            connection.commit()
        except psycopg.Error:
            connection.close()
            raise

    return engine


def weather(error: DBAPIError) -> StoreUnavailable | None:
    """What may pass by itself; None for a bug of ours, which trying again would not mend."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        passes = error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
        return StoreUnavailable(told(error)) if passes else None
    if state in _CONTENDED:
        return Contended(told(error))
    return StoreUnavailable(told(error)) if state.startswith(_WEATHER) else None


def told(error: DBAPIError) -> str:
    """The server's sentence alone, in one line: what it adds shows whole rows."""
    primary = error.orig.diag.message_primary if isinstance(error.orig, psycopg.Error) else None
    return " ".join((primary or str(error.orig)).split())


def found(connection: Connection, place: Server) -> Found:
    """What the schema holds. Raises Refused for a server that is too old, or another program's tables."""
    version = connection.dialect.server_version_info or ()
    if version < OLDEST_POSTGRESQL:
        there = ".".join(map(str, version))
        raise Refused(f"the database {place} is PostgreSQL {there}; the dispatcher needs {OLDEST_POSTGRESQL[0]}")
    tables = set(connection.scalars(_TABLES))
    if not tables:
        return Found(None)
    revision = connection.exec_driver_sql(READ_REVISION).scalar() if REVISIONS.name in tables else None
    if not is_ours(tables, revision or FIRST) or (revision is None and _NUMBER not in tables):
        mend = "name a database or a schema of its own in database.url"
        raise Refused(f"the database {place} holds another program's tables; {mend}")
    if revision is None:
        return of_number(place, connection.exec_driver_sql(f"SELECT version FROM {_NUMBER}").scalar_one())
    mark = connection.exec_driver_sql(READ_MARK).first() if MARKS.name in tables else None
    return Found(revision, mark=mark_of(tuple(mark)) if mark else None)


def make_tables(connection: Connection, place: Server) -> None:
    """All of them or none; another process that makes them at this moment has been waited for."""
    alone(connection, Alone.MAKE)
    if found(connection, place).revision is None:
        metadata.create_all(connection)
        stamp(connection)


def kind_and_version(connection: Connection) -> tuple[str, str]:
    return "postgresql", str(connection.exec_driver_sql("SHOW server_version").scalar_one())


def size(connection: Connection, _place: Server) -> int:
    """Bytes on the server's disk, indexes included."""
    size = "coalesce(sum(pg_total_relation_size(to_regclass(one))), 0)"
    wanted = text(f"SELECT {size} FROM unnest(CAST(:tables AS text[])) AS one")
    return int(connection.execute(wanted, {"tables": list(metadata.tables)}).scalar_one())


_CHANNEL = "dispatcher"


def ring(connection: Connection) -> None:
    connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")


class ServerPost:
    """The post of a database's one worker: a session of its own, which holds a lock and hears the bell.

    The server lets go of the lock when the session ends, however it ends; then the post is lost, and `heard` says so.
    """

    _LOCK = text("SELECT pg_advisory_lock(:work, hashtext(current_schema()))")
    _HOLDER = text(
        """
        SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.database = a.datid AND l.objsubid = 2
          AND l.classid = CAST(:work AS oid)
          AND l.objid = CAST(CAST(hashtext(current_schema()) AS bigint) & 4294967295 AS oid)
        """
    )

    def __init__(self, engine: Engine, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._engine = engine
        self._translated = translated
        self._session: Connection | None = None
        # The number that the server had for our last session.
        self._last: int | None = None
        # PostgreSQL keeps 63 bytes of it.
        self._name = f"dispatcher: process {os.getpid()} on {socket.gethostname()}"[:63]

    def take(self) -> None:
        self.leave()
        with self._translated():
            # A connection of our own, which goes back to no pool.
            session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            session.detach()
            try:
                self._take(session)
            except BaseException:
                session.close()
                raise
        self._session = session
        self._last = self._driver().info.backend_pid

    def _take(self, session: Connection) -> None:
        session.execute(text("SELECT set_config('application_name', :name, false)"), {"name": self._name})
        try:
            # It waits for as long as lock_timeout says: one that was killed this moment may not be gone yet.
            session.execute(self._LOCK, {"work": int(Alone.WORK)})
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            self._refuse(session)

    def _refuse(self, session: Connection) -> None:
        row = session.execute(self._HOLDER, {"work": int(Alone.WORK)}).first()
        if row is not None and row.pid == self._last:
            # A session of ours that the server has not noticed to be cut off.
            session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": row.pid})
            raise StoreUnavailable("the worker's lock is still held by a session of our own that was cut off")
        holder = (row.application_name if row is not None else None) or "another process"
        raise Refused(f"{holder} already runs a worker on this database; it has one worker: stop that one first")

    def _driver(self) -> psycopg.Connection:
        if self._session is None or self._session.closed:
            raise StoreUnavailable("the worker's session is not open")
        return cast(psycopg.Connection, self._session.connection.dbapi_connection)

    def listen(self) -> int:
        with self._translated():
            driver = self._driver()
            try:
                driver.execute(f"LISTEN {_CHANNEL}")
            except psycopg.Error as error:
                raise StoreUnavailable(" ".join(str(error).split())) from None
            return driver.fileno()

    def heard(self) -> bool:
        try:
            connection = self._driver().pgconn
            connection.consume_input()
            while connection.notifies():
                pass
        except (psycopg.Error, StoreUnavailable):
            return False
        return True

    def deafen(self) -> None:
        """The session goes on: it holds the lock."""

    def leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(DBAPIError, psycopg.Error):
                session.close()
