"""One operator's share of the corridor: how much is under way, and whether anything may be sent to it now."""

from dataclasses import dataclass
from enum import StrEnum

from dispatcher.operator import Operator
from dispatcher.policy import Verb, Verdict
from dispatcher.seal import Seal
from dispatcher.store.operators import Standing
from dispatcher.wire import Grant, Transport


class Turn(StrEnum):
    """What an attempt's end may do to its operator."""

    HOLD = "hold"
    RELEASE = "release"


@dataclass(slots=True)
class Lane:
    """`seal` is None where nothing is encrypted, `grant` where no OAuth2 token is fetched.

    `hungry`: there may be something due that is not claimed yet. `closed_since` and `closed_total` (µs): since when it
    is paused or held, and for how long it was before. `failures`: attempts that failed in a row.
    """

    operator: Operator
    seal: Seal | None
    transport: Transport
    grant: Grant | None = None
    key_version: int | None = None
    in_flight: int = 0
    hungry: bool = False
    paused: bool = False
    held: bool = False
    probe_at: int = 0
    failures: int = 0
    closed_since: int | None = None
    closed_total: int = 0

    def places(self, now: int) -> int:
        """How many more may be sent now; while it is held one at a time, to see whether it is back."""
        if self.paused:
            return 0
        if self.held:
            return 1 if self.in_flight == 0 and now >= self.probe_at else 0
        return max(0, self.operator.concurrency - self.in_flight)

    def closed(self, now: int) -> int:
        """For how long it was paused or held up to now (µs), in all."""
        return self.closed_total + (max(0, now - self.closed_since) if self.closed_since is not None else 0)

    def take(self, fresh: "Lane") -> None:
        """New settings, for attempts that begin from now on; what is under way ends with those it began with."""
        self.operator, self.seal, self.transport, self.grant = fresh.operator, fresh.seal, fresh.transport, fresh.grant
        self.key_version = fresh.key_version

    def stand(self, standing: Standing) -> bool:
        """As the database has it: paused or held by whomever. True where it is held and has no breaker any more."""
        held = standing.held_at is not None
        if self.held and not held:
            self.failures = 0
        self.paused, self.held = standing.paused_at is not None, held and self.operator.breaker is not None
        self.closed_since, self.closed_total = standing.closed_since, standing.closed_total
        return held and not self.held

    def note(self, verdict: Verdict, now: int) -> Turn | None:
        """Counts what came of an attempt; tells when the operator is to be held, or to be released."""
        breaker = self.operator.breaker
        if verdict.verb is Verb.PUT_OFF:
            return None
        if verdict.verb is Verb.DELIVER:
            self.failures = 0
            if self.held:
                self.held = False
                return Turn.RELEASE
            return None
        self.failures += 1
        if breaker is None:
            return None
        self.probe_at = now + breaker.probe
        if self.held or self.failures < breaker.failures:
            return None
        self.held = True
        if self.closed_since is None:
            self.closed_since = now
        return Turn.HOLD
