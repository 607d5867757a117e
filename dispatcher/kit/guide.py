"""What the document says beside the facts: fields, retry times, what counts as success, the line to post with."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dispatcher.ground.clock import DAY, HOUR, MINUTE, SECOND, duration_text
from dispatcher.ground.fields import Field, schema_of
from dispatcher.ground.lang import words
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Reason, Rule
from dispatcher.ground.schedule import Delays, Schedule
from dispatcher.kit.facts import Facts, Message
from dispatcher.kit.receivers import LANGUAGES
from dispatcher.kit.stand_in import HIDDEN, StandIn
from dispatcher.kit.text import fill, filters
from dispatcher.kit.vectors import Example
from dispatcher.protocols import PROTOCOLS

# The example's first attempt ends at noon; how long one takes is left out.
_NOON = 12 * HOUR
# Of an interval so many attempts are shown at its beginning, and one at its end.
_SHOWN = 3

_TEXT, _NUMBER = ("text", "文本"), ("JSON number", "JSON 数字")
_WHOLE, _TIME = ("whole number", "整数"), ("text", "文本")
_MEANING: Mapping[str, tuple[str, str]] = {
    "order_no": ("the order's number: the key by which an order is booked once", "订单号：幂等键"),
    "data": ("the encrypted JSON, below", "加密后的 JSON，见下"),
    "time": ("Unix time of the order, the same in every attempt", "订单的 Unix 时间，每次重试相同"),
    "uid": ("the player", "玩家"),
    "total_bet": ("what was staked", "总投入"),
    "total_win": ("what was won, gross", "总产出"),
    "net_win": ("net, as the player sees it", "净额（玩家视角）"),
    "business": ("passed through", "透传"),
    "game_id": ("the game", "游戏编号"),
    "ts": ("time of this attempt: new each time, no part of the order", "本次发送时间：每次重试都不同，不属于订单内容"),
    "gameType": ("the kind of game", "游戏类型"),
    "gameCode": ("the game", "游戏代码"),
    "userId": ("the player", "玩家"),
    "txId": ("the transaction: the key by which it is booked once", "交易号：幂等键"),
    "roundId": ("the round", "局号"),
    "status": ("passed through", "透传"),
    "betTime": ("when it was bet", "下注时间"),
    "roundStartTime": ("when the round began", "本局开始时间"),
    "betAmount": ("stake", "投注额"),
    "validBetAmount": ("valid stake", "有效投注额"),
    "winAmount": ("payout, with the stake in it", "派彩（含本金）"),
    "odds": ("odds, may be negative", "赔率，可为负"),
    "commission": ("commission", "佣金"),
    "result": ("the result", "结果"),
    "fee": ("a fee; only where there is one", "费用；没有则不发送"),
}


class Row(NamedTuple):
    """One field as it goes over the wire; type, length and meaning in English and Chinese."""

    name: str
    type: tuple[str, str]
    length: tuple[str, str]
    example: str
    meaning: tuple[str, str]


class Try(NamedTuple):
    """One attempt of the example: its number, how long after the one before, and its clock time."""

    n: int
    after: str
    at: str


class Part(NamedTuple):
    """What the document says of one message type. `inner` is what is encrypted in `example`."""

    message: Message
    outer: Sequence[Row]
    inner: Sequence[Row]
    body: str
    plaintext: str | None
    tries: Sequence[Try]
    attempts: int
    over: str
    from_first: bool
    retry_after: str | None
    rule: Mapping[str, Any]
    key: str
    curl: str


def guide(given: StandIn, facts: Facts, examples: Mapping[str, Example]) -> str:
    """The document: Markdown, Chinese and then English. `examples` by message type."""
    values = {
        "facts": facts,
        "parts": [_part(given.operator, message, examples[message.kind]) for message in facts.types],
        "languages": LANGUAGES,
        "masked": any(HIDDEN in one.url for one in facts.types),
        "oauth": given.operator.oauth,
        "tls": given.operator.tls,
        "ordering": given.operator.ordering,
        "connect": duration_text(given.operator.connect_timeout),
        "total": duration_text(given.operator.total_timeout),
        "concurrency": given.operator.concurrency,
        "reasons": [_reason(one) for one in Reason],
    }
    text = fill("guide.md", values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def code(text: object) -> str:
    """A code span that survives a table, whatever is in the text."""
    plain = str(text).replace("\r", " ").replace("\n", " ")
    fence = "``" if "`" in plain else "`"
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}".replace("|", "\\|")


filters({"code": code})


def _reason(reason: Reason) -> Mapping[str, object]:
    name = f"why_{reason}"
    return {"code": str(reason), "en": words("en")[name], "zh": words("zh")[name], "ambiguous": reason.ambiguous}


def _part(operator: Operator, message: Message, example: Example) -> Part:
    (made, plaintext), terms = example, operator.terms[message.kind]
    outer = _rows(message.kind, json.loads(made.body, parse_float=str), operator)
    inner = [] if plaintext is None else _rows(message.kind, json.loads(plaintext, parse_float=str), operator)
    tries, attempts, over = _tries(terms.schedule)
    return Part(
        message=message,
        outer=outer,
        inner=inner,
        body=made.body,
        plaintext=plaintext,
        tries=tries,
        attempts=attempts,
        over=over,
        from_first=isinstance(terms.schedule, Delays) and terms.schedule.measured_from == "first",
        retry_after=duration_text(terms.schedule.retry_after) if terms.schedule.retry_after else None,
        rule=_rule(terms.rule),
        key="order_no" if message.kind == "notice" else "txId",
        curl=_curl(message, made.headers),
    )


def _rows(kind: str, shown: Mapping[str, Any], operator: Operator) -> list[Row]:
    """In the order in which they are sent; `fee` is told as well, which the example does not have."""
    known = {field.name: field for field in PROTOCOLS[kind].fields}
    values = dict(shown) if kind == "notice" else {**shown, "fee": "0.5"}
    return [_row(kind, name, known.get(name), value, operator) for name, value in values.items()]


def _row(kind: str, name: str, field: Field | None, value: object, operator: Operator) -> Row:
    type_, length = _form(kind, name, field, operator)
    text = json.dumps(value, ensure_ascii=False) if kind == "settle" or name not in PROTOCOLS[kind].amounts else value
    shown = str(text) if len(str(text)) <= 40 else f"{str(text)[:30]}…"
    return Row(name, type_, length, shown, _MEANING.get(name, ("", "")))


def _form(kind: str, name: str, field: Field | None, operator: Operator) -> tuple[tuple[str, str], tuple[str, str]]:
    """Type and length, from the reader that lets the field in."""
    schema = {} if field is None else schema_of(field.read)
    if name == "ts" or schema.get("format") == "date-time":
        return _TIME, ("28 characters, GMT+8", "28 个字符，GMT+8")
    if "anyOf" in schema:
        places = ("up to 20 digits, 4 decimal places", "整数最多 20 位，小数最多 4 位")
        of_text = (f"{places[0]}, at least one", f"{places[1]}、至少 1 位")
        return (_TEXT, of_text) if kind == "settle" else (_NUMBER, places)
    match schema.get("type"):
        case "integer" if name == "time":
            unit = ("milliseconds", "毫秒") if operator.time_unit == "ms" else ("seconds", "秒")
            return _WHOLE, unit
        case "integer":
            return _WHOLE, ("64 bits", "64 位")
        case "array":
            return ("list of texts", "文本数组"), ("up to 1000", "最多 1000 项")
        case "string":
            least, most = schema.get("minLength", 0), schema["maxLength"]
            return _TEXT, (f"{least} to {most} characters", f"{least}–{most} 个字符")
    return _TEXT, ("", "")


def _tries(schedule: Schedule) -> tuple[list[Try], int, str]:
    """The attempts of an example as far as they are shown, how many there are, and how long they take in all."""
    ends = list(_times(schedule))
    tries = [
        Try(n, "" if n == 1 else f"+{duration_text(at - ends[n - 2])}", _clock(at)) for n, at in enumerate(ends, 1)
    ]
    shown = tries if len(tries) <= 2 * _SHOWN + 1 else [*tries[:_SHOWN], tries[-1]]
    return shown, len(tries), duration_text(ends[-1] - ends[0]) if len(ends) > 1 else "0s"


def _times(schedule: Schedule) -> Iterator[int]:
    at: int | None = _NOON
    failures = 0
    while at is not None:
        yield at
        failures += 1
        at = schedule.next_due(failures, _NOON, at)


def _clock(at: int) -> str:
    days, rest = divmod(at, DAY)
    text = f"{rest // HOUR:02}:{rest % HOUR // MINUTE:02}:{rest % MINUTE // SECOND:02}"
    return f"{text} (+{days}d)" if days else text


def _rule(rule: Rule) -> Mapping[str, Any]:
    return {
        "statuses": sorted(rule.statuses),
        "field": ".".join(rule.field),
        "values": [json.dumps(one, ensure_ascii=False) for one in rule.values],
        "numeric": ".".join(rule.numeric),
        "coerce": rule.coerce,
        "extra": sorted(rule.extra),
        "final": sorted(rule.final),
    }


def _curl(message: Message, headers: Mapping[str, str]) -> str:
    lines = [f"curl -sS -i {shlex.quote(message.url)}"]
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
    return " \\\n  ".join([*lines, f"--data-binary @{message.kind}.json"])
