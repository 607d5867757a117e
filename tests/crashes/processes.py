"""The processes that are killed, each with its wires, and the one that hands events in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

from tests import nursery
from tests.ground import line, notice

ROOT = Path(__file__).parents[2]
# So many orders may be on their way at once. It is a load, not an overload: what an interrupted delivery waits for must
# not be those that were there before it.
_MOST_UNDER_WAY = 256


class Process:
    """A command of the dispatcher that can be told where to die. `started_at`: just before its start (s since 1970)."""

    def __init__(self, name: str, folder: Path, plant: str, *command: str) -> None:
        self.name = name
        told = folder / f"{name}.words"
        orders, ours = os.pipe()
        self._orders = os.fdopen(ours, "wb", buffering=0)
        words = os.open(told, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._words, self._rest = told.open(), ""
        line = [sys.executable, "-m", "tests.crashes.worker", str(orders), str(words), plant, *command]
        with (folder / f"{name}.log").open("ab") as log:
            self.started_at = time.time()
            self.process = nursery.start(
                line, cwd=ROOT, pass_fds=(orders, words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        os.close(orders)
        os.close(words)
        assert self.process.stdin
        os.set_blocking(self.process.stdin.fileno(), False)

    def arm(self, nth: int, point: str) -> None:
        self._orders.write(f"{nth} {point}\n".encode())

    def words(self) -> list[list[Any]]:
        """What it has told since it was asked last."""
        *whole, self._rest = (self._rest + self._words.read()).split("\n")
        return [json.loads(text) for text in whole]

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> float:
        """From outside; when (s since 1970)."""
        at = time.time()
        self.process.kill()
        self.process.wait()
        return at

    def stop(self, seconds: float) -> int:
        """Its exit status after a SIGTERM, or after a SIGKILL when that takes too long."""
        if self.is_alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.close()

    def close(self) -> None:
        """It is dead by then."""
        assert self.process.stdin
        assert self.process.stdout
        for pipe in (self._orders, self._words, self.process.stdin, self.process.stdout):
            pipe.close()


class Producer:
    """Hands in `rate` events a second through one `enqueue`, and again whatever that had not acknowledged when it died.

    `booked`: the orders that have arrived; only so many are handed in ahead of them. `accepted`: what was acknowledged.
    `cut`: the batch that is under way. `died_at`: s since 1970.
    """

    def __init__(self, start: Callable[[], Process], rate: float, booked: Sized) -> None:
        self.accepted: set[str] = set()
        self.cut: list[str] = []
        self.made = 0
        self.faults: list[str] = []
        self._start = start
        self._rate = rate
        self._booked = booked
        self._free_at = time.time()
        self._waiting: dict[str, bytes] = {}
        self._acknowledged = 0
        self.start()

    def start(self) -> None:
        self.process = self._start()
        self.cut = []
        self.died_at: float | None = None
        self._acknowledged = 0
        self._unsent = b"".join(self._waiting.values())

    def pump(self) -> None:
        """Takes in what it told, makes what is due, hands over what the pipe takes."""
        self.hear()
        now = time.time()
        while self._free_at < now:
            if self.made - len(self._booked) >= _MOST_UNDER_WAY:
                self._free_at = now
                break
            self._free_at += 1 / self._rate
            key = str(1767225600000000000 + self.made)
            self._waiting[key] = line(notice(order_no=key)).encode() + b"\n"
            self._unsent += self._waiting[key]
            self.made += 1
        self._write()

    def hear(self) -> None:
        for word, *about in self.process.words():
            if word == "begins":
                self.cut = about[0]
            elif word == "accepted":
                if "conflict" in about[0]:
                    self.faults.append(f"conflict: an event that was handed in again is another one: {self.cut[:3]}")
                self._acknowledged += len(self.cut)
                for key in self.cut:
                    self.accepted.add(key)
                    self._waiting.pop(key, None)
                self.cut = []
            elif word == "dies":
                self.died_at = about[1]

    def _write(self) -> None:
        assert self.process.process.stdin
        try:
            while self._unsent:
                written = os.write(self.process.process.stdin.fileno(), self._unsent[:65_536])
                self._unsent = self._unsent[written:]
        except (BlockingIOError, BrokenPipeError):
            # It starts at the moment, or is dead, which somebody else finds out.
            return

    @property
    def is_done(self) -> bool:
        """Whatever was made is accepted."""
        self.hear()
        self._write()
        return not self._waiting

    def end(self) -> None:
        """No more events; what it counts at its end must be what it had acknowledged."""
        out, _ = self.process.process.communicate()
        told = json.loads(out)
        if told["accepted"] + told["duplicate"] != self._acknowledged or self.process.process.returncode:
            self.faults.append(f"counts: enqueue told {told}, and had acknowledged {self._acknowledged}")
        self.process.close()
