"""What every measurement needs: a folder with a configuration, a sink, a daemon, and what they cost."""

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONCURRENCY = 512
CONFIG = """
[database]
url = "sqlite:///bench.db"
[worker]
concurrency = {concurrency}
[egress]
allow = ["127.0.0.0/8"]
[web]
listen = ""
[log]
format = "json"
[operators.acme]
notice_url = "http://127.0.0.1:{port}/Demo/notice"
token = "bench-token-of-thirty-two-letters"
concurrency = {concurrency}
retry = {{ delays = ["2s", "2s", "2s"] }}
{more}
crypto = {{ key = "0f1e2d3c4b5a6978", iv = "A1b2C3d4E5f6G7h8" }}
"""
_SPIN = (
    '{{"operator":"acme","type":"notice","order_no":"{0:019d}","uid":"player-{1}","total_bet":{2}.25,'
    '"total_win":"1.50","business":"Spin","game_id":7,"time":1700000000}}\n'
)


def spins(start: int, count: int) -> bytes:
    """`count` events as NDJSON, numbered from `start`."""
    return "".join(_SPIN.format(n, n % 1000, n % 100) for n in range(start, start + count)).encode()


def crowd(count: int, players: int) -> bytes:
    """`count` events of so many players, each by chance; always by the same."""
    chance = random.Random(players)
    return "".join(_SPIN.format(n, chance.randrange(players), n % 100) for n in range(count)).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stand:
    """One folder with a store, its sink and its daemon."""

    def __init__(self, folder: Path, port: int, concurrency: int, more: str) -> None:
        self.folder = folder
        self.port = port
        (folder / "config.toml").write_text(CONFIG.format(port=port, concurrency=concurrency, more=more))

    @property
    def dispatcher(self) -> list[str]:
        return [sys.executable, "-m", "dispatcher"]

    def enqueue(self, events: bytes) -> None:
        command = [*self.dispatcher, "enqueue", "-c", str(self.folder / "config.toml"), "-"]
        subprocess.run(command, input=events, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @contextmanager
    def producer(self) -> Iterator[subprocess.Popen[bytes]]:
        """An `enqueue` that takes events from its standard input as they are written."""
        command = [*self.dispatcher, "enqueue", "-c", str(self.folder / "config.toml"), "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            yield process
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / "log.jsonl").open("ab") as log:
            command = [*self.dispatcher, "run", "-c", str(self.folder / "config.toml")]
            with _stopped(subprocess.Popen(command, stderr=log)) as process:
                yield process

    def query(self, sql: str) -> list[Any]:
        with sqlite3.connect(f"file:{self.folder / 'bench.db'}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute(sql).fetchall()

    def settled(self) -> int:
        return int(self.query("SELECT count(*) FROM attempts")[0][0])


@contextmanager
def stand(concurrency: int = CONCURRENCY, *sink_options: str, more: str = "") -> Iterator[Stand]:
    """`more` are further lines of the operator's settings."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as name, sink(port, *sink_options):
        yield Stand(Path(name), port, concurrency, more)


@contextmanager
def sink(port: int, *options: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.sink", str(port), *options]
    with _stopped(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


@contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
