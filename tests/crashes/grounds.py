"""The two stores, as the matrix sees them from outside: rows, and whether a dead process is gone from there, too."""

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from tests.crashes.judge import Attempt, Delivery, Held
from tests.stores import PostgreSQL

_SENDING = """
    SELECT d.id, d.key, d.attempts FROM deliveries d LEFT JOIN workers w ON w.id = d.worker WHERE d.status = 'sending'
"""


class Ground(ABC):
    """One store with nothing in it. `alone`: one worker at a time works on it."""

    alone: bool

    @abstractmethod
    def url(self, name: str) -> str:
        """As the configuration of this process has it."""

    @abstractmethod
    def rows(self, sql: str) -> list[Any]: ...

    def settled(self, name: str) -> None:  # noqa: B027  # a file has nothing to wait for
        """Waits until nothing of a dead process is under way any more."""

    def check(self) -> list[str]:
        """What is wrong with the store itself."""
        return []

    def held(self, pid: int) -> dict[int, Held]:
        """What the worker of this process had claimed when it died."""
        return self._sending(f"AND w.name LIKE 'process {pid} on %'")

    def orphans(self) -> dict[int, Held]:
        """What is claimed by workers of which everybody knows that they are gone."""
        return self._sending("AND w.id IS NULL")

    def _sending(self, condition: str) -> dict[int, Held]:
        return {id_: Held(key, attempt) for id_, key, attempt in self.rows(f"{_SENDING} {condition}")}

    def workers(self) -> set[int]:
        """The processes that are workers here, dead ones that nobody has noticed included."""
        return {int(name.split()[1]) for (name,) in self.rows("SELECT name FROM workers")}

    def standing(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that are in the store."""
        listed = ", ".join(f"'{key}'" for key in keys)
        return {key for (key,) in self.rows(f"SELECT key FROM deliveries WHERE key IN ({listed})")} if keys else set()

    def unfinished(self, ids: Collection[int]) -> int:
        """How many of these are not delivered."""
        listed = ", ".join(map(str, ids))
        return int(self.rows(f"SELECT count(*) FROM deliveries WHERE status <> 'delivered' AND id IN ({listed})")[0][0])

    def left(self) -> int:
        return int(self.rows("SELECT count(*) FROM deliveries WHERE status <> 'delivered'")[0][0])

    def deliveries(self) -> list[Delivery]:
        found = self.rows("SELECT id, key, status, attempts, finished_at FROM deliveries")
        return [Delivery(id_, key, status, n, at and at / 1e6) for id_, key, status, n, at in found]

    def attempts(self) -> list[Attempt]:
        found = self.rows("SELECT delivery_id, n, late, reason, ambiguous FROM attempts")
        return [Attempt(id_, n, bool(late), reason, bool(ambiguous)) for id_, n, late, reason, ambiguous in found]

    def close(self) -> None:  # noqa: B027  # a file has nothing that stays open
        """Nobody looks any more."""


class File(Ground):
    """Looked at by connections that can't write and don't stay: the next worker finds the file as the dead left it."""

    alone = True

    def __init__(self, folder: Path) -> None:
        self._path = folder / "dispatcher.db"

    def url(self, name: str) -> str:
        return f"sqlite:///{self._path}"

    def held(self, pid: int) -> dict[int, Held]:
        """Whoever had claimed it: all of it waits for the next worker."""
        return self._sending("")

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def check(self) -> list[str]:
        told = [row[0] for row in self.rows("PRAGMA integrity_check")]
        return [] if told == ["ok"] else [f"integrity: {told[:3]}"]


class OnServer(Ground):
    alone = False

    def __init__(self, postgresql: PostgreSQL) -> None:
        postgresql.empty()
        self._url = postgresql.url
        self._session = psycopg.connect(self._url.replace("+psycopg", "", 1), autocommit=True)

    def url(self, name: str) -> str:
        return f"{self._url}{'&' if '?' in self._url else '?'}application_name=dispatcher-{name}"

    def rows(self, sql: str) -> list[Any]:
        return self._session.execute(sql.replace("%", "%%").encode()).fetchall()

    def settled(self, name: str) -> None:
        """A commit that was on its way when the process died is made or not made by then."""
        while self.rows(f"SELECT 1 FROM pg_stat_activity WHERE application_name = 'dispatcher-{name}'"):
            time.sleep(0.005)

    def close(self) -> None:
        self._session.close()
