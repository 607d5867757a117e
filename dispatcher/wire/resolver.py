"""Host names to addresses, and whose fault it is when there is none."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dispatcher.ground.egress import Address, parse_address
from dispatcher.wire.failures import DnsFailure

DNS_KEPT_SECONDS = 30.0
# Look-ups under way at once, and beside them those that hang. A thread that hangs in one can't be stopped, so there
# must not be one for each attempt; and whoever hangs must not hold the places of those that don't.
MAX_LOOK_UPS = 16
MAX_HANGING = 112
# A look-up without an answer for so long hangs.
HANGS_SECONDS = 1.0

# What getaddrinfo says when nobody answered, or somebody who could not: the resolver's word about itself. That a name
# does not exist (EAI_NONAME, EAI_NODATA) is the resolver's word about the name, so it is at work.
# (EAI_SYSTEM comes as a plain OSError.) EAI_FAIL is what a resolver gives that does not serve us.
_NO_ANSWER = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY})
# Names that this machine answers by itself (RFC 6761, section 6.3): that they have an address proves nothing.
_OWN_NAMES = frozenset({"localhost"})

Found = Sequence[tuple[Any, ...]]


class Resolver:
    """Looks names up, keeps what it found for a short while; questions asked at once share one look-up.

    Whose fault is a look-up without an answer? The same error comes where our own resolver is down and where the
    zone of one operator is broken. The first must not use up anybody's attempts: for hours all operators' orders
    would die of it. The second must, or an order for a dead zone would be tried for ever. So our own resolver is
    presumed at fault (`ours`), until it proves that it works: by an answer for another name, got since this one began
    to fail and before this attempt asked. That answer may be that the name does not exist. What is kept, and numeric
    hosts, prove nothing. Names in /etc/hosts can't be told from real answers here, and then it counts as the
    operator's: at worst an attempt is used up. The mistake the other way is worse only where one operator is alone:
    nothing else is asked for, and a broken zone looks like ours until somebody reads the log.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, asyncio.Task[Sequence[Address]]]] = {}
        self._places = asyncio.Semaphore(MAX_LOOK_UPS)
        self._hanging_places = asyncio.Semaphore(MAX_HANGING)
        # Whose latest look-up hung: the next one takes a place among those from the start.
        self._hung: set[str] = set()
        # Monotonic s: since when a host fails, and when the latest look-up of any host was answered. An answer for a
        # host ends its failing, so for one that still fails the latest answer was for another.
        self._failing: dict[str, float] = {}
        self._answered = -math.inf

    async def addresses(self, host: str) -> tuple[Sequence[Address], float]:
        """The host's addresses and until when they are kept (monotonic s). Raises DnsFailure, which is not kept."""
        literal = parse_address(host)
        if literal is not None:
            return [literal], math.inf
        until, lookup = self._kept.get(host, (0.0, None))
        # One that hangs is waited for, not asked again: each would cost a further thread.
        if lookup is None or (lookup.done() and (until < time.monotonic() or lookup.exception())):
            lookup = asyncio.create_task(self._look_up(host))
            lookup.add_done_callback(_heard)
            until = time.monotonic() + DNS_KEPT_SECONDS
            self._kept[host] = until, lookup
        # Shielded: one attempt that runs out of time must not cancel the look-up of all the others.
        return await asyncio.shield(lookup), until

    def ours(self, host: str, asked: float) -> bool:
        """Notes that `host`, asked for at `asked` (monotonic s), got no answer; True where that is presumed our fault.

        Called where a look-up failed, and where the deadline came before its end.
        """
        since = self._failing.setdefault(host, time.monotonic())
        return not since < self._answered <= asked

    async def _look_up(self, host: str) -> Sequence[Address]:
        asked = time.monotonic()
        try:
            found = await self._ask(host)
        except (OSError, UnicodeError, RuntimeError) as error:
            told = f"{host}: {getattr(error, 'strerror', None) or error}"
            # RuntimeError: no further thread can be started.
            silent = not isinstance(error, socket.gaierror | UnicodeError) or error.args[0] in _NO_ANSWER
            if silent:
                ours = self.ours(host, asked)
                raise DnsFailure(f"{told} (our own resolver's fault, it seems)" if ours else told, ours=ours) from None
            if isinstance(error, socket.gaierror):
                self._note_answer(host)
            raise DnsFailure(told) from None
        self._note_answer(host)
        addresses = [parse_address(str(entry[4][0])) for entry in found]
        if None in addresses or not addresses:
            raise DnsFailure(f"{host}: the look-up gave no usable address")
        return [address for address in dict.fromkeys(addresses) if address is not None]

    async def _ask(self, host: str) -> Found:
        """As `ask`, when a place is free. One that hangs moves to a place among its like while there is one."""
        places = self._hanging_places if host in self._hung else self._places
        await places.acquire()
        self._hung.discard(host)
        asking = asyncio.create_task(ask(host))
        asking.add_done_callback(_heard)
        try:
            while not (await asyncio.wait({asking}, timeout=HANGS_SECONDS))[0]:
                self._hung.add(host)
                if places is self._places and not self._hanging_places.locked():
                    await self._hanging_places.acquire()
                    places.release()
                    places = self._hanging_places
            return asking.result()
        finally:
            asking.cancel()
            places.release()

    def _note_answer(self, host: str) -> None:
        self._failing.pop(host, None)
        if host.lower() not in _OWN_NAMES:
            self._answered = time.monotonic()


async def ask(host: str) -> Found:
    """getaddrinfo in a thread of its own. Raises as that does; RuntimeError where no thread can be started.

    Not in the loop's executor, where a few names that hang would hold up whoever else works there; and a daemon
    thread, since one that hangs must not hold up the end of the program either.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Found] = loop.create_future()

    def settle(found: Found | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def work() -> None:
        found: Found | None = None
        failure: Exception | None = None
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except Exception as error:
            failure = error
        # Whoever asked may be gone, and the loop with it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=work, name=f"look-up {host}", daemon=True).start()
    return await answer


def _heard(lookup: asyncio.Task[Any]) -> None:
    """A look-up may fail when all who asked have gone; asyncio would report that as an error nobody saw."""
    if not lookup.cancelled():
        lookup.exception()
