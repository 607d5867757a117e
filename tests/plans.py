"""Which index answers a statement: the plans of both databases, on small tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event as listening

from dispatcher.store.engine import Database


@contextmanager
def asked(database: Database, *verbs: str) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed meanwhile and begins with one of these; without any, those that read."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.lstrip().startswith(verbs or ("SELECT", "WITH")):
            statements.append((statement, parameters))

    listening.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        listening.remove(database.engine, "before_cursor_execute", note)


def plan(database: Database, statement: str, parameters: Any) -> list[str]:
    """The steps as our sessions have them planned, with nothing else forbidden to the server."""
    explain = "EXPLAIN QUERY PLAN" if database.engine.dialect.name == "sqlite" else "EXPLAIN"
    with database.reading() as connection:
        return [str(row[-1]).strip() for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)]


def read(database: Database, steps: list[str]) -> list[str]:
    """The steps that read deliveries from one end to the other."""
    if database.engine.dialect.name == "postgresql":
        return [step for step in steps if "Seq Scan on deliveries" in step]
    return [step for step in steps if step.startswith("SCAN d") and "USING" not in step]
