"""The store within a transaction that is somebody else's: theirs are the connection and the commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, text

from dispatcher.ground.errors import Refused
from dispatcher.store.engine import Database

_HERE = text("SELECT current_database(), current_schema()")
_THERE = text("SELECT current_database(), to_regclass(quote_ident(:schema) || '.deliveries') IS NOT NULL")
_PATH = text("SELECT current_setting('search_path')")
_SET_PATH = text("SELECT set_config('search_path', :path, true)")
_SCHEMA_ALONE = text("SELECT set_config('search_path', quote_ident(:schema), true)")


class Site(NamedTuple):
    """Where our tables stand: the file, or the database on a server and the schema in it."""

    file: Path | None
    database: str = ""
    schema: str = ""


def site(database: Database) -> Site:
    """Raises StoreUnavailable."""
    if isinstance(database.place, Path):
        return Site(database.place)
    with database.reading() as connection:
        return Site(None, *connection.execute(_HERE).one())


@contextmanager
def within(connection: Connection, site: Site) -> Iterator[None]:
    """Our tables are to be had by their names meanwhile; on an error nothing that was written here stays.

    Raises Refused for a connection to another database.
    """
    if connection.dialect.name == "sqlite":
        with _in_file(connection, site):
            yield
    else:
        with _in_schema(connection, site):
            yield


@contextmanager
def _in_file(connection: Connection, site: Site) -> Iterator[None]:
    files = {row[1]: row[2] for row in connection.exec_driver_sql("PRAGMA database_list")}
    if site.file is None or not files["main"] or not Path(files["main"]).samefile(site.file):
        raise Refused(
            _elsewhere(files["main"] or "an SQLite database in memory", str(site.file or "a PostgreSQL server"))
        )
    driver = connection.connection.driver_connection
    # Python's driver begins with the first writing statement; before that, the end of a savepoint would be a commit.
    if not getattr(driver, "in_transaction", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    with connection.begin_nested():
        yield


@contextmanager
def _in_schema(connection: Connection, site: Site) -> Iterator[None]:
    if connection.dialect.name != "postgresql" or site.file is not None:
        raise Refused(_elsewhere(f"{connection.dialect.name} database", str(site.file or "a PostgreSQL server")))
    with connection.begin_nested():
        database, there = connection.execute(_THERE, {"schema": site.schema}).one()
        if database != site.database or not there:
            raise Refused(_elsewhere(f"database {database}", f"{site.database}, schema {site.schema}"))
        # The caller's own tables may have names like ours. An error undoes this with everything else.
        path = connection.scalar(_PATH)
        connection.execute(_SCHEMA_ALONE, {"schema": site.schema})
        yield
        connection.execute(_SET_PATH, {"path": path})


def _elsewhere(here: str, there: str) -> str:
    mend = "hand in a connection to the database that the configuration names"
    return f"this transaction is of {here}, the dispatcher's store is in {there}; {mend}"


def notify(connection: Connection) -> bool:
    """True where the bell rings by itself with the commit: the server keeps it until then."""
    if connection.dialect.name == "sqlite":
        return False
    from dispatcher.store.databases.postgresql import CHANNEL

    connection.exec_driver_sql(f"NOTIFY {CHANNEL}, ''")
    return True
