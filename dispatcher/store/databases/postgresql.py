"""The PostgreSQL database: how it is reached, what is weather there, how its workers are woken."""

import re
import secrets
import shlex
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from typing import cast

import psycopg
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from dispatcher.ground.errors import Contended, Refused, StoreUnavailable
from dispatcher.ground.place import Server
from dispatcher.store.databases.bell import Heard
from dispatcher.store.databases.locks import make_locks
from dispatcher.store.databases.silence import end_silence
from dispatcher.store.moving.mark import MARKS, READ_MARK, mark_of
from dispatcher.store.schema import metadata
from dispatcher.store.version import FIRST, READ_REVISION, REVISIONS, Found, is_ours, of_number, stamp

# For jsonb's casts, and for what was looked at by its makers this decade.
OLDEST_POSTGRESQL = (12,)
READING = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
# A transaction around one statement would cost three journeys more than the statement.
GLANCE = {"isolation_level": "AUTOCOMMIT"}

# What may pass by itself, by the beginning of its SQLSTATE: connection, authorization (a password is being changed),
# database missing, resources (disk, memory, connections), somebody stopped it, I/O, corruption, read-only, rights,
# locks; and serialization and deadlock, which trying again mends at once.
_WEATHER = ("08", "28", "3D", "53", "57", "58", "XX001", "XX002", "25006", "42501", "55")
_CONTENDED = ("40001", "40P01")

_MENDS = {
    "25006": "; the server takes no writes: it is a standby, or was made read-only; name the one that takes them",
    "53100": "; the server's disk is full: make room there",
}
_WAIT = "; try again, and where that lasts look into the server's log"
# What keeps a connection from coming about has no SQLSTATE here: libpq gives the server's sentence as text.
_NO_DATABASE = re.compile(r'FATAL: +database "(.+?)" does not exist')
_NO_ROLE = re.compile(r'FATAL: +role "(.+?)" does not exist')
_REFUSED = re.compile("Connection refused|Is the server running")
_PASSWORD = re.compile("FATAL: +password authentication failed|no password supplied")

# The table that had a store's number before there were revisions.
_NUMBER = "dispatcher_schema"

# A commit that returned is on disk, whatever the server's settings say; the locks' time keeps a lost peer from holding
# us. And whatever we ask is answered by an index, row by row: a server that has not analysed a table yet takes a full
# one for empty, and would read the whole of it in each turn, by a plan that it then keeps.
_SETTINGS = """
    SELECT set_config('lock_timeout', %s, false), set_config('jit', 'off', false),
           set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
           set_config('enable_mergejoin', 'off', false),
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


def open_engine(place: Server, patience: float, silence: float | None) -> Engine:
    """Nothing is connected yet. `silence`: how long (s) the server may leave a statement without an answer.

    Raises Refused for an address that can't be read.
    """
    url = make_url(place.url.reveal())
    arguments = _arguments(url, patience)
    try:
        # An error's text would show the parameters: events, players' tokens.
        engine = create_engine(url, connect_args=arguments, isolation_level="READ COMMITTED", hide_parameters=True)
    except (ArgumentError, ValueError):
        mend = "write several servers as host=a:5432&host=b:5432"
        raise Refused(f"the database {place} can't be opened: its servers can't be read; {mend}") from None
    event.listen(engine, "handle_error", _tell_no_row)
    if silence is not None:
        end_silence(engine, silence)

    @event.listens_for(engine, "connect")
    def _settings(connection: psycopg.Connection, _record: object) -> None:
        try:
            connection.execute(_SETTINGS, (str(max(1, int(patience * 1000))),))
            connection.commit()
        except psycopg.Error:
            connection.close()
            raise

    @event.listens_for(engine, "checkin")
    def _as_the_server_says(connection: psycopg.Connection | None, _record: object) -> None:
        # After a transaction that only read, READ WRITE would be asked for: a standby refuses that as a bug of ours.
        if connection is not None and not connection.closed:
            connection.read_only = None

    return engine


def _tell_no_row(context: ExceptionContext) -> None:
    """The server repeats the row that it refuses, and the parameters would stand in the error after all."""
    error, wrapped = context.original_exception, context.sqlalchemy_exception
    if isinstance(error, psycopg.Error) and error.diag.message_detail:
        whole, told = str(error), error.diag.message_primary or type(error).__name__
        error.args = (told,)
        if wrapped is not None:
            wrapped.args = tuple(one.replace(whole, told) if isinstance(one, str) else one for one in wrapped.args)


def _arguments(url: URL, patience: float) -> dict[str, object]:
    """What libpq is told beside the address, where that says nothing of it."""
    given: dict[str, object] = {
        "application_name": "dispatcher",
        "connect_timeout": max(2, round(patience)),
        # A server that is gone without a word is noticed while something is under way, and while nothing is.
        # A worker that notices it long after the others comes back so late that they take it for dead.
        "tcp_user_timeout": 4_000,
        "keepalives_idle": 2,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    hosts = url.query.get("host", ())
    if "," in hosts if isinstance(hosts, str) else len(hosts) > 1:
        # Of several servers the one that takes something; that can change.
        given["target_session_attrs"] = "read-write"
    return {name: value for name, value in given.items() if name not in url.query}


def weather(error: DBAPIError) -> StoreUnavailable | None:
    """What may pass by itself; None for a bug of ours, which trying again would not mend."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        passes = error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
        return StoreUnavailable(told(error, _not_connected(str(error.orig)))) if passes else None
    if state in _CONTENDED:
        return Contended(told(error, "; try again"))
    return StoreUnavailable(told(error, _WAIT)) if state.startswith(_WEATHER) else None


def _not_connected(why: str) -> str:
    """What mends it, where no connection comes about: whether at a start, or after an outage."""
    if found := _NO_DATABASE.search(why):
        return f"; create it: createdb {shlex.quote(found[1])}; or name another in database.url"
    if found := _NO_ROLE.search(why):
        return f"; create it: createuser {shlex.quote(found[1])}; or name another user in database.url"
    if _PASSWORD.search(why):
        return "; mend the user or the password in database.url, or in ~/.pgpass"
    return "; start the server, or mend host and port in database.url" if _REFUSED.search(why) else _WAIT


def told(error: DBAPIError, otherwise: str = "") -> str:
    """The server's sentence alone, in one line: what it adds shows whole rows. And what helps, or `otherwise`."""
    primary = error.orig.diag.message_primary if isinstance(error.orig, psycopg.Error) else None
    mend = _MENDS.get(getattr(error.orig, "sqlstate", None) or "", otherwise)
    return " ".join((primary or str(error.orig)).split()) + mend


def found(connection: Connection, place: Server) -> Found:
    """What the schema holds. Raises Refused for a server that is too old, or another program's tables."""
    version = connection.dialect.server_version_info or ()
    if version < OLDEST_POSTGRESQL:
        there = ".".join(map(str, version))
        mend = f"the dispatcher needs {OLDEST_POSTGRESQL[0]} or newer: name another in database.url"
        raise Refused(f"the database {place} is PostgreSQL {there}; {mend}")
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


def make_tables(connection: Connection, _place: Server) -> None:
    """All of them or none. Raises whatever the server says where another process makes them at this moment."""
    # First, so that of two that make them one waits here for the other.
    stamp(connection)
    metadata.create_all(connection)
    make_locks(connection)


def kind_and_version(connection: Connection) -> tuple[str, str]:
    return "postgresql", str(connection.exec_driver_sql("SHOW server_version").scalar_one())


def size(connection: Connection, _place: Server) -> int:
    """Bytes on the server's disk, indexes included."""
    size = "coalesce(sum(pg_total_relation_size(to_regclass(one))), 0)"
    wanted = text(f"SELECT {size} FROM unnest(CAST(:tables AS text[])) AS one")
    return int(connection.execute(wanted, {"tables": list(metadata.tables)}).scalar_one())


CHANNEL = "dispatcher"
LISTEN = f"LISTEN {CHANNEL}"
# Of 7,999 bytes that PostgreSQL takes.
LONGEST_RING = 7_000
# For a ring of our own to come back, once we listen.
PROOF_SECONDS = 1.0


class ServerBell:
    """NOTIFY rings it; a session of its own hears it."""

    def __init__(self, engine: Engine, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._translated = translated
        self._session: Connection | None = None

    def ring(self, operators: Collection[str] = ()) -> None:
        """Who hears a name need not ask the server whose work it is: that look would be a third of the way to it."""
        names = " ".join(operators)
        with suppress(StoreUnavailable, DBAPIError):
            self._ring(names if len(names) <= LONGEST_RING else "")

    def _ring(self, word: str) -> None:
        with self._translated(), self._engine.connect() as connection:
            connection.exec_driver_sql("SELECT pg_notify(%s, %s)", (CHANNEL, word))

    def listen(self) -> int | None:
        self.deafen()
        with self._translated():
            # It goes back to no pool.
            session = self._engine.connect()
            session.detach()
        try:
            if self._hears(session):
                self._session = session
                return _driver(session).fileno()
        except DBAPIError:
            # Not every database that speaks PostgreSQL's protocol has LISTEN.
            pass
        finally:
            if self._session is None:
                session.close()
        return None

    def _hears(self, session: Connection) -> bool:
        """Rings through another session, as everybody does: a pooler in between may take LISTEN and keep what comes."""
        with self._translated():
            session.exec_driver_sql(LISTEN)
            word = secrets.token_hex(8)
            self._ring(word)
        try:
            return any(one.payload == word for one in _driver(session).notifies(timeout=PROOF_SECONDS))
        except psycopg.Error as error:
            why = " ".join(str(error).split())
            raise StoreUnavailable(f"{why}{_WAIT}") from None

    def heard(self) -> Heard | None:
        if self._session is None:
            return None
        words = set()
        try:
            connection = _driver(self._session).pgconn
            connection.consume_input()
            while rung := connection.notifies():
                words.add(rung.extra.decode("utf-8", "replace"))
        except psycopg.Error:
            return None
        return Heard(frozenset(name for word in words for name in word.split()), more="" in words)

    def deafen(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(DBAPIError, psycopg.Error):
                session.close()


def _driver(session: Connection) -> psycopg.Connection:
    return cast(psycopg.Connection, session.connection.dbapi_connection)


def bell(_place: Server, engine: Engine, translated: Callable[[], AbstractContextManager[None]]) -> ServerBell:
    return ServerBell(engine, translated)
