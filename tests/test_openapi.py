"""The served document: whoever goes by it is answered as it says, and what it forbids is refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema_rs import validator_for

from dispatcher.ground.apikey import Scope
from dispatcher.ground.fields import Field, described, schema_of
from dispatcher.protocols import PROTOCOLS
from dispatcher.web.deliveries import FILTERS, RESOLUTION
from dispatcher.web.replays import LIST, REQUEST
from tests.ground import notice, settle_event
from tests.story import Story, orders

HERE = Path(__file__).parent


@pytest.fixture
def story(tmp_path: Path) -> Any:
    with Story(tmp_path) as story:
        story.set("acme", callback_url="http://127.0.0.1:9/wallet")
        yield story


@pytest.mark.parametrize("examples", ["1", pytest.param("20", marks=pytest.mark.slow)])
def test_schemathesis_finds_nothing_that_the_document_does_not_say(story: Story, examples: str) -> None:
    story.enqueue(orders(3))
    key = story.key(*Scope)
    with story.running("web") as daemon:
        words = ["run", f"{daemon.web}/openapi.json", "--generation-deterministic", "--max-examples", examples]
        words += ["--header", f"Authorization: {key['authorization']}", "--no-color"]
        config = ["--config-file", str(HERE / "schemathesis.toml")]
        program = str(Path(sys.executable).with_name("schemathesis"))
        env = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")}
        command = [program, *config, *words]
        # What it remembers of one run to the next stays in the folder.
        done = subprocess.run(
            command, cwd=story.folder, env=env, capture_output=True, encoding="utf-8", timeout=1_200, check=False
        )
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr
        assert "Operations:       12 selected / 12 total" in done.stdout
        assert not daemon.told("web_broke")
        statuses = {one["status"] for one in daemon.told("request")}
        assert {200, 202, 400, 401, 404, 413, 415, 422} <= statuses, statuses
        document = httpx.get(f"{daemon.web}/openapi.json", trust_env=False, timeout=60).json()
    assert document["openapi"] == "3.1.0"


def test_the_document_is_made_from_the_readers_that_read() -> None:
    """So that none is without a description, and each says the bounds that it has."""
    fields: list[Field] = [*FILTERS, *RESOLUTION, *REQUEST, *LIST]
    fields += [field for protocol in PROTOCOLS.values() for field in protocol.fields]
    assert [field.name for field in fields if not schema_of(field.read)] == []
    by_name = {field.name: schema_of(field.read) for field in PROTOCOLS["settle"].fields}
    assert (by_name["txId"]["maxLength"], by_name["result"]["items"]["maxLength"]) == (20, 255)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("order_no", "1", True),
        ("order_no", "", False),
        ("order_no", " 1", False),
        ("order_no", "x" * 65, False),
        ("order_no", 1, False),
        ("total_bet", "1.5", True),
        ("total_bet", -1.5, True),
        ("total_bet", "1.23456", False),
        ("total_bet", "1e2", False),
        ("total_bet", 1e21, False),
        ("business", "Spin投入", True),
        ("business", "\x00", False),
        ("game_id", 2**63, False),
        ("time", "now", False),
        ("token", "a b", False),
        ("net_win", None, False),
        ("unheard", "of", False),
    ],
)
def test_what_the_document_says_of_an_event_is_what_is_taken(name: str, value: object, fits: bool) -> None:
    from dispatcher.web.openapi import document

    schema = {**document([])["components"]["schemas"]["notice"]}
    assert validator_for(schema).is_valid(notice())
    assert validator_for(schema).is_valid({**notice(), name: value}) is fits
    settle = document([])["components"]["schemas"]["settle"]
    assert validator_for(settle).is_valid(settle_event())


def test_a_reader_that_says_nothing_of_itself_takes_anything_for_all_we_know() -> None:
    def read(value: object) -> object:
        return value

    assert schema_of(read) == {}
    assert schema_of(described({"type": "null"})(read)) == {"type": "null"}
    assert re.search('"type": "null"', json.dumps(schema_of(read)))
