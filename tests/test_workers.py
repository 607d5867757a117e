"""Any number of workers on one database: they share the work, see each other, and take over from whoever is gone."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

import dispatcher.ear
from dispatcher.app import Daemon
from dispatcher.dispatch.outage import Outage
from dispatcher.dispatch.pulse import BEAT_SECONDS, Pulse
from dispatcher.dispatch.thread import StoreThread
from dispatcher.ear import Ear
from dispatcher.ground.clock import HOUR, MINUTE, SECOND, WallClock
from dispatcher.ground.errors import Refused
from dispatcher.ground.place import Server
from dispatcher.ground.policy import Reason
from dispatcher.ground.secret import Secret
from dispatcher.store import acceptance, corridor, operators, workers
from dispatcher.store.corridor import Adopted
from dispatcher.store.databases import postgresql
from dispatcher.store.engine import Database, open_database
from dispatcher.store.workers import LIMIT, Crew
from tests.ground import NOW
from tests.stores import STORES, PostgreSQL, Standby, open_folder, started
from tests.story import ServerStory, orders, until
from tests.workshop import (
    Bench,
    Gate,
    accept,
    adopt,
    attempts_of,
    configuration,
    event,
    failed,
    kept_log,
    row,
    rows,
    settle,
    settled,
    take,
)
from tests.workshop import until as soon

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("on_the_server")]


@pytest.fixture
def pair() -> Iterator[tuple[Database, Database]]:
    """Two workers that are there."""
    both = STORES.open(Path()), STORES.open(Path())
    for one in both:
        workers.enter(one)
    yield both
    for one in both:
        one.close()


def run(database: Database, statement: str, **parameters: Any) -> Any:
    with database.writing() as connection:
        result = connection.execute(text(statement), parameters)
        return [tuple(found) for found in result] if result.returns_rows else None


def age(database: Database, by: int, *columns: str, whose: Database | None = None) -> None:
    """As if that much more time (µs) had gone by since what these columns of `workers` say; everybody's, or one's."""
    changes = ", ".join(f"{column} = {column} - {by}" for column in columns)
    whom = "" if whose is None else f" WHERE id = {whose.worker}"
    run(database, f"UPDATE workers SET {changes}{whom}")


def living(database: Database) -> set[int]:
    return {number for (number,) in run(database, "SELECT id FROM workers")}


# Beats.


def test_a_worker_that_does_not_beat_any_more_is_gone_for_whoever_has_beaten_for_as_long(
    pair: tuple[Database, Database],
) -> None:
    here, other = pair
    age(here, LIMIT, "since", whose=here)
    age(here, LIMIT - SECOND, "since", "seen_at", whose=other)
    assert workers.beat(here, broken=False).gone == 0
    age(here, 2 * SECOND, "seen_at", whose=other)
    assert workers.beat(here, broken=False) == (Crew(2, int(here.worker > other.worker)), 1)
    assert workers.beat(here, broken=False) == (Crew(1, 0), 0)
    assert living(here) == {here.worker}


@pytest.mark.parametrize("broken", [True, False], ids=["a beat failed", "no beat for too long"])
def test_who_was_cut_off_itself_takes_nobody_for_dead(pair: tuple[Database, Database], broken: bool) -> None:
    """As after an outage of the database: every row is old, and one of the workers is the first to come back."""
    here, other = pair
    age(here, HOUR, "since", "seen_at")
    if broken:
        age(here, -HOUR, "seen_at", whose=here)
    assert workers.beat(here, broken=broken).gone == 0
    assert workers.beat(here, broken=False).gone == 0
    assert living(here) == {here.worker, other.worker}
    workers.beat(other, broken=True)
    age(here, LIMIT, "since")
    assert workers.beat(here, broken=False).gone == 0


def test_a_server_whose_clock_was_set_back_keeps_nobody_alive(pair: tuple[Database, Database]) -> None:
    here, other = pair
    age(here, -HOUR, "since", "seen_at")
    assert workers.beat(here, broken=False).gone == 0
    age(here, LIMIT, "since", whose=here)
    assert workers.beat(here, broken=False).gone == 1
    assert living(other) == {here.worker}


def test_who_was_taken_for_dead_is_there_again_with_its_next_beat_or_claim(pair: tuple[Database, Database]) -> None:
    here, other = pair
    accept(here, 1)
    for comes_back in (lambda: workers.beat(other, broken=False), lambda: take(other)):
        workers.leave(other)
        assert living(here) == {here.worker}
        comes_back()
        assert living(here) == {here.worker, other.worker}
    assert row(here).status == "sending"
    assert adopt(here) == []


def test_a_beat_that_finds_a_fault_of_ours_is_told_and_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    log, lines = kept_log()

    class Hand:
        crew: Crew | None = None
        outage = Outage(log, lambda: 0)
        store = StoreThread("store", outage)

        def join(self, crew: Crew) -> None:
            self.crew = crew

    def refuse(*_: object, **__: object) -> None:
        raise Refused("it is being copied")

    database, hand = STORES.open(Path()), Hand()
    pulse = Pulse(hand, database, lambda: None, log)  # type: ignore[arg-type]  # all that a beat asks of a corridor
    with monkeypatch.context() as patch:
        patch.setattr(workers, "beat", refuse)
        for _ in range(3):
            asyncio.run(pulse.beat())
    assert [(line["event"], line["error"]) for line in lines] == [("store_unavailable", "it is being copied")]
    asyncio.run(pulse.beat())
    assert hand.outage.fault is None
    lines.clear()
    with monkeypatch.context() as patch:
        patch.setattr(workers, "beat", lambda *_, **__: 1 / 0)
        asyncio.run(pulse.beat())
    assert [line["event"] for line in lines] == ["beat_broke"]
    asyncio.run(pulse.beat())
    assert hand.crew == Crew(1, 0)
    database.close()


@given(whole=st.integers(1, 10_000), size=st.integers(1, 100))
def test_the_shares_of_all_workers_are_the_whole_or_one_each(whole: int, size: int) -> None:
    shares = [Crew(size, place).share(whole) for place in range(size)]
    assert sum(shares) == max(whole, size)
    assert max(shares) - min(shares) <= 1


# Claims of those who are gone.


def test_two_workers_that_adopt_at_once_record_each_interruption_once(
    pair: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found the claims when the first of them takes them."""
    here, other = pair
    dead = STORES.open(Path())
    accept(here, *range(20))
    claims = take(dead)
    workers.leave(dead)
    dead.close()
    adopted: list[Adopted] = []
    writing = other.writing

    def after_the_first() -> Any:
        monkeypatch.setattr(other, "writing", writing)
        adopted.extend(adopt(here))
        return writing()

    monkeypatch.setattr(other, "writing", after_the_first)
    assert adopt(other) == []
    assert sorted(one.claim.id for one in adopted) == sorted(claim.id for claim in claims)
    done = [failed(one.claim, NOW, Reason.INTERRUPTED) for one in adopted]
    assert settle(here, *done) == []
    assert run(here, "SELECT count(*), min(n), max(n) FROM attempts WHERE NOT late") == [(20, 1, 1)]
    late = settled(claims[0], NOW)
    assert settle(other, late) == [late]
    assert row(here, claims[0].key)[5:7] == ("pending", 1)


def test_what_is_adopted_twice_under_one_token_is_the_same(pair: tuple[Database, Database]) -> None:
    """As by a worker that never heard whether its adoption was committed."""
    here, other = pair
    accept(here, 1, 2)
    take(other)
    workers.leave(other)
    token = secrets.randbits(63)
    first = corridor.adopt(here, 0, set(), token)
    assert len(first) == 2
    assert corridor.adopt(here, 0, set(), token) == first
    assert adopt(here, 0) == []


def test_a_table_of_locks_without_its_rows_is_told_and_nothing_is_done_unlocked() -> None:
    database = STORES.open(Path())
    held = run(database, "DELETE FROM locks RETURNING id")
    try:
        with pytest.raises(Refused, match="the table locks lacks rows"):
            operators.declare(database, [operators.Declared("acme", "L", None)], [], "file", ("set", "tester"), NOW)
    finally:
        run(database, f"INSERT INTO locks VALUES {', '.join(f'({number})' for (number,) in held)}")
        database.close()


# Daemons, in one process.


class Two:
    """Two daemons at work on one database, each with its own log."""

    def __init__(self, path: Path, answer: Any) -> None:
        self.both = [Bench(path, answer=answer) for _ in range(2)]
        self._stack = AsyncExitStack()
        self._working: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> tuple[Bench, Bench]:
        for at in self.both:
            at.daemon = at.build()
            self._stack.push_async_callback(at.cut_off)
            self._working.append(asyncio.create_task(at.daemon.run()))
            await soon(lambda at=at: bool(at.told("running")))  # type: ignore[misc]
        return self.both[0], self.both[1]

    async def __aexit__(self, *_: object) -> None:
        for at in self.both:
            at.dispatch.stop()
        await asyncio.wait(self._working, timeout=60)
        assert [at.told("stopped") != [] for at in self.both] == [True, True]
        await self._stack.aclose()


async def test_two_workers_share_the_work_and_send_each_delivery_once(tmp_path: Path) -> None:
    times: Counter[bytes] = Counter()

    async def answer(request: httpx.Request) -> httpx.Response:
        times[request.content] += 1
        await asyncio.sleep(0)
        return httpx.Response(200)

    async with Two(configuration(tmp_path, concurrency="8"), answer) as (one, other):
        accept(one.database, *range(300))
        one.database.ring()
        await soon(lambda: len(one.told("attempt")) + len(other.told("attempt")) == 300)
        assert one.told("attempt")
        assert other.told("attempt")
        assert (len(times), set(times.values())) == (300, {1})
        assert {found[5:7] for found in rows(one.database)} == {("delivered", 1)}
        assert run(one.database, "SELECT count(*) FROM attempts") == [(300,)]
        database = STORES.open(tmp_path)
    assert living(database) == set(), "who stops takes its row away"
    database.close()


async def test_workers_share_an_operators_places_and_take_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.dispatch.pulse.BEAT_SECONDS", 0.01)
    gate = Gate()
    async with Two(configuration(tmp_path, concurrency="5"), gate.answer) as (one, other):
        await soon(lambda: one.dispatch.crew.size == other.dispatch.crew.size == 2)
        accept(one.database, *range(20))
        one.database.ring()
        await soon(lambda: gate.waiting["acme"] == 5)
        assert sorted((one.dispatch.in_flight, other.dispatch.in_flight)) == [2, 3]
        other.dispatch.stop()
        gate.open()
        await soon(lambda: one.dispatch.crew == Crew(1, 0))
        assert gate.most["acme"] == 5
        assert one.dispatch.lanes["acme"].places(NOW, one.dispatch.crew) >= 4


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_host_whose_clock_is_an_hour_off_goes_by_the_databases(
    tmp_path: Path, postgresql: PostgreSQL, ahead: int
) -> None:
    """It is the server's that is set wrong here: nobody can tell which of the two it is."""
    with set_wrong(tmp_path, postgresql, ahead) as (top, _):
        path = configuration(tmp_path, retry='{ delays = ["30ms"] }', top=top)
        answers = iter([httpx.Response(500), httpx.Response(200)])
        await _retried_by_two(path, httpx.MockTransport(lambda _: next(answers)), ahead)


@contextmanager
def set_wrong(folder: Path, postgresql: PostgreSQL, ahead: int) -> Iterator[tuple[str, Callable[[int], object]]]:
    """A database whose server's clock is so far ahead (µs), for a configuration; and what sets that clock anew."""
    door = STORES.open(folder)

    def set_ahead(by: int) -> None:
        clock = f"SELECT pg_catalog.clock_timestamp() + interval '{by} microseconds'"
        made = "CREATE OR REPLACE FUNCTION off.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql"
        run(door, f"{made} AS $${clock}$$")

    run(door, "CREATE SCHEMA off")
    set_ahead(ahead)
    try:
        yield f'[database]\nurl = "{postgresql.url}&options=-csearch_path%3Doff,pg_catalog"\n', set_ahead
    finally:
        run(door, "DROP SCHEMA off CASCADE")
        door.close()


async def test_a_clock_that_jumps_ahead_in_a_pause_takes_nothing_of_the_window_that_begins_after_it(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    """The worker hears of the resume before its next beat, which would have told it of the jump."""
    with set_wrong(tmp_path, postgresql, 0) as (top, set_ahead):
        path = configuration(tmp_path, retry='{ every = "60s", for = "3h" }', top=top)
        at = Bench(path)
        at.acme.mock(return_value=httpx.Response(500))
        at.daemon = Daemon(at.config, at.log, transport=at.transport)
        workers.enter(at.database)
        clock = at.daemon.clock
        paused_at = clock.now()
        operators.pause(at.database, "acme", "ada", None, paused_at)
        accept(at.database, 1, now=paused_at)
        await at.look()
        assert at.sent == 0
        set_ahead(5 * HOUR)
        # By another process, which has just read the server's clock.
        operators.resume(at.database, "acme", "bob", None, clock.now() + 5 * HOUR)
        await at.look()
        await at.idle()
        lane, waiting = at.dispatch.lanes["acme"], at.row()
        assert (at.sent, waiting.status, lane.closed_since) == (1, "pending", None)
        ((began,),) = run(at.database, "SELECT anchor_at FROM deliveries")
        # On the operator's own clock, which stood still in between.
        assert began >= paused_at
        assert waiting.due_at == lane.closed_total + began + MINUTE
        await at.cut_off()


async def _retried_by_two(path: Path, transport: httpx.MockTransport, ahead: int) -> None:
    log, lines = kept_log()
    first, second = (Daemon(Bench(path).config, log, transport=transport) for _ in range(2))
    tasks = [asyncio.create_task(one.run()) for one in (first, second)]
    await soon(lambda: len([line for line in lines if line["event"] == "running"]) == 2)
    for one in (first, second):
        # Only the alarm wakes it from now on.
        one.rounds._due, one.dispatch.look = one.dispatch.look, lambda: None  # type: ignore[method-assign]
    began = first.database.clock().now()
    assert abs(began - WallClock().now() - ahead) < MINUTE
    acceptance.accept(first.database, [event(1)], began)
    first.database.ring()
    await soon(lambda: len([line for line in lines if line["event"] == "attempt"]) == 2)
    sent = attempts_of(first.database, 1)
    assert row(first.database, 1).status == "delivered"
    ended = sent[0]["started_at"] + sent[0]["duration"]
    assert 30_000 <= sent[1]["started_at"] - ended < 3 * SECOND, "rung, not found by a round"
    assert began <= sent[0]["started_at"] < began + MINUTE
    assert len(living(first.database)) == 2
    for one in (first, second):
        one.dispatch.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


# The bell.


@pytest.mark.parametrize("words", ["LISTEN elsewhere", "LISTEN TO ME"], ids=["nothing comes back", "refused"])
async def test_where_no_bell_is_heard_a_worker_looks_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(postgresql, "LISTEN", words)
    monkeypatch.setattr(postgresql, "PROOF_SECONDS", 0.05)
    monkeypatch.setattr(dispatcher.ear, "POLLS", 1_000_000)
    monkeypatch.setattr(dispatcher.ear, "POLL_SECONDS", 0.02)
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        working = asyncio.create_task(at.daemon.run())
        await soon(lambda: bool(at.told("polling")))
        for key in range(3):
            accept(at.database, key)
            await soon(lambda key=key: at.sent == key + 1)  # type: ignore[misc]
        at.dispatch.stop()
        await working


async def test_a_bell_that_is_not_heard_is_told_once_and_listened_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.ear, "POLLS", 1)
    monkeypatch.setattr(dispatcher.ear, "POLL_SECONDS", 0.0)
    log, lines = kept_log()
    tried, looks = Counter[str](), Counter[str]()

    class Mute:
        def listen(self) -> None:
            tried["listen"] += 1

        def deafen(self) -> None:
            tried["deafen"] += 1

    ear = Ear(Mute(), lambda: looks.update(["look"]), looks.update, log)  # type: ignore[arg-type]  # all that an ear asks of it
    async with ear.listening():
        await soon(lambda: tried["listen"] >= 5)
    assert ([line["event"] for line in lines], tried["deafen"]) == (["polling"], 1)
    assert looks["look"] >= tried["listen"]


def test_a_ring_that_the_database_does_not_know_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    database = STORES.open(Path())
    accept(database, 1)
    monkeypatch.setattr(postgresql, "CHANNEL", "no channel")
    database.ring()
    assert row(database).status == "pending"
    database.close()


# Several servers.


def test_of_several_servers_the_one_that_answers_is_taken(postgresql: PostgreSQL) -> None:
    folder = postgresql.url.partition("host=")[2]
    url = f"postgresql+psycopg://postgres@/postgres?host=/nowhere&host={folder}"
    database = open_database(Server(Secret(url), "postgresql://several"))
    assert corridor.survey(database).earliest == {}
    database.close()
    with pytest.raises(Refused, match="write several servers as host=a:5432&host=b:5432"):
        open_database(Server(Secret(f"{url}&port=1,2"), "postgresql://several"))


# Whole stories.


@pytest.fixture
def story(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[ServerStory]:
    with ServerStory(tmp_path, postgresql) as story:
        yield story


def test_what_a_killed_worker_held_is_back_in_play_within_ten_seconds(story: ServerStory) -> None:
    story.set(concurrency=8, total_timeout="5s")
    events = orders(24)
    with story.receiving("--delay", "1s") as receiver:
        with story.running() as one, story.twin().running() as other:
            # Both have beaten since both are there, and share the operator's places.
            until(lambda: story.query("SELECT count(*), min(seen_at) > max(started_at) FROM workers") == [(2, True)])
            story.enqueue(events)
            until(lambda: receiver.requests() >= 8)
            one.kill()
            killed = time.monotonic()
            its_own = f"SELECT id FROM workers WHERE position('process {one.process.pid} on ' IN name) = 1"
            ((held,),) = story.query(f"SELECT count(*) FROM deliveries WHERE worker = ({its_own})")
            assert held > 0
            until(lambda: other.told("claims_rescued"), told=other.text)
            assert time.monotonic() - killed < 10
            # It was last seen up to a beat before it died, and is missed by the other's next one.
            assert LIMIT / SECOND + 2 * BEAT_SECONDS < 10
            until(lambda: story.all_are("delivered"), told=other.text)
            assert other.told("workers_gone")[0]["count"] == 1
        assert set(receiver.booked()) == {one["order_no"] for one in events}
    made = story.query("SELECT n, late, count(*) FROM attempts WHERE reason = 'interrupted' GROUP BY n, late")
    assert made == [(1, False, held)]
    assert story.query("SELECT count(*) FROM attempts") == [(len(events) + held,)]
    story.prove()


def test_a_server_that_is_away_for_longer_than_the_limit_costs_no_attempt(tmp_path: Path) -> None:
    """Whoever comes back first leaves to the others what they hold."""
    events = orders(80)
    with open_folder() as folder, started(folder) as server, ServerStory(tmp_path, server) as story:
        story.set(concurrency=8)
        with story.receiving("--delay", "50ms") as receiver, story.running() as one, story.twin().running() as other:
            both = (one, other)
            story.enqueue(events)
            until(lambda: receiver.requests() >= 20)
            server.stop()
            away = time.monotonic()
            until(lambda: all(at.told("store_unavailable") and at.told("bell_lost") for at in both))
            assert until(lambda: one.get("/readyz")).status_code == 503
            until(lambda: time.monotonic() - away > LIMIT / SECOND + 0.5)
            server.start()
            until(lambda: story.all_are("delivered"), told=one.text)
            until(lambda: all(at.told("listening") for at in both))
            assert set(receiver.booked().values()) == {1}
        assert story.query("SELECT max(attempts), count(*) FROM deliveries") == [(1, 80)]
        assert story.query("SELECT count(*), count(*) FILTER (WHERE late) FROM attempts") == [(80, 0)]
        assert not one.told("claims_rescued") + other.told("claims_rescued")
        story.prove()


def test_a_standby_that_takes_over_goes_on_where_the_server_was(tmp_path: Path) -> None:
    events = orders(80)
    with open_folder() as folder, started(folder) as leader:
        standby = Standby(folder, leader)
        standby.follow()
        try:
            with ServerStory(tmp_path, standby) as story:
                story.set(concurrency=8)
                with story.receiving("--delay", "50ms") as receiver, story.running() as daemon:
                    story.enqueue(events)
                    until(lambda: receiver.requests() >= 20)
                    standby.take_over()
                    until(lambda: story.all_are("delivered"), told=daemon.text)
                    until(lambda: daemon.told("listening"))
                    assert set(receiver.booked().values()) == {1}
                    until(lambda: len(daemon.told("store_unavailable")) == len(daemon.told("store_back")) >= 1)
                    assert "Traceback" not in daemon.text()
                    assert daemon.get("/readyz").status_code == 200
                assert story.query("SELECT count(*), count(*) FILTER (WHERE late) FROM attempts") == [(80, 0)]
        finally:
            standby.close()
