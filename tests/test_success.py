"""Success rules: what counts as a yes beyond the HTTP status, from the TOML table to the judge's verdict."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.policy import Outcome, Reason, Rule, Verb, judge, read_answer
from dispatcher.ground.schedule import Delays
from tests.ground import NOW, acme_with, claim, config_with, faults_of

CODE = Rule(field=("code",), values=("0000",))
WALLET = Rule(field=("success",), values=(True,), numeric=("wallet",))


def answer(body: object, status: int = 200, *, truncated: bool = False) -> Outcome:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Outcome(NOW, NOW + 1, 1, http_status=status, body=text, truncated=truncated)


def failure(rule: Rule, body: object, status: int = 200) -> Reason | None:
    return read_answer(answer(body, status), rule).failure


def test_the_named_value_under_the_named_field_is_a_yes() -> None:
    assert failure(CODE, {"code": "0000", "message": "ok"}) is None


@pytest.mark.parametrize(
    "body", [{"code": 0}, {"code": "0"}, {"code": None}, {"code": ["0000"]}, {"code": "00000"}, {}]
)
def test_any_other_value_is_a_failure_of_the_field(body: object) -> None:
    assert failure(CODE, body) is Reason.BODY_FIELD


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"[]", b'"0000"', b'{"code":"0000"', b'{"code":"0000","code":"1"}', b"\xff"]
)
def test_what_is_not_one_json_object_is_told_as_such(body: bytes) -> None:
    assert failure(CODE, body) is Reason.BODY_NOT_JSON


def test_a_body_that_was_cut_off_is_too_large_to_be_a_yes() -> None:
    assert read_answer(answer({"code": "0000"}, truncated=True), CODE).failure is Reason.BODY_TOO_LARGE


def test_a_body_that_nobody_reads_may_be_as_large_as_it_likes() -> None:
    assert read_answer(answer(b"x" * 10, truncated=True), Rule()).failure is None


def test_the_status_comes_before_the_body() -> None:
    assert failure(CODE, {"code": "0000"}, 500) is Reason.HTTP_STATUS
    assert failure(CODE, {"code": "0000"}, 302) is Reason.REDIRECT


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"success": True, "wallet": 10}, None),
        ({"success": True, "wallet": 10.25}, None),
        ({"success": True, "wallet": "10"}, Reason.BODY_FIELD),
        ({"success": True, "wallet": True}, Reason.BODY_FIELD),
        ({"success": True}, Reason.BODY_FIELD),
        ({"success": False, "wallet": 10}, Reason.BODY_FIELD),
        ({"success": 1, "wallet": 10}, Reason.BODY_FIELD),
        ({"success": "true", "wallet": 10}, Reason.BODY_FIELD),
    ],
)
def test_notice_b_wants_success_to_be_true_and_the_wallet_to_be_a_number(body: object, reason: Reason | None) -> None:
    assert failure(WALLET, body) is reason


def test_a_path_leads_into_the_body() -> None:
    rule = Rule(field=("data", "code"), values=("ok",))
    assert failure(rule, {"data": {"code": "ok"}}) is None
    assert failure(rule, {"data": "ok"}) is Reason.BODY_FIELD


def test_coercion_takes_a_number_for_its_text() -> None:
    rule = Rule(field=("code",), values=("0",), coerce=True)
    assert failure(rule, {"code": 0}) is None
    assert failure(rule, {"code": "0"}) is None
    assert failure(rule, {"code": 1}) is Reason.BODY_FIELD
    assert failure(rule, {}) is Reason.BODY_FIELD


def test_extra_codes_are_a_yes_as_well() -> None:
    rule = Rule(field=("code",), values=("0000",), extra=frozenset({"1005"}))
    assert failure(rule, {"code": "1005"}) is None
    assert failure(rule, {"code": 1005}) is Reason.BODY_FIELD


def test_a_final_code_ends_it_at_once() -> None:
    rule = Rule(field=("code",), values=("0000",), final=frozenset({"4004"}))
    verdict = judge(claim(attempt=1), answer({"code": "4004", "desc": "no such player"}), Delays(), rule)
    assert (verdict.verb, verdict.reason, verdict.code) == (Verb.BURY, Reason.BODY_FIELD, "4004")
    assert verdict.words == "no such player"


def test_without_a_final_code_it_is_retried_and_the_code_is_kept() -> None:
    verdict = judge(claim(attempt=1), answer({"code": "9999", "message": "busy"}, 503), Delays(), CODE)
    assert (verdict.verb, verdict.reason, verdict.code, verdict.words) == (
        *(Verb.RETRY, Reason.HTTP_STATUS),
        *("9999", "busy"),
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_no_body_breaks_the_judge(body: Any) -> None:
    verdict = judge(claim(attempt=1), answer(body), Delays(), CODE)
    yes = isinstance(body, dict) and body.get("code") == "0000"
    assert (verdict.verb is Verb.DELIVER) == yes


def test_of_an_operators_code_and_words_the_beginning_is_kept() -> None:
    said = read_answer(answer({"code": "7" * 65, "msg": "y" * 1025}), CODE)
    assert (said.code, said.words) == ("7" * 64, "y" * 1024)


def test_an_operators_words_are_those_of_the_first_name_that_says_something() -> None:
    said = {"desc": "", "message": "busy", "error": "E7"}
    assert read_answer(answer(said), CODE).words == "busy"
    assert read_answer(answer({"code": "0000"}), CODE).words is None


def test_what_is_no_text_and_no_number_is_no_code() -> None:
    assert read_answer(answer({"code": ["0000"]}), CODE).code is None
    assert read_answer(answer({"code": True}), CODE).code == "True"


@pytest.mark.parametrize("path", [("data", "code"), ("code",)])
def test_coercion_takes_nothing_for_what_is_not_there(path: tuple[str, ...]) -> None:
    rule = Rule(field=path, values=("None",), coerce=True)
    assert failure(rule, {"data": 7}) is Reason.BODY_FIELD


def test_a_number_is_kept_as_the_operator_wrote_it() -> None:
    assert read_answer(answer(b'{"code":1.50}'), CODE).code == str(Decimal("1.50"))


def test_an_operator_that_says_nothing_of_success_has_the_rule_of_the_message_type() -> None:
    terms = config_with(acme_with("")).operators["acme"].terms
    assert terms["notice"].rule == Rule()
    assert terms["settle"].rule == Rule(field=("code",), values=("0000",))


def test_the_preset_notice_b_is_its_rule_as_data() -> None:
    assert config_with(acme_with('preset = "notice-b"')).operators["acme"].terms["notice"].rule == WALLET


def test_a_preset_gives_way_to_what_is_written() -> None:
    text = acme_with('preset = "notice-b"\nsuccess = { numeric = "balance" }')
    assert config_with(text).operators["acme"].terms["notice"].rule == Rule(
        field=("success",), values=(True,), numeric=("balance",)
    )


def test_every_key_of_a_rule_is_read() -> None:
    text = acme_with(
        'success = { statuses = [200, 201], field = "data.code", values = ["0", 0], coerce_code = true, '
        'extra_success_codes = ["7"], final_codes = ["9"], numeric = "data.sum" }'
    )
    assert config_with(text).operators["acme"].terms["notice"].rule == Rule(
        statuses=frozenset({200, 201}),
        field=("data", "code"),
        values=("0", 0),
        numeric=("data", "sum"),
        coerce=True,
        extra=frozenset({"7"}),
        final=frozenset({"9"}),
    )


@pytest.mark.parametrize(
    ("success", "where"),
    [
        ('{ field = "code" }', "values"),
        ('{ values = ["0"] }', "field"),
        ('{ final_codes = ["9"] }', "field"),
        ('{ field = "a..b", values = ["0"] }', "field"),
        ('{ field = "", values = ["0"] }', "field"),
        ('{ field = "code", values = "0" }', "values"),
        ('{ field = "code", values = [0.5] }', "values"),
        ('{ field = "code", values = ["0"], extra_success_codes = [7] }', "extra_success_codes"),
        ('{ field = "code", values = ["0"], coerce_code = "yes" }', "coerce_code"),
        ("{ statuses = [] }", "statuses"),
        ("{ statuses = [199] }", "statuses"),
        ("{ statuses = [true] }", "statuses"),
        ("{ status = [200] }", "status"),
        ("{ numeric = 7 }", "numeric"),
    ],
)
def test_a_rule_that_could_never_mean_what_was_meant_is_refused(success: str, where: str) -> None:
    assert set(faults_of(acme_with(f"success = {success}"))) == {f"operators.acme.success.{where}"}
