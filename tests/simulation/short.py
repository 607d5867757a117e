"""The short way to the database in memory: what our rooms ask of SQLAlchemy's engine, without what it does besides.

A statement that is a text goes straight to SQLite's driver, and so do BEGIN, COMMIT and ROLLBACK; one that is built
goes through SQLAlchemy's own connection. It takes a third of a world's time away, and leaves what happens in it to the
letter: `tests/test_simulation.py` plays some worlds both ways.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from sqlalchemy import Connection, Engine, StaticPool, TextClause, create_engine
from sqlalchemy.exc import DBAPIError

# Mypy wants the names where it is called.
_named: Any = namedtuple


class _Prepared(NamedTuple):
    """A text as the driver takes it, and the names of what stands for its question marks."""

    statement: TextClause
    sql: str
    names: Sequence[str]


class Found:
    """What a statement gave, as SQLAlchemy's result has it."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalars(self) -> "Found":
        return Found([row[0] for row in self._rows], self.rowcount)

    def mappings(self) -> "Found":
        return Found([row._asdict() for row in self._rows], self.rowcount)


class ShortEngine:
    """On this one connection of the driver. `reads`: its transactions say that they only read."""

    def __init__(self, link: sqlite3.Connection, built: Connection, *, reads: bool = False) -> None:
        self.link = link
        self.built = built
        self.reads = reads
        self.dialect = built.dialect
        # By identity: a text is hashed for longer than it takes SQLite to find it.
        self.prepared: dict[int, _Prepared] = {}
        self.kinds: dict[str, Any] = {}

    def execution_options(self, *, dispatcher_read: bool = False) -> "ShortEngine":
        given = ShortEngine(self.link, self.built, reads=dispatcher_read)
        given.prepared, given.kinds = self.prepared, self.kinds
        return given

    def begin(self) -> "_Writing":
        return _Writing(self)

    def connect(self) -> "_Reading":
        return _Reading(self)

    def dispose(self) -> None:
        """The connection lives as long as this process of ours."""


class _Reading:
    """A transaction that begins with its first statement, and is rolled back."""

    def __init__(self, engine: ShortEngine) -> None:
        self.dialect = engine.dialect
        self._engine = engine
        self._link = engine.link
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._link.rollback()

    def _begin(self) -> None:
        self._begun = True
        self._run("BEGIN" if self._engine.reads else "BEGIN IMMEDIATE", ())

    def _run(self, sql: str, values: Sequence[Any]) -> Found:
        try:
            cursor = self._link.cursor()
            if values and type(values[0]) is tuple:
                cursor.executemany(sql, values)
            else:
                cursor.execute(sql, values)
            if cursor.description is None:
                return Found([], cursor.rowcount)
            rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise self._told(sql, error) from error
        if not rows:
            return Found([], cursor.rowcount)
        kind = self._engine.kinds.get(sql)
        if kind is None:
            kind = self._engine.kinds[sql] = _named("Row", [one[0] for one in cursor.description], rename=True)
        return Found([*map(kind._make, rows)], cursor.rowcount)

    def _told(self, sql: str, error: sqlite3.Error) -> BaseException:
        return cast(BaseException, DBAPIError.instance(sql, None, error, sqlite3.Error, hide_parameters=True))

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        if not self._begun:
            self._begin()
        if type(statement) is not TextClause or (parameters is not None and type(parameters) is not dict):
            return self._engine.built.execute(statement, parameters)
        known = self._engine.prepared.get(id(statement))
        if known is None:
            compiled: Any = statement.compile(dialect=self.dialect)
            known = _Prepared(statement, compiled.string, compiled.positiontup or ())
            self._engine.prepared[id(statement)] = known
        return self._run(known.sql, [parameters[name] for name in known.names] if parameters else ())

    def exec_driver_sql(self, sql: str, values: Sequence[Any] = ()) -> Found:
        if not self._begun:
            self._begin()
        return self._run(sql, values)

    def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return self.execute(statement, parameters).scalar()

    def scalars(self, statement: Any, parameters: Any = None) -> Any:
        return self.execute(statement, parameters).scalars()


class _Writing(_Reading):
    """A transaction that is committed, unless something is raised in it."""

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._link.rollback()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        if kind is not None:
            self._link.rollback()
            return
        try:
            self._link.commit()
        except sqlite3.Error as error:
            self._link.rollback()
            raise self._told("COMMIT", error) from error


def shortened(link: sqlite3.Connection) -> Engine:
    """The same database by the short way."""
    built = create_engine("sqlite://", poolclass=StaticPool, creator=lambda: link, hide_parameters=True).connect()
    return cast(Engine, ShortEngine(link, built))
