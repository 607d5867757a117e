"""Who may come in: API keys as the store has them, and how often each may.

Keys are read again when what is known of them is older than a second: so long at most a revoked one is still taken,
and a new one not yet. How often a key was used is counted by each process for itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dispatcher.ground.apikey import ApiKey, Scope, whose
from dispatcher.ground.clock import MINUTE, Clock
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.store.engine import Database
from dispatcher.store.keys import all_keys, note_use
from dispatcher.web.problem import Kind, Problem, later

FRESH_SECONDS = 1.0
# Where the store can't be read, what was known is still believed for so long.
STALE_SECONDS = 2.0

Ask = Callable[..., Awaitable[Any]]


class Doorman:
    """`ask` runs a function of the store on another thread; `ticks` are the seconds of a clock that can't jump."""

    def __init__(
        self, database: Database, ask: Ask, clock: Clock, rate: int, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._ask = ask
        self._clock = clock
        self._rate = rate
        self._ticks = ticks
        self._keys: Mapping[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._fault: StoreUnavailable | None = None
        self._reading = asyncio.Lock()
        self._buckets: dict[str, _Bucket] = {}
        # Keys that were used, and when; and when that was last written down of each (µs).
        self._used: dict[str, int] = {}
        self._noted: dict[str, int] = {}

    async def admit(self, authorization: str | None, scope: Scope, stale: float = STALE_SECONDS) -> ApiKey:
        """The key of a request. What was known of keys is believed for `stale` s. Raises Problem, StoreUnavailable."""
        if self._ticks() - self._read_at > FRESH_SECONDS:
            await self._refresh(stale)
        scheme, _, token = (authorization or "").partition(" ")
        key = whose(token.strip(), self._keys) if scheme.lower() == "bearer" else None
        if key is None:
            told = "send Authorization: Bearer and an API key" if authorization is None else "this is no key in force"
            raise Problem(Kind.NO_KEY, told, headers={"www-authenticate": 'Bearer realm="dispatcher"'})
        self._count(key)
        if not key.may(scope):
            told = f"this takes a key with the scope {scope}"
            challenge = f'Bearer realm="dispatcher", error="insufficient_scope", scope="{scope}"'
            raise Problem(Kind.FORBIDDEN, told, headers={"www-authenticate": challenge})
        return key

    def _count(self, key: ApiKey) -> None:
        rate = key.rate or self._rate
        bucket = self._buckets.get(key.id)
        if bucket is None:
            bucket = self._buckets[key.id] = _Bucket(self._ticks(), rate)
        wait = bucket.take(self._ticks(), rate)
        if wait:
            raise later(Kind.RATE, f"this key may make {rate} requests a second", wait)
        self._used[key.id] = self._clock.now()

    async def _refresh(self, stale: float) -> None:
        """Raises StoreUnavailable where the keys could not be read for too long."""
        async with self._reading:
            if self._ticks() - self._read_at <= FRESH_SECONDS:
                return
            if self._fault is None or self._ticks() - self._tried_at > FRESH_SECONDS:
                await self._read()
            # Whoever waited here for somebody else's vain attempt makes none of their own.
            never = self._read_at == float("-inf")
            if self._fault is not None and (never or self._ticks() - self._read_at > stale):
                raise self._fault

    async def _read(self) -> None:
        asked = self._ticks()
        try:
            self._keys = {key.id: key for key in await self._ask(all_keys, self._database)}
            self._read_at, self._fault = asked, None
        except StoreUnavailable as error:
            self._tried_at, self._fault = self._ticks(), error

    async def note(self) -> None:
        """Writes down which keys were used, once a minute for each. Raises StoreUnavailable."""
        due = {id_: at for id_, at in self._used.items() if at - self._noted.get(id_, -MINUTE) >= MINUTE}
        if due:
            await self._ask(note_use, self._database, due)
            self._noted |= due


class _Bucket:
    """As many requests as the rate allows within a second, and then one by one as they grow back."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float, rate: int) -> None:
        self._at = now
        self._left = float(rate)

    def take(self, now: float, rate: int) -> float:
        """Nothing where there was one left, else how many seconds it takes until there is."""
        self._left = min(float(rate), self._left + (now - self._at) * rate)
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / rate
        self._left -= 1.0
        return 0.0
