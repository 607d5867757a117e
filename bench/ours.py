"""The dispatcher itself: a configuration, `dispatcher enqueue`, and as many `dispatcher run` as are wanted."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from bench.contender import Contender
from bench.ground import Ground, Kind
from bench.orders import FAST, Order, as_events, operator
from bench.peers.job import IV, KEY, TOKEN
from bench.processes import Workers, run

JOBS = 40_000
# In flight at once where it is measured how much goes through.
SLOTS = {Kind.SQLITE: 512, Kind.POSTGRESQL: 512}
_HEAD = """
[database]
url = "{database}"
[worker]
concurrency = {slots}
[egress]
allow = ["127.0.0.0/8"]
[web]
listen = ""
[log]
format = "json"
"""
_OPERATOR = """
[operators.{name}]
notice_url = "{url}"
token = "{token}"
{more}
crypto = {{ key = "{key}", iv = "{iv}" }}
"""


class Dispatcher:
    """One folder with a configuration, one store, `count` daemons."""

    def __init__(self, kind: Kind, store: str, folder: Path, count: int) -> None:
        self.kind = kind
        self.config = folder / "config.toml"
        self._store = store
        self._folder = folder
        self._count = count

    def configure(self, url: str, slots: int, paths: Sequence[str], more: str) -> None:
        """`more` are further lines of every operator's settings."""
        if self.kind is Kind.SQLITE:
            database = f"sqlite:///{self._store}"
        else:
            database = self._store.replace("postgresql:", "postgresql+psycopg:", 1)
        shared = {"token": TOKEN, "key": KEY.decode(), "iv": IV.decode(), "more": more}
        told = [_OPERATOR.format(name=operator(path), url=url + path, **shared) for path in paths]
        self.config.write_text(_HEAD.format(database=database, slots=slots) + "".join(told), "utf-8")

    def command(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dispatcher", name, "-c", str(self.config), *arguments]

    def fill(self, given: Sequence[Order]) -> None:
        run(self.command("enqueue", "-"), as_events(given))

    def start(self) -> Workers:
        return Workers(self.command("run"), self._folder / "log.jsonl", self._count)

    @contextmanager
    def producer(self) -> Iterator[subprocess.Popen[bytes]]:
        """An `enqueue` that takes events from its standard input as they are written."""
        with subprocess.Popen(
            self.command("enqueue", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            yield process

    def query(self, sql: str) -> list[Any]:
        if self.kind is Kind.SQLITE:
            with sqlite3.connect(f"file:{self._store}?mode=ro", uri=True, timeout=30) as connection:
                return connection.execute(sql).fetchall()
        with psycopg.connect(self._store) as session:
            return session.execute(sql.encode()).fetchall()


@contextmanager
def dispatcher(
    kind: Kind,
    count: int,
    more: str,
    ground: Ground,
    url: str,
    slots: int,
    paths: Sequence[str] = (FAST,),
) -> Iterator[Dispatcher]:
    with ground.place() as folder, ground.store(kind, folder) as store:
        stand = Dispatcher(kind, store, folder, count)
        stand.configure(url, slots, paths, more)
        yield stand


def unlimited(slots: int) -> str:
    """An operator may have all of the worker's requests in flight."""
    return f"concurrency = {slots}"


def contender(kind: Kind, count: int = 1, slots: int = 0, more: str | None = None) -> Contender:
    """With everything in flight to one operator, as the peers have it, unless the operators' settings say otherwise."""
    slots = slots or SLOTS[kind]
    name = "dispatcher" if count == 1 else f"dispatcher, {count} processes"
    setting = partial(dispatcher, kind, count, unlimited(slots) if more is None else more)
    settings = f"{slots} in flight" + (" each" if count > 1 else "")
    return Contender(name, kind, settings, setting, slots, JOBS, keeps_log="yes", durable="yes")
