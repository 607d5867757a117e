"""Pausing and resuming an operator: it parks what waits, drops nothing, and costs neither an attempt nor a window."""

import asyncio
import signal
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some
from sqlalchemy import text

from dispatcher.dispatch import GATHER
from dispatcher.ground.clock import DAY, HOUR, MINUTE, SECOND
from dispatcher.store import acceptance, corridor, operators
from dispatcher.store.corridor import Survey
from dispatcher.store.engine import Database
from dispatcher.store.operators import Standing
from tests.ground import NOW, acme_with, notice
from tests.nursery import COMMAND, run
from tests.story import Done, Story, orders, until
from tests.workshop import Bench, Gate, accept, configuration, event, rows

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

OK = httpx.Response(200)
NO = httpx.Response(500)
THREE_HOURS = '{ every = "60s", for = "3h" }'
FROM_FIRST = '{ delays = ["1m", "30m", "50m", "20h", "30h", "40h"], measured_from = "first" }'
DELAYS = [MINUTE, 30 * MINUTE, 50 * MINUTE, 20 * HOUR, 30 * HOUR, 40 * HOUR]
# Never trips by itself, and never probes: these tests hold by hand.
BREAKER = '{ failures = 1000000, probe = "366d" }'
VERBS = {"pause": "paused_at", "resume": "paused_at", "hold": "held_at", "release": "held_at"}


def turn(at: Bench, verb: str, operator: str = "acme") -> bool:
    """What a command (pause, resume) or a breaker (hold, release) writes; nobody is told."""
    change = operators.stop if verb in ("pause", "hold") else operators.start
    return change(at.database, operator, VERBS[verb], (verb, "tester", None), at.clock.now())


def standing(at: Bench, operator: str = "acme") -> Standing:
    return next(one for one in operators.standings(at.database) if one.name == operator)


def anchor(at: Bench) -> int:
    with at.database.reading() as connection:
        return int(connection.scalar(text("SELECT anchor_at FROM deliveries")))


Step = int | str


class Play:
    """One delivery to acme, who says no; beside it a reckoning of how long acme was open since its first attempt ended.

    A step is a time that passes (µs), a verb that everybody hears of, one that nobody hears of (`unheard pause`),
    or `restart`. `during`: the steps taken while the attempt with that number is in flight.
    """

    def __init__(self, folder: Path, retry: str, during: dict[int, Sequence[Step]] | None = None) -> None:
        self.at = Bench(configuration(folder, retry=retry, breaker=BREAKER), answer=self.answer)
        self.open = 0
        self.requests = 0
        self.early = 0
        self._stops: set[str] = set()
        self._during = during or {}

    async def answer(self, _request: httpx.Request) -> httpx.Response:
        self.requests += 1
        self.early += bool(self._stops)
        for step in self._during.get(self.requests, ()):
            if self._take(step):
                await self.at.daemon._refresh(0)
        if self.requests == 1:
            self.open = 0
        return NO

    async def do(self, *steps: Step) -> None:
        for step in steps:
            if step == "restart":
                await self.at.restart()
            elif self._take(step):
                self.at.dispatch.look()
            await self.at.idle()

    def _take(self, step: Step) -> bool:
        """True where everybody hears of it."""
        if isinstance(step, int):
            self.at.clock.move(step)
            self.open += 0 if self._stops else step
            return False
        verb = step.removeprefix("unheard ")
        column = VERBS[verb]
        (self._stops.add if verb in ("pause", "hold") else self._stops.discard)(column)
        turn(self.at, verb)
        return verb == step

    async def reopen(self) -> None:
        await self.do("unheard resume", "release")
        assert self.early == 0

    async def until_due(self) -> None:
        """To the moment at which the delivery is due."""
        due_at = self.at.row().due_at
        assert due_at is not None
        await self.do(max(0, due_at - self.at.clock.now()))


Scenario = tuple[dict[int, Sequence[Step]], Sequence[Step]]
SCENARIOS: dict[str, Scenario] = {
    "no pause": ({}, [10 * SECOND]),
    "one": ({}, [10 * SECOND, "pause", 5 * HOUR, "resume"]),
    "one of a microsecond": ({}, [10 * SECOND, "pause", 1, "resume"]),
    "one of a year and more": ({}, [1, "pause", 400 * DAY, "resume"]),
    "one at the moment when the retry is due": ({}, [MINUTE, "pause", HOUR, "resume"]),
    "several in a row": ({}, [7, "pause", HOUR, "resume", 13, "pause", 2 * HOUR + 1, "resume", 17, "pause", 5]),
    "two that nobody heard of": (
        {},
        [7, "unheard pause", HOUR, "unheard resume", 9, "unheard pause", HOUR, "unheard resume", "restart"],
    ),
    "paused twice, and resumed twice": ({}, ["pause", HOUR, "pause", HOUR, "resume", 9, "resume"]),
    "begun in the first attempt": ({1: [2 * SECOND, "pause", 3 * HOUR]}, [HOUR + 1, "resume"]),
    "within the first attempt": ({1: [2, "pause", 3 * HOUR, "resume", 5]}, [3]),
    "begun in the second attempt": ({2: [2 * SECOND, "pause", 7 * HOUR]}, [MINUTE, "pause", 1, "resume", HOUR]),
    "ended in the second attempt": ({2: ["pause", 7 * HOUR, "resume", 3]}, [MINUTE, "hold", 1, "release", 7]),
    "begun in the first attempt, and not heard of": ({1: [2 * SECOND, "unheard pause", 3 * HOUR]}, [HOUR, "resume"]),
    "within the first attempt, and not heard of": ({1: [2, "unheard pause", 3 * HOUR, "unheard resume", 5]}, [3]),
    "begun in the second attempt, and not heard of": (
        {2: [2 * SECOND, "unheard hold", 7 * HOUR]},
        [MINUTE, HOUR, "release"],
    ),
    "within the second attempt, and not heard of": (
        {2: ["unheard hold", 3 * HOUR, "unheard release", 9, "unheard pause", 7 * HOUR, "unheard resume", 3]},
        [MINUTE],
    ),
    "with a restart": ({}, [3, "pause", HOUR, "restart", HOUR, "resume"]),
    "with restarts all the way": (
        {},
        ["restart", 3, "unheard pause", HOUR, "restart", HOUR, "unheard resume", "restart"],
    ),
    "a hold": ({}, [10 * SECOND, "hold", 5 * HOUR, "release"]),
    "a hold in it": ({}, [5, "pause", HOUR, "hold", HOUR, "release", HOUR, "resume", 9]),
    "in a hold": ({}, [5, "hold", HOUR, "pause", HOUR, "resume", HOUR, "release", 9]),
    "and then a hold over its end": ({}, [5, "pause", HOUR, "hold", HOUR, "resume", HOUR, "release", 9]),
    "over a hold's end, with restarts": (
        {},
        [5, "hold", HOUR, "pause", "restart", HOUR, "restart", "release", HOUR, "restart", "resume", 9],
    ),
}


async def play_an_interval(folder: Path, scenario: Scenario, over: int) -> None:
    """After all pauses an attempt ends a minute before the window does, or `over` µs later."""
    during, steps = scenario
    play = Play(folder, THREE_HOURS, during)
    async with play.at as at:
        await at.send(1)
        await play.do(*steps)
        await play.reopen()
        await play.until_due()
        made, lane = at.row().attempts, at.dispatch.lanes["acme"]
        assert anchor(at) + lane.closed(at.clock.now()) + play.open == at.clock.now()
        await play.do(3 * HOUR - MINUTE - play.open + over)
        await at.look()
        assert at.row()[5:7] == ("dead" if over else "pending", made + 1)
        assert [one["n"] for one in at.attempts()] == list(range(1, made + 2))
        if not over:
            assert at.row().due_at == at.clock.now() + MINUTE


async def play_delays_from_the_first(folder: Path, scenario: Scenario) -> None:
    during, steps = scenario
    play = Play(folder, FROM_FIRST, during)
    async with play.at as at:
        await at.send(1)
        await play.do(*steps)
        await play.reopen()
        await play.until_due()
        await at.look()
        made = at.row().attempts
        assert made == play.requests
        assert at.row()[5:6] == ("pending",)
        assert at.row().due_at == at.clock.now() + DELAYS[made - 1] - play.open


@pytest.mark.parametrize("over", [0, 1], ids=["in time", "too late"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_what_is_left_of_a_window_after_a_pause_is_what_was_left_before_it(
    tmp_path: Path, scenario: str, over: int
) -> None:
    await play_an_interval(tmp_path, SCENARIOS[scenario], over)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_delays_from_the_first_attempt_stand_still_while_it_is_paused(tmp_path: Path, scenario: str) -> None:
    await play_delays_from_the_first(tmp_path, SCENARIOS[scenario])


async def test_what_was_left_behind_in_its_first_attempt_begins_a_window_by_what_is_known_then(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, retry=THREE_HOURS, breaker=BREAKER)) as at:
        await at.look()
        accept(at.database, 1)
        corridor.turn(at.database, [], {"acme": 1}, NOW)
        turn(at, "hold")
        at.clock.move(HOUR)
        await at.dispatch.rescue(at.clock.now())
        assert (at.row()[5:7], anchor(at)) == (("pending", 1), NOW)


@pytest.mark.parametrize("answer", [OK, NO], ids=["a yes", "a no with time left"])
async def test_what_goes_on_is_settled_without_asking_how_its_operator_stands(
    tmp_path: Path, answer: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, survey = [], corridor.survey

    def counted(database: Database) -> Survey:
        asked.append(database)
        return survey(database)

    monkeypatch.setattr(corridor, "survey", counted)
    async with Bench(configuration(tmp_path, retry=THREE_HOURS)) as at:
        at.acme.mock(return_value=answer)
        await at.send(1)
        assert at.sent == 1
        # Before the claim.
        assert len(asked) == 1


async def test_a_question_that_fails_loses_no_result_that_waits_for_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = corridor.survey

    def broken(database: Database) -> Survey:
        if at.dispatch._unsure:
            raise RuntimeError("planted")
        return survey(database)

    async with Bench(configuration(tmp_path, retry=THREE_HOURS)) as at:
        monkeypatch.setattr(at.dispatch._heard, "young", lambda _at: False)
        monkeypatch.setattr(corridor, "survey", broken)
        at.acme.mock(return_value=NO)
        with pytest.raises(RuntimeError, match="planted"):
            await at.send(1)
        monkeypatch.setattr(corridor, "survey", survey)
        await at.look()
        assert at.dispatch.in_flight == 0
        assert [one.status for one in rows(at.database)] == ["pending"]


STEPS = some.one_of(some.integers(0, 20 * SECOND), some.sampled_from([*VERBS, *(f"unheard {verb}" for verb in VERBS)]))


def play_in_any_order(steps: list[Step]) -> None:
    for over in (0, 1):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(play_an_interval(Path(folder), ({}, [*steps, "restart"]), over))


@pytest.mark.sqlite_only
@settings(max_examples=8)
@given(some.lists(STEPS, max_size=12))
@example(["pause", 1, "hold", "resume", 1, "release"])
def test_no_pauses_and_holds_in_any_order_use_up_a_window(steps: list[Step]) -> None:
    play_in_any_order(steps)


@pytest.mark.slow
@pytest.mark.sqlite_only
@settings(max_examples=200)
@given(some.lists(STEPS, max_size=12))
def test_no_more_of_them_use_it_up_either(steps: list[Step]) -> None:
    play_in_any_order(steps)


async def test_the_database_adds_up_what_the_lane_adds_up(tmp_path: Path) -> None:
    play = Play(tmp_path, THREE_HOURS)
    async with play.at as at:
        await play.do("pause", 3 * SECOND, "hold", 5 * SECOND, "resume", 7 * SECOND)
        lane = at.dispatch.lanes["acme"]
        assert (standing(at).closed_since, standing(at).closed_total) == (NOW, 0)
        assert lane.closed(at.clock.now()) == 15 * SECOND
        await play.do("release", 11 * SECOND)
        assert (standing(at).closed_since, standing(at).closed_total) == (None, 15 * SECOND)
        assert lane.closed(at.clock.now()) == 15 * SECOND
        await play.do("hold", 1, "release")
        assert standing(at).closed_total == lane.closed(at.clock.now()) == 15 * SECOND + 1


async def test_when_it_was_closed_is_read_from_the_journal_as_far_back_as_is_asked(tmp_path: Path) -> None:
    play = Play(tmp_path, THREE_HOURS)
    async with play.at as at:
        assert operators.closings(at.database, ["acme"], 64) == {}
        await play.do("pause", 3 * SECOND, "hold", 5 * SECOND, "resume", 7 * SECOND, "release", 11 * SECOND)
        await play.do("hold", 1, "pause", 1, "release", 1, "resume", SECOND, "pause", "resume", SECOND)
        first, second, third = (NOW, 0), (NOW + 26 * SECOND, 15 * SECOND), (NOW + 27 * SECOND + 3, 15 * SECOND + 3)
        assert operators.closings(at.database, ["acme"], 64) == {"acme": [first, second, third]}
        last = (NOW + 28 * SECOND + 3, 15 * SECOND + 3)
        await play.do("pause", HOUR, "hold", HOUR)
        assert operators.closings(at.database, ["acme"], 64) == {"acme": [first, second, third, last]}
        assert operators.closings(at.database, ["acme"], 2) == {"acme": [third, last]}
        assert operators.closings(at.database, ["bolt"], 64) == {}


async def test_a_clock_that_was_set_back_during_a_pause_takes_nothing_away(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        turn(at, "pause")
        await at.after(-5 * HOUR)
        assert at.dispatch.lanes["acme"].closed(at.clock.now()) == 0
        turn(at, "resume")
        assert (standing(at).closed_since, standing(at).closed_total) == (None, 0)


# What is sent, and when.


async def test_a_paused_operator_gets_nothing_and_loses_nothing(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(side_effect=[NO] * 5 + [OK] * 10)
        await at.send(*range(5))
        turn(at, "pause")
        await at.after(MINUTE - 1)
        await at.send(*range(5, 10))
        for _ in range(10):
            await at.after(DAY)
        assert at.sent == 5
        assert [at.row(key)[5:7] for key in range(10)] == [("pending", 1)] * 5 + [("pending", 0)] * 5
        turn(at, "resume")
        await at.look()
        assert at.sent == 15
        assert {one.status for one in rows(at.database)} == {"delivered"}
        assert [one["n"] for one in at.attempts(0)] == [1, 2]


async def test_what_became_due_in_the_pause_goes_at_once_and_the_rest_when_it_is_due(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(side_effect=[NO, NO, OK, OK])
        await at.send(1)
        await at.after(40 * SECOND)
        await at.send(2)
        turn(at, "pause")
        await at.after(30 * SECOND)
        assert [at.row(key).due_at for key in (1, 2)] == [NOW + 60 * SECOND, NOW + 100 * SECOND]
        turn(at, "resume")
        await at.look()
        assert at.row(1).status == "delivered"
        assert at.row(2)[5:7] == ("pending", 1)
        await at.after(GATHER)
        assert at.armed[-1] == NOW + 100 * SECOND
        await at.after(30 * SECOND - GATHER - 1)
        assert at.sent == 3
        await at.after(1)
        assert at.row(2)[5:7] == ("delivered", 2)


async def test_what_is_in_flight_when_it_is_paused_ends_and_is_settled(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, concurrency="2"), answer=gate.answer) as at:
        await at.send(*range(4))
        turn(at, "pause")
        await at.look()
        gate.let_one_pass("acme")
        await at.calm()
        assert gate.waiting["acme"] == 1
        gate.open()
        await at.idle()
        assert gate.answered["acme"] == 2
        assert [at.row(key)[5:7] for key in range(4)] == [("delivered", 1)] * 2 + [("pending", 0)] * 2


async def test_resumed_it_drains_no_faster_than_its_concurrency(tmp_path: Path) -> None:
    gate = Gate()
    async with Bench(configuration(tmp_path, concurrency="3"), answer=gate.answer) as at:
        turn(at, "pause")
        await at.send(*range(50))
        await at.after(DAY)
        assert gate.waiting["acme"] == 0
        turn(at, "resume")
        await at.look()
        assert gate.waiting["acme"] == 3
        gate.open()
        await at.idle()
        assert gate.most["acme"] == 3
        assert gate.answered["acme"] == 50
        assert {(one.status, one.attempts) for one in rows(at.database)} == {("delivered", 1)}


async def test_the_other_operators_are_not_held_up(tmp_path: Path) -> None:
    gate = Gate(shut="acme")
    top = "[worker]\nconcurrency = 4"
    async with Bench(configuration(tmp_path, "acme", "bolt", top=top), answer=gate.answer) as at:
        turn(at, "pause")
        acceptance.accept(at.database, [event(key) for key in range(100)], NOW)
        acceptance.accept(at.database, [event(key, operator="bolt") for key in range(100)], NOW)
        await at.look()
        assert gate.answered == {"bolt": 100}
        assert gate.most["acme"] == 0
        turn(at, "resume")
        await at.look()
        acceptance.accept(at.database, [event(key, operator="bolt") for key in range(100, 200)], NOW)
        gate.let_one_pass("acme")
        await at.look()
        assert gate.answered["bolt"] == 200
        assert gate.waiting == {"acme": 4}


async def test_an_operator_that_is_paused_lets_the_daemon_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name in ("turn", "survey"):
        work = getattr(corridor, name)

        def counted(*given: Any, name: str = name, work: Any = work) -> Any:
            made.append(name)
            return work(*given)

        monkeypatch.setattr(corridor, name, counted)
    async with Bench(configuration(tmp_path)) as at:
        turn(at, "pause")
        await at.send(*range(10))
        made.clear()
        assert [await at.dispatch.step() for _ in range(20)] == [False] * 20
        assert made == []
        await at.look()
        assert made == ["survey"]
        assert at.armed == []


async def test_a_daemon_that_is_told_to_stop_stops_although_something_waits_for_a_paused_operator(
    tmp_path: Path,
) -> None:
    async with Bench(configuration(tmp_path)) as at:
        turn(at, "pause")
        await at.send(1)
        at.dispatch.stop()
        await asyncio.wait_for(at.dispatch.run(), 60)
        assert at.row()[5:7] == ("pending", 0)


async def test_a_pause_outlives_a_reload_and_a_restart(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        turn(at, "pause")
        await at.send(1)
        await at.daemon.reload(configuration(tmp_path, concurrency="7"))
        await at.look()
        await at.restart()
        await at.look()
        await at.daemon.reload(configuration(tmp_path, "acme", "bolt"))
        await at.look()
        assert (at.sent, standing(at).paused_at) == (0, NOW)
        turn(at, "resume")
        await at.look()
        assert at.sent == 1


async def test_a_pause_outlives_the_operators_absence_from_the_file(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, "acme", "bolt")) as at:
        turn(at, "pause")
        await at.send(1)
        configuration(tmp_path, "bolt")
        await at.daemon.reload(at.path)
        assert "acme" not in at.dispatch.lanes
        configuration(tmp_path, "acme", "bolt")
        await at.daemon.reload(at.path)
        await at.look()
        assert at.dispatch.lanes["acme"].paused
        assert at.row()[5:7] == ("pending", 0)


async def test_a_pause_that_is_written_while_the_operators_are_read_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        standings = operators.standings

        def then_paused(database: Any) -> list[Standing]:
            found = standings(database)
            monkeypatch.setattr(operators, "standings", standings)
            turn(at, "pause")
            return found

        turn(at, "pause")
        turn(at, "resume")
        monkeypatch.setattr(operators, "standings", then_paused)
        await at.look()
        accept(at.database, 1, now=NOW)
        await at.look()
        assert at.dispatch.lanes["acme"].paused
        assert at.sent == 0


async def test_an_attempt_that_was_cut_off_during_a_pause_waits_for_its_end(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, retry=THREE_HOURS), answer=Gate().answer) as at:
        await at.send(1)
        turn(at, "pause")
        at.clock.move(HOUR)
        await at.restart()
        await at.after(10 * HOUR)
        assert (at.row().status, at.row().attempts, at.row().reason) == ("pending", 1, "interrupted")
        assert anchor(at) == NOW
        turn(at, "resume")
        await at.look()
        assert at.row()[5:7] == ("sending", 2)


# By command, from another process.


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        yield story


def by_command(config: Path, verb: str, *words: str) -> Done:
    status, out, err = run([*COMMAND, "operators", verb, *words, "-c", str(config)], b"", 60)
    assert b"Traceback" not in err, err
    return Done(status, out.decode(), err.decode())


@pytest.mark.sqlite_only
def test_pausing_twice_and_resuming_what_is_not_paused_is_said_and_no_failure(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(acme_with(""))
    assert by_command(config, "resume", "acme") == (0, "acme: is neither paused nor held\n", "")
    assert by_command(config, "pause", "acme", "--note", "maintenance") == (0, "acme: paused\n", "")
    assert by_command(config, "pause", "acme", "--note", "again") == (0, "acme: is paused already\n", "")
    assert by_command(config, "list", "--json").json()["state"] == "paused"
    assert by_command(config, "resume", "acme", "--note", "it is back") == (0, "acme: resumed\n", "")
    assert by_command(config, "list", "--json").json()["state"] == "open"
    with closing(sqlite3.connect(tmp_path / "dispatcher.db")) as connection:
        done = connection.execute("SELECT verb, note FROM journal WHERE verb != 'set' ORDER BY n").fetchall()
    assert done == [("pause", "maintenance"), ("resume", "it is back")]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_an_unknown_name_is_told_and_nothing_is_changed(tmp_path: Path, verb: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(acme_with(""))
    done = by_command(config, verb, "acme", "bolt")
    assert (done.status, done.out) == (1, "")
    assert 'there is no operator bolt; write "acme"' in done.err
    assert by_command(config, "list", "--json").json()["state"] == "open"
    assert by_command(config, verb).status == 2


@pytest.mark.sqlite_only
def test_a_running_daemon_hears_of_a_pause_and_of_its_end_at_once(story: Story) -> None:
    story.add_operator("bolt")
    bolts = [notice(operator="bolt", order_no=str(10**18 + n)) for n in range(3)]
    with story.receiving() as receiver, story.receiving(operator="bolt"):
        with story.running() as daemon:
            assert by_command(story.config, "pause", "acme", "--note", "maintenance").status == 0
            story.enqueue(orders(20))
            story.enqueue(bolts)
            until(lambda: story.all_are("delivered", "bolt"))
            daemon.signal(signal.SIGHUP)
            until(lambda: daemon.told("reloaded"))
            assert story.all_are("pending")
        assert story.query("SELECT attempts FROM deliveries WHERE operator = 'acme' AND attempts > 0") == []
        with story.running():
            story.enqueue([notice(operator="bolt", order_no="99")])
            until(lambda: story.all_are("delivered", "bolt"))
            assert story.all_are("pending")
            for start in (20, 21, 22):
                assert by_command(story.config, "resume", "acme").status == 0
                until(lambda: story.all_are("delivered"))
                assert by_command(story.config, "pause", "acme", "--note", "again").status == 0
                story.enqueue(orders(1, start=start))
        assert receiver.booked() == {one["order_no"]: 1 for one in orders(22)}
    resumed = [at for (at,) in story.query("SELECT at FROM journal WHERE verb = 'resume' ORDER BY at")]
    started = [
        at
        for (at,) in story.query(
            "SELECT started_at FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE d.operator = 'acme'"
        )
    ]
    assert min(started) >= resumed[0]
    # Its own look round comes every five seconds; a slow one on a busy machine is no fault.
    waits = [min(at for at in started if at >= moment) - moment for moment in resumed]
    assert statistics.median(waits) < SECOND, waits
