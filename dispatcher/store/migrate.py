"""Bringing a store up to this dispatcher's revision, in one transaction. Alembic is imported here alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from dispatcher.ground.errors import Refused
from dispatcher.ground.place import Place
from dispatcher.store.engine import Database, open_database, reach
from dispatcher.store.moving.quiet import at_work, quiet
from dispatcher.store.schema import REVISION
from dispatcher.store.version import FIRST, REVISIONS, Found, admit, stamp


class Upgraded(NamedTuple):
    """From which revision to which, None for a store that was made; who worked on it meanwhile."""

    before: str | None
    after: str
    live: list[str]


def upgrade(place: Place, *, among_workers: bool = False, patience: float = 10.0) -> Upgraded:
    """The store of this place is of this dispatcher's revision afterwards; it is made where there was none.

    Raises Refused while a worker is there, StoreUnavailable; then nothing was changed. On a server `among_workers`
    lets workers go on.
    """
    database, found = reach(place, create=True, patience=patience)
    try:
        _check(place, found)
        if found.revision is None:
            open_database(place, patience=patience).close()
            return Upgraded(None, REVISION, [])
        if found.revision == REVISION and found.stamped:
            return Upgraded(REVISION, REVISION, [])
        live = at_work(database)
        with quiet(database, among_workers=among_workers):
            return Upgraded(_upgrade(database), REVISION, live)
    finally:
        database.close()


def _check(place: Place, found: Found) -> None:
    if found.revision is not None and found.revision > REVISION:
        admit(place, found)
    if found.mark is not None:
        if found.revision == REVISION:
            raise found.mark.refused(place)
        told = f"another version of the dispatcher began to copy this: {found.mark.told(place)}"
        raise Refused(f"{told}; do so with that version")


def _upgrade(database: Database) -> str | None:
    with _changing(database) as connection:
        if connection.dialect.name == "postgresql":
            # Of two that bring it up one waits here for the other, and finds it done.
            connection.execute(text("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"))
        before = database.look(connection)
        if not before.stamped:
            stamp(connection, FIRST)
            forget_number(connection)
        migrate(connection)
        return before.revision


@contextmanager
def _changing(database: Database) -> Iterator[Connection]:
    """One transaction in which tables may be made anew. What refers to another row is looked at in its end."""
    with database.translated(), database.engine.connect() as connection:
        on_file = connection.dialect.name == "sqlite"
        driver = connection.connection.dbapi_connection
        if on_file and driver is not None:
            # A table that is made anew is dropped once; nothing of it may be taken along. Within the transaction it
            # could not be turned off.
            driver.cursor().execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            yield connection
            if on_file and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                raise Refused(
                    f"a row of {broken[0]} refers to one of {broken[2]} that is not there;"
                    " put a backup in its place, or take that row out; nothing was changed"
                )


def migrate(connection: Connection, to: str = "head") -> None:
    """Runs what leads to this revision, in the transaction that is open on this connection."""
    command.upgrade(alembic_config(connection), to)


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    # Whoever reads this text takes a % for a place to fill in.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes |= {"connection": connection, "version_table": REVISIONS.name}
    return config


def forget_number(connection: Connection) -> None:
    """The number by which stores were told apart before; without it no dispatcher of then takes this for its own."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA user_version = 0")
    else:
        connection.execute(text("DROP TABLE dispatcher_schema"))
