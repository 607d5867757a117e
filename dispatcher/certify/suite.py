"""One run: the checks in their order, each judged by the operator's own rule."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from dispatcher.certify import text
from dispatcher.certify.books import Books
from dispatcher.certify.check import Check, Result, Step
from dispatcher.certify.checks import TELLING, checks_of
from dispatcher.certify.letters import Sender
from dispatcher.certify.orders import Content, Orders
from dispatcher.certify.text import Text
from dispatcher.ground.clock import WallClock
from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Auth, Operator
from dispatcher.ground.policy import Outcome, Reason, read_answer

_MOST_WORDS = 120
_WORST = (Result.PASS, Result.NOT_SEEN, Result.WARNING, Result.FAIL)


class Answered(NamedTuple):
    """One request's end by the operator's rule: `yes` is None where no answer came."""

    key: str
    yes: bool | None
    http_status: int | None
    code: str | None
    words: str | None
    reason: str | None
    duration_ms: int | None

    def said(self, language: str) -> str:
        word = {True: text.YES, False: text.NO, None: text.SILENCE}[self.yes].said(language)
        more = [str(self.http_status) if self.http_status else None, self.code, self.reason, self.words]
        return f"{word} ({', '.join(part for part in more if part)})"


class Finding(NamedTuple):
    """What became of one check. `notes` say what beyond the answers speaks against it, or what can't be seen."""

    kind: str
    check: Check
    result: Result
    answers: Sequence[Answered]
    notes: Sequence[Text]

    def came(self, language: str) -> str:
        """The answers; those that are alike in a row once."""
        runs = [(said, len(list(some))) for said, some in groupby(answer.said(language) for answer in self.answers)]
        return "; ".join(said if count == 1 else f"{said} ×{count}" for said, count in runs) or "–"

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(answer.key for answer in self.answers))


_Made = tuple[Step, Sequence[Answered]]


class Plan(NamedTuple):
    """What a run sends at most."""

    kind: str
    url: str
    player: str
    orders: int
    requests: int


class Suite:
    """The checks of one message type against one operator. `tell` hears of each finding as it is made."""

    def __init__(
        self, operator: Operator, orders: Orders, sender: Sender, books: Books | None, tell: Callable[[Finding], None]
    ) -> None:
        self._operator, self._orders, self._sender, self._books, self._tell = operator, orders, sender, books, tell
        self._kind, self._terms = orders.kind, operator.terms[orders.kind]
        self._found: dict[str, Result] = {}

    def plan(self) -> Plan:
        steps = [step for check in checks_of(self._kind) if not self._moot(check) for step in check.steps]
        orders, requests = len({step.order for step in steps}), sum(step.at_once for step in steps)
        return Plan(self._kind, self._terms.url or "", self._orders.player, orders, requests)

    async def run(self) -> list[Finding]:
        """Raises Refused where a fault of our own keeps us from sending."""
        found = []
        for check in checks_of(self._kind):
            finding = await self._make(check)
            self._found[check.name] = finding.result
            self._tell(finding)
            found.append(finding)
        return found

    def _moot(self, check: Check) -> bool:
        """Whether the settings have nothing that this check could spoil."""
        if check.name == "wrong_signature":
            return self._operator.signing is None
        return check.name == "wrong_token" and self._terms.auth is Auth.NONE

    def _held_back(self, check: Check) -> Text | None:
        """Which failure keeps a check from telling anything."""
        if self._found.get("right") is Result.FAIL:
            return text.RIGHT_FIRST
        failed = [name for name in check.needs if self._found[name] is Result.FAIL]
        return text.AFTER.fill(names=", ".join(failed)) if failed else None

    async def _make(self, check: Check) -> Finding:
        if self._moot(check):
            return Finding(self._kind, check, Result.NOT_APPLICABLE, (), (text.NO_PROOF,))
        why = self._held_back(check)
        if why is not None:
            return Finding(self._kind, check, Result.NOT_SEEN, (), (why,))
        told = all(self._found.get(name) in (Result.PASS, Result.NOT_SEEN) for name in TELLING)
        now, results, notes = WallClock().now(), [Result.PASS], list[Text]()
        made: list[_Made] = []
        for step in check.steps:
            if step.tells and not told:
                continue
            came = await self._send(step, now)
            made.append((step, came))
            results += [step.level for one in came if one.yes is not step.yes and (step.yes or one.yes)]
            silent = [one for one in came if one.yes is None and not step.yes]
            if silent:
                results.append(Result.WARNING)
                notes.append(text.NO_ANSWER.fill(count=len(silent), reason=silent[0].reason))
        if self._books is not None:
            wrong, unread = await self._look(self._books, made)
            notes += [*wrong, *unread]
            results += [Result.FAIL] * bool(wrong) + [Result.NOT_SEEN] * bool(unread)
        elif check.unseen is not None and not (check.told and told):
            results.append(Result.NOT_SEEN)
            notes += [check.unseen, *([text.UNTOLD] if check.told else [])]
        answers = [answer for _, came in made for answer in came]
        return Finding(self._kind, check, max(results, key=_WORST.index), answers, notes)

    async def _send(self, step: Step, now: int) -> list[Answered]:
        claim = self._orders.claim(step.order, step.content)
        other = self._orders.claim("right", Content.USUAL)
        sending = (self._sender.send(claim, step.flaw, now, other) for _ in range(step.at_once))
        return [self._read(claim.key, outcome) for outcome in await asyncio.gather(*sending)]

    def _read(self, key: str, outcome: Outcome) -> Answered:
        if outcome.ours or outcome.reason in (Reason.CONFIG, Reason.BLOCKED_ADDRESS):
            mend = "mend that, or the operator's settings, and begin again"
            raise Refused(f"this can't be sent: {outcome.detail or outcome.reason}; {mend}")
        answer = read_answer(outcome, self._terms.rule)
        yes = None if outcome.reason is not None else answer.failure is None
        words = answer.words[:_MOST_WORDS] if answer.words else None
        took = None if outcome.duration is None else outcome.duration // 1_000
        return Answered(key, yes, outcome.http_status, answer.code, words, answer.failure, took)

    async def _look(self, books: Books, made: Sequence[_Made]) -> tuple[list[Text], list[Text]]:
        """What is wrong with the bookings of a check's orders, and why they could not be seen."""
        wrong: list[Text] = []
        for name in dict.fromkeys(step.order for step, _ in made):
            own = [(step, answers) for step, answers in made if step.order == name]
            booked = next((step for step, answers in own if step.yes and any(one.yes for one in answers)), None)
            if booked is None and any(one.yes is None for _, answers in own for one in answers):
                # Whether it is booked, nobody has said.
                continue
            try:
                rows = await books.bookings(self._orders.key(name))
            except Refused as error:
                return wrong, [text.NOT_LOOKED.fill(told=error)]
            sent = None if booked is None else self._orders.sent(name, booked.content)
            wrong += books.faults(self._orders.key(name), sent, rows)
        return wrong, []
