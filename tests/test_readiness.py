"""/healthz and /readyz: what they say of a worker that works, and of one that is stuck; as processes."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dispatcher.alone import STUCK_SECONDS, Alone
from dispatcher.config import load_config
from dispatcher.ground.policy import Status
from dispatcher.store.acceptance import Fate
from dispatcher.store.engine import Database, open_database
from tests import nursery
from tests.served import served
from tests.story import NO_TLS, Daemon, Story, orders, until
from tests.stuck import LOOP_HANGS_SECONDS
from tests.workshop import configuration, event, kept_log

pytestmark = pytest.mark.anyio
CHECKS = {"database", "network", "journal", "operators", "scheduler", "api", "worker"}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        yield story


@contextmanager
def stickable(story: Story) -> Iterator[Daemon]:
    words = [sys.executable, "-m", "tests.stuck", str(story.config)]
    root = Path(__file__).parent.parent
    with nursery.start(words, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        daemon = Daemon(process, f"http://{story.tables['web']['listen']}")
        try:
            until(lambda: daemon.told("running") or process.poll() is not None, told=daemon.text)
            yield daemon
        finally:
            process.kill()
            daemon.ended()


def not_ready(daemon: Daemon) -> dict[str, str]:
    """What each check says, as soon as one is not well."""
    until(lambda: ready(daemon)[0] == 503, told=daemon.text)
    return ready(daemon)[1]


def ready(daemon: Daemon) -> tuple[int, dict[str, str]]:
    answer = daemon.get("/readyz")
    told = answer.json()
    assert told["status"] == ("ready" if answer.status_code == 200 else "not ready")
    return answer.status_code, told["checks"]


def test_a_worker_that_works_says_how_each_check_went(story: Story) -> None:
    with story.running() as daemon:
        until(lambda: ready(daemon)[0] == 200, told=daemon.text)
        _, checks = ready(daemon)
        assert checks.keys() == CHECKS
        assert checks["worker"].startswith("the claim loop went round ")
        assert {checks[name] for name in CHECKS - {"worker"}} == {"ok"}
        assert daemon.get("/healthz").json() == {"status": "alive"}


def test_a_store_thread_that_hangs_is_told_while_the_process_lives(story: Story) -> None:
    with stickable(story) as daemon:
        until(lambda: ready(daemon)[0] == 200, told=daemon.text)
        daemon.signal(signal.SIGUSR1)
        checks = not_ready(daemon)
        assert "the claim loop has not gone round for" in checks["worker"]
        assert checks["database"] == "ok"
        assert daemon.get("/healthz").status_code == 200
        # The backlog is asked for on another thread, and the figures are those of the loop.
        told = daemon.get("/metrics").text
        assert 'dispatcher_check{check="worker"} 0.0' in told
        assert "dispatcher_store_up 1.0" in told


def test_a_loop_that_hangs_answers_nobody_until_it_goes_on(story: Story) -> None:
    with stickable(story) as daemon:
        until(lambda: ready(daemon)[0] == 200, told=daemon.text)
        began = time.monotonic()
        daemon.signal(signal.SIGUSR2)
        # Until the signal has arrived somebody may be answered still.
        until(lambda: not answered(daemon), told=daemon.text)
        assert time.monotonic() - began < LOOP_HANGS_SECONDS + 2
        until(lambda: answered(daemon), told=daemon.text)
        until(lambda: ready(daemon)[0] == 200, told=daemon.text)


def answered(daemon: Daemon) -> bool:
    try:
        return httpx.get(f"{daemon.web}/healthz", verify=NO_TLS, trust_env=False, timeout=0.5).status_code == 200
    except httpx.TimeoutException:
        return False


def test_who_is_stopping_is_not_ready(story: Story) -> None:
    with story.receiving("--delay", "5s") as receiver, story.running() as daemon:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.told("reloaded"), told=daemon.text)
        story.enqueue(orders(1))
        until(lambda: story.all_are(Status.SENDING))
        daemon.signal(signal.SIGTERM)
        checks = not_ready(daemon)
        assert checks["worker"] == "it is stopping, and claims nothing more"
        assert daemon.ended() == 0
    assert story.all_are(Status.DELIVERED)


async def test_what_waits_to_be_written_for_too_long_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def hangs(*_: object) -> list[Fate]:
        assert go.wait(60)
        return [Fate.ACCEPTED]

    async with served(database) as at:
        assert at.api.stuck(0.0) == {}
        monkeypatch.setattr(at.api.committer._batches, "write", hangs)
        waiting = asyncio.create_task(at.api.committer.many([event(1)]))
        async with asyncio.timeout(60):
            while not at.api.stuck(0.05):  # noqa: ASYNC110 - as a prober does
                await asyncio.sleep(0.01)
        assert "what came in has waited for 0 s to be written" in at.api.stuck(0.05)["api"]
        go.set()
        assert await waiting == [Fate.ACCEPTED]
        assert at.api.stuck(0.0) == {}


def test_the_web_alone_is_not_ready_where_its_store_has_not_answered_for_long(tmp_path: Path) -> None:
    config = load_config(configuration(tmp_path))
    open_database(config.database).close()
    database = open_database(config.database, create=False)
    front = Alone(config, database, kept_log()[0], "tests")
    assert (front.not_ready(), front.checks()["database"]) == ({}, "it answered 0.0 s ago")
    front._seen_at -= STUCK_SECONDS + 1
    assert front.not_ready() == {"database": "it has not answered for 16 s"}
    assert not front.state().checks["database"]
    database.close()
