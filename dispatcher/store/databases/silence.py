"""A server that keeps a connection and says nothing: the wait for an answer has an end on our side.

A server's own limits are of no use where the server hangs, and TCP's none where its kernel, or a proxy, goes on saying
that everything arrived.
"""

import time
from collections import deque
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Engine, event

# A statement that needs longer must come to its end some time: for so long (s) after each cut the next one has twice
# the time, so many times over.
REMEMBERED_SECONDS = 120.0
DOUBLINGS = 4


class Limit:
    """For how long (s) a server may be silent; `cut` says that it was for too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cuts: deque[float] = deque(maxlen=DOUBLINGS)

    def __call__(self) -> float:
        since = time.monotonic() - REMEMBERED_SECONDS
        return self._seconds * 2.0 ** sum(at > since for at in tuple(self._cuts))

    def cut(self) -> None:
        self._cuts.append(time.monotonic())


class Impatient(psycopg.Connection[Any]):
    """A connection that is closed, as if it broke, when the server is silent for too long while it owes an answer."""

    limit: Limit

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **named: Any) -> Any:
        limit = getattr(self, "limit", None)
        return super().wait(gen if limit is None else self._timed(gen, limit), *args, **named)

    def _timed(self, gen: Generator[Any, Any, Any], limit: Limit) -> Generator[Any, Any, Any]:
        most, heard_at = limit(), time.monotonic()
        try:
            wish = next(gen)
            while True:
                # Nothing, every 0.1 s, for as long as nothing comes.
                ready = yield wish
                if ready:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > most:
                    limit.cut()
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not answered for {most:.0f} s")
                wish = gen.send(ready)
        except StopIteration as end:
            return end.value


def end_silence(engine: Engine, seconds: float) -> None:
    """From now on no connection of this engine waits for longer than that for an answer."""
    limit = Limit(seconds)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> Impatient:
        connection = Impatient.connect(*arguments, **named)
        connection.limit = limit
        return connection
