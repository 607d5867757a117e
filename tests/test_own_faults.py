"""Faults on our own side: the request never left, so it is no attempt; the delivery waits and loses nothing."""

import asyncio
import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import dispatcher.dispatch
import dispatcher.dispatch.thread
from dispatcher.ground.clock import DAY, HOUR, MINUTE, SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.events import whose_token
from dispatcher.ground.policy import LONG_PUT_OFF, PUT_OFF, Claim, Outcome, Reason, Verb, judge
from dispatcher.store import acceptance, corridor, ledger, operators
from dispatcher.store.corridor import Settlement, Turned
from dispatcher.store.engine import Database, open_database
from dispatcher.web import application
from dispatcher.wire import PinnedTransport, Resolver
from dispatcher.wire.failures import DnsFailure, LocalFault
from tests.ground import NOW, claim
from tests.stores import STORES
from tests.workshop import (
    OPERATORS,
    Bench,
    MovedClock,
    accept,
    adopt,
    attempts_of,
    configuration,
    event,
    failed,
    row,
    settle,
    settled,
    take,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

OK = httpx.Response(200)
NO = httpx.Response(500)
OURS = {
    "our own resolver": (DnsFailure("acme.example: no answer", ours=True), Reason.DNS),
    "no descriptors": (LocalFault("too many open files"), Reason.CONNECT_REFUSED),
}
RESOLVER = OURS["our own resolver"][0]


def bench(folder: Path, *answers: Any, clock: MovedClock | None = None, **lines: str) -> Bench:
    """Acme gives these answers, one after the other."""
    made = Bench(configuration(folder, **lines), clock)
    made.acme.mock(side_effect=list(answers))
    return made


def columns(database: Database) -> dict[str, Any]:
    """The one delivery, whole."""
    with database.reading() as connection:
        return dict(connection.execute(text("SELECT * FROM deliveries")).mappings().one())


async def ready(at: Bench) -> tuple[int, dict[str, str]]:
    """What /readyz says, but for the scheduler, which no bench has running."""
    faults = {name: fault for name, fault in at.daemon.not_ready().items() if name != "scheduler"}
    app = httpx.ASGITransport(application(lambda: faults))
    async with httpx.AsyncClient(transport=app, base_url="http://daemon") as client:
        answer = await client.get("/readyz")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("fault", OURS)
async def test_a_fault_of_our_own_leaves_the_delivery_as_it_was_but_for_five_seconds(
    tmp_path: Path, fault: str
) -> None:
    error, reason = OURS[fault]
    async with bench(tmp_path, error, OK) as at:
        await at.send(1)
        assert at.row()[5:7] == ("pending", 0)
        assert at.row().due_at == at.armed[-1] == NOW + 5 * SECOND
        assert (at.row().ambiguous, columns(at.database)["anchor_at"], at.attempts()) == (False, None, [])
        (line,) = at.told("put_off")
        assert (line["level"], line["key"], line["n"], line["status"]) == ("warning", "1", None, "pending")
        assert (line["reason"], line["detail"]) == (reason, str(error))
        assert at.told("attempt") == []
        await at.after(PUT_OFF - 1)
        assert at.sent == 1
        await at.after(1)
        assert at.row()[5:7] == ("delivered", 1)
        assert [(one["n"], one["trigger"]) for one in at.attempts()] == [(1, "first")]


async def test_faults_of_our_own_between_the_attempts_leave_no_gap_and_use_none_up(tmp_path: Path) -> None:
    ours = [error for error, _ in OURS.values()]
    async with bench(tmp_path, *ours, NO, *ours, NO, *ours, NO, *ours, NO) as at:
        await at.send(1)
        for wait in (PUT_OFF, PUT_OFF, MINUTE, PUT_OFF, PUT_OFF, 30 * MINUTE, PUT_OFF, PUT_OFF, 50 * MINUTE):
            assert at.row().due_at == at.clock.now() + wait
            await at.after(wait)
        assert at.row()[5:7] == ("pending", 3)
        await at.after(PUT_OFF)
        await at.after(PUT_OFF)
        assert at.row()[5:7] == ("dead", 4)
        assert [(one["n"], one["trigger"]) for one in at.attempts()] == [
            (1, "first"),
            (2, "retry"),
            (3, "retry"),
            (4, "retry"),
        ]
        assert [line["n"] for line in at.told("attempt")] == [1, 2, 3, 4]
        assert len(at.told("put_off")) == 8


async def test_the_mark_of_doubt_and_the_anchor_stay_through_a_fault_of_our_own(tmp_path: Path) -> None:
    async with bench(tmp_path, httpx.ReadTimeout("late"), RESOLVER, RESOLVER, OK) as at:
        await at.send(1)
        before = columns(at.database)
        await at.after(MINUTE)
        await at.after(PUT_OFF)
        after = columns(at.database)
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"due_at", "reason", "anchor_at"}
        assert (after["ambiguous"], after["attempts"]) == (1, 1)
        assert after["anchor_at"] == NOW + 2 * PUT_OFF, "what it waited for us is in no window"
        await at.after(PUT_OFF)
        assert (at.row().status, at.row().ambiguous) == ("delivered", False)
        assert [one["n"] for one in at.attempts()] == [1, 2]


async def test_a_resolver_that_is_down_for_a_day_kills_nothing(tmp_path: Path) -> None:
    at = bench(tmp_path, retry='{ every = "60s", for = "3h" }')
    at.acme.mock(side_effect=RESOLVER)
    async with at:
        await at.send(*range(5))
        for _ in range(24):
            await at.after(HOUR)
        assert at.sent == 5 * 25
        at.acme.mock(return_value=OK)
        await at.after(PUT_OFF)
        assert [at.row(key)[5:7] for key in range(5)] == [("delivered", 1)] * 5


async def test_a_replayed_delivery_is_put_off_too_and_its_attempts_stay_as_they_are(tmp_path: Path) -> None:
    async with bench(tmp_path, NO, NO, RESOLVER, RESOLVER, NO, OK, retry='{ delays = ["1m"] }') as at:
        await at.send(1)
        await at.after(MINUTE)
        assert at.row()[5:7] == ("dead", 2)
        ledger.replay(at.database, [at.row()], "tester", at.clock.now())
        await at.look()
        assert (at.row()[5:7], columns(at.database)["run_from"]) == (("pending", 2), 2)
        await at.after(PUT_OFF)
        assert at.row()[5:7] == ("pending", 2)
        await at.after(PUT_OFF)
        assert at.row()[5:7] == ("pending", 3)
        await at.after(MINUTE)
        assert at.row()[5:7] == ("delivered", 4)
        assert [(one["n"], one["trigger"]) for one in at.attempts()] == [
            (1, "first"),
            (2, "retry"),
            (3, "replay"),
            (4, "retry"),
        ]


async def test_a_token_that_no_master_key_unlocks_is_put_off_until_one_does(tmp_path: Path) -> None:
    async with bench(tmp_path, OK) as at:
        at.path.write_text(at.path.read_text().replace('token = "the-token-of-acme"', 'auth = "per_event"'))
        await at.daemon.reload(at.path)
        own = at.daemon._vault.lock(b"the-players-own", whose_token(event(1)))
        acceptance.accept(at.database, [event(1)._replace(bearer=f"{'0' * 8}.{own.partition('.')[2]}")], NOW)
        await at.look()
        for _ in range(5):
            await at.after(DAY)
        assert (at.sent, at.row()[5:7], at.row().reason) == (0, ("pending", 0), "config")
        assert "the player's token can't be unlocked" in at.told("put_off")[0]["detail"]
        assert "network" not in at.daemon.not_ready()
        with at.database.writing() as connection:
            connection.execute(text("UPDATE deliveries SET bearer = :own"), {"own": own})
        await at.after(LONG_PUT_OFF)
        assert at.row()[5:7] == ("delivered", 1)
        assert at.request().headers["Authorization"] == "Bearer the-players-own"


async def test_readyz_names_the_fault_until_a_request_is_answered_again(tmp_path: Path) -> None:
    async with bench(tmp_path, RESOLVER, httpx.ConnectError("refused"), NO, RESOLVER, OK) as at:
        assert await ready(at) == (200, {"status": "ready"})
        await at.send(1)
        assert await ready(at) == (503, {"status": "not ready", "network": str(RESOLVER)})
        await at.after(PUT_OFF)
        assert (await ready(at))[0] == 503
        await at.after(MINUTE)
        assert await ready(at) == (200, {"status": "ready"})
        await at.after(30 * MINUTE)
        assert (await ready(at))[0] == 503
        await at.after(PUT_OFF)
        assert await ready(at) == (200, {"status": "ready"})


async def test_a_fault_of_our_own_with_one_operator_takes_no_attempt_from_another(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path, "acme", "bolt")) as at:
        at.acme.mock(side_effect=RESOLVER)
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=NO)
        acceptance.accept(at.database, [event(1), event(1, operator="bolt")], NOW)
        await at.look()
        assert bolt.call_count == 1
        assert at.row()[5:7] == ("pending", 0)
        assert at.row(1, "bolt")[5:7] == ("pending", 1)


async def test_a_restart_after_a_fault_of_our_own_keeps_the_five_seconds(tmp_path: Path) -> None:
    async with bench(tmp_path, RESOLVER, OK) as at:
        await at.send(1)
        await at.restart()
        await at.after(PUT_OFF - 1)
        assert at.sent == 1
        await at.after(1)
        assert at.row()[5:7] == ("delivered", 1)


async def test_put_off_while_it_is_paused_it_waits_for_the_end_of_the_pause(tmp_path: Path) -> None:
    async with bench(tmp_path, RESOLVER, OK) as at:
        await at.send(1)
        operators.stop(at.database, "acme", "paused_at", ("pause", "tester", None), NOW)
        await at.after(HOUR)
        assert (at.sent, at.row()[5:7]) == (1, ("pending", 0))
        operators.start(at.database, "acme", "paused_at", ("resume", "tester", None), at.clock.now())
        await at.look()
        assert at.row()[5:7] == ("delivered", 1)


def turn(at: Bench, verb: str) -> None:
    change = operators.stop if verb in ("pause", "hold") else operators.start
    column = "paused_at" if verb in ("pause", "resume") else "held_at"
    change(at.database, "acme", column, (verb, "tester", None), at.clock.now())


# What happens between an attempt that failed and the claim behind which a fault of our own shows.
WAITS: Mapping[str, Sequence[str | int]] = {
    "open": [HOUR],
    "paused before it is due": [1, "pause", 30 * SECOND, "resume", MINUTE],
    "paused when it is due": [50 * SECOND, "pause", HOUR, "resume"],
    "paused behind that": [50 * SECOND, "pause", 5 * SECOND, "resume", 1, "pause", HOUR, "resume"],
    "paused, then held": [50 * SECOND, "pause", HOUR, "hold", "resume", HOUR, "release"],
    "paused before this worker was there": [50 * SECOND, "pause", HOUR, "unheard resume", "restart"],
    "paused and held before this worker was there": [
        *(50 * SECOND, "pause", 5 * SECOND, "unheard resume", 1, "unheard pause", HOUR, "unheard hold", HOUR),
        *("unheard resume", HOUR, "unheard release", "restart"),
    ],
    "paused when this worker begins": [50 * SECOND, "pause", HOUR, "restart", HOUR, "resume"],
}


@pytest.mark.parametrize("wait", WAITS)
async def test_a_pause_before_a_fault_of_our_own_makes_a_window_longer_once(tmp_path: Path, wait: str) -> None:
    retry, breaker = '{ every = "60s", for = "3h" }', '{ failures = 1000, probe = "366d" }'
    async with bench(tmp_path, NO, RESOLVER, NO, retry=retry, breaker=breaker) as at:
        turn(at, "pause")
        await at.after(DAY)
        turn(at, "resume")
        await at.send(1)
        due_at, open_until_due = at.clock.now() + MINUTE, 0
        for step in WAITS[wait]:
            if step == "restart":
                await at.restart()
                await at.look()
            elif isinstance(step, str):
                turn(at, step.removeprefix("unheard "))
                if not step.startswith("unheard "):
                    await at.look()
            else:
                (acme,) = operators.standings(at.database)
                shut = acme.closed_since is not None
                open_until_due += 0 if shut else min(step, max(0, due_at - at.clock.now()))
                await at.after(step)
        assert at.sent == 2
        await at.after(PUT_OFF)
        assert (at.sent, at.row().attempts) == (3, 2)
        closed = at.dispatch.lanes["acme"].closed(at.clock.now())
        assert at.clock.now() - closed - columns(at.database)["anchor_at"] == open_until_due


# The real wire: what it reports is put off.


async def post_for_real(at: Bench) -> None:
    """The daemon's own transport in place of the played operators."""
    lane = at.dispatch.lanes["acme"]
    lane.transport = PinnedTransport(Resolver(), at.config.allow, SECOND)
    await at.send(1)
    await at.idle()
    await lane.transport.aclose()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL])
async def test_what_this_machine_lacks_is_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def found(*_arguments: Any, **_named: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 0))]

    async def lacking(*_arguments: Any, **_named: Any) -> Any:
        raise OSError(number, "this machine has none left")

    async with bench(tmp_path) as at:
        monkeypatch.setattr(socket, "getaddrinfo", found)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", lacking)
        await post_for_real(at)
        assert at.row()[5:7] == ("pending", 0)
        assert at.row().due_at == NOW + PUT_OFF
        assert "this machine has none left" in at.daemon.not_ready()["network"]


async def test_a_resolver_of_ours_that_does_not_answer_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_arguments: Any, **_named: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async with bench(tmp_path) as at:
        monkeypatch.setattr(socket, "getaddrinfo", silent)
        await post_for_real(at)
        assert (at.row()[5:7], at.row().reason, at.attempts()) == (("pending", 0), "dns", [])
        assert "our own resolver" in at.daemon.not_ready()["network"]


# Late, twice, and with the store away.


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = open_database(STORES.place(tmp_path))
    yield opened
    opened.close()


def put_off(claim: Claim, now: int) -> Settlement:
    outcome = Outcome(now, now, 0, reason=Reason.DNS, detail="no answer", ours=True)
    terms = OPERATORS["acme"].terms["notice"]
    return Settlement(claim, outcome, judge(claim, outcome, terms.schedule, terms.rule))


def rescued(claim: Claim, now: int) -> Settlement:
    return settled(claim, now, None, reason=Reason.INTERRUPTED)


def one_claim(database: Database, now: int) -> Claim:
    (claim,) = take(database, now)
    return claim


After = Callable[[Database], None]


def nothing(_database: Database) -> None:
    pass


def claimed_again(database: Database) -> None:
    take(database, NOW + DAY)


def delivered(database: Database) -> None:
    settle(database, settled(one_claim(database, NOW + DAY), NOW + DAY), now=NOW + DAY)


def put_off_again(database: Database) -> None:
    settle(database, put_off(one_claim(database, NOW + DAY), NOW + DAY), now=NOW + DAY)


@pytest.mark.parametrize("then", [nothing, claimed_again, delivered, put_off_again])
def test_a_put_off_that_comes_after_its_claim_was_taken_away_changes_nothing(database: Database, then: After) -> None:
    accept(database, 1)
    late = one_claim(database, NOW)
    settle(database, rescued(late, NOW + MINUTE), now=NOW + MINUTE)
    then(database)
    before, made = columns(database), attempts_of(database)
    settle(database, put_off(late, NOW + 2 * DAY), now=NOW + 2 * DAY)
    assert columns(database) == before
    assert attempts_of(database) == made
    assert before["attempts"] >= 1


def test_a_put_off_that_is_written_twice_counts_once(database: Database) -> None:
    accept(database, 1)
    settle(database, failed(one_claim(database, NOW), NOW))
    again = put_off(one_claim(database, NOW + MINUTE), NOW + MINUTE)
    for _ in range(3):
        settle(database, again, now=NOW + MINUTE)
        assert row(database)[5:7] == ("pending", 1)
    held = one_claim(database, NOW + DAY)
    assert held.attempt == 2
    settle(database, again, now=NOW + DAY)
    assert (row(database)[5:7], columns(database)["token"]) == (("sending", 2), held.token)


def test_put_off_beside_others_in_one_batch_moves_only_itself(database: Database) -> None:
    accept(database, 1, 2, 3)
    first, second, third = take(database)
    assert settle(database, settled(first, NOW), put_off(second, NOW), failed(third, NOW)) == []
    assert [row(database, key)[5:7] for key in (1, 2, 3)] == [("delivered", 1), ("pending", 0), ("pending", 1)]
    assert [len(attempts_of(database, key)) for key in (1, 2, 3)] == [1, 0, 1]


def test_a_put_off_keeps_its_place_in_the_line(database: Database) -> None:
    for key in (1, 2):
        acceptance.accept(database, [event(key)._replace(sequence="player-1")], NOW)
    settle(database, put_off(one_claim(database, NOW), NOW))
    assert [row(database, key).parked for key in (1, 2)] == [False, True]
    assert one_claim(database, NOW + DAY).key == "1"


async def test_a_claim_that_is_rescued_under_a_put_off_keeps_its_number(tmp_path: Path) -> None:
    gone = asyncio.Event()
    at = Bench(configuration(tmp_path))

    async def late(_request: httpx.Request) -> httpx.Response:
        if at.acme.call_count == 0:
            await gone.wait()
            raise RESOLVER
        return OK

    at.acme.mock(side_effect=late)
    async with at:
        await at.send(1)
        (held,) = at.dispatch._held
        (adopted,) = adopt(at.database)
        assert adopted.claim.id == held[0]
        settle(at.database, rescued(adopted.claim, NOW), now=NOW)
        assert at.row()[5:7] == ("pending", 1)
        gone.set()
        await at.idle()
        assert at.row()[5:7] == ("pending", 1)
        assert at.row().reason == "interrupted"
        assert [one["n"] for one in at.attempts()] == [1]
        assert at.dispatch.in_flight == 0


class Away:
    """A turn that puts something off fails as often as it is told, before it has written anything or after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.before = 0
        self.after = 0
        self._turn = corridor.turn
        patch.setattr(corridor, "turn", self.turn)
        patch.setattr(dispatcher.dispatch.thread, "BACKOFF_SECONDS", (0.001,))

    def turn(self, database: Database, done: Sequence[Settlement], wanted: Mapping[str, int], now: int) -> Turned:
        ours = any(one.outcome.ours for one in done)
        if ours and self.before:
            self.before -= 1
            raise StoreUnavailable("the disk is full")
        turned = self._turn(database, done, wanted, now)
        if ours and self.after:
            self.after -= 1
            raise StoreUnavailable("the disk is full")
        return turned


@pytest.mark.parametrize(("before", "after"), [(7, 0), (0, 1), (0, 3), (3, 3)])
async def test_a_store_that_is_away_doubles_and_loses_no_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    away = Away(monkeypatch)
    async with bench(tmp_path, NO, RESOLVER, RESOLVER, OK) as at:
        await at.send(1)
        for wait in (MINUTE, PUT_OFF):
            away.before, away.after = before, after
            await at.after(wait)
            assert away.before == away.after == 0
            assert at.row()[5:7] == ("pending", 1)
            assert at.row().due_at == at.clock.now() + PUT_OFF
        await at.after(PUT_OFF)
        assert at.row()[5:7] == ("delivered", 2)
        assert [(one["n"], one["late"]) for one in at.attempts()] == [(1, False), (2, False)]
        assert len(at.told("put_off")) == 2


# The judge.


@pytest.mark.parametrize("attempt", [1, 4, 99])
@pytest.mark.parametrize("anchor", [None, NOW - 365 * DAY])
def test_a_fault_of_our_own_is_put_off_however_many_attempts_there_were(attempt: int, anchor: int | None) -> None:
    terms = OPERATORS["acme"].terms["notice"]
    outcome = Outcome(NOW, NOW + 7, 7, reason=Reason.DNS, ours=True)
    for closed in (0, DAY):
        verdict = judge(claim(attempt=attempt, anchor_at=anchor), outcome, terms.schedule, terms.rule, closed)
        assert verdict[:3] == (Verb.PUT_OFF, NOW + 7 + PUT_OFF, Reason.DNS)
        assert verdict.anchor_at == (None if anchor is None else anchor + 7 + PUT_OFF)
        assert verdict.status == "pending"


async def test_a_backlog_is_not_taken_up_while_nothing_leaves_this_machine(tmp_path: Path) -> None:
    async with bench(tmp_path, LocalFault("no descriptors left"), *[OK] * 200) as at:
        await at.send(1)
        await at.send(*range(2, 102))
        assert at.sent == 1
        await at.after(5 * SECOND)
        assert {at.row(key).status for key in range(1, 102)} == {"delivered"}
        assert {at.row(key).attempts for key in range(1, 102)} == {1}
