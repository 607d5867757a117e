"""How often a password may be tried, and how many are tried at once.

What was tried is in this process's memory: every wrong try would else be a write that a stranger makes to the store,
and a restart, or another process beside this one, gives an attacker a handful of tries more, not thousands.

Nobody can lock the person out whose account it is. Tries are counted for the name and the address together, for the
address, and for the name; the last alone is what others can drive up, and makes nobody wait for longer than a minute.
A browser from which that account has logged in before is counted by itself.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, ParamSpec, TypeVar

from dispatcher.accept.committer import Busy

P = ParamSpec("P")
T = TypeVar("T")

# Each costs a core for 0.2 s and 32 MiB; further ones wait for these, so many at most.
AT_ONCE = 2
MOST_WAITING = 16
# What is remembered: of more, those that were tried the longest ago are forgotten.
MOST_KNOWN = 10_000
FORGOTTEN_SECONDS = 3_600.0


class Limit(NamedTuple):
    """So many wrong tries cost nothing; each further one doubles the wait, from a second up to `longest`."""

    free: int
    longest: float


LIMITS = {
    "pair": Limit(5, 900.0),
    "address": Limit(20, 900.0),
    "name": Limit(50, 60.0),
    "browser": Limit(10, 300.0),
}

Key = tuple[str, str]


def keys_of(name: str, client: str, browser: str | None) -> Sequence[Key]:
    """What a try counts for. `browser`: what tells one from which this account has logged in before."""
    if browser is not None:
        return (("browser", browser),)
    address = _network(client)
    return (("pair", f"{address} {name}"), ("address", address), ("name", name))


def _network(client: str) -> str:
    """Of an IPv6 address the network: whoever has one has 2⁶⁴ of them."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    return str(IPv6Address(int(address) >> 64 << 64)) if isinstance(address, IPv6Address) else client


class Gate:
    """`ticks`: seconds of a clock that can't jump."""

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        # How many wrong tries, and when the last was.
        self._known: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._waiting = 0

    def wait(self, keys: Sequence[Key]) -> float:
        """How long (s) nothing is tried for these; 0: now."""
        return max(self._wait(key) for key in keys)

    def _wait(self, key: Key) -> float:
        count, at = self._known.get(key, (0, 0.0))
        limit = LIMITS[key[0]]
        if count <= limit.free:
            return 0.0
        # Beyond so many doublings it is the longest anyway.
        pause = min(2.0 ** min(count - limit.free - 1, 30), limit.longest)
        return max(0.0, at + pause - self._ticks())

    def tried(self, keys: Sequence[Key]) -> None:
        """Before it is known what comes of it: of many at once none is for nothing."""
        now = self._ticks()
        for key in keys:
            count, at = self._known.pop(key, (0, now))
            self._known[key] = (1 if at < now - FORGOTTEN_SECONDS else count + 1, now)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def passed(self, keys: Sequence[Key]) -> None:
        """It was right: what was tried in this way is forgotten, but not what the address or others tried elsewhere."""
        for key in keys:
            count, at = self._known.pop(key, (0, 0.0))
            if key[0] in ("address", "name") and count > 1:
                self._known[key] = (count - 1, at)

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A slow function of a password, on a thread; others go on meanwhile. Raises Busy."""
        if self._waiting >= MOST_WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))
        finally:
            self._waiting -= 1
