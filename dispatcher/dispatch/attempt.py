"""One attempt: the frozen event becomes one request, proves itself as the operator wants it, and is posted."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dispatcher.dispatch.form import Form
from dispatcher.dispatch.hiding import hide, parts_of
from dispatcher.dispatch.lane import Lane
from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import Unfit
from dispatcher.ground.events import whose_token
from dispatcher.ground.operator import Auth, Terms
from dispatcher.ground.policy import Claim, Outcome, Reason
from dispatcher.ground.secret import Secret, SecretBytes, Unshown
from dispatcher.protocols.credentials import attempt_headers, message_headers, minted_token
from dispatcher.seal.vault import VaultError
from dispatcher.wire import Grant, Headers, NoToken, Request, Transport, Wire

Unlock = Callable[[str, str], bytes]


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
        form = lane.form(claim.type)
        terms = form.terms
        assert terms.url is not None
        body = form.body(operator, claim, form.seal, now)
        headers, hidden, more = form.headers, form.hidden, form.more
        if headers is None:
            more = Unshown((*more, *attempt_headers(operator, claim, body, now, traceparent)))
            if terms.auth is not Auth.OAUTH2:
                bearer = self._bearer(lane, terms, claim, form.seal, now)
                headers, hidden = Headers(message_headers(bearer, more)), [*parts_of(bearer), *hidden]
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
        return hide(hidden, outcome, letter.form.terms.rule) if hidden and outcome.body else outcome

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
            headers = Headers(message_headers(token, letter.more))
            outcome = await self._post(letter, headers, [*parts_of(token), *letter.hidden], left)
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
