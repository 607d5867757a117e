"""`settle` by the contract: what is taken, what is sent to the byte, and what counts as the operator's yes."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli import main
from dispatcher.ground.clock import HOUR, MINUTE, SECOND, gmt8, to_datetime
from dispatcher.ground.errors import EventError
from dispatcher.ground.events import Event
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Rule
from dispatcher.protocols.settle import PROTOCOL
from dispatcher.store import acceptance, ledger
from dispatcher.store.acceptance import Fate
from dispatcher.store.ledger import Row
from tests.ground import IV, KEY, NOW, claim, config_with, faults_of, line, lock, notice, parse_event, settle_event
from tests.workshop import Bench, MovedClock

pytestmark = pytest.mark.anyio

# 2022-10-14T15:00:00.999999Z: the next microsecond is another second.
THEN = 1_665_759_600_999_999
CALLBACK = 'callback_url = "https://acme.example/wallet"'
NOTICE = f"""notice_url = "https://acme.example/Demo/notice"
token = "the-token-of-acme"
crypto = {{ key = "{KEY}", iv = "{IV}" }}"""

YES = httpx.Response(200, json={"code": "0000", "desc": "ok"})
NO = httpx.Response(200, json={"code": "9001", "desc": "not now"})

LENGTHS = {"gameType": 10, "gameCode": 20, "userId": 50, "txId": 20, "roundId": 20, "status": 10}
TIMES = ("betTime", "roundStartTime")
UNSIGNED = ("betAmount", "validBetAmount", "winAmount", "commission", "fee")
AMOUNTS = (*UNSIGNED, "odds")
REQUIRED = (*LENGTHS, *TIMES, "betAmount", "validBetAmount", "winAmount", "odds", "result")
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Asia/Shanghai")


@pytest.fixture
def machine() -> Iterator[Callable[[str], None]]:
    """Puts this machine into a time zone, until the test is over."""
    before = os.environ.get("TZ")

    def put(zone: str) -> None:
        os.environ["TZ"] = zone
        time.tzset()

    yield put
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def settings(*lines: str) -> str:
    """A configuration with one operator, acme, whose table has these lines."""
    return "\n".join(('[web]\nlisten = ""\n[operators.acme]', *lines)) + "\n"


@cache
def takers(*lines: str) -> Mapping[str, Operator]:
    return config_with(settings(*(lines or (CALLBACK,)))).operators


def accepted(without: Sequence[str] = (), raw: Mapping[str, str] | None = None, **changes: Any) -> Event:
    """The event with these changes; `raw` is JSON text in place of a field's value."""
    return parse_event(line(settle_event(**changes), without, **(raw or {})), takers(), lock)


def frozen(**given: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(accepted(**given).body)
    return body


def refusal(**given: Any) -> dict[str, str]:
    """The faults of the event by field; a field that is told twice fails."""
    with pytest.raises(EventError) as refused:
        accepted(**given)
    told = {fault.where: fault.fault for fault in refused.value.faults}
    assert len(told) == len(refused.value.faults)
    return told


class Payouts(Bench):
    """A bench whose acme takes settles, and notices too if its settings say so."""

    def __init__(self, folder: Path, *lines: str, answers: Sequence[Any] = (), at: int = NOW) -> None:
        path = folder / "config.toml"
        path.write_text(settings(*(lines or (CALLBACK,))))
        super().__init__(path, MovedClock(at))
        self.settles = self.router.post("https://acme.example/wallet/settle")
        self.settles.mock(side_effect=list(answers))

    async def hand_in(self, *events: Mapping[str, Any]) -> list[Fate]:
        """Accept events by acme's settings, look, work until calm."""
        read = [parse_event(line(one), self.config.operators, lock) for one in events]
        fates = acceptance.accept(self.database, read, self.clock.now())
        await self.look()
        return fates

    async def reload(self, *lines: str) -> None:
        self.path.write_text(settings(*lines))
        await self.daemon.reload(self.path)
        assert not self.told("reload_refused")

    def of(self, kind: str = "settle", key: str = "tx-0001") -> Row:
        return ledger.one(self.database, "acme", key, kind)

    def made(self, kind: str = "settle", key: str = "tx-0001") -> list[dict[str, Any]]:
        """Every attempt, as `show --json` has it."""
        return ledger.history(self.database, self.of(kind, key).id)[0]

    def posted(self) -> list[bytes]:
        return [call.request.content for call in self.settles.calls]

    def show(self, *words: str) -> str:
        result = CliRunner().invoke(
            main, ["show", "acme", "tx-0001", "-c", str(self.path), *words], env={"LC_ALL": "C"}
        )
        assert result.exit_code == 0, result.output
        return result.stdout


# The fields


def test_a_settle_is_frozen_with_every_field_as_text() -> None:
    event = accepted(fee=1)
    assert event[:4] == ("acme", "settle", "tx-0001", "player-1")
    assert json.loads(event.body) == {
        "gameType": "SLOT",
        "gameCode": "fortune-mouse",
        "userId": "player-1",
        "txId": "tx-0001",
        "roundId": "round-1",
        "status": "settled",
        "betTime": "2022-10-14T23:00:00.000+0800",
        "roundStartTime": "2022-10-14T22:59:59.000+0800",
        "betAmount": "10.0",
        "validBetAmount": "10.0",
        "winAmount": "12.5",
        "odds": "1.25",
        "result": ["A", "K", "Q"],
        "commission": "0.0",
        "fee": "1.0",
    }


@pytest.mark.parametrize("name", REQUIRED)
def test_a_field_that_is_missing_is_named_alone(name: str) -> None:
    assert refusal(without=[name]) == {name: "is missing"}


def test_all_fields_that_are_missing_are_named_at_once() -> None:
    assert set(refusal(without=REQUIRED)) == set(REQUIRED)


@pytest.mark.parametrize("name", ["ts", "uid", "time", "gametype"])
def test_a_field_of_another_name_is_refused(name: str) -> None:
    assert refusal(raw={name: '"2022-10-14T23:00:00.000+0800"'}) == {name: "is not known"}


@pytest.mark.parametrize(("name", "longest"), LENGTHS.items())
@pytest.mark.parametrize("letter", ["x", "投", "𠮷"])
def test_a_text_is_as_long_as_the_contract_lets_it_in_characters(name: str, longest: int, letter: str) -> None:
    assert frozen(**{name: letter * longest})[name] == letter * longest
    assert refusal(**{name: letter * (longest + 1)}) == {name: f"has {longest + 1} characters"}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize(
    "text", ['""', '" "', '" x"', '"x\\n"', '"x\\u0000"', '"\\ud800"', "1", "null", "true", "[]", '["x"]']
)
def test_a_text_that_is_empty_blank_invisible_or_none_is_refused(name: str, text: str) -> None:
    assert set(refusal(raw={name: text})) == {name}


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10", "10.0"),
        ('"10"', "10.0"),
        ("10.50", "10.50"),
        ('"10.50"', "10.50"),
        ("1e2", "100.0"),
        ("1.5E1", "15.0"),
        ("125e-2", "1.25"),
        ("0.1234", "0.1234"),
        ("0.1000", "0.1000"),
        ("0", "0.0"),
        ("-0", "0.0"),
        ("-0.00", "0.00"),
        ('"0"', "0.0"),
        ("0.1", "0.1"),
        ('"12345678901234567890.1234"', "12345678901234567890.1234"),
        ("12345678901234567890.1234", "12345678901234567890.1234"),
    ],
)
def test_an_amount_is_decimal_text_of_one_to_four_places(name: str, text: str, written: str) -> None:
    assert frozen(raw={name: text})[name] == written


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize(
    "text",
    [
        *("0.12345", '"0.12345"', "0.10000", "1e-5", '"1e2"', '""', '".5"', '"5."', '"+1"', '" 1"', '"1,5"', '"１"'),
        *("null", "true", "[]", "{}", '"NaN"', '"Infinity"', '"0x1"', "123456789012345678901", "1e20"),
    ],
)
def test_what_is_no_exact_amount_is_refused(name: str, text: str) -> None:
    assert set(refusal(raw={name: text})) == {name}


@pytest.mark.parametrize("text", ["-0.0001", '"-1"', "-1e2"])
def test_odds_alone_may_be_below_zero(text: str) -> None:
    assert frozen(raw={"odds": text})["odds"] == {"-0.0001": "-0.0001", '"-1"': "-1.0", "-1e2": "-100.0"}[text]
    for name in UNSIGNED:
        assert "below zero" in refusal(raw={name: text})[name]


def test_a_win_below_the_stake_is_taken_since_it_is_only_checked_for_its_sign() -> None:
    assert frozen(betAmount=10, validBetAmount=20, winAmount=0)["winAmount"] == "0.0"


def test_a_commission_left_out_is_sent_as_nothing_and_a_fee_left_out_is_not_sent() -> None:
    body = frozen()
    assert body["commission"] == "0.0"
    assert "fee" not in body
    assert (frozen(commission=2)["commission"], frozen(fee=0)["fee"]) == ("2.0", "0.0")


@pytest.mark.parametrize("result", [[], [""], ["A", "投", "\\", '"'], ["x" * 255], ["1"] * 1_000])
def test_a_result_is_a_list_of_texts_that_is_passed_through(result: list[str]) -> None:
    assert frozen(result=result)["result"] == result


@pytest.mark.parametrize(
    "text",
    [
        '"A"',
        '""',
        "null",
        "{}",
        "1",
        "[1]",
        "[null]",
        '["A", 1]',
        '[["A"]]',
        '["\\n"]',
        f'["{"x" * 256}"]',
        json.dumps([""] * 1_001),
    ],
)
def test_a_result_that_is_no_list_of_texts_is_refused(text: str) -> None:
    assert set(refusal(raw={"result": text})) == {"result"}


# Times


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2022-10-14T23:00:00.000+0800", "2022-10-14T23:00:00.000+0800"),
        ("2022-10-14T23:00:00+08:00", "2022-10-14T23:00:00.000+0800"),
        ("2022-10-14T15:00:00Z", "2022-10-14T23:00:00.000+0800"),
        ("2022-10-14T15:00:00.1Z", "2022-10-14T23:00:00.100+0800"),
        ("2022-10-14T15:00:00.9999Z", "2022-10-14T23:00:00.999+0800"),
        ("2022-10-14T15:00:00.999999999+0000", "2022-10-14T23:00:00.999+0800"),
        ("2022-10-14T20:45:00.000+0545", "2022-10-14T23:00:00.000+0800"),
        ("2022-10-14T23:00:00.000+08:00:00.5", "2022-10-14T22:59:59.500+0800"),
        # An hour that New York's clocks leave out, and one that they have twice.
        ("2023-03-12T02:30:00.000-0500", "2023-03-12T15:30:00.000+0800"),
        ("2023-03-12T07:00:00.000Z", "2023-03-12T15:00:00.000+0800"),
        ("2023-11-05T01:30:00.000-0400", "2023-11-05T13:30:00.000+0800"),
        ("2023-11-05T01:30:00.000-0500", "2023-11-05T14:30:00.000+0800"),
        # A day that Apia never had.
        ("2011-12-30T12:00:00.000Z", "2011-12-30T20:00:00.000+0800"),
        ("2022-12-31T16:00:00.000Z", "2023-01-01T00:00:00.000+0800"),
        ("2022-12-31T15:59:59.999999Z", "2022-12-31T23:59:59.999+0800"),
        ("2024-01-01T00:00:00.000+1400", "2023-12-31T18:00:00.000+0800"),
        ("2024-02-28T16:00:00.000Z", "2024-02-29T00:00:00.000+0800"),
        ("1971-01-01T00:00:00.000+0800", "1971-01-01T00:00:00.000+0800"),
    ],
)
def test_a_time_is_28_characters_of_gmt8_on_any_machine(
    machine: Callable[[str], None], zone: str, text: str, written: str
) -> None:
    machine(zone)
    assert len(written) == 28
    for name in TIMES:
        assert frozen(**{name: text})[name] == written


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "text",
    [
        *("2022-10-14T23:00:00.000", "2022-10-14", "2022-10-14 23:00:00", "20221014T230000"),
        *("", "now", "2022-02-30T00:00:00.000+0800", "2022-10-14T25:00:00.000+0800", "2022-10-14T23:00:60.000+0800"),
        *("2022-10-14T23:00:00.000 +0800", "1665759600", "0001-01-01T00:00:00.000+0800", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_without_a_zone_or_that_is_none_is_refused_on_any_machine(
    machine: Callable[[str], None], zone: str, name: str, text: str
) -> None:
    machine(zone)
    assert set(refusal(**{name: text})) == {name}


@pytest.mark.parametrize("text", ["1665759600", "1665759600.5", "null", "true", "[]"])
def test_a_time_that_is_no_text_is_refused(text: str) -> None:
    assert "is not text" in refusal(raw={"betTime": text})["betTime"]


def by_hand(at: int) -> str:
    """GMT+8 reckoned without any zone: eight hours on, the rest by the calendar."""
    seconds, microseconds = divmod(at + 8 * HOUR, SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{microseconds // 1_000:03}+0800"


@given(st.integers(0, 32_503_680_000 * SECOND))
def test_any_moment_is_written_in_gmt8_with_its_milliseconds_cut_off(at: int) -> None:
    written = gmt8(to_datetime(at))
    assert written == by_hand(at)
    assert len(written) == 28


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("at", [THEN, THEN + 1, 1_678_604_400_000_000, 1_672_502_399_999_999, 1_672_502_400_000_000])
def test_the_time_of_an_attempt_is_gmt8_on_any_machine(machine: Callable[[str], None], zone: str, at: int) -> None:
    machine(zone)
    body = PROTOCOL.body(takers()["acme"], claim(body=accepted().body), lambda _: "", at)
    assert json.loads(body)["ts"] == by_hand(at)


# What is sent


async def test_the_request_is_the_contracts_to_the_byte(tmp_path: Path) -> None:
    async with Payouts(tmp_path, answers=[YES], at=THEN) as at:
        await at.hand_in(
            settle_event(betAmount="10", userId="玩家", betTime="2022-10-14T14:59:58.7654321Z", fee="0.25")
        )
        (call,) = at.settles.calls
        assert (call.request.method, str(call.request.url)) == ("POST", "https://acme.example/wallet/settle")
        assert call.request.headers.raw == [(b"Content-Type", b"application/json")]
        assert call.request.content.decode() == (
            '{"ts":"2022-10-14T23:00:00.999+0800","gameType":"SLOT","gameCode":"fortune-mouse","userId":"玩家",'
            '"txId":"tx-0001","roundId":"round-1","status":"settled","betTime":"2022-10-14T22:59:58.765+0800",'
            '"roundStartTime":"2022-10-14T22:59:59.000+0800","betAmount":"10.0","validBetAmount":"10.0",'
            '"winAmount":"12.5","odds":"1.25","result":["A","K","Q"],"commission":"0.0","fee":"0.25"}'
        )


async def test_each_attempt_has_a_time_of_its_own_and_all_else_the_same_bytes(tmp_path: Path) -> None:
    async with Payouts(tmp_path, answers=[NO, NO, NO, YES], at=THEN) as at:
        await at.hand_in(settle_event(result=["投", '"', "\\"]))
        started = [THEN]
        for late in (1, 999, 1_234_567):
            await at.after(MINUTE + late)
            started.append(at.clock.now())
            await at.restart()
        parts = [re.fullmatch(rb'\{"ts":"(.{28})",(.*)', body) for body in at.posted()]
        assert [one and one[1].decode() for one in parts] == [by_hand(moment) for moment in started]
        assert len({one and one[2] for one in parts}) == 1
        assert at.of().status == "delivered"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://acme.example/wallet", "https://acme.example/wallet/settle"),
        ("https://acme.example/wallet/", "https://acme.example/wallet/settle"),
        ("https://acme.example", "https://acme.example/settle"),
        ("https://acme.example/", "https://acme.example/settle"),
        ("https://acme.example:8443/a/b/", "https://acme.example:8443/a/b/settle"),
    ],
)
async def test_it_goes_to_settle_below_the_callback_url(tmp_path: Path, base: str, url: str) -> None:
    async with Payouts(tmp_path, f'callback_url = "{base}"') as at:
        posts = at.router.post(url).mock(return_value=YES)
        await at.hand_in(settle_event())
        assert [str(call.request.url) for call in posts.calls] == [url]
        assert at.of().status == "delivered"


@pytest.mark.parametrize("query", ["?", "?a=b", "/?a=b", "?/"])
def test_a_callback_url_with_a_query_is_refused(query: str) -> None:
    (fault,) = faults_of(settings(f'callback_url = "https://acme.example/wallet{query}"')).values()
    assert (fault.where, fault.fault) == ("operators.acme.callback_url", "has a query")


async def test_an_operator_with_a_token_for_its_notices_does_not_get_it_with_settles(tmp_path: Path) -> None:
    async with Payouts(tmp_path, CALLBACK, NOTICE, answers=[YES]) as at:
        at.acme.mock(return_value=httpx.Response(200))
        await at.hand_in(settle_event(), notice())
        assert at.settles.calls[0].request.headers.raw == [(b"Content-Type", b"application/json")]
        assert at.request().headers["Authorization"] == "Bearer the-token-of-acme"


@pytest.mark.parametrize(
    ("lines", "more"),
    [
        (['auth = "bearer"', 'token = "tok"'], [(b"Authorization", b"Bearer tok")]),
        (['token = "tok"', 'settle = { auth = "bearer" }'], [(b"Authorization", b"Bearer tok")]),
        (['headers = { X-Api-Key = "k-1" }'], [(b"X-Api-Key", b"k-1")]),
    ],
)
async def test_further_headers_are_those_that_the_operators_settings_add(
    tmp_path: Path, lines: list[str], more: list[tuple[bytes, bytes]]
) -> None:
    async with Payouts(tmp_path, CALLBACK, *lines, answers=[YES]) as at:
        await at.hand_in(settle_event())
        assert at.settles.calls[0].request.headers.raw == [(b"Content-Type", b"application/json"), *more]


# The same again, and not the same


SAME: tuple[dict[str, Any], ...] = (
    {},
    {"betTime": "2022-10-14T15:00:00Z"},
    {"betTime": "2022-10-14T15:00:00.000999Z", "roundStartTime": "2022-10-14T10:59:59-04:00"},
    {"betAmount": 10, "validBetAmount": "10.0000", "winAmount": "12.50"},
    {"odds": "1.2500", "commission": 0},
)
OTHER: tuple[dict[str, Any], ...] = (
    *({name: "other"} for name in LENGTHS if name != "txId"),
    *({name: "2022-10-14T15:00:00.001Z"} for name in TIMES),
    *({name: "9.9"} for name in AMOUNTS),
    {"odds": "-1.25"},
    {"betAmount": "12.5", "winAmount": "10.0"},
    {"fee": 0},
    {"result": ["K", "A", "Q"]},
    {"result": ["A", "K"]},
    {"result": ["A, K, Q"]},
    {"result": []},
)


@pytest.mark.parametrize("changes", SAME, ids=str)
async def test_the_same_content_however_it_is_written_is_no_second_delivery(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with Payouts(tmp_path, answers=[YES]) as at:
        assert await at.hand_in(settle_event()) == [Fate.ACCEPTED]
        assert await at.hand_in(settle_event(**changes)) == [Fate.DUPLICATE]
        assert len(at.posted()) == 1


@pytest.mark.parametrize("changes", OTHER, ids=str)
async def test_other_content_under_the_same_tx_id_is_a_conflict_and_the_first_stands(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with Payouts(tmp_path, answers=[YES]) as at:
        assert await at.hand_in(settle_event()) == [Fate.ACCEPTED]
        assert await at.hand_in(settle_event(**changes)) == [Fate.CONFLICT]
        assert len(at.posted()) == 1
        assert json.loads(at.of().body) == json.loads(accepted().body)


async def test_the_same_key_under_both_types_is_two_deliveries(tmp_path: Path) -> None:
    both = (settle_event(txId="77"), notice(order_no="77"))
    async with Payouts(tmp_path, CALLBACK, NOTICE, answers=[NO, YES]) as at:
        at.acme.mock(return_value=httpx.Response(200))
        assert await at.hand_in(*both) == [Fate.ACCEPTED, Fate.ACCEPTED]
        assert await at.hand_in(*both) == [Fate.DUPLICATE, Fate.DUPLICATE]
        assert (at.of("settle", "77").status, at.of("notice", "77").status) == ("pending", "delivered")
        await at.after(MINUTE)
        assert (at.of("settle", "77").status, at.of("notice", "77").status) == ("delivered", "delivered")
        assert (len(at.posted()), at.sent) == (2, 1)


# Success


def told(status: int, body: object) -> httpx.Response:
    return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "body", [{"code": "0000"}, {"code": "0000", "desc": "known already"}, b'\xef\xbb\xbf{"code":"0000"}']
)
async def test_200_and_the_text_0000_is_the_yes(tmp_path: Path, body: object) -> None:
    async with Payouts(tmp_path, answers=[told(200, body)]) as at:
        await at.hand_in(settle_event())
        assert (at.of().status, at.of().reason) == ("delivered", None)
        assert [(one["code"], one["reason"]) for one in at.made()] == [("0000", None)]
        await at.after(24 * HOUR)
        assert len(at.posted()) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason", "code"),
    [
        (200, {"code": 0}, "body_field", "0"),
        (200, b'{"code":0.0}', "body_field", "0.0"),
        (200, {"code": "0"}, "body_field", "0"),
        (200, {"code": "00000"}, "body_field", "00000"),
        (200, {"code": " 0000"}, "body_field", " 0000"),
        (200, {"code": "9999"}, "body_field", "9999"),
        (200, {"code": True}, "body_field", "True"),
        (200, {"code": None}, "body_field", None),
        (200, {"code": ["0000"]}, "body_field", None),
        (200, {"Code": "0000"}, "body_field", None),
        (200, {"data": {"code": "0000"}}, "body_field", None),
        (200, {}, "body_field", None),
        (200, b"", "body_not_json", None),
        (200, b"0000", "body_not_json", None),
        (200, b'"0000"', "body_not_json", None),
        (200, b'[{"code":"0000"}]', "body_not_json", None),
        (200, b'{"code":"0000"', "body_not_json", None),
        (200, b'{"code":0000}', "body_not_json", None),
        (200, b'{"code":"1","code":"0000"}', "body_not_json", None),
        (200, b'{"code":"0000","x":"\xff"}', "body_not_json", None),
        (200, b'{"code":"0000"}' + b" " * 65_536, "body_too_large", "0000"),
        (201, {"code": "0000"}, "http_status", "0000"),
        (202, {"code": "0000"}, "http_status", "0000"),
        (204, b"", "http_status", None),
        (302, {"code": "0000"}, "redirect", "0000"),
        (400, {"code": "1002"}, "http_status", "1002"),
        (500, {"code": "0000"}, "http_status", "0000"),
        (503, b"<html>", "http_status", None),
    ],
)
async def test_anything_else_is_a_failure_with_its_reason_and_is_tried_again(
    tmp_path: Path, status: int, body: object, reason: str, code: str | None
) -> None:
    async with Payouts(tmp_path, answers=[told(status, body), YES]) as at:
        await at.hand_in(settle_event())
        assert (at.of().status, at.of().reason, at.of().ambiguous) == ("pending", reason, False)
        (made,) = at.made()
        assert (made["http_status"], made["reason"], made["code"]) == (status, reason, code)
        await at.after(MINUTE)
        assert at.of().status == "delivered"


@pytest.mark.parametrize("name", ["desc", "description", "message", "msg", "err_text", "error"])
async def test_the_operators_code_and_words_stand_with_the_attempt_and_in_show(tmp_path: Path, name: str) -> None:
    async with Payouts(tmp_path, answers=[told(200, {"code": "9003", name: "玩家 is locked"})]) as at:
        await at.hand_in(settle_event())
        (made,) = at.attempts("tx-0001")
        assert (made["code"], made["detail"], made["http_status"]) == ("9003", "玩家 is locked", 200)
        (shown,) = json.loads(at.show("--json"))["attempts"]
        assert (shown["code"], shown["detail"], shown["reason"]) == ("9003", "玩家 is locked", "body_field")
        assert json.loads(shown["response"]) == {"code": "9003", name: "玩家 is locked"}
        (row,) = [text for text in at.show().splitlines() if "9003" in text]
        cells = re.split(" {2,}", row.strip())
        assert (cells[0], cells[1], cells[4:6], cells[-1]) == ("1", "first", ["200", "9003"], "玩家 is locked")
        (logged,) = at.told("attempt")
        assert (logged["code"], logged["reason"], logged["http_status"]) == ("9003", "body_field", 200)
        assert logged["detail"] == "玩家 is locked"


GENERAL, OWN = "success = {{ {} }}", "settle = {{ success = {{ {} }} }}"
LEVELS = pytest.mark.parametrize("level", [GENERAL, OWN], ids=["operator", "type"])


@LEVELS
@pytest.mark.parametrize(
    ("rule", "body", "yes"),
    [
        ('extra_success_codes = ["1005"]', {"code": "1005"}, True),
        ('extra_success_codes = ["1005"]', {"code": "0000"}, True),
        ('extra_success_codes = ["1005"]', {"code": 1005}, False),
        ('extra_success_codes = ["1005"], coerce_code = true', {"code": 1005}, True),
        ('extra_success_codes = ["1005"], coerce_code = true', {"code": 1006}, False),
        ("coerce_code = true", {"code": "0000"}, True),
        ("coerce_code = true", {"code": 0}, False),
    ],
)
async def test_codes_of_an_operator_widen_what_a_yes_to_its_settles_is_and_leave_its_notices_alone(
    tmp_path: Path, level: str, rule: str, body: dict[str, Any], yes: bool
) -> None:
    async with Payouts(tmp_path, CALLBACK, NOTICE, level.format(rule), answers=[told(200, body)]) as at:
        at.acme.mock(side_effect=[told(201, body), httpx.Response(200)])
        await at.hand_in(settle_event(), notice(order_no="1"))
        assert at.of().status == ("delivered" if yes else "pending")
        assert (at.of("notice", "1").status, at.of("notice", "1").reason) == ("pending", "http_status")
        at.settles.mock(return_value=YES)
        await at.after(MINUTE)
        assert at.of("notice", "1").status == "delivered"
        assert at.config.operators["acme"].terms["notice"].rule == Rule()


@LEVELS
async def test_a_final_code_ends_a_settle_at_once_and_no_notice(tmp_path: Path, level: str) -> None:
    final = told(200, {"code": "4004", "desc": "no such player"})
    lines = (CALLBACK, NOTICE, level.format('final_codes = ["4004"]'))
    async with Payouts(tmp_path, *lines, answers=[final]) as at:
        at.acme.mock(side_effect=[told(500, {"code": "4004"}), final])
        await at.hand_in(settle_event(), notice(order_no="1"))
        dead = at.of()
        assert (dead.status, dead.attempts, dead.reason, dead.finished_at) == ("dead", 1, "body_field", NOW)
        assert at.of("notice", "1").status == "pending"
        await at.after(MINUTE)
        assert at.of("notice", "1").status == "delivered"
        assert len(at.posted()) == 1


@LEVELS
async def test_a_final_code_is_final_under_any_status_and_other_codes_are_not(tmp_path: Path, level: str) -> None:
    lines = (CALLBACK, level.format('final_codes = ["4004"]'))
    async with Payouts(tmp_path, *lines, answers=[NO, told(503, {"code": "4004"})]) as at:
        await at.hand_in(settle_event())
        assert at.of().status == "pending"
        await at.after(MINUTE)
        assert (at.of().status, at.of().attempts, at.of().reason) == ("dead", 2, "http_status")
