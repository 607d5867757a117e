"""The command line as people and scripts meet it, on real SQLite: what it says, what it keeps, what it never shows."""

import csv
import os
import pty
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.store.databases import sqlite
from dispatcher.store.engine import reach
from dispatcher.store.schema import REVISION
from tests import nursery
from tests.desk import THEN, Desk
from tests.ground import line, notice
from tests.nursery import COMMAND
from tests.story import Done, orders
from tests.test_walls import LIBRARIES

ONE, TWO, THREE = orders(3)
LOG_FIELDS = ["id", "operator", "type", "key", "uid", "status", "attempts", "due_at", "accepted_at", "finished_at"]
LOG_FIELDS += ["reason", "ambiguous", "total_bet", "total_win", "net_win"]
# An export has a column for the amounts of every type.
EXPORTED = [*LOG_FIELDS, "betAmount", "validBetAmount", "winAmount", "odds", "commission", "fee"]
ATTEMPT_FIELDS = {"n", "trigger", "started_at", "duration_ms", "http_status", "code", "reason", "ambiguous"}
ATTEMPT_FIELDS |= {"key_version", "response"}
COMMANDS = ("demo", "run", "enqueue", "log", "show", "dead", "check", "receiver")
DAY = 86_400_000_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def graves(desk: Desk) -> Desk:
    """Three deliveries: the first died on 2 January 2026, the second a day later and doubtful, the third waits."""
    desk.enqueue([ONE, TWO | {"uid": "player-2"}, THREE])
    desk.bury(ONE["order_no"])
    desk.bury(TWO["order_no"], THEN + DAY, "read_timeout", ambiguous=True)
    return desk


def ndjson(*events: Mapping[str, Any]) -> str:
    return "".join(line(event) + "\n" for event in events)


def keys(done: Done) -> list[str]:
    assert done.status == 0, done
    return [row["key"] for row in done.rows()]


def wide(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


# enqueue


def test_the_sum_of_what_was_accepted_is_told(desk: Desk) -> None:
    done = desk.call("enqueue", "-", stdin=ndjson(ONE, TWO, ONE))
    assert (done.status, done.out) == (0, "accepted 2, duplicate 1, conflict 0, invalid 0\n")


def test_the_sum_of_what_was_accepted_is_one_json_document(desk: Desk) -> None:
    done = desk.call("enqueue", desk.file([ONE, TWO, ONE]), "--json")
    assert done.json() == {"accepted": 2, "duplicate": 1, "conflict": 0, "invalid": 0, "refused": []}
    assert done.status == 0


def test_the_same_file_again_is_accepted_again_and_delivered_no_second_time(desk: Desk) -> None:
    file = desk.file(orders(1500))
    assert desk.call("enqueue", file, "--json").json()["accepted"] == 1500
    again = desk.call("enqueue", file, "--json")
    assert (again.status, again.json()["duplicate"]) == (0, 1500)
    assert desk.query("SELECT count(*) FROM deliveries") == [(1500,)]


BAD_LINES: Mapping[bytes, tuple[str, ...]] = {
    b"{": ("line: is not JSON", "write one JSON object a line"),
    b"[]": ("line: is not a JSON object",),
    line(ONE | {"operator": "acne"}).encode(): ("operator: 'acne' is not known; did you mean 'acme'?",),
    line(ONE | {"operator": 7}).encode(): ('operator: 7 is not text; write "acme"',),
    line(ONE | {"game_id": "7"}).encode(): ('game_id: "7" is text; write it without quotes',),
    line(ONE | {"time": 1795309500.5}).encode(): ("time: 1795309500.5 is not a whole number",),
    line(ONE | {"type": "notify"}).encode(): ("type: 'notify' is not known; did you mean 'notice'?",),
    line(ONE, without=["uid"], total_bet="1e-9", game_id="1.5").encode(): (
        "uid: is missing; add it",
        "has more than 4 decimal places; amounts are exact: round it yourself",
        "game_id: ",
    ),
    line(ONE | {"totalbet": 1}).encode(): ("totalbet: is not known; did you mean 'total_bet'?",),
    line(ONE, order_no="1767225600123457049").encode(): ("order_no: 1767225600123457049 is not text",),
    line(ONE | {"net_win": "1"}).encode(): ("net_win: is 1, but total_win - total_bet is 2.5",),
    b'{"operator":"acme\xff"}': ("line: is not JSON", "in UTF-8"),
    b'{"operator":"\x1b[31mred"}': ("line: is not JSON",),
    line(ONE | {"uid": "\x1b[31mred"}).encode(): (
        r"uid: \x1b[31mred has control, invisible or outer blank characters",
    ),
    b"x" * 70_000: ("line: is longer than 65536 bytes; write one event a line",),
    b"[" * 60_000: ("line: is nested too deeply",),
}


@pytest.mark.parametrize("bad", BAD_LINES, ids=[told[0][:40] for told in BAD_LINES.values()])
def test_a_bad_line_is_named_with_its_fault_and_what_to_write_and_the_good_ones_are_kept(
    desk: Desk, bad: bytes
) -> None:
    stdin = b"\n".join([line(ONE).encode(), b"", bad, line(TWO).encode()])
    done = desk.call("enqueue", "-", stdin=stdin)
    assert (done.status, done.out) == (1, "accepted 2, duplicate 0, conflict 0, invalid 1\n")
    refused = [text for text in done.err.splitlines() if text.startswith("line ")]
    assert len(refused) == 1
    assert refused[0].startswith("line 3: ")
    for told in BAD_LINES[bad]:
        assert told in refused[0]
    assert "\x1b" not in done.err


def test_every_refused_line_stands_in_the_json_with_its_file(desk: Desk) -> None:
    one = desk.file([ONE, ONE | {"uid": "other"}], "one.ndjson")
    two = desk.file([TWO, TWO | {"operator": "nobody"}], "two.ndjson")
    done = desk.call("enqueue", one, two, "--json")
    told = done.json()
    assert done.status == 1
    assert [(one["file"], one["line"]) for one in told["refused"]] == [(str(one), 2), (str(two), 2)]
    assert [told[name] for name in ("accepted", "duplicate", "conflict", "invalid")] == [2, 0, 1, 1]
    assert (
        f"acme has notice {ONE['order_no']} with other content already; the first stands"
        in told["refused"][0]["reason"]
    )


def test_with_several_files_a_refused_line_is_told_with_its_file(desk: Desk) -> None:
    good, bad = desk.file([ONE], "good.ndjson"), desk.file([{"operator": "acme"}], "bad.ndjson")
    done = desk.call("enqueue", good, bad)
    assert done.status == 1
    assert f"{bad}, line 1: type: is missing" in done.err


def test_a_conflict_leaves_the_first_as_it_was(desk: Desk) -> None:
    desk.enqueue([ONE])
    before = desk.content()
    done = desk.call("enqueue", "-", stdin=ndjson(ONE | {"total_win": "99"}))
    assert (done.status, done.out) == (1, "accepted 0, duplicate 0, conflict 1, invalid 0\n")
    assert desk.content() == before


@pytest.mark.parametrize(
    "text",
    [
        "\r\n".join([line(ONE), line(TWO), ""]),
        "\ufeff" + ndjson(ONE, TWO),
        "\n \n\t\n" + "\n\n\n".join([line(ONE), line(TWO)]) + "\n\n \n",
        "\n".join([line(ONE), line(TWO)]),
    ],
    ids=["CRLF", "byte order mark", "blank lines", "no end of the last line"],
)
def test_the_ways_in_which_files_are_written_make_no_difference(desk: Desk, text: str) -> None:
    done = desk.call("enqueue", "-", stdin=text)
    assert (done.status, done.out) == (0, "accepted 2, duplicate 0, conflict 0, invalid 0\n")


def test_an_empty_file_is_no_fault(desk: Desk) -> None:
    assert desk.call("enqueue", desk.file([])).out == "accepted 0, duplicate 0, conflict 0, invalid 0\n"


def test_an_over_long_line_without_end_takes_no_memory_and_what_follows_is_read(desk: Desk) -> None:
    stdin = b"x" * 5_000_000 + b"\n" + line(ONE).encode() + b"\n" + b"y" * 3_000_000
    done = desk.call("enqueue", "-", "--json", stdin=stdin)
    assert [one["line"] for one in done.json()["refused"]] == [1, 3]
    assert done.json()["accepted"] == 1


def test_amounts_are_kept_digit_by_digit(desk: Desk) -> None:
    text = line(ONE, total_bet="12345678901234567890.1234", total_win='"0.10"')
    assert desk.call("enqueue", "-", stdin=text).status == 0
    row = desk.call("log", "--json").rows()[0]
    assert [row[name] for name in ("total_bet", "total_win", "net_win")] == [
        "12345678901234567890.1234",
        "0.10",
        "-12345678901234567890.0234",
    ]


@pytest.mark.parametrize("lines", [50_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_a_file_is_read_in_constant_memory(desk: Desk, lines: int) -> None:
    file = desk.folder / "many.ndjson"
    head, tail = line(notice()).split("1767225600123457049")
    with file.open("w") as out:
        out.writelines(f"{head}{10**18 + n}{tail}\n" for n in range(lines))
    most = 0
    with subprocess.Popen(desk.line("enqueue", file), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            # Not getrusage: that counts what the parent had when it forked.
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max([most, *map(int, re.findall(r"VmHWM:\s+(\d+) kB", status))])
            time.sleep(0.02)
        told, _ = process.communicate()
    assert (process.returncode, told) == (0, f"accepted {lines}, duplicate 0, conflict 0, invalid 0\n".encode())
    assert 20_000 < most < 100_000, "KiB; 50,000 events as objects would make it 120 MB"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_and_nowhere_else(desk: Desk, terminal: bool) -> None:
    file = desk.file(orders(3000))
    ours, theirs = pty.openpty() if terminal else os.pipe()
    line, env = desk.line("enqueue", file), {**os.environ, "TERM": "xterm"}
    with nursery.start(line, stdout=subprocess.PIPE, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:
            pass  # how a terminal tells that its other end has gone
        out, _ = process.communicate()
    os.close(ours)
    assert (process.returncode, out) == (0, b"accepted 3000, duplicate 0, conflict 0, invalid 0\n")
    assert (b"accepting" in shown) is terminal


def test_a_file_that_is_none_is_wrong_use(desk: Desk) -> None:
    for words in (["enqueue", desk.folder / "absent"], ["enqueue", desk.folder], ["enqueue"]):
        done = desk.call(*words)
        assert (done.status, done.out) == (2, ""), words
    assert not desk.database.exists()


def test_where_the_database_cannot_be_used_no_half_json_is_left(desk: Desk) -> None:
    desk.database.write_text("this is no database, it is a text of some length" * 100)
    done = desk.call("enqueue", "-", "--json", stdin=ndjson(ONE))
    assert (done.status, done.out) == (1, "")
    assert f"Error: the database {desk.database} can't be used: file is not a database" in done.err


def test_a_player_s_own_token_is_kept_and_shown_nowhere(desk: Desk) -> None:
    del desk.operators["acme"]["token"]
    desk.set(auth="per_event")
    assert desk.call("enqueue", "-", stdin=ndjson(ONE | {"token": "players-own-token"})).status == 0
    refused = desk.call("enqueue", "-", "--json", stdin=ndjson(TWO | {"token": "players-own-token broken"}))
    assert "token: is not a token; write 1 to 4096 visible" in refused.out
    shown = [desk.call("show", "acme", ONE["order_no"], *more) for more in ([], ["--json"])]
    logged = [desk.call("log", *more) for more in ([], ["--json"])]
    assert not any("players-own-token" in done.out + done.err for done in (*shown, *logged, refused))


# log


def test_a_row_has_the_promised_fields_and_amounts_as_text(desk: Desk) -> None:
    desk.enqueue([ONE])
    row = desk.call("log", "--json").rows()[0]
    assert list(row) == [*LOG_FIELDS, "parked"]
    assert {name: row[name] for name in LOG_FIELDS if name not in ("due_at", "accepted_at")} == {
        "id": 1,
        "operator": "acme",
        "type": "notice",
        "key": ONE["order_no"],
        "uid": "player-1",
        "status": "pending",
        "attempts": 0,
        "finished_at": None,
        "reason": None,
        "ambiguous": False,
        "total_bet": "10",
        "total_win": "12.5",
        "net_win": "2.5",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["due_at"])
    assert row["due_at"] == row["accepted_at"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], [THREE, TWO, ONE]),
        (["--status", "dead"], [TWO, ONE]),
        (["--status", "pending"], [THREE]),
        (["--status", "resolved"], []),
        (["--operator", "acme"], [THREE, TWO, ONE]),
        (["--type", "notice"], [THREE, TWO, ONE]),
        (["--uid", "player-2"], [TWO]),
        (["--key", TWO["order_no"]], [TWO]),
        (["--reason", "read_timeout"], [TWO]),
        (["--since", "1h"], [THREE, TWO, ONE]),
        (["--until", "1h"], []),
        (["--since", "2026-01-01", "--until", "2026-01-03"], []),
        (["--status", "dead", "--since", "2026-01-02T03:04:05.678Z"], [TWO, ONE]),
        (["--status", "dead", "--since", "2026-01-02T11:04:05.679+08:00"], [TWO]),
        (["--status", "dead", "--until", "2026-01-03"], [ONE]),
        (["--status", "dead", "--until", "2026-01-02T03:04:05.678"], []),
        (["--limit", "2"], [THREE, TWO]),
        (["--uid", "player-1", "--limit", "1"], [THREE]),
    ],
    ids=lambda value: " ".join(map(str, value)) if value and isinstance(value[0], str) else "",
)
def test_the_log_shows_what_fits_every_filter_newest_first(
    graves: Desk, options: list[str], found: list[dict[str, Any]]
) -> None:
    assert keys(graves.call("log", "--json", *options)) == [event["order_no"] for event in found]


@pytest.mark.parametrize(
    "words",
    [
        *(
            "log",
            "tail --for 1s",
            "stats",
            "stats --watch --for 1s",
            "forecast",
            "audit",
            "replays list",
            "dead list",
            "dead export",
        ),
        *("dead replay --since 1h", "dead resolve --since 1h --note x"),
    ],
)
def test_a_name_that_neither_the_settings_nor_a_delivery_knows_is_no_empty_answer(graves: Desk, words: str) -> None:
    done = graves.call(*words.split(), "--operator", "acmee")
    assert (done.status, done.out) == (1, "")
    assert 'there is no operator acmee; write "acme"' in done.err
    notified = graves.call(*words.split(), "--operator", "notify:ops")
    assert (notified.status, 'there is no operator notify:ops; write "acme"' in notified.err) == (1, True)


def test_an_operator_that_is_gone_is_found_by_its_deliveries(graves: Desk) -> None:
    graves.operators["bolt"] = graves.operators.pop("acme")
    graves.change("DELETE FROM operators")
    graves.write()
    assert len(keys(graves.call("log", "--json", "--operator", "acme"))) == 3
    assert keys(graves.call("log", "--json", "--operator", "bolt")) == []


def test_the_log_shows_fifty_unless_more_are_asked_for(desk: Desk) -> None:
    desk.enqueue(orders(60))
    assert len(keys(desk.call("log", "--json"))) == 50
    assert len(keys(desk.call("log", "--json", "--limit", 1000))) == 60


@pytest.mark.parametrize(
    "options",
    ["--limit 0", "--status lost", "--since yesterday", "--since 1969-12-31", "--until 99999d", "--type x", "surplus"],
)
def test_an_option_that_says_nothing_is_wrong_use(desk: Desk, options: str) -> None:
    done = desk.call("log", *options.split())
    assert (done.status, done.out) == (2, "")
    assert "Error: " in done.err


def test_the_table_shows_a_delivery_on_one_line(graves: Desk) -> None:
    done = graves.call("log")
    assert done.status == 0
    heading, *rows = [text.split() for text in done.out.splitlines() if text.strip() and "─" not in text]
    assert " ".join(heading) == "operator type order user bet win net status attempts reason accepted due"
    assert [row[:10] for row in rows[1:]] == [
        ["acme", "notice", TWO["order_no"], "player-2", "10", "12.5", "2.5", "dead", "4", "read_timeout"],
        ["acme", "notice", ONE["order_no"], "player-1", "10", "12.5", "2.5", "dead", "4", "http_status"],
    ]
    assert [row[10:11] == ["*"] for row in rows[1:]] == [True, False], "the doubtful one is marked"
    assert rows[0][:9] == ["acme", "notice", THREE["order_no"], "player-1", "10", "12.5", "2.5", "pending", "0"]


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--lang", "zh"], {}),
        ([], {"LC_ALL": "zh_CN.UTF-8"}),
        ([], {"LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh_TW"}),
        (["--lang", "zh"], {"LC_ALL": "en_US.UTF-8"}),
    ],
)
def test_the_table_speaks_chinese(graves: Desk, options: list[str], env: dict[str, str]) -> None:
    done = graves.call("log", *options, env=env)
    heading = "商户 类型 订单号 用户 投入 产出 净额 状态 次数 原因 接收时间 下次通知"
    assert " ".join(done.out.splitlines()[1].split()) == heading
    assert "通知失败" in done.out
    assert "等待同步" in done.out


def test_the_json_is_the_same_in_every_language(graves: Desk) -> None:
    assert graves.call("log", "--json", env={"LC_ALL": "zh_CN.UTF-8"}) == graves.call("log", "--json")


def test_columns_stand_under_one_another_with_wide_characters_too(desk: Desk) -> None:
    desk.enqueue([ONE | {"uid": "玩家一号"}, TWO | {"uid": "p"}, THREE | {"uid": "ｶﾅ🎰"}])
    rows = [text for text in desk.call("log", "--lang", "zh").out.splitlines() if "acme" in text]
    assert len(rows) == 3
    assert len({wide(text.partition("等待同步")[0]) for text in rows}) == 1


def test_the_dead_are_listed_with_the_time_at_which_they_died(graves: Desk) -> None:
    heading = graves.call("dead", "list").out.splitlines()[1].split()
    assert heading[-2:] == ["accepted", "died"]
    rows = [text.split() for text in graves.call("dead", "list").out.splitlines() if "acme" in text]
    died = [row["finished_at"] for row in graves.call("dead", "list", "--json").rows()]
    assert ["T".join(row[-2:]) for row in rows] == [f"{at[:19]}Z" for at in died]


def test_a_forecast_of_no_work_says_that_there_is_none(desk: Desk) -> None:
    desk.enqueue([])
    assert desk.call("forecast") == Done(0, "nothing waits and nothing is under way\n", "")


def test_nothing_found_is_told_and_is_no_fault(desk: Desk) -> None:
    desk.enqueue([ONE])
    for command in (["log", "--key", "1"], ["dead", "list"]):
        assert desk.call(*command).out == "nothing found\n"
        assert desk.call(*command, "--lang", "zh").out == "没有记录\n"
        assert desk.call(*command, "--json") == Done(0, "", desk.call(*command).err)


def test_a_reader_that_goes_early_is_no_error(desk: Desk) -> None:
    desk.enqueue(orders(700))
    desk.change("UPDATE deliveries SET status = 'dead', due_at = NULL, finished_at = 1")
    for command in (["log", "--json", "--limit", 700], ["log", "--limit", 700], ["dead", "export"]):
        with nursery.start(desk.line(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.readline()
            process.stdout.close()
            told = process.stderr.read().decode()
        assert told == ""


def test_the_log_goes_on_behind_a_row_that_was_shown(desk: Desk) -> None:
    desk.enqueue(orders(5))
    shown = desk.call("log", "--limit", 2, "--lang", "en").out
    first = desk.call("log", "--json", "--limit", 2).rows()
    last = first[-1]["id"]
    assert f"older ones: --before {last}" in shown
    rest = desk.call("log", "--json", "--before", last).rows()
    assert len(first + rest) == 5
    assert [row["id"] for row in first + rest] == sorted((row["id"] for row in first + rest), reverse=True)
    gone = desk.call("log", "--before", 999)
    assert gone.status == 1
    assert "there is no delivery 999" in gone.err


# show


def test_one_delivery_is_shown_with_its_event_and_every_attempt(desk: Desk) -> None:
    desk.enqueue([ONE])
    desk.bury(ONE["order_no"])
    desk.attempt(ONE["order_no"], response="busy")
    desk.attempt(ONE["order_no"], 2, reason="read_timeout", ambiguous=True, http_status=None, trigger="retry")
    shown = desk.call("show", "acme", ONE["order_no"], "--json").json()
    assert set(shown) >= {*LOG_FIELDS, "event", "attempts"}
    assert shown["event"] == ONE | {"net_win": "2.5"}
    assert set(shown["attempts"][0]) >= ATTEMPT_FIELDS
    assert {name: shown["attempts"][0][name] for name in ATTEMPT_FIELDS} == {
        "n": 1,
        "trigger": "first",
        "started_at": "2026-01-02T03:04:05.678Z",
        "duration_ms": 5,
        "http_status": 500,
        "code": None,
        "reason": "http_status",
        "ambiguous": False,
        "key_version": 1,
        "response": "busy",
    }
    assert [(one["n"], one["ambiguous"]) for one in shown["attempts"]] == [(1, False), (2, True)]


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("en", ["event: {", "the operator's HTTP status is no success", "read_timeout", "may have booked it"]),
        ("zh", ["事件: {", "商户的 HTTP 状态码不表示成功", "read_timeout", "商户可能已入账"]),
    ],
)
def test_one_delivery_is_a_table_for_people(desk: Desk, lang: str, words: list[str]) -> None:
    desk.enqueue([ONE])
    desk.attempt(ONE["order_no"])
    desk.attempt(ONE["order_no"], 2, reason="read_timeout", ambiguous=True, http_status=None)
    desk.bury(ONE["order_no"])
    assert desk.call("dead", "resolve", "acme", ONE["order_no"], "--note", "paid by hand").status == 0
    done = desk.call("show", "acme", ONE["order_no"], "--lang", lang)
    assert done.status == 0
    for word in [*words, "Spin投入", "paid by hand"]:
        assert word in done.out


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_a_hostile_operator_answers_or_an_event_says_cannot_drive_the_terminal(desk: Desk, lang: str) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n[bold red]not markup[/] \u202eterces"
    desk.enqueue([ONE | {"business": "a\u202eb\u200b[red]"}])
    desk.attempt(ONE["order_no"], response=hostile, detail=hostile)
    out = desk.call("show", "acme", ONE["order_no"], "--lang", lang).out
    assert not [one for one in out if one != "\n" and not one.isprintable()]
    assert "[bold red]not markup[/]" in out
    assert r"\x1b[2J" in out
    shown = desk.call("show", "acme", ONE["order_no"], "--json")
    assert shown.json()["attempts"][0]["response"] == hostile
    assert "\x1b" not in shown.out


def test_an_unknown_key_is_answered_with_where_to_look(desk: Desk) -> None:
    desk.enqueue([ONE])
    done = desk.call("show", "acme", "42")
    assert (done.status, done.out) == (1, "")
    assert "Error: acme has no delivery 42; look for it with: dispatcher log --key 42\n" in done.err


# dead


def test_dead_letters_are_listed_by_the_time_at_which_they_died(graves: Desk) -> None:
    assert keys(graves.call("dead", "list", "--json")) == [TWO["order_no"], ONE["order_no"]]
    assert keys(graves.call("dead", "list", "--json", "--since", "2026-01-03")) == [TWO["order_no"]]
    assert keys(graves.call("dead", "list", "--json", "--until", "2026-01-03")) == [ONE["order_no"]]
    assert keys(graves.call("dead", "list", "--json", "--limit", 1)) == [TWO["order_no"]]
    assert ONE["order_no"] in graves.call("dead", "list").out


@pytest.mark.parametrize("verb", [["replay"], ["resolve", "--note", "agreed"]], ids=["replay", "resolve"])
@pytest.mark.parametrize(
    "chosen",
    [["acme", ONE["order_no"], TWO["order_no"]], ["--since", "2026-01-01"], ["acme", ONE["order_no"]]],
    ids=["keys", "filters", "one"],
)
def test_a_dry_run_tells_what_it_would_touch_and_changes_nothing(
    graves: Desk, verb: list[str], chosen: list[str]
) -> None:
    before = graves.content()
    dry = graves.call("dead", *verb, "--dry-run", "--json", *chosen)
    table = graves.call("dead", *verb, "--dry-run", *chosen)
    assert graves.content() == before
    wet = graves.call("dead", *verb, "--json", *chosen)
    assert (dry.status, table.status, wet.status) == (0, 0, 0)
    would, did = dry.json(), wet.json()
    told, done = ([one["key"] for one in some["deliveries"]] for some in (would, did))
    assert sorted(told) == sorted(done)
    assert (would["dry_run"], did["dry_run"]) == (True, False)
    assert f"would be {'replayed' if verb[0] == 'replay' else 'resolved'}: {len(done)}\n" in table.out
    assert all(key in table.out for key in done)


def test_a_replay_makes_it_due_at_once_and_rewrites_no_attempt(graves: Desk) -> None:
    graves.attempt(ONE["order_no"])
    before = graves.content()["attempts"]
    assert graves.call("dead", "replay", "acme", ONE["order_no"]) == Done(
        0, "replayed: 1\n", graves.call("dead", "list").err
    )
    row = graves.call("log", "--json", "--key", ONE["order_no"]).rows()[0]
    assert (row["status"], row["attempts"], row["finished_at"]) == ("pending", 4, None)
    assert graves.content()["attempts"] == before
    assert graves.query("SELECT verb, key FROM journal WHERE key IS NOT NULL") == [("replay", ONE["order_no"])]


def test_a_resolved_letter_carries_its_note_and_can_still_be_replayed(graves: Desk) -> None:
    key = ONE["order_no"]
    assert graves.call("dead", "resolve", "acme", key, "--note", " paid, says Li ").out == "resolved: 1\n"
    shown = graves.call("show", "acme", key, "--json").json()
    assert shown["status"] == "resolved"
    assert [(action["verb"], action["note"]) for action in shown["actions"]] == [("resolve", "paid, says Li")]
    assert graves.call("dead", "resolve", "acme", key, "--note", "again").status == 1
    assert graves.call("dead", "replay", "acme", key).status == 0


@pytest.mark.parametrize("verb", [["replay"], ["resolve", "--note", "agreed"]], ids=["replay", "resolve"])
def test_what_is_not_dead_is_refused_and_the_rest_is_done(graves: Desk, verb: list[str]) -> None:
    done = graves.call("dead", *verb, "acme", ONE["order_no"], THREE["order_no"])
    assert done.status == 1
    assert done.out.endswith("ed: 1\n")
    assert f"acme {THREE['order_no']}: it is not dead: its next attempt is due at 20" in done.err
    told = graves.call("dead", *verb, "acme", THREE["order_no"], "--json")
    assert (told.status, told.json()["deliveries"]) == (1, [])
    assert told.json()["refused"][0]["key"] == THREE["order_no"]


def test_a_user_without_a_name_stands_in_the_log_as_a_number(graves: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert graves.call("dead", "replay", "acme", ONE["order_no"]).status == 0
    assert graves.query("SELECT actor FROM journal WHERE verb <> 'set'") == [(f"uid {os.getuid()}",)]


def test_an_attempt_in_flight_is_not_replayed(graves: Desk) -> None:
    sending = (
        "UPDATE deliveries SET status = 'sending', due_at = NULL, token = 1, worker = 1, claimed_at = 1 WHERE key = ?"
    )
    graves.change(sending, THREE["order_no"])
    done = graves.call("dead", "replay", "acme", THREE["order_no"])
    assert done.status == 1
    assert "an attempt is in flight; wait until it has ended" in done.err


def test_a_key_that_stands_twice_is_taken_once(graves: Desk) -> None:
    words = ["dead", "replay", "acme", ONE["order_no"], ONE["order_no"]]
    assert graves.call(*words, "--dry-run", "--json").json()["replayed"] == 1
    assert graves.call(*words, "--json").json()["replayed"] == 1


def test_an_unknown_key_stops_the_whole_command_before_it_changes_anything(graves: Desk) -> None:
    before = graves.content()
    done = graves.call("dead", "replay", "acme", ONE["order_no"], "42")
    assert (done.status, done.out) == (1, "")
    assert "acme has no delivery 42" in done.err
    assert graves.content() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["replay"], "add --since"),
        (["replay", "--operator", "acme"], "add --since"),
        (["replay", "--until", "2026-01-03"], "add --since"),
        (["replay", "acme"], "at least one KEY"),
        (["replay", "acme", "1", "--since", "1h"], "not both"),
        (["replay", "acme", "1", "--uid", "player-1"], "not both"),
        (["resolve", "acme", "1"], "--note"),
        (["resolve", "acme", "1", "--note", "  "], "--note is empty"),
        (["resolve", "--note", "agreed"], "add --since"),
        (["export", "--format", "xlsx"], "xlsx"),
        (["bury"], "bury"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_order_that_is_not_clear_is_wrong_use_and_changes_nothing(graves: Desk, words: list[str], told: str) -> None:
    before = graves.content()
    done = graves.call("dead", *words)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert graves.content() == before


def test_filters_that_nothing_fits_are_told(graves: Desk) -> None:
    done = graves.call("dead", "replay", "--since", "1h")
    assert done.status == 1
    assert "no dead letter fits; see: dispatcher dead list" in done.err


def test_filters_take_only_the_dead_within_their_bounds(graves: Desk) -> None:
    bounds = ["--since", "2026-01-02", "--until", "2026-01-03", "--operator", "acme", "--reason", "http_status"]
    assert graves.call("dead", "replay", *bounds).out == "replayed: 1\n"
    assert graves.statuses() == {"pending": 2, "dead": 1}


@pytest.mark.parametrize("to_file", [True, False])
def test_dead_letters_are_exported_as_a_table_for_spreadsheets(graves: Desk, to_file: bool) -> None:
    path = graves.folder / "dead.csv"
    done = graves.call("dead", "export", *(["-o", path] if to_file else []))
    assert done.status == 0
    text = path.read_text("utf-8") if to_file else done.out
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(StringIO(text[1:])))
    assert list(rows[0]) == EXPORTED
    assert [(row["key"], row["net_win"], row["ambiguous"]) for row in rows] == [
        (TWO["order_no"], "2.5", "true"),
        (ONE["order_no"], "2.5", "false"),
    ]


def test_an_export_of_nothing_still_has_its_headings(desk: Desk) -> None:
    desk.enqueue([ONE])
    assert desk.call("dead", "export").out.removeprefix("\ufeff").strip() == ",".join(EXPORTED)
    assert desk.call("dead", "export", "--format", "ndjson").out == ""


def test_dead_letters_are_exported_as_ndjson(graves: Desk) -> None:
    done = graves.call("dead", "export", "--format", "ndjson")
    assert done.rows() == graves.call("dead", "list", "--json").rows()
    assert done == graves.call("dead", "export", "--json")
    assert keys(graves.call("dead", "export", "--format", "ndjson", "--since", "2026-01-03")) == [TWO["order_no"]]


@pytest.mark.parametrize(
    ("uid", "cell"),
    [
        ('=HYPERLINK("http://evil")', '\'=HYPERLINK("http://evil")'),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-2+3", "'-2+3"),
        ("--5", "'--5"),
        ("＝1+1", "'＝1+1"),
        ("＋1", "'＋1"),
        ("-7", "-7"),
        ("plain", "plain"),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_defused(desk: Desk, uid: str, cell: str) -> None:
    desk.enqueue([ONE | {"uid": uid, "total_bet": "20"}])
    desk.bury(ONE["order_no"])
    row = next(csv.DictReader(StringIO(desk.call("dead", "export").out[1:])))
    assert row["uid"] == cell
    assert row["net_win"] == "-7.5", "a negative amount stays a number"


def test_an_export_that_cannot_be_written_is_told(graves: Desk) -> None:
    done = graves.call("dead", "export", "-o", graves.folder / "absent" / "dead.csv")
    assert done.status == 1
    assert "dead.csv can't be written (No such file or directory); name another file" in done.err


# check


def checked(desk: Desk, *words: str) -> tuple[int, dict[str, Any]]:
    done = desk.call("check", "--json", *words)
    told: dict[str, Any] = done.json()
    assert told["ok"] is (done.status == 0)
    assert all(set(one) == {"where", "fault", "mend"} for one in told["faults"] + told["warnings"])
    return done.status, told


def test_a_good_configuration_is_ok_and_what_is_only_doubtful_is_a_warning(desk: Desk) -> None:
    desk.enqueue([ONE])
    status, told = checked(desk)
    assert (status, told["faults"]) == (0, [])
    assert [(one["where"], one["fault"].partition(":")[0]) for one in told["warnings"]] == [
        ("operators.acme.notice_url", "can't be reached now"),
    ]
    text = desk.call("check")
    assert text.status == 0
    assert text.out.endswith("acme: aes-128-cbc, a key of 16 bytes\nok\n")
    assert "can't be reached" not in desk.call("check", "--no-network").out


def test_every_fault_is_told_at_once_with_what_to_write(desk: Desk) -> None:
    desk.set(concurency=5, token="two words", retry={"delays": ["1 minute"]}, notice_url="ftp://x", net_check="of")
    desk.set("worker", lease="1s")
    status, told = checked(desk)
    assert status == 2
    assert {one["where"]: one["mend"] for one in told["faults"]} == {
        "worker.lease": "write a longer lease, or an attempt could be taken for lost while it runs",
        "operators.acme.concurency": "did you mean 'concurrency'?",
        "operators.acme.token": "write 1 to 4096 visible ASCII characters without blanks or line breaks",
        "operators.acme.retry.delays": 'write a whole number with a unit, like "500ms", "1m" or "3h"',
        "operators.acme.notice_url": "write https://…",
        "operators.acme.net_check": 'write "strict" or "off"',
    }
    text = desk.call("check")
    assert (text.status, text.out.count("fault: "), text.out.splitlines()[-1]) == (2, 6, "6 fault(s)")
    refused = desk.call("log")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("6 fault(s) in the configuration:\n")


def test_deliveries_that_wait_for_an_operator_that_is_gone_are_a_fault(desk: Desk) -> None:
    desk.add_operator("old")
    desk.enqueue([ONE, TWO | {"operator": "old"}, THREE | {"operator": "old"}])
    del desk.operators["old"]
    desk.write()
    status, told = checked(desk, "--no-network")
    assert status == 2
    assert [(one["where"], one["fault"]) for one in told["faults"]] == [
        ("operators.old", "2 deliveries wait for it, and it is not configured")
    ]


def test_a_database_that_does_not_exist_yet_is_a_warning_and_is_not_made(desk: Desk) -> None:
    status, told = checked(desk, "--no-network")
    assert status == 0
    assert told["warnings"][-1]["fault"] == f"{desk.database} does not exist yet"
    assert list(desk.folder.glob("dispatcher.db*")) == []


def test_while_a_daemon_makes_its_database_every_command_says_that_it_holds_nothing_yet(desk: Desk) -> None:
    database, _ = reach(desk.database, create=True)
    told = f"the database {desk.database} holds no wallet-flow log yet"
    with database.writing() as connection:
        sqlite.make_tables(connection, desk.database)
        for command in (["log"], ["show", "acme", "1"], ["dead", "list"], ["stats"], ["keys", "list"]):
            done = desk.call(*command)
            assert (done.status, done.out) == (1, "")
            assert done.err == f"Error: {told}; `dispatcher enqueue` or `dispatcher run` makes it\n"
        assert desk.call("kit", "acme", "-o", desk.folder / "kit").status == 0
        status, seen = checked(desk, "--no-network")
        assert (status, seen["warnings"][-1]["where"]) == (0, "database.url")
        assert seen["warnings"][-1]["fault"].startswith(told)
    database.close()
    for command in (["log"], ["dead", "list"], ["stats"], ["keys", "list"]):
        assert desk.call(*command).status == 0


def test_a_file_that_is_no_database_is_a_fault_and_stays_as_it_is(desk: Desk) -> None:
    content = b"this is no database, it is a text of some length" * 100
    desk.database.write_bytes(content)
    status, told = checked(desk, "--no-network")
    assert status == 2
    assert [one["where"] for one in told["faults"]] == ["database.url"]
    assert told["faults"][0]["fault"].endswith("file is not a database")
    mend = "it is damaged, or something else: put a backup in its place, or name another file in database.url"
    assert told["faults"][0]["mend"] == mend, "its own alone"
    for command in (["log"], ["show", "acme", "1"], ["dead", "list"], ["enqueue", desk.file([ONE])]):
        done = desk.call(*command)
        assert (done.status, done.out) == (1, "")
        assert "file is not a database" in done.err
    assert desk.database.read_bytes() == content


def test_a_database_of_a_newer_dispatcher_is_a_fault_and_is_left_alone(desk: Desk) -> None:
    desk.enqueue([ONE])
    desk.change("UPDATE dispatcher_revision SET version_num = '9999'")
    before = desk.content()
    status, told = checked(desk, "--no-network")
    assert status == 2
    (fault,) = told["faults"]
    assert fault["fault"].startswith("this dispatcher is older than the store: ")
    assert f"has schema 9999, this dispatcher works with {REVISION}" in fault["fault"]
    for command in (["log"], ["enqueue", desk.file([TWO])]):
        assert desk.call(*command).status == 1
    assert desk.content() == before


def test_a_folder_that_is_not_there_is_a_fault_that_says_so(desk: Desk) -> None:
    desk.tables["database"] = {"url": "sqlite:///absent/dispatcher.db"}
    desk.write()
    status, told = checked(desk, "--no-network")
    assert status == 2
    assert told["faults"][0]["fault"] == f"the folder {desk.folder / 'absent'} does not exist"
    done = desk.call("enqueue", desk.file([ONE]))
    assert done.status == 1
    assert "its folder does not exist; create it" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_a_fault(desk: Desk) -> None:
    shelf = desk.folder / "shelf"
    shelf.mkdir()
    desk.tables["database"] = {"url": "sqlite:///shelf/dispatcher.db"}
    desk.write()
    shelf.chmod(0o500)
    try:
        status, told = checked(desk, "--no-network")
        done = desk.call("enqueue", desk.file([ONE]))
    finally:
        shelf.chmod(0o700)
    assert (status, told["faults"][0]["where"]) == (2, "database.url")
    assert done.status == 1
    assert "can't be used" in done.err


# The configuration file


READERS = (
    ["log"],
    ["show", "acme", "1"],
    ["dead", "list"],
    ["dead", "export"],
    ["enqueue", "-"],
    ["run"],
    ["receiver"],
)


@pytest.mark.parametrize("words", [*READERS, ["check"]], ids=" ".join)
def test_a_missing_configuration_file_is_named(desk: Desk, words: list[str]) -> None:
    desk.config.unlink()
    done = desk.call(*words)
    assert done.status == 2
    told = f"{desk.config}: can't be read (No such file or directory); name the file with -c or DISPATCHER_CONFIG"
    assert told in done.err + done.out


@pytest.mark.parametrize(
    "content", [b"[operators", b"\xff\xfe", b"a = " + b"[" * 5000, b""], ids=["broken", "bytes", "deep", "empty"]
)
@pytest.mark.parametrize("words", [["log"], ["check"], ["check", "--json"]], ids=" ".join)
def test_a_configuration_file_of_any_content_gives_sentences(desk: Desk, words: list[str], content: bytes) -> None:
    desk.config.write_bytes(content)
    done = desk.call(*words)
    if not content:
        # Everything has a default; but there is no operator and no database yet.
        assert done.status == (1 if words == ["log"] else 0)
    elif "--json" in words:
        fault = done.json()["faults"][0]
        assert (done.status, fault["where"], fault["fault"][:11]) == (2, str(desk.config), "is not TOML")
    else:
        assert done.status == 2
        assert f"{desk.config}: is not TOML" in done.out + done.err


def test_the_environment_names_the_configuration_file(desk: Desk) -> None:
    desk.enqueue([ONE])
    elsewhere = desk.config.rename(desk.folder / "elsewhere.toml")
    for words, status in ((["log", "--json"], 0), (["log", "--json", "-c", str(desk.config)], 2)):
        result = CliRunner().invoke(main, words, env={"DISPATCHER_CONFIG": str(elsewhere)})
        assert (result.exit_code, len(result.stdout.splitlines())) == (status, 1 if status == 0 else 0)


# Help


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = [text.split()[0] for text in result.output.partition("Commands:")[2].splitlines() if text.strip()]
    assert set(COMMANDS) <= set(listed)


def test_help_waits_for_no_library_but_its_own() -> None:
    script = "import sys; from dispatcher.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    # Whoever measures which lines are run stays outside: it loads half a library by itself.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=bare)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {name for name in loaded if name.partition(".")[0] == "dispatcher"} == {"dispatcher", "dispatcher.cli"}
    assert loaded & {*LIBRARIES, "asyncio", "ssl", "sqlite3"} == {"click"}


@pytest.mark.parametrize(
    "words",
    [[name] for name in COMMANDS if name != "demo"]
    + [["dead", verb] for verb in ("list", "replay", "resolve", "export")],
    ids=" ".join,
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(words: list[str], flag: str) -> None:
    result = CliRunner().invoke(main, [*words, flag], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert words == ["dead"] or "DISPATCHER_CONFIG" in result.output


def test_a_command_that_is_none_is_wrong_use() -> None:
    result = CliRunner().invoke(main, ["enqeue"])
    assert result.exit_code == 2
    assert "No such command 'enqeue'. Did you mean 'enqueue'?" in result.output


@pytest.mark.parametrize("words", [["-c", "config.toml", "log"], ["--config=x", "log"], ["--json", "stats"]])
def test_an_option_of_a_command_that_stands_before_it_is_told_where_to_stand(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    option = words[0].partition("=")[0]
    assert result.exit_code == 2
    assert f"Error: {option} stands before the command; write it after, like `dispatcher log -c FILE`" in result.output
    assert "No such option '--colour'" in CliRunner().invoke(main, ["--colour", "log"]).output


def test_who_resolves_without_a_note_is_told_what_to_say(desk: Desk) -> None:
    done = desk.call("dead", "resolve", "acme", "1")
    assert (done.status, done.out) == (2, "")
    assert "--note is missing; say what was agreed, and who agreed to it" in done.err


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("python -m dispatcher, version ")


# The terminal


@pytest.mark.parametrize("words", [["log"], ["log", "--json"], ["dead", "export", "--format", "ndjson"]], ids=" ".join)
def test_a_full_disk_behind_the_output_is_told_in_a_sentence(graves: Desk, words: list[str]) -> None:
    with (
        open("/dev/full", "w") as full,
        nursery.start(graves.line(*words), stdout=full, stderr=subprocess.PIPE, text=True) as process,
    ):
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "No space left on device" in told.splitlines()[-1]
    assert "Traceback" not in told


def test_a_terminal_without_chinese_gets_a_table_all_the_same_and_an_export_is_utf_8_anywhere(desk: Desk) -> None:
    desk.enqueue([ONE | {"uid": "玩家一号"}])
    desk.bury(ONE["order_no"])
    poor = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words, wanted in ((["log", "--lang", "zh"], rb"\u73a9\u5bb6"), (["dead", "export"], "玩家一号".encode())):
        done = subprocess.run(desk.line(*words), capture_output=True, env=poor, check=True)
        assert wanted in done.stdout
