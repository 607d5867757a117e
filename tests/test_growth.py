"""What people ask is answered by an index, whatever they ask; held by the plans, on small tables."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import text

from bench.growth import ask
from dispatcher.ground.policy import Status
from dispatcher.store import acceptance, corridor, retention
from dispatcher.store.engine import Database
from dispatcher.store.search import Filter, find
from tests.ground import NOW
from tests.plans import asked, plan, read
from tests.stores import STORES, apart, open_store
from tests.workshop import accept, event, failed, settled, take

pytestmark = pytest.mark.each_store

# Steps that read what the statement itself has made.
OF_ITS_OWN = ("lanes", "types", "heads", "lane", "r ", "d.", "json_each", "CONSTANT ROW", "(subquery")


@pytest.fixture
def fresh(store: str, tmp_path: Path) -> Iterator[Database]:
    """Tables that nobody has filled, vacuumed or analysed: the tests' own server remembers what others had in its."""
    with apart(STORES.current, tmp_path, "fresh") as place:
        opened = open_store(place)
        yield opened
        opened.close()


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
        acceptance.accept(database, [one._replace(type=("notice", "other")[n % 2])], NOW + at)
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


def test_receipts_are_looked_up_by_key_in_a_table_that_nobody_has_analysed_yet(fresh: Database) -> None:
    """As it is in the first minute of a database: told nothing, a server takes a full table for an empty one."""
    database = fresh
    acceptance.accept(database, [event(n) for n in range(2_000)], NOW)
    again = [event(n) for n in range(64)]
    with asked(database) as statements:
        told = acceptance.accept_told(database, again, NOW)
    assert {receipt.fate for receipt in told} == {acceptance.Fate.DUPLICATE}
    of_deliveries = [one for one in statements if "FROM deliveries" in one[0]]
    assert len(of_deliveries) == 2
    for statement, parameters in of_deliveries:
        steps = plan(database, statement, parameters)
        assert read(database, steps) == []
        assert [step for step in steps if "identity" in step], steps
        assert [step for step in steps if "by_operator" in step] == []


@pytest.mark.parametrize("taken_away", [False, True])
def test_what_a_turn_changes_in_an_empty_database_is_planned_for_a_full_one(fresh: Database, taken_away: bool) -> None:
    """A server keeps such a plan until somebody analyses the table."""
    database = fresh
    accept(database, 0, 1)
    acceptance.accept(database, [event(n)._replace(sequence="line") for n in (2, 3)], NOW)
    first, second, third = take(database)
    if taken_away:
        with database.writing() as connection:
            connection.execute(text("UPDATE deliveries SET token = token + 1 WHERE id = :id"), {"id": first.id})
    with asked(database, "UPDATE", "INSERT INTO attempts", "SELECT") as statements:
        done = [settled(first, NOW), failed(second, NOW), settled(third, NOW)]
        turned = corridor.turn(database, done, {"acme": 4}, NOW)
    assert len(turned.late) == taken_away
    assert len(turned.claimed) == 1
    verbs = Counter(statement.split()[0] for statement, _ in statements)
    assert verbs["UPDATE"] >= 4
    for statement, parameters in statements:
        steps = plan(database, statement, parameters)
        assert [step for step in gone_through(database, steps) if "dead_of_line" not in step] == [], (statement, steps)


def gone_through(database: Database, steps: list[str]) -> list[str]:
    """The steps that go through a whole table or index, be it ever so small."""
    if database.engine.dialect.name == "sqlite":
        return [step for step in steps if re.match(r"SCAN (deliveries|attempts|[dah])\b", step)]
    scans = [n for n, step in enumerate(steps) if re.search(r"Scan.* on (deliveries|attempts)\b", step)]
    return [steps[n] for n in scans if not re.match("(Index|Recheck) Cond", [*steps, ""][n + 1])]


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
