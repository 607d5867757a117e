"""The readers of fields at their bounds, what an error shows of a value, and what the schemas say beside them."""

from decimal import Decimal
from typing import Any

import pytest

from dispatcher.ground.errors import EventError, Unfit
from dispatcher.ground.fields import (
    Field,
    bearer_token,
    identifier,
    integer,
    opaque,
    printable,
    schema_of,
    shown,
    texts,
    unknown,
    zoned_time,
)
from dispatcher.ground.money import amount, settled_text, shortest, unsigned_amount
from tests.ground import read_fields

ONE = (Field("order_no", identifier(64)),)


def faults_of(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(EventError) as refused:
        read_fields(raw, ONE)
    return [fault.where for fault in refused.value.faults]


def test_twenty_fields_that_nobody_knows_are_named_and_of_more_the_number_is_told() -> None:
    strange = {f"x{n:02}": 1 for n in range(21)}
    twenty = dict(list(strange.items())[:20])
    assert faults_of({"order_no": "1", **twenty}) == list(twenty)
    assert faults_of({"order_no": "1", **strange}) == [*twenty, "line"]
    with pytest.raises(EventError, match="has 21 fields that are not known"):
        read_fields({"order_no": "1", **strange}, ONE)


def test_a_field_that_nobody_knows_is_told_where_another_is_missing() -> None:
    assert faults_of({"order": "1"}) == ["order_no", "order"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 40 + "…"),
        ("\n" * 41, r"\n" * 20 + "…"),
        ("\n" * 20, r"\n" * 20),
        ({}, "a table"),
        ([], "a list"),
        ((), "a list"),
        (True, "true"),
        (None, "null"),
        (7, "7"),
    ],
)
def test_a_value_is_shown_whole_or_by_its_beginning_and_a_container_by_its_kind(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_number_too_long_to_be_written_is_shown_by_its_kind() -> None:
    assert shown(10**5000) == "a number of thousands of digits"


def test_what_could_drive_a_terminal_is_written_as_an_escape_and_the_rest_as_it_is() -> None:
    assert printable("投\u202e'\x1b[") == r"投\u202e'\x1b["
    assert printable("投'") == "投'"


def test_a_name_that_can_not_be_seen_stands_in_quotes() -> None:
    assert unknown(" ", ["uid"]).where == '" "'
    assert unknown("uidd", ["uid"]).where == "uidd"
    assert "did you mean 'uid'?" in unknown("uidd", ["uid"]).mend
    assert unknown("zzz", ["uid", "time"]).mend == "known here: uid, time"


@pytest.mark.parametrize(("year", "fit"), [(1970, False), (1971, True), (9997, True), (9998, False)])
def test_a_time_is_of_a_year_that_every_zone_can_write(year: int, fit: bool) -> None:
    text = f"{year}-06-01T00:00:00.000+0800"
    if fit:
        assert zoned_time(text) == text
    else:
        with pytest.raises(Unfit, match="before 1971 or after 9997"):
            zoned_time(text)


@pytest.mark.parametrize(
    "text", ["2026-02-30T00:00:00+0800", "2026-01-31T25:00:00Z", "2026-W05-6T00:00:00Z", "yesterday"]
)
def test_a_time_that_never_comes_is_no_time(text: str) -> None:
    with pytest.raises(Unfit, match="is not a time"):
        zoned_time(text)


@pytest.mark.parametrize("longest", [1, 3])
def test_a_text_is_as_long_as_it_may_be_and_no_longer(longest: int) -> None:
    for read in (identifier(longest), opaque(longest)):
        assert read("x" * longest) == "x" * longest
        with pytest.raises(Unfit, match=f"has {longest + 1} characters"):
            read("x" * (longest + 1))
    assert opaque(longest)("") == ""
    with pytest.raises(Unfit, match="has 0 characters"):
        identifier(longest)("")


def test_a_list_holds_a_thousand_texts_and_no_more() -> None:
    assert len(texts(1)(["x"] * 1_000)) == 1_000
    with pytest.raises(Unfit, match="1000 at most"):
        texts(1)(["x"] * 1_001)


def test_a_token_has_4096_characters_at_most() -> None:
    assert bearer_token("~" * 4_096) == "~" * 4_096
    for token in ("~" * 4_097, ""):
        with pytest.raises(Unfit):
            bearer_token(token)


def test_an_integer_is_taken_at_its_bounds_and_not_beyond() -> None:
    read = integer(3, 5, "three to five")
    assert [read(3), read(5)] == [3, 5]
    for value in (2, 6, True):
        with pytest.raises(Unfit, match="three to five"):
            read(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("7", '"7" is text; write it without quotes: three to five'),
        ("-7.5", '"-7.5" is text; write it without quotes: three to five'),
        ("seven", "seven is not a whole number; write three to five"),
        (Decimal("1795309500.5"), "1795309500.5 is not a whole number; write three to five"),
        (True, "true is not a whole number; write three to five"),
        (None, "null is not a whole number; write three to five"),
        ([7], "a list is not a whole number; write three to five"),
    ],
)
def test_a_number_of_the_wrong_kind_is_shown_as_the_event_wrote_it(value: object, told: str) -> None:
    with pytest.raises(Unfit) as refused:
        integer(3, 5, "three to five")(value)
    assert str(refused.value) == told


def test_a_schema_says_the_bounds_of_its_reader() -> None:
    name = schema_of(identifier(7))
    assert (name["minLength"], name["maxLength"]) == (1, 7)
    assert schema_of(opaque(7))["maxLength"] == 7
    assert (schema_of(texts(7))["maxItems"], schema_of(texts(7))["items"]["maxLength"]) == (1_000, 7)
    assert (schema_of(integer(3, 5, "x"))["minimum"], schema_of(integer(3, 5, "x"))["maximum"]) == (3, 5)
    assert schema_of(bearer_token)["format"] == "password"
    assert schema_of(zoned_time)["format"] == "date-time"
    assert schema_of(str) == {}


def test_an_amounts_schema_says_twenty_digits_and_four_places() -> None:
    text, number = schema_of(amount)["anyOf"]
    assert text == {"type": "string", "pattern": r"^-?0*[0-9]{1,20}(\.[0-9]{1,4})?$"}
    assert number == {"type": "number", "exclusiveMaximum": 1e20, "exclusiveMinimum": -1e20}
    text, number = schema_of(unsigned_amount)["anyOf"]
    assert text["pattern"] == r"^0*[0-9]{1,20}(\.[0-9]{1,4})?$"
    assert number == {"type": "number", "exclusiveMaximum": 1e20, "minimum": 0}


def test_an_amount_has_twenty_digits_before_the_point_and_four_after_it() -> None:
    for text in ("9" * 20 + ".9999", "-" + "9" * 20, "0" * 20 + "1", "00.0001"):
        assert amount(text) is not None
    for text, told in (
        ("1" + "0" * 20, "20 digits before the point"),
        ("1" + "0" * 20 + ".0001", "20 digits before the point"),
        ("0.00001", "4 decimal places"),
    ):
        with pytest.raises(Unfit, match=told):
            amount(text)


@pytest.mark.parametrize("text", ["0", "-0", "-0.00", "0E+2", "-0E+19"])
def test_nothing_has_no_sign(text: str) -> None:
    for read in (amount, unsigned_amount):
        assert not read(Decimal(text)).is_signed()


def test_a_stake_may_be_nothing_and_not_less() -> None:
    assert unsigned_amount("0") == 0
    with pytest.raises(Unfit, match="below zero"):
        unsigned_amount("-0.0001")


def test_an_amount_is_written_with_its_places_with_one_or_without_closing_zeros() -> None:
    assert [settled_text(Decimal(text)) for text in ("10", "10.0", "10.50", "1E+1")] == [
        "10.0",
        "10.0",
        "10.50",
        "10.0",
    ]
    assert [shortest(Decimal(text)) for text in ("10", "10.0", "10.50", "100", "1E+1")] == [
        "10",
        "10",
        "10.5",
        "100",
        "10",
    ]
