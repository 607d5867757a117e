"""What ended well is deleted after a while, a little at a time; what still waits for somebody never is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

import dispatcher.app
import dispatcher.broom
from dispatcher.config import load_config
from dispatcher.ground.clock import DAY, HOUR
from dispatcher.ground.errors import ConfigError
from dispatcher.store import ledger, retention
from dispatcher.store.acceptance import Fate
from dispatcher.store.engine import Database
from dispatcher.store.retention import Swept, sweep
from dispatcher.store.schema import attempts, deliveries, journal
from tests.graves import bury, one_of_each
from tests.ground import NOW
from tests.stores import STORES, trap, untrap
from tests.workshop import Bench, accept, configuration, row, rows, settle, settled, take, until

pytestmark = [pytest.mark.each_store, pytest.mark.anyio]


def deliver(database: Database, *keys: int, now: int = NOW) -> None:
    accept(database, *keys, now=now)
    settle(database, *[settled(claim, now) for claim in take(database, now)], now=now)


def swept(database: Database, before: int = NOW, place: int = 0, most: int = 100) -> tuple[int, bool]:
    """How many were deleted, and whether there may be more."""
    _, deleted, _, more = sweep(database, place, before, most)
    return deleted, more


def keys(database: Database) -> list[str]:
    return [one.key for one in rows(database)]


def count(database: Database, table: Any) -> int:
    with database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_what_was_delivered_or_resolved_goes_and_everything_else_stays(database: Database) -> None:
    kept = one_of_each(database)
    assert swept(database, NOW + 10 * 365 * DAY) == (2, True)
    assert sorted(one.status for one in rows(database)) == ["dead", "pending", "sending"]
    assert row(database, 1) == kept["dead"]
    # Four failures of the dead one; of those that went, only what was done by hand is left.
    assert count(database, attempts) == 4
    assert count(database, journal) == 1


def test_it_is_kept_until_the_time_is_over_and_not_longer(database: Database) -> None:
    deliver(database, 1)
    assert swept(database, NOW - 1) == (0, False)
    assert swept(database, NOW) == (1, True)
    assert swept(database, NOW) == (0, False)


def test_what_took_long_is_kept_from_its_end_on(database: Database) -> None:
    accept(database, 1)
    settle(database, settled(take(database)[0], NOW + HOUR), now=NOW + HOUR)
    assert swept(database, NOW) == (0, True)
    assert swept(database, NOW + HOUR) == (1, True)


def test_the_walk_goes_on_where_it_was_and_stops_at_what_is_young(database: Database) -> None:
    bury(database, 1, 2)
    deliver(database, 3, 4)
    deliver(database, 5, now=NOW + HOUR)
    ids = [one.id for one in rows(database)]
    steps, place = [], 0
    for _ in range(4):
        one = sweep(database, place, NOW, 2)
        steps.append((one.place, one.deleted, one.more))
        place = one.place
    assert steps == [(ids[1], 0, True), (ids[3], 2, True), (ids[3], 0, False), (ids[3], 0, False)]
    assert keys(database) == ["1", "2", "5"]


def test_behind_what_a_wrong_clock_has_stamped_the_old_is_found(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AHEAD", [1, 2, 4, 8])
    deliver(database, 1, 2, 3, now=NOW + 365 * DAY)
    deliver(database, 4, 5)
    place, deleted = 0, 0
    for _ in range(5):
        one = sweep(database, place, NOW, 1)
        place, deleted = one.place, deleted + one.deleted
    assert deleted == 2
    assert keys(database) == ["1", "2", "3"]


def test_an_event_that_comes_again_after_that_is_new(database: Database) -> None:
    deliver(database, 1)
    assert accept(database, 1) == [Fate.DUPLICATE]
    swept(database)
    assert accept(database, 1) == [Fate.ACCEPTED]


def test_a_step_that_fails_has_deleted_nothing(database: Database) -> None:
    deliver(database, 1, 2)
    trap(database, "BEFORE DELETE ON deliveries WHEN (old.key = '2')", "no")
    with pytest.raises(IntegrityError):
        swept(database)
    assert count(database, attempts) == 2
    untrap(database)
    assert swept(database) == (2, True)


def test_whoever_sweeps_beside_another_leaves_it_to_that_one(database: Database, store: str, tmp_path: Path) -> None:
    if store == "sqlite":
        # There is one writer at a time.
        return
    deliver(database, 1, 2)
    other = STORES.open(tmp_path)
    locked = text("SELECT id FROM deliveries WHERE key = '1' FOR UPDATE")
    with other.writing() as connection:
        connection.execute(locked)
        assert swept(database) == (1, True)
    assert swept(database) == (1, True)
    other.close()


def test_what_somebody_sends_again_at_this_moment_stays(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    (dead,) = bury(database, 1)
    ledger.resolve(database, [dead], "ada", "agreed", NOW)
    delete = retention._delete

    def late(connection: Any, ids: list[int], before: int) -> int:
        pending = {"status": "pending", "due_at": NOW, "finished_at": None}
        connection.execute(update(deliveries).values(**pending))
        return delete(connection, ids, before)

    monkeypatch.setattr(retention, "_delete", late)
    assert swept(database) == (0, True)
    assert keys(database) == ["1"]


@pytest.mark.parametrize(("top", "left"), [("", ["3"]), ('[retention]\ndelivered = "never"', ["1", "2", "3"])])
async def test_the_daemon_sweeps_between_its_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str, left: list[str]
) -> None:
    monkeypatch.setattr(dispatcher.broom, "AT_ONCE", 1)
    async with Bench(configuration(tmp_path, top=top)) as at:
        deliver(at.database, 1, 2, now=at.clock.now())
        at.clock.move(30 * DAY)
        deliver(at.database, 3, now=at.clock.now())
        broom = at.daemon.broom
        broom.round()
        task = broom._task
        broom.round()
        assert broom._task is task
        if task is not None:
            await asyncio.wait_for(task, 60)
        assert keys(at.database) == left
        assert [line["deleted"] for line in at.told("swept")] == ([2] if len(left) == 1 else [])


async def test_a_running_daemon_sweeps_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.app, "SWEEP_SECONDS", 0.02)
    async with Bench(configuration(tmp_path)) as at:
        deliver(at.database, 1, now=at.clock.now())
        at.clock.move(31 * DAY)
        run = asyncio.create_task(at.daemon.run())
        await until(lambda: bool(at.told("swept")))
        at.dispatch.stop()
        await asyncio.wait_for(run, 60)
        assert [line["deleted"] for line in at.told("swept")] == [1]


async def test_now_and_then_the_walk_begins_anew(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        (dead,) = bury(at.database, 1, now=at.clock.now())
        deliver(at.database, 2, now=at.clock.now())
        at.clock.move(31 * DAY)
        broom = at.daemon.broom
        await broom._sweep()
        assert keys(at.database) == ["1"]
        ledger.resolve(at.database, [dead], "ada", "agreed", at.clock.now())
        at.clock.move(31 * DAY)
        await broom._sweep()
        assert keys(at.database) == ["1"]
        broom._anew_at = 0.0
        await broom._sweep()
        assert keys(at.database) == []


async def test_a_bug_in_the_sweep_ends_no_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Swept:
        raise ValueError("a bug")

    monkeypatch.setattr(dispatcher.broom, "sweep", broken)
    async with Bench(configuration(tmp_path)) as at:
        await at.daemon.broom._sweep()
        assert len(at.told("sweep_broke")) == 1
        at.acme.respond(200)
        await at.send(1)
        await at.idle()
        assert at.row().status == "delivered"


async def test_whoever_stops_stops_sweeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.broom, "SHARE", 1e-9)
    monkeypatch.setattr(dispatcher.broom, "SHARE_OF_REST", 1e-9)
    monkeypatch.setattr(dispatcher.broom, "AT_ONCE", 1)
    async with Bench(configuration(tmp_path)) as at:
        deliver(at.database, 1, 2, now=at.clock.now())
        at.clock.move(31 * DAY)
        run = asyncio.create_task(at.daemon.run())
        swept_once = asyncio.Event()

        async def noted(work: Any, *args: Any) -> Any:
            try:
                return await at.dispatch.store(work, *args)
            finally:
                if work is sweep:
                    swept_once.set()

        monkeypatch.setattr(at.daemon.broom, "_store", noted)
        at.daemon.broom.round()
        await asyncio.wait_for(swept_once.wait(), 60)
        at.dispatch.stop()
        await asyncio.wait_for(run, 60)
        task = at.daemon.broom._task
        assert task is not None
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()
        assert [line["deleted"] for line in at.told("swept")] == [1]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('"30"', "is not a duration"),
        ("30", "is not a duration"),
        ('"59m"', "is too short"),
        ('"0d"', "is too short"),
        ('"99999d"', "longer than 100 years"),
        ('"off"', "is not a duration"),
    ],
)
@pytest.mark.sqlite_only
def test_a_retention_that_makes_no_sense_is_refused(tmp_path: Path, written: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"retention.delivered.*{told}"):
        load_config(configuration(tmp_path, top=f"[retention]\ndelivered = {written}"))


@pytest.mark.sqlite_only
def test_retention_is_thirty_days_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    def read(top: str) -> int | None:
        return load_config(configuration(tmp_path, top=top)).retention

    assert read("") == 30 * DAY
    assert read('[retention]\ndelivered = "2000d"') == 2000 * DAY
    assert read('[retention]\ndelivered = "never"') is None
