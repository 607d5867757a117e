"""How things stand: every count by both stores, rates from the minutes, and a live view on a real terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from dispatcher.cli.figures import age_text
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.policy import Reason, Status
from dispatcher.stats import Flow, picture, since
from dispatcher.store import minutes
from dispatcher.store.counts import loads as counting
from dispatcher.store.counts.loads import Load, loads_of
from dispatcher.store.engine import Database
from dispatcher.store.minutes import Minute
from tests import nursery
from tests.ground import NOW
from tests.story import Story, orders, until
from tests.workshop import accept, failed, settle, settled, take

LATER = NOW + 7 * SECOND


def change(database: Database, told: str) -> None:
    with database.writing() as connection:
        connection.execute(text(told))


def minute(operator: str = "acme", result: str = "delivered", count: int = 1, at: int = NOW) -> Minute:
    reason = None if result == "delivered" else Reason.HTTP_STATUS.value
    return Minute(at, operator, "notice", result, reason, count, count * SECOND, count * 2 * SECOND)


@pytest.fixture
def filled(database: Database) -> Database:
    """Of acme one in each status, one due later and one behind another; of bolt one that is due."""
    accept(database, *range(1, 8), now=NOW)
    accept(database, 8, operator="bolt", now=NOW + SECOND)
    yes, no, held = take(database, NOW, 3)
    settle(database, settled(yes, NOW), failed(no, NOW))
    yes_word = "1" if database.engine.dialect.name == "sqlite" else "true"
    ended = f"due_at = NULL, finished_at = {NOW}"
    change(database, f"UPDATE deliveries SET status = 'dead', {ended} WHERE key = '5'")
    change(database, f"UPDATE deliveries SET status = 'resolved', {ended} WHERE key = '6'")
    behind = f"sequence = 's', in_line = {yes_word}, parked = {yes_word}"
    change(database, f"UPDATE deliveries SET {behind} WHERE key = '7'")
    assert held.key == "3"
    return database


@pytest.mark.each_store
def test_everything_is_counted_where_it_stands(filled: Database) -> None:
    assert loads_of(filled, LATER) == {
        "acme": Load(pending=2, due=1, oldest_due_at=NOW, parked=1, sending=1, dead=1, resolved=1, delivered=1),
        "bolt": Load(pending=1, due=1, oldest_due_at=NOW + SECOND, delivered=0),
    }


@pytest.mark.each_store
def test_what_is_delivered_is_counted_where_it_is_little_or_somebody_asks(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FEW", 7)
    assert {one.delivered for one in loads_of(filled, LATER).values()} == {None}
    assert picture(filled, LATER).total.load.delivered is None
    assert picture(filled, LATER, exact=True).total.load.delivered == 1


@pytest.mark.each_store
@pytest.mark.sqlite_only
def test_nothing_is_counted_by_walking_through_the_whole_table(filled: Database) -> None:
    statements = [counting._DUE, *counting._COUNTS.values(), counting._DELIVERED]
    with filled.reading() as connection:
        for statement in statements:
            told = str(statement.on(connection))
            plan = connection.execute(text(f"EXPLAIN QUERY PLAN {told}"), {"now": NOW}).all()
            walked = [row[3] for row in plan if row[3].startswith(("SCAN", "SEARCH"))]
            small = r"(due|held|dead|log_resolved|log_delivered)\b"
            assert all(re.search(f"INDEX {small}", step) for step in walked), walked
            assert walked


@pytest.mark.each_store
def test_the_picture_has_every_status_under_its_name(filled: Database) -> None:
    total = picture(filled, LATER).total.load._asdict()
    assert total.keys() >= {status.value for status in Status}
    assert {status.value: total[status] for status in Status} == {
        "pending": 3,
        "sending": 1,
        "delivered": 1,
        "dead": 1,
        "resolved": 1,
    }


@pytest.mark.each_store
def test_rates_are_those_of_the_last_minutes_and_the_hour_is_told_apart(filled: Database) -> None:
    lately = [minute(count=30), minute(result="retry", count=10), minute(result="dead", count=10)]
    long_ago = [minute(count=5, at=NOW - 10 * MINUTE), minute(count=1_000, at=NOW - 2 * HOUR)]
    minutes.add(filled, [*lately, *long_ago, minute("bolt", result="put_off", count=99)])
    now = NOW + MINUTE
    shown = picture(filled, now)
    acme = next(line for line in shown.lines if line.operator == "acme")
    assert acme.flow == Flow(240.0, 50, 30, 10, 50 * SECOND, 100 * SECOND)
    assert (acme.flow.share, acme.flow.answer, acme.flow.lateness) == (0.6, SECOND, 2 * SECOND)
    assert acme.delivered_hour == 35
    assert shown.reasons == {"http_status": 119}
    assert next(line for line in shown.lines if line.operator == "bolt").flow.attempts == 0
    assert shown.total.flow == acme.flow


@pytest.mark.each_store
def test_the_worst_stands_first_and_one_can_be_looked_at_alone(filled: Database) -> None:
    assert [line.operator for line in picture(filled, LATER).lines] == ["acme", "bolt"]
    change(filled, f"UPDATE deliveries SET due_at = {NOW - HOUR} WHERE operator = 'bolt'")
    shown = picture(filled, LATER)
    assert [line.operator for line in shown.lines] == ["bolt", "acme"]
    assert shown.lines[0].age(shown.at) == HOUR + 7 * SECOND
    alone = picture(filled, LATER, operator="acme")
    assert ([line.operator for line in alone.lines], alone.total.load.pending) == (["acme"], 2)


def test_what_was_added_since_the_last_look_is_the_difference() -> None:
    before = [minute(count=4), minute("bolt", count=2)]
    now = [minute(count=6), minute("bolt", count=2), minute("coin", count=1)]
    assert since(before, now) == [minute(count=2), minute("coin", count=1)]


@pytest.mark.parametrize(
    ("length", "told"), [(0, ""), (400_000, "0.4s"), (61 * SECOND, "1m 1s"), (3 * HOUR, "3h 0m"), (25 * HOUR, "1d 1h")]
)
def test_a_length_of_time_is_told_in_its_two_largest_units(length: int, told: str) -> None:
    assert age_text(length) == told


# The command


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        yield story


def test_the_command_tells_it_as_a_table_and_as_one_document(story: Story) -> None:
    assert story.call("stats").status == 1
    story.enqueue(orders(3))
    table = story.call("stats", "--lang", "zh")
    assert table.status == 0
    assert "商户" in table.out
    told = story.call("stats", "--json").json()
    (acme,) = told["operators"]
    assert (acme["operator"], acme["state"], acme["pending"], acme["due"], acme["delivered"]) == (
        "acme",
        "open",
        3,
        3,
        0,
    )
    assert acme["backlog_seconds"] > 0
    assert told["total"]["pending"] == 3
    assert story.call("operators", "pause", "acme").status == 0
    assert story.call("stats", "--json").json()["operators"][0]["state"] == "paused"


def test_on_a_pipe_the_live_view_is_lines_or_documents_and_waits_for_a_store(story: Story) -> None:
    line = story.line("stats", "--watch", "--interval", "200ms", "--json")
    with nursery.start(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr
        assert watching.stdout
        assert "the store is away" in watching.stderr.readline()
        story.enqueue(orders(2))
        # It may look while the tables are there and the events are not.
        assert any(json.loads(line)["total"]["pending"] == 2 for line in watching.stdout)
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(60) == 0
    plain = story.call("stats", "--watch", "--interval", "200ms", "--for", "1s")
    assert plain.status == 0
    assert re.match(r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\dZ  attempts/s 0\.00 .*pending 2  due 2", plain.out)
    assert "\x1b" not in plain.out


class Terminal:
    """A real one of so many lines and columns, with a process on it."""

    def __init__(self, line: list[str], size: tuple[int, int], term: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(theirs)
        env = {**os.environ, "TERM": term, "LC_ALL": "C.UTF-8"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            line, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True, preexec_fn=_own
        )
        self._theirs = theirs
        self._heard: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._heard.append(os.read(self.ours, 65_536))
            except OSError:
                return

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def raw(self) -> str:
        return b"".join(self._heard).decode("utf-8", "replace")

    def last(self) -> list[str]:
        """The lines of the last picture."""
        whole = self.raw().rpartition("\x1b[H")[2]
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", whole).replace("\r", "").splitlines()

    def press(self, key: bytes) -> None:
        os.write(self.ours, key)

    def ended(self) -> int:
        """Its exit status, once it has ended by itself and everything that it wrote is here."""
        status = self.process.wait(60)
        assert termios.tcgetattr(self._theirs)[:4] == self.before[:4], "the terminal is not as it was"
        self._hang_up()
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._hang_up()
        os.close(self.ours)

    def _hang_up(self) -> None:
        """Once nobody has its other end, whoever reads comes to an end."""
        if self._reader.is_alive():
            os.close(self._theirs)
            self._reader.join(60)


def _own() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(line: list[str], size: tuple[int, int] = (24, 100), term: str = "xterm-256color") -> Iterator[Terminal]:
    there = Terminal(line, size, term)
    try:
        yield there
    finally:
        there.close()


def test_on_a_terminal_it_stands_in_place_follows_the_size_and_leaves_everything_as_it_was(story: Story) -> None:
    names = [f"op{number:02}" for number in range(30)]
    for name in names:
        story.add_operator(name)
    with terminal(story.line("stats", "--watch", "--interval", "200ms")) as there:
        until(lambda: "the store is away" in there.raw(), told=there.raw)
        story.enqueue([one | {"operator": name} for one, name in zip(orders(30), names, strict=True)])
        until(lambda: any("pending 30" in line for line in there.last()), told=there.raw)
        until(lambda: any("more operators: 14" in line for line in there.last()), told=there.last)
        assert len(there.last()) <= 24
        there.resize(45, 100)
        until(lambda: any("op29" in line for line in there.last()), told=there.last)
        assert not any("more operators" in line for line in there.last())
        there.resize(12, 60)
        until(lambda: any("more operators: 26" in line for line in there.last()), told=there.last)
        assert max(map(len, there.last())) <= 60
        there.press(b"q")
        assert there.ended() == 0
        raw = there.raw()
    assert raw.count("\x1b[?1049h") == raw.count("\x1b[?1049l") == 1
    assert raw.rindex("\x1b[?1049l") > raw.rindex("pending")
    assert "\x1b[2J" not in raw.partition("pending")[2], "it is wiped, and flickers"
    assert "Traceback" not in raw


def test_a_new_size_is_seen_at_once_however_seldom_it_looks(story: Story) -> None:
    for number in range(30):
        story.add_operator(f"op{number:02}")
    assert story.call("operators", "apply").status == 0
    with terminal(story.line("stats", "--watch", "--interval", "1h")) as there:
        until(lambda: any("more operators: 14" in line for line in there.last()), told=there.raw)
        there.resize(45, 100)
        until(lambda: any("op29" in line for line in there.last()), told=there.last)


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_whoever_ends_it_gets_the_terminal_back(story: Story, how: str) -> None:
    story.enqueue(orders(1))
    with terminal(story.line("stats", "--watch")) as there:
        until(lambda: "pending 1" in there.raw(), told=there.raw)
        if how == "ctrl-c":
            there.press(b"\x03")
        else:
            there.process.send_signal(signal.SIGTERM)
        assert there.ended() == 0
        assert there.raw().endswith("\x1b[?25h") or "\x1b[?1049l" in there.raw()
        assert "Traceback" not in there.raw()


def test_a_dumb_terminal_gets_plain_lines(story: Story) -> None:
    story.enqueue(orders(1))
    with terminal(story.line("stats", "--watch", "--interval", "200ms"), term="dumb") as there:
        until(lambda: there.raw().count("pending 1") > 1, told=there.raw)
        there.process.send_signal(signal.SIGTERM)
        assert there.ended() == 0
        assert "\x1b" not in there.raw()


def test_a_store_that_does_not_answer_keeps_no_key_from_being_heard(story: Story) -> None:
    story.enqueue(orders(1))
    with terminal(story.line("stats", "--watch", "--interval", "200ms")) as there:
        until(lambda: "pending 1" in there.raw(), told=there.raw)
        away = story.database.rename(story.folder / "elsewhere.db")
        # The last figures are still there.
        both = ("the store is away", "pending 1")
        until(lambda: all(any(words in line for line in there.last()) for words in both), told=there.raw)
        away.rename(story.database)
        until(lambda: not any("the store is away" in line for line in there.last()), told=there.raw)
        there.press(b"q")
        assert there.ended() == 0
