"""Kills its own process at a named point. The wires lie around the real functions; `dispatcher` knows nothing of them.

Which one kills, and at which passing, comes line by line through a pipe: `3 before claim`. What the process would tell
its caller, and where it died, is added to a file, which outlives it.
"""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect

from dispatcher.wire import connection, transport
from tests.crashes.points import (
    ADOPT,
    AMID_SENDING,
    CLAIM,
    CONNECT,
    INSERT,
    READING,
    RECORD,
    SENDING,
    SETTLE,
    commit_of,
)

# A step by the statement that does it.
_STATEMENTS = {
    INSERT: re.compile(r"\s*INSERT INTO deliveries\b"),
    CLAIM: re.compile(r"\s*UPDATE deliveries\s+SET status = 'sending'"),
    SETTLE: re.compile(r"\s*UPDATE deliveries\s+SET status = (?!'sending')"),
    RECORD: re.compile(r"\s*INSERT INTO attempts\b"),
    ADOPT: re.compile(r"\s*UPDATE deliveries SET worker = "),
}


class Tripwire:
    """`orders` is read from, `words` written to: file descriptors. `last` is done before the end: a planted fault."""

    def __init__(self, orders: int, words: int) -> None:
        self._words = words
        self._orders = orders
        self._lock = threading.Lock()
        self._left = 0
        self._point = ""
        # Passes every point without dying, for as long as this is set: for a planted fault.
        self.is_deaf = False
        self.last: Callable[[], None] = lambda: None

    def listen(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with os.fdopen(self._orders) as orders:
            for order in orders:
                left, _, point = order.strip().partition(" ")
                with self._lock:
                    self._left, self._point = int(left), point

    def tell(self, *words: Any) -> None:
        os.write(self._words, json.dumps(words).encode() + b"\n")

    def is_due(self, point: str) -> bool:
        """Whether the process is to die here and now."""
        if self._point != point or self.is_deaf:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0

    def reach(self, point: str) -> None:
        if self.is_due(point):
            self.die(point)

    def die(self, point: str) -> NoReturn:
        self.last()
        self.tell("dies", point, time.time())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")


def around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts something around a function, wherever that is looked up by this name."""
    inner = getattr(owner, name)
    setattr(owner, name, wraps(inner)(wrap(inner)))


def wire_the_store(tripwire: Tripwire) -> None:
    """Around statements and commits. Each database is used by one thread at a time, but several are."""
    here = threading.local()

    @event.listens_for(Engine, "begin")
    def _begin(_connection: Connection) -> None:
        here.steps = []

    @event.listens_for(Engine, "before_cursor_execute")
    def _before(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        for step in _steps(statement):
            tripwire.reach(f"before {step}")

    @event.listens_for(Engine, "after_cursor_execute")
    def _after(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        for step in _steps(statement):
            here.steps.append(step)
            tripwire.reach(f"after {step}")

    def committing(inner: Callable[..., Any]) -> Callable[..., Any]:
        def do_commit(*given: Any) -> None:
            steps = dict.fromkeys(getattr(here, "steps", ()))
            for step in steps:
                tripwire.reach(f"before {commit_of(step)}")
            inner(*given)
            for step in steps:
                tripwire.reach(f"after {commit_of(step)}")

        return do_commit

    around(DefaultDialect, "do_commit", committing)


def _steps(statement: str) -> Sequence[str]:
    return [step for step, words in _STATEMENTS.items() if words.match(statement)]


def wire_the_wire(tripwire: Tripwire) -> None:
    """Around connecting, writing the request, reading the answer."""

    def connecting(inner: Callable[..., Any]) -> Callable[..., Any]:
        async def open_(*given: Any) -> Any:
            tripwire.reach(f"before {CONNECT}")
            opened = await inner(*given)
            tripwire.reach(f"after {CONNECT}")
            return opened

        return open_

    def writing(inner: Callable[..., Any]) -> Callable[..., Any]:
        def write(self: connection.Connection) -> None:
            tripwire.reach(f"before {SENDING}")
            if tripwire.is_due(AMID_SENDING):
                head = self._request[: self._request.index(b"\r\n\r\n") + 4]
                os.write(self._transport.get_extra_info("socket").fileno(), head)
                tripwire.die(AMID_SENDING)
            inner(self)
            tripwire.reach(f"after {SENDING}")

        return write

    def before(point: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                tripwire.reach(point)
                return inner(*given)

            return call

        return wrap

    def completing(inner: Callable[..., Any]) -> Callable[..., Any]:
        def on_message_complete(*given: Any) -> None:
            inner(*given)
            tripwire.reach(f"after {READING}")

        return on_message_complete

    around(transport.PinnedTransport, "_open", connecting)
    around(connection.Connection, "write", writing)
    around(connection.Connection, "data_received", before(f"before {READING}"))
    around(connection.Connection, "on_message_complete", completing)


def wire_the_promise(tripwire: Tripwire) -> None:
    """Around what `enqueue` accepts: the keys of a batch that begins, and that it may be counted as accepted."""
    from dispatcher.accept import intake

    def accepting(inner: Callable[..., Any]) -> Callable[..., Any]:
        def accept(database: Any, events: Sequence[Any], now: int) -> Any:
            tripwire.tell("begins", [one.key for one in events])
            fates = inner(database, events, now)
            tripwire.tell("accepted", sorted(set(fates)))
            return fates

        return accept

    around(intake, "accept", accepting)
