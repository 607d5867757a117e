"""What the console shows at a glance: counted rightly, by indexes alone, and to an end."""

import pytest

from dispatcher.ground.clock import DAY, HOUR, MINUTE
from dispatcher.ground.policy import Reason
from dispatcher.store import workers
from dispatcher.store.counts import glance as glance_
from dispatcher.store.counts.glance import Glance, Heap, Queue, glance
from dispatcher.store.engine import Database
from tests.ground import NOW
from tests.plans import asked, plan, read
from tests.workshop import accept, failed, settle, take

pytestmark = pytest.mark.each_store


def bury(database: Database, *keys: int, operator: str, at: int = NOW) -> None:
    """They die three days later."""
    accept(database, *keys, operator=operator, now=at)
    for later in (0, DAY, 2 * DAY, 3 * DAY):
        claims = take(database, at + later, operator=operator)
        settle(database, *(failed(claim, at + later, Reason.READ_TIMEOUT) for claim in claims), now=at + later)


def test_what_waits_and_what_is_dead_is_counted_by_operator(database: Database) -> None:
    assert glance(database, NOW, NOW) == Glance({}, {}, {}, [])
    bury(database, 1, 2, operator="acme")
    bury(database, 3, operator="acme", at=NOW + HOUR)
    bury(database, 4, operator="coin")
    accept(database, 5, 6, operator="bolt", now=NOW + MINUTE)
    accept(database, 7, operator="coin", now=NOW + HOUR)
    workers.enter(database)
    found = glance(database, NOW + 3 * DAY + MINUTE, NOW + 2 * MINUTE)
    assert found.waiting == {"bolt": Heap("bolt", 2, NOW + MINUTE, 0), "coin": Heap("coin", 1, NOW + HOUR, 0)}
    assert found.dead == {"acme": Heap("acme", 3, NOW, 1), "coin": Heap("coin", 1, NOW, 0)}
    assert found.due == {"bolt": Queue("bolt", NOW + MINUTE, 2), "coin": Queue("coin", NOW + HOUR, 0)}
    assert [hand.name for hand in found.workers] == [database.worker_name]
    for name in ("acme", "bolt", "coin", "nobody"):
        own = glance(database, NOW + 3 * DAY + MINUTE, NOW + 2 * MINUTE, name)
        for mine, all_of in ((own.waiting, found.waiting), (own.dead, found.dead), (own.due, found.due)):
            assert mine == {one: given for one, given in all_of.items() if one == name}


def test_counting_ends_somewhere(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance_, "MOST", 3)
    accept(database, *range(5), operator="bolt")
    bury(database, *range(10, 15), operator="acme")
    found = glance(database, 0, NOW + 1)
    assert found.waiting["bolt"].count == 3
    assert found.due["bolt"].late == 3
    assert found.dead["acme"][1:] == (3, NOW, 3)


def test_no_glance_reads_all_deliveries(database: Database) -> None:
    accept(database, *range(20))
    bury(database, *range(30, 40), operator="bolt")
    for operator in (None, "acme"):
        with asked(database) as statements:
            glance(database, NOW, NOW, operator)
        assert len(statements) >= 3
        for statement, parameters in statements:
            assert read(database, plan(database, statement, parameters)) == [], statement
