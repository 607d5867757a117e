"""The spins that every contender delivers: the same JSON, in the same order, to the same paths."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

FAST = "/fast"
SLOW = "/slow"


class Order(NamedTuple):
    """One spin, and the path of the operator that is to be told; its own part of the path names the operator."""

    number: int
    path: str
    uid: str

    @property
    def event(self) -> dict[str, Any]:
        """The spin as it is encrypted; its figures are the same as JSON numbers and as decimals."""
        bet = self.number % 100 + 0.25
        return {
            "order_no": f"{self.number:019d}",
            "total_bet": bet,
            "total_win": 1.5,
            "net_win": 1.5 - bet,
            "business": "Spin",
            "game_id": 7,
            "time": 1700000000,
        }


def orders(count: int, start: int = 0, paths: Sequence[str] = (FAST,), players: int = 1_000) -> list[Order]:
    """`count` spins numbered from `start`, to each of the paths by turns; a player's are far apart."""
    return [Order(n, paths[n % len(paths)], f"player-{n * 7_919 % players:06d}") for n in range(start, start + count)]


def operator(path: str) -> str:
    """The name of the operator at this path."""
    return path.strip("/").replace("/", "-")


def as_events(given: Iterable[Order]) -> bytes:
    """NDJSON for `dispatcher enqueue`."""
    return _lines({"operator": operator(one.path), "type": "notice", "uid": one.uid, **one.event} for one in given)


def as_jobs(given: Iterable[Order]) -> bytes:
    """NDJSON for the peers' queues."""
    return _lines({"path": one.path, "uid": one.uid, "event": one.event} for one in given)


def _lines(values: Iterable[Any]) -> bytes:
    return b"".join(_line(values))


def _line(values: Iterable[Any]) -> Iterator[bytes]:
    for value in values:
        yield json.dumps(value, separators=(",", ":")).encode() + b"\n"
