"""Tells people what died and who is failing: one summary for each notification and window of time at most.

A summary is a delivery like any other, to the notification's webhook; here it is only made. Its key is the number of
the window: of any number of workers that make it one does, and whoever does not know whether it did asks again.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from dispatcher.ground.clock import SECOND, Clock
from dispatcher.ground.events import Event
from dispatcher.ground.operator import SUMMARY, Notification, Operator, Tell
from dispatcher.ground.policy import Status
from dispatcher.protocols import PROTOCOLS, summary
from dispatcher.store.acceptance import Fate, accept
from dispatcher.store.counts.toll import Toll, declared_at, oldest, tolls
from dispatcher.store.engine import Database
from dispatcher.store.search import Filter, find
from dispatcher.telemetry import Log

ROUND_SECONDS = 1.0
# A window is looked at so long after its end: what was settled in it has its time from before the commit.
SETTLED = 2 * SECOND
_OPEN = (Status.PENDING, Status.SENDING)


class Failing(NamedTuple):
    """Of an operator: attempts that failed in a row, since when (µs), and since when its breaker holds it (µs)."""

    failures: int
    since: int
    held_since: int | None


class _Told(NamedTuple):
    """What the latest summaries have told: up to when (µs), and which operators as failing; whether one still waits."""

    until: int
    failing: frozenset[str]
    waits: bool


class Summaries:
    """`store` runs something on the store's thread; `failing` and `notifications` say how things stand now.

    `keep` is how long (µs) what was delivered is kept; `console` the URL that a summary names.
    """

    def __init__(
        self,
        store: Callable[..., Awaitable[Any]],
        database: Database,
        clock: Clock,
        log: Log,
        failing: Callable[[], Mapping[str, Failing]],
        notifications: Callable[[], Mapping[str, Operator]],
    ) -> None:
        self.keep: int | None = None
        self.console: str | None = None
        # Whether its rounds have begun.
        self.begun = False
        self._store = store
        self._database = database
        self._clock = clock
        self._log = log
        self._failing = failing
        self._notifications = notifications
        self._task: asyncio.Task[None] | None = None
        # The window of each that was looked at last.
        self._looked: dict[str, int] = {}

    def round(self) -> None:
        """Looks at each window that has ended, unless the last look is still under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        for name, one in self._notifications().items():
            assert one.notification is not None
            window = (self._clock.now() - SETTLED) // one.notification.every
            if self._looked.get(name) == window:
                continue
            try:
                fate = await self._store(self._make, one, window, self._failing())
            except Exception:
                # A bug of ours must not end the deliveries; the next round tries again.
                self._log.exception(
                    "summary_broke",
                    notification=name,
                    mend="a bug of ours: report this line; the next round tries again",
                )
                continue
            self._looked[name] = window
            if fate is Fate.ACCEPTED:
                self._log.info("summary", operator=name, key=str(window))
                self._database.ring()

    def _make(self, one: Operator, window: int, failing: Mapping[str, Failing]) -> Fate | None:
        """What became of this window's summary; None where there is nothing new to tell, or the last one still waits.

        While that is so nothing more is made: a chat that is away gets one message when it is back, and the next one
        tells the rest. What a dead one would have told, the next one tells.
        """
        notification = one.notification
        assert notification is not None
        until = window * notification.every
        told = self._told(one.name, until)
        if told.waits:
            return None
        facts = _facts(notification, tolls(self._database, told.until, until), _watched(notification, failing, until))
        fresh = [
            name
            for name, fact in facts.items()
            if fact["died"] or ((since := _since(fact)) and (name not in told.failing or since >= told.until))
        ]
        if not fresh:
            return None
        return accept(self._database, [self._event(one, str(window), told.until, until, facts)], self._clock.now())[0]

    def _told(self, name: str, now: int) -> _Told:
        waits = False
        for row in find(self._database, Filter(operator=name, type=SUMMARY), None):
            if summary.is_test(row.key):
                continue
            waits = waits or row.status in _OPEN
            if row.status != Status.DEAD:
                body = json.loads(row.body)
                failing = frozenset(fact["operator"] for fact in body["operators"] if _since(fact))
                return _Told(body["until"], failing, waits)
        # None, or no more: what is older than such rows are kept was told long ago.
        first = declared_at(self._database, name) or now
        return _Told(first if self.keep is None else max(first, now - self.keep), frozenset(), waits)

    def _event(self, one: Operator, window: str, since: int, until: int, facts: dict[str, dict[str, Any]]) -> Event:
        worst = sorted(facts.values(), key=lambda fact: (-fact["died"], -fact["failures"], fact["operator"]))
        shown = worst[: summary.MOST_TOLD]
        for fact in shown:
            fact["oldest"] = oldest(self._database, fact["operator"], PROTOCOLS)
        values = {"since": since, "until": until, "operators": shown, "console": self.console}
        return summary.freeze(one, {"window": window, "others": len(worst) - len(shown), **values})


def _facts(notification: Notification, dead: list[Toll], failing: Mapping[str, Failing]) -> dict[str, dict[str, Any]]:
    """Of each operator that there is something to tell of, as `summary` has it; but for its oldest."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({*(one.operator for one in dead), *failing}):
        if notification.operators and name not in notification.operators:
            continue
        own = [one for one in dead if one.operator == name]
        died = Counter({one.reason: one.died for one in own if one.died and Tell.DEAD in notification.tell})
        state = failing.get(name)
        if died or state:
            found[name] = {
                "operator": name,
                "died": died.total(),
                "dead": sum(one.dead for one in own),
                "reasons": dict(died),
                "oldest": None,
                "failures": state.failures if state else 0,
                "failing_since": state.since if state and state.failures else None,
                "held_since": state.held_since if state else None,
            }
    return found


def _watched(notification: Notification, failing: Mapping[str, Failing], now: int) -> dict[str, Failing]:
    """Those that a notification takes for failing throughout."""
    if Tell.FAILING not in notification.tell:
        return {}
    return {
        name: one
        for name, one in failing.items()
        if one.held_since is not None
        or (one.failures >= notification.failures and now - one.since >= notification.over)
    }


def _since(fact: Mapping[str, Any]) -> int | None:
    """Since when it has been failing; None where it is not."""
    # The earlier of both: neither a hold that follows nor a worker's restart makes another trouble of it.
    return min((fact[name] for name in ("failing_since", "held_since") if fact[name] is not None), default=None)
