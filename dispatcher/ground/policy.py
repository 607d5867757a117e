"""What follows from an attempt: statuses, reasons, what counts as a yes, and the judge. Pure: time is an argument.

Source: wire-contract.md (success, attempts, failure reasons); house.md (the life of one delivery).
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.errors import Unfit
from dispatcher.ground.events import parse_json
from dispatcher.ground.schedule import Delays, Schedule

MAX_CODE = 64
# Of what an operator says of a failure; a log line is no place for 64 KiB of it.
MAX_WORDS = 1024
# How long a delivery waits after a fault of our own, which costs it no attempt.
PUT_OFF = 5 * SECOND
LONG_PUT_OFF = MINUTE


class Status(StrEnum):
    """Where a delivery stands. There is no `retrying`: one that waits is pending with a later `due_at`."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"
    RESOLVED = "resolved"


class Verb(StrEnum):
    """What can happen to a delivery."""

    CLAIM = "claim"
    DELIVER = "deliver"
    RETRY = "retry"
    BURY = "bury"
    PUT_OFF = "put_off"
    REPLAY = "replay"
    RESOLVE = "resolve"


MOVES: dict[tuple[Status, Verb], Status] = {
    (Status.PENDING, Verb.CLAIM): Status.SENDING,
    (Status.SENDING, Verb.DELIVER): Status.DELIVERED,
    (Status.SENDING, Verb.RETRY): Status.PENDING,
    (Status.SENDING, Verb.BURY): Status.DEAD,
    (Status.SENDING, Verb.PUT_OFF): Status.PENDING,
    (Status.DEAD, Verb.REPLAY): Status.PENDING,
    (Status.DEAD, Verb.RESOLVE): Status.RESOLVED,
    (Status.RESOLVED, Verb.REPLAY): Status.PENDING,
}


def move(status: Status, verb: Verb) -> Status:
    """The status that follows. What is absent from MOVES raises KeyError: it is a bug, or a refusal to word."""
    return MOVES[status, verb]


class Reason(StrEnum):
    """Why an attempt failed (wire-contract.md, Failure reasons)."""

    DNS = "dns"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    BLOCKED_ADDRESS = "blocked_address"
    WRITE_ERROR = "write_error"
    READ_TIMEOUT = "read_timeout"
    RESET = "reset"
    INTERRUPTED = "interrupted"
    REDIRECT = "redirect"
    HTTP_STATUS = "http_status"
    BODY_TOO_LARGE = "body_too_large"
    BODY_NOT_JSON = "body_not_json"
    BODY_FIELD = "body_field"
    CONFIG = "config"

    @property
    def ambiguous(self) -> bool:
        """True where the operator may have booked it all the same."""
        return self in _AMBIGUOUS


_AMBIGUOUS = frozenset({Reason.READ_TIMEOUT, Reason.RESET, Reason.INTERRUPTED})


class Trigger(StrEnum):
    """What brought an attempt about."""

    FIRST = "first"
    RETRY = "retry"
    REPLAY = "replay"


class Claim(NamedTuple):
    """A delivery in this process's hands: the row as claimed. Only `token` makes it ours to settle.

    `bearer` is the player's token as the vault locked it; `sequence` the line it stands in; `probes` how many of the
    run's attempts count for no schedule.
    """

    id: int
    operator: str
    type: str
    key: str
    uid: str
    body: str
    bearer: str | None
    attempt: int
    run_from: int
    anchor_at: int | None
    due_at: int
    token: int
    ambiguous: bool
    sequence: str | None = None
    probes: int = 0

    def __repr__(self) -> str:
        """Whose it is and which attempt; never the player's token, nor what was won."""
        return f"Claim({self.operator} {self.type} {self.key}, attempt {self.attempt})"

    @property
    def failures(self) -> int:
        """How many attempts of the run will have failed by the schedule's count, should this one fail."""
        return self.attempt - self.run_from - self.probes

    @property
    def trigger(self) -> Trigger:
        """`run_from` counts the attempts made before the current run; a replay starts a new run."""
        if self.attempt - self.run_from > 1:
            return Trigger.RETRY
        return Trigger.REPLAY if self.run_from else Trigger.FIRST


class Outcome(NamedTuple):
    """What came of one POST. `reason` is set where no whole answer came; the judge decides the rest.

    `started_at`, `ended_at`: µs since 1970 by the wall clock; `duration`: µs by a clock that
    can't jump, None where our own crash cut it short. `retry_after`: what the operator asked for with 429 or 503 (µs).
    `ours`: the fault is on our side and the request never left: no attempt of the delivery's.
    """

    started_at: int
    ended_at: int
    duration: int | None
    http_status: int | None = None
    reason: Reason | None = None
    body: bytes = b""
    truncated: bool = False
    detail: str | None = None
    key_version: int | None = None
    retry_after: int | None = None
    ours: bool = False


class Verdict(NamedTuple):
    """What becomes of the delivery: the verb, when it is due again, why, and what the operator said.

    `anchor_at`: the end of the run's first attempt, on the operator's own clock (see `judge`); `probe`: it is recorded,
    and counts for no schedule.
    """

    verb: Verb
    due_at: int | None = None
    reason: Reason | None = None
    code: str | None = None
    words: str | None = None
    anchor_at: int | None = None
    probe: bool = False

    @property
    def status(self) -> Status:
        return move(Status.SENDING, self.verb)


@dataclass(frozen=True, slots=True)
class Rule:
    """What counts as a yes, as data: the HTTP status and, where `field` or `numeric` is set, the JSON body.

    `field` is the path to the value that must be one of `values`; text and numbers differ unless `coerce` is on.
    `extra` are further codes that count as a yes, `final` are codes that end it at once; both as text.
    """

    statuses: frozenset[int] = frozenset({200})
    field: tuple[str, ...] = ()
    values: tuple[object, ...] = ()
    numeric: tuple[str, ...] = ()
    coerce: bool = False
    extra: frozenset[str] = frozenset()
    final: frozenset[str] = frozenset()

    @property
    def reads_body(self) -> bool:
        return bool(self.field or self.numeric)


class Answer(NamedTuple):
    """What an operator's answer says by a rule: why it is no yes (None for a yes), its code, its own words."""

    failure: Reason | None
    code: str | None = None
    words: str | None = None


_ABSENT = object()
_WORDS = ("desc", "description", "message", "msg", "errmsg", "err_text", "error")


def read_answer(outcome: Outcome, rule: Rule) -> Answer:
    """The answer by the rule. A redirect is never followed and never a yes, unless its status is named."""
    if outcome.reason is not None:
        return Answer(outcome.reason)
    body = _parsed(outcome) if rule.reads_body else None
    code = _code(_at(body, rule.field)) if rule.field else None
    said = next((body[name] for name in _WORDS if body.get(name)), None) if isinstance(body, dict) else None
    words = None if said is None else str(said)[:MAX_WORDS]
    return Answer(_failure(outcome, rule, body), code, words)


def _failure(outcome: Outcome, rule: Rule, body: object) -> Reason | None:
    status = outcome.http_status
    if status not in rule.statuses:
        return Reason.REDIRECT if status is not None and 300 <= status < 400 else Reason.HTTP_STATUS
    if not rule.reads_body:
        return None
    if outcome.truncated:
        return Reason.BODY_TOO_LARGE
    if not isinstance(body, dict):
        return Reason.BODY_NOT_JSON
    if rule.numeric and type(_at(body, rule.numeric)) not in (int, Decimal):
        return Reason.BODY_FIELD
    return None if not rule.field or _accepts(rule, _at(body, rule.field)) else Reason.BODY_FIELD


def _accepts(rule: Rule, value: object) -> bool:
    # With their types: in JSON true is not 1, and "0000" is not 0.
    if any(type(value) is type(wanted) and value == wanted for wanted in rule.values):
        return True
    if isinstance(value, str) and value in rule.extra:
        return True
    return rule.coerce and _code(value) in {*map(_code, rule.values), *rule.extra}


def _parsed(outcome: Outcome) -> object:
    try:
        return parse_json(outcome.body)
    except Unfit:
        return None


def _at(body: object, path: tuple[str, ...]) -> object:
    for name in path:
        body = body.get(name, _ABSENT) if isinstance(body, dict) else _ABSENT
    return body


def _code(value: object) -> str | None:
    return str(value)[:MAX_CODE] if type(value) in (str, int, Decimal, bool) else None


def judge(
    claim: Claim,
    outcome: Outcome,
    schedule: Schedule,
    rule: Rule,
    closed: int = 0,
    *,
    probe: bool = False,
    kept: int = 0,
) -> Verdict:
    """Deliver, retry until …, put off, or bury.

    `closed`: for how long (µs, in all, up to now) the operator has been paused or held. Windows are measured on the
    operator's own clock, which stands still then: the time less `closed`. So no pause uses a window up.
    `probe`: it was sent only to see whether a held operator is back. Where that is not, nothing is used up: it is due
    again at once, behind whatever waits for longer, and goes out when the hold lets it.
    `kept`: how much of `closed` fell after the delivery was due; only asked for a fault of our own.
    """
    if outcome.ours:
        return _put_off(claim, outcome, kept)
    reason, code, words = read_answer(outcome, rule)
    anchor_at = outcome.ended_at - closed if claim.anchor_at is None else claim.anchor_at
    said = Verdict(Verb.DELIVER, None, reason, code, words, anchor_at)
    if reason is None:
        return said
    if code is not None and code in rule.final:
        return said._replace(verb=Verb.BURY)
    if probe:
        return said._replace(verb=Verb.RETRY, due_at=outcome.ended_at, probe=True)
    asked = outcome.retry_after or 0
    due_at = schedule.next_due(claim.failures, anchor_at + closed, outcome.ended_at, asked)
    return said._replace(verb=Verb.BURY if due_at is None else Verb.RETRY, due_at=due_at)


def _put_off(claim: Claim, outcome: Outcome, kept: int) -> Verdict:
    """A fault of our own: no attempt, and the time from when it was due until it is again is in no window.

    What it was `kept` waiting by a pause or a hold meanwhile is in none already.
    """
    # A token that can't be unlocked waits for a person; what keeps requests from leaving is often over soon.
    due_at = outcome.ended_at + (LONG_PUT_OFF if outcome.reason is Reason.CONFIG else PUT_OFF)
    anchor_at = None if claim.anchor_at is None else claim.anchor_at + max(0, due_at - claim.due_at - kept)
    return Verdict(Verb.PUT_OFF, due_at, outcome.reason, anchor_at=anchor_at)


def judge_interrupted(claim: Claim, now: int, schedule: Schedule, closed: int = 0) -> Verdict:
    """Our own crash: the attempt counts, and the delivery goes on at once (wire-contract.md, Ambiguities).

    A window that ended while we were down does not end it: whether the operator is well now, nobody has tried.
    """
    anchor_at = now - closed if claim.anchor_at is None else claim.anchor_at
    over = isinstance(schedule, Delays) and schedule.next_due(claim.failures, now, now) is None
    verb, due_at = (Verb.BURY, None) if over else (Verb.RETRY, now)
    return Verdict(verb, due_at, Reason.INTERRUPTED, anchor_at=anchor_at)
