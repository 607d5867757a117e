"""What an order can be when two books are compared, and what would settle it."""

from enum import Enum, StrEnum


class Mend(StrEnum):
    REPLAY = "replay"
    RESOLVE = "resolve"


class Kind(Enum):
    """`differs`: it has to be looked at. `mend`: what settles it on our side, where anything does."""

    AGREED = ("agreed", False, None)
    # Booked there, and accepted here before or after the span.
    OUTSIDE = ("outside", False, None)
    # Not delivered yet, and not booked yet.
    WAITING = ("waiting", False, None)
    MISSING_THERE = ("missing_there", True, Mend.REPLAY)
    DEAD_BOOKED = ("dead_booked", True, Mend.RESOLVE)
    # Booked, and our next attempt finds that out by itself.
    WAITING_BOOKED = ("waiting_booked", True, None)
    DELIVERED_ABSENT = ("delivered_absent", True, None)
    RESOLVED_ABSENT = ("resolved_absent", True, None)
    AMOUNTS_DIFFER = ("amounts_differ", True, None)
    BOOKED_TWICE = ("booked_twice", True, None)
    UNKNOWN_HERE = ("unknown_here", True, None)

    def __init__(self, word: str, differs: bool, mend: Mend | None) -> None:
        self.word = word
        self.differs = differs
        self.mend = mend
