"""`python -m bench.drain [N]`: N waiting spins, one daemon, how many are settled each second and at what CPU cost."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from collections.abc import Iterator
from pathlib import Path

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
crypto = {{ key = "0f1e2d3c4b5a6978", iv = "A1b2C3d4E5f6G7h8" }}
"""
SPIN = (
    '{{"operator":"acme","type":"notice","order_no":"{0:019d}","uid":"player-{1}","total_bet":{2}.25,'
    '"total_win":"1.50","business":"Spin","game_id":7,"time":1700000000}}\n'
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, *command], **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def prepare(folder: Path, count: int, concurrency: int) -> int:
    """A folder with a configuration and `count` accepted spins; the port that they go to."""
    port = free_port()
    (folder / "config.toml").write_text(CONFIG.format(port=port, concurrency=concurrency))
    spins = "".join(SPIN.format(number, number % 1000, number % 100) for number in range(count))
    subprocess.run(
        [sys.executable, "-m", "dispatcher", "enqueue", "-c", str(folder / "config.toml"), "-"],
        input=spins.encode(),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return port


def settled(folder: Path) -> int:
    with sqlite3.connect(f"file:{folder / 'bench.db'}?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT count(*) FROM attempts").fetchone()[0])


def drain(count: int, concurrency: int) -> tuple[float, float]:
    """Deliveries settled a second, and µs of CPU each, once the daemon is warm."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = prepare(folder, count, concurrency)
        with running("-m", "bench.sink", str(port), stdout=subprocess.PIPE) as sink:
            assert sink.stdout is not None
            sink.stdout.readline()
            with (
                (folder / "log.jsonl").open("wb") as log,
                running("-m", "dispatcher", "run", "-c", str(folder / "config.toml"), stderr=log) as daemon,
            ):
                while (before := settled(folder)) < count // 10:
                    time.sleep(0.02)
                started, cpu = time.perf_counter(), _cpu(daemon.pid)
                while settled(folder) < count:
                    time.sleep(0.02)
                elapsed, used = time.perf_counter() - started, _cpu(daemon.pid) - cpu
            return (count - before) / elapsed, used / (count - before) * 1e6


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    rate, cost = drain(number, width)
    sys.stdout.write(f"{rate:,.0f} deliveries/s, {cost:.0f} µs of CPU each\n")
