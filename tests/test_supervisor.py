"""What systemd hears of the daemon: real datagrams of a real process; and what its unit's file says."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatcher import __version__
from dispatcher.supervisor import Supervisor
from tests import nursery
from tests.confined import NUMBERS
from tests.story import Daemon, Story, orders, until

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "docs" / "deploy" / "dispatcher.service"
WATCHDOG = "60000000"


class Systemd:
    """The other end of NOTIFY_SOCKET: every datagram that came, with its time (s, monotonic)."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                text = self._socket.recv(4096).decode()
            except TimeoutError:
                continue
            self.heard.append((time.monotonic(), text))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def said(self) -> list[str]:
        return [text for _, text in self.heard]

    def pings(self) -> int:
        return self.said().count("WATCHDOG=1")

    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": WATCHDOG}


@contextmanager
def systemd(folder: Path, address: str = "") -> Iterator[Systemd]:
    listening = Systemd(address or str(folder / "notify"))
    try:
        yield listening
    finally:
        listening.close()


@contextmanager
def service(
    story: Story, line: list[str], environment: Mapping[str, str], start: Callable[..., Any] = nursery.start
) -> Iterator[Daemon]:
    """The daemon as it is started with this environment beside ours."""
    with start(line, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        daemon = Daemon(process, f"http://{story.tables['web']['listen']}")
        try:
            yield daemon
        finally:
            process.kill()
            daemon.ended()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_hears_when_the_daemon_is_up_lives_reloads_and_stops(tmp_path: Path, abstract: bool) -> None:
    address = f"@dispatcher-test-{os.getpid()}" if abstract else ""
    with systemd(tmp_path, address) as heard, Story(tmp_path) as story:
        with service(story, story.line("run"), heard.environment()) as daemon:
            until(lambda: heard.pings() >= 2, told=daemon.text)
            (told,) = until(lambda: daemon.told("running"), told=daemon.text)
            assert {"/healthz", "/openapi.json", "/readyz", "/v1"} <= set(told["paths"])
            assert (told["web"], told["watchdog_seconds"]) == (daemon.web, 60)
            assert (told["version"], told["database"], told["operators"]) == (__version__, str(story.database), 1)
            assert (told["retention"], told["egress_allow"]) == ("30d", ["127.0.0.0/8"])
            said = heard.said()
            assert said[0] == "READY=1"
            assert "STATUS=delivering for 1 operators" in said
            daemon.signal(signal.SIGHUP)
            until(lambda: heard.said().count("READY=1") == 2, told=daemon.text)
            (reloading,) = [text for text in heard.said() if text.startswith("RELOADING=1")]
            usec = int(reloading.removeprefix("RELOADING=1\nMONOTONIC_USEC="))
            assert 0 < time.monotonic_ns() // 1_000 - usec < 60_000_000
            assert heard.said().index(reloading) < len(heard.said()) - heard.said()[::-1].index("READY=1")
            story.config.write_text("x", "utf-8")
            daemon.signal(signal.SIGHUP)
            until(lambda: heard.said().count("READY=1") == 3, told=daemon.text)
            daemon.stop()
        until(lambda: "STOPPING=1" in heard.said())


def test_a_stuck_store_thread_stops_the_signs_of_life(tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    with systemd(tmp_path) as heard, Story(tmp_path) as story:
        line = [sys.executable, "-m", "tests.hanging", str(stuck), *story.line("run")[3:]]
        with service(story, line, heard.environment()) as daemon:
            until(lambda: heard.pings() >= 2, told=daemon.text)
            stuck.touch()
            # The claim loop is caught at its next round at the latest.
            until(lambda: any("the claim loop has not gone round" in text for text in heard.said()), told=daemon.text)
            at = heard.pings()
            assert daemon.get("/healthz").status_code == 200, "the event loop goes on"
            assert daemon.get("/readyz").status_code == 503
            silent = [when for when, text in heard.heard if text == "WATCHDOG=1"][-1]
            assert time.monotonic() - silent > 10
            assert heard.pings() == at
            stuck.unlink()
            until(lambda: heard.pings() > at, told=daemon.text)
            daemon.stop()


def test_a_database_that_is_away_is_waited_for_with_signs_of_life(tmp_path: Path) -> None:
    with (
        systemd(tmp_path) as heard,
        Story(tmp_path) as story,
        service(story, story.line("run"), heard.environment()) as daemon,
    ):
        until(lambda: heard.pings() >= 1, told=daemon.text)
        story.enqueue(orders(1))
        with closing(sqlite3.connect(story.database)) as other:
            other.execute("BEGIN EXCLUSIVE")
            until(lambda: daemon.told("store_unavailable"), told=daemon.text)
            at = heard.pings()
            until(lambda: heard.pings() >= at + 3, told=daemon.text)
            assert any(text.startswith("STATUS=database: ") for text in heard.said())
            other.rollback()
        until(lambda: daemon.told("store_back"), told=daemon.text)
        daemon.stop()


def test_who_is_not_meant_or_not_listened_to_says_nothing(tmp_path: Path) -> None:
    with systemd(tmp_path) as heard:
        for environment in (
            {},
            {"NOTIFY_SOCKET": ""},
            {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": WATCHDOG, "WATCHDOG_PID": "1"},
            {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": "soon"},
        ):
            supervisor = Supervisor.of(environment)
            assert supervisor.watchdog is None
            supervisor.alive(1.0)
        assert Supervisor.of({"WATCHDOG_USEC": WATCHDOG}).watchdog is None
        Supervisor(heard.address).ready()
        until(lambda: heard.said() == ["READY=1"])
    # Its end is not ours.
    Supervisor(heard.address).ready()
    Supervisor("/nowhere/" + "x" * 200).ready()


def test_no_proof_counts_twice_and_a_status_is_one_line_that_changed(tmp_path: Path) -> None:
    with systemd(tmp_path) as heard:
        supervisor = Supervisor(heard.address, 60)
        for proof in (1.0, 1.0, 2.0, 1.5):
            supervisor.alive(proof)
        for text in ("a\nREADY=1", "a\nREADY=1", "b"):
            supervisor.status(text)
        until(lambda: len(heard.said()) == 4)
        assert heard.said() == ["WATCHDOG=1", "WATCHDOG=1", "STATUS=a", "STATUS=b"]


# The unit's file.


def _analyze(*words: str) -> str:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not on this machine: the unit's file is not checked")
    done = subprocess.run([tool, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_unit_is_one_that_systemd_takes_without_a_word(tmp_path: Path) -> None:
    here = tmp_path / "dispatcher.service"
    text = UNIT.read_text("utf-8").replace("/opt/dispatcher/.venv/bin/dispatcher run", "/bin/true")
    here.write_text(text, "utf-8")
    assert _analyze("verify", "--man=no", str(here)) == ""


def test_the_unit_exposes_little() -> None:
    told = _analyze("security", "--offline=true", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for dispatcher.service: ([0-9.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= 1.5, told


def test_the_watchdog_waits_longer_than_the_store_may_be_waited_for() -> None:
    from dispatcher.app import SILENCE_SECONDS
    from dispatcher.store.databases.silence import DOUBLINGS

    found = re.search(r"^WatchdogSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > 1.5 * SILENCE_SECONDS * 2**DOUBLINGS


def test_the_daemon_works_under_what_its_unit_forbids(tmp_path: Path) -> None:
    if not NUMBERS.exists() or shutil.which("systemd-analyze") is None:
        pytest.skip("no list of system calls, or no systemd-analyze: the unit's filters are not tried")
    with Story(tmp_path) as story, story.receiving() as receiver:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        line = [sys.executable, "-m", "tests.confined", str(UNIT), *story.line("run")[3:]]
        # Its imports, too, are to be made under what is forbidden.
        with service(story, line, {}, subprocess.Popen) as daemon:
            until(lambda: daemon.told("running") or daemon.process.poll() is not None, told=daemon.text)
            status = Path(f"/proc/{daemon.process.pid}/status").read_text()
            assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), status
            story.enqueue(orders(20))
            until(lambda: len(receiver.booked()) == 20, told=daemon.text)
            daemon.signal(signal.SIGHUP)
            until(lambda: daemon.told("reloaded"), told=daemon.text)
            assert daemon.get("/readyz").status_code == 200
            daemon.stop()
        assert story.all_are("delivered")


def test_what_the_unit_forbids_is_forbidden() -> None:
    if not NUMBERS.exists() or shutil.which("systemd-analyze") is None:
        pytest.skip("no list of system calls, or no systemd-analyze: the unit's filters are not tried")
    code = (
        "import sys, socket, mmap, os; from pathlib import Path; from tests.confined import confine;"
        "confine(Path(sys.argv[1]).read_text());\n"
        "for wrong in (lambda: socket.socket(socket.AF_NETLINK), lambda: os.chroot('/'), lambda: os.nice(1),"
        " lambda: mmap.mmap(-1, 4096, prot=7)):\n"
        "    try:\n        wrong()\n    except OSError as error:\n        print(error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(UNIT)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.split() == ["97", "1", "1", "13"], done.stderr
