"""Builders for the tests: each gives something whole, and every part of it can be changed by name."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import settings

from dispatcher.accept import Lock, read_event
from dispatcher.config import Config, read_config
from dispatcher.ground.errors import ConfigError, EventError, Fault, Unfit
from dispatcher.ground.events import Event, parse_json
from dispatcher.ground.fields import Field, collect_fields
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Claim, Outcome, Reason

# A busy machine is no fault of the code, and a test leaves nothing behind.
settings.register_profile("dispatcher", deadline=None, database=None)
settings.load_profile("dispatcher")

KEY = "0123456789abcdef"
IV = "A1b2C3d4E5f6G7h8"
NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z

ACME = f"""
[operators.acme]
notice_url = "https://acme.example/Demo/notice"
token = "the-token-of-acme"
crypto = {{ key = "{KEY}", iv = "{IV}" }}
"""


def config_with(text: str, folder: Path = Path("/nowhere")) -> Config:
    """The configuration in this TOML text, as if it stood in `folder`."""
    return read_config(tomllib.loads(text), folder / "config.toml")


def faults_of(text: str, folder: Path = Path("/nowhere")) -> dict[str, Fault]:
    """The faults of this TOML text by the key where each stands; none when it is fit."""
    try:
        config_with(text, folder)
    except ConfigError as error:
        return {fault.where: fault for fault in error.faults}
    return {}


def acme_with(lines: str) -> str:
    """A configuration with one operator, acme, that has these lines beside what it needs."""
    return ACME.replace("[operators.acme]", f"[operators.acme]\n{lines}")


def operator(terms: Mapping[str, Any] | None = None, **changes: Any) -> Operator:
    """Acme, a `notice` operator with the defaults of interface.md; `terms` changes those of its notices."""
    acme = dataclasses.replace(config_with(ACME).operators["acme"], **changes)
    of_notice = dataclasses.replace(acme.terms["notice"], **terms or {})
    return dataclasses.replace(acme, terms={**acme.terms, "notice": of_notice})


def operators(**changes: Any) -> Mapping[str, Operator]:
    return {"acme": operator(**changes)}


def notice(**changes: Any) -> dict[str, Any]:
    """A whole `notice` event. Amounts are text here, because a Python number would be a float on the way to JSON."""
    event = {
        "operator": "acme",
        "type": "notice",
        "order_no": "1767225600123457049",
        "uid": "player-1",
        "total_bet": "10",
        "total_win": "12.5",
        "business": "Spin投入",
        "game_id": 49,
        "time": 1767225601,
    }
    return event | changes


def settle_event(**changes: Any) -> dict[str, Any]:
    """A whole `settle` event."""
    event = {
        "operator": "acme",
        "type": "settle",
        "gameType": "SLOT",
        "gameCode": "fortune-mouse",
        "userId": "player-1",
        "txId": "tx-0001",
        "roundId": "round-1",
        "status": "settled",
        "betTime": "2022-10-14T23:00:00.000+0800",
        "roundStartTime": "2022-10-14T22:59:59.000+0800",
        "betAmount": "10.0",
        "validBetAmount": "10.0",
        "winAmount": "12.5",
        "odds": "1.25",
        "result": ["A", "K", "Q"],
    }
    return event | changes


def lock(plaintext: bytes, about: str) -> str:
    """What a vault would make of a secret; here only bytes turned round, so that a test sees what it was."""
    return f"locked:{about}:{plaintext.decode()[::-1]}"


def line(event: Mapping[str, Any], without: Sequence[str] = (), **raw: str) -> str:
    """The event as a line of JSON; `raw` puts JSON text in place of a field's value, digit by digit."""
    parts = {name: json.dumps(value, ensure_ascii=False) for name, value in event.items()} | raw
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in parts.items() if name not in without) + "}"


def parse_event(line: bytes | str, operators: Mapping[str, Operator], lock: Lock) -> Event:
    """The event in one line of JSON, as an operator among these wants it. Raises EventError."""
    try:
        raw = parse_json(line)
    except Unfit as unfit:
        raise EventError([unfit.at("line")]) from None
    return read_event(raw, operators, lock)


def read_fields(raw: Mapping[str, Any], fields: Sequence[Field], also: Sequence[str] = ()) -> dict[str, Any]:
    """Every field of an event by its rule. Raises EventError with all faults: missing, unfit and unknown ones."""
    values, faults = collect_fields(raw, fields, also)
    if faults:
        raise EventError(faults)
    return values


def claim(**changes: Any) -> Claim:
    """A first attempt, in our hands since NOW."""
    fresh = Claim(
        id=1,
        operator="acme",
        type="notice",
        key="1767225600123457049",
        uid="player-1",
        body="{}",
        bearer=None,
        attempt=1,
        run_from=0,
        anchor_at=None,
        due_at=NOW,
        token=7,
        ambiguous=False,
    )
    return fresh._replace(**changes)


def outcome(http_status: int | None = None, reason: Reason | None = None, **changes: Any) -> Outcome:
    """What came of a POST that began at NOW and took a fifth of a second."""
    done = Outcome(NOW, NOW + 200_000, 200_000, http_status=http_status, reason=reason)
    return done._replace(**changes)
