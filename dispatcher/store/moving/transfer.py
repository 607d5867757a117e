"""Rows from one store to another, by pages in the order of their keys; whole small tables, by what differs."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import DBAPIError

from dispatcher.ground.errors import Refused
from dispatcher.store.insertion import insert_many
from dispatcher.store.schema import (
    attempts,
    deliveries,
    feed,
    journal,
    locks,
    metadata,
    minutes,
    sessions,
    tails,
    workers,
)

# So many rows in one transaction: little is lost when the power goes, and little time with commits.
PAGE = 20_000
# What grows with the work; in the order in which one refers to another.
STREAMS = (deliveries, attempts, journal)
# Of these, what grows while the source leaves.
GROWING = (deliveries, journal)
# What is of one database alone: who works on it, what they do one after the other, who is logged in, who follows
# them; and what was counted there.
_ITS_OWN = (workers, locks, sessions, tails, feed, minutes)
# The rest is as much as there are operators.
WHOLE = tuple(table for table in metadata.sorted_tables if table not in (*STREAMS, *_ITS_OWN))

Row = Sequence[Any]


def _key(table: Table) -> list[ColumnElement[Any]]:
    return list(table.primary_key.columns)


def last(connection: Connection, table: Table) -> Row | None:
    """The highest key there is."""
    backwards = [column.desc() for column in _key(table)]
    return connection.execute(select(*_key(table)).order_by(*backwards).limit(1)).first()


def page(connection: Connection, table: Table, after: Row | None, upto: int | None = None) -> Sequence[Row]:
    """The next rows behind this key; up to this number, for a table that has one."""
    query = select(*table.c).order_by(*_key(table)).limit(PAGE)
    if after is not None:
        query = query.where(tuple_(*_key(table)) > tuple_(*after))
    if upto is not None:
        query = query.where(_key(table)[0] <= upto)
    return connection.execute(query).all()


def key_of(table: Table, row: Row) -> Row:
    return [row[position] for position, column in enumerate(table.c) if column.primary_key]


def put(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Adds rows as `page` gives them."""
    if connection.dialect.name == "postgresql":
        _stream(connection, table, rows)
    else:
        insert_many(connection, table.name, tuple(table.c.keys()), rows)


def _names(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.c)


def _stream(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """By COPY: row by row the server would be asked once for each."""
    import psycopg

    driver = cast(psycopg.Connection, connection.connection.dbapi_connection)
    statement = f"COPY {table.name} ({_names(table)}) FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as lines:
            for row in rows:
                lines.write_row(row)
    except psycopg.DataError as error:
        told = error.diag.message_primary or str(error)
        raise Refused(
            f"a row of {table.name} can't be held by PostgreSQL: {told};"
            " mend it where it is, and go on; nothing of this page was kept"
        ) from None
    except psycopg.Error as error:
        # It went past SQLAlchemy, which would have said it so.
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


def make_equal(source: Connection, target: Connection, table: Table) -> None:
    """The target's rows of this table are the source's, whatever they were."""
    here, there = ({tuple(key_of(table, row)): row for row in _all(side, table)} for side in (source, target))
    key = tuple_(*_key(table))
    for gone in there.keys() - here.keys():
        target.execute(delete(table).where(key == tuple_(*gone)))
    for changed in here.keys() & there.keys():
        if tuple(here[changed]) != tuple(there[changed]):
            values = dict(zip(table.c.keys(), here[changed], strict=True))
            target.execute(update(table).where(key == tuple_(*changed)).values(values))
    fresh = [dict(zip(table.c.keys(), row, strict=True)) for one, row in here.items() if one not in there]
    if fresh:
        target.execute(insert(table), fresh)


def _all(connection: Connection, table: Table) -> Sequence[Row]:
    return connection.execute(select(*table.c)).all()


def filled(connection: Connection) -> list[str]:
    """The tables of those that are copied that have a row, by name."""
    return [
        table.name for table in (*STREAMS, *WHOLE) if connection.execute(select(1).select_from(table).limit(1)).first()
    ]


def hold_still(connection: Connection) -> None:
    """Nobody writes until this transaction ends, and whoever did has ended. On SQLite that is so anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(metadata.tables)} IN SHARE ROW EXCLUSIVE MODE")


def count_on(connection: Connection) -> None:
    """What counts rows by itself goes on behind the highest number there is."""
    if connection.dialect.name == "postgresql":
        for table in metadata.sorted_tables:
            number = table.autoincrement_column
            if number is not None:
                highest = select(func.coalesce(func.max(number), 0)).scalar_subquery()
                sequence = func.pg_get_serial_sequence(table.name, number.name)
                connection.execute(select(func.setval(sequence, highest + 1, False)))


def look_over(connection: Connection) -> None:
    """So many new rows change how a server had best look them up."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ANALYZE {', '.join(metadata.tables)}"))
