"""What people are told, and how each chat tool wants it: the words, the signatures, the cuts, what is a yes."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.errors import EventError
from dispatcher.ground.lang import words
from dispatcher.ground.operator import Chat, Language, Notification, Operator, Tell
from dispatcher.ground.policy import Outcome, read_answer
from dispatcher.ground.secret import Secret
from dispatcher.protocols import chat, summary
from tests.ground import NOW, claim, config_with, read_fields

OPS = "notify:ops"
HOOK = "https://hooks.example/services/T0000/the-token-of-the-hook"
EVERY = 5 * MINUTE
FACTS: dict[str, Any] = {
    "window": "5890752",
    "since": NOW,
    "until": NOW + EVERY,
    "operators": [
        {
            "operator": "acme",
            "died": 3,
            "dead": 17,
            "reasons": {"read_timeout": 2, "http_status": 1},
            "oldest": NOW - HOUR,
            "failures": 41,
            "failing_since": NOW - MINUTE,
            "held_since": None,
        }
    ],
    "others": 0,
    "console": "https://console.example",
}


def notification(preset: Chat, secret: str | None = None, **changes: Any) -> Notification:
    known: dict[str, Any] = {
        "preset": preset,
        "target": Secret("/robot/send?access_token=abc"),
        "secret": secret and Secret(secret),
        "operators": frozenset(),
        "every": EVERY,
        "language": Language.EN,
        "tell": frozenset(Tell),
        "failures": 20,
        "over": EVERY,
    }
    return Notification(**{**known, **changes})


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        (
            "en",
            [
                "dispatcher: 3 dead letters, 1 operators failing",
                "acme: 3 died since 2026-01-01T00:00:00Z, 17 are dead in all",
                "  2 × no whole answer in time",
                "  1 × the operator's HTTP status is no success",
                "acme: nothing has succeeded since 2025-12-31T23:59:00Z, 41 attempts failed in a row",
                "acme: the oldest that waits came in at 2025-12-31T23:00:00Z",
                "look: dispatcher dead list --operator acme",
                "look: https://console.example",
            ],
        ),
        (
            "zh",
            [
                "dispatcher: 3 条通知失败, 1 个商户持续失败",
                "acme：自 2026-01-01T00:00:00Z 起新增失败 3 条，共有失败 17 条",
                "  2 × 未在时限内收到完整应答",
                "  1 × 商户的 HTTP 状态码不表示成功",
                "acme：自 2025-12-31T23:59:00Z 起没有一次成功，已连续失败 41 次",
                "acme：最早一条待通知的接收时间为 2025-12-31T23:00:00Z",
                "查看: dispatcher dead list --operator acme",
                "查看: https://console.example",
            ],
        ),
    ],
)
def test_a_summary_says_who_how_much_why_since_when_and_where_to_look(language: str, lines: list[str]) -> None:
    assert summary.written(FACTS, words(language), OPS) == lines


def test_feishus_body_is_a_post_of_plain_lines_signed_anew() -> None:
    told = json.loads(chat.message(notification(Chat.FEISHU, "SEC-feishu"), "title", ["<at id=all>", "b"], NOW))
    lines = [[{"tag": "text", "text": "<at id=all>"}], [{"tag": "text", "text": "b"}]]
    # The signature by OpenSSL.
    assert told == {
        "timestamp": "1767225600",
        "sign": "X+DzaCxAWvAVpVi7+nvNe7fGAH1nUbr23XxR8U9iHC4=",
        "msg_type": "post",
        "content": {"post": {"en_us": {"title": "title", "content": lines}}},
    }
    later = json.loads(chat.message(notification(Chat.FEISHU, "SEC-feishu"), "title", [], NOW + SECOND))
    assert (later["timestamp"], later["sign"] != told["sign"]) == ("1767225601", True)
    unsigned = json.loads(chat.message(notification(Chat.FEISHU, language=Language.ZH), "title", [], NOW))
    assert unsigned == {
        "msg_type": "post",
        "content": {"post": {"zh_cn": {"title": "title", "content": [[{"tag": "text", "text": "title"}]]}}},
    }


def test_dingtalks_signature_stands_in_the_query_and_its_text_is_no_markdown() -> None:
    signed = chat.target(notification(Chat.DINGTALK, "SECding"), NOW)
    query = parse_qs(urlsplit(bytes(signed).decode()).query)
    assert query == {
        "access_token": ["abc"],
        "timestamp": ["1767225600000"],
        "sign": ["KxiYykr4cqTvUctESNcE/PKSNyp6cmGm7z4PwRtA9mU="],
    }
    assert "%2F" in bytes(signed).decode()
    assert "abc" not in repr(signed)
    assert bytes(chat.target(notification(Chat.DINGTALK), NOW)) == b"/robot/send?access_token=abc"
    told = json.loads(chat.message(notification(Chat.DINGTALK), "t", ["[a](b)"], NOW))
    assert told == {"msgtype": "text", "text": {"content": "t\n[a](b)"}}


def test_wecoms_text_is_cut_by_lines_to_what_it_takes_and_the_last_stays() -> None:
    lines = [f"商户{n}：自 2026-01-01T00:00:00Z 起新增失败 3 条" for n in range(60)]
    told = json.loads(chat.message(notification(Chat.WECOM), "标题", [*lines, "查看: 命令"], NOW))["text"]["content"]
    assert 1_800 < len(told.encode()) <= 2_000
    assert told.splitlines()[0] == "标题"
    assert told.splitlines()[-2:] == ["…", "查看: 命令"]
    assert set(told.splitlines()[1:-2]) <= set(lines)


def test_slacks_signs_are_escaped_and_nothing_is_markup() -> None:
    told = json.loads(chat.message(notification(Chat.SLACK), "<!channel> & *b*", ["<http://a|b>"], NOW))
    assert told == {"text": "&lt;!channel&gt; &amp; *b*\n&lt;http://a|b&gt;", "mrkdwn": False}


def test_dingtalks_signature_begins_the_query_where_there_is_none() -> None:
    bare = chat.target(notification(Chat.DINGTALK, "SECding", target=Secret("/robot/send")), NOW)
    assert bytes(bare).decode().startswith("/robot/send?timestamp=1767225600000&sign=")
    assert bytes(chat.target(notification(Chat.FEISHU, "SEC"), NOW)) == b"/robot/send?access_token=abc"


@pytest.mark.parametrize(("preset", "longest"), [(Chat.WECOM, 2_000), (Chat.DINGTALK, 8_000), (Chat.SLACK, 8_000)])
def test_a_text_is_whole_to_the_last_byte_that_leaves_room_for_the_mark_of_a_cut(preset: Chat, longest: int) -> None:
    def told(line: int) -> str:
        body = json.loads(chat.message(notification(preset), "t", ["a" * line, "b"], NOW))
        return str(body.get("text") if preset is Chat.SLACK else body["text"]["content"])

    room = longest - len("t\n\nb") - len("\n…".encode())
    assert told(room) == f"t\n{'a' * room}\nb"
    assert told(room + 1) == "t\n…\nb"


def test_what_is_cut_out_is_marked_once_and_what_came_before_it_stays() -> None:
    lines = ["a" * 1_500, "c" * 1_500, "d" * 1_500, "b"]
    told = json.loads(chat.message(notification(Chat.WECOM), "t", lines, NOW))["text"]["content"]
    assert told == f"t\n{lines[0]}\n…\nb"


@pytest.mark.parametrize(
    ("field", "preset"), [("code", Chat.FEISHU), ("errcode", Chat.DINGTALK), ("errcode", Chat.WECOM)]
)
def test_of_a_tools_codes_zero_alone_is_a_yes(field: str, preset: Chat) -> None:
    codes = (-1, 0, 1, "0")
    answers = [Outcome(NOW, NOW, 0, http_status=200, body=json.dumps({field: code}).encode()) for code in codes]
    yes = [read_answer(one, chat.SUCCESS[preset]).failure is None for one in answers]
    assert yes == [False, True, False, False]


def test_a_program_may_answer_with_any_of_four_statuses_and_slack_with_one() -> None:
    for preset, statuses in ((Chat.JSON, [200, 201, 202, 204]), (Chat.SLACK, [200])):
        answers = {one: Outcome(NOW, NOW, 0, http_status=one) for one in range(100, 600)}
        rule = chat.SUCCESS[preset]
        assert [one for one, answer in answers.items() if read_answer(answer, rule).failure is None] == statuses


def about(**changes: Any) -> dict[str, Any]:
    """What is told of one operator."""
    return {**FACTS["operators"][0], **changes}


def written(*operators: dict[str, Any], **changes: Any) -> list[str]:
    return summary.written({**FACTS, "operators": operators, "console": None, **changes}, words("en"), OPS)


def test_the_three_most_frequent_reasons_are_told_and_of_as_frequent_ones_the_first_by_name() -> None:
    told = written(about(reasons={"tls": 1, "reset": 2, "dns": 1, "read_timeout": 9, "never_heard_of": 3}))
    assert [line.split(" × ")[0] for line in told if " × " in line] == ["  9", "  3", "  2"]
    assert "  3 × never_heard_of" in told
    names = [line for line in written(about(reasons={"tls": 1, "dns": 1})) if " × " in line]
    assert names == [line for line in written(about(reasons={"dns": 1, "tls": 1})) if " × " in line]


def test_a_summary_tells_of_nothing_that_is_not_the_case() -> None:
    held = about(operator="bolt", died=0, held_since=NOW, oldest=None)
    assert written(held) == [
        "dispatcher: 1 operators failing",
        "bolt: held by its breaker since 2026-01-01T00:00:00Z",
    ]
    well = about(failing_since=None, oldest=None, reasons={})
    assert written(well, others=5) == [
        "dispatcher: 3 dead letters",
        "acme: 3 died since 2026-01-01T00:00:00Z, 17 are dead in all",
        "and 5 operators more",
        "look: dispatcher dead list --operator acme",
    ]


def test_the_command_to_look_with_is_told_once_and_names_the_worst() -> None:
    told = written(about(died=0), about(operator="bolt"), about(operator="coin"))
    assert [line for line in told if line.startswith("look")] == ["look: dispatcher dead list --operator bolt"]


def summary_event(**changes: Any) -> dict[str, Any]:
    return read_fields({**FACTS, **changes}, summary.FIELDS)


def ops(preset: str = "json") -> Operator:
    return config_with(f'[notifications.ops]\npreset = "{preset}"\nurl = "{HOOK}"').notifications[OPS]


def test_the_same_summary_made_again_is_the_same_delivery() -> None:
    made, again = (summary.freeze(ops(), summary_event(**{name: FACTS[name] for name in names})) for names in ORDERS)
    assert (made.operator, made.type, made.key, made.uid) == (OPS, "summary", "5890752", "")
    assert made == again
    assert json.loads(made.body) == FACTS
    assert summary.freeze(ops(), summary_event(others=1)).digest != made.digest


ORDERS = (list(FACTS), list(reversed(FACTS)))


def test_programs_get_the_facts_with_their_times_as_text_and_the_same_in_words() -> None:
    event = summary.freeze(ops(), summary_event())
    sent = json.loads(summary.body(ops(), claim(operator=OPS, type="summary", body=event.body), str, NOW))
    assert sent == {
        "type": "summary",
        "id": "5890752",
        "test": False,
        "since": "2026-01-01T00:00:00.000Z",
        "until": "2026-01-01T00:05:00.000Z",
        "operators": [about(oldest="2025-12-31T23:00:00.000Z", failing_since="2025-12-31T23:59:00.000Z")],
        "others": 0,
        "console": "https://console.example",
        "text": "\n".join(summary.written(FACTS, words("en"), OPS)),
    }
    text = json.loads(summary.body(ops("wecom"), claim(body=event.body), str, NOW))["text"]["content"]
    assert text == sent["text"]
    assert summary.PROTOCOL.target is not None
    assert bytes(summary.PROTOCOL.target(ops(), NOW)).decode() == "/services/T0000/the-token-of-the-hook"


@pytest.mark.parametrize(
    "changes",
    [
        {"operators": {}},
        {"operators": ["acme"]},
        {"operators": [{}]},
        {"operators": [about(), about(more=1)]},
        {"operators": [about(operator=7)]},
        {"operators": [about(reasons=["dns"])]},
        {"operators": [about(reasons={"dns": "2"})]},
        {"operators": [about(died=True)]},
        {"operators": [about(dead=None)]},
        {"operators": [about(oldest="yesterday")]},
        {"operators": [about(held_since=1.5)]},
        {"console": 7},
        {"since": -1},
        {"until": 2**63},
        {"others": -1},
        {"others": 2**63},
        {"window": "w" * 65},
    ],
)
def test_what_is_no_summary_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EventError):
        summary_event(**changes)


def test_a_summary_may_tell_of_the_farthest_times_and_of_a_console_that_is_not_there() -> None:
    changes = {"since": 0, "until": 2**63 - 1, "others": 2**63 - 1, "window": "w" * 64, "console": None}
    assert {name: summary_event(**changes)[name] for name in changes} == changes
    assert summary_event(others=0)["others"] == 0


def test_a_summary_names_twenty_operators_at_most_and_goes_out_open_for_a_plain_200() -> None:
    assert summary.MOST_TOLD == 20
    assert not summary.PROTOCOL.encrypts
    assert summary.PROTOCOL.defaults["success"] == {"statuses": [200]}
