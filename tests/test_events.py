"""The readers of single fields: what each takes, what it refuses, and that no digit is ever lost."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.errors import EventError, Unfit
from dispatcher.ground.events import DEEPEST, _parse_thoroughly, content_digest, parse_json
from dispatcher.ground.fields import Field, bearer_token, identifier, integer, opaque, shown, unknown
from dispatcher.ground.money import amount, decimal_text
from tests.ground import read_fields

INVISIBLE = {
    "NUL": "\0",
    "CR": "\r",
    "LF": "\n",
    "tab": "\t",
    "escape": "\x1b",
    "delete": "\x7f",
    "C1 control": "\x9b",
    "no-break space": "\xa0",
    "soft hyphen": "\xad",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "right-to-left mark": "\u200f",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "line separator": "\u2028",
    "byte order mark": "\ufeff",
    "lone surrogate": "\ud800",
    "private use": "\ue000",
    "noncharacter": "\uffff",
}


@st.composite
def amounts(draw: st.DrawFn) -> Decimal:
    """Any decimal with at most 4 places and 20 digits before the point, written with or without an exponent."""
    places = draw(st.integers(-19, 4))
    whole = draw(st.integers(0, 10 ** (20 + places) - 1))
    digits = tuple(int(digit) for digit in str(whole))
    return Decimal((draw(st.integers(0, 1)), digits, -places))


def fields_of(text: str) -> Any:
    return parse_json('{"x":' + text + "}")["x"]


@given(amounts())
def test_an_amount_is_written_exactly_and_never_with_an_exponent(value: Decimal) -> None:
    text = decimal_text(amount(value))
    assert set(text) <= set("-0123456789.")
    assert Decimal(text) == value
    assert not (text.startswith("-") and Decimal(text) == 0)
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == value


@given(amounts())
def test_an_amount_survives_the_way_through_json_as_a_number_and_as_text(value: Decimal) -> None:
    text = decimal_text(amount(value))
    assert decimal_text(amount(fields_of(text))) == text
    assert decimal_text(amount(fields_of(f'"{text}"'))) == text
    assert decimal_text(amount(fields_of(str(amount(value))))) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.1", "0.1"),
        ('"0.1"', "0.1"),
        ("0.10", "0.10"),
        ("12", "12"),
        ('"12"', "12"),
        ("1e2", "100"),
        ("1E+2", "100"),
        ("15e-1", "1.5"),
        ("1e-4", "0.0001"),
        ("-0", "0"),
        ("-0.0", "0.0"),
        ('"-0.00"', "0.00"),
        ("0e5", "0"),
        ("-3.5", "-3.5"),
        ("99999999999999999999.9999", "99999999999999999999.9999"),
        ("9007199254740993", "9007199254740993"),
        ("0.3000", "0.3000"),
        ('"007.50"', "7.50"),
    ],
)
def test_an_amount_keeps_every_digit_and_its_places(text: str, written: str) -> None:
    assert decimal_text(amount(fields_of(text))) == written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.00001", "more than 4 decimal places"),
        ("1.50000", "more than 4 decimal places"),
        ("1e-5", "more than 4 decimal places"),
        ("1e-400", "more than 4 decimal places"),
        ("1e400", "more than 20 digits"),
        ("1e20", "more than 20 digits"),
        ("100000000000000000000", "more than 20 digits"),
        ('"100000000000000000000.5"', "more than 20 digits"),
        ('"1e2"', "not an amount"),
        ('" 1"', "not an amount"),
        ('"+1"', "not an amount"),
        ('"1."', "not an amount"),
        ('".5"', "not an amount"),
        ('"1,5"', "not an amount"),
        ('"1_0"', "not an amount"),
        ('"１"', "not an amount"),
        ('"٣"', "not an amount"),
        ('"NaN"', "not an amount"),
        ('"Infinity"', "not an amount"),
        ('"0x10"', "not an amount"),
        ('"1\\n"', "not an amount"),
        ('""', "not an amount"),
        ("null", "not an amount"),
        ("true", "not an amount"),
        ("[1]", "not an amount"),
        ('{"a":1}', "not an amount"),
    ],
)
def test_what_is_no_exact_amount_is_refused(text: str, told: str) -> None:
    with pytest.raises(Unfit, match=told):
        amount(fields_of(text))


def test_a_float_is_no_amount() -> None:
    with pytest.raises(Unfit, match="is a float, which has lost digits already; hand in a Decimal, or text"):
        amount(0.1)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_a_decimal_that_is_no_number_is_refused(value: Decimal) -> None:
    with pytest.raises(Unfit):
        amount(value)


@pytest.mark.parametrize("digits", [21, 400, 4_000])
def test_a_huge_amount_is_refused_in_a_short_sentence(digits: int) -> None:
    with pytest.raises(Unfit, match="more than 20 digits") as refused:
        amount(fields_of("9" * digits))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("digits", [5_000, 60_000])
def test_a_number_too_long_to_be_read_is_refused(digits: int) -> None:
    with pytest.raises(Unfit) as refused:
        amount(fields_of("9" * digits))
    assert len(str(refused.value)) < 200


def test_one_amount_has_one_digest_however_it_was_written() -> None:
    digests = {content_digest([amount(fields_of(text))]) for text in ("1.5", "1.50", '"1.5"', "15e-1", '"01.500"')}
    assert len(digests) == 1


def test_nothing_has_one_digest_however_it_was_written() -> None:
    digests = {content_digest([amount(fields_of(text))]) for text in ("0", "-0", "0.0", '"-0.00"', "0e5")}
    assert len(digests) == 1


@given(amounts(), amounts())
def test_two_amounts_have_the_same_digest_exactly_when_they_are_equal(one: Decimal, other: Decimal) -> None:
    same = content_digest([amount(one)]) == content_digest([amount(other)])
    assert same == (one == other)


@given(amounts(), st.integers(1, 4))
def test_closing_zeros_do_not_change_a_digest(value: Decimal, zeros: int) -> None:
    plain = decimal_text(amount(value))
    point = plain if "." in plain else plain + "."
    if len(point.partition(".")[2]) + zeros <= 4:
        assert content_digest([amount(point + "0" * zeros)]) == content_digest([amount(value)])


contents = st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5), min_size=1, max_size=4)


@given(contents, contents)
def test_other_content_has_another_digest(one: list[str], other: list[str]) -> None:
    assert (content_digest(one) == content_digest(other)) == (one == other)


def test_text_moved_from_one_field_to_the_next_is_other_content() -> None:
    assert content_digest(["ab", "c"]) != content_digest(["a", "bc"])
    assert content_digest(["a", ""]) != content_digest(["", "a"])


def test_a_digest_is_16_bytes_that_stay_the_same_from_release_to_release() -> None:
    digest = content_digest(["1767225600123457049", Decimal("1.50"), 49])
    assert digest.hex() == "620fa2bab8d76c27b899537b06aac016"


@pytest.mark.parametrize("raw", ["[]", "1", '"text"', "null", "true"])
def test_what_is_no_object_is_refused(raw: str) -> None:
    with pytest.raises(Unfit, match="not a JSON object"):
        parse_json(raw)


@pytest.mark.parametrize("raw", ["", " ", "{", "{}{}", '{"a":1,}', "{'a':1}", '{"a":01}', '{"a":+1}', '{"a":.5}'])
def test_what_is_no_json_is_refused(raw: str) -> None:
    with pytest.raises(Unfit, match="is not JSON"):
        parse_json(raw)


@pytest.mark.parametrize("raw", ['{"a":"\n"}', '{"a":"\0"}', '{"a":"\r\n"}', '{"a":"\\x41"}', '{"a":"\\ud8"}'])
def test_a_bare_control_character_or_a_broken_escape_is_no_json(raw: str) -> None:
    with pytest.raises(Unfit, match="is not JSON"):
        parse_json(raw)


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_wherever_it_stands(name: str) -> None:
    for raw in (f'{{"a":{name}}}', f'{{"a":[{{"b":{name}}}]}}'):
        with pytest.raises(Unfit, match=f"has {name} for a number"):
            parse_json(raw)


@pytest.mark.parametrize("raw", ['{"a":1,"a":1}', '{"a":1,"b":2,"a":3}', '{"a":1,"\\u0061":2}', '{"b":{"a":1,"a":2}}'])
def test_a_key_that_stands_twice_is_refused_by_its_name(raw: str) -> None:
    with pytest.raises(Unfit, match="has 'a' twice"):
        parse_json(raw)


@pytest.mark.parametrize(
    "raw",
    [b'{"a":"\xff"}', b'{"a":"\xc3"}', b'{"a":"\xc0\x80"}', b'{"a":"\xf5\x80\x80\x80"}', b"\x80", b'{"a":"\xe4"}'],
)
def test_bytes_that_are_no_utf8_are_refused(raw: bytes) -> None:
    with pytest.raises(Unfit, match="is not JSON"):
        parse_json(raw)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_encodings_than_utf8_are_refused(encoding: str) -> None:
    with pytest.raises(Unfit):
        parse_json('{"a":1}'.encode(encoding))


@pytest.mark.parametrize("kind", [str, str.encode], ids=["text", "bytes"])
def test_a_line_of_64_kib_is_read_and_one_byte_more_is_refused(kind: Callable[[str], Any]) -> None:
    longest = f'{{"a":"{"x" * (65_536 - 8)}"}}'
    assert len(parse_json(kind(longest))["a"]) == 65_528
    with pytest.raises(Unfit, match="is longer than 65536 bytes"):
        parse_json(kind(longest + " "))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a" 1}', "is not JSON (Expecting ':' delimiter)"),
        (b'{"a":"\xff"}', "is not JSON (a number or a byte in it can't be read)"),
    ],
)
def test_what_is_no_json_is_refused_with_the_readers_reason_or_what_it_may_be(raw: bytes, why: str) -> None:
    with pytest.raises(Unfit) as refused:
        parse_json(raw)
    assert refused.value.fault == why


def test_a_byte_order_mark_before_utf8_changes_nothing() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a":"\xe6\x8a\x95"}') == {"a": "投"}


def test_blanks_and_line_ends_around_the_object_change_nothing() -> None:
    assert parse_json(b' \t{"a": 1}\r\n') == {"a": 1}


@pytest.mark.parametrize("depth", [DEEPEST + 1, 3_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused(depth: int, opening: str, closing: str) -> None:
    with pytest.raises(Unfit):
        parse_json(opening * depth + "1" + closing * depth)


def test_nesting_is_read_as_far_as_it_may_go() -> None:
    assert parse_json('{"a":' * (DEEPEST - 1) + "1" + "}" * (DEEPEST - 1))


@pytest.mark.parametrize("value", ["a", "1767225600123457049", "玩家-1", "a b", "x" * 64, "é", "👍"])
def test_an_identifier_is_any_visible_text(value: str) -> None:
    assert identifier(64)(value) == value


@pytest.mark.parametrize("mark", INVISIBLE)
@pytest.mark.parametrize("where", ["{}ab", "a{}b", "ab{}"])
def test_an_identifier_has_nothing_invisible(mark: str, where: str) -> None:
    with pytest.raises(Unfit) as refused:
        identifier(64)(where.format(INVISIBLE[mark]))
    assert str(refused.value).isprintable()
    assert str(refused.value).isascii()


@pytest.mark.parametrize("value", ["", " ", " a", "a ", "x" * 65, "\u3000a"])
def test_an_identifier_that_is_empty_too_long_or_blank_outside_is_refused(value: str) -> None:
    with pytest.raises(Unfit):
        identifier(64)(value)


@pytest.mark.parametrize("text", ["1767225600123457049", "1", "1.0", "null", "true", '["1"]', "{}"])
def test_an_identifier_that_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(Unfit, match="is not text") as refused:
        identifier(64)(fields_of(text))
    assert "quotes" in refused.value.mend


@pytest.mark.parametrize("value", ["", " ", "Spin投入", "x" * 255, "a\u200bb", '"\\', "游戏赢得 👍"])
def test_opaque_text_is_passed_through(value: str) -> None:
    assert opaque(255)(value) == value


@pytest.mark.parametrize("mark", ["NUL", "CR", "LF", "tab", "escape", "delete", "C1 control", "lone surrogate"])
def test_opaque_text_has_no_control_characters_and_no_broken_unicode(mark: str) -> None:
    with pytest.raises(Unfit, match="control") as refused:
        opaque(255)(f"a{INVISIBLE[mark]}b")
    assert str(refused.value).isascii()


@pytest.mark.parametrize("value", ["x" * 256, 1, None, True, ["a"]])
def test_opaque_text_that_is_too_long_or_no_text_is_refused(value: object) -> None:
    with pytest.raises(Unfit):
        opaque(255)(value)


@pytest.mark.parametrize("value", [0, 5, 10])
def test_an_integer_is_taken_up_to_its_bounds(value: int) -> None:
    assert integer(0, 10, "0 to 10")(value) == value


@pytest.mark.parametrize("text", ["-1", "11", "9" * 4_000, "1.0", "1e0", "1.5", '"1"', "true", "null", "[]"])
def test_an_integer_out_of_bounds_or_of_another_kind_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(Unfit) as refused:
        integer(0, 10, "0 to 10")(fields_of(text))
    assert "0 to 10" in refused.value.mend
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("value", ["t", "a.b-c_d~e+f/g=", "x" * 4096])
def test_a_token_is_visible_ascii(value: str) -> None:
    assert bearer_token(value) == value


@pytest.mark.parametrize(
    "value",
    ["", "geheim wort", "geheim\r\nX-Admin: 1", "geheim\0", "gehéim", "geheim\u200b", "geheim" * 700, 12345678, None],
)
def test_a_token_that_can_not_stand_in_a_header_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(Unfit) as refused:
        bearer_token(value)
    assert "geheim" not in str(refused.value)
    assert "12345678" not in str(refused.value)


def faults(raw: dict[str, Any], fields: Sequence[Field]) -> dict[str, str]:
    with pytest.raises(EventError) as refused:
        read_fields(raw, fields, ("operator", "type"))
    return {fault.where: str(fault) for fault in refused.value.faults}


FIELDS = (Field("order_no", identifier(64)), Field("total_bet", amount), Field("token", bearer_token, required=False))


def test_fields_are_read_by_name_and_what_is_optional_may_be_left_out() -> None:
    assert read_fields({"total_bet": 1, "order_no": "1"}, FIELDS) == {"order_no": "1", "total_bet": Decimal(1)}


def test_all_faults_of_an_object_are_told_at_once() -> None:
    told = faults({"order_no": 7, "token": "a b", "totalbet": 1, "zzz": 1}, FIELDS)
    assert set(told) == {"order_no", "token", "total_bet", "totalbet", "zzz"}
    assert "is missing" in told["total_bet"]
    assert "did you mean 'total_bet'?" in told["totalbet"]
    assert "known here: operator, type, order_no, total_bet, token" in told["zzz"]


def test_an_unknown_name_with_control_characters_is_shown_without_them() -> None:
    (name,) = set(faults({"order_no": "1", "total_bet": 1, "a\x1b[2J\u202e": 1}, FIELDS))
    assert name.isprintable()


def test_what_nobody_knows_gets_the_nearest_name() -> None:
    assert "did you mean 'callback_url'?" in str(unknown("calback_url", ["notice_url", "callback_url"]))
    assert "known here: a, b" in str(unknown("quite_else", ["a", "b"]))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_whatever_is_shown_is_short_and_printable(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= 60


@given(
    st.one_of(
        st.text(alphabet='{}[]":,\\u0123456789eE+-. \tabdtnf\ud800\x00é', max_size=60),
        st.dictionaries(
            st.text(max_size=4), st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.text()))
        ).map(json.dumps),
    )
)
def test_the_quick_and_the_thorough_reader_of_json_agree(text: str) -> None:
    def read(reader: Callable[[str], Any]) -> Any:
        try:
            return repr(reader(text))
        except Unfit as unfit:
            return str(unfit.at("line"))

    assert read(parse_json) == read(_parse_thoroughly)


@pytest.mark.parametrize(
    "line",
    ['{"a":1,"a":2}', '{"a" :1,"a":2}', '{"a":":","a":2}', '{"a":1,"\\u0061":2}', '{"a":{"b":1,"b":2}}'],
)
def test_a_key_that_stands_twice_is_refused_however_it_is_written(line: str) -> None:
    with pytest.raises(Unfit, match="twice"):
        parse_json(line)
