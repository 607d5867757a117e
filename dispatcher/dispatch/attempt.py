"""One attempt: the frozen event becomes one request, proves itself as the operator wants it, and is posted."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dispatcher.clock import Clock
from dispatcher.dispatch.lane import Lane
from dispatcher.errors import Unfit
from dispatcher.events import whose_token
from dispatcher.operator import Auth, Notification, Operator, Terms
from dispatcher.policy import Claim, Delays, Outcome, Reason, Rule, read_answer
from dispatcher.protocols import SPOKEN
from dispatcher.protocols.credentials import message_id, minted_token, signature_headers
from dispatcher.seal.vault import VaultError
from dispatcher.secret import Secret, SecretBytes, Unshown
from dispatcher.wire import Grant, Headers, NoToken, Request, Transport, Wire, json_headers

Unlock = Callable[[str, str], bytes]

# For a message type of another version of ours: nobody here can say anything of it.
UNKNOWN = Terms(None, Auth.NONE, Delays(), Rule())
# A shorter secret is no secret, and to cut it out of an answer would garble that.
_SHORTEST_SECRET = 6
# Shorter ones in a webhook's path are words.
_SHORTEST_TARGET = 16
_HIDDEN = b"[token]"
# The ways in which JSON writes a visible ASCII character other than as itself.
_ESCAPED = re.compile(rb'\\u00([2-7][0-9A-Fa-f])|\\(["\\/])')


@dataclass(frozen=True, slots=True)
class Form:
    """What all attempts of one message type to one operator have in common, until its settings change.

    `headers` is None where each attempt proves itself anew; `hidden` are the words that no record of an answer shows.
    """

    terms: Terms
    body: Callable[[Operator, Claim, Callable[[bytes], str], int], bytes]
    seal: Callable[[bytes], str]
    key_version: int | None
    more: Unshown[tuple[str, str]]
    headers: Headers | None
    hidden: Sequence[SecretBytes]
    target: Callable[[Operator, int], SecretBytes] | None = None


class _Letter(NamedTuple):
    """What this attempt sends and how, but for a token that must be fetched first; no reload changes it any more."""

    url: str
    target: SecretBytes | None
    body: bytes
    headers: Headers | None
    more: Unshown[tuple[str, str]]
    hidden: Sequence[SecretBytes]
    form: Form
    transport: Transport
    deadline: int


class Attempts:
    """Makes attempts. `unlock` opens a player's token as the vault locked it."""

    def __init__(self, wire: Wire, clock: Clock, unlock: Unlock) -> None:
        self._wire = wire
        self._clock = clock
        self._unlock = unlock

    async def make(self, lane: Lane, claim: Claim, traceparent: str | None = None) -> Outcome:
        """What came of it. What the settings in force can't make a request of is `config`, and counts.

        `traceparent`: which span this is, for an operator that wants to know.
        """
        now = self._clock.now()
        try:
            letter = self._write(lane, claim, now, traceparent)
        except Unfit as unfit:
            return Outcome(now, now, 0, reason=Reason.CONFIG, detail=str(unfit))
        except VaultError as error:
            # The master key is not the one that it was: ours to mend, and no reason to give the delivery up.
            told = f"the player's token can't be unlocked: {error}"
            return Outcome(now, now, 0, reason=Reason.CONFIG, detail=told, ours=True)
        if letter.headers is not None:
            outcome = await self._post(letter, letter.headers, letter.hidden, letter.deadline)
        else:
            assert lane.grant is not None
            outcome = await self._granted(lane.grant, letter, now)
        key_version = letter.form.key_version
        return outcome if key_version is None else outcome._replace(key_version=key_version)

    def _write(self, lane: Lane, claim: Claim, now: int, traceparent: str | None) -> _Letter:
        """Encrypted with the key in force now, stamped with this attempt's time. Raises Unfit."""
        operator = lane.operator
        form = lane.forms.get(claim.type)
        if form is None:
            form = lane.forms[claim.type] = form_of(lane, claim.type)
        terms = form.terms
        assert terms.url is not None
        body = form.body(operator, claim, form.seal, now)
        headers, hidden, more = form.headers, form.hidden, form.more
        if headers is None:
            if operator.traceparent and traceparent is not None:
                more = Unshown((*more, ("traceparent", traceparent)))
            if operator.signing is not None:
                more = Unshown((*more, *signature_headers(operator.signing, message_id(claim), body, now)))
            if terms.auth is not Auth.OAUTH2:
                bearer = self._bearer(lane, terms, claim, form.seal, now)
                headers, hidden = json_headers(bearer, more), [*_parts(bearer), *hidden]
        target = None if form.target is None else form.target(operator, now)
        return _Letter(terms.url, target, body, headers, more, hidden, form, lane.transport, operator.total_timeout)

    def _bearer(self, lane: Lane, terms: Terms, claim: Claim, seal: Callable[[bytes], str], now: int) -> Secret | None:
        """The token of this attempt, by the settings in force now. Raises Unfit where the event brought none."""
        match terms.auth:
            case Auth.BEARER:
                return lane.operator.token
            case Auth.MINTED if lane.operator.mint is not None:
                return minted_token(lane.operator.mint, claim.uid, now, seal)
            case Auth.PER_EVENT:
                if claim.bearer is None:
                    mend = f"set another auth for {claim.operator}, or resolve it by hand"
                    raise Unfit("the event brought no token", mend)
                return Secret(self._unlock(claim.bearer, whose_token(claim)).decode())
        return None

    async def _post(self, letter: _Letter, headers: Headers, hidden: Sequence[SecretBytes], deadline: int) -> Outcome:
        request = Request(letter.url, headers, letter.body, letter.target)
        outcome = await self._wire.post(letter.transport, request, deadline)
        return _hide(hidden, outcome, letter.form.terms.rule) if hidden and outcome.body else outcome

    async def _granted(self, grant: Grant, letter: _Letter, now: int) -> Outcome:
        """With a token from the operator's token endpoint; after a 401 once more with a fresh one.

        All of it within one attempt's deadline. Without a token the order was not sent: that is never ambiguous.
        """
        started, refused = time.perf_counter_ns(), None
        while True:
            try:
                token = await grant.token(letter.deadline - _since(started))
                left = letter.deadline - _since(started)
                if left <= 0:
                    raise NoToken(Reason.WRITE_ERROR, "no time was left to send the order")
            except NoToken as error:
                failed = refused or Outcome(now, now, 0, reason=error.reason, detail=error.detail, ours=error.ours)
                return failed._replace(ended_at=self._clock.now(), duration=_since(started))
            outcome = await self._post(letter, json_headers(token, letter.more), [*_parts(token), *letter.hidden], left)
            outcome = outcome._replace(started_at=now, duration=_since(started))
            if refused is not None:
                outcome = outcome._replace(detail=outcome.detail or "sent twice: 401 with the token before")
            if outcome.http_status != 401 or refused is not None:
                return outcome
            grant.forget(token)
            refused = outcome


def _since(started: int) -> int:
    """µs."""
    return (time.perf_counter_ns() - started) // 1_000


def form_of(lane: Lane, kind: str) -> Form:
    """As the operator's settings want it. Raises Unfit where the operator takes no such message."""
    operator, terms = lane.operator, lane.operator.terms.get(kind, UNKNOWN)
    if terms.url is None:
        raise Unfit(
            f"{operator.name} takes no {kind}, or this version does not know it",
            "give the operator its URL, run the version that accepted it, or resolve it by hand",
        )
    protocol = SPOKEN[kind]
    more = Unshown((name, value.reveal()) for name, value in operator.headers.items())
    hidden = [part for value in operator.headers.values() for part in _parts(value)]
    if operator.notification is not None:
        hidden += _aims(operator.notification)
    headers = None
    if terms.auth in {Auth.BEARER, Auth.NONE} and operator.signing is None and not operator.traceparent:
        bearer = operator.token if terms.auth is Auth.BEARER else None
        headers, hidden = json_headers(bearer, more), [*_parts(bearer), *hidden]
    seal = lane.seal.seal if lane.seal is not None else _no_key
    sealed = protocol.encrypts or terms.auth is Auth.MINTED
    version = lane.key_version if sealed else None
    return Form(terms, protocol.body, seal, version, more, headers, hidden, protocol.target)


def _no_key(_plaintext: bytes) -> str:
    raise Unfit("the operator has no key to encrypt with", "give it its crypto settings")


def _hide(texts: Sequence[SecretBytes], outcome: Outcome, rule: Rule) -> Outcome:
    """An answer that repeats our token or a header must not carry it into the log.

    But the verdict comes first: where a header's value is also what the rule reads (a code, an amount), it stays.
    """
    # Once for all texts: an answer full of escapes would take the time of others' requests for each.
    plain = _ESCAPED.sub(_unescaped, outcome.body) if b"\\" in outcome.body else b""
    for text in texts:
        if outcome.body.find(text) < 0 and plain.find(text) < 0:
            continue
        body = _without(text, outcome.body)
        if body != outcome.body:
            hidden = outcome._replace(body=body)
            outcome = hidden if _verdict(hidden, rule) == _verdict(outcome, rule) else outcome
    return outcome


def _parts(secret: Secret | None) -> list[SecretBytes]:
    """A header's value whole, and each of its words: `ApiKey …` may be repeated without the first."""
    if secret is None:
        return []
    words = dict.fromkeys([secret.reveal(), *secret.reveal().split()])
    return [SecretBytes(word.encode()) for word in words if len(word) >= _SHORTEST_SECRET]


def _aims(notification: Notification) -> list[SecretBytes]:
    """Of a webhook's path and query what lets others write there: each part that nobody could guess."""
    parts = [part for part in re.split(r"[/?&=]", notification.target.reveal()) if len(part) >= _SHORTEST_TARGET]
    words = dict.fromkeys([notification.target.reveal(), *parts])
    return [SecretBytes(word.encode()) for word in words] + _parts(notification.secret)


def _without(text: bytes, body: bytes) -> bytes:
    """The body without this text, be it as it was sent or as JSON may write it."""
    body = body.replace(text, _HIDDEN)
    if b"\\" in body and text in _ESCAPED.sub(_unescaped, body):
        spellings = [rb"(?:%s|\\?%s)" % (rb"\\u(?i:%04x)" % one, re.escape(bytes([one]))) for one in text]
        body = re.sub(b"".join(spellings), _HIDDEN, body)
    return body


def _unescaped(escaped: re.Match[bytes]) -> bytes:
    return escaped[2] or bytes([int(escaped[1], 16)])


def _verdict(outcome: Outcome, rule: Rule) -> tuple[Reason | None, bool]:
    answer = read_answer(outcome, rule)
    return answer.failure, answer.code in rule.final
