"""One operator's share of the corridor: how much is under way, and whether anything may be sent to it now."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from dispatcher.dispatch.form import Form, form_of
from dispatcher.dispatch.shares import SLOW
from dispatcher.ground.operator import Auth, Operator, Terms
from dispatcher.ground.policy import PUT_OFF, Outcome, Reason, Rule, Verb, Verdict
from dispatcher.ground.schedule import Delays
from dispatcher.seal import Seal
from dispatcher.store.operators import Closing, Standing
from dispatcher.store.workers import Crew
from dispatcher.wire import Grant, Transport

ALONE = Crew()
# For a message type of another version of ours: nobody here can say anything of it.
UNKNOWN = Terms(None, Auth.NONE, Delays(), Rule())
# Stops; of a pause or a hold that is further back, a put-off takes that it was none.
REMEMBERED = 64


class Turn(StrEnum):
    """What an attempt's end may do to its operator."""

    HOLD = "hold"
    RELEASE = "release"


class Change(NamedTuple):
    """An operator is held or released as of `at` (µs), whenever that comes to be written."""

    operator: str
    turn: Turn
    at: int


@dataclass(slots=True)
class Lane:
    """`seal` is None where nothing is encrypted, `grant` where no OAuth2 token is fetched.

    `hungry`: there may be something due that is not claimed yet. `proven`: an attempt has ended, the latest at
    `moved_at` and in `pace` (µs). `closed_since`, `closed_total` (µs): since when it is paused or held, and how long it
    was before; `closings`: the same for each time that this worker has heard of. `failures`: attempts that failed in a
    row, the first of them at `failing_since` (µs). `cut_off`: the last request did not leave this machine. While it is
    that, or held, nothing is sent before `rest_until`. `unwritten`: what the database does not have yet; it stands all
    the same. `forms`: by message type, as it is needed.
    """

    operator: Operator
    seal: Seal | None
    transport: Transport
    grant: Grant | None = None
    key_version: int | None = None
    in_flight: int = 0
    proven: bool = False
    pace: int = 0
    moved_at: int = 0
    hungry: bool = False
    paused: bool = False
    held: bool = False
    cut_off: bool = False
    rest_until: int = 0
    rest: int = 0
    failures: int = 0
    failing_since: int = 0
    closed_since: int | None = None
    closed_total: int = 0
    closings: deque[Closing] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    unwritten: list[Change] = field(default_factory=list)
    forms: dict[str, Form] = field(default_factory=dict)

    def places(self, now: int, crew: Crew = ALONE) -> int:
        """How many more one of this crew may send now; while it is held one at a time, to see whether it is back."""
        if self.paused or self.rests(now):
            return 0
        most = 1 if self.held else crew.share(self.operator.concurrency)
        return max(0, most - self.in_flight)

    def begin(self, now: int) -> None:
        """One more is under way."""
        if not self.in_flight:
            self.moved_at = now
        self.in_flight += 1

    def end(self, outcome: Outcome) -> None:
        """One of those under way is over."""
        self.in_flight -= 1
        self.proven = True
        self.moved_at, self.pace = outcome.ended_at, outcome.ended_at - outcome.started_at

    def slow(self, now: int) -> bool:
        """Its latest answer took long, or none has come for long, or none at all."""
        return not self.proven or self.pace > SLOW or (self.in_flight > 0 and now - self.moved_at > SLOW)

    def rests(self, now: int) -> bool:
        """True where the next one is not to be tried yet; a clock that was set back makes nobody wait longer."""
        return (self.held or self.cut_off) and 0 < self.rest_until - now <= self.rest

    def closed(self, now: int) -> int:
        """For how long it was paused or held up to now (µs), in all."""
        return self.closed_total + (max(0, now - self.closed_since) if self.closed_since is not None else 0)

    def closed_by(self, at: int, known: int = 0) -> int:
        """As `closed`, for a moment that is past: but for what came after it, as far as that was read.

        `known`: what had been added up by then. A clock that was set back since does not take it away.
        """
        total = self.closed(at)
        for since, before in reversed(self.closings):
            if before < known:
                break
            if at >= since:
                return min(total, before + at - since)
            total = before
        return total

    def take(self, fresh: "Lane") -> None:
        """New settings, for attempts that begin from now on; what is under way ends with those it began with."""
        self.operator, self.seal, self.transport, self.grant = fresh.operator, fresh.seal, fresh.transport, fresh.grant
        self.key_version = fresh.key_version
        self.forms = {}

    def terms(self, kind: str) -> Terms:
        """What the operator wants of this message type."""
        return self.operator.terms.get(kind, UNKNOWN)

    def form(self, kind: str) -> Form:
        """Of this message type, by the settings in force. Raises Unfit where the operator takes no such message."""
        found = self.forms.get(kind)
        if found is None:
            found = self.forms[kind] = form_of(self.operator, self.seal, self.key_version, kind)
        return found

    def stand(self, standing: Standing, closings: Sequence[Closing] = ()) -> bool:
        """As the database has it: paused or held by whomever. True where it is held and has no breaker any more."""
        was_held, self.held = self.held, standing.held_at is not None
        self.paused = standing.paused_at is not None
        self.closed_since, self.closed_total = standing.closed_since, standing.closed_total
        self.closings = deque(closings, maxlen=REMEMBERED)
        self._remember()
        for change in self.unwritten:
            self._turn(change)
        orphaned = self.held and self.operator.breaker is None
        self.held = self.held and not orphaned
        if was_held and not self.held:
            self.failures = 0
        return orphaned

    def note(self, verdict: Verdict, now: int) -> Change | None:
        """Counts what came of an attempt; tells when the operator is held by it, or released."""
        breaker = self.operator.breaker
        # What keeps one request from leaving keeps the others too: a backlog is not taken up to be put back.
        # A token that can't be unlocked is its own delivery's matter.
        self.cut_off = verdict.verb is Verb.PUT_OFF and verdict.reason is not Reason.CONFIG
        if verdict.verb is Verb.DELIVER:
            self.failures = 0
            return self._changed(Turn.RELEASE, now) if self.held else None
        self.rest = PUT_OFF if breaker is None or (self.cut_off and not self.held) else breaker.probe
        self.rest_until = now + self.rest
        if verdict.verb is Verb.PUT_OFF:
            return None
        if not self.failures:
            self.failing_since = now
        self.failures += 1
        if breaker is None or self.held or self.failures < breaker.failures:
            return None
        return self._changed(Turn.HOLD, now)

    def wrote(self, change: Change) -> None:
        """The database has it now."""
        self.unwritten = [one for one in self.unwritten if one is not change]

    def _changed(self, turn: Turn, now: int) -> Change:
        change = Change(self.operator.name, turn, now)
        self._turn(change)
        self.unwritten.append(change)
        return change

    def _turn(self, change: Change) -> None:
        """As `store.operators` does it in the database."""
        self.held = change.turn is Turn.HOLD
        if self.held:
            self.closed_since = change.at if self.closed_since is None else min(self.closed_since, change.at)
            self._remember()
        elif not self.paused:
            self.closed_total, self.closed_since = self.closed(change.at), None

    def _remember(self) -> None:
        known = self.closings[-1] if self.closings else None
        if self.closed_since is not None and known != (self.closed_since, self.closed_total):
            self.closings.append(Closing(self.closed_since, self.closed_total))
