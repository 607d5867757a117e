"""Bulk replays with the real commands and real workers: followed, killed, shared, waiting for somebody."""

import asyncio
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import dispatcher.dispatch.thread
import dispatcher.pacer
from dispatcher.cli import main
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.errors import Refused
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.replay_steps import Step
from dispatcher.store.replays import State, Which
from tests import nursery
from tests.graves import bury, dead
from tests.stores import PostgreSQL, open_store
from tests.story import Done, ServerStory, Story, until
from tests.workshop import Bench, Gate, accept, configuration, rows
from tests.workshop import until as soon

NOTE = ("--note", "the operator was down")


def keys(count: int) -> list[str]:
    """Of so many dead letters."""
    return [str(1767225600000000000 + n) for n in range(count)]


def buried(story: Story, count: int) -> None:
    """So many dead letters of acme, each with its attempts."""
    story.set(retry={"delays": []})
    database = open_store(story.place if isinstance(story, ServerStory) else story.database)
    bury(database, *map(int, keys(count)), now=database.clock().now() - MINUTE)
    database.close()


def call(story: Story, *words: object) -> Done:
    """A command in this process."""
    done = CliRunner().invoke(main, story.line(*words)[3:])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return Done(done.exit_code, done.stdout, done.stderr)


def replays_of(story: Story) -> dict[str, int]:
    """How often the journal says that each key was replayed."""
    return Counter(key for (key,) in story.query("SELECT key FROM journal WHERE verb = 'replay'"))


def state_of(story: Story) -> str:
    """The only job's."""
    ((state,),) = story.query("SELECT state FROM replays")
    return str(state)


# The commands.


def test_a_replay_is_followed_to_its_end_and_every_one_was_sent_once(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        buried(story, 40)
        dry = call(story, "dead", "replay", "--since", "1h", "--pace", "50", "--dry-run", "--json")
        assert (dry.status, dry.json()) == (
            0,
            {"replayed": 40, "dry_run": True, "total": 40, "refused": 0, "seconds": 1},
        )
        told = call(story, "dead", "replay", "--since", "1h", "--pace", "50", "--dry-run")
        assert told.out == "would be replayed: 40, in 1 s at 50 a second\n"
        with story.receiving() as receiver, story.running():
            done = story.call("dead", "replay", "--since", "1h", "--pace", "50", *NOTE, "--json")
            assert done.status == 0, done
            job = done.json()
            assert (job["state"], job["taken"], job["refused"], job["left"]) == ("done", 40, 0, 0)
            until(lambda: story.all_are("delivered"))
            assert receiver.booked() == dict.fromkeys(keys(40), 1)
        (listed,) = call(story, "replays", "list", "--json").rows()
        assert (listed["id"], listed["note"], listed["finished_at"]) == (job["id"], NOTE[1], job["finished_at"])
        assert replays_of(story) == dict.fromkeys(keys(40), 1)
        story.prove()


def test_where_no_worker_runs_the_job_waits_and_says_so(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        buried(story, 3)
        made = call(story, "dead", "replay", "--since", "1h", "--pace", "10", *NOTE, "--detach")
        assert made.status == 0
        assert "waits for a worker" in made.out
        assert "is made; see: dispatcher replays show" in made.err
        assert "no worker drives replay" in made.err
        assert "`dispatcher run`" in made.err
        number = call(story, "replays", "list", "--json").rows()[0]["id"]
        assert "等待工作进程" in call(story, "replays", "show", number, "--lang", "zh").out
        assert call(story, "replays", "pause", number, "--json").json()["state"] == "paused"
        again = call(story, "replays", "pause", number)
        assert (again.status, again.err) == (
            1,
            f"Error: replay {number} is paused: it can't be paused; see: dispatcher replays list\n",
        )
        assert call(story, "replays", "resume", number).status == 0
        with story.running():
            until(lambda: state_of(story) == "done")
        assert set(replays_of(story).values()) == {1}
        assert call(story, "replays", "cancel", number).status == 1
        assert "there is no replay 77; see: dispatcher replays list" in call(story, "replays", "show", 77).err


def test_whoever_follows_a_job_that_nobody_takes_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.cli.replays.SILENT", 0)
    with Story(tmp_path) as story:
        buried(story, 1)
        status, out, err = call(story, "dead", "replay", "--since", "1h", "--pace", "10", *NOTE)
        assert (status, "waits for a worker" in out, "no worker drives replay 1" in err) == (0, True, True)


def test_whoever_stops_following_leaves_it_running(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        buried(story, 30)
        with story.running():
            words = story.line("dead", "replay", "--since", "1h", "--pace", "2", *NOTE)
            follower = nursery.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            until(lambda: sum(replays_of(story).values()) > 1)
            follower.send_signal(signal.SIGINT)
            out, err = follower.communicate(timeout=60)
            assert "goes on without this command; see: dispatcher replays show" in err
            assert "running" in out
            seen = sum(replays_of(story).values())
            until(lambda: sum(replays_of(story).values()) > seen)
            number = call(story, "replays", "list", "--json").rows()[0]["id"]
            assert call(story, "replays", "cancel", number).status == 0
        assert "there is no operator bolt" in call(story, "replays", "list", "--operator", "bolt").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pace", "5"], "filters must be bounded in time"),
        (["--pace", "5", "acme"], "give OPERATOR and at least one KEY"),
        (["--pace", "5", "acme", "1", "--since", "1h"], "not both"),
        (["--pace", "5", "--since", "1h", "--until", "2h", *NOTE], "--until: is not after since"),
        (["--pace", "5", "--since", "1h"], "--note is missing; write why"),
        (["--pace", "5", "--since", "1h", "--note", " "], "--note is empty: write why"),
        (["--pace", "0", "--since", "1h"], "0 is not in the range 1<=x<=5000"),
        (["--detach", "--since", "1h"], "--detach and --even-superseded are a job's: give it a --pace"),
    ],
    ids=range(8),
)
def test_what_is_no_job_is_refused_with_what_to_write(tmp_path: Path, words: list[str], told: str) -> None:
    with Story(tmp_path) as story:
        call(story, "db", "upgrade")
        done = call(story, "dead", "replay", *words)
        assert (done.status, told in done.err) == (2, True), done


def test_where_nothing_fits_no_job_is_made(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        call(story, "db", "upgrade")
        for more in ((), ("--dry-run",)):
            done = call(story, "dead", "replay", "--since", "1h", "--pace", "5", *NOTE, *more)
            assert (done.status, done.err) == (1, "Error: no dead letter fits; see: dispatcher dead list\n")
        assert story.query("SELECT count(*) FROM replays") == [(0,)]


def test_a_note_stands_beside_a_replay_without_a_job_too(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        buried(story, 1)
        key = keys(1)[0]
        assert call(story, "dead", "replay", "acme", key, *NOTE).status == 0
        assert [one["note"] for one in call(story, "show", "acme", key, "--json").json()["actions"]] == [NOTE[1]]


# Killed, and shared.


def kill_and_go_on(story: Story, count: int, workers: list[Story]) -> None:
    """Workers are killed one after the other while they drive a job; whoever comes next drives it to its end."""
    buried(story, count)
    made = call(story, "dead", "replay", "--since", "1h", "--pace", "30", *NOTE, "--detach", "--json").json()
    for n in range(2):
        with workers[n % len(workers)].running() as daemon:
            before = sum(replays_of(story).values())
            until(lambda before=before: sum(replays_of(story).values()) > before)  # type: ignore[misc]
            daemon.kill()
    job = call(story, "replays", "show", made["id"], "--json").json()
    assert (job["state"], job["taken"]) == ("running", sum(replays_of(story).values()))
    with story.running():
        until(lambda: state_of(story) == "done")
        until(lambda: set(story.statuses()) == {"dead"})
    done = call(story, "replays", "show", made["id"], "--json").json()
    assert (done["total"], done["taken"], done["refused"]) == (count, count, 0)
    assert replays_of(story) == dict.fromkeys(keys(count), 1)
    story.prove()


def test_a_killed_worker_leaves_nothing_out_and_doubles_nothing(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        kill_and_go_on(story, 90, [story])


def test_on_a_server_another_worker_goes_on_where_a_killed_one_was(
    tmp_path: Path, postgresql: PostgreSQL, store: Any
) -> None:
    postgresql.empty()
    with ServerStory(tmp_path, postgresql) as story:
        kill_and_go_on(story, 90, [story, story.twin()])


def test_two_workers_share_a_job_and_keep_its_pace(tmp_path: Path, postgresql: PostgreSQL) -> None:
    postgresql.empty()
    with ServerStory(tmp_path, postgresql) as story:
        buried(story, 90)
        with story.running(), story.twin().running():
            done = call(story, "dead", "replay", "--since", "1h", "--pace", "30", *NOTE, "--json")
            job = done.json()
            assert (done.status, job["state"], job["taken"]) == (0, "done", 90), done
        ((first, last),) = story.query("SELECT min(at), max(at) FROM journal WHERE verb = 'replay'")
        assert last - first > 2.5 * SECOND, "faster than the pace"
        assert set(replays_of(story).values()) == {1}


# The pacer within its daemon.


async def _driven(at: Bench) -> None:
    at.daemon.pacer.round()
    task = at.daemon.pacer._task
    assert task is not None
    await asyncio.wait_for(task, 60)


def job_on(database: Database, now: int, pace: int = 5_000) -> replays.Replay:
    return replays.make(database, Which(since=0), pace, "ada", "why not", now)


@pytest.mark.anyio
@pytest.mark.each_store
async def test_the_daemon_drives_a_job_between_its_turns(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        dead(at.database, *range(10), at=at.clock.now())
        at.clock.move(MINUTE)
        job = job_on(at.database, at.clock.now())
        await _driven(at)
        await at.after(SECOND)
        await at.idle()
        assert {one.status for one in rows(at.database)} == {"delivered"}
        assert [line["replay"] for line in at.told("replay_done")] == [job.id]


@pytest.mark.anyio
@pytest.mark.each_store
async def test_a_running_daemon_finds_a_job_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.app.LOOK_SECONDS", 0.02)
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        dead(at.database, 1, at=at.clock.now())
        at.clock.move(MINUTE)
        run = asyncio.create_task(at.daemon.run())
        await soon(lambda: bool(at.told("running")))
        job_on(at.database, at.clock.now())
        await soon(lambda: bool(at.told("attempt")))
        at.dispatch.stop()
        await asyncio.wait_for(run, 60)
        assert at.row().status == "delivered"
        assert at.told("replay_broke") == []


@pytest.mark.anyio
async def test_what_cannot_be_noted_is_told_once_and_a_bug_ends_no_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Step:
        raise Refused("the journal's key can't be opened")

    async with Bench(configuration(tmp_path)) as at:
        with monkeypatch.context() as patch:
            patch.setattr(dispatcher.pacer, "step", refuse)
            for _ in range(3):
                await _driven(at)
            patch.setattr(dispatcher.pacer, "step", lambda *_: 1 / 0)
            await _driven(at)
        assert [line["fault"] for line in at.told("replay_refused")] == ["the journal's key can't be opened"]
        assert len(at.told("replay_broke")) == 1
        at.acme.respond(200)
        await at.send(1)
        await at.idle()
        assert at.row().status == "delivered"


@pytest.mark.anyio
async def test_the_corridor_has_three_quarters_of_the_stores_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    steps = iter([Step(1, 1, 0, False, 0, 0.5), Step(1, 1, 0, False, 9 * SECOND, 0.5), None])
    async with Bench(configuration(tmp_path)) as at:
        monkeypatch.setattr(dispatcher.pacer, "step", lambda *_: next(steps))
        monkeypatch.setattr("dispatcher.pacer.asyncio.sleep", note)
        await _driven(at)
    assert slept[:2] == [1.5, 9.0]


@pytest.mark.anyio
@pytest.mark.each_store
async def test_a_live_delivery_stands_behind_so_many_replayed_ones_at_most(tmp_path: Path) -> None:
    """An operator that takes nothing for the moment: what is replayed to it does not pile up before what is live."""
    async with Bench(configuration(tmp_path)) as at:
        dead(at.database, *range(500), at=at.clock.now())
        at.clock.move(HOUR)
        job = job_on(at.database, at.clock.now(), pace=700)
        for _ in range(10):
            stepped = await at.dispatch.store(at.daemon.pacer._step)
            at.clock.move(stepped.wait)
        accept(at.database, "live", now=at.clock.now())
        before = [one for one in rows(at.database) if one.status == "pending" and one.key != "live"]
        assert len(before) == 100
        found = replays.find(at.database, job.id)
        assert found is not None
        assert (found.state, found.driven(at.clock.now())) == (State.RUNNING, True)


@pytest.mark.each_store
@pytest.mark.anyio
async def test_a_step_that_takes_long_holds_up_no_delivery_where_several_can_write(store: str, tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        over = threading.Event()
        step = asyncio.ensure_future(at.daemon.pacer._store(over.wait, 60))
        turn = asyncio.create_task(at.dispatch.store(lambda: "there"))
        try:
            if store == "postgresql":
                assert await asyncio.wait_for(turn, 30) == "there"
                assert not step.done()
        finally:
            over.set()
        assert await step
        assert await turn == "there"


@pytest.mark.sqlite_only
@pytest.mark.anyio
async def test_on_a_file_a_step_waits_for_the_deliveries_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, stepped = Gate(), []
    monkeypatch.setattr(dispatcher.pacer, "step", lambda *_: stepped.append(gate.waiting["acme"]))
    monkeypatch.setattr(dispatcher.dispatch.thread, "PATIENCE_SECONDS", 60)
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        run = asyncio.create_task(at.dispatch.run())
        accept(at.database, 1, now=at.clock.now())
        at.dispatch.look()
        await soon(lambda: gate.waiting["acme"] == 1)
        at.daemon.pacer.round()
        for _ in range(100):
            await asyncio.sleep(0)
        # Behind whatever was asked of the store by now.
        await at.dispatch.store(int)
        assert stepped == [], "while a request is under way"
        gate.open()
        await soon(lambda: bool(stepped))
        at.dispatch.stop()
        await asyncio.wait_for(run, 60)


@pytest.mark.sqlite_only
@pytest.mark.anyio
async def test_a_step_does_not_wait_for_long_where_the_deliveries_never_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, stepped = Gate(), []
    monkeypatch.setattr(dispatcher.pacer, "step", lambda *_: stepped.append(gate.waiting["acme"]))
    async with Bench(configuration(tmp_path), answer=gate.answer) as at:
        await at.send(1)
        await _driven(at)
        assert stepped == [1]
        gate.open()


@pytest.mark.each_store
@pytest.mark.anyio
async def test_of_what_is_claimed_together_the_replayed_ones_go_out_last(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        dead(at.database, *range(3), at=at.clock.now())
        at.clock.move(MINUTE)
        job_on(at.database, at.clock.now())
        await _driven(at)
        at.clock.move(SECOND)
        accept(at.database, "live", now=at.clock.now())
        await at.look()
        await at.idle()
        assert [line["key"] for line in at.told("attempt")] == ["live", "0", "1", "2"]


@pytest.mark.each_store
@pytest.mark.anyio
async def test_the_results_of_what_is_replayed_wait_for_company_but_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself would be one more transaction before which the next event waits."""
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        dead(at.database, 1, 2, at=at.clock.now())
        at.clock.move(MINUTE)
        job_on(at.database, at.clock.now())
        await _driven(at)
        at.clock.move(SECOND)
        at.dispatch.look()
        await at.dispatch.step()
        at.dispatch._wake.clear()
        await soon(lambda: at.dispatch.in_flight == 0)
        assert not at.dispatch._wake.is_set()
        await asyncio.wait_for(at.dispatch._wake.wait(), 60)
        await at.calm()
        accept(at.database, "live", now=at.clock.now())
        at.dispatch.look()
        await at.dispatch.step()
        at.dispatch._wake.clear()
        await soon(lambda: at.dispatch.in_flight == 0)
        assert at.dispatch._wake.is_set()
        await at.calm()
        assert {one.status for one in rows(at.database)} == {"delivered"}
