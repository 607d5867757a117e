"""What a check is, and what it can come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from dispatcher.certify.orders import Content
from dispatcher.certify.text import Text


class Result(StrEnum):
    """What a check came to.

    NOT_SEEN: the answers are right and don't show what is behind them, or it needs another check that failed.
    NOT_APPLICABLE: the operator's settings have nothing that it could spoil.
    """

    PASS = "pass"
    NOT_SEEN = "not_seen"
    NOT_APPLICABLE = "not_applicable"
    WARNING = "warning"
    FAIL = "fail"


class Flaw(StrEnum):
    """The one thing in which a request differs from what production sends."""

    NONE = "none"
    LATER = "later"  # a second later by our clock: the same order with another `ts`
    WRONG_TOKEN = "wrong_token"
    NO_TOKEN = "no_token"
    WRONG_SIGNATURE = "wrong_signature"
    TAMPERED = "tampered"
    CUT = "cut"
    ANOTHERS = "anothers"
    NO_AMOUNT = "no_amount"
    NO_PLAYER = "no_player"
    UNKNOWN = "unknown"
    SLOW = "slow"


class Step(NamedTuple):
    """One order sent, `at_once` so many times at the same moment, and whether a yes is wanted.

    `level`: what it comes to where another answer comes. `tells`: it says something only at an operator that knows
    duplicates and refuses other content; elsewhere it is left out.
    """

    order: str
    content: Content = Content.USUAL
    flaw: Flaw = Flaw.NONE
    yes: bool = True
    at_once: int = 1
    level: Result = Result.FAIL
    tells: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """`needs`: checks without whose success this one says nothing. `unseen`: what no answer can show.

    `told`: unless its steps that tell are made.
    """

    name: str
    types: Sequence[str]
    steps: Sequence[Step]
    title: Text
    expected: Text
    why: Text
    mend: Text
    needs: Sequence[str] = ()
    unseen: Text | None = None
    told: bool = False
