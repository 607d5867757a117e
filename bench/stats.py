"""A sink that runs beside a measurement, and what it has counted."""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.deadline import Failed
from bench.processes import Workers, free_port, running
from bench.sink import Tally


class Counted:
    """A running sink. `url` is where its paths begin."""

    def __init__(self, url: str, workers: Workers) -> None:
        self.url = url
        self._workers = workers

    def tallies(self, beginning: str = "/") -> list[Tally]:
        """Of every path that begins so."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            told = json.load(answer)
        return [Tally(**tally) for path, tally in told.items() if path.startswith(beginning)]

    def answered(self, beginning: str = "/") -> int:
        """How many yeses were written."""
        return sum(tally.answered for tally in self.tallies(beginning))

    def begun(self, workers: Workers) -> float:
        """Waits for the first request; when it came. Raises Failed when a worker has ended instead."""
        while not (tallies := self.tallies()):
            workers.check()
            time.sleep(0.02)
        return min(tally.first for tally in tallies)

    def until(self, count: int, workers: Workers, beginning: str = "/", every: float = 0.1) -> int:
        """Waits for so many yeses; how many there were then. Raises Failed when a worker has ended instead."""
        while (answered := self.answered(beginning)) < count:
            workers.check()
            # Seldom: counting costs the machine what is to be measured.
            time.sleep(every)
        return answered

    def cpu_seconds(self) -> float:
        return self._workers.cpu_seconds()


@contextmanager
def sink(*options: str) -> Iterator[Counted]:
    """`options` as `python -m bench.sink` takes them."""
    port = free_port()
    with TemporaryDirectory(prefix="dispatcher-bench-") as name:
        log = Path(name) / "sink.log"
        with running(Workers([sys.executable, "-m", "bench.sink", str(port), *options], log)) as workers:
            _until_ready(log, workers)
            yield Counted(f"http://127.0.0.1:{port}", workers)


def _until_ready(log: Path, workers: Workers) -> None:
    end = time.monotonic() + 10
    while not log.read_bytes():
        workers.check()
        if time.monotonic() > end:
            raise Failed("the sink did not start")
        time.sleep(0.02)
