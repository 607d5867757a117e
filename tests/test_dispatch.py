"""The corridor at work: how many at once, whose turn it is, what is kept when something fails, how it stops."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

import dispatcher.app
import dispatcher.dispatch
import dispatcher.dispatch.thread
from dispatcher.dispatch import GATHER, attempt, form
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.protocols import PROTOCOLS
from dispatcher.store import acceptance, corridor
from dispatcher.store.corridor import Settlement, Turned
from dispatcher.store.engine import Database
from tests.ground import NOW
from tests.stores import open_store
from tests.workshop import Bench, Gate, accept, configuration, event, rows, until

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

OK = httpx.Response(200)
NO = httpx.Response(500)
ALL = ("acme", "bolt", "coin")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> "Away":
    """A store that can be sent away: `turn` fails as often as it is told, before or after it has written."""
    gone = Away()
    monkeypatch.setattr(corridor, "turn", gone.turn)
    monkeypatch.setattr(dispatcher.dispatch.thread, "BACKOFF_SECONDS", (0.001,))
    return gone


class Away:
    def __init__(self) -> None:
        self.times = 0
        self.turns = 0
        self.settled: list[int] = []
        self.asked: list[str] = []
        self._turn = corridor.turn

    def turn(self, database: Database, done: Sequence[Settlement], wanted: Mapping[str, int], now: int) -> Turned:
        if self.times:
            self.times -= 1
            raise StoreUnavailable("the disk is full")
        self.turns += 1
        self.asked += wanted
        self.settled += [settlement.claim.id for settlement in done]
        return self._turn(database, done, wanted, now)


def hand_in(at: Bench, count: int, *operators: str) -> None:
    """So many events for each operator, acme if none is named."""
    for name in operators or ("acme",):
        acceptance.accept(at.database, [event(key, operator=name) for key in range(count)], at.clock.now())


def known(at: Bench) -> None:
    """Every operator has answered before, and quickly."""
    for lane in at.dispatch.lanes.values():
        lane.proven = True


def statuses(at: Bench) -> set[str]:
    return {one.status for one in rows(at.database)}


# How many at once, and whose turn it is.


async def test_no_operator_has_more_in_flight_than_its_own_limit(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, *ALL, concurrency="3"), answer=gate.answer) as at:
        hand_in(at, 10, "acme", "bolt")
        await at.look()
        assert gate.waiting == {"acme": 3, "bolt": 3}
        for _ in range(3):
            await at.look()
        gate.open()
        await at.calm()
        assert gate.most == {"acme": 3, "bolt": 3}
        assert statuses(at) == {"delivered"}
        assert gate.answered == {"acme": 10, "bolt": 10}


async def test_all_operators_together_have_no_more_in_flight_than_the_worker_may(tmp_path: Path) -> None:
    gate = Gate()
    top = "[worker]\nconcurrency = 7"
    async with Bench(configuration(tmp_path, *ALL, top=top), answer=gate.answer) as at:
        known(at)
        hand_in(at, 10, *ALL)
        await at.look()
        assert gate.waiting.total() == 7
        gate.open()
        await at.calm()
        assert gate.most_in_all == 7
        assert statuses(at) == {"delivered"}


async def test_free_places_are_shared_out_evenly(tmp_path: Path) -> None:
    gate = Gate()
    top = "[worker]\nconcurrency = 9"
    async with Bench(configuration(tmp_path, *ALL, top=top), answer=gate.answer) as at:
        known(at)
        hand_in(at, 20, *ALL)
        await at.look()
        assert gate.waiting == dict.fromkeys(ALL, 3)


async def test_what_one_operator_leaves_the_others_take(tmp_path: Path) -> None:
    gate = Gate()
    top = "[worker]\nconcurrency = 9"
    async with Bench(configuration(tmp_path, *ALL, top=top), answer=gate.answer) as at:
        known(at)
        hand_in(at, 1, "acme")
        hand_in(at, 20, "bolt", "coin")
        await at.look()
        assert gate.waiting == {"acme": 1, "bolt": 4, "coin": 4}


async def test_a_newcomer_gets_the_next_place_that_comes_free(tmp_path: Path) -> None:
    gate = Gate()
    top = "[worker]\nconcurrency = 4"
    path = configuration(tmp_path, "acme", "bolt", top=top)
    async with Bench(path, answer=gate.answer) as at:
        known(at)
        hand_in(at, 20, "acme")
        await at.look()
        assert gate.waiting == {"acme": 4}
        hand_in(at, 20, "bolt")
        await at.look()
        for bolts in (1, 2):
            gate.let_one_pass("acme")
            await at.calm()
            assert gate.waiting == {"acme": 4 - bolts, "bolt": bolts}


async def test_an_operator_that_hangs_holds_none_of_the_others_back(tmp_path: Path) -> None:
    gate = Gate(shut="bolt")
    top = "[worker]\nconcurrency = 20"
    async with Bench(configuration(tmp_path, *ALL, top=top, concurrency="8"), answer=gate.answer) as at:
        hand_in(at, 200, *ALL)
        await at.look()
        assert gate.answered == {"acme": 200, "coin": 200}
        assert gate.waiting == {"bolt": 8}
        assert {one.status for one in rows(at.database, operator="acme")} == {"delivered"}
        assert {one.status for one in rows(at.database, operator="coin")} == {"delivered"}


async def test_an_operator_that_hangs_leaves_places_for_one_that_answers_and_for_a_newcomer(tmp_path: Path) -> None:
    gate = Gate(shut="bolt")
    top = "[worker]\nconcurrency = 8"
    async with Bench(configuration(tmp_path, *ALL, top=top, concurrency="8"), answer=gate.answer) as at:
        await at.send(1)
        hand_in(at, 100, "bolt")
        await at.look()
        assert gate.waiting == {"bolt": 6}
        at.clock.move(MINUTE)
        hand_in(at, 100, "acme", "coin")
        await at.look()
        assert gate.answered == {"acme": 100, "coin": 100}
        gate.open()
        await at.idle()
        assert gate.answered["bolt"] == 100


async def test_a_backlog_larger_than_every_limit_drains_without_another_look(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, concurrency="3")) as at:
        at.acme.mock(return_value=OK)
        hand_in(at, 50)
        await at.look()
        assert at.sent == 50
        assert statuses(at) == {"delivered"}


async def test_work_that_comes_while_all_places_are_taken_is_not_forgotten(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, concurrency="2"), answer=gate.answer) as at:
        hand_in(at, 2)
        await at.look()
        accept(at.database, 5, 6, 7, now=at.clock.now())
        await at.look()
        gate.open()
        await at.calm()
        assert gate.answered == {"acme": 5}


async def test_who_is_named_while_a_turn_is_under_way_is_served_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn has not seen that work, and takes its operator for sated."""
    loop, turn = asyncio.get_running_loop(), corridor.turn
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)

        def turned(database: Database, done: Sequence[Settlement], wanted: Mapping[str, int], now: int) -> Turned:
            found = turn(database, done, wanted, now)
            if at.database is database and found.claimed and found.claimed[0].key == "1":
                acceptance.accept(database, [event(2)], NOW)
                loop.call_soon_threadsafe(at.dispatch.feed, ["acme"])
            return found

        monkeypatch.setattr(corridor, "turn", turned)
        await at.send(1)
        assert at.sent == 2


async def test_who_is_named_and_not_known_is_looked_for(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        await at.look()
        accept(at.database, 1)
        at.dispatch.feed(["nobody-we-know"])
        await at.calm()
        assert at.sent == 1


async def test_an_operator_with_nothing_due_is_not_asked_for(tmp_path: Path, away: Away) -> None:
    async with Bench(configuration(tmp_path, "acme", "bolt")) as at:
        at.acme.mock(return_value=NO)
        hand_in(at, 1)
        await at.look()
        turns, asked = away.turns, set(away.asked)
        for _ in range(5):
            await at.after(1)
        assert (away.turns, asked) == (turns, {"acme"})


# Stopping.


async def test_a_stop_claims_nothing_more_and_settles_what_is_in_flight(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, concurrency="2"), answer=gate.answer) as at:
        hand_in(at, 6)
        run = asyncio.create_task(at.dispatch.run())
        await until(lambda: gate.waiting["acme"] == 2)
        at.dispatch.stop()
        at.dispatch.look()
        await asyncio.sleep(0.01)
        assert not run.done()
        gate.open()
        await asyncio.wait_for(run, 60)
        assert gate.answered == {"acme": 2}
        assert sorted(one.status for one in rows(at.database)) == ["delivered"] * 2 + ["pending"] * 4
        assert len(at.attempts(0)) + len(at.attempts(1)) == 2


async def test_a_stop_with_nothing_in_flight_ends_at_once(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        hand_in(at, 3)
        at.dispatch.stop()
        await asyncio.wait_for(at.dispatch.run(), 60)
        assert statuses(at) == {"pending"}


async def test_results_that_the_store_refuses_hold_the_stop_until_they_are_settled(tmp_path: Path, away: Away) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        hand_in(at, 5)
        await at.look()
        away.times = 20
        at.dispatch.stop()
        gate.open()
        await asyncio.wait_for(at.dispatch.run(), 60)
        assert away.times == 0
        assert statuses(at) == {"delivered"}


# A store that is away.


async def test_results_are_kept_while_the_store_is_away_and_settled_exactly_once(tmp_path: Path, away: Away) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        hand_in(at, 5)
        await at.look()
        away.times = 7
        gate.open()
        await at.calm()
        assert away.times == 0
        assert statuses(at) == {"delivered"}
        assert sorted(away.settled) == sorted(one.id for one in rows(at.database))
        assert [(one["n"], one["late"]) for key in range(5) for one in at.attempts(key)] == [(1, False)] * 5
        assert len(at.told("attempt")) == 5
        assert gate.answered == {"acme": 5}
        assert [line["error"] for line in at.told("store_unavailable")][:1] == ["the disk is full"]
        assert at.dispatch.outage.fault is None


async def test_attempts_that_end_while_the_store_is_away_are_settled_with_the_rest(tmp_path: Path, away: Away) -> None:
    gate = Gate(shut="bolt")
    async with Bench(configuration(tmp_path, "acme", "bolt"), answer=gate.answer) as at:
        hand_in(at, 2, "bolt")
        await at.look()
        hand_in(at, 2, "acme")
        away.times = 5
        looking = asyncio.create_task(at.look())
        gate.open()
        await looking
        await at.calm()
        assert statuses(at) == {"delivered"}
        assert len(away.settled) == len(set(away.settled)) == 4


@pytest.mark.sqlite_only
async def test_who_waits_for_a_file_looks_again_within_a_millisecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two transactions of a busy worker there is hardly more: who looks less often is kept out by it."""
    database = open_store(tmp_path / "dispatcher.db")
    other = sqlite3.connect(tmp_path / "dispatcher.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 20:
            other.execute("COMMIT")

    monkeypatch.setattr("dispatcher.store.databases.sqlite.time.sleep", sleep)
    with database.writing():
        assert len(waited) == 20
        assert max(waited) <= 0.001
    other.close()
    database.close()


async def test_the_alarm_looks_at_the_store_unless_that_was_just_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due then goes out with what comes meanwhile, or a little later by one look for all of it."""
    ticks = [100.0]
    async with Bench(configuration(tmp_path)) as at:
        monkeypatch.setattr("dispatcher.dispatch.time.monotonic", lambda: ticks[0])
        soon = at.clock.now() + GATHER
        accept(at.database, 1, now=at.clock.now() + 1)
        await at.look()
        assert at.armed[-1] == soon, "not a microsecond later"
        ticks[0] += GATHER / SECOND / 2
        at.dispatch.fell_due()
        assert at.armed[-1] == soon
        assert not at.dispatch._look
        ticks[0] += GATHER / SECOND
        at.dispatch.fell_due()
        assert at.dispatch._look


@pytest.mark.sqlite_only
async def test_a_file_that_another_writer_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.app, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(dispatcher.dispatch.thread, "BACKOFF_SECONDS", (0.001,))
    gate = Gate()
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        hand_in(at, 3)
        await at.look()
        other = sqlite3.connect(tmp_path / "dispatcher.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        gate.open()
        working = asyncio.create_task(at.calm())
        await until(lambda: bool(at.told("store_unavailable")))
        assert "database is locked" in str(at.dispatch.outage.fault)
        assert at.daemon.not_ready()["database"] == at.dispatch.outage.fault
        assert statuses(at) == {"sending"}
        other.execute("ROLLBACK")
        other.close()
        await working
        assert statuses(at) == {"delivered"}
        assert [(one["n"], one["late"]) for key in range(3) for one in at.attempts(key)] == [(1, False)] * 3


async def test_nothing_in_flight_is_rescued_from_under_its_hand_while_the_store_is_away(
    tmp_path: Path, away: Away
) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        hand_in(at, 3)
        await at.look()
        gate.open()
        await asyncio.sleep(0)
        at.clock.move(HOUR)
        at.daemon._rescue()
        away.times = 3
        await at.look()
        assert statuses(at) == {"delivered"}
        assert [(one["n"], one["late"]) for key in range(3) for one in at.attempts(key)] == [(1, False)] * 3


async def test_what_another_worker_left_is_rescued_while_this_one_runs_once_its_lease_is_over(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        hand_in(at, 1)
        corridor.turn(at.database, [], {"acme": 1}, NOW)
        at.clock.move(MINUTE - 1)
        at.daemon._rescue()
        await at.look()
        assert at.row(0).status == "sending"
        at.clock.move(1)
        at.daemon._rescue()
        await at.calm()
        assert at.row(0)[5:7] == ("delivered", 2)
        assert [one["reason"] for one in at.attempts(0)] == ["interrupted", None]


# Operators that are not configured, and reloads.


async def test_deliveries_of_an_unknown_operator_wait_and_are_told_once(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        hand_in(at, 3, "bolt")
        hand_in(at, 1)
        for _ in range(5):
            await at.after(HOUR)
        assert [line["operator"] for line in at.told("operator_not_configured")] == ["bolt"]
        assert {one.status for one in rows(at.database, operator="bolt")} == {"pending"}
        assert at.row(0).status == "delivered"
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=OK)
        await at.daemon.reload(configuration(tmp_path, "acme", "bolt"))
        await at.calm()
        assert bolt.call_count == 3
        assert statuses(at) == {"delivered"}


async def test_what_was_cut_off_at_an_operator_that_is_gone_from_the_configuration_waits(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, "acme", "bolt"), answer=Gate().answer) as at:
        hand_in(at, 1, "bolt")
        await at.look()
        configuration(tmp_path)
        await at.restart()
        await at.look()
        assert at.row(0, "bolt")[5:7] == ("pending", 1)
        assert at.row(0, "bolt").reason == "interrupted"


async def test_a_reload_changes_the_settings_of_the_next_attempts(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, concurrency="2"), answer=gate.answer) as at:
        hand_in(at, 10)
        await at.look()
        assert gate.waiting == {"acme": 2}
        await at.daemon.reload(configuration(tmp_path, concurrency="5", top="[worker]\nconcurrency = 4"))
        await at.calm()
        assert gate.waiting == {"acme": 4}
        await at.daemon.reload(configuration(tmp_path, concurrency="5"))
        await at.calm()
        assert gate.waiting == {"acme": 5}
        await at.daemon.reload(configuration(tmp_path, concurrency="1"))
        await at.calm()
        assert gate.waiting == {"acme": 5}
        gate.open()
        await at.calm()
        assert statuses(at) == {"delivered"}
        assert gate.most == {"acme": 5}
        assert [line["operators"] for line in at.told("reloaded")] == [1, 1, 1]


async def test_an_attempt_under_way_ends_by_the_schedule_it_began_with(tmp_path: Path) -> None:
    gate = Gate()

    async def no(request: httpx.Request) -> httpx.Response:
        await gate.answer(request)
        return NO

    async with Bench(configuration(tmp_path), answer=no) as at:
        hand_in(at, 1)
        await at.look()
        await at.daemon.reload(configuration(tmp_path, retry='{ delays = ["7m"] }'))
        gate.open()
        await at.calm()
        assert at.row(0).due_at == NOW + MINUTE
        await at.after(MINUTE)
        assert at.row(0)[5:7] == ("dead", 2)


async def test_an_operator_that_a_reload_takes_away_gets_nothing_more(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, "acme", "bolt", concurrency="1"), answer=gate.answer) as at:
        hand_in(at, 3, "acme", "bolt")
        await at.look()
        await at.daemon.reload(configuration(tmp_path, concurrency="1"))
        gate.open()
        await at.calm()
        assert gate.answered == {"acme": 3, "bolt": 1}
        assert sorted(one.status for one in rows(at.database, operator="bolt")) == ["delivered", "pending", "pending"]


async def test_a_faulty_reload_leaves_the_old_settings_in_force_and_is_told(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        old = at.daemon.config
        for text in ("[operators.acme", "[operators.acme]\nnotice_url = 5", ""):
            at.path.write_text(text + "\nnonsense = 1")
            await at.daemon.reload(at.path)
        at.path.unlink()
        await at.daemon.reload(at.path)
        assert at.daemon.config is old
        refused = at.told("reload_refused")
        assert len(refused) == 4
        assert all(line["faults"] and line["level"] == "error" for line in refused)
        assert [fault for line in refused for fault in line["faults"] if "notice_url" in fault]
        hand_in(at, 1)
        await at.look()
        assert at.row(0).status == "delivered"


async def test_a_reload_while_the_store_is_away_takes_effect_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        old, away = at.daemon.config, asyncio.Event()

        def refuse(*_arguments: object, **_named: object) -> list[str]:
            away.set()
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr("dispatcher.enrolment.provision", refuse)
            reload = asyncio.create_task(
                at.daemon.reload(configuration(tmp_path, concurrency="1", top="[worker]\nconcurrency = 1"))
            )
            await until(away.is_set)
            assert at.daemon.config is old
            assert at.dispatch.concurrency == old.concurrency
        await asyncio.wait_for(reload, 60)
        assert at.told("store_unavailable")
        assert at.dispatch.concurrency == at.dispatch.lanes["acme"].operator.concurrency == 1
        hand_in(at, 1)
        await at.look()
        assert at.row(0).status == "delivered"


async def test_a_reload_names_what_only_a_restart_changes(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        await at.daemon.reload(
            configuration(tmp_path, top='[database]\nurl = "sqlite:///other.db"\n[log]\nlevel = "debug"')
        )
        assert [line["settings"] for line in at.told("reload_needs_restart")] == [["database", "log_level"]]


# What breaks within an attempt.


def broken(*_arguments: object, **_named: object) -> Any:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("place", ["body", "seal", "request", "transport"])
async def test_a_bug_within_an_attempt_is_settled_as_doubtful_and_the_worker_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        with monkeypatch.context() as patch:
            if place == "body":
                patch.setattr(form, "SPOKEN", {"notice": PROTOCOLS["notice"]._replace(body=broken)})
            elif place == "seal":
                patch.setattr("dispatcher.seal.Seal.seal", broken)
            elif place == "request":
                patch.setattr(attempt, "Request", broken)
            else:
                at.acme.mock(side_effect=broken)
            hand_in(at, 2)
            await at.look()
        at.acme.mock(return_value=OK)
        at.dispatch.lanes["acme"].forms.clear()
        for key in range(2):
            assert at.row(key)[5:7] == ("pending", 1)
            assert at.row(key).due_at == NOW + MINUTE
            (made,) = at.attempts(key)
            assert (made["reason"], made["ambiguous"], made["detail"]) == ("interrupted", True, "ZeroDivisionError")
            assert made["key_version"] == 1
        assert len(at.told("attempt_broke")) == 2
        assert at.dispatch.in_flight == 0
        assert not at.dispatch._held
        await at.after(MINUTE)
        assert statuses(at) == {"delivered"}


async def test_a_bug_does_not_use_up_an_operators_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench(configuration(tmp_path, concurrency="2")) as at:
        at.acme.mock(return_value=OK)
        with monkeypatch.context() as patch:
            patch.setattr(attempt, "Request", broken)
            hand_in(at, 10)
            await at.look()
        assert len(at.told("attempt_broke")) == 10
        assert at.dispatch.lanes["acme"].places(NOW) == 2


async def test_a_delivery_of_a_type_that_is_not_known_is_settled_and_the_worker_lives_on(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        acceptance.accept(at.database, [event(1)._replace(type="other"), event(2)], NOW)
        await at.look()
        assert at.row(2).status == "delivered"
        assert at.row(1).status in ("pending", "dead")
        assert not at.dispatch._held
        at.dispatch.stop()
        await asyncio.wait_for(at.dispatch.run(), 60)


async def test_a_body_that_is_not_what_the_protocol_froze_is_settled_too(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        acceptance.accept(at.database, [event(1)._replace(body="{"), event(2)], NOW)
        await at.look()
        assert at.row(2).status == "delivered"
        assert (at.row(1).status, at.row(1).reason) == ("pending", "interrupted")
