"""`notice` by itself: the bounds of its fields, and the exact bytes that one attempt sends."""

from decimal import Decimal
from typing import Any

import orjson
import pytest

from dispatcher.ground.errors import EventError
from dispatcher.ground.operator import TimeUnit
from dispatcher.protocols import PROTOCOLS, SPOKEN
from dispatcher.protocols.notice import FIELDS, PROTOCOL, body, check, freeze
from tests.ground import NOW, claim, notice, operator, read_fields

ALSO = ("operator", "type")
LEAST: dict[str, Any] = {"game_id": -(2**63), "time": 0, "business": "", "uid": "u", "order_no": "o"}
MOST: dict[str, Any] = {
    "game_id": 2**63 - 1,
    "time": 99_999_999_999,
    "business": "b" * 255,
    "uid": "u" * 128,
    "order_no": "o" * 64,
}
BEYOND = [{"game_id": -(2**63) - 1}, {"time": -1}, {"uid": ""}, {"order_no": ""}]
BEYOND += [{"game_id": 2**63}, {"time": 10**11}, {"business": "b" * 256}, {"uid": "u" * 129}, {"order_no": "o" * 65}]


def values(**changes: Any) -> dict[str, Any]:
    return read_fields(notice(**changes), FIELDS, ALSO)


@pytest.mark.parametrize("changes", [LEAST, MOST])
def test_the_bounds_of_a_field_are_in_it(changes: dict[str, Any]) -> None:
    assert changes.items() <= values(**changes).items()


@pytest.mark.parametrize("changes", BEYOND, ids=lambda one: f"{next(iter(one))}")
def test_what_is_beyond_a_bound_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EventError) as refused:
        values(**changes)
    assert [fault.where for fault in refused.value.faults] == list(changes)


def test_the_net_win_alone_may_be_left_out() -> None:
    assert "net_win" not in values()
    with pytest.raises(EventError) as refused:
        read_fields({}, FIELDS)
    assert {fault.where for fault in refused.value.faults} == {field.name for field in FIELDS} - {"net_win"}


def test_the_net_win_is_not_judged_by_an_amount_that_is_unfit() -> None:
    whole = values(net_win="2.5")
    assert check(operator(), whole) == []
    assert check(operator(), {name: value for name, value in whole.items() if name != "total_bet"}) == []


def test_a_net_win_that_does_not_fit_is_told_even_where_nothing_else_was_fit() -> None:
    amounts = {"total_bet": Decimal(10), "total_win": Decimal("12.5"), "net_win": Decimal("2.4")}
    assert [fault.where for fault in check(operator(), amounts)] == ["net_win"]


def sent(**changes: Any) -> tuple[bytes, bytes]:
    """The body of one attempt, and what was encrypted in it."""
    sealed: list[bytes] = []

    def seal(plaintext: bytes) -> str:
        sealed.append(plaintext)
        return "SEALED"

    frozen = freeze(operator(), values(total_bet=Decimal("1E+2"), net_win="-87.50"))
    return body(operator(**changes), claim(body=frozen.body), seal, NOW), sealed[0]


def test_an_attempt_sends_the_contracts_fields_in_its_order_and_amounts_as_numbers() -> None:
    outer, inner = sent()
    assert outer.decode() == ('{"order_no":"1767225600123457049","data":"SEALED","time":1767225601,"uid":"player-1"}')
    assert inner.decode() == (
        '{"order_no":"1767225600123457049","total_bet":100,"total_win":12.5,"net_win":-87.50,'
        '"business":"Spin投入","game_id":49,"time":1767225601}'
    )


def test_an_operator_that_reckons_in_milliseconds_gets_the_orders_time_in_them_twice() -> None:
    outer, inner = sent(time_unit=TimeUnit.MILLISECONDS)
    assert orjson.loads(outer)["time"] == orjson.loads(inner)["time"] == 1767225601000


def test_what_an_operators_settings_leave_open_is_as_the_contract_says() -> None:
    assert PROTOCOL.encrypts
    assert PROTOCOL.defaults["success"] == {"statuses": [200]}
    assert (set(PROTOCOLS), set(SPOKEN)) == ({"notice", "settle"}, {"notice", "settle", "summary"})
    assert not PROTOCOLS["settle"].encrypts
