"""One line of JSON becomes one frozen event, or every fault of it; nothing else ever comes out."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.accept import read_event
from dispatcher.ground.errors import EventError, Unfit
from dispatcher.ground.events import Event, parse_json
from dispatcher.ground.operator import Auth, NetCheck
from tests.ground import line, lock, notice, operators, parse_event

OPERATORS = operators()
OWN_TOKENS = operators(terms={"auth": Auth.PER_EVENT}, token=None)
NO_CHECK = operators(net_check=NetCheck.OFF)


def accepted(event: dict[str, Any] | None = None, /, **raw: str) -> Event:
    return parse_event(line(event or notice(), **raw), OPERATORS, lock)


def refused(text: bytes | str, known: Any = OPERATORS) -> dict[str, str]:
    """The faults of a line by where each stands."""
    with pytest.raises(EventError) as error:
        parse_event(text, known, lock)
    return {fault.where: str(fault) for fault in error.value.faults}


def body(event: Event) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(event.body)
    return read


def test_a_whole_event_is_frozen_with_amounts_as_text() -> None:
    event = accepted()
    assert event[:4] == ("acme", "notice", "1767225600123457049", "player-1")
    assert event.bearer is None
    assert event.body == (
        '{"order_no":"1767225600123457049","uid":"player-1","total_bet":"10","total_win":"12.5","net_win":"2.5",'
        '"business":"Spin投入","game_id":49,"time":1767225601}'
    )


def test_a_line_may_come_as_text_or_as_utf8_with_any_line_end() -> None:
    text = line(notice())
    for form in (text, text.encode(), text.encode() + b"\r\n", text + "\n", b"\xef\xbb\xbf" + text.encode()):
        assert parse_event(form, OPERATORS, lock) == accepted()


def test_an_amount_never_passes_through_a_float() -> None:
    event = accepted(total_bet="0.1", total_win="0.3")
    assert (body(event)["total_bet"], body(event)["total_win"], body(event)["net_win"]) == ("0.1", "0.3", "0.2")


def test_an_amount_beyond_the_precision_of_a_float_is_kept() -> None:
    event = accepted(total_bet="99999999999999999999.9999", total_win="0.0001")
    assert body(event)["total_bet"] == "99999999999999999999.9999"
    assert body(event)["net_win"] == "-99999999999999999999.9998"


@pytest.mark.parametrize("text", ["1.5", "1.50", '"1.5"', "15e-1", "1.5000", "0.15E1"])
def test_the_same_amount_in_another_form_is_the_same_content(text: str) -> None:
    plain = accepted(total_bet="1.5", total_win="0")
    assert accepted(total_bet=text, total_win="0").digest == plain.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"total_bet": "10.0001"},
        {"total_win": "12.4"},
        {"business": "Spin"},
        {"game_id": 50},
        {"time": 1767225602},
        {"uid": "player-2"},
        {"order_no": "1767225600123457050"},
    ],
)
def test_a_change_in_any_field_is_other_content(changes: dict[str, Any]) -> None:
    assert accepted(notice(**changes)).digest != accepted().digest


def test_the_order_of_the_fields_is_not_content() -> None:
    backwards = dict(reversed(notice().items()))
    assert accepted(backwards) == accepted()


def test_net_win_is_derived_where_it_is_left_out() -> None:
    assert body(accepted(total_bet="1.00", total_win="0"))["net_win"] == "-1.00"


def test_a_given_net_win_that_fits_is_the_same_content_as_a_derived_one() -> None:
    assert accepted(net_win="2.50").digest == accepted().digest


def test_a_different_net_win_is_refused_with_both_figures() -> None:
    told = refused(line(notice(net_win="2.4")))
    assert set(told) == {"net_win"}
    assert "is 2.4, but total_win - total_bet is 2.5" in told["net_win"]


def test_a_different_net_win_passes_where_the_operator_does_not_check_it() -> None:
    event = parse_event(line(notice(net_win="2.4")), NO_CHECK, lock)
    assert body(event)["net_win"] == "2.4"


def test_a_net_win_of_null_is_not_a_net_win_left_out() -> None:
    assert set(refused(line(notice(net_win=None)))) == {"net_win"}


def test_every_fault_of_an_event_is_told_at_once() -> None:
    event = notice(operator="acmee", order_no=1767225600123457049, total_bet="1.00001", game_id="49", gameid=1)
    told = refused(line(event, without=["uid"], total_win="1e400", time="1767225601000"))
    assert set(told) == {
        *("operator", "order_no", "uid", "total_bet", "total_win", "game_id", "gameid", "time"),
    }
    assert "did you mean 'acme'?" in told["operator"]
    assert "did you mean 'game_id'?" in told["gameid"]
    assert "milliseconds" in told["time"]


def test_a_different_net_win_and_a_missing_token_are_told_together() -> None:
    assert set(refused(line(notice(net_win="2.4")), OWN_TOKENS)) == {"net_win", "token"}


def test_a_missing_token_is_told_together_with_an_unfit_field() -> None:
    assert set(refused(line(notice(game_id="49")), OWN_TOKENS)) == {"game_id", "token"}


@pytest.mark.parametrize("name", ["order_no", "uid", "total_bet", "total_win", "business", "game_id", "time"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    told = refused(line(notice(), without=[name]))
    assert set(told) == {name}
    assert "is missing" in told[name]


def test_an_event_without_an_envelope_is_told_what_is_configured() -> None:
    told = refused(line(notice(), without=["operator", "type"]))
    assert '"acme"' in told["operator"]
    assert '"notice"' in told["type"]


def test_an_unknown_type_gets_the_nearest_one() -> None:
    assert "did you mean 'notice'?" in refused(line(notice(type="notices")))["type"]


def test_without_any_operator_the_mend_is_to_configure_one() -> None:
    assert "configure an operator first" in refused(line(notice()), {})["operator"]


@pytest.mark.parametrize("value", ["ACME", "acme ", "", 1, True, None, [], {}, ["acme"], "acme\0", "\ud800"])
@pytest.mark.parametrize("name", ["operator", "type"])
def test_the_envelope_is_matched_exactly(name: str, value: object) -> None:
    told = refused(json.dumps(notice(**{name: value})))
    assert name in told
    assert told[name].isprintable()


@pytest.mark.parametrize("number", ["1767225600123457049", "1.767225600123457049e18", "17"])
def test_an_order_number_as_a_number_is_refused(number: str) -> None:
    told = refused(line(notice(), order_no=number))
    assert set(told) == {"order_no"}
    assert "quotes" in told["order_no"]


def test_nineteen_digits_stay_nineteen_digits() -> None:
    event = accepted(notice(order_no="9223372036854775809"))
    assert event.key == body(event)["order_no"] == "9223372036854775809"


@pytest.mark.parametrize(
    "escape", ["\\u0000", "\\r\\n", "\\u202e", "\\u200b", "\\u2066", "\\ud800", "\\udc00\\ud800", "\\u001b", " "]
)
@pytest.mark.parametrize("name", ["order_no", "uid"])
def test_an_identifier_with_something_invisible_is_refused_and_not_echoed(name: str, escape: str) -> None:
    told = refused(line(notice(), **{name: f'"17{escape}"'}))
    assert set(told) == {name}
    assert told[name].isascii()


@pytest.mark.parametrize("escape", ["\\u0000", "\\r\\n", "\\ud800", "\\u001b[2J", "\\u009b2J"])
def test_a_business_text_with_control_characters_is_refused(escape: str) -> None:
    assert set(refused(line(notice(), business=f'"Spin{escape}"'))) == {"business"}


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert body(accepted(business='"\\ud83d\\udc4d"'))["business"] == "👍"


@pytest.mark.parametrize("text", ["1767225601000", "-1", "1767225601.0", '"1767225601"', "true", "null", "1e9"])
def test_a_time_that_is_not_in_whole_unix_seconds_is_refused(text: str) -> None:
    told = refused(line(notice(), time=text))
    assert set(told) == {"time"}
    assert "Unix seconds" in told["time"]


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "49.0", '"49"', "true", "9" * 4_000])
def test_a_game_that_is_no_64_bit_integer_is_refused(text: str) -> None:
    assert set(refused(line(notice(), game_id=text))) == {"game_id"}


@pytest.mark.parametrize("text", ["9223372036854775807", "-9223372036854775808", "0"])
def test_a_game_may_be_any_64_bit_integer(text: str) -> None:
    assert body(accepted(game_id=text))["game_id"] == int(text)


@pytest.mark.parametrize("digits", [4_000, 5_000, 60_000])
@pytest.mark.parametrize("name", ["order_no", "total_bet", "game_id", "time", "uid", "business", "operator", "extra"])
def test_a_huge_number_anywhere_is_refused_in_few_words(name: str, digits: int) -> None:
    told = refused(line(notice(), **{name: "7" * digits}))
    assert told
    assert all(len(text) < 400 for text in told.values())


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_is_no_number_refuses_the_line(constant: str) -> None:
    assert constant in refused(line(notice(), total_bet=constant))["line"]


def test_a_key_that_stands_twice_refuses_the_line() -> None:
    assert "'total_bet' twice" in refused(line(notice())[:-1] + ',"total_bet":"11"}')["line"]


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"null", b"[]", b"{", b'{"operator":"acme\xff"}', b"\0"])
def test_a_line_that_is_no_object_is_refused_as_a_line(raw: bytes) -> None:
    assert set(refused(raw)) == {"line"}


def deepest(nested: Callable[[int], str]) -> int:
    """The deepest nesting that the JSON reader still takes from here; the fault text has to cope with it as well."""
    low, high = 1, 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            parse_json(nested(middle))
            low = middle
        except Unfit:
            high = middle
    return low


@pytest.mark.parametrize("name", ["operator", "type", "total_bet", "uid", "business", "game_id", "extra"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_of_any_depth_is_refused_and_nothing_else(name: str, opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return line(notice(), **{name: opening * depth + "1" + closing * depth})

    edge = deepest(nested)
    for depth in (*range(max(1, edge - 60), edge + 20), 10 * edge):
        assert refused(nested(depth))


def test_the_players_token_is_kept_beside_the_body_where_the_operator_wants_it() -> None:
    event = parse_event(line(notice(token="geheim-1")), OWN_TOKENS, lock)
    assert event.bearer == "locked:token of acme notice 1767225600123457049:1-mieheg"
    assert "geheim" not in repr(event)
    assert "geheim" not in event.body


def test_an_operator_that_wants_each_events_token_refuses_an_event_without() -> None:
    told = refused(line(notice()), OWN_TOKENS)
    assert set(told) == {"token"}
    assert "is missing" in told["token"]


def test_a_token_that_the_operator_does_not_want_is_not_kept() -> None:
    event = parse_event(line(notice(token="geheim-1")), OPERATORS, lock)
    assert event == accepted()


@pytest.mark.parametrize("known", [OPERATORS, OWN_TOKENS])
@pytest.mark.parametrize("token", ["geheim 1", "geheim\r\nX: 1", "gehéim", "", "geheim\0", ["geheim"], {"geheim": 1}])
def test_an_unfit_token_is_refused_and_never_shown(known: Any, token: object) -> None:
    told = refused(line(notice(token=token)), known)
    assert set(told) == {"token"}
    assert "geheim" not in told["token"]


@pytest.mark.parametrize("raw", ['{"token":"geheim', '{"token":"geheim"}}', '{"token":"geheim","token":"geheim2"}'])
def test_a_broken_line_does_not_show_the_token_in_it(raw: str) -> None:
    assert "geheim" not in "".join(refused(raw).values())


def test_a_float_handed_in_by_a_library_is_refused() -> None:
    with pytest.raises(EventError, match="is a float, which has lost digits already"):
        read_event(notice(total_bet=0.1), OPERATORS, lock)


def test_a_decimal_handed_in_by_a_library_is_an_amount() -> None:
    event = read_event(notice(total_bet=Decimal("10.00"), total_win=Decimal("12.5")), OPERATORS, lock)
    assert event.digest == accepted().digest


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda raw: b'{"operator":"acme","type":"notice",' + raw))
@example(b'{"a":1e99999999999999999999}')
@example(b'{"a":1e-99999999999999999999}')
@example(b"\xed\xa0\x80")
@example(b'{"operator":"acme","type":"notice","uid":"\xed\xa0\x80"}')
def test_arbitrary_bytes_are_an_event_or_an_event_error(raw: bytes) -> None:
    with pytest.raises(EventError) as error:
        parse_event(raw, OPERATORS, lock)
    assert error.value.faults


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.decimals().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["operator", "token", "net_win", *notice()]) | st.text(max_size=6)


@given(st.dictionaries(names, values, max_size=6))
def test_an_arbitrary_object_is_an_event_or_an_event_error(changes: dict[str, Any]) -> None:
    for raw in (json.dumps(changes), json.dumps(notice(**changes), ensure_ascii=False)):
        try:
            told: object = body(parse_event(raw, OPERATORS, lock))
        except EventError as error:
            told = error.faults
        assert told
