"""One delivery's story in sentences that a support person can forward. Pure: what is known of it, and the time, go in.

What may be claimed of the booking is wire-contract.md's (Failure reasons): ambiguous is where the operator may have
booked it although no yes came.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from enum import StrEnum
from typing import Any, NamedTuple

from dispatcher.explain.case import Case, gather
from dispatcher.explain.words import TONGUES, Tongue
from dispatcher.ground.clock import GMT8, MILLISECOND, SECOND, iso, parse_moment, to_datetime
from dispatcher.ground.fields import printable
from dispatcher.ground.operator import Terms
from dispatcher.ground.policy import Reason, Status, Trigger
from dispatcher.rows import amounts
from dispatcher.store.ledger import Row

__all__ = ["Booked", "Case", "Sentence", "Story", "Zone", "booked", "explain", "gather"]

# Of what comes from outside, so much is quoted.
MOST_QUOTED = 200
# Where the operator has answered, and it was no yes.
_ANSWERED = frozenset(
    {Reason.REDIRECT, Reason.HTTP_STATUS, Reason.BODY_TOO_LARGE, Reason.BODY_NOT_JSON, Reason.BODY_FIELD}
)


class Zone(StrEnum):
    """The zone in which a story's times are told."""

    UTC = "utc"
    GMT8 = "gmt+8"


class Booked(StrEnum):
    """Whether the operator has booked it."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


class Sentence(NamedTuple):
    """One step of the story. `about`: `accepted`, `attempt`, `hand`, `booked`, `next` or `as_of`; `at` in µs."""

    about: str
    at: int | None
    text: str


class Story(NamedTuple):
    booked: Booked
    sentences: list[Sentence]

    def as_json(self) -> dict[str, object]:
        told = [{"about": one.about, "at": iso(one.at), "text": one.text} for one in self.sentences]
        return {"booked": self.booked.value, "sentences": told}


def booked(row: Row, attempts: Sequence[Mapping[str, Any]]) -> Booked:
    """A yes is one whenever it came; without one, an ambiguous attempt or one under way leaves it open."""
    if row.status == Status.DELIVERED or any(one["reason"] is None for one in attempts):
        return Booked.YES
    doubtful = row.ambiguous or any(one["ambiguous"] for one in attempts)
    return Booked.MAYBE if doubtful or row.status == Status.SENDING else Booked.NO


def explain(case: Case, now: int, language: str, zone: Zone = Zone.UTC) -> Story:
    """What was sent when, what came of it and what that means, what was done by hand, and what happens next."""
    return _Teller(case, now, TONGUES[language], zone).story()


class _Teller:
    def __init__(self, case: Case, now: int, tongue: Tongue, zone: Zone) -> None:
        self._case = case
        self._row = case.row
        self._now = now
        self._tongue = tongue
        self._zone = zone

    def story(self) -> Story:
        known = booked(self._row, self._case.attempts)
        steps = [*map(self._attempt, self._case.attempts), *map(self._by_hand, self._case.actions)]
        steps.sort(key=lambda one: one.at or 0)
        told = [self._accepted(), *steps, Sentence("booked", None, self._booked(known))]
        told.append(Sentence("next", self._row.due_at, self._joined(self._next(known))))
        zone = "UTC" if self._zone is Zone.UTC else "GMT+8"
        told.append(Sentence("as_of", self._now, self._say("as_of", at=self._at(self._now), zone=zone)))
        return Story(known, told)

    def _say(self, name: str, **given: object) -> str:
        return self._tongue.said[name].format(**given)

    def _joined(self, sentences: Iterator[str]) -> str:
        return self._tongue.join.join(sentences)

    def _quoted(self, text: object) -> str:
        """What somebody else wrote drives no terminal, and can't pass for a sentence of ours."""
        shown = printable(str(text)).replace('"', "'").replace("”", "'")
        return self._tongue.quote.format(shown if len(shown) <= MOST_QUOTED else f"{shown[:MOST_QUOTED]}…")

    def _at(self, at: int) -> str:
        there = to_datetime(at).astimezone(UTC if self._zone is Zone.UTC else GMT8)
        return there.strftime("%Y-%m-%d %H:%M:%S")

    def _accepted(self) -> Sentence:
        row = self._row
        who = {name: printable(getattr(row, name)) for name in ("type", "key", "operator", "uid")}
        text = self._say("accepted", at=self._at(row.accepted_at), **who)
        if told := ", ".join(f"{name} {amount}" for name, amount in amounts(row).items()):
            text = self._joined(iter((text, self._say("amounts", amounts=printable(told)))))
        return Sentence("accepted", row.accepted_at, text)

    def _attempt(self, attempt: Mapping[str, Any]) -> Sentence:
        at = parse_moment(attempt["started_at"], 0)
        return Sentence("attempt", at, self._joined(self._of_attempt(attempt, at)))

    def _took(self, ms: int) -> str:
        if ms * MILLISECOND < SECOND:
            return self._say("took_ms", ms=ms)
        return self._say("took", seconds=f"{ms * MILLISECOND / SECOND:.1f}")

    def _of_attempt(self, attempt: Mapping[str, Any], at: int) -> Iterator[str]:
        trigger = self._tongue.triggers[Trigger(attempt["trigger"])]
        yield self._say("attempt", n=attempt["n"], trigger=trigger, at=self._at(at))
        if attempt["duration_ms"] is not None:
            yield self._took(attempt["duration_ms"])
        reason = None if attempt["reason"] is None else Reason(attempt["reason"])
        yield self._say("success") if reason is None else self._tongue.reasons[reason]
        if attempt["http_status"] is not None:
            yield self._say("http", status=attempt["http_status"])
        if attempt["code"]:
            yield self._say("code", code=self._quoted(attempt["code"]))
        # Beside an answer the detail is what the operator said; otherwise it is our own, and too technical.
        if attempt["detail"] and (reason is None or reason in _ANSWERED):
            yield self._say("words", words=self._quoted(attempt["detail"]))
        if attempt["ambiguous"]:
            yield self._say("doubt")
        if attempt["superseded"]:
            yield self._say("late")

    def _by_hand(self, action: Mapping[str, Any]) -> Sentence:
        at, verb = parse_moment(action["at"], 0), str(action["verb"])
        name = verb if verb in ("replay", "resolve") else "by_hand"
        text = self._say(name, at=self._at(at), actor=self._quoted(action["actor"]), verb=self._quoted(verb))
        if action["note"]:
            text = self._joined(iter((text, self._say("note", note=self._quoted(action["note"])))))
        return Sentence("hand", at, text)

    def _booked(self, known: Booked) -> str:
        attempts = self._case.attempts
        if known is Booked.YES:
            return self._say("booked_yes" if self._row.status == Status.DELIVERED else "booked_yes_late")
        if known is Booked.MAYBE:
            doubtful = dict.fromkeys(str(one["n"]) for one in attempts if one["ambiguous"])
            if doubtful:
                return self._say("booked_maybe", attempts=", ".join(doubtful))
            return self._say("booked_maybe_now")
        if not attempts:
            return self._say("booked_no_untried")
        answered = any(one["reason"] in _ANSWERED for one in attempts)
        return self._say("booked_no_refused" if answered else "booked_no_unsent")

    def _next(self, known: Booked) -> Iterator[str]:
        match Status(self._row.status):
            case Status.PENDING:
                yield from self._waiting()
            case Status.DEAD:
                yield self._say("next_dead")
                if self._final():
                    yield self._say("next_dead_final")
                if known is not Booked.NO:
                    yield self._say("next_close" if known is Booked.YES else "next_ask")
            case ended:
                yield self._say(f"next_{ended}")

    def _final(self) -> bool:
        """By a code that ends it, as the operator's settings have it now."""
        last, terms = self._decided(), self._terms()
        return last is not None and terms is not None and last["code"] in terms.rule.final

    def _terms(self) -> Terms | None:
        operator = self._case.operator
        return None if operator is None else operator.terms.get(self._row.type)

    def _decided(self) -> Mapping[str, Any] | None:
        """The last attempt that decided something."""
        return next((one for one in reversed(self._case.attempts) if not one["superseded"]), None)

    def _waiting(self) -> Iterator[str]:
        row, standing = self._row, self._case.standing
        last = self._decided()
        if row.reason is not None and (last is None or row.reason != last["reason"]):
            yield self._say("put_off", why=self._tongue.reasons[Reason(row.reason)])
        if standing is None or standing.settings is None or self._case.operator is None:
            yield self._say("next_gone")
        elif standing.paused_at is not None:
            yield self._say("next_paused", at=self._at(standing.paused_at))
        elif standing.held_at is not None:
            yield self._say("next_held", at=self._at(standing.held_at))
        if row.parked:
            yield self._say("next_parked")
        elif row.due_at is not None:
            name = "next_due" if row.due_at > self._now else "next_overdue"
            yield self._say(name, at=self._at(row.due_at))
            yield from self._end(row.due_at)

    def _end(self, due_at: int) -> Iterator[str]:
        """When it is given up, by the schedule in force, if every attempt fails as soon as it is due."""
        terms, standing, run = self._terms(), self._case.standing, self._case.run
        if terms is None or standing is None or standing.closed_since is not None or run is None:
            return
        ends = max(due_at, self._now)
        anchor = ends if run.anchor_at is None else run.anchor_at + standing.closed_total
        given_up = terms.schedule.given_up(run.failures, anchor, ends)
        yield self._say("next_last") if given_up == ends else self._say("next_end", at=self._at(given_up))
