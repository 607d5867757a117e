"""What people ask is answered by an index, whatever they ask; held by the plans, on small tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event as listening
from sqlalchemy import text

from bench.growth import ask
from dispatcher.policy import Status
from dispatcher.store import corridor, retention
from dispatcher.store.engine import Database
from dispatcher.store.search import Filter, find
from tests.ground import NOW
from tests.workshop import accept, event

pytestmark = pytest.mark.each_store

# Steps that read what the statement itself has made.
OF_ITS_OWN = ("lanes", "types", "heads", "lane", "r ", "d.", "json_each", "CONSTANT ROW", "(subquery")


@contextmanager
def asked(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed meanwhile."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            statements.append((statement, parameters))

    listening.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        listening.remove(database.engine, "before_cursor_execute", note)


def plan(database: Database, statement: str, parameters: Any) -> list[str]:
    with database.reading() as connection:
        if connection.dialect.name == "sqlite":
            return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        # With a few rows the server would read them all: what is asked is whether it has an index for it.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        return [row[0].strip() for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]


def read(database: Database, steps: list[str]) -> list[str]:
    """The steps that read deliveries from one end to the other."""
    if database.engine.dialect.name == "postgresql":
        return [step for step in steps if "Seq Scan on deliveries" in step]
    return [step for step in steps if step.startswith("SCAN d") and "USING" not in step]


FILTERS = [
    Filter(operator=operator, type=kind, status=status, uid=uid, key=key, since=since)
    for operator, kind, status, uid, key, since in product(
        (None, "acme"), (None, "notice"), (None, *Status), (None, "player-1"), (None, "1"), (None, NOW)
    )
    if uid is None or key is None
]


def test_no_question_reads_all_deliveries(database: Database) -> None:
    accept(database, *range(20))
    for where in FILTERS:
        with asked(database) as statements:
            list(find(database, where, 5))
        assert statements
        for statement, parameters in statements:
            steps = plan(database, statement, parameters)
            assert read(database, steps) == [], (where, statement)


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (Filter(), "by_operator"),
        (Filter(operator="acme"), "by_operator"),
        (Filter(type="notice", since=NOW), "by_operator"),
        (Filter(status=Status.PENDING), "log_pending"),
        (Filter(status=Status.DELIVERED, operator="acme"), "log_delivered"),
        (Filter(status=Status.DEAD, until=NOW), "dead"),
        (Filter(status=Status.RESOLVED), "log_resolved"),
        (Filter(status=Status.SENDING), "held"),
        (Filter(key="1"), "identity"),
        (Filter(key="1", operator="acme", status=Status.DEAD), "identity"),
        (Filter(uid="player-1", status=Status.DELIVERED), "by_player"),
    ],
)
@pytest.mark.sqlite_only
def test_each_question_has_its_index(database: Database, where: Filter, index: str) -> None:
    accept(database, 1)
    with asked(database) as statements:
        list(find(database, where, 5))
    names = {
        step.partition("INDEX ")[2].split()[0]
        for statement, parameters in statements
        for step in plan(database, statement, parameters)
        if "INDEX " in step
    }
    assert names - {"1:", "2:"} == {index}


@pytest.mark.sqlite_only
def test_a_player_is_looked_up_in_each_bucket_and_no_index_is_read_through(database: Database) -> None:
    accept(database, 1)
    with asked(database) as statements:
        list(find(database, Filter(uid="player-1", since=NOW), 5))
    steps = [step for statement, parameters in statements for step in plan(database, statement, parameters)]
    assert "SEARCH d USING INDEX by_player (<expr>=? AND uid=?)" in steps
    assert [step for step in steps if step.startswith(("SCAN d", "SCAN deliveries"))] == []


def test_the_newest_of_many_lanes_come_first(database: Database) -> None:
    """By any number of operators and types, with times that stand in no order, page by page."""
    times = [(n * 7) % 10 for n in range(30)]
    for n, at in enumerate(times):
        one = event(n, operator=("acme", "bolt", "coin")[n % 3], uid=f"player-{n % 2}")
        corridor.accept(database, [one._replace(type=("notice", "other")[n % 2])], NOW + at)
    expected = sorted(range(30), key=lambda n: (times[n], n), reverse=True)
    for most in (1, 2, 7, 30):
        found: list[int] = []
        before: int | None = None
        while rows := list(find(database, Filter(), most, before)):
            found += [int(row.key) for row in rows]
            before = rows[-1].id
        assert found == expected
    of_two = [int(row.key) for row in find(database, Filter(operator="bolt", since=NOW + 2, until=NOW + 8), 4)]
    assert of_two == [n for n in expected if n % 3 == 1 and 2 <= times[n] < 8][:4]
    of_one = [int(row.key) for row in find(database, Filter(uid="player-1"), None)]
    assert of_one == [n for n in reversed(range(30)) if n % 2]


def test_the_walk_of_the_retention_goes_by_number(database: Database) -> None:
    accept(database, 1)
    with asked(database) as statements:
        retention.sweep(database, 0, NOW, 10)
    for statement, parameters in statements:
        assert read(database, plan(database, statement, parameters)) == []


@pytest.mark.sqlite_only
def test_the_benchmark_asks_what_can_be_asked(database: Database) -> None:
    accept(database, 1)
    answers = ask(database)
    assert any(one.rows for one in answers)
    assert len(answers) > 400
