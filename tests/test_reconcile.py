"""The books compared: what each difference is called, what would mend it, what of a list is never believed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.clock import HOUR
from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Export, Operator
from dispatcher.ground.policy import Reason, Status
from dispatcher.reconcile.books import Difference, judge
from dispatcher.reconcile.comparison import Comparison, Plan, Question, carry_out, type_of
from dispatcher.reconcile.kinds import Kind
from dispatcher.reconcile.listing import plain
from dispatcher.store import ledger
from dispatcher.store.engine import Database
from tests.graves import bury, one_of_each
from tests.ground import NOW, acme_with, config_with, faults_of, operator
from tests.story import Story, orders
from tests.workshop import accept, row, settle, settled, take

HEADER = "order_no,total_bet,total_win,net_win"
BOOKED = "{},10,12.5,2.5"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines, ""]), "utf-8")
    return path


def exporting(**settings: Any) -> Operator:
    whole = operator()
    terms = dataclasses.replace(whole.terms["notice"], export=Export(**settings))
    return dataclasses.replace(whole, terms={**whole.terms, "notice": terms})


def comparison(database: Database, path: Path, whose: Operator | None = None, **span: int) -> Comparison:
    asked = Question(whose or operator(), "notice", path, span.get("since", NOW - HOUR), span.get("until", NOW + HOUR))
    return Comparison(database, asked, lambda _book, _count: None)


def differences(database: Database, path: Path, whose: Operator | None = None, **span: int) -> dict[str, str]:
    """Each order that differs, and how."""
    found = comparison(database, path, whose, **span).differences()
    return {one.there.key: one.kind.word for one in found}


def deliver(database: Database, *keys: int) -> None:
    accept(database, *keys)
    settle(database, *(settled(claim, NOW) for claim in take(database)))


@pytest.mark.each_store
def test_what_is_absent_there_is_called_by_what_it_is_here(database: Database, listed: Path) -> None:
    deliver(database, 6)
    one_of_each(database)

    assert differences(database, write(listed, BOOKED.format(6))) == {
        "1": "missing_there",
        "2": "resolved_absent",
        "5": "delivered_absent",
    }


@pytest.mark.each_store
def test_what_is_booked_there_is_called_by_what_it_is_here(database: Database, listed: Path) -> None:
    one_of_each(database)
    lines = [BOOKED.format(key) for key in (5, 4, 3, 2, 1, 9)]

    assert differences(database, write(listed, *lines)) == {
        "1": "dead_booked",
        "3": "waiting_booked",
        "4": "waiting_booked",
        "9": "unknown_here",
    }


def test_an_order_that_stands_twice_was_booked_twice(database: Database, listed: Path) -> None:
    deliver(database, 1)
    compared = comparison(database, write(listed, BOOKED.format(1), BOOKED.format(1)))

    (one,) = compared.differences()

    assert (one.kind, one.there.lines) == (Kind.BOOKED_TWICE, [2, 3])


@pytest.mark.parametrize("said", ["1,10,12.51,2.5", "1,10,12.5,2.51", "1,9.9999,12.5,2.5", "1,-10,12.5,2.5"])
def test_an_amount_that_is_another_by_the_last_place_differs(database: Database, listed: Path, said: str) -> None:
    deliver(database, 1)

    assert differences(database, write(listed, said)) == {"1": "amounts_differ"}


@pytest.mark.parametrize(
    "said", ["1,10,12.5,2.5", '1,"10.0000",+12.50,02.5', "1,10.,12.5,", '="1",10,12.5,2.5', "'1,10,12.5,2.5"]
)
def test_the_same_money_in_another_spelling_agrees(database: Database, listed: Path, said: str) -> None:
    deliver(database, 1)

    assert differences(database, write(listed, said)) == {}


def test_our_own_amounts_agree_in_whatever_spelling_they_were_accepted(database: Database, listed: Path) -> None:
    accept(database, 1, total_bet="10.00", total_win="12.5000")
    settle(database, *(settled(claim, NOW) for claim in take(database)))

    assert differences(database, write(listed, BOOKED.format(1))) == {}


def test_what_was_in_doubt_is_settled_by_the_list(database: Database, listed: Path) -> None:
    bury(database, 1, 2, reason=Reason.READ_TIMEOUT)
    compared = comparison(database, write(listed, BOOKED.format(1)))

    assert {one.there.key: one.ambiguous for one in compared.differences()} == {"1": True, "2": True}
    assert compared.summary.doubt == {"booked": 1, "not_booked": 1}


def test_an_order_accepted_before_the_span_is_not_unknown(database: Database, listed: Path) -> None:
    deliver(database, 1)
    compared = comparison(database, write(listed, BOOKED.format(1)), since=NOW + 1)

    assert list(compared.differences()) == []
    assert compared.summary.kinds == {Kind.OUTSIDE: 1}


def test_what_the_list_does_not_reach_is_not_missing(database: Database, listed: Path) -> None:
    deliver(database, 1)

    assert differences(database, write(listed), until=NOW) == {}


def test_another_operators_orders_are_not_ours(database: Database, listed: Path) -> None:
    accept(database, 1, operator="bolt")

    assert differences(database, write(listed, BOOKED.format(1))) == {"1": "unknown_here"}


def test_columns_state_encoding_and_separator_are_as_the_settings_say(database: Database, listed: Path) -> None:
    deliver(database, 1, 2)
    whose = exporting(
        columns={"order_no": "订单号", "total_win": "派奖"},
        state="状态",
        booked=frozenset({"成功"}),
        encoding="gb18030",
        delimiter="\t",
    )
    listed.write_bytes("订单号\t派奖\t状态\n1\t12.50\t成功\n2\t12.50\t失败\n".encode("gb18030"))

    assert differences(database, listed, whose) == {"2": "delivered_absent"}


def test_ndjson_is_read_without_a_float(database: Database, listed: Path) -> None:
    deliver(database, 1)
    path = listed.with_suffix(".ndjson")
    path.write_text('{"order_no":"1","total_bet":10.0,"total_win":12.500000000000000001,"net_win":"2.5"}\n', "utf-8")

    assert differences(database, path) == {"1": "amounts_differ"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1.76723E+18,10,12.5,2.5", "rounded number"),
        (",10,12.5,2.5", "has no key"),
        ("1\0,10,12.5,2.5", "has a NUL"),
        ("1,ten,12.5,2.5", "which is no amount"),
        ("1,10", "another number of columns"),
        ("1,10,12.5,2.5,9", "another number of columns"),
    ],
)
def test_a_line_that_can_not_be_read_is_named_and_nothing_is_done_by_such_a_list(
    database: Database, listed: Path, line: str, why: str
) -> None:
    deliver(database, 1)
    compared = comparison(database, write(listed, line))

    list(compared.differences())

    (named,) = compared.summary.named
    assert why in named.why
    assert not compared.summary.agree
    assert "can't be read" in (compared.unfit_to_mend() or "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"order_no\n\xb6\xa9\n", "not utf-8"),
        (b"number,amount\n1,2\n", "has no column 'order_no'; it has number, amount"),
        (b'order_no\n"1\n', "unexpected end of data"),
        (b"", "has no column"),
    ],
)
def test_what_is_no_such_list_is_refused(database: Database, listed: Path, content: bytes, why: str) -> None:
    listed.write_bytes(content)

    with pytest.raises(Refused, match=why):
        list(comparison(database, listed).differences())


def test_a_list_of_another_time_mends_nothing(database: Database, listed: Path) -> None:
    deliver(database, 1, 2, 3)
    compared = comparison(database, write(listed, BOOKED.format(1)))

    list(compared.differences())

    assert "of another time" in (compared.unfit_to_mend() or "")


@pytest.mark.each_store
def test_the_dead_are_replayed_or_resolved_as_the_list_has_it(database: Database, listed: Path) -> None:
    bury(database, 1, 2)
    deliver(database, 3)
    path = write(listed, BOOKED.format(2), BOOKED.format(3))
    compared, plan = comparison(database, path), Plan([], [])
    for one in compared.differences():
        plan.add(one)
    asked = Question(operator(), "notice", path, 0, NOW)

    would = carry_out(database, asked, plan, "ada", NOW, dry_run=True)
    assert [[one.key for one in change.taken] for change in would] == [["1"], ["2"]]
    assert {row(database, key).status for key in (1, 2)} == {"dead"}

    carry_out(database, asked, plan, "ada", NOW, dry_run=False)

    assert (row(database, 1).status, row(database, 2).status) == ("pending", "resolved")
    _, (action,) = ledger.history(database, row(database, 2).id)
    assert action["note"] == "booked by the operator according to list.csv"


def test_an_operator_with_two_types_wants_the_type_named() -> None:
    whole = operator()
    both = {kind: dataclasses.replace(terms, url="https://acme.example/") for kind, terms in whole.terms.items()}

    with pytest.raises(Refused, match="--type"):
        type_of(dataclasses.replace(whole, terms=both), None)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20))
def test_one_amount_has_one_text(amount: Any) -> None:
    spellings = {f"{amount:f}", f"{amount:f}000", f"{amount.normalize():f}"}

    assert len({plain(text) for text in spellings}) == 1
    assert plain(f"{amount:f}") != plain(f"{amount + 1:f}")


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("bookings", [0, 1, 2])
def test_every_state_has_a_word(status: Status, bookings: int) -> None:
    kind = judge(status, ["1"], [["1"]] * bookings, bookings, inside=True)

    assert (kind is Kind.BOOKED_TWICE) == (bookings == 2)
    assert kind.mend is None or status is Status.DEAD


def test_a_difference_says_only_what_was_said(database: Database, listed: Path) -> None:
    compared = comparison(database, write(listed, "7,1,2,1"))

    (one,) = compared.differences()

    assert one == Difference(Kind.UNKNOWN_HERE, None, None, False, [], one.there)
    assert one.there.said == [["1", "2", "1"]]


def test_the_command_compares_writes_and_mends(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        story.enqueue(orders(3))
        keys = [one["key"] for one in story.call("log", "--json").rows()]
        listed = write(tmp_path / "list.csv", *(f"{key},1,1,0" for key in [*keys, "=1+1"]))
        found = tmp_path / "found.csv"

        answer = story.call("reconcile", "acme", listed, "--since", "1h", "-o", found, "--json")

        told = answer.json()
        assert answer.status == 1
        assert told["listed"] == 4
        assert told["orders"] == {"amounts_differ": 3, "unknown_here": 1}
        assert "'=1+1" in found.read_text("utf-8-sig")

        dry = story.call("reconcile", "acme", listed, "--since", "1h", "--mend", "--dry-run", "--lang", "zh")
        assert "-o differences.csv" in dry.out, "a table of counts says how to see which orders they are"
        written = story.call("reconcile", "acme", listed, "--since", "1h", "-o", found)
        assert "-o differences.csv" not in written.out
        assert "金额不一致" in dry.out
        assert "将重发: 0" in dry.out
        assert "no operator nobody" in story.call("reconcile", "nobody", listed, "--since", "1h").err


# What a list looks like, as the configuration says it.


def declared(export: str) -> str:
    return acme_with(f"notice = {{ export = {{ {export} }} }}")


def test_an_export_that_is_not_described_has_our_names_and_every_row_was_booked() -> None:
    assert config_with(acme_with("")).operators["acme"].terms["notice"].export == Export()


def test_an_export_is_described_by_its_columns_its_state_its_encoding_and_its_delimiter() -> None:
    text = declared(
        'columns = { order_no = "订单号", total_win = "派彩" }, state = "status", booked = ["success", "1"],'
        r' encoding = "gb18030", delimiter = "\t"'
    )
    assert config_with(text).operators["acme"].terms["notice"].export == Export(
        {"order_no": "订单号", "total_win": "派彩"}, "status", frozenset({"success", "1"}), "gb18030", "\t"
    )


@pytest.mark.parametrize("name", ["utf-8", "UTF8"])
def test_utf_8_may_have_a_mark_in_front(name: str) -> None:
    export = config_with(declared(f'encoding = "{name}"')).operators["acme"].terms["notice"].export
    assert export.encoding == "utf-8-sig"


@pytest.mark.parametrize(
    ("export", "where", "fault"),
    [
        ('columns = { uid = "玩家" }', "columns", "names other fields than can be compared"),
        ('columns = "order_no"', "columns", "names other fields than can be compared"),
        ('columns = { order_no = "  " }', "columns", "is no name of a column"),
        ("columns = { order_no = 1 }", "columns", "is no name of a column"),
        (f'state = "{"x" * 256}", booked = ["1"]', "state", "is no name of a column"),
        ('state = "status"', "booked", "is missing"),
        ('booked = ["success"]', "state", "is missing"),
        ('state = "status", booked = []', "booked", "is not a list of texts"),
        ('state = "status", booked = "success"', "booked", "is not a list of texts"),
        ('state = "status", booked = [1]', "booked", "is not a list of texts"),
        ('encoding = "latin-99"', "encoding", "is not known"),
        ('encoding = "base64"', "encoding", "is not known"),
        ("encoding = 8", "encoding", "is not known"),
        ('delimiter = ""', "delimiter", "is not one character"),
        ('delimiter = "||"', "delimiter", "is not one character"),
        (r'delimiter = "\n"', "delimiter", "is not one character"),
        ("delimiter = 1", "delimiter", "is not one character"),
        ('colums = { order_no = "a" }', "colums", "is not known"),
    ],
)
def test_a_description_that_is_none_is_refused_at_its_key(export: str, where: str, fault: str) -> None:
    ((at, told),) = faults_of(declared(export)).items()
    assert at == f"operators.acme.notice.export.{where}"
    assert fault in str(told)
