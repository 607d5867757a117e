"""Whole stories: the daemon and the operator as processes, SQLite on disk, HTTP between them, faults in the way."""

import os
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import nursery
from tests.ground import IV, line
from tests.story import Story, moment, orders, until

QUICKLY = {"delays": ["200ms", "200ms", "200ms"]}
ONE = orders(1)[0]
KEY = str(ONE["order_no"])


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        yield story


def never_early(attempts: list[dict[str, Any]], seconds: float) -> bool:
    """Each attempt began at least so long after the end of the one before; times are shown in whole milliseconds."""
    ends = [moment(one["started_at"]) + one["duration_ms"] / 1000 for one in attempts]
    begins = [moment(one["started_at"]) for one in attempts[1:]]
    return all(begin - end >= seconds - 0.002 for begin, end in zip(begins, ends[:-1], strict=True))


# The main road


def test_every_order_of_a_file_is_booked_and_the_log_says_delivered(story: Story) -> None:
    events = orders(200)
    with story.receiving() as receiver, story.running():
        done = story.call("enqueue", story.file(events))
        assert (done.status, done.out) == (0, "accepted 200, duplicate 0, conflict 0, invalid 0\n")
        until(lambda: story.all_are("delivered"))
        assert receiver.booked() == {event["order_no"]: 1 for event in events}
    log = story.call("log", "--json", "--limit", 1000)
    assert log.status == 0
    assert Counter((row["status"], row["attempts"], row["reason"]) for row in log.rows()) == {
        ("delivered", 1, None): 200
    }
    assert {row["key"] for row in log.rows()} == {event["order_no"] for event in events}
    story.prove()


def test_what_a_slow_producer_writes_is_delivered_before_it_writes_more(story: Story) -> None:
    with (
        story.receiving() as receiver,
        story.running(),
        nursery.start(story.line("enqueue", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer,
    ):
        assert producer.stdin
        for event in orders(3):
            producer.stdin.write(line(event).encode() + b"\n")
            producer.stdin.flush()
            until(lambda number=event["order_no"]: receiver.booked().get(number) == 1)  # type: ignore[misc]  # mypy can't infer a lambda's default
        out, _ = producer.communicate(timeout=60)
        assert (producer.returncode, out) == (0, b"accepted 3, duplicate 0, conflict 0, invalid 0\n")


def test_an_idle_daemon_hears_of_another_process_s_events_at_once(story: Story) -> None:
    waits = []
    with story.receiving(), story.running():
        for event in orders(5):
            story.enqueue([event])
            until(lambda: story.all_are("delivered"))
            shown = story.show(event["order_no"])
            waits.append(moment(shown["attempts"][0]["started_at"]) - moment(shown["accepted_at"]))
    # The daemon's own look round comes every five seconds; slow ones on a busy machine are no fault.
    assert statistics.median(waits) < 0.5, waits


def test_an_idle_daemon_uses_next_to_no_processor_time(story: Story) -> None:
    def used(process: int) -> float:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with story.receiving(), story.running() as daemon:
        story.enqueue(orders(1))
        until(lambda: story.all_are("delivered"))
        before = used(daemon.process.pid)
        time.sleep(3)  # the span that is measured
        assert used(daemon.process.pid) - before < 3 * 0.03


def test_the_daemon_answers_that_it_lives_and_works(story: Story) -> None:
    with story.running() as daemon:
        assert until(lambda: daemon.get("/healthz")).json() == {"status": "alive"}
        ready = daemon.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready"), ready.text


# Failures, and what a person does about them


def test_two_failures_are_retried_after_their_delays_and_never_early(story: Story) -> None:
    with story.receiving("--fail-first", "2") as receiver, story.running():
        story.enqueue([ONE])
        until(lambda: story.all_are("delivered"))
        assert receiver.booked() == {KEY: 1}
    shown = story.show(KEY)
    assert [(one["n"], one["trigger"], one["http_status"], one["reason"]) for one in shown["attempts"]] == [
        (1, "first", 500, "http_status"),
        (2, "retry", 500, "http_status"),
        (3, "retry", 200, None),
    ]
    assert never_early(shown["attempts"], 1), shown["attempts"]


def test_four_failures_make_a_dead_letter_and_its_replay_delivers_and_rewrites_nothing(story: Story) -> None:
    story.set(retry=QUICKLY)
    with story.running() as daemon:
        with story.receiving("--status", "503"):
            story.enqueue([ONE])
            until(lambda: story.all_are("dead"))
        dead, attempts = story.show(KEY), story.content()["attempts"]
        assert [one["n"] for one in dead["attempts"]] == [1, 2, 3, 4]
        assert never_early(dead["attempts"], 0.2), dead["attempts"]
        assert (dead["reason"], dead["ambiguous"], dead["due_at"]) == ("http_status", False, None)
        assert [row["key"] for row in story.call("dead", "list", "--json").rows()] == [KEY]

        with story.receiving() as receiver:
            done = story.call("dead", "replay", "acme", KEY)
            assert (done.status, done.out) == (0, "replayed: 1\n")
            until(lambda: story.all_are("delivered"))
            assert receiver.booked() == {KEY: 1}
        assert daemon.process.poll() is None
    replayed = story.show(KEY)
    assert [(one["n"], one["trigger"]) for one in replayed["attempts"][4:]] == [(5, "replay")]
    assert replayed["attempts"][:4] == dead["attempts"]
    assert story.content()["attempts"][:4] == attempts
    assert [action["verb"] for action in replayed["actions"]] == ["replay"]
    assert replayed["accepted_at"] == dead["accepted_at"]
    story.prove()


def test_a_replay_that_fails_again_has_the_whole_schedule_before_it(story: Story) -> None:
    story.set(retry={"delays": ["100ms"]})
    with story.running():
        story.enqueue([ONE])
        until(lambda: story.all_are("dead"))
        assert story.call("dead", "replay", "acme", KEY).status == 0
        until(lambda: len(story.query("SELECT n FROM attempts")) == 4 and story.all_are("dead"))
    assert [one["trigger"] for one in story.show(KEY)["attempts"]] == ["first", "retry", "replay", "retry"]
    story.prove()


def test_one_operator_that_hangs_does_not_hold_up_another(story: Story) -> None:
    story.set(total_timeout="55s", concurrency=8)
    story.add_operator("swift", concurrency=8)
    with story.receiving("--hang"), story.receiving(operator="swift") as receiver, story.running() as daemon:
        both = [event for pair in zip(orders(50), orders(50, operator="swift"), strict=True) for event in pair]
        story.enqueue(both)
        until(lambda: story.all_are("delivered", "swift"))
        assert story.query("SELECT count(*) FROM attempts") == [(50,)], "the first that hangs is not given up yet"
        assert len(receiver.booked()) == 50
        daemon.kill()


# The daemon's own end


def test_after_kill_9_every_cut_attempt_is_recorded_as_doubtful_and_nothing_is_lost_or_booked_twice(
    story: Story,
) -> None:
    story.set(concurrency=8)
    events = orders(20)
    # Long enough for all of them to be under way, and for the kill to come, on a busy machine.
    with story.receiving("--delay", "3s", "--book-first", "--fail-first", "1") as receiver:
        with story.running() as daemon:
            story.enqueue(events)
            until(lambda: receiver.requests() == 8 and story.statuses()["sending"] == 8)
            daemon.kill()
        assert story.statuses() == {"sending": 8, "pending": 12}
        assert story.query("SELECT count(*) FROM attempts") == [(0,)]
        story.prove()
        with story.running() as daemon:
            until(lambda: story.all_are("delivered"), told=daemon.text)
            assert [one["count"] for one in until(lambda: daemon.told("claims_rescued"))] == [8]
        assert sorted(receiver.booked().items()) == sorted(
            (event["order_no"], 2 if n < 8 else 1) for n, event in enumerate(events)
        )
    log = story.call("log", "--json").rows()
    assert len(log) == 20
    cut = [row["key"] for row in log if row["attempts"] == 2]
    assert len(cut) == 8
    first, second = story.show(cut[0])["attempts"]
    assert (first["n"], first["reason"], first["ambiguous"]) == (1, "interrupted", True)
    assert (first["http_status"], first["duration_ms"], first["response"]) == (None, None, None)
    assert (second["n"], second["http_status"], second["reason"]) == (2, 200, None)
    assert not any(row["ambiguous"] for row in log), "delivered is no longer doubtful"
    story.prove()


def test_sigterm_ends_what_is_in_flight_and_claims_nothing_more(story: Story) -> None:
    story.set(concurrency=5)
    with story.receiving("--delay", "3s") as receiver, story.running() as daemon:
        story.enqueue(orders(20))
        until(lambda: receiver.requests() == 5)
        daemon.stop()
        assert receiver.requests() == 5
        assert daemon.told("stopping")[0]["in_flight"] == 5
        assert daemon.told("stopped")
        assert story.statuses() == {"delivered": 5, "pending": 15}
        assert story.query("SELECT max(attempts) FROM deliveries WHERE status = 'pending'") == [(0,)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_stops_at_once(story: Story, number: signal.Signals) -> None:
    with story.running() as daemon:
        daemon.signal(number)
        assert daemon.ended() == 0
        # By its own account: it waits neither for the next look nor for a beat.
        (stopping,), (stopped,) = daemon.told("stopping"), daemon.told("stopped")
        assert moment(stopped["timestamp"]) - moment(stopping["timestamp"]) < 3
    assert story.statuses() == {}


def test_one_file_has_one_worker_and_the_second_is_told_which_process_it_is(story: Story) -> None:
    with story.running() as first:
        second = story.call("run")
        assert (second.status, second.out) == (1, "")
        assert f"Error: process {first.process.pid} already runs a worker on this database" in second.err
        assert first.process.poll() is None
        first.kill()
        with story.running() as third:
            assert third.told("running")


def test_a_taken_port_is_named_and_the_database_is_free_again(story: Story) -> None:
    host, _, port = story.tables["web"]["listen"].partition(":")
    with socket.create_server((host, int(port))):
        done = story.call("run")
    assert (done.status, done.out) == (1, "")
    assert f"Error: web.listen: {host}:{port} can't be used (Address already in use)" in done.err
    with story.running() as daemon:
        assert daemon.told("running")


# A reload


@pytest.mark.parametrize(
    "settings", [{"crypto": {"key": "fedcba9876543210", "iv": IV}}, {"token": "another-token"}], ids=["key", "token"]
)
def test_sighup_puts_a_new_secret_in_force_for_the_next_attempt(story: Story, settings: dict[str, Any]) -> None:
    story.set(retry=QUICKLY | {"delays": ["200ms"] * 20})
    with story.running() as daemon:
        story.set(**settings)
        with story.receiving() as receiver:
            story.enqueue([ONE])
            until(lambda: story.query("SELECT n FROM attempts"))
            assert receiver.booked() == {}
            daemon.signal(signal.SIGHUP)
            until(lambda: story.all_are("delivered"), told=daemon.text)
            assert receiver.booked() == {KEY: 1}
        until(lambda: daemon.told("reloaded"))
        assert "fedcba9876543210" not in daemon.text()
        assert "another-token" not in daemon.text()
    attempts = story.show(KEY)["attempts"]
    assert {one["http_status"] for one in attempts[:-1]} == {400 if "crypto" in settings else 401}
    versions = (attempts[0]["key_version"], attempts[-1]["key_version"])
    assert versions == ((1, 2) if "crypto" in settings else (1, 1))


def test_sighup_widens_an_operator_while_its_attempts_are_in_flight(story: Story) -> None:
    story.set(concurrency=1)
    with story.receiving("--hang") as receiver, story.running() as daemon:
        story.enqueue(orders(5))
        until(lambda: receiver.requests() == 1)
        story.set(concurrency=4)
        daemon.signal(signal.SIGHUP)
        until(lambda: story.statuses()["sending"] == 4)
        until(lambda: receiver.requests() == 4)
        daemon.kill()


def test_a_faulty_file_is_refused_with_its_faults_and_the_old_one_stays_in_force(story: Story) -> None:
    with story.receiving() as receiver, story.running() as daemon:
        story.set(concurrency="many", tokn="x")
        daemon.signal(signal.SIGHUP)
        refused = until(lambda: daemon.told("reload_refused"))[0]
        assert [fault.split(":")[0] for fault in refused["faults"]] == [
            "operators.acme.tokn",
            "operators.acme.concurrency",
        ]
        # `enqueue` refuses the faulty file too; what it accepts by another one goes to the same database.
        del story.operators["acme"]["tokn"]
        story.operators["acme"]["concurrency"] = 4
        story.config = story.write(story.folder / "good.toml")
        story.enqueue([ONE])
        until(lambda: story.all_are("delivered"))
        assert receiver.booked() == {KEY: 1}
        assert daemon.process.poll() is None


def test_a_file_that_is_gone_at_sighup_is_refused_as_well(story: Story) -> None:
    with story.running() as daemon:
        story.config.unlink()
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.told("reload_refused"))
        assert until(lambda: daemon.get("/readyz")).status_code == 200


# The store is away


def test_a_full_disk_loses_no_result_and_is_told_at_readyz_until_there_is_room_again(story: Story) -> None:
    with story.receiving("--delay", "3s") as receiver, story.running() as daemon:
        story.enqueue(orders(5))
        until(lambda: receiver.requests() == 5)
        _, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        told = until(lambda: daemon.told("store_unavailable"))[0]
        assert (told["held"], str(story.database) in told["error"]) == (5, True)
        ready = daemon.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        assert str(story.database) in ready.json()["database"]
        assert daemon.get("/healthz").status_code == 200
        assert story.all_are("sending")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: story.all_are("delivered"), told=daemon.text)
        until(lambda: daemon.get("/readyz").status_code == 200)
        assert set(receiver.booked().values()) == {1}
    assert story.query("SELECT max(attempts), count(*) FROM deliveries") == [(1, 5)]
    story.prove()


def test_a_lock_held_by_another_process_is_waited_for_and_nothing_is_lost(story: Story) -> None:
    with story.receiving("--delay", "3s") as receiver, story.running() as daemon:
        story.enqueue(orders(5))
        until(lambda: receiver.requests() == 5)
        with closing(sqlite3.connect(story.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            until(lambda: len(receiver.booked()) == 5)
            time.sleep(0.5)  # the lock is held while the results are there to be written
            assert story.all_are("sending")
            assert daemon.get("/healthz").status_code == 200
            other.execute("ROLLBACK")
        until(lambda: story.all_are("delivered"), told=daemon.text)
        assert set(receiver.booked().values()) == {1}
    assert story.query("SELECT max(attempts) FROM deliveries") == [(1,)]
