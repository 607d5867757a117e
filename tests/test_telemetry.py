"""What the logs tell: one whole line for each attempt, and never a secret, a token or a player's money."""

import asyncio
import json
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy.exc import IntegrityError

from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.policy import Outcome, Reason, Rule, judge
from dispatcher.ground.schedule import Delays
from dispatcher.seal import Seal
from dispatcher.store import acceptance
from dispatcher.store.corridor import Adopted
from dispatcher.telemetry import attempt_line, configure_logs
from tests.ground import IV, KEY, NOW, claim, outcome
from tests.workshop import Bench, configuration, event, settled, take

pytestmark = pytest.mark.anyio

FIELDS = {
    *(
        "id",
        "operator",
        "type",
        "key",
        "n",
        "trigger",
        "status",
        "http_status",
        "code",
        "reason",
        "ambiguous",
        "detail",
    ),
    *("duration_ms", "late_by_ms", "key_version", "due_at", "superseded"),
}
PLAYERS_TOKEN = "the-players-own-token"
BET, WIN, NET = "7311.17", "9423.29", "2112.12"
# Whatever of these stands in a log has leaked.
SECRETS = {
    "the key": KEY,
    "the IV": IV,
    "the operator's token": "the-token-of-acme",
    "the player's token": PLAYERS_TOKEN,
    "the bet": BET,
    "the win": WIN,
    "the net win": NET,
}


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def leaked(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


def secret_event(key: int = 1) -> Any:
    return event(key, total_bet=BET, total_win=WIN)._replace(bearer=PLAYERS_TOKEN)


def line_of(made: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The line of an attempt that came to this outcome, by the default schedule."""
    held = claim(**changes)
    done = Outcome(NOW + 3 * SECOND, NOW + 5 * SECOND, 2_000_999)._replace(**made)
    verdict = judge(held, done, Delays(), Rule())
    return attempt_line(held, done, verdict, late=False)


# The line.


def test_the_line_of_a_failed_attempt_has_everything() -> None:
    made = {"http_status": 503, "key_version": 2, "detail": "busy"}
    assert line_of(made, attempt=2, due_at=NOW + SECOND, operator="acme", id=9) == {
        "id": 9,
        "operator": "acme",
        "type": "notice",
        "key": "1767225600123457049",
        "n": 2,
        "trigger": "retry",
        "status": "pending",
        "http_status": 503,
        "code": None,
        "reason": "http_status",
        "ambiguous": False,
        "detail": "busy",
        "duration_ms": 2000,
        "late_by_ms": 2000,
        "key_version": 2,
        "due_at": "2026-01-01T00:30:05.000Z",
        "superseded": False,
    }


def test_the_line_of_a_yes_has_the_same_fields() -> None:
    line = line_of({"http_status": 200})
    assert set(line) == FIELDS
    assert (line["status"], line["reason"], line["due_at"], line["ambiguous"]) == ("delivered", None, None, False)


def test_a_line_tells_what_is_doubtful_what_came_late_and_what_was_cut_short() -> None:
    assert line_of({"reason": Reason.READ_TIMEOUT})["ambiguous"] is True
    assert line_of({"reason": Reason.INTERRUPTED, "duration": None})["duration_ms"] is None
    assert line_of({"http_status": 200, "duration": 0})["duration_ms"] == 0
    assert line_of({"http_status": 200, "started_at": NOW - MINUTE})["late_by_ms"] == 0
    held, done = claim(), outcome(500)
    verdict = judge(held, done, Delays(), Rule())
    assert attempt_line(held, done, verdict, late=True)["superseded"] is True


async def test_every_attempt_has_exactly_one_line(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.mock(side_effect=[httpx.Response(500), httpx.ReadTimeout, httpx.Response(200)])
        await at.send(1)
        await at.after(MINUTE)
        await at.after(30 * MINUTE)
        lines = at.told("attempt")
        assert [(line["n"], line["status"], line["reason"]) for line in lines] == [
            (1, "pending", "http_status"),
            (2, "pending", "read_timeout"),
            (3, "delivered", None),
        ]
        for line in lines:
            assert set(line) == FIELDS | {"event", "level"}


async def test_a_late_attempt_has_its_line_too(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        acceptance.accept(at.database, [event(1)], NOW)
        (first,) = take(at.database)
        await at.dispatch.rescue(NOW)
        await at.dispatch._turn([settled(first, NOW)], [])
        assert [(line["n"], line["superseded"]) for line in at.told("attempt")] == [(1, False), (1, True)]


# The way to stderr.


async def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    await asyncio.sleep(0)
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_json_logs_are_one_object_a_line_with_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    log = configure_logs(as_json=True, level="info")
    for number in range(3):
        log.info("attempt", n=number, business="Spin投入", text="two\nlines")
    log.debug("attempt", n=9)
    lines = await told(capsys)
    assert [line["n"] for line in lines] == [0, 1, 2]
    assert set(lines[0]) == {"n", "business", "text", "event", "level", "timestamp"}
    assert (lines[0]["level"], lines[0]["business"], lines[0]["text"]) == ("info", "Spin投入", "two\nlines")
    assert lines[0]["timestamp"].endswith("Z")


def test_json_logs_outside_an_event_loop_go_out_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(as_json=True, level="info").warning("alone")
    assert json.loads(capsys.readouterr().err)["event"] == "alone"


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
async def test_a_log_is_silent_below_its_level(capsys: pytest.CaptureFixture[str], level: str, expected: int) -> None:
    log = configure_logs(as_json=True, level=level)
    log.debug("one")
    log.info("two")
    log.warning("three")
    log.error("four")
    assert len(await told(capsys)) == expected


def test_the_console_shows_the_same_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(as_json=False, level="info").info("attempt", **line_of({"http_status": 503}))
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "http_status=503" in shown


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "console"])
async def test_whatever_an_operator_says_is_one_harmless_line_and_the_worker_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """Half a character in an answer once ended the worker: the line could not be written, and nobody caught it."""
    said = rb'{"code":"\ud800","msg":"\udfff\u001b[2J\n\u202e' + b"x" * 60_000 + b'"}'
    at = Bench(configuration(tmp_path, success='{ field = "code", values = ["0000"] }'))
    at.log = configure_logs(as_json=as_json, level="info")
    at.acme.mock(side_effect=[httpx.Response(200, content=said), httpx.Response(200, json={"code": "0000"})])
    async with at:
        await at.send(1)
        await at.idle()
        await at.after(MINUTE)
        await at.idle()
        assert (at.row().status, at.row().attempts) == ("delivered", 2)
    await asyncio.sleep(0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "attempt" in line]
    assert len(lines) == 2
    assert len(lines[0]) < 3_000
    if as_json:
        assert json.loads(lines[0])["detail"].startswith("?\x1b[2J\n\u202e")
        assert "\x1b" not in lines[0]
    else:
        assert lines[0].isprintable()
        assert r"\udfff\x1b[2J\n\u202e" in lines[0]


# What never stands in them.


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "console"])
async def test_no_log_shows_a_secret_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    at = Bench(configuration(tmp_path, retry='{ delays = ["1m", "1m", "1m", "1m", "1m"] }'))
    at.log = configure_logs(as_json=as_json, level="debug")
    echo = httpx.Response(500, content=f"{BET} {PLAYERS_TOKEN}".encode())
    at.acme.mock(
        side_effect=[echo, httpx.ConnectError, httpx.ReadTimeout, ValueError("another bug"), httpx.Response(200)]
    )
    async with at:
        acceptance.accept(at.database, [secret_event()], NOW)
        for _ in range(4):
            await at.look()
            at.clock.move(MINUTE)
        with monkeypatch.context() as patch:
            # So deep that everything in the clear is in the frames above.
            patch.setattr(Seal, "_pad", _broken)
            await at.look()
        await at.cut_off()
        await at.start()
        await at.daemon.reload(tmp_path / "not there")
        await at.daemon.reload(configuration(tmp_path, "acme", "bolt", key='0" \nbroken'))
        await at.daemon.reload(configuration(tmp_path, key=f"{KEY}{KEY}"))
        await at.after(MINUTE)
        assert at.row().status == "delivered"
    await asyncio.sleep(0)
    shown = capsys.readouterr().err
    for happened in ("attempt_broke", "a bug after", "read_timeout", "reload_refused", "delivered"):
        assert happened in shown
    assert leaked(shown) == []


def _broken(_seal: Seal, plaintext: bytes) -> bytes:
    raise RuntimeError(f"a bug after {len(plaintext)} bytes")


async def test_nothing_we_hold_shows_a_secret_when_it_is_printed(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        acceptance.accept(at.database, [secret_event()], NOW)
        lane = at.dispatch.lanes["acme"]
        for thing in (at.config, at.config.operators, lane, lane.operator, lane.seal, at.daemon, at.dispatch):
            assert leaked(f"{thing!r} {thing}") == [], type(thing)


@pytest.mark.parametrize("kind", ["Claim", "Adopted", "Settlement", "Event"])
def test_a_delivery_in_our_hands_shows_neither_token_nor_amounts_when_it_is_printed(kind: str) -> None:
    accepted = secret_event()
    held = claim(body=accepted.body, bearer=PLAYERS_TOKEN)
    made = {
        "Claim": held,
        "Adopted": Adopted(held, NOW),
        "Settlement": settled(held, NOW),
        "Event": accepted,
    }[kind]
    assert leaked(f"{made!r} {made}") == []


async def test_an_error_of_the_store_shows_neither_token_nor_amounts_in_its_traceback(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        with at.database.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON deliveries BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            )
        with pytest.raises(IntegrityError) as error:
            acceptance.accept(at.database, [secret_event()], NOW)
        shown = "".join(traceback.format_exception(error.value))
        assert "the disk is full" in shown
        assert leaked(shown) == []


async def test_a_refused_configuration_shows_none_of_its_secrets(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        text = at.path.read_text()
        for old, new in ((KEY, f"{KEY}x"), (IV, f"{IV}x"), ("the-token-of-acme", "the-token-of-acme with blanks")):
            at.path.write_text(text.replace(old, new))
            await at.daemon.reload(at.path)
        lines = at.told("reload_refused")
        assert len(lines) == 3
        assert leaked(repr(lines)) == []
