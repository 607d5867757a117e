"""Sessions of the tests' own server that outlive the stores which opened them.

A new session costs the server a process, and whoever comes first in it the reading of every table's description: half
of what a test on PostgreSQL took. Here a closed one goes to the next store, as new as `DISCARD ALL` makes it.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from unittest.mock import patch

from psycopg import Connection
from psycopg.pq import ExecStatus, PGconn, TransactionStatus, abc

# Each with what was asked for, the one that sleeps longest first.
_ASLEEP: list[tuple[str, abc.PGconn]] = []
# More would be of no use to anybody: few stores are open at once.
_MOST = 16
_ONE_AT_A_TIME = Lock()


def _woken(asked: str) -> abc.PGconn | None:
    while woken := _latest(asked):
        # One that the server has ended meanwhile says so.
        if woken.exec_(b"DISCARD ALL").status == ExecStatus.COMMAND_OK:
            while woken.notifies():
                pass
            return woken
        woken.finish()
    return None


def _latest(asked: str) -> abc.PGconn | None:
    # Stores are opened on several threads.
    with _ONE_AT_A_TIME:
        known = [n for n, one in enumerate(_ASLEEP) if one[0] == asked]
        return _ASLEEP.pop(known[-1])[1] if known else None


def _put_to_sleep(asked: str, session: abc.PGconn) -> None:
    session.notice_handler = session.notify_handler = None
    with _ONE_AT_A_TIME:
        _ASLEEP.append((asked, session))
        if len(_ASLEEP) > _MOST:
            _ASLEEP.pop(0)[1].finish()


@contextmanager
def warm(host: str) -> Iterator[None]:
    """For as long as this lasts, for the server whose socket is in this folder, whichever class asks for a session."""
    connecting, closing = Connection._connect_gen.__func__, Connection.close  # type: ignore[attr-defined]

    def connect(cls: Any, conninfo: str = "") -> Generator[Any, Any, Any]:
        woken = _woken(conninfo) if host in conninfo else None
        session = (yield from connecting(cls, conninfo)) if woken is None else cls(woken)
        session.warm_by = conninfo if host in conninfo else None
        return session

    def close(self: Any) -> None:
        """Whoever still holds it reaches the server no more."""
        asked, mine = getattr(self, "warm_by", None), self.pgconn
        if asked is None or self._closed or mine.transaction_status != TransactionStatus.IDLE:
            closing(self)
            return
        self._closed, self.pgconn = True, PGconn()
        _put_to_sleep(asked, mine)

    with patch.object(Connection, "_connect_gen", classmethod(connect)), patch.object(Connection, "close", close):
        try:
            yield
        finally:
            while _ASLEEP:
                _ASLEEP.pop()[1].finish()
