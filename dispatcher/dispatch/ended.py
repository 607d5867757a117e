"""An attempt that is over, judged by what is known of its operator; and whether that is young enough to settle by."""

import time
from typing import NamedTuple

from dispatcher.dispatch.lane import Lane
from dispatcher.ground.clock import SECOND
from dispatcher.ground.policy import Claim, Outcome, Reason, Rule, Verb, Verdict, judge, judge_interrupted
from dispatcher.ground.schedule import Interval, Schedule
from dispatcher.store.corridor import Settlement
from dispatcher.tracing import Attempt

# How operators stand is asked every five seconds; whoever has not heard for longer stood still, or the store was away.
YOUNG = 6 * SECOND


class Ended(NamedTuple):
    """What came of one attempt, and by what it is judged.

    `known`: how long (µs) the operator had been closed before, when it ended, but for a closing that went on.
    """

    lane: Lane
    claim: Claim
    outcome: Outcome
    schedule: Schedule
    rule: Rule
    probe: bool
    known: int
    span: Attempt | None

    def judged(self) -> Verdict:
        """By what is known now of how its operator stood when it ended."""
        lane, claim, outcome, schedule, rule, probe, known, _ = self
        closed = lane.closed_by(outcome.ended_at, known)
        kept = max(0, closed - lane.closed_by(claim.due_at)) if outcome.ours else 0
        return judge(claim, outcome, schedule, rule, closed, probe=probe, kept=kept)

    def settlement(self, verdict: Verdict) -> Settlement:
        """Nothing changes the verdict any more."""
        if self.span is not None:
            self.span.end(self.outcome, verdict)
        return Settlement(self.claim, self.outcome, verdict, self.lane.operator.blocks)

    def ends_its_window(self, verdict: Verdict) -> bool:
        """True where it dies since its operator has stood open for too long, which a pause not heard of disproves."""
        return verdict.verb is Verb.BURY and isinstance(self.schedule, Interval)


class Heard:
    """When the worker last asked how its operators stand: by the clock that times them, and by one that can't jump."""

    def __init__(self) -> None:
        self._at = 0
        self._ticks = 0.0

    def asked(self, now: int, ticks: float) -> None:
        """`now` in µs, `ticks` in s: from before the question."""
        self._at, self._ticks = now, ticks

    @property
    def ago(self) -> float:
        """How long ago (s) that was, by the clock that can't jump."""
        return time.monotonic() - self._ticks

    def young(self, at: int) -> bool:
        """Whether that is to be relied on for what ended at `at` (µs), a moment ago."""
        return 0 <= at - self._at <= YOUNG and time.monotonic() - self._ticks <= YOUNG / SECOND


def interrupted(lane: Lane | None, claim: Claim, claimed_at: int, now: int) -> Settlement:
    """What was left behind: an attempt of which nobody knows anything but that it was begun."""
    outcome = Outcome(claimed_at, now, None, reason=Reason.INTERRUPTED, detail="the worker died during the attempt")
    if lane is None:
        # Whose schedule nobody knows is not dead by another's: it waits until it is configured again.
        return Settlement(claim, outcome, Verdict(Verb.RETRY, now, Reason.INTERRUPTED, anchor_at=claim.anchor_at))
    schedule = lane.terms(claim.type).schedule
    return Settlement(claim, outcome, judge_interrupted(claim, now, schedule, lane.closed(now)), lane.operator.blocks)
