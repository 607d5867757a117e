"""A third message type is one file: it is accepted, delivered by its own rules, and shown; nothing else knows it."""

import json
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from dispatcher.config import load_config
from dispatcher.ground.clock import SECOND
from dispatcher.ground.errors import EventError
from dispatcher.ground.policy import Rule
from dispatcher.ground.schedule import Delays
from dispatcher.protocols import PROTOCOLS, SPOKEN
from dispatcher.store import acceptance
from tests import toy
from tests.ground import NOW, faults_of, lock, notice, parse_event
from tests.workshop import Bench, configuration

pytestmark = pytest.mark.anyio

WIN = {"operator": "acme", "type": "jackpot", "win_id": "w1", "player": "p1", "pot": "1000.50"}


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the name in `dispatcher/protocols/__init__.py` does."""
    for known in (PROTOCOLS, SPOKEN):
        monkeypatch.setitem(cast(dict[str, Any], known), "jackpot", toy.PROTOCOL)


def configured(folder: Path, **lines: str) -> Path:
    return configuration(folder, jackpot_url='"https://acme.example/api/"', **lines)


def read(folder: Path, event: dict[str, Any]) -> Any:
    return parse_event(json.dumps(event), load_config(configured(folder)).operators, lock)


def test_its_settings_and_defaults_are_those_of_its_file(tmp_path: Path) -> None:
    terms = load_config(configured(tmp_path)).operators["acme"].terms["jackpot"]
    assert terms.url == "https://acme.example/api/jackpot"
    assert terms.schedule == Delays((10 * SECOND,))
    assert terms.rule == Rule(field=("ok",), values=(True,))
    terms = (
        load_config(configured(tmp_path, jackpot='{ retry = { delays = ["1s", "2s"] } }'))
        .operators["acme"]
        .terms["jackpot"]
    )
    assert terms.schedule == Delays((SECOND, 2 * SECOND))


def test_its_faults_are_told_like_any_others(tmp_path: Path) -> None:
    with pytest.raises(EventError) as error:
        read(tmp_path, WIN | {"pot": "0", "player": "", "jackpott": 1})
    assert [fault.where for fault in error.value.faults] == ["player", "jackpott", "pot"]
    assert "operators.acme.jackpot.retry.delays" in faults_of(
        '[operators.acme]\njackpot_url = "https://acme.example"\njackpot = { retry = { delays = ["soon"] } }'
    )


async def test_it_is_delivered_by_its_own_rules_beside_the_others(tmp_path: Path) -> None:
    async with Bench(configured(tmp_path)) as at:
        route = at.router.post("https://acme.example/api/jackpot")
        route.mock(side_effect=[httpx.Response(200, json={"ok": False}), httpx.Response(200, json={"ok": True})])
        at.acme.mock(return_value=httpx.Response(200))
        events = [read(tmp_path, WIN), read(tmp_path, notice())]
        acceptance.accept(at.database, events, NOW)
        await at.look()
        assert at.row("w1").status == "pending"
        await at.after(10 * SECOND)
        assert at.row("w1").status == at.row(events[1].key).status == "delivered"
        bodies = [json.loads(call.request.content) for call in route.calls]
        assert [body["attempt_at"] for body in bodies] == [NOW, NOW + 10 * SECOND]
        assert all(body["win"] == {"win_id": "w1", "player": "p1", "pot": "1000.50"} for body in bodies)
        assert "Authorization" not in route.calls[0].request.headers


async def test_its_amount_stands_in_the_log(tmp_path: Path) -> None:
    from dispatcher.rows import as_json

    async with Bench(configured(tmp_path)) as at:
        at.router.post("https://acme.example/api/jackpot").mock(return_value=httpx.Response(500))
        acceptance.accept(at.database, [read(tmp_path, WIN)], NOW)
        assert as_json(at.row("w1"))["pot"] == "1000.50"
