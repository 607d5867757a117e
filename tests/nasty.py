"""Input that nobody means well with: values for every field, damage for every text, and an honest reader's word on it.

`contract` is an event's oracle: it is written from wire-contract.md and shares no line with the readers of the product.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.ground import notice, settle_event

# Texts that other programs have fallen over.
TEXTS: tuple[str, ...] = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\r\n",
        "a\r\nX-Admin: 1",
        "a\rb",
        "a\nb",
        "\t",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
    ),
    *("\u200b", "a\u200db", "\u202eabc", "\u2066x\u2069", "\ufeff", "\xad", "\ud800", "a\udfffb", "\uffff", "\ue000"),
    *("é", "e\u0301", "\u212b", "Å", "ﬁ", "１２", "٣", "१२", "1_0", "+1", " 1", "1 ", "-0", "-0.0", "1e2", "1e400"),
    *("NaN", "nan", "Infinity", "-Infinity", "0x10", "0b1", ".5", "1.", "1,5", "--1", "1.00000", "0.00001", "true"),
    *(
        "null",
        "None",
        "[]",
        "{}",
        "' OR 1=1 --",
        "=cmd|'/c'!A0",
        "%s%n",
        "%00",
        "../../etc/passwd",
        "${jndi:x}",
        "\\",
        '"',
    ),
    *("9" * 20, "9" * 21, "9" * 4_301, "9223372036854775808", "x" * 300, "投" * 5_000, "x" * 70_000, "👩‍👩‍👧"),
    *("2022-10-14T23:00:00", "2022-10-14 23:00:00+0800", "2022-10-14\x0023:00:00+0800", "2022-W41-5T23:00:00Z"),
    *("9999-12-31T23:59:59.999-2359", "0001-01-01T00:00:00+2359", "2022-02-30T00:00:00Z", "2022-10-14T24:00:00Z"),
)
# JSON texts that are no Python value, or another one than they seem.
RAW: tuple[str, ...] = (
    *("NaN", "Infinity", "-Infinity", "-NaN", "1e400", "-1e400", "1e999999999", "1e-999999999", "0e999999999"),
    *(
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "-0",
        "-0.0",
        "0",
        "0.0",
        "1E2",
        "1e+2",
        "15e-1",
        "1e19",
        "1e20",
    ),
    *(
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "9" * 20,
        "9" * 5_000,
    ),
    *("0.1", "0.0001", "0.00001", "1.50000", "-1", "-0.5", "1." + "0" * 5_000, "01", "+1", ".5", "1.", "0x10", "1_0"),
    *("true", "false", "null", "True", "None", "[]", "{}", "[1]", '["a"]', '{"a":1}', '{"a":1,"a":2}', "'x'", "", ","),
    *("[" * 3_000 + "]" * 3_000, '{"a":' * 3_000 + "1" + "}" * 3_000, "[" * 200 + "]" * 200, "[[[[1]]]]"),
    *(
        r'"\ud800"',
        r'"\udc00\ud800"',
        r'"\ud83d\ude00"',
        r'"\u0000"',
        r'"\u202e"',
        r'"\u000d\u000a"',
        r'"\x41"',
        '"\n"',
    ),
    *('"a', "/*c*/1", "1//c", '["a",]', '["\\ud800"]', json.dumps(["x"] * 1_001), '["a", 1]', '["a",["b"]]'),
)
VALUES: tuple[str, ...] = (*RAW, *(json.dumps(text, ensure_ascii=False) for text in TEXTS), *map(json.dumps, TEXTS))

GOOD = {"notice": notice(net_win="2.5", token="a-token"), "settle": settle_event(commission="0.5", fee="0.1")}
_OPTIONAL = {"notice": ("net_win", "token"), "settle": ("commission", "fee", "token")}
_TIMES = ("betTime", "roundStartTime")
_AMOUNTS = {
    "notice": ("total_bet", "total_win", "net_win"),
    "settle": ("betAmount", "validBetAmount", "winAmount", "odds", "commission", "fee"),
}
_LONGEST = {"gameType": 10, "gameCode": 20, "userId": 50, "txId": 20, "roundId": 20, "status": 10}
_DECIMAL_TEXT = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)

Pairs = list[tuple[str, str]]


def joined(pairs: Pairs) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


def _as_pairs(event: Mapping[str, Any]) -> Pairs:
    return [(json.dumps(name), json.dumps(value, ensure_ascii=False)) for name, value in event.items()]


_digits = st.integers(0, 10**12).map(lambda number: f"{number // 10_000}.{number % 10_000:04}".rstrip("0").rstrip("."))
_names = st.text(st.sampled_from("abcXYZ0189-_.投é"), min_size=1, max_size=10)


@st.composite
def fine_events(draw: st.DrawFn) -> str:
    """A line that the contract takes, with its numbers written in one way or the other."""
    kind = draw(st.sampled_from(sorted(GOOD)))
    event = dict(GOOD[kind])
    written: dict[str, str] = {}
    for name in event.keys() & {*_LONGEST, "order_no", "uid", "business"}:
        written[name] = json.dumps(draw(_names), ensure_ascii=draw(st.booleans()))
    for name in _AMOUNTS[kind]:
        digits = draw(_digits)
        written[name] = digits if draw(st.booleans()) else f'"{digits}"'
    for name in _OPTIONAL[kind] if kind == "settle" else ("token",):
        if draw(st.booleans()):
            event.pop(name, None)
    # That the three agree is a rule of its own.
    event.pop("net_win", None)
    pairs = [(name, written.get(json.loads(name), value)) for name, value in _as_pairs(event)]
    return joined(draw(st.permutations(pairs)))


def _spoiled(draw: st.DrawFn, pairs: Pairs) -> Pairs:
    at = draw(st.integers(0, len(pairs) - 1))
    name, value = pairs[at]
    match draw(st.sampled_from(["value", "value", "value", "value", "drop", "twice", "more", "rename", "retype"])):
        case "value":
            pairs[at] = name, draw(st.sampled_from(VALUES))
        case "drop":
            del pairs[at]
        case "twice":
            pairs.insert(draw(st.integers(0, len(pairs))), (draw(st.sampled_from([name, _escaped(name)])), value))
        case "more":
            pairs.append((json.dumps(draw(st.sampled_from(TEXTS))), draw(st.sampled_from(VALUES))))
        case "rename":
            pairs[at] = (
                draw(st.sampled_from([name.upper(), name[:-1] + '\u200b"', f'" {name[1:]}', "1", "null"])),
                value,
            )
        case "retype":
            pairs[at] = name, json.dumps(value) if value[:1] != '"' else value[1:-1]
    return pairs


def _escaped(name: str) -> str:
    """The same key, in letters that look otherwise."""
    return '"' + "".join(f"\\u{ord(one):04x}" for one in name[1:-1]) + '"'


def _damaged(draw: st.DrawFn, text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(raw)))
    match draw(st.sampled_from(["cut", "insert", "flip", "bom", "utf-16", "cr", "double", "none"])):
        case "cut":
            return raw[:at]
        case "insert":
            return raw[:at] + draw(st.sampled_from(SPLINTERS)) + raw[at:]
        case "flip":
            return raw[:at] + bytes([draw(st.integers(0, 255))]) + raw[at + 1 :]
        case "bom":
            return b"\xef\xbb\xbf" + raw
        case "utf-16":
            return text.encode("utf-16", "surrogatepass")
        case "cr":
            return raw + b"\r"
        case "double":
            return raw + raw
    return raw


# Overlong, cut off, beyond Unicode, surrogates, other encodings, gzip's first bytes.
SPLINTERS: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\xff",
        b"\xc0\x80",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xc3",
        b"\x1f\x8b\x08",
        b"\r",
    ),
    *(
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\\ud800",
        b"\\u0000",
    ),
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One line without its end: a good one in a quarter of the cases, otherwise spoiled once to three times."""
    if draw(st.integers(0, 3)) == 0:
        return draw(fine_events()).encode()
    pairs = _as_pairs(GOOD[draw(st.sampled_from(sorted(GOOD)))])
    for _ in range(draw(st.integers(1, 3))):
        pairs = _spoiled(draw, pairs)
        if not pairs:
            break
    text = joined(pairs)
    raw = _damaged(draw, text) if draw(st.integers(0, 2)) == 0 else text.encode("utf-8", "surrogatepass")
    return raw.replace(b"\n", b" ")


class _Number(str):
    """A JSON number as it is written."""


class _NotTheContract(Exception):
    """Why an event is none, in a word."""


def _pairs_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _NotTheContract("a key twice")
    return dict(pairs)


def _refuse(text: str) -> None:
    raise _NotTheContract(text)


def contract(line: bytes) -> dict[str, Any] | None:
    """What the event says by wire-contract.md, amounts as Decimal and times as datetime; None where it is no event."""
    try:
        text = line.decode("utf-8").removeprefix("\ufeff")
        event = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse, object_pairs_hook=_pairs_once
        )
        return _meant(event) if isinstance(event, dict) else None
    except (_NotTheContract, ValueError, ArithmeticError, RecursionError):
        return None


def _meant(event: dict[str, Any]) -> dict[str, Any]:
    kind = event.get("type")
    if kind not in GOOD or not isinstance(kind, str):
        raise _NotTheContract("type")
    required = GOOD[kind].keys() - {*_OPTIONAL[kind]}
    if not required <= event.keys() or event.keys() - GOOD[kind].keys() - {"token"}:
        raise _NotTheContract("fields")
    meant = {name: _value(kind, name, value) for name, value in event.items()}
    if kind == "notice" and meant.get("net_win", net := meant["total_win"] - meant["total_bet"]) != net:
        raise _NotTheContract("net_win")
    return meant


def _value(kind: str, name: str, value: Any) -> Any:
    if name in _AMOUNTS[kind]:
        return _amount(name, value)
    if name in ("game_id", "time"):
        if not isinstance(value, _Number):
            raise _NotTheContract(name)
        return int(value)
    if name == "result":
        if not isinstance(value, list):
            raise _NotTheContract(name)
        return [_text(one) for one in value]
    text = _text(value)
    if name in _TIMES:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or not text.isascii() or text[10] != "T":
            raise _NotTheContract(name)
        return moment
    if (not text and name != "business") or len(text) > _LONGEST.get(name, len(text)):
        raise _NotTheContract(name)
    return text


def _text(value: Any) -> str:
    """No line of a header or a log, no other program's text, can be broken open by it."""
    if not isinstance(value, str) or isinstance(value, _Number):
        raise _NotTheContract("text")
    if any(unicodedata.category(one) in ("Cc", "Cs") for one in value):
        raise _NotTheContract("control character")
    return str(value)


def _amount(name: str, value: Any) -> Decimal:
    if not isinstance(value, str) or not (isinstance(value, _Number) or _DECIMAL_TEXT.fullmatch(value)):
        raise _NotTheContract(name)
    read = Decimal(value)
    exponent = read.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -4 or read.adjusted() > 40:
        raise _NotTheContract(name)
    if read < 0 and name in ("betAmount", "validBetAmount", "winAmount", "commission", "fee"):
        raise _NotTheContract(name)
    return read
