"""Events handed in within the caller's own transaction: the spin and its callback commit together, or neither does.

The dispatcher's tables stand in the caller's database: in the same SQLite file, or in the same PostgreSQL database,
where they may have a schema of their own. Source: interface.md, Library.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from dispatcher.accept import read_event
from dispatcher.config import load_config
from dispatcher.ground.errors import EventError, Fault, Refused
from dispatcher.ground.events import Event
from dispatcher.ground.operator import Operator
from dispatcher.roster import load, open_vault
from dispatcher.store import guest
from dispatcher.store.acceptance import Fate, accept_within
from dispatcher.store.engine import open_database
from dispatcher.store.operators import latest_revision

# SQLAlchemy tells when a Connection begins to commit, not when it has; the worker hears of it so long (s) after that.
COMMITTED_AFTER = 0.01


def enqueue(
    connection_or_session: Connection | Session,
    events: Iterable[Mapping[str, Any]],
    *,
    config: str | os.PathLike[str] | None = None,
) -> list[Fate]:
    """Accepts events as part of the transaction that is open here, or that this begins; the commit is the caller's.

    Each event is a mapping as in interface.md, Events; amounts are Decimal, int or text. Gives `accepted` or
    `duplicate` for each, in order. With the commit the worker is woken; with a rollback nothing was ever there.

    `config` names the configuration file; without it DISPATCHER_CONFIG does, else `config.toml` in the working folder.
    From asyncio: `await session.run_sync(enqueue, events)`.

    Raises EventError with every fault of every event, `events[2].total_bet`; Refused where an event of this key stands
    with other content, or where the transaction is of another database. Nothing of these events is inserted then, and
    the transaction stays usable. Raises ConfigError, StoreUnavailable; and SQLAlchemy's errors, as the caller's own
    statements do.
    """
    outbox = _outbox(str(config or os.environ.get("DISPATCHER_CONFIG") or "config.toml"))
    session = connection_or_session if isinstance(connection_or_session, Session) else None
    connection = session.connection() if session is not None else connection_or_session
    assert isinstance(connection, Connection)
    fates = outbox.take(connection, [dict(one) for one in events])
    if Fate.ACCEPTED in fates:
        outbox.wake(connection, session)
    return fates


_opened: dict[str, "Outbox"] = {}
_opening = threading.Lock()


def _outbox(path: str) -> "Outbox":
    """One for each configuration, opened when it is first needed, for as long as this process lasts."""
    with _opening:
        if path not in _opened:
            _opened[path] = Outbox(Path(path))
        return _opened[path]


class Outbox:
    """The store of one configuration, seen from other people's transactions. Its own sessions only read."""

    def __init__(self, path: Path) -> None:
        self._config = load_config(path)
        self._database = open_database(self._config.database, create=False)
        self._vault = open_vault(self._config, self._database)
        self._clock = self._database.clock()
        self._site = guest.site(self._database)
        self._known: tuple[int, Mapping[str, Operator], Mapping[str, str]] = (-1, {}, {})
        self._lock = threading.Lock()

    def take(self, connection: Connection, given: list[dict[str, Any]]) -> list[Fate]:
        """Inserts them all, or raises."""
        with guest.within(connection, self._site):
            events = self._read(given, *self._operators(latest_revision(connection)))
            fates = accept_within(connection, events, self._clock.now())
            for one, fate in zip(events, fates, strict=True):
                if fate is Fate.CONFLICT:
                    told = f"{one.operator} has {one.type} {one.key} with other content already"
                    mend = "take it out, or give it a key of its own"
                    raise Refused(f"{told}; {mend}; the first stands, none of these events was accepted")
        return fates

    def wake(self, connection: Connection, session: Session | None) -> None:
        """The worker is rung once this transaction is committed; losing a ring loses nothing, it looks by itself."""
        if guest.notify(connection):
            return
        if session is not None:
            if not event.contains(session, "after_commit", self._rung_by_session):
                event.listen(session, "after_commit", self._rung_by_session)
        elif not event.contains(connection, "commit", self._rung_soon):
            event.listen(connection, "commit", self._rung_soon)

    def close(self) -> None:
        self._database.close()

    def _rung_by_session(self, _session: Session) -> None:
        self._database.ring()

    def _rung_soon(self, _connection: Connection) -> None:
        timer = threading.Timer(COMMITTED_AFTER, self._database.ring)
        timer.daemon = True
        timer.start()

    def _operators(self, revision: int) -> tuple[Mapping[str, Operator], Mapping[str, str]]:
        """Those in force, and those that the file declares and no worker has seen yet; and why others can't be used.

        Of one that the database has, and no master key opens, the file's settings are not in force: `run` refuses them.
        """
        with self._lock:
            if self._known[0] != revision:
                roster = load(self._database, self._vault, self._config)
                operators = {**self._config.operators, **roster.operators}
                unfit = {
                    name: why for name, why in roster.faults.items() if name in roster.shut or name not in operators
                }
                self._known = revision, operators, unfit
            return self._known[1:]

    def _read(
        self, given: list[dict[str, Any]], operators: Mapping[str, Operator], unfit: Mapping[str, str]
    ) -> list[Event]:
        events: list[Event] = []
        faults: list[Fault] = []
        for number, raw in enumerate(given):
            try:
                events.append(read_event(raw, operators, self._vault.lock, unfit))
            except EventError as error:
                faults += [Fault(f"events[{number}].{one.where}", one.fault, one.mend) for one in error.faults]
        if faults:
            raise EventError(faults)
        return events
