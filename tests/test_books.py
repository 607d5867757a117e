"""The comparison against a model of it: dictionaries and decimals, over random lists, in pages of a few rows."""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from dispatcher.reconcile import books
from dispatcher.reconcile.comparison import Comparison, Question
from dispatcher.store import search
from dispatcher.store.engine import Database
from dispatcher.store.schema import deliveries
from tests.flows import payout, put
from tests.ground import NOW, operator
from tests.test_reconcile import comparison, exporting, write
from tests.workshop import accept

# No two collations have them in the same order.
KEYS = [*map(str, range(8, 21)), "a", "B", "é", "e", "z", "ﬀ", "订单", "😀", "a-1", "a1", "_", "A", "Z"]
STRANGE = ["1", "100", "b", "\uffe61", "😁"]
BETS, WINS = ("10", "10.50", "0.0001"), ("12.5", "0", "7.00")
WRITTEN = ("10", "10.5", "10.50", "+0.0001", "0", "-0", "12.50", "7", "2", "-10.5", "")

_ENDED = {"due_at": None, "finished_at": NOW}
_HELD = {"due_at": None, "token": 1, "worker": 1, "claimed_at": NOW}
STATES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("delivered", _ENDED), ("resolved", _ENDED), ("dead", _ENDED), ("dead", {**_ENDED, "ambiguous": True})),
    *(("pending", {}), ("sending", _HELD)),
)
ABSENT = {"delivered": "delivered_absent", "resolved": "resolved_absent", "dead": "missing_there"}
BOOKED = {"delivered": "agreed", "resolved": "agreed", "dead": "dead_booked"}

# Key, state, bet, win, net.
Line = tuple[str, ...]
# By key: when it was accepted, its status, whether that is in doubt, and the amounts.
Orders = dict[str, tuple[int, str, bool, tuple[Decimal, ...]]]

SAID = st.sampled_from(["ok", "ok", "void"])
LINES = st.lists(st.tuples(st.sampled_from(KEYS + STRANGE), SAID, *[st.sampled_from(WRITTEN)] * 3), max_size=20)
SINCE, UNTIL = st.integers(NOW - 1, NOW + 4), st.integers(NOW + 4, NOW + 13)


def grown(database: Database) -> Orders:
    """Orders in every state, three accepted at one time, and not in the order of their numbers."""
    orders: Orders = {}
    for number, key in enumerate(KEYS):
        at, (status, more) = NOW + number * 7 % len(KEYS) // 3, STATES[number % len(STATES)]
        bet, win = BETS[number % 3], WINS[number // 3 % 3]
        accept(database, key, now=at, total_bet=bet, total_win=win)
        changed = update(deliveries).where(deliveries.c.key == key).values(status=status, **more)
        with database.writing() as connection:
            connection.execute(changed)
        orders[key] = (at, status, "ambiguous" in more, (Decimal(bet), Decimal(win), Decimal(win) - Decimal(bet)))
    return orders


def line_of(key: str, amounts: tuple[Decimal, ...]) -> st.SearchStrategy[Line]:
    """A line that says what we have, each amount in one of its spellings, or not at all."""
    spelled = [
        st.sampled_from([*[f"{one:f}"] * 3, f"{one:.6f}", f"{one:+f}" if one else f"-{one:f}", ""]) for one in amounts
    ]
    return st.tuples(st.just(key), SAID, *spelled)


def model(orders: Orders, lines: list[Line], since: int, until: int) -> tuple[dict[str, str], Counter[str]]:
    """What each order is that was accepted in the span or is listed, and what became of those in doubt."""
    booked: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        booked[line[0]] += [line] if line[1] == "ok" else []
    kinds, doubt = {key: "unknown_here" for key in booked if booked[key] and key not in orders}, Counter[str]()
    for key, (at, status, ambiguous, amounts) in orders.items():
        inside, there = since <= at < until, booked.get(key, [])
        if not inside and key not in booked:
            continue
        if not there:
            kinds[key] = ABSENT.get(status, "waiting")
        elif len(there) > 1:
            kinds[key] = "booked_twice"
        elif any(text and Decimal(text) != ours for text, ours in zip(there[0][2:], amounts, strict=True)):
            kinds[key] = "amounts_differ"
        else:
            kinds[key] = BOOKED.get(status, "waiting_booked")
            kinds[key] = "outside" if kinds[key] == "agreed" and not inside else kinds[key]
        if ambiguous:
            doubt["booked" if there else "not_booked"] += 1
    return kinds, doubt


def decimals(amounts: Sequence[str | None]) -> list[Decimal | None]:
    return [Decimal(amount) if amount else None for amount in amounts]


@pytest.mark.each_store
def test_the_books_are_compared_as_by_hand(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE", 4)
    monkeypatch.setattr(books, "_AT_ONCE", 3)
    orders = grown(database)
    known = st.lists(st.sampled_from(sorted(orders)).flatmap(lambda key: line_of(key, orders[key][3])), max_size=40)
    path = tmp_path / "list.csv"
    whose = exporting(columns={"order_no": "key"}, state="state", booked=frozenset({"ok"}))

    @settings(max_examples=100)
    @given(LINES, known, SINCE, UNTIL)
    def compare(some: list[Line], more: list[Line], since: int, until: int) -> None:
        # Some of them once more.
        lines = [*some, *more, *more[: len(some) % 3]]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("key", "state", "total_bet", "total_win", "net_win"), *lines])
        compared = comparison(database, path, whose, since=since, until=until)

        differ = list(compared.differences())

        expected, doubt = model(orders, lines, since, until)
        found = {one.there.key: one.kind.word for one in differ}
        assert found == {key: word for key, word in expected.items() if word not in ("agreed", "outside", "waiting")}
        assert {kind.word: count for kind, count in compared.summary.kinds.items()} == Counter(expected.values())
        assert compared.summary.doubt == doubt
        assert [one.there.key for one in differ] == sorted(found)
        for one in differ:
            there = [(number, line) for number, line in enumerate(lines, 2) if line[0] == one.there.key]
            assert one.there.lines == [number for number, _ in there]
            assert list(map(decimals, one.there.said)) == [decimals(line[2:]) for _, line in there if line[1] == "ok"]
            assert decimals(one.known) == (list(orders[one.there.key][3]) if one.there.key in orders else [])

    compare()


@pytest.mark.parametrize(("fee", "kind"), [("", "waiting_booked"), ("0", "amounts_differ")])
def test_an_amount_that_our_order_has_not_is_not_zero(database: Database, tmp_path: Path, fee: str, kind: str) -> None:
    put(database, payout("tx-1"))
    path = write(tmp_path / "list.csv", f"tx-1,10,{fee}", header="txId,betAmount,fee")
    asked = Question(operator(), "settle", path, NOW, NOW + 1)

    (one,) = Comparison(database, asked, lambda _book, _count: None).differences()

    assert (one.kind.word, one.known) == (kind, ["10", None])
