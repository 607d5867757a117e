"""Events, configurations and command lines that nobody means well with: taken whole, or refused with a sentence.

Modest numbers here; `make fuzz EXAMPLES=10000` runs these same tests with as many, then a fuzzer guided by coverage.
"""

import gc
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.cli import main
from dispatcher.config import load_config
from dispatcher.ground.errors import ConfigError, EventError, Fault
from dispatcher.ground.events import Event
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Outcome, Rule, Verb, judge, read_answer
from dispatcher.protocols import PROTOCOLS
from tests.ground import IV, KEY, NOW, claim, config_with, line, lock, notice, parse_event
from tests.nasty import GOOD, SPLINTERS, TEXTS, VALUES, contract, events, fine_events
from tests.nursery import COMMAND
from tests.story import Story, leaks, toml

ROOT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
TEN_MB = 10_000_000
BOTH = f"""
[web]
listen = ""
[egress]
allow = ["127.0.0.0/8"]
[operators.acme]
notice_url = "http://127.0.0.1:9/Demo/notice"
callback_url = "http://127.0.0.1:9/wallet"
token = "the-token-of-acme"
crypto = {{ key = "{KEY}", iv = "{IV}" }}
"""


def examples(few: int, *, share: int = 1) -> settings:
    """So many in the ordinary suite; in `make fuzz` what was asked for, divided by what one example holds."""
    most = max(few, EXAMPLES // share)
    return settings(max_examples=most, suppress_health_check=[*HealthCheck])


@cache
def takers() -> Mapping[str, Operator]:
    return config_with(BOTH).operators


def assert_helps(faults: tuple[Fault, ...]) -> None:
    """Each fault names where, what and what to write instead, in a line that a terminal can show."""
    assert faults
    for fault in faults:
        assert fault.where
        assert fault.fault
        assert fault.mend
        assert str(fault).isprintable()
        assert len(str(fault)) < 1_000


def read(raw: bytes) -> Event | tuple[Fault, ...]:
    try:
        return parse_event(raw, takers(), lock)
    except EventError as error:
        return error.faults


def sent(event: Event) -> dict[str, Any]:
    """What an attempt sends of it, the encrypted part in the clear, numbers as Decimal."""
    held = claim(operator=event.operator, type=event.type, key=event.key, uid=event.uid, body=event.body)
    inside: list[bytes] = []

    def seal(plaintext: bytes) -> str:
        inside.append(plaintext)
        return ""

    body = PROTOCOLS[event.type].body(takers()[event.operator], held, seal, NOW)
    whole: dict[str, Any] = {}
    for part in (body, *inside):
        whole |= json.loads(part.decode("utf-8"), parse_float=Decimal, parse_int=Decimal)
    return whole


def assert_sends(meant: Mapping[str, Any], event: Event) -> None:
    """What goes out is exactly what came in."""
    whole = sent(event)
    for name, value in meant.items():
        if name in ("operator", "type", "token"):
            continue
        if name in ("betTime", "roundStartTime"):
            truncated = value.replace(microsecond=value.microsecond // 1_000 * 1_000)
            offset = timedelta(hours=8)
            told = contract(json.dumps(GOOD["settle"] | {name: whole[name]}).encode())
            assert told is not None
            assert told[name].utcoffset() == offset
            assert abs(told[name] - truncated) < timedelta(milliseconds=1)
        elif isinstance(value, Decimal):
            assert Decimal(whole[name]) == value
        else:
            assert whole[name] == value


# Events.


@examples(250)
@given(events())
def test_an_event_is_taken_whole_and_rightly_or_refused_with_what_to_write_instead(raw: bytes) -> None:
    outcome = read(raw)
    if not isinstance(outcome, Event):
        assert_helps(outcome)
        return
    meant = contract(raw)
    assert meant is not None, "taken, and by the contract it is no event"
    assert_sends(meant, outcome)
    assert (outcome.operator, outcome.type) == ("acme", meant["type"])


@examples(100, share=4)
@given(fine_events())
def test_what_the_contract_takes_is_taken(text: str) -> None:
    assert contract(text.encode()) is not None
    assert isinstance(read(text.encode()), Event)


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_every_field_meets_every_nasty_value(kind: str) -> None:
    taken = 0
    for name in (*GOOD[kind], "more"):
        for value in VALUES:
            raw = line(GOOD[kind] | {name: ""}, **{name: value}).encode("utf-8", "surrogatepass")
            outcome = read(raw)
            if isinstance(outcome, Event):
                taken += 1
                meant = contract(raw)
                assert meant is not None, raw[:200]
                assert_sends(meant, outcome)
            else:
                assert_helps(outcome)
    assert taken > 20, "nothing but refusals would prove nothing"


def test_a_field_that_nobody_knows_is_refused_whatever_its_name() -> None:
    for name in TEXTS:
        outcome = read(line(notice() | {name: 1}).encode("utf-8", "surrogatepass"))
        assert not isinstance(outcome, Event)
        assert_helps(outcome)


def test_keys_that_look_alike_and_are_written_otherwise_are_two_keys() -> None:
    """What two programs would normalise differently is passed on as it came."""
    for one, other in (("é", "e\u0301"), ("Å", "\u212b"), ("a", "а")):
        first, second = (read(line(notice(order_no=key)).encode()) for key in (one, other))
        assert isinstance(first, Event)
        assert isinstance(second, Event)
        assert first.key != second.key
        assert (first.key, second.key) == (one, other)


@pytest.mark.parametrize("digits", ["1e999999999", "-1e999999999", "1e-999999999", "9" * 60_000, "0e999999999"])
def test_an_amount_that_would_fill_the_memory_is_refused_before_it_is_written_out(digits: str) -> None:
    tracemalloc.start()
    try:
        outcome = read(line(notice(), total_bet=digits).encode())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not isinstance(outcome, Event)
    assert most < 8_000_000


TOO_MUCH: dict[str, Callable[[], bytes]] = {
    "text": lambda: line(notice(business="x" * TEN_MB)).encode(),
    "bytes": lambda: b'{"operator":"' + b"\xff" * TEN_MB + b'"}',
    "lists": lambda: b"[" * TEN_MB,
    "tables": lambda: b'{"a":' * (TEN_MB // 5),
    "number": lambda: b"9" * TEN_MB,
    "escapes": lambda: b'"' + b"\\u0000" * (TEN_MB // 6),
    "keys": lambda: json.dumps({f"k{n}": n for n in range(800_000)}).encode(),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_ten_megabytes_are_refused_without_being_read(kind: str) -> None:
    raw = TOO_MUCH[kind]()
    started = time.process_time()
    outcome = read(raw)
    assert not isinstance(outcome, Event)
    assert_helps(outcome)
    assert time.process_time() - started < 5


# A file of events, on a real store.


def dump(file: Path) -> list[str]:
    """Everything that the store holds, as SQL; nothing where there is none."""
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


def bodies(file: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT type, key, body FROM deliveries ORDER BY id").fetchall()


class Place:
    """A folder with a store that has a few deliveries in it, in any status, and that is as new for every example."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(BOTH)
        self.good = folder / "good.ndjson"
        self.good.write_text("".join(line(event) + "\n" for event in GOOD.values()))
        self.file = folder / "dispatcher.db"
        self.call("enqueue", str(self.good), "-c", str(self.config))
        self.before = dump(self.file)
        self._kept = self.file.read_bytes()

    def call(self, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Exit status, output, errors. Whatever the command lets escape fails the test."""
        result = CliRunner(env={"DISPATCHER_CONFIG": None, "LC_ALL": "C"}).invoke(
            main, ["--debug", *words], input=stdin, catch_exceptions=False
        )
        # `enqueue` takes everything out of the collector's sight, once for each of thousands of calls.
        gc.unfreeze()
        return result.exit_code, result.stdout, result.stderr

    def renew(self) -> None:
        """As it was at first."""
        if dump(self.file) == self.before:
            return
        for path in self.folder.glob("dispatcher.db-*"):
            if not path.name.endswith("-key"):
                path.unlink()
        self.file.write_bytes(self._kept)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Place(tmp_path)


@examples(15, share=20)
@given(
    st.lists(events(), min_size=1, max_size=40),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"]),
    st.booleans(),
)
def test_of_a_file_the_good_lines_are_kept_the_bad_ones_named_and_nothing_else_is_written(
    place: Place, lines: list[bytes], end: bytes, closed: bool
) -> None:
    place.renew()
    stream = end.join(lines) + (end if closed else b"")
    status, out, err = place.call("enqueue", "-", "--json", "-c", str(place.config), stdin=stream)
    told = json.loads(out)
    assert err == ""
    given = {number: raw for number, raw in enumerate(stream.split(b"\n"), 1) if raw.strip()}
    bad = {one["line"] for one in told["refused"]}
    assert bad <= given.keys()
    assert len(given) == sum(told[name] for name in ("accepted", "duplicate", "conflict", "invalid"))
    assert status == (1 if bad else 0)
    assert all(len(one["reason"]) > 10 for one in told["refused"])
    good = {number: read(raw) for number, raw in given.items() if number not in bad}
    assert all(isinstance(event, Event) for event in good.values())
    fresh = bodies(place.file)[len(GOOD) :]
    expected = {(event.type, event.key, event.body) for event in good.values() if isinstance(event, Event)}
    assert len(fresh) == told["accepted"]
    assert {*fresh} <= expected
    if not told["accepted"]:
        assert dump(place.file) == place.before


STREAMS: Mapping[str, tuple[bytes, int]] = {
    "the last line without its end": (line(notice()).encode(), 0),
    "old Mac line ends": (b"\r".join([line(notice(order_no=str(n))).encode() for n in (1, 2)]), 1),
    "NEL for a line end": ("\x85".join([line(notice(order_no=str(n))) for n in (1, 2)]).encode(), 1),
    "a line separator": ("\u2028".join([line(notice(order_no=str(n))) for n in (1, 2)]).encode(), 1),
    "UTF-16": ((line(notice()) + "\n").encode("utf-16"), 1),
    "UTF-32": ((line(notice()) + "\n").encode("utf-32"), 1),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + bytes(range(256)), 1),
    "a mark at the front": (b"\xef\xbb\xbf" + line(notice()).encode() + b"\n", 0),
    "nothing": (b"", 0),
    "blank lines alone": (b"\n\r\n \n\t\n", 0),
    "NULs": (b"\0" * 100_000, 1),
    "one endless line": (b"x" * TEN_MB, 1),
    "a million line ends": (b"\n" * 1_000_000, 0),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_is_no_ndjson_is_told_by_line_and_leaves_the_store_alone(place: Place, kind: str) -> None:
    stream, status = STREAMS[kind]
    started = time.process_time()
    found, out, _ = place.call("enqueue", "-", "--json", "-c", str(place.config), stdin=stream)
    told = json.loads(out)
    assert found == status
    assert bool(told["refused"]) == bool(status)
    assert time.process_time() - started < 20
    if not told["accepted"]:
        assert dump(place.file) == place.before


def test_a_folder_is_no_file_of_events_and_a_pipe_is_one(place: Place) -> None:
    status, _, err = place.call("enqueue", str(place.folder), "-c", str(place.config))
    assert (status, "is a directory" in err) == (2, True)
    assert dump(place.file) == place.before
    pipe = place.folder / "pipe"
    os.mkfifo(pipe)
    script = f'cat "{place.good}" > "{pipe}" & exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "enqueue", str(pipe), "--json", "-c", str(place.config)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)["duplicate"]) == (0, len(GOOD))


def test_a_file_whose_name_is_no_text_is_told_all_the_same(place: Place) -> None:
    file = place.folder / os.fsdecode(b"\xff.ndjson")
    file.write_text("no event\n")
    status, out, _ = place.call("enqueue", str(file), "--json", "-c", str(place.config))
    assert status == 1
    assert json.loads(out)["refused"][0]["file"].endswith("\\udcff.ndjson")


# What operators answer.


RULES = (
    Rule(),
    Rule(field=("code",), values=("0000",), final=frozenset({"9"})),
    Rule(field=("success",), values=(True,), numeric=("wallet",)),
    Rule(field=("data", "code"), values=(0, "0"), coerce=True, extra=frozenset({"1"})),
)
_answers = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(VALUES).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(
        lambda name, value, more, splinter: (
            (
                b'{"%s":%s,"desc":%s}'
                % (name, value.encode("utf-8", "surrogatepass"), more.encode("utf-8", "surrogatepass"))
            )
            + splinter
        ),
        st.sampled_from([b"code", b"success", b"wallet", b'data":{"code', b'success":true,"wallet', b"error"]),
        st.sampled_from([*VALUES, '"0000"', "true", "0", "1.5"]),
        st.sampled_from(VALUES),
        st.sampled_from([b"", b"}", *SPLINTERS]),
    ),
)


def agreed(body: bytes, rule: Rule) -> bool:
    """Whether a 200 with this body is a yes, by a reader that is not ours: JSON alone."""
    if not rule.reads_body:
        return True
    try:
        answer = json.loads(body.decode("utf-8-sig"), parse_float=Decimal, object_pairs_hook=_once)
    except (ValueError, ArithmeticError, RecursionError):
        return False
    if not isinstance(answer, dict):
        return False
    if rule.numeric and type(_deep(answer, rule.numeric)) not in (int, Decimal):
        return False
    found = _deep(answer, rule.field)
    if rule.coerce:
        return type(found) in (int, str, Decimal, bool) and str(found) in {"0", "1"}
    return any(found == one and type(found) is type(one) for one in rule.values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _deep(answer: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


@examples(250)
@given(_answers, st.integers(-1, 999), st.sampled_from(RULES), st.booleans())
def test_whatever_an_operator_answers_is_judged_and_only_the_agreed_yes_is_one(
    body: bytes, status: int, rule: Rule, truncated: bool
) -> None:
    outcome = Outcome(NOW, NOW, 0, status, body=body, truncated=truncated)
    terms = takers()["acme"].terms["notice"]
    verdict = judge(claim(), outcome, terms.schedule, rule)
    for number in (status, 200):
        answer = read_answer(outcome._replace(http_status=number), rule)
        yes = number == 200 and agreed(body, rule) and not (truncated and rule.reads_body)
        assert (answer.failure is None) == yes
        assert answer.code is None or len(answer.code) <= 64
    assert (verdict.verb is Verb.DELIVER) == (read_answer(outcome, rule).failure is None)


@pytest.mark.parametrize("number", range(len(RULES)))
def test_every_value_in_every_field_that_is_read_is_a_yes_by_the_rule_alone(number: int) -> None:
    rule, agreements = RULES[number], 0
    for template in (
        '{"code":%s}',
        '{"success":%s,"wallet":1}',
        '{"success":true,"wallet":%s}',
        '{"data":{"code":%s}}',
    ):
        for value in (*VALUES, '"0000"', "1", "1.0", "0", "true", '"true"'):
            body = (template % value).encode("utf-8", "surrogatepass")
            outcome = Outcome(NOW, NOW, 0, 200, body=body)
            yes = agreed(body, rule)
            agreements += yes
            assert (read_answer(outcome, rule).failure is None) == yes, body[:200]
            cut = read_answer(outcome._replace(truncated=True), rule).failure is None
            assert cut == (yes and not rule.reads_body), body[:200]
    assert agreements


# Configurations.


def _settings() -> dict[str, dict[str, Any]]:
    """One value that is fit for each setting of docs/settings.md; not all of them at once."""
    return {
        "database": {"url": "sqlite:///dispatcher.db"},
        "worker": {"concurrency": 256, "lease": "60s"},
        "http": {"connect_timeout": "3s", "total_timeout": "10s"},
        "egress": {"allow": ["127.0.0.0/8"]},
        "web": {"listen": "127.0.0.1:8080"},
        "log": {"level": "info", "format": "json"},
        "retention": {"delivered": "30d"},
        "secrets": {"master_key": "00" * 32},
        "operators": {
            "acme": {
                "preset": "notice",
                "notice_url": "http://127.0.0.1:9/Demo/notice",
                "callback_url": "http://127.0.0.1:9/wallet",
                "auth": "bearer",
                "token": "the-token-of-acme",
                "crypto": {"key": KEY, "iv": IV},
            }
        },
    }


SETTINGS = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "settings.md").read_text("utf-8"), re.MULTILINE)
_WRITTEN = (
    *("nan", "inf", "-inf", "1e400", "-0.0", "-0", "0", "1", "-1", "true", "false", "0x10", "1_000", "1979-05-27"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 400, "9" * 5_000, "07:32:00", "''"),
    *(
        "[]",
        "[[]]",
        "{}",
        "[1]",
        "['a']",
        '["1m", 2]',
        "[1, 'a']",
        "{ a = 1 }",
        "{ a = { b = [] } }",
        "[" * 300 + "]" * 300,
    ),
    *("['" + "x" * 5_000 + "']", "[9223372036854775808]", "[nan]", "[-1]", "[200, 599]", "['10.0.0.0/33']", "['::/0']"),
    *(
        '"whsec_"',
        '"1m"',
        '"0s"',
        '"999999999d"',
        '"１m"',
        '"-1m"',
        '"https://a.example"',
        '"http://[::1"',
        '"https://:0"',
    ),
    *(
        '"a..b:80"',
        f'"{"a" * 70}:80"',
        '"[::1]:70000"',
        '"sqlite:///"',
        '"sqlite:///a\\u0000b"',
        f'"sqlite:///{"a" * 300}"',
    ),
    *('"postgresql+psycopg://"', '"postgresql+psycopg://u:pass@/"', '"postgresql+psycopg://[::1/db"', '"sqlite:///."'),
    *('"/dev/zero"', '"."', '"/proc/self/mem"', '"PATH"', '"{"', "!", ""),
    *(json.dumps(text, ensure_ascii=False) for text in TEXTS),
)


def _named(draw: st.DrawFn) -> tuple[list[str], str]:
    """A setting's keys, and what is written there."""
    name = draw(st.sampled_from(SETTINGS)).replace("NAME", "acme").replace("HEADER", "X-Api-Key")
    name = name.replace("TYPE", draw(st.sampled_from(sorted(PROTOCOLS))))
    keys = name.split(".")
    keys[-1] += draw(st.sampled_from(["", "", "", "_env", "_file", "x"]))
    if draw(st.integers(0, 9)) == 0:
        keys[draw(st.integers(0, len(keys) - 1))] = draw(st.sampled_from(TEXTS))
    return keys, draw(st.sampled_from(_WRITTEN))


@st.composite
def configurations(draw: st.DrawFn) -> bytes:
    """TOML, or nearly: fit settings with up to three others put in their place; a few texts are damaged besides."""
    tables = _settings()
    texts: list[str] = []
    for _ in range(draw(st.integers(0, 3))):
        keys, written = _named(draw)
        below: Any = tables
        for key in keys[:-1]:
            below = below.get(key) if isinstance(below, dict) else None
        if isinstance(below, dict):
            below.pop(keys[-1], None)
        texts.append(".".join(json.dumps(key, ensure_ascii=False) for key in keys) + f" = {written}\n")
    # Dotted keys throughout: an inline table could not be added to.
    texts += [f"{name} = {toml(value)}\n" for name, value in _flat(tables)]
    raw = "".join(draw(st.permutations(texts))).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 7)) == 0:
        at = draw(st.integers(0, len(raw)))
        more = draw(st.sampled_from([*SPLINTERS, b"\r", b"[[a]]\n", b"a" + b".a" * 3_000 + b" = 1\n", b"=", b"#"]))
        raw = raw[:at] + more + raw[at + draw(st.integers(0, 5)) :]
    return raw


def _flat(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def test_the_settings_that_are_spoiled_are_fit_before(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in _flat(_settings())))
    assert load_config(file).operators
    assert len(SETTINGS) > 50


@examples(100)
@given(configurations())
def test_a_configuration_loads_or_every_fault_is_named_by_its_key(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(raw)
    try:
        load_config(file)
    except ConfigError as error:
        refused = error
    else:
        return
    assert_helps(refused.faults)
    assert not leaks(str(refused))
    assert refused.exit_status == 2


@examples(15, share=10)
@given(configurations())
def test_check_ends_with_0_or_2_whatever_stands_in_the_configuration(place: Place, raw: bytes) -> None:
    place.renew()
    file = place.folder / "other.toml"
    # No server is looked for.
    file.write_bytes(raw.replace(b"postgresql+psycopg", b"postgresql+other"))
    status, out, err = place.call("check", "--no-network", "--json", "-c", str(file))
    told = json.loads(out)
    assert (status, err) == (0 if told["ok"] else 2, "")
    assert all(fault["where"] and fault["fault"] and fault["mend"] for fault in told["faults"])
    assert dump(place.file) == place.before


@pytest.mark.parametrize(
    ("was", "spoiled"),
    [
        ("the-token-of-acme", "x" * TEN_MB),
        ("http://127.0.0.1:9/wallet", "http://127.0.0.1:9/" + "x" * 1_000_000),
        ('listen = ""', f'"{"x" * 1_000_000}" = 1'),
        ('listen = ""', f'listen = "{"x" * 1_000_000}"'),
        ("[web]", f'[worker]\nlease = "{"x" * 1_000_000}"\n[web]'),
    ],
    ids=["a token of ten megabytes", "a URL", "a key", "an address", "a duration"],
)
def test_a_megabyte_in_a_configuration_is_refused_in_a_few_lines(tmp_path: Path, was: str, spoiled: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(BOTH.replace(was, spoiled))
    started = time.process_time()
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert_helps(refused.value.faults)
    assert time.process_time() - started < 20


def test_a_secret_s_file_without_an_end_is_refused_and_not_read_to_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(BOTH.replace('token = "the-token-of-acme"', 'token_file = "/dev/zero"'))
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert [fault.where for fault in refused.value.faults] == ["operators.acme.token_file"]
    assert "names a file of more than" in str(refused.value)


# Command lines.


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, (*path, name))


# These would work until they are stopped; what they make of their arguments is tried by processes below.
_STAY = ("run", "web", "demo")
LEAVES = {path: command for path, command in leaves(main) if path[0] not in _STAY}


def _possible(text: str) -> bool:
    """Whether a system could hand it over as an argument."""
    return "\0" not in text and not any("\ud800" <= one <= "\udc7f" or "\udd00" <= one <= "\udfff" for one in text)


_WORDS = (
    *filter(_possible, TEXTS),
    *(
        "\udcff",
        "a\udc80b",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        str(2**31),
        str(2**63 - 1),
        str(2**63),
        str(-(2**63)),
        "9" * 30,
    ),
    *(
        "acme",
        "ghost",
        "1767225600123457049",
        "tx-0001",
        "notice",
        "settle",
        "2h",
        "2026-01-31",
        "concurrency=8",
        "a=1",
    ),
    *(
        "token=x",
        "crypto.key=x",
        ".=1",
        "=",
        "a.b.c=1",
        "headers={" + ".".join("a" * 3_000) + "=1}",
        "concurrency=8\nb=1",
    ),
    *("127.0.0.1:" + "9" * 5_000, "a..b:80", "a" * 70 + ":80", "[::1]:99999", "1:2:3", "0.5", "1e400", "-0", "1e-400"),
    *(
        "sqlite:///other.db",
        "sqlite:///a\udcffb",
        "sqlite:////",
        "other://x",
        "csv",
        "ndjson",
        "500",
        "crypto.key",
        "zh",
    ),
)
_FILES = tuple(filter(_possible, (*TEXTS, "\udcff", ".", "..", "/", "good.ndjson", "-", "x" * 300)))


def _value(draw: st.DrawFn, option: click.Parameter) -> str:
    if isinstance(option.type, click.Path | click.File) or option.name in ("output", "files"):
        return draw(st.sampled_from(_FILES))
    if isinstance(option.type, click.Choice) and draw(st.booleans()):
        return str(draw(st.sampled_from(list(option.type.choices))))
    return draw(st.sampled_from(_WORDS))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its options and arguments, known and unknown, in any order."""
    path = draw(st.sampled_from(sorted(LEAVES)))
    words: list[str] = []
    for option in LEAVES[path].params:
        if option.name == "config_path":
            continue
        if isinstance(option, click.Argument):
            words += [_value(draw, option) for _ in range(draw(st.integers(0, 3)))]
        elif isinstance(option, click.Option) and draw(st.integers(0, 2)) == 0:
            given = [] if option.is_flag else [_value(draw, option)]
            words += [option.opts[-1], *given]
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(_WORDS)))
    if path == ("receiver",):
        # Where nobody can listen: it would do so until it is stopped.
        words += ["--listen", "192.0.2.1:1"] if draw(st.booleans()) else ["--listen", draw(st.sampled_from(_NOWHERE))]
    return [*path, *words]


_NOWHERE = (
    "a..b:80",
    "a" * 70 + ":80",
    "127.0.0.1:" + "9" * 5_000,
    "投:80",
    "\udcff:80",
    "1:2:3:x",
    "",
    ":",
    "a:",
    "[]:1",
)


def assert_ended_well(words: list[str], status: int, err: str) -> None:
    assert status in (0, 1, 2), words
    assert "Traceback" not in err
    if status == 2:
        assert err.strip(), words


def no_patience(_seconds: float) -> NoReturn:
    """Ctrl-C, for whatever waits or follows."""
    raise KeyboardInterrupt


@examples(40)
@given(command_lines())
def test_a_command_line_is_carried_out_or_refused_and_then_nothing_has_changed(place: Place, words: list[str]) -> None:
    place.renew()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", no_patience)
        status, _, err = place.call(*words, "-c", str(place.config), stdin=b"a line\nanother\n")
    assert_ended_well(words, status, err)
    if status == 2 or err.startswith("Error: "):
        assert dump(place.file) == place.before, words
    for path in Path.cwd().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "words",
    [
        ["log", "--before", "9" * 20],
        ["log", "--before", "-" + "9" * 20],
        ["log", "--limit", "9" * 30],
        ["tail", "--limit", str(2**63)],
        ["receiver", "--listen", "127.0.0.1:" + "9" * 5_000],
        ["receiver", "--listen", "a..b:80"],
        ["receiver", "--listen", "a" * 70 + ":80"],
        ["operators", "set", "beta", "headers={" + ".".join("a" * 5_000) + "=1}"],
        ["operators", "set", "beta", "notice_url=http://127.0.0.1:9/\nconcurrency = 8"],
        ["operators", "set", "beta", "callback_url=http://127.0.0.1:9/", f"success={{field='code',values=[{2**70}]}}"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_what_was_a_traceback_or_was_swallowed_once_is_wrong_use(place: Place, words: list[str]) -> None:
    status, _, err = place.call(*words, "-c", str(place.config))
    assert status == 2
    assert_ended_well(words, status, err)
    assert dump(place.file) == place.before


@pytest.mark.parametrize(
    "words",
    [
        [b"log", b"--uid", b"\xff"],
        [b"run", b"-c", b"\xff.toml"],
        [b"demo", b"--unknown"],
        [b"operators", b"set", b"\xff", b"concurrency=\xff"],
        [b"log", b"--since", b"x" * 100_000],
    ],
    ids=lambda words: repr(words)[:40],
)
def test_bytes_that_are_no_text_end_a_real_process_with_a_sentence(place: Place, words: list[bytes]) -> None:
    done = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "DISPATCHER_CONFIG": str(place.config), "PYTHONUTF8": "0", "LC_ALL": "C"},
    )
    assert done.returncode in (1, 2), done
    assert b"Traceback" not in done.stderr
    assert done.stderr.strip() or done.stdout.strip()
    assert dump(place.file) == place.before


# The daemon's own pages.

_REQUESTS = (
    b"\0\xff\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /healthz\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%00%ff%2e%2e/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nX: \xff\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


def answered(listen: str, request: bytes) -> bytes:
    """All that comes back for these bytes, until nothing more does."""
    host, _, port = listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as caller, suppress(OSError):
        caller.sendall(request)
        caller.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: caller.recv(65_536), b""))
    return b""


def test_no_request_makes_the_daemon_s_pages_fail_or_its_log_anything_but_json(tmp_path: Path) -> None:
    with Story(tmp_path) as story, story.running() as daemon:
        for request in _REQUESTS:
            answer = answered(story.tables["web"]["listen"], request)
            assert re.match(rb"HTTP/1.1 [234]", answer) or not answer, (request[:60], answer[:200])
        assert daemon.get("/healthz").json() == {"status": "alive"}
        told = list(daemon.lines)
    assert [text for text in told if not text.startswith(("{", "Warning: operators."))] == []
