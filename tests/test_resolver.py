"""Whose fault it is when a name has no address, and what look-ups that hang do to the others: nothing."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.ground.clock import MILLISECOND
from dispatcher.ground.policy import Outcome, Reason
from dispatcher.wire import Resolver, reach
from dispatcher.wire.resolver import MAX_HANGING, MAX_LOOK_UPS, ask
from tests.hostile import OK, PATIENCE, Ahead, always, calling, named, names, playing, set_ahead, told, until

pytestmark = pytest.mark.anyio

SHORT = 50 * MILLISECOND
SILENT = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
ACME, BROOK = "http://acme.example/", "http://brook.example/"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return set_ahead(monkeypatch)


def ours(outcome: Outcome) -> bool:
    """Whether a DNS failure counts as our own; its detail says so, and it never is in doubt."""
    assert outcome.reason is Reason.DNS
    assert not outcome.reason.ambiguous
    assert ("our own resolver" in str(outcome.detail)) == outcome.ours
    return outcome.ours


@pytest.mark.parametrize(
    "error",
    [
        SILENT,
        socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"),
        socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"),
        OSError(24, "Too many open files"),
    ],
    ids=["again", "fail", "memory", "system"],
)
async def test_a_resolver_without_an_answer_is_presumed_to_be_our_fault(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[error])
    async with calling() as caller:
        for _ in range(3):
            outcome = await caller.post(ACME)
            assert ours(outcome)
            assert f"acme.example: {error.strerror}" in str(outcome.detail)


async def test_that_no_thread_can_be_started_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with calling() as caller:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", full)
            assert ours(await caller.post(ACME))


@pytest.mark.parametrize(
    "answer", [UNKNOWN, socket.gaierror(-5, "No address associated with hostname"), [], ["nowhere"]]
)
async def test_an_answer_that_gives_no_address_is_the_operators_fault(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[answer])
    async with calling() as caller:
        for _ in range(2):
            assert not ours(await caller.post(ACME))


async def test_a_name_that_can_not_even_be_asked_for_is_not_our_resolvers_fault() -> None:
    async with calling() as caller:
        assert not ours(await caller.post(f"http://{'a' * 64}.example/"))


@pytest.mark.parametrize("answer", [["127.0.0.1"], UNKNOWN, []], ids=["an address", "no such name", "none of use"])
async def test_a_resolver_that_answers_for_another_name_meanwhile_is_not_at_fault(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[SILENT], brook=[answer])
    async with calling() as caller:
        assert ours(await caller.post(ACME))
        await caller.post(BROOK)
        for _ in range(2):
            assert not ours(await caller.post(ACME))


async def test_an_answer_from_before_it_began_to_fail_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, acme=[SILENT], brook=[["127.0.0.1"]])
    async with calling() as caller:
        await caller.post(BROOK)
        assert ours(await caller.post(ACME))
        # And neither does what is kept from then.
        await caller.post(BROOK)
        assert ours(await caller.post(ACME))
        assert asked.asked.count("brook.example") == 1


async def test_neither_a_numeric_host_nor_a_name_of_this_machines_own_proves_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, acme=[SILENT])
    async with playing(always(OK)) as (_, url), calling() as caller:
        assert ours(await caller.post(ACME))
        assert told(await caller.post(url)) == (200, b"ok", None)
        assert ours(await caller.post(ACME))
        caller.resolver._note_answer("localhost")
        assert ours(await caller.post(ACME))


async def test_another_name_that_fails_too_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, acme=[SILENT], brook=[SILENT])
    async with calling() as caller:
        for url in (ACME, BROOK, ACME, BROOK):
            assert ours(await caller.post(url))


async def test_an_answer_of_its_own_ends_a_names_failing(monkeypatch: pytest.MonkeyPatch, ahead: Ahead) -> None:
    names(monkeypatch, acme=[SILENT, UNKNOWN, SILENT, ["127.0.0.1"], SILENT], brook=[["127.0.0.1"]])
    async with playing(always(OK)) as (_, url), calling() as caller:
        assert ours(await caller.post(ACME))
        await caller.post(BROOK)
        assert not ours(await caller.post(ACME))
        # From here on it is a new failing, and nothing was answered since that began.
        assert ours(await caller.post(ACME))
        assert told(await caller.post(named(url))) == (200, b"ok", None)
        ahead.seconds += 31
        assert ours(await caller.post(ACME))


async def test_a_look_up_that_hangs_at_the_deadline_is_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = asyncio.Event()
    names(monkeypatch, acme=[hang], brook=[["127.0.0.1"]])
    async with calling() as caller:
        assert ours(await caller.post(ACME, SHORT))
        assert ours(await caller.post(ACME, SHORT))
        await caller.post(BROOK)
        outcome = await caller.post(ACME, SHORT)
        assert not ours(outcome)
        assert outcome.detail == "no whole answer within 0.05 s: the look-up of its name hangs"
        hang.set()


async def test_an_answer_that_comes_while_an_attempt_waits_does_not_prove_that_its_look_up_should_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The resolver came back while this attempt waited: what it lost its time to was ours."""
    hang = asyncio.Event()
    names(monkeypatch, acme=[hang], brook=[["127.0.0.1"]])
    async with calling() as caller:
        assert ours(await caller.post(ACME, SHORT))
        waiting = asyncio.create_task(caller.post(ACME, 4 * SHORT))
        await asyncio.sleep(0)
        await caller.post(BROOK)
        assert ours(await waiting)
        hang.set()


async def test_a_look_up_that_hangs_is_not_asked_again_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    hang = asyncio.Event()
    asked = names(monkeypatch, acme=[hang])
    async with calling() as caller:
        for _ in range(3):
            await caller.post(ACME, SHORT)
            ahead.seconds += 31
        assert asked.asked == ["acme.example"]
        hang.set()
        assert not ours(await caller.post(ACME))


async def test_a_failed_look_up_that_nobody_waits_for_is_not_reported_as_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    hang = asyncio.Event()
    names(monkeypatch, acme=[hang])
    resolver = Resolver()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT / 1_000_000):
            await resolver.addresses("acme.example")
    (_, lookup) = resolver._kept.pop("acme.example")
    hang.set()
    await until(lookup.done)
    del resolver, lookup
    await asyncio.sleep(0)
    assert not reported


async def test_to_reach_an_operator_is_bounded_while_its_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.wire.transport.REACH_DNS_SECONDS", 0.05)
    hang = asyncio.Event()
    names(monkeypatch, acme=[hang])
    async with calling() as caller:
        found = await reach(caller.transport, ACME)
        assert found == "dns (acme.example: no answer to the look-up within 0.05 s)"
        hang.set()


# The threads.


class Stuck:
    """A getaddrinfo that hangs for every name but those that end in `.free`, until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if not host.endswith(".free"):
            assert self.go.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    given = Stuck()
    monkeypatch.setattr(socket, "getaddrinfo", given)
    yield given
    given.go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("look-up "):
            thread.join(PATIENCE)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("look-up ")]


def asked_for(resolver: Resolver, count: int) -> "list[asyncio.Task[tuple[Any, float]]]":
    """Look-ups of so many names that hang."""
    return [asyncio.create_task(resolver.addresses(f"{n}.stuck")) for n in range(count)]


async def answered(resolver: Resolver) -> None:
    """Forty names that don't hang are looked up, one after the other."""
    for n in range(40):
        addresses, _ = await asyncio.wait_for(resolver.addresses(f"{n}.free"), PATIENCE)
        assert [str(one) for one in addresses] == ["127.0.0.1"]


async def test_look_ups_that_hang_take_a_bounded_number_of_threads_and_none_of_the_loops_own(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.wire.resolver.HANGS_SECONDS", 0.01)
    resolver, most = Resolver(), MAX_LOOK_UPS + MAX_HANGING
    waiting = asked_for(resolver, most + 2 * MAX_LOOK_UPS)
    await until(lambda: len(stuck.asked) == most)
    # They don't hold up the end of the program, nor whoever else wants a thread.
    assert all(thread.daemon for thread in threads())
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), PATIENCE) == "free"
    await asyncio.sleep(0.05)
    assert (len(stuck.asked), len(threads())) == (most, most)
    stuck.go.set()
    found = await asyncio.gather(*waiting)
    assert {str(address) for addresses, _ in found for address in addresses} == {"127.0.0.1"}
    assert len(stuck.asked) == len(waiting)


async def test_names_that_hang_hold_up_no_look_up_of_the_others(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.wire.resolver.HANGS_SECONDS", 0.05)
    resolver = Resolver()
    waiting = asked_for(resolver, MAX_HANGING)
    await answered(resolver)
    assert not any(one.done() for one in waiting)
    stuck.go.set()
    await asyncio.gather(*waiting)


async def test_names_that_hung_before_never_take_the_places_of_the_others(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    monkeypatch.setattr("dispatcher.wire.resolver.HANGS_SECONDS", 0.01)
    resolver, most = Resolver(), MAX_HANGING + MAX_LOOK_UPS
    waiting = asked_for(resolver, most)
    await until(lambda: len(resolver._hung) == most)
    stuck.go.set()
    await asyncio.gather(*waiting)
    # They hang again, and nothing that hangs gives up its place any more.
    monkeypatch.setattr("dispatcher.wire.resolver.HANGS_SECONDS", 60)
    stuck.go.clear()
    ahead.seconds += 31
    before, waiting = len(stuck.asked), asked_for(resolver, most)
    await until(lambda: len(stuck.asked) == before + MAX_HANGING)
    await answered(resolver)
    assert not any(one.done() for one in waiting)
    stuck.go.set()
    await asyncio.gather(*waiting)
    # Answered promptly, they are like any other.
    assert not resolver._hung


def test_a_look_up_that_ends_after_its_loop_is_no_error(stuck: Stuck) -> None:
    async def gives_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT / 1_000_000):
                await ask("a.stuck")

    asyncio.run(gives_up())
    # The fixture lets it go and waits for it; an error in a thread would fail this test.


async def test_names_are_really_looked_up() -> None:
    found, _ = await Resolver().addresses("localhost")
    assert {str(address) for address in found} <= {"127.0.0.1", "::1"}
