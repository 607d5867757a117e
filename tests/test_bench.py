"""The benchmark's own parts: a sink that does as it is told, equal work for all, a page that forgets nothing."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from bench import loader
from bench.deadline import Failed, Missing, deadline
from bench.ground import Kind, ground
from bench.loader import Capacity
from bench.orders import FAST, orders
from bench.ours import contender
from bench.page import TEMPLATE, marks, page, table
from bench.part import Column, Part
from bench.parts import PARTS
from bench.parts.throughput import Drained, Rounds, check_work
from bench.peers import environment, job
from bench.processes import Workers, running
from bench.results import Cell, Results, Row, Stamp, Stamped, attempted
from bench.sink import NO, UNFRAMED, YES, Tally
from bench.stats import Counted, sink
from tests.story import until

THEN = Stamp("2026-01-01", "aaaaaaa", "an old machine")
NOW = Stamp("2026-02-02", "bbbbbbb", "a new machine")


def request(path: str = "/fast", body: bytes = b"x" * 20, length: str = "Content-Length") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: here\r\n{length}: {len(body)}\r\n\r\n".encode() + body


def order(number: int, path: str = "/fast", colon: str = ":") -> bytes:
    return request(path, f'{{"order_no"{colon}"{number:019d}","data":"x"}}'.encode())


class Client:
    """One connection to the sink."""

    def __init__(self, counted: Counted) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(counted.url.rpartition(":")[2])), timeout=60)
        self._come = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answered(self, *answers: bytes) -> bool:
        """Whether exactly these come next."""
        wanted = b"".join(answers)
        while len(self._come) < len(wanted):
            data = self.socket.recv(65536)
            if not data:
                return False
            self._come += data
        got, self._come = self._come[: len(wanted)], self._come[len(wanted) :]
        return got == wanted

    def ask(self, data: bytes) -> bool:
        self.send(data)
        return self.answered(YES)


@pytest.fixture(scope="module")
def counted() -> Iterator[Counted]:
    """One sink for what needs no options beyond a slow path and a silent one."""
    with sink("--delay", "/slow=0.2", "--delay", "/hang=never") as running:
        yield running


def one(counted: Counted, path: str) -> Tally:
    (tally,) = counted.tallies(path)
    return tally


# The sink.


def test_a_request_that_comes_byte_by_byte_is_answered_once(counted: Counted) -> None:
    client = Client(counted)
    with closing(client.socket):
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = request("/split")
        for number in range(len(data) - 1):
            client.send(data[number : number + 1])
        assert not sum(tally.received for tally in counted.tallies("/split"))
        client.send(data[-1:])
        assert client.answered(YES)
        assert one(counted, "/split").received == 1
        assert one(counted, "/split").octets == 20


def test_requests_in_one_write_are_all_answered_the_cut_one_when_the_rest_has_come(counted: Counted) -> None:
    client = Client(counted)
    with closing(client.socket):
        last = request("/piped", b"y" * 30, "content-length")
        client.send(request("/piped") * 400 + last[:-7])
        assert client.answered(*[YES] * 400)
        assert one(counted, "/piped").received == 400
        client.send(last[-7:])
        assert client.answered(YES)
    assert one(counted, "/piped").received == 401
    assert one(counted, "/piped").octets == 400 * 20 + 30


def test_connections_beside_each_other_get_their_own_answers(counted: Counted) -> None:
    with ExitStack() as stack:
        clients = [Client(counted) for _ in range(50)]
        for client in clients:
            stack.enter_context(closing(client.socket))
            client.send(request("/beside/1")[:30])
        for client in clients:
            client.send(request("/beside/1")[30:] + request("/beside/2"))
        assert all(client.answered(YES, YES) for client in clients)
    assert [tally.answered for tally in counted.tallies("/beside")] == [50, 50]


def test_a_slow_path_holds_up_its_own_connection_and_no_other(counted: Counted) -> None:
    slow, fast = Client(counted), Client(counted)
    with closing(slow.socket), closing(fast.socket):
        slow.send(request("/slow/1") + request("/after"))
        assert fast.ask(request("/before"))
        slow.send(request("/after"))
        assert fast.ask(request("/before"))
        assert not counted.tallies("/after")
        assert slow.answered(YES, YES, YES)
    tally = one(counted, "/slow/1")
    assert tally.answered_last - tally.first >= 0.2
    assert one(counted, "/after").last >= tally.answered_last


def test_what_is_never_answered_was_received(counted: Counted) -> None:
    client, other = Client(counted), Client(counted)
    with closing(client.socket), closing(other.socket):
        client.send(request("/hang") * 2)
        assert other.ask(request("/meanwhile"))
        while not counted.tallies("/hang"):
            pass
        # The second one waits behind the first.
        assert (one(counted, "/hang").received, one(counted, "/hang").answered) == (1, 0)


def test_an_answer_that_nobody_waits_for_any_more_was_not_given(counted: Counted) -> None:
    gone, client = Client(counted), Client(counted)
    with closing(client.socket):
        gone.send(request("/slow/gone"))
        while not counted.tallies("/slow/gone"):
            pass
        gone.socket.close()
        # Asked after it was, and as slow: when this is answered, that would have been.
        assert client.ask(request("/slow/there"))
    assert (one(counted, "/slow/gone").received, one(counted, "/slow/gone").answered) == (1, 0)


def test_a_body_of_unknown_length_is_refused(counted: Counted) -> None:
    client = Client(counted)
    with closing(client.socket):
        client.send(b"POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert client.answered(UNFRAMED)
    assert not counted.tallies("/chunked")


def test_orders_are_told_apart_and_the_first_time_each_is_refused() -> None:
    with sink("--by-order", "--fail-first") as counted:
        client = Client(counted)
        with closing(client.socket):
            client.send(order(1) + order(2))
            assert client.answered(NO, NO)
            client.send(order(1) + order(1, colon=": ") + order(2) + order(3))
            assert client.answered(YES, YES, YES, NO)
        tally = one(counted, "/fast")
    assert (tally.received, tally.answered, tally.orders, tally.again) == (6, 3, 2, 1)


def test_a_sink_that_would_be_what_is_measured_stops_the_run() -> None:
    found = loader.capacity(0.1)
    assert found.single > 0
    assert found.pipelined > 0
    loader.check(Capacity(30_001, 1), 10_000)
    with pytest.raises(Failed, match="the quickest contender sends 10,000"):
        loader.check(Capacity(29_999, 1), 10_000)


# Equal work.


def test_the_dispatcher_sends_what_the_peers_send() -> None:
    """As many bytes, to the last one, as `job.body` makes of the same orders."""
    whole = contender(Kind.SQLITE)
    with ground() as place, sink() as counted, whole.open(place, counted.url, whole.slots, (FAST,)) as stand:
        stand.fill(orders(100))
        with running(stand.start()) as workers:
            counted.until(100, workers)
        check_work(counted, 100)
        with pytest.raises(Failed, match="100 requests of"):
            check_work(counted, 101)


def test_both_languages_of_the_peers_have_the_same_keys_and_headers() -> None:
    script = (environment.HERE / "job.mjs").read_text("utf-8")
    for text in (job.KEY.decode(), job.IV.decode(), job.HEADERS["Authorization"], job.HEADERS["Content-Type"]):
        assert f'"{text}"' in script


def test_every_peer_is_pinned_and_no_host_is_named() -> None:
    files = [*(environment.HERE / "requirements").iterdir(), environment.HERE / "package.json"]
    lines = [line for path in files if path.suffix == ".txt" for line in path.read_text("utf-8").split()]
    assert all(re.fullmatch(r"[\w-]+(\[\w+\])?==[\d.]+", line) for line in lines), lines
    wanted = json.loads(files[-1].read_text("utf-8"))["dependencies"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values()), wanted
    assert not [path for path in files if "://" in path.read_text("utf-8")]


# Failures have names.


def test_what_takes_too_long_is_named_and_the_alarm_is_off_afterwards() -> None:
    def wait() -> dict[str, Cell]:
        signal.pause()
        return {}

    assert attempted("a peer", 0.01, wait) == Row("a peer", fault="failed: not done after 0.01 s")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with deadline(60):
        assert signal.getitimer(signal.ITIMER_REAL) > (0.0, 0.0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_missing_is_skipped_and_what_breaks_is_named() -> None:
    assert attempted_with(Missing("no redis-server")).fault == "skipped: no redis-server"
    assert attempted_with(KeyError("x")).fault == "failed: KeyError: 'x'"


def attempted_with(error: Exception) -> Row:
    def fail() -> dict[str, Cell]:
        raise error

    return attempted("a peer", 60, fail)


def test_who_failed_once_is_named_and_the_others_are_compared_round_by_round() -> None:
    rounds, turn = Rounds(), iter((100.0, 50.0, 200.0, 300.0, 400.0, 100.0))

    def fail() -> Drained:
        raise Missing("no node")

    for _ in range(3):
        rounds.take("dispatcher (SQLite)", lambda: Drained(next(turn), 1, 1, 0.1))
        rounds.take("BullMQ", lambda: Drained(next(turn), 1, 1, 0.1))
        rounds.take("awa", fail)
    assert rounds.row("BullMQ").cells["sqlite"] == 0.5
    assert rounds.row("BullMQ").cells["rate"] == 100.0
    assert rounds.row("awa", jobs=1.0) == Row("awa", {"jobs": 1.0}, "skipped: no node")


def test_a_worker_that_ended_is_told_by_its_last_words_and_children_go_with_their_parent(tmp_path: Path) -> None:
    ended = Workers(["sh", "-c", "echo no such database; exit 3"], tmp_path / "ended.log")
    with pytest.raises(Failed, match="status 3: no such database"):
        ended.wait()
    parent = Workers(["sh", "-c", "sleep 600 & echo ready; wait"], tmp_path / "parent.log")
    while not (tmp_path / "parent.log").read_text():
        parent.check()
    assert parent.resident_bytes() > 0
    parent.kill()
    until(lambda: parent.resident_bytes() == 0)


# The page.


def test_the_page_has_a_place_for_every_part() -> None:
    assert sorted(marks()) == sorted(part.name for part in PARTS)
    assert TEMPLATE.read_text("utf-8").startswith("# Benchmarks\n")


def test_a_run_of_one_part_keeps_what_others_brought_and_when(tmp_path: Path) -> None:
    before = Results(tmp_path / "results.json")
    before.put("peers", Row("BullMQ", {"rate": 15_500.0}), THEN)
    before.put("peers", Row("gone", {"rate": 1.0}), THEN)
    before.put("latency", Row("accepted", {"p50": 5.0}), THEN)
    before.save()
    after = Results(tmp_path / "results.json")
    after.put("peers", Row("BullMQ", {"rate": 12_345.0}), NOW)
    after.put("peers", Row("awa", fault="skipped: no network"), NOW)
    after.keep_only("peers", ["BullMQ", "awa"])
    after.save()
    text = page(PARTS, Results(tmp_path / "results.json"))
    assert "12,345" in text
    assert "15,500" not in text
    assert "gone" not in text
    assert "| awa: skipped: no network |" in text
    assert "2026-02-02, commit bbbbbbb; a new machine" in text
    assert "2026-01-01, commit aaaaaaa; an old machine" in text
    assert "Not measured yet." in text


def test_rows_of_different_days_say_which_is_whose() -> None:
    rows = [Stamped(Row("old | row", {"rate": 1.25}), THEN), Stamped(Row("new row", {"rate": "n/a"}), NOW)]
    part = Part("p", "about", (Column("rate", "rate", "{:.1f}"), Column("none", "none")), lambda _: iter(()))
    assert table(part, rows).splitlines()[2:] == ["| old \\| row | 1.2 |  |", "| new row | n/a |  |"]
