"""One real daemon among two hundred operators that do their worst, and two that are well: those get all of theirs."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from ssl import SSLContext
from threading import Thread
from typing import Any, Self, TypeVar

import pytest

from dispatcher.ground.policy import Reason
from tests.authority import Authority
from tests.behaviours import BEHAVIOURS, HEAD, RULE, YES, answer
from tests.hostile import Act, Peer, always, bound, endless, held, playing
from tests.nursery import COMMAND
from tests.odd_names import HANGS, UNKNOWN
from tests.story import PATIENCE, Story, orders, until

T = TypeVar("T")

# Whatever ends by itself has time, however busy the machine is.
ONCE = {"retry": {"delays": []}, "total_timeout": "50s", "connect_timeout": "40s", "concurrency": 64}
BRIEF = {"total_timeout": "2s", "connect_timeout": "2s"}
FOR_EVER = {"every": "1s", "for": "1h"}
WELL = ("well-a", "well-b")
EACH_WELL = 200
HANGING = 40
BOMBS = 32
# What the daemon may grow by while all of them do their worst; without bounds each bomb alone would be gigabytes.
MOST_MIB = 96


class Edge:
    """Operators in a thread of their own, on real sockets."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._open = AsyncExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._open.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def url(self, act: Act, context: SSLContext | None = None) -> str:
        """Where an operator with this act listens from now on."""
        return self._do(self._open.enter_async_context(playing(act, context)))[1]

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


class OddStory(Story):
    """A story on a machine that answers oddly for names (tests/odd_names.py)."""

    def line(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "tests.odd_names", *super().line(*words)[len(COMMAND) :]]


@pytest.fixture
def story(tmp_path: Path) -> Iterator[OddStory]:
    with OddStory(tmp_path) as story:
        yield story


def by_path(acts: Mapping[str, Act]) -> Act:
    """The act that the request's path names; what follows on the connection belongs to it."""

    async def act(peer: Peer) -> None:
        head = await peer.reader.readuntil(b"\r\n")
        asked = re.match(rb"POST /([^ ]+) HTTP/1.1", head)
        assert asked
        await acts[asked[1].decode()](peer)

    return act


def memory(process: int, which: str) -> float:
    """`VmHWM`: the most that was ever resident, `VmRSS`: what is now (MiB)."""
    line = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert line
    return int(line[1]) / 1024


def found(story: Story, operators: Mapping[str, str | None]) -> dict[str, tuple[str, str | None, bool]]:
    """What became of the one delivery of each of these operators: its status, why it failed, whether in doubt."""
    rows = story.query(
        "SELECT operator, deliveries.status, attempts.reason, deliveries.ambiguous FROM deliveries"
        " JOIN attempts ON delivery_id = deliveries.id"
    )
    return {name: (status, reason, bool(doubt)) for name, status, reason, doubt in rows if name in operators}


def expected(reason: str | None) -> tuple[str, str | None, bool]:
    return "delivered" if reason is None else "dead", reason, reason in ("read_timeout", "reset")


def add(story: Story, name: str, url: str, **settings: Any) -> None:
    success = {"field": RULE.field[0], "values": list(RULE.values)}
    story.operators[name] = {**story.operators["acme"], **ONCE, "success": success, **settings, "notice_url": url}


def add_each_behaviour(story: Story, edge: Edge, authority: Authority) -> dict[str, str | None]:
    """One operator for each, every fifth behind TLS; the reason by its name."""
    acts = {str(n): behaviour.act for n, behaviour in enumerate(BEHAVIOURS.values())}
    plain, encrypted = edge.url(by_path(acts)), edge.url(by_path(acts), authority.context())
    ends: dict[str, str | None] = {}
    for n, (name, behaviour) in enumerate(BEHAVIOURS.items()):
        settings: dict[str, Any] = {"tls": {"ca_file": str(authority.trusted)}} if n % 5 == 0 else {}
        if behaviour.reason is Reason.READ_TIMEOUT:
            settings |= dict.fromkeys(("total_timeout", "connect_timeout"), "5s" if settings else "2s")
        known = f"h{n}-{re.sub('[^a-z0-9]+', '-', name.lower())[:40]}"
        ends[known] = behaviour.reason
        add(story, known, (encrypted if n % 5 == 0 else plain).replace("Demo/notice", str(n)), **settings)
    return ends


def add_those_never_reached(story: Story, edge: Edge, authority: Authority, deaf: str) -> dict[str, str | None]:
    """By their certificates, their port, their names; the reason by each one's name."""
    ends: dict[str, str | None] = {"deaf": "connect_refused", "name-unknown": "dns", "name-empty": "dns"}
    add(story, "deaf", deaf)
    add(story, "name-unknown", f"http://a{UNKNOWN}/")
    add(story, "name-empty", "http://a.empty.example/")
    for name, context in {
        "expired": authority.context(days=-1),
        "self-signed": authority.context(signed=False),
        "another-host": authority.context(addresses=["127.0.0.2"]),
    }.items():
        ends[name] = "tls"
        add(story, name, edge.url(held(answer(YES)), context), tls={"ca_file": str(authority.trusted)})
    for kind in ("private", "both", "metadata", "mapped"):
        ends[f"name-{kind}"] = "blocked_address"
        add(story, f"name-{kind}", f"http://a.{kind}.example/")
    return ends


def test_two_hundred_hostile_operators_harm_neither_the_memory_nor_the_two_that_are_well(
    story: OddStory, tmp_path: Path
) -> None:
    authority, (deaf,) = Authority(tmp_path), bound("127.0.0.1")
    with Edge() as edge:
        ends = add_each_behaviour(story, edge, authority)
        ends |= add_those_never_reached(story, edge, authority, f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        for n in range(HANGING):
            add(story, f"hangs{n}", f"http://a{n}{HANGS}/", **BRIEF)
        add(story, "bombs", edge.url(endless(HEAD + b"\r\n", b"a" * 65_536)))
        add(story, "holds", edge.url(held()), retry=FOR_EVER, **BRIEF)
        for name in WELL:
            add(story, name, edge.url(always(answer(YES))).replace("127.0.0.1", f"{name}.well.example"))
        story.write()
        with story.running() as daemon:
            at_rest = memory(daemon.process.pid, "VmRSS")
            counts = dict.fromkeys([*ends, *(f"hangs{n}" for n in range(HANGING))], 1) | {"holds": 600, "bombs": BOMBS}
            story.enqueue([event for name, count in counts.items() for event in orders(count, operator=name)])
            story.enqueue([event for name in WELL for event in orders(EACH_WELL, operator=name)])
            until(lambda: all(story.all_are("delivered", name) for name in WELL))
            until(lambda: story.all_are("dead", "bombs") and len(found(story, ends)) == len(ends))
            peak = memory(daemon.process.pid, "VmHWM")
            made = story.query("SELECT operator, attempts FROM deliveries WHERE operator LIKE 'well-%'")
            assert Counter(made) == {(name, 1): EACH_WELL for name in WELL}
            assert daemon.get("/healthz").status_code == 200
    deaf.close()
    assert peak - at_rest < MOST_MIB, f"at rest {at_rest:.0f} MiB, at most {peak:.0f} MiB"
    assert found(story, ends) == {name: expected(reason) for name, reason in ends.items()}
    assert "attempt_broke" not in daemon.text()
