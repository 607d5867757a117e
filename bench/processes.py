"""Processes under measurement: started in groups of their own, ended with all their children, their cost read."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.deadline import Failed

GRACE_SECONDS = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Workers:
    """Some equal processes, each with its children a group. What they say is added to `log`, of each to its own."""

    def __init__(
        self, command: Sequence[str], log: Path, count: int = 1, folder: Path | None = None, env: Mapping[str, str] = {}
    ) -> None:
        self._logs = [log, *(log.with_stem(f"{log.stem}-{n}") for n in range(2, count + 1))]
        self._processes = [_start(command, log, folder, env) for log in self._logs]

    def check(self) -> None:
        """Raises Failed with the last words of one that has ended by itself."""
        for process, log in zip(self._processes, self._logs, strict=True):
            if process.poll() is not None:
                raise Failed(f"a worker ended with status {process.returncode}: {last_words(log)}")

    def wait(self) -> None:
        """Until one ends by itself. Raises Failed as `check`."""
        while True:
            self.check()
            time.sleep(0.02)

    def kill(self) -> None:
        """As if the machine had lost its power: every process of every group at once."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def stop(self) -> None:
        """Asked first, killed after `GRACE_SECONDS`; children that outlive their parent as well."""
        try:
            self._signal(signal.SIGTERM)
            end = time.monotonic() + GRACE_SECONDS
            for process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
        finally:
            # Also when a deadline ends the waiting.
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def cpu_seconds(self) -> float:
        """User and system time that all of them have used, ended children apart."""
        return sum(_used(fields) for fields in self._stats())

    def resident_bytes(self) -> int:
        return sum(int(fields[21]) * _PAGE for fields in self._stats())

    def _stats(self) -> Iterator[list[str]]:
        groups = {process.pid for process in self._processes}
        return (fields for _, fields in _everybody() if int(fields[2]) in groups)


def server_cpu_seconds(pid: int) -> float:
    """User and system time of a server and its children, those that have ended as well."""
    total = 0.0
    for number, fields in _everybody():
        if number == pid:
            total += _used(fields) + (int(fields[13]) + int(fields[14])) / _TICKS
        elif int(fields[1]) == pid:
            total += _used(fields)
    return total


def _everybody() -> Iterator[tuple[int, list[str]]]:
    """Every process of the machine, with what stands after its name in /proc/PID/stat."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        # Some end while we look.
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_text().rpartition(")")[2].split()


def _used(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _start(command: Sequence[str], log: Path, folder: Path | None, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@contextlib.contextmanager
def running(workers: Workers) -> Iterator[Workers]:
    try:
        yield workers
    finally:
        workers.stop()


def last_words(log: Path) -> str:
    """The last line that was logged, cut to a table's width."""
    lines = log.read_text("utf-8", "replace").split("\n") if log.exists() else []
    return next((line.strip()[:160] for line in reversed(lines) if line.strip()), "it said nothing")


def run(command: Sequence[str], given: bytes = b"", folder: Path | None = None, env: Mapping[str, str] = {}) -> str:
    """What the command wrote. Raises Failed with its last words."""
    done = subprocess.run(command, input=given, capture_output=True, cwd=folder, env=os.environ | env, check=False)
    if done.returncode:
        words = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        told = words[-1].strip()[:160] if words else "it said nothing"
        raise Failed(f"{Path(command[0]).name} ended with status {done.returncode}: {told}")
    return done.stdout.decode()
