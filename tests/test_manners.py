"""What a daemon owes to its house: one worker a file whatever leads to it, rights, other programs' files, a way out."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.store.databases.sqlite import WorkerLock
from dispatcher.store.engine import open_database
from tests.ground import ACME, config_with, faults_of
from tests.workshop import Bench, configuration

pytestmark = pytest.mark.anyio


def test_one_file_has_one_worker_whatever_path_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    real = config_with(f'database.url = "sqlite:///real.db"\n{ACME}', tmp_path)
    link = config_with(f'database.url = "sqlite:///link.db"\n{ACME}', tmp_path)
    lock = WorkerLock(Path(str(real.database)))
    lock.acquire()
    try:
        with pytest.raises(Refused, match="already runs a worker"):
            WorkerLock(Path(str(link.database))).acquire()
    finally:
        lock.release()


def test_a_new_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        open_database(tmp_path / "new.db").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("create", [True, False])
def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match="another program"):
        open_database(path, create=create)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["other.db"]


def test_an_older_sqlite_is_refused_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(Refused, match=r"needs 3\.38"):
        open_database(tmp_path / "new.db")
    assert not list(tmp_path.iterdir())


def test_a_statement_of_ours_that_is_wrong_is_no_weather(tmp_path: Path) -> None:
    database = open_database(tmp_path / "new.db")
    with pytest.raises(Exception, match="no such table") as error, database.reading() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    database.close()
    assert not isinstance(error.value, StoreUnavailable)


async def test_what_was_cut_off_waits_for_its_operator_however_many_attempts_it_had(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(500)
        await at.send(1)
        with at.database.writing() as connection:
            cut_off = "status = 'sending', due_at = NULL, token = 7, worker = 7, claimed_at = 1, attempts = 99"
            connection.execute(text(f"UPDATE deliveries SET {cut_off}"))
        at.dispatch.lanes.clear()
        await at.dispatch.rescue(0)
        assert (at.row().status, at.row().reason, at.row().ambiguous) == ("pending", "interrupted", True)


async def test_a_token_that_the_operator_repeats_is_not_kept(tmp_path: Path) -> None:
    success = '{ field = "code", values = ["0000"] }'
    async with Bench(configuration(tmp_path, success=success)) as at:
        at.acme.respond(401, json={"code": "the-token-of-acme", "message": "who is the-token-of-acme?"})
        await at.send(1)
        (attempt,) = at.attempts()
    assert (attempt["code"], attempt["detail"]) == ("[token]", "who is [token]?")
    assert "the-token" not in attempt["response"]


async def test_a_second_signal_gives_up_and_the_next_start_finds_what_was_held(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        daemon = at.daemon
        held = asyncio.create_task(asyncio.Event().wait())
        daemon._running = held  # type: ignore[assignment]  # any task that waits
        daemon._stop("SIGTERM")
        await asyncio.sleep(0)
        assert not held.cancelled()
        daemon._stop("SIGTERM")
        with pytest.raises(asyncio.CancelledError):
            await held
        assert [line["signal"] for line in at.told("given_up")] == ["SIGTERM"]


def test_an_operator_that_may_take_every_place_is_a_warning_beside_others() -> None:
    other = ACME.replace("acme", "brook")
    config = config_with(f"worker.concurrency = 32\n{ACME}{other}")
    assert {one.where for one in config.warnings} >= {"operators.acme.concurrency", "operators.brook.concurrency"}
    alone = config_with(f"worker.concurrency = 32\n{ACME}")
    assert not [one for one in alone.warnings if one.where.endswith("concurrency")]


@pytest.mark.parametrize("key", ["token_env", "token_file"])
def test_a_secret_under_the_wrong_key_is_not_shown(key: str) -> None:
    text_ = ACME.replace('token = "the-token-of-acme"', f'{key} = "0123456789abcdefSECRET"')
    (fault,) = faults_of(text_).values()
    assert "SECRET" not in str(fault)
