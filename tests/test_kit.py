"""The integration kit: no secret in it, everything that the settings say, and answers that are judged as it says."""

import dataclasses
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dispatcher.cli import main
from dispatcher.config import load_config
from dispatcher.ground.clock import MINUTE
from dispatcher.ground.errors import Refused
from dispatcher.ground.lang import words
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Reason, read_answer
from dispatcher.ground.schedule import Delays, Interval
from dispatcher.kit import kit_files
from dispatcher.kit.facts import facts_of
from dispatcher.kit.guide import code
from dispatcher.kit.page import page
from dispatcher.kit.stand_in import masked_url, stand_in
from dispatcher.kit.vectors import vectors
from dispatcher.protocols import PROTOCOLS
from dispatcher.seal import Seal
from tests.canaries import Canaries, canary, tables
from tests.ground import ACME, config_with, operator, outcome
from tests.kits import covering
from tests.story import Story, toml
from tests.test_kit_receivers import SHAPES

FILES = {
    *("integration.md", "integration.html", "vectors.json", "notice.json", "settle.json"),
    *("receiver.php", "Receiver.java", "receiver.js", "receiver.go", "receiver.py", "Receiver.cs"),
}
BOTH = ACME + 'callback_url = "https://acme.example/wallet"\n'


def acme(**settings: Any) -> Operator:
    lines = "".join(f"{name} = {toml(value)}\n" for name, value in settings.items())
    return config_with(f"[operators.acme]\n{lines}").operators["acme"]


def kit(*words: object, folder: Path) -> Result:
    return CliRunner().invoke(main, ["kit", *map(str, words), "-c", str(folder / "config.toml")])


# No secret in it.


def test_nothing_in_a_kit_is_an_operators_secret(tmp_path: Path) -> None:
    canaries = Canaries(tmp_path)
    path = tmp_path / "config.toml"
    secret = f"/{canary('token')}/cb?token={canary('header')}&{canary('player')}"
    whole = tables(canaries, f"http://127.0.0.1:9{secret.partition('?')[0]}", "")
    for one in whole["operators"].values():
        one["notice_url"] += f"?{secret.partition('?')[2]}"
    path.write_text("".join(f"{name} = {toml(value)}\n" for name, value in whole.items()), "utf-8")
    operators = load_config(path).operators
    assert {*operators} == {"acme", "bolt", "coin", "dime"}
    for one in operators.values():
        for name, text in kit_files(one).items():
            assert canaries.found(text) == [], f"{one.name}: {name}"


def test_a_kit_of_one_key_is_that_of_any_other() -> None:
    """Whatever the secrets are: what is written does not hang on them."""
    one, other = (
        acme(notice_url="https://acme.example/n", token=token, crypto={"key": key, "iv": iv}, headers={"X-Key": token})
        for token, key, iv in (
            ("first", "0123456789abcdef", "A1b2C3d4E5f6G7h8"),
            ("second", "f" * 8 + "g" * 8, "i" * 16),
        )
    )
    assert kit_files(one) == kit_files(other)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://acme.example/Demo/notice", "https://acme.example/Demo/notice"),
        ("https://acme.example", "https://acme.example/"),
        ("https://acme.example/api/v2/callback-of-spins", "https://acme.example/api/v2/callback-of-spins"),
        (
            "https://acme.example/n?key=abc&flag&a=b=c",
            "https://acme.example/n?key=YOUR-SECRET&YOUR-SECRET&a=YOUR-SECRET",
        ),
        ("https://acme.example/hooks/T024BE7LD8f3a9c0d1e2", "https://acme.example/hooks/YOUR-SECRET"),
    ],
)
def test_of_a_url_what_may_be_secret_is_a_placeholder(url: str, shown: str) -> None:
    assert masked_url(url) == shown


# The vectors.


@pytest.mark.parametrize("reading", covering(), ids=lambda one: "-".join(one))
def test_a_vector_is_what_the_real_cipher_makes_of_its_plaintext_with_this_reading(reading: Any) -> None:
    one = acme(notice_url="https://acme.example/n", token="t", crypto=reading.settings)
    given = stand_in(one)
    told, own = vectors(given, facts_of(given)), given.operator.reading
    assert own is not None
    assert one.reading is not None
    assert (own.cipher, own.padding, own.output, own.spelling) == (
        *(one.reading.cipher, one.reading.padding, one.reading.output),
        one.reading.spelling,
    )
    assert (own.iv is None) == (one.reading.iv is None)
    for row in told["cipher"]:
        assert bytes.fromhex(row["key_hex"]) == own.key
        assert own.iv is None or bytes.fromhex(row["iv_hex"]) == own.iv
        assert Seal(own).open(row["ciphertext"]).decode() == row["plaintext"]
    assert {16, 32} <= {len(row["plaintext"].encode()) for row in told["cipher"]}
    bodies = [json.loads(row["body"]) for row in told["requests"] if row["books"]]
    lengths = [len(Seal(own).open(body["data"])) for body in bodies]
    assert any(length % 16 == 0 for length in lengths)
    # The same texts, read as an operator's settings are, give the same key.
    again = acme(
        notice_url="https://acme.example/n",
        token="t",
        crypto={**{k: v for k, v in reading.settings.items() if k != "iv"}, "key": told["settings"]["CALLBACK_KEY"]}
        | ({"iv": told["settings"]["CALLBACK_IV"]} if reading.iv_mode == "fixed" else {}),
    )
    assert again.reading == own


def test_the_vectors_have_the_edges() -> None:
    given = stand_in(config_with(BOTH).operators["acme"])
    told = vectors(given, facts_of(given))
    reading = given.operator.reading
    assert reading is not None
    booked = [(row["name"].partition(":")[0], json.loads(row["body"])) for row in told["requests"] if row["books"]]
    keys = [(kind, body.get("order_no") or body.get("txId")) for kind, body in booked]
    assert len(keys) == len({*keys}) == 7
    assert ("notice", "9223372036854775807") in keys
    opened = [Seal(reading).open(body["data"]).decode() for kind, body in booked if kind == "notice"]
    assert any('"total_bet":0.0001' in one for one in opened)
    assert any("🎰" in one for one in opened)
    assert {row["status"] for row in told["requests"]} == {200, 400, 401, 409}


# What it says.


def test_the_document_names_every_field_with_a_meaning_every_reason_and_every_address() -> None:
    text = kit_files(config_with(BOTH).operators["acme"])["integration.md"]
    chinese, english = text.split("\n## English\n")
    assert re.search(r"^The body is JSON", english, re.MULTILINE), "without a blank before it, or a secret part"
    for half, column in ((chinese, "zh"), (english, "en")):
        for kind, protocol in PROTOCOLS.items():
            for field in protocol.fields:
                assert re.search(
                    rf"^\| `{field.name}` \| [^|]+ \| [^|]+ \| `[^|]+ \| [^ |][^|]+ \|$", half, re.MULTILINE
                ), (
                    column,
                    kind,
                    field.name,
                )
        for reason in Reason:
            mark = {"zh": "是", "en": "yes"}[column] if reason.ambiguous else ""
            assert f"| `{reason}` | {words(column)[f'why_{reason}']} | {mark} |" in half
        assert "`https://acme.example/Demo/notice`" in half
        assert "`https://acme.example/wallet/settle`" in half
        assert "| 4 | +50m | 13:21:00 |" in half
        assert "| 181 | +1m | 15:00:00 |" in half
    assert len(re.findall("^###", chinese, re.MULTILINE)) == len(re.findall("^###", english, re.MULTILINE))
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [
        (
            Delays((MINUTE, 30 * MINUTE), "first"),
            ["| 1 |  | 12:00:00 |", "| 2 | +1m | 12:01:00 |", "| 3 | +29m | 12:30:00 |"],
        ),
        (Delays(()), ["| 1 |  | 12:00:00 |"]),
        (Delays((24 * 60 * MINUTE,)), ["| 2 | +1d | 12:00:00 (+1d) |"]),
        (Interval(7 * MINUTE, 60 * MINUTE), ["| 3 | +7m | 12:14:00 |", "| … | … | … |", "| 9 | +7m | 12:56:00 |"]),
        (Interval(MINUTE, 30_000_000), ["| 1 |  | 12:00:00 |"]),
    ],
)
def test_the_retry_times_are_those_of_the_schedule(schedule: Delays | Interval, rows: list[str]) -> None:
    text = kit_files(operator({"schedule": schedule}))["integration.md"]
    for row in rows:
        assert text.count(row) == 2, row


@pytest.mark.parametrize(
    "success",
    [
        {},
        {"statuses": [202, 204]},
        {"statuses": [204]},
        {"statuses": [400, 401, 409, 422]},
        {"field": "code", "values": ["0000"], "extra_success_codes": ["1"], "final_codes": ["9"]},
        {"field": "code", "extra_success_codes": ["1", "2"]},
        {"field": "data.code", "values": [0], "coerce_code": True, "numeric": "data.wallet"},
        {"field": "success", "values": [True], "numeric": "wallet"},
        {"field": "a|b`c", "values": ['q"uo\\te|`']},
    ],
)
def test_the_yes_of_a_kit_is_one_by_the_operators_rule_and_its_noes_are_none(success: Mapping[str, Any]) -> None:
    one = acme(
        notice_url="https://acme.example/n",
        token="t",
        crypto={"key": "0123456789abcdef", "iv": "A1b2C3d4E5f6G7h8"},
        success=success,
    )
    facts, rule = facts_of(stand_in(one)), one.terms["notice"].rule
    (message,) = facts.types
    assert read_answer(outcome(message.status, body=message.answer.encode()), rule).failure is None
    for status in facts.refused.values():
        assert read_answer(outcome(status, body=b'{"error":"no"}'), rule).failure is not None
    kit_files(one)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.links += [str(given[name]) for name in ("href", "src", "srcset", "action") if name in given]
        self.ids += [str(given["id"])] if "id" in given else []
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_is_whole_needs_nothing_from_elsewhere_and_says_what_the_document_says(shape: str) -> None:
    files = kit_files(acme(**SHAPES[shape]))
    text = files["integration.html"]
    read = _Page(text)
    assert read.open == []
    assert read.links == ["#中文", "#english"]
    assert {*read.ids} == {"中文", "english"}
    assert not read.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\(|@import", text)
    assert all(one in text for one in ("width=device-width", "prefers-color-scheme: dark", "@media print"))
    # Each row of a table has as many cells as its heading.
    for table in re.findall("<table>.*?</table>", text):
        assert len({row.count("<td>") + row.count("<th>") for row in re.findall("<tr>.*?</tr>", table)}) == 1, table
    assert text.count("<h3>") == len(re.findall("^### ", files["integration.md"], re.MULTILINE))


def test_what_an_operator_is_called_or_says_can_not_break_the_page() -> None:
    text = page(
        "<b>",
        f"# {code('<script>alert(1)</script>`|')}\n\n| a |\n|---|\n| {code('x|y <i>')} |\n\n<s> `2` **<u>** [a<b](#c)",
    )
    assert not any(one in text for one in ("<script>", "<i>", "<u>", "<s>", "a<b"))
    assert "<td><code>x|y &lt;i&gt;</code></td>" in text
    assert "<title>&lt;b&gt;</title>" in text


# The command.


def test_the_command_writes_every_file_and_says_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(BOTH, "utf-8")
    done = kit("acme", "-o", tmp_path / "new" / "kit", "--json", folder=tmp_path)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["operator"], told["folder"], {*told["files"]}) == ("acme", str(tmp_path / "new" / "kit"), FILES)
    assert {one.name for one in (tmp_path / "new" / "kit").iterdir()} == FILES
    # The body that curl posts is the one that is shown and signed.
    body = (tmp_path / "new" / "kit" / "notice.json").read_text("utf-8")
    assert (tmp_path / "new" / "kit" / "integration.md").read_text("utf-8").count(body) == 2


def test_a_folder_that_is_not_empty_is_left_alone_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(BOTH, "utf-8")
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "notes.txt").write_text("mine", "utf-8")
    refused = kit("acme", "-o", tmp_path / "kit", folder=tmp_path)
    assert refused.exit_code == 1
    assert "is not empty; name another folder with -o, or write over its files with --force" in refused.stderr
    assert [one.name for one in (tmp_path / "kit").iterdir()] == ["notes.txt"]
    assert kit("acme", "-o", tmp_path / "kit", "--force", folder=tmp_path).exit_code == 0
    assert {one.name for one in (tmp_path / "kit").iterdir()} == {*FILES, "notes.txt"}


def test_an_operator_that_nobody_knows_or_that_no_receiver_could_serve_is_told_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(BOTH, "utf-8")
    unknown = kit("brook", "-o", tmp_path / "kit", folder=tmp_path)
    assert (unknown.exit_code, 'write "acme"' in unknown.stderr) == (2, True)
    same = BOTH.replace("/Demo/notice", "/wallet/settle")
    (tmp_path / "config.toml").write_text(same, "utf-8")
    both = kit("acme", "-o", tmp_path / "kit", folder=tmp_path)
    assert (both.exit_code, "at the same path, /wallet/settle; give one of them another" in both.stderr) == (1, True)
    (tmp_path / "file").write_text("", "utf-8")
    assert kit("acme", "-o", tmp_path / "file" / "kit", folder=tmp_path).exit_code == 1
    assert not (tmp_path / "kit").exists()
    with pytest.raises(Refused):
        kit_files(config_with(same).operators["acme"])


def test_an_operator_that_only_the_database_has_gets_its_kit_and_one_that_is_unfit_its_reason(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        (tmp_path / "key").write_text("0123456789abcdef", "utf-8")
        (tmp_path / "token").write_text("the-token", "utf-8")
        words = [
            "notice_url=http://127.0.0.1:9/cb",
            f"crypto.key_file={tmp_path / 'key'}",
            "crypto.iv_mode=zero",
            f"token_file={tmp_path / 'token'}",
        ]
        made = story.call("operators", "set", "brook", *words)
        assert made.status == 0, made
        done = story.call("kit", "brook", "-o", tmp_path / "kit")
        assert (done.status, len(done.out.splitlines())) == (0, len(FILES) - 1), done
        assert "16 zero bytes" in (tmp_path / "kit" / "integration.md").read_text("utf-8")
        story.add_operator("acme", notice_url="https://acme.example/cb")
        story.set("egress", allow=[])
        unfit = story.call("kit", "brook", "-o", tmp_path / "none")
        assert unfit.status == 2
        assert "operators.brook: can't be used: operators.brook.notice_url: 127.0.0.1 is not on the public" in unfit.err
        assert not (tmp_path / "none").exists()


def test_how_a_key_is_written_changes_no_message_and_no_key_version() -> None:
    reading = config_with(BOTH).operators["acme"].reading
    assert reading is not None
    assert reading.spelling is not None
    bare = dataclasses.replace(reading, spelling=None)
    assert (bare, bare.fingerprint) == (reading, reading.fingerprint)
