"""Faults that the dispatcher doesn't have, planted to see that the matrix finds them."""

from collections.abc import Callable, Sequence
from typing import Any

from dispatcher.accept import intake
from dispatcher.dispatch import Dispatch
from dispatcher.ground.policy import Reason
from dispatcher.store import corridor
from dispatcher.store.engine import Database
from dispatcher.wire import PinnedTransport
from tests.crashes.tripwire import Tripwire, around


def _promise_early(tripwire: Tripwire) -> None:
    """`enqueue` counts as accepted what is not on disk yet."""

    def accepting(inner: Callable[..., Any]) -> Callable[..., Any]:
        def accept(database: Database, events: Sequence[Any], now: int) -> Any:
            tripwire.tell("accepted", ["accepted"])
            return inner(database, events, now)

        return accept

    around(intake, "accept", accepting)


def _half_batches(tripwire: Tripwire) -> None:
    """A batch is committed in two parts, and it is in the second one that a process dies."""

    def accepting(inner: Callable[..., Any]) -> Callable[..., Any]:
        def accept(database: Database, events: Sequence[Any], now: int) -> Any:
            half = len(events) // 2
            tripwire.is_deaf = True
            first = inner(database, events[:half], now)
            # One event alone has no halves.
            tripwire.is_deaf = not half
            return first + inner(database, events[half:], now)

        return accept

    around(intake, "accept", accepting)


def _claim_unwritten(tripwire: Tripwire) -> None:
    """What is sent was never claimed in the store, as far as anybody sees after the crash."""
    opened: list[Database] = []

    def claiming(inner: Callable[..., Any]) -> Callable[..., Any]:
        def turn(database: Database, *given: Any) -> Any:
            opened[:] = [database]
            return inner(database, *given)

        return turn

    def last() -> None:
        with opened[0].writing() as connection:
            connection.exec_driver_sql(
                "UPDATE deliveries SET status = 'pending', due_at = claimed_at, attempts = attempts - 1,"
                " worker = NULL, token = NULL, claimed_at = NULL WHERE status = 'sending'"
            )

    around(corridor, "turn", claiming)
    tripwire.last = last


def _no_rescue(_tripwire: Tripwire) -> None:
    """Nobody looks for what was left behind."""

    async def rescue(_dispatch: Dispatch, _before: int) -> None:
        """Nothing."""

    around(Dispatch, "rescue", lambda _inner: rescue)


def _unrecorded(_tripwire: Tripwire) -> None:
    """The attempt that was cut off is not written down."""

    def inserting(inner: Callable[..., Any]) -> Callable[..., Any]:
        def insert_attempts(connection: Any, rows: Sequence[Sequence[Any]]) -> None:
            inner(connection, [row for row in rows if Reason.INTERRUPTED not in row])

        return insert_attempts

    around(corridor, "insert_attempts", inserting)


def _sent_twice(_tripwire: Tripwire) -> None:
    """The transport sends every request again."""

    def exchanging(inner: Callable[..., Any]) -> Callable[..., Any]:
        async def exchange(*given: Any) -> Any:
            await inner(*given)
            return await inner(*given)

        return exchange

    around(PinnedTransport, "exchange", exchanging)


PLANTS: dict[str, Callable[[Tripwire], None]] = {
    "promise-early": _promise_early,
    "half-batches": _half_batches,
    "claim-unwritten": _claim_unwritten,
    "no-rescue": _no_rescue,
    "unrecorded": _unrecorded,
    "sent-twice": _sent_twice,
}
