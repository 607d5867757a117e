"""`dispatcher certify`: the bundled receiver passes in full, and each fault planted in it is found where it is."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from dispatcher.certify.books import Books
from dispatcher.certify.check import Result
from dispatcher.certify.letters import Sender
from dispatcher.certify.orders import Orders
from dispatcher.certify.suite import Finding, Suite
from dispatcher.clock import MILLISECOND, WallClock
from dispatcher.config import Config
from dispatcher.operator import Operator
from tests import faulty as faults
from tests.faulty import Faulty, faulty
from tests.ground import IV, KEY, config_with

pytestmark = pytest.mark.anyio

SLOW = 50 * MILLISECOND
SIGNED = 'signature = { secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def configured(more: str = "") -> Config:
    return config_with(
        f"""
[egress]
allow = ["127.0.0.0/8"]
[http]
total_timeout = "60s"
[worker]
lease = "90s"
[operators.acme]
notice_url = "http://127.0.0.1:9/Demo/notice"
callback_url = "http://127.0.0.1:9"
token = "the-token-of-acme"
auth = "bearer"
crypto = {{ key = "{KEY}", iv = "{IV}" }}
{more}
"""
    )


def at(url: str, operator: Operator) -> Operator:
    paths = {"notice": "/Demo/notice", "settle": "/settle"}
    terms = {kind: replace(one, url=url + paths[kind]) for kind, one in operator.terms.items()}
    return replace(operator, terms=terms)


async def certify(kind: type[Faulty], type_: str, *, looks: bool = True, more: str = "") -> dict[str, Finding]:
    """What a run against such a receiver finds, by the checks' names."""
    config = configured(more)
    played = config.operators["acme"]
    async with faulty(kind, [played]) as receiver, AsyncExitStack() as stack:
        operator = at(receiver.url, played)
        sender = Sender(operator, type_, config.allow, SLOW)
        stack.push_async_callback(sender.aclose)
        books = Books(f"{receiver.url}/received", operator, type_, config.allow) if looks else None
        if books is not None:
            stack.push_async_callback(books.aclose)
        orders = Orders(operator, type_, WallClock().now(), {}, None)
        found = await Suite(operator, orders, sender, books, lambda _finding: None).run()
    return {finding.check.name: finding for finding in found}


def results(found: Mapping[str, Finding]) -> dict[str, set[str]]:
    return {result.value: {name for name, one in found.items() if one.result is result} for result in Result}


@pytest.mark.parametrize("type_", ["notice", "settle"])
async def test_the_bundled_receiver_passes_in_full(type_: str) -> None:
    found = await certify(Faulty, type_, more=SIGNED)
    assert {name: (one.result, one.came("en"), one.notes) for name, one in found.items() if one.result != "pass"} == {}
    assert len(found) > 12


N, S = "notice", "settle"
FAULTS = [
    (faults.BooksTwice, N, {"again"}),
    (faults.BooksTwice, S, {"again"}),
    (faults.NotSafeForTwo, N, {"two_at_once"}),
    (faults.DuplicatesGet500, N, {"again"}),
    (faults.TakesOtherContent, N, {"other_content"}),
    (faults.TakesOtherContent, S, {"other_content"}),
    (faults.AnswersFirst, N, {"wrong_token"}),
    (faults.IgnoresToken, S, {"wrong_token"}),
    (faults.FloatAmounts, N, {"large_amount"}),
    (faults.FloatAmounts, S, {"large_amount"}),
    (faults.TwoPlaces, N, {"four_decimals"}),
    (faults.TwoPlaces, S, {"four_decimals"}),
    (faults.Mojibake, N, {"non_ascii"}),
    (faults.Mojibake, S, {"non_ascii"}),
    (faults.TsIsContent, S, {"refreshed_ts"}),
    (faults.ForgetsSoon, S, {"late"}),
    (faults.RefusesUnknown, N, {"unknown_field"}),
    (faults.RefusesUnknown, S, {"unknown_field"}),
    (faults.TakesTampered, N, {"tampered"}),
    (faults.TakesLess, N, {"missing_field"}),
    (faults.TakesLess, S, {"missing_field"}),
    (faults.ReadsOnePacket, N, {"slow"}),
]


@pytest.mark.parametrize(("kind", "type_", "wrong"), FAULTS)
async def test_each_fault_fails_on_exactly_its_point(kind: type[Faulty], type_: str, wrong: set[str]) -> None:
    found = await certify(kind, type_)
    assert results(found)["fail"] == wrong, {name: (one.came("en"), one.notes) for name, one in found.items()}


@pytest.mark.parametrize(
    ("kind", "type_", "wrong"),
    [
        (faults.FloatNumbers, N, {"long_number"}),
        (faults.FloatNumbers, S, {"long_number"}),
        (faults.FloatAmounts, N, {"large_amount"}),
        (faults.TwoPlaces, S, {"four_decimals"}),
        (faults.QuestionMarks, N, {"non_ascii"}),
        (faults.IgnoresToken, N, {"wrong_token"}),
        (faults.TsIsContent, S, {"refreshed_ts"}),
        (faults.BooksWhatItRefuses, N, {"tampered", "missing_field"}),
        # What the answers don't show is not made up.
        (faults.BooksTwice, N, set()),
        (faults.NotSafeForTwo, S, set()),
        (faults.Mojibake, N, set()),
    ],
)
async def test_by_the_answers_alone_this_is_found_and_no_more(kind: type[Faulty], type_: str, wrong: set[str]) -> None:
    assert results(await certify(kind, type_, looks=False))["fail"] == wrong
