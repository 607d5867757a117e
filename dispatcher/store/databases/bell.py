"""How whoever commits new work tells those who wait for it, whichever the store is."""

from collections.abc import Collection
from typing import NamedTuple, Protocol


class Heard(NamedTuple):
    """The operators of whom it was said that they have work, and whether that is not all there is to look for."""

    operators: frozenset[str]
    more: bool


class Bell(Protocol):
    """Whoever commits new work rings; an idle worker hears it at once.

    Losing a ring loses nothing: the row is there, and a worker also looks by itself every few seconds.
    """

    def ring(self, operators: Collection[str] = ()) -> None:
        """These have new work that is due; nobody named: something has changed.

        Raises nothing: what was committed stands, whoever hears of it.
        """

    def listen(self) -> int | None:
        """A file descriptor that turns readable on a ring; None where rings can't be heard.

        Raises Refused, and StoreUnavailable.
        """

    def heard(self) -> Heard | None:
        """Empties the descriptor. None where it is of no use any more: listen again."""

    def deafen(self) -> None:
        """Nobody listens any more."""
