"""What the work costs as the store grows: claim and settle, the log, and keeping only what is wanted."""

import hashlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from dispatcher.events import Event
from dispatcher.policy import Claim, Outcome, Verb, Verdict
from dispatcher.store import corridor
from dispatcher.store.corridor import Settlement
from dispatcher.store.engine import Database

AT_ONCE = 128
_BODY = '{"order_no":"1","uid":"u","total_bet":"12.25","total_win":"1.50","business":"Spin","game_id":7}' + " " * 100


class Cost(NamedTuple):
    """µs for each delivery, the commit's share included."""

    accept: float
    claim_settle: float


def events(first: int, count: int, *, operators: int = 1) -> list[Event]:
    """So many spins, each operator's in its turn."""
    return [
        Event(
            operator=f"op-{n % operators:04d}",
            type="notice",
            key=str(2_000_000_000_000_000_000 + n),
            uid=f"player-{n * 7_919 % 200_000}",
            body=_BODY,
            digest=hashlib.sha256(str(n).encode()).digest(),
            bearer=None,
            sequence=None,
        )
        for n in range(first, first + count)
    ]


def delivered(claims: Sequence[Claim], now: int) -> list[Settlement]:
    return [Settlement(one, Outcome(now, now + 20_000, 20_000, 200), Verdict(Verb.DELIVER)) for one in claims]


def cost(database: Database, first: int, count: int, *, operators: int = 1) -> Cost:
    """Accepts so many, numbered from `first`, and drains as many, oldest first, in turns as the daemon makes them."""
    given = events(first, count, operators=operators)
    started = time.perf_counter()
    for start in range(0, count, 1_000):
        corridor.accept(database, given[start : start + 1_000], _now())
    accepted = time.perf_counter()
    drained = drain(database, count, operators=operators)
    ended = time.perf_counter()
    return Cost((accepted - started) / count * 1e6, (ended - accepted) / drained * 1e6)


def drain(database: Database, count: int, *, operators: int = 1) -> int:
    """Claims and settles until so many are delivered; how many it were."""
    claims: list[Claim] = []
    drained, turn = 0, 0
    while drained < count:
        some = [f"op-{(turn * AT_ONCE + n) % operators:04d}" for n in range(AT_ONCE)]
        turn += 1
        wanted = dict.fromkeys(some, max(1, AT_ONCE // operators))
        now = _now()
        claims = corridor.turn(database, delivered(claims, now), wanted, now).claimed
        drained += len(claims)
    corridor.turn(database, delivered(claims, _now()), {}, _now())
    return drained


def _now() -> int:
    return time.time_ns() // 1_000
