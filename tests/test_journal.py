"""The books while others work: hands that write at once, an audit under load, a daemon that can't note."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.app import HEAD_SECONDS
from dispatcher.dispatch.lane import Turn
from dispatcher.ground.clock import SECOND
from dispatcher.ground.errors import Refused
from dispatcher.roster import key_file, relock
from dispatcher.seal.vault import MasterKey, Vault, read_or_make_key_file
from dispatcher.store import ledger, operators
from dispatcher.store.engine import Database, open_database
from dispatcher.store.journal import Chain, read_head
from dispatcher.store.notary import Notary
from dispatcher.store.proof.audit import audit
from dispatcher.store.proof.findings import Finding, Scope, Seen
from tests import nursery
from tests.ground import NOW
from tests.stores import STORES, open_store
from tests.story import ServerStory, Story, orders
from tests.story import until as waited
from tests.workshop import Bench, accept, configuration, rows, until

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

PROBE = 30 * SECOND
AMONG = 15

# Writes entries, one transaction each, until its input ends.
WRITER = """
import select, sys
from pathlib import Path
from dispatcher.ground.place import Server
from dispatcher.ground.secret import Secret
from dispatcher.store.journal import Entry, append
from tests.stores import open_store

who, where = sys.argv[1:]
database = open_store(Server(Secret(where), "postgresql://the-tests") if "://" in where else Path(where))
while not select.select([sys.stdin], [], [], 0)[0]:
    with database.writing() as connection:
        append(connection, database.notary, [Entry("set", who, operator=who)] * 2, 1)
database.close()
"""


def entries(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        return [tuple(one) for one in connection.exec_driver_sql("SELECT n, actor FROM journal ORDER BY n")]


def broken(database: Database, notary: Notary) -> list[Any]:
    with database.reading() as connection:
        return list(Chain(connection, notary.every_key(connection)).broken())


def test_two_processes_that_note_at_once_make_one_chain_without_a_gap(tmp_path: Path) -> None:
    """Neither stops before both have noted much: so they do it at the same time."""
    database = open_store(STORES.place(tmp_path))
    where = str(STORES.place(tmp_path)) if STORES.current is None else STORES.current.url

    def noted() -> Counter[str]:
        return Counter(who for _, who in entries(database))

    with ExitStack() as stack:
        hands = [
            stack.enter_context(nursery.start([sys.executable, "-c", WRITER, who, where], stdin=subprocess.PIPE))
            for who in ("ada", "eve")
        ]
        for hand in hands:
            stack.callback(hand.kill)
        waited(lambda: set(noted()) == {"ada", "eve"})
        before = noted()
        waited(lambda: all(noted()[who] >= before[who] + AMONG for who in before))
        for hand in hands:
            hand.communicate(timeout=60)
            assert hand.returncode == 0
    found = entries(database)
    assert [n for n, _ in found] == list(range(1, len(found) + 1))
    assert database.notary is not None
    assert broken(database, database.notary) == []
    database.close()


def test_an_audit_beside_a_daemon_with_traffic_finds_nothing_wrong(tmp_path: Path) -> None:
    """Neither with attempts in flight, nor while retries wait and somebody pauses."""
    server = STORES.current
    with Story(tmp_path) if server is None else ServerStory(tmp_path, server) as story:
        story.set(concurrency=16, retry={"delays": ["100ms", "100ms", "100ms"]})
        busy: list[int] = []
        with story.receiving("--delay", "200ms", "--fail-first", "1"), story.running():

            def audited_at_work() -> bool:
                if not story.statuses()["pending"]:
                    story.enqueue(orders(300, start=1000 * next(batches)))
                told = story.prove()
                busy.append(told["deliveries"].get("sending", 0))
                # Not all of them in the first 16 attempts.
                return sum(map(bool, busy)) >= 2 and tried(told) > 16

            def tried(told: dict[str, Any]) -> int:
                return next(int(one["rows"]) for one in told["checks"] if one["check"] == "attempts")

            batches = count()
            waited(audited_at_work, 120)
            assert story.call("operators", "pause", "acme").status == 0
            story.prove()
        told = story.prove()
        assert told["head"].startswith("2:")
        assert "sending" not in told["deliveries"]
        assert tried(told) > 16


# The head, as the daemon tells it.


@pytest.fixture
def no_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still is a jump, after which every round is called."""
    monkeypatch.setattr("dispatcher.rounds.WATCH_SECONDS", 3600.0)


@asynccontextmanager
async def running(at: Bench) -> AsyncIterator[None]:
    """The daemon with everything that is in it, to its clean end."""
    run = asyncio.create_task(at.daemon.run())
    await until(lambda: run.done() or bool(at.told("running")))
    yield
    assert not run.done(), "nothing ends it but a stop"
    at.dispatch.stop()
    await asyncio.wait_for(run, 60)


def heads(at: Bench) -> list[str]:
    return [one["head"] for one in at.told("journal")]


@pytest.mark.usefixtures("no_jump")
async def test_the_daemon_logs_the_head_when_it_starts_and_when_operators_change(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at, running(at):
        first = str(read_head(at.database))
        await until(lambda: heads(at) == [first])
        operators.stop(at.database, "acme", "paused_at", ("pause", "ada", None), at.clock.now())
        at.dispatch.look()
        await until(lambda: len(heads(at)) > 1)
        assert heads(at) == [first, str(read_head(at.database))]
        assert heads(at)[1].startswith("2:")


@pytest.mark.usefixtures("no_jump")
async def test_what_is_done_by_hand_is_in_the_logged_head_within_a_minute(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, retry="{ delays = [] }")) as at:
        at.acme.respond(500)
        await at.send(1)
        assert at.row().status == "dead"
        async with running(at):
            await until(lambda: len(heads(at)) == 1)
            job = at.daemon.rounds.scheduler.get_job("journal")
            assert timedelta(seconds=HEAD_SECONDS) == job.trigger.interval <= timedelta(minutes=1)
            ledger.resolve(at.database, [at.row()], "ada", "agreed", at.clock.now())
            job.modify(next_run_time=datetime.now(UTC))
            await until(lambda: len(heads(at)) > 1)
            assert heads(at)[1:] == [str(read_head(at.database))]
            # Without anything new it is not told again.
            await job.func(*job.args)
            await asyncio.gather(*at.daemon._tasks)
            assert len(heads(at)) == 2


# A daemon that can't note.


def another_key(at: Bench) -> MasterKey:
    """Somebody with another master key said that the journal's key is lost: from now on it is sealed with a new one."""
    key = MasterKey.fresh()
    vault, database = Vault(key), open_database(at.config.database)
    database.notary = Notary(vault.lock, vault.unlock, lost_key=True)
    operators.stop(database, "coin", "paused_at", ("pause", "eve", None), at.clock.now())
    database.close()
    return key


def give_it_back(at: Bench, key: MasterKey) -> None:
    """As `dispatcher reencrypt` does, with that key as the former one."""
    own = read_or_make_key_file(key_file(at.config), make=False)
    database = open_database(at.config.database)
    relock(database, Vault(own, key), "ada", at.clock.now())
    database.close()


def audited(at: Bench) -> list[Finding]:
    assert at.database.notary is not None
    with at.database.reading() as connection:
        keys = at.database.notary.every_key(connection)
        now = at.clock.now()
        return list(audit(connection, keys, Scope(), lambda _type, _body: None, now, lambda _done, _all: None, Seen()))


async def test_a_daemon_that_could_note_nothing_does_not_start(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, "acme", "coin")) as at:
        another_key(at)
        await at.cut_off()
        with pytest.raises(Refused, match="the journal's key can't be opened: it is sealed under master key"):
            at.build()


async def test_a_journal_that_the_breaker_cannot_write_ends_no_delivery(tmp_path: Path) -> None:
    breaker = '{ failures = 3, probe = "30s" }'
    config = configuration(tmp_path, "acme", "bolt", "coin", concurrency="1", breaker=breaker)
    answers = {"acme.example": 500, "bolt.example": 200}

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(answers[request.url.host])

    async with Bench(config, answer=answer) as at, running(at):
        key = another_key(at)

        def lane() -> Any:
            return at.dispatch.lanes["acme"]

        def journal() -> list[tuple[str, int]]:
            done = operators.done_to(at.database, "acme")
            return [(one["verb"], one["at"] - NOW) for one in done if one["actor"] == "breaker"]

        accept(at.database, *range(10), now=NOW)
        at.dispatch.look()
        await until(lambda: bool(at.told("not_noted")))
        (line,) = at.told("not_noted")
        assert (line["level"], line["operator"], line["verb"]) == ("error", "acme", "hold")
        assert "the journal's key can't be opened" in line["error"]
        assert at.daemon.not_ready() == {"journal": line["error"]}
        assert lane().held, "it is left alone all the same"
        assert journal() == []

        accept(at.database, *range(100, 120), now=NOW, operator="bolt")
        at.dispatch.look()
        await until(lambda: {row.status for row in rows(at.database, operator="bolt")} == {"delivered"})

        # It is tried again with each round, and told once.
        for _ in range(3):
            at.dispatch.rescue_soon(0)
            await until(lambda: at.dispatch._rescue_before is None and at.dispatch.changes.tried)
        assert len(at.told("not_noted")) == 1

        # Back in the meantime: its release waits behind the hold, and nothing else does.
        answers["acme.example"] = 200
        at.clock.move(PROBE)
        at.dispatch.look()
        await until(lambda: not lane().held)
        at.clock.move(PROBE)
        at.dispatch.look()
        await until(lambda: {row.status for row in rows(at.database, operator="acme")} == {"delivered"})
        assert [one.turn for one in at.dispatch.changes.waiting] == [Turn.HOLD, Turn.RELEASE]

        give_it_back(at, key)
        at.dispatch.rescue_soon(0)
        await until(lambda: len(journal()) == 2)
        await until(lambda: not at.daemon.not_ready())
        assert journal() == [("hold", 0), ("release", PROBE)]
        assert [one.turn for one in at.dispatch.changes.waiting] == []
        assert [one for one in audited(at) if one.fault] == []
