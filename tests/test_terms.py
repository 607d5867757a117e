"""An operator's terms: what its settings make of each message type, when attempts are due, and how faults are told."""

import json
from collections.abc import Sequence
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.ground.clock import DAY, HOUR, MINUTE, SECOND, to_datetime
from dispatcher.ground.errors import ConfigError, EventError, Fault
from dispatcher.ground.operator import Auth, Operator, Terms
from dispatcher.ground.policy import Rule
from dispatcher.ground.schedule import Delays, Interval
from tests.ground import NOW, acme_with, config_with, faults_of, line, lock, notice, parse_event, settle_event
from tests.test_settle import CALLBACK, NO, NOTICE, YES, Payouts, settings
from tests.workshop import opened

pytestmark = pytest.mark.anyio

BOTH = (CALLBACK, NOTICE)
ORDER = "1767225600123457049"
REFUSED = httpx.Response(500)

SPIN_DELAYS, HOURS_OF_MINUTES = Delays(), Interval(MINUTE, 3 * HOUR)
CODE = Rule(field=("code",), values=("0000",))


def acme(*lines: str) -> Operator:
    return config_with(settings(*lines)).operators["acme"]


def terms(kind: str, *lines: str) -> Terms:
    return acme(*(lines or BOTH)).terms[kind]


def faults(*lines: str) -> list[Fault]:
    """What is wrong with acme's table; what is told twice fails."""
    with pytest.raises(ConfigError) as refused:
        config_with(settings(*lines))
    told = list(refused.value.faults)
    assert len({fault.where for fault in told}) == len(told), told
    assert all(fault.fault and fault.mend for fault in told)
    return told


def places(*lines: str) -> set[str]:
    return {fault.where.removeprefix("operators.acme.") for fault in faults(*lines)}


def offsets(made: Sequence[dict[str, Any]]) -> list[int]:
    """When attempts began, from NOW (µs)."""
    return [one["started_at"] - NOW for one in made]


class Terminable(Payouts):
    """As `Payouts`; whoever is asked for an answer without any left says no."""

    def refuse(self) -> None:
        self.settles.mock(return_value=NO)
        self.acme.mock(return_value=REFUSED)

    async def run_out(self, key: str = "tx-0001", kind: str = "settle", by: int = MINUTE) -> list[int]:
        """Goes on in steps until the delivery is no longer pending; when its attempts began."""
        for _ in range(1_000):
            if self.of(kind, key).status != "pending":
                break
            await self.after(by)
        assert self.of(kind, key).status != "pending"
        return offsets(self.attempts(key))


# The schedule of settle


async def test_a_settle_is_tried_every_minute_for_three_hours_and_not_a_microsecond_before(tmp_path: Path) -> None:
    """One at once, then one a minute for 180 minutes, the last at the very end of the window: 181."""
    async with Terminable(tmp_path) as at:
        at.refuse()
        await at.hand_in(settle_event())
        for made in range(1, 181):
            assert at.of().due_at == NOW + made * MINUTE
            await at.after(MINUTE - 1)
            assert len(at.posted()) == made
            await at.after(1)
            assert len(at.posted()) == made + 1
        dead = at.of()
        assert (dead.status, dead.attempts, dead.reason, dead.finished_at) == (
            "dead",
            181,
            "body_field",
            NOW + 3 * HOUR,
        )
        assert offsets(at.attempts("tx-0001")) == [n * MINUTE for n in range(181)]
        await at.after(DAY)
        assert len(at.posted()) == 181


async def test_the_preset_jdb_ends_after_one_hour(tmp_path: Path) -> None:
    async with Terminable(tmp_path, CALLBACK, 'preset = "jdb"') as at:
        at.refuse()
        await at.hand_in(settle_event())
        assert await at.run_out() == [n * MINUTE for n in range(61)]
        assert (at.of().status, at.of().finished_at) == ("dead", NOW + HOUR)


@pytest.mark.parametrize(
    ("window", "attempts"), [("1s", 1), ("59s", 1), ("60s", 2), ("119s", 2), ("120s", 3), ("150s", 3), ("180s", 4)]
)
async def test_a_window_that_ends_between_two_attempts_ends_it_with_the_earlier_one(
    tmp_path: Path, window: str, attempts: int
) -> None:
    async with Terminable(tmp_path, CALLBACK, f'retry = {{ every = "60s", for = "{window}" }}') as at:
        at.refuse()
        await at.hand_in(settle_event())
        assert await at.run_out() == [n * MINUTE for n in range(attempts)]
        assert (at.of().status, at.of().finished_at) == ("dead", NOW + (attempts - 1) * MINUTE)


async def test_the_interval_counts_from_the_end_of_an_attempt_and_the_window_from_the_end_of_the_first(
    tmp_path: Path,
) -> None:
    """Each takes 7 s: they begin at 0, 67 and 134 s; 201 s would be after 7 + 180 s."""
    async with Terminable(tmp_path, CALLBACK, 'retry = { every = "60s", for = "3m" }') as at:

        def slow(_request: httpx.Request) -> httpx.Response:
            at.clock.move(7 * SECOND)
            return NO

        at.settles.mock(side_effect=slow)
        await at.hand_in(settle_event())
        assert await at.run_out() == [0, 67 * SECOND, 134 * SECOND]
        assert at.of().finished_at == NOW + 141 * SECOND


async def test_an_operator_with_both_types_has_the_schedule_of_each_at_once(tmp_path: Path) -> None:
    async with Terminable(tmp_path, *BOTH) as at:
        at.refuse()
        await at.hand_in(settle_event(), notice())
        assert await at.run_out() == [n * MINUTE for n in range(181)]
        assert offsets(at.attempts(ORDER)) == [0, MINUTE, 31 * MINUTE, 81 * MINUTE]
        assert {at.of().status, at.of("notice", ORDER).status} == {"dead"}


async def test_a_schedule_of_the_operator_is_that_of_both_types(tmp_path: Path) -> None:
    async with Terminable(tmp_path, *BOTH, 'retry = { delays = ["2s", "5s"] }') as at:
        at.refuse()
        await at.hand_in(settle_event(), notice())
        assert await at.run_out(by=SECOND) == offsets(at.attempts(ORDER)) == [0, 2 * SECOND, 7 * SECOND]


async def test_a_schedule_of_a_type_goes_before_that_of_its_operator(tmp_path: Path) -> None:
    own = 'settle = { retry = { every = "3s", for = "6s" } }'
    async with Terminable(tmp_path, *BOTH, 'retry = { delays = ["2s", "5s"] }', own) as at:
        at.refuse()
        await at.hand_in(settle_event(), notice())
        assert await at.run_out(by=SECOND) == [0, 3 * SECOND, 6 * SECOND]
        assert await at.run_out(ORDER, "notice", by=SECOND) == [0, 2 * SECOND, 7 * SECOND]


# Settings over presets over the protocol's own


def test_what_is_not_written_is_the_protocols_own() -> None:
    assert terms("notice") == Terms("https://acme.example/Demo/notice", Auth.BEARER, SPIN_DELAYS, Rule())
    assert terms("settle") == Terms("https://acme.example/wallet/settle", Auth.NONE, HOURS_OF_MINUTES, CODE)


WALLET = Rule(field=("success",), values=(True,), numeric=("wallet",))


@pytest.mark.parametrize(
    ("lines", "notice_schedule", "settle_schedule"),
    [
        ('preset = "settle"', SPIN_DELAYS, HOURS_OF_MINUTES),
        ('preset = "jdb"', SPIN_DELAYS, Interval(MINUTE, HOUR)),
        ('preset = "notice-b"', SPIN_DELAYS, HOURS_OF_MINUTES),
        ('preset = "jdb"\nsettle = { retry = { every = "30s" } }', SPIN_DELAYS, Interval(30 * SECOND, HOUR)),
        ('preset = "jdb"\nsettle = { retry = { for = "2h" } }', SPIN_DELAYS, Interval(MINUTE, 2 * HOUR)),
        ('settle = { retry = { every = "30s" } }', SPIN_DELAYS, Interval(30 * SECOND, 3 * HOUR)),
        ('preset = "jdb"\nsettle = { retry = { delays = ["5s"] } }', SPIN_DELAYS, Delays((5 * SECOND,))),
        ('preset = "jdb"\nretry = { delays = ["5s"] }', Delays((5 * SECOND,)), Delays((5 * SECOND,))),
        ('retry = { every = "5s", for = "9s" }', *[Interval(5 * SECOND, 9 * SECOND)] * 2),
        (
            'retry = { every = "5s", for = "9s" }\nsettle = { retry = { for = "8s" } }',
            Interval(5 * SECOND, 9 * SECOND),
            Interval(5 * SECOND, 8 * SECOND),
        ),
        (
            'retry = { every = "5s", for = "9s" }\nnotice = { retry = { delays = ["1s"] } }',
            Delays((SECOND,)),
            Interval(5 * SECOND, 9 * SECOND),
        ),
        (
            'retry = { delays = ["5s"], measured_from = "first" }\nsettle = { retry = { every = "5s", for = "9s" } }',
            Delays((5 * SECOND,), "first"),
            Interval(5 * SECOND, 9 * SECOND),
        ),
        (
            'retry = { delays = ["5s"], measured_from = "first" }\nnotice = { retry = { measured_from = "previous" } }',
            Delays((5 * SECOND,)),
            Delays((5 * SECOND,), "first"),
        ),
        (
            'retry = { retry_after = "1h" }',
            Delays(retry_after=HOUR),
            Interval(MINUTE, 3 * HOUR, HOUR),
        ),
        (
            'retry = { retry_after = "1h" }\nsettle = { retry = { retry_after = "2h", delays = [] } }',
            Delays(retry_after=HOUR),
            Delays((), retry_after=2 * HOUR),
        ),
    ],
)
def test_retry_is_merged_key_by_key_and_one_kind_of_schedule_takes_the_others_keys_away(
    lines: str, notice_schedule: object, settle_schedule: object
) -> None:
    both = acme(*BOTH, lines).terms
    assert (both["notice"].schedule, both["settle"].schedule) == (notice_schedule, settle_schedule)


@pytest.mark.parametrize(
    ("lines", "notice_rule", "settle_rule"),
    [
        ('preset = "settle"', Rule(), CODE),
        ('preset = "notice-b"', WALLET, CODE),
        (
            'preset = "notice-b"\nnotice = { success = { numeric = "balance" } }',
            Rule(field=("success",), values=(True,), numeric=("balance",)),
            CODE,
        ),
        (
            'preset = "notice-b"\nsuccess = { extra_success_codes = ["7"] }',
            Rule(field=("success",), values=(True,), numeric=("wallet",), extra=frozenset({"7"})),
            Rule(field=("code",), values=("0000",), extra=frozenset({"7"})),
        ),
        ("success = { coerce_code = true }", Rule(), Rule(field=("code",), values=("0000",), coerce=True)),
        ('settle = { success = { values = ["ok"] } }', Rule(), Rule(field=("code",), values=("ok",))),
        (
            'success = { statuses = [200, 201] }\nsettle = { success = { field = "data.code" } }',
            Rule(frozenset({200, 201})),
            Rule(frozenset({200, 201}), ("data", "code"), ("0000",)),
        ),
        (
            "success = { statuses = [200, 201] }\nsettle = { success = { statuses = [200] } }",
            Rule(frozenset({200, 201})),
            CODE,
        ),
        (
            'success = { final_codes = ["9"] }\nnotice = { success = { field = "c", values = [1] } }',
            Rule(field=("c",), values=(1,), final=frozenset({"9"})),
            Rule(field=("code",), values=("0000",), final=frozenset({"9"})),
        ),
    ],
)
def test_success_is_merged_key_by_key_and_codes_are_for_the_types_that_have_one(
    lines: str, notice_rule: Rule, settle_rule: Rule
) -> None:
    both = acme(*BOTH, lines).terms
    assert (both["notice"].rule, both["settle"].rule) == (notice_rule, settle_rule)


@pytest.mark.parametrize(
    ("lines", "auths"),
    [
        ("", ("bearer", "none")),
        ('auth = "bearer"', ("bearer", "bearer")),
        ('auth = "bearer"\nsettle = { auth = "none" }', ("bearer", "none")),
        ('settle = { auth = "per_event" }', ("bearer", "per_event")),
        ('notice = { auth = "none" }\nsettle = { auth = "bearer" }', ("none", "bearer")),
    ],
)
def test_auth_is_the_types_then_the_operators_then_the_protocols(lines: str, auths: tuple[str, str]) -> None:
    both = acme(*BOTH, lines).terms
    assert (both["notice"].auth, both["settle"].auth) == auths


# Retry-After


def come_back(after: str, status: int = 429) -> httpx.Response:
    return httpx.Response(status, headers={"Retry-After": after})


def http_date(at: int) -> str:
    return format_datetime(to_datetime(at), usegmt=True)


HEEDED = 'retry = { delays = ["1m", "30m"], retry_after = "1h" }'


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (come_back("61"), 61 * SECOND),
        (come_back("1800"), 30 * MINUTE),
        (come_back("1800", 503), 30 * MINUTE),
        (come_back("3600"), HOUR),
        (come_back("3601"), HOUR),
        (come_back("86400", 503), HOUR),
        (come_back("59"), MINUTE),
        (come_back("0"), MINUTE),
        (come_back(http_date(NOW + 20 * MINUTE)), 20 * MINUTE),
        (come_back(http_date(NOW + 20 * MINUTE), 503), 20 * MINUTE),
        (come_back(http_date(NOW + 2 * HOUR)), HOUR),
        (come_back(http_date(NOW + 30 * SECOND)), MINUTE),
        (come_back(http_date(NOW - DAY)), MINUTE),
        (come_back("Thu Jan  1 00:20:00 2026"), 20 * MINUTE),
        (come_back("soon"), MINUTE),
        (come_back("-1800"), MINUTE),
        (come_back("1800.5"), MINUTE),
        (come_back(""), MINUTE),
        (come_back("1800", 500), MINUTE),
        (come_back("1800", 502), MINUTE),
        (come_back("1800", 400), MINUTE),
        (come_back("1800", 301), MINUTE),
        (come_back("1800", 202), MINUTE),
    ],
)
async def test_retry_after_of_a_429_or_503_only_lengthens_a_delay_and_within_its_cap(
    tmp_path: Path, answer: httpx.Response, wait: int
) -> None:
    async with Terminable(tmp_path, *BOTH, HEEDED) as at:
        at.acme.mock(side_effect=[answer, httpx.Response(200)])
        await at.hand_in(notice())
        assert at.of("notice", ORDER).due_at == NOW + wait
        await at.after(wait - 1)
        assert at.sent == 1
        await at.after(1)
        assert at.of("notice", ORDER).status == "delivered"


@pytest.mark.parametrize("after", ["1800", http_date(NOW + 20 * MINUTE)])
async def test_retry_after_is_not_heeded_unless_the_operators_settings_say_so(tmp_path: Path, after: str) -> None:
    async with Terminable(tmp_path, *BOTH) as at:
        at.settles.mock(return_value=come_back(after, 503))
        at.acme.mock(return_value=come_back(after))
        await at.hand_in(settle_event(), notice())
        assert (at.of().due_at, at.of("notice", ORDER).due_at) == (NOW + MINUTE, NOW + MINUTE)


async def test_retry_after_of_one_type_is_not_heeded_for_the_other(tmp_path: Path) -> None:
    async with Terminable(tmp_path, *BOTH, 'settle = { retry = { retry_after = "1h" } }') as at:
        at.settles.mock(return_value=come_back("1800"))
        at.acme.mock(return_value=come_back("1800"))
        await at.hand_in(settle_event(), notice())
        assert (at.of().due_at, at.of("notice", ORDER).due_at) == (NOW + 30 * MINUTE, NOW + MINUTE)


async def test_retry_after_costs_no_attempt_and_the_schedule_goes_on_from_there(tmp_path: Path) -> None:
    async with Terminable(tmp_path, *BOTH, HEEDED) as at:
        at.acme.mock(side_effect=[come_back("600"), REFUSED, come_back("600")])
        await at.hand_in(notice())
        await at.run_out(ORDER, "notice")
        assert offsets(at.attempts(ORDER)) == [0, 10 * MINUTE, 40 * MINUTE]
        assert (at.of("notice", ORDER).status, at.of("notice", ORDER).attempts) == ("dead", 3)


async def test_retry_after_does_not_bring_forward_what_is_measured_from_the_first_attempt(tmp_path: Path) -> None:
    retry = 'retry = { delays = ["1m", "30m", "50m"], measured_from = "first", retry_after = "1h" }'
    async with Terminable(tmp_path, *BOTH, retry) as at:
        at.acme.mock(side_effect=[come_back("2100"), come_back("60"), REFUSED, REFUSED])
        await at.hand_in(notice())
        await at.run_out(ORDER, "notice")
        assert offsets(at.attempts(ORDER)) == [0, 35 * MINUTE, 36 * MINUTE, 50 * MINUTE]


async def test_retry_after_with_an_interval_puts_off_one_attempt(tmp_path: Path) -> None:
    async with Terminable(tmp_path, CALLBACK, 'retry = { retry_after = "1h" }') as at:
        at.settles.mock(side_effect=[come_back("1800"), NO, come_back("30"), YES])
        await at.hand_in(settle_event())
        assert await at.run_out() == [n * MINUTE for n in (0, 30, 31, 32)]
        assert at.of().status == "delivered"


@pytest.mark.parametrize("after", ["600", "601", "3600", http_date(NOW + 2 * HOUR)])
async def test_retry_after_can_not_push_an_attempt_past_the_window(tmp_path: Path, after: str) -> None:
    async with Terminable(tmp_path, CALLBACK, 'retry = { every = "60s", for = "10m", retry_after = "1h" }') as at:
        at.settles.mock(return_value=come_back(after, 503))
        await at.hand_in(settle_event())
        assert at.of().due_at == NOW + 10 * MINUTE
        assert await at.run_out() == [0, 10 * MINUTE]
        assert (at.of().status, at.of().finished_at) == ("dead", NOW + 10 * MINUTE)


async def test_retry_after_does_not_open_a_window_that_is_over(tmp_path: Path) -> None:
    async with Terminable(tmp_path, CALLBACK, 'retry = { every = "60s", for = "59s", retry_after = "1h" }') as at:
        at.settles.mock(return_value=come_back("30"))
        await at.hand_in(settle_event())
        assert (at.of().status, at.of().attempts) == ("dead", 1)


# Faults


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('settle = { retry = { every = "60" } }', {"settle.retry.every"}),
        ('settle = { retry = { every = "60", for = 3 } }', {"settle.retry.every", "settle.retry.for"}),
        ('settle = { retry = { every = "500ms" } }', {"settle.retry.every"}),
        ('settle = { retry = { evry = "60s" } }', {"settle.retry.evry"}),
        ('settle = { retry = { delays = "1m" } }', {"settle.retry.delays"}),
        ('settle = { retry = { delays = ["1m"], every = "60s", for = "1h" } }', {"settle.retry.delays"}),
        ('settle = { retry = { delays = ["1m"], every = "60s" } }', {"settle.retry.delays", "settle.retry.for"}),
        (
            'settle = { retry = { measured_from = "first", every = "60s", for = "1h" } }',
            {"settle.retry.measured_from"},
        ),
        ('settle = { retry = { delays = ["2m", "1m"], measured_from = "first" } }', {"settle.retry.delays"}),
        ('settle = { retry = { retry_after = "soon" } }', {"settle.retry.retry_after"}),
        ("settle = { retry = 5 }", {"settle.retry"}),
        ("settle = 5", {"settle"}),
        ('settle = { retries = "1m" }', {"settle.retries"}),
        ('settle = { auth = "bear" }', {"settle.auth"}),
        ('settle = { success = { values = "0000" } }', {"settle.success.values"}),
        ('settle = { success = { feild = "code" } }', {"settle.success.feild"}),
        ("notice = { success = { coerce_code = true } }", {"notice.success.field"}),
        ('notice = { retry = { every = "60s" } }', {"notice.retry.for"}),
        ('retry = { every = "60" }', {"retry.every", "retry.for"}),
        ('retry = { for = "1h" }', {"retry.every"}),
        ("retry = 5", {"retry"}),
        ("success = 5", {"success"}),
        ('success = { feild = "code" }', {"success.feild"}),
        ('success = { field = "code" }', {"success.values"}),
        ('success = { coerce_code = "yes" }', {"success.coerce_code"}),
        ('auth = "bear"', {"auth"}),
        ('preset = "jbd"', {"preset"}),
        ('time_unit = "us"', {"time_unit"}),
        # Both stand where they were written, though the type's table is merged from both.
        ('retry = { every = "x", for = "1h" }\nsettle = { retry = { for = "2h" } }', {"retry.every"}),
        (
            'retry = { every = "x", for = "1h" }\nsettle = { retry = { for = "y" } }',
            {"retry.every", "settle.retry.for"},
        ),
        (
            'success = { statuses = [7], feild = "code" }\nsettle = { success = { values = [] } }',
            {"success.statuses", "success.feild", "settle.success.values"},
        ),
        ('retry = 5\nsettle = { retry = { every = "60s", for = "1h" } }', {"retry"}),
        (
            'callback = "x"\nsettle = { retry = { every = "x" }, auth = 1 }\nsuccess = { statuses = [] }',
            {"callback", "settle.retry.every", "settle.auth", "success.statuses"},
        ),
    ],
)
def test_each_fault_is_told_once_and_where_it_stands(lines: str, where: set[str]) -> None:
    assert places(*BOTH, lines) == where


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ([], {"notice_url"}),
        (['retry = { every = "60s" }'], {"notice_url", "retry.for"}),
        (['callback_url = "https://acme.example/?x=1"'], {"callback_url"}),
        (['callback_url = "acme.example"'], {"callback_url"}),
        (["callback_url = 5"], {"callback_url"}),
        (['callback_url = "https://127.0.0.1/wallet"', 'auth = "bearer"'], {"callback_url"}),
        (['notice_url = "https://acme.example/notice"'], {"token", "crypto.key"}),
        ([CALLBACK, 'notice_url = "https://acme.example/notice"'], {"token", "crypto.key"}),
        ([CALLBACK, 'auth = "bearer"'], {"token"}),
        ([CALLBACK, 'token = "tok"'], {"token"}),
        ([CALLBACK, 'settle = { auth = "minted" }'], {"mint", "crypto.key"}),
    ],
)
def test_an_operator_needs_a_url_and_what_the_types_that_it_takes_ask_for(lines: list[str], where: set[str]) -> None:
    assert places(*lines) == where


@pytest.mark.parametrize("key", ['delays = ["1m"]', 'measured_from = "first"'])
def test_the_two_kinds_of_schedule_do_not_mix_and_that_is_said(key: str) -> None:
    (fault,) = faults(*BOTH, f'settle = {{ retry = {{ every = "60s", for = "1h", {key} }} }}')
    assert (fault.fault, fault.mend) == ("does not go with every", "keep either delays or every and for")


def test_an_operator_without_any_url_is_told_both_names() -> None:
    (fault,) = faults("concurrency = 8")
    assert "notice_url" in fault.mend
    assert "callback_url" in fault.mend


def test_an_operator_that_takes_settles_alone_needs_neither_key_nor_token() -> None:
    config = config_with(settings(CALLBACK))
    alone = config.operators["acme"]
    assert {kind: own.url for kind, own in alone.terms.items()} == {
        "notice": None,
        "settle": "https://acme.example/wallet/settle",
    }
    assert (alone.token, alone.reading, config.warnings) == (None, None, ())


@pytest.mark.parametrize(
    "lines",
    [
        'retry = { every = "30s" }',
        'retry = { for = "1h" }',
        "success = { coerce_code = true }",
        'success = { extra_success_codes = ["1"], final_codes = ["2"] }',
        'success = { values = ["0000", "1"] }',
    ],
)
def test_what_is_said_for_all_types_need_not_make_sense_for_one_that_is_not_taken(lines: str) -> None:
    assert terms("settle", CALLBACK, lines) != terms("settle", CALLBACK)
    assert terms("settle", CALLBACK, lines) == terms("settle", CALLBACK, f"settle = {{ {lines} }}")


@pytest.mark.parametrize("setting", ["coerce_code = true", 'extra_success_codes = ["1"]', 'final_codes = ["1"]'])
def test_codes_that_no_type_reads_are_refused(setting: str) -> None:
    assert places(NOTICE, f"success = {{ {setting} }}") == {"success.field"}


# Types that are not taken


@pytest.mark.parametrize(
    ("lines", "event", "url"), [((CALLBACK,), notice(), "notice_url"), ((NOTICE,), settle_event(), "callback_url")]
)
def test_an_event_of_a_type_that_its_operator_does_not_take_is_refused_with_the_mend(
    lines: tuple[str, ...], event: dict[str, Any], url: str
) -> None:
    with pytest.raises(EventError) as refused:
        parse_event(line(event), {"acme": acme(*lines)}, lock)
    (fault,) = refused.value.faults
    assert (fault.where, fault.fault) == ("type", f"acme takes no {event['type']}: it has no {url}")
    assert fault.mend == f"set {url} for acme, or send another type"
    assert parse_event(line(event), {"acme": acme(*BOTH)}, lock).type == event["type"]


async def test_a_delivery_whose_operator_lost_its_url_ends_as_config_and_is_not_sent(tmp_path: Path) -> None:
    own = 'settle = { retry = { every = "60s", for = "2m" } }'
    async with Terminable(tmp_path, *BOTH, own) as at:
        at.refuse()
        await at.hand_in(settle_event())
        await at.reload(NOTICE, own)
        assert await at.run_out() == [0, MINUTE, 2 * MINUTE]
        dead = at.of()
        assert (dead.status, dead.reason, dead.ambiguous, len(at.posted())) == ("dead", "config", False, 1)
        made = at.attempts("tx-0001")
        assert [one["reason"] for one in made] == ["body_field", "config", "config"]
        assert "acme takes no settle" in made[-1]["detail"]
        assert "give the operator its URL" in made[-1]["detail"]


async def test_a_delivery_whose_operator_got_its_url_back_goes_on(tmp_path: Path) -> None:
    async with Terminable(tmp_path, *BOTH) as at:
        at.settles.mock(side_effect=[NO, YES])
        await at.hand_in(settle_event())
        await at.reload(NOTICE)
        await at.after(MINUTE)
        assert (at.of().status, at.of().reason) == ("pending", "config")
        await at.reload(*BOTH)
        await at.after(MINUTE)
        assert (at.of().status, at.of().attempts, len(at.posted())) == ("delivered", 3, 2)


# The unit of notice's time


async def test_milliseconds_are_a_thousand_times_the_events_seconds_outside_of_data_and_inside(tmp_path: Path) -> None:
    async with Terminable(tmp_path, *BOTH, 'time_unit = "ms"') as at:
        at.acme.mock(return_value=httpx.Response(200))
        at.settles.mock(return_value=YES)
        await at.hand_in(notice(time=1767225601), settle_event())
        body = json.loads(at.request().content)
        assert (body["time"], json.loads(opened(body["data"]))["time"]) == (1767225601000, 1767225601000)
        assert json.loads(at.of("notice", ORDER).body)["time"] == 1767225601
        assert b"1767225601" not in at.posted()[0]


def test_the_unit_changes_nothing_at_acceptance() -> None:
    seconds, milliseconds = ({"acme": acme(*BOTH, f'time_unit = "{unit}"')} for unit in ("s", "ms"))
    assert parse_event(line(notice()), seconds, lock) == parse_event(line(notice()), milliseconds, lock)
    for operators in (seconds, milliseconds):
        with pytest.raises(EventError) as refused:
            parse_event(line(notice(time=1767225601000)), operators, lock)
        assert [fault.where for fault in refused.value.faults] == ["time"]


def test_what_delays_are_measured_from_is_said_for_the_types_that_have_delays() -> None:
    terms = config_with(acme_with('callback_url = "https://acme.example/w"\nretry = { measured_from = "first" }'))
    own = terms.operators["acme"].terms
    assert own["notice"].schedule == Delays(measured_from="first")
    assert own["settle"].schedule == Interval(60 * SECOND, 3 * HOUR)


def test_an_order_by_what_nothing_has_that_the_operator_takes_is_refused() -> None:
    both = 'callback_url = "https://acme.example/w"\nordering = { key = "roundId" }'
    assert set(faults_of(acme_with('ordering = { key = "roundId" }'))) == {"operators.acme.ordering.key"}
    (warning,) = config_with(acme_with(both)).warnings
    assert (warning.where, warning.mend) == ("operators.acme.ordering.key", "notice goes out unordered")
    assert not config_with(acme_with('ordering = { key = "uid" }')).warnings


def test_what_is_said_for_a_type_that_the_operator_does_not_take_is_warned_of() -> None:
    (warning,) = config_with(acme_with('settle = { retry = { every = "30s" , for = "1h" } }')).warnings
    assert str(warning).startswith("operators.acme.settle: says how, and there is no callback_url; write callback_url")
