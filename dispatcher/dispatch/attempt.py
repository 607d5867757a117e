"""One attempt: the frozen event becomes one request, proves itself as the operator wants it, and is posted."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dispatcher.clock import Clock
from dispatcher.dispatch.lane import Lane
from dispatcher.errors import Unfit
from dispatcher.events import whose_token
from dispatcher.operator import Auth, Terms
from dispatcher.policy import Claim, Delays, Outcome, Reason, Rule
from dispatcher.protocols import PROTOCOLS
from dispatcher.protocols.credentials import minted_token, signature_headers
from dispatcher.seal.vault import VaultError
from dispatcher.secret import Secret
from dispatcher.wire import Grant, NoToken, Wire, build_request, json_headers

Unlock = Callable[[str, str], bytes]

# For a message type of another version of ours: nobody here can say anything of it.
UNKNOWN = Terms(None, Auth.NONE, Delays(), Rule())
# A shorter secret is no secret, and to cut it out of an answer would garble that.
_SHORTEST_SECRET = 6


class _Letter(NamedTuple):
    """What this attempt sends, but for a token that must be fetched first."""

    url: str
    body: bytes
    bearer: Secret | None
    more: Sequence[tuple[str, str]]


class Attempts:
    """Makes attempts. `unlock` opens a player's token as the vault locked it."""

    def __init__(self, wire: Wire, clock: Clock, unlock: Unlock) -> None:
        self._wire = wire
        self._clock = clock
        self._unlock = unlock

    async def make(self, lane: Lane, claim: Claim) -> Outcome:
        """What came of it. What the settings in force can't make a request of is `config`, and counts."""
        now = self._clock.now()
        try:
            letter = self._write(lane, claim, now)
        except Unfit as unfit:
            return Outcome(now, now, 0, reason=Reason.CONFIG, detail=str(unfit))
        except VaultError as error:
            # The master key is not the one that it was: ours to mend, and no reason to give the delivery up.
            told = f"the player's token can't be unlocked: {error}"
            return Outcome(now, now, 0, reason=Reason.CONFIG, detail=told, ours=True)
        key_version = lane.key_version
        if lane.grant is not None and lane.operator.terms[claim.type].auth is Auth.OAUTH2:
            outcome = await self._granted(lane, lane.grant, letter, now)
        else:
            outcome = await self._post(lane, letter, lane.operator.total_timeout)
        return outcome._replace(key_version=key_version)

    def _write(self, lane: Lane, claim: Claim, now: int) -> _Letter:
        """Encrypted with the key in force now, stamped with this attempt's time. Raises Unfit."""
        operator, terms = lane.operator, lane.operator.terms.get(claim.type, UNKNOWN)
        if terms.url is None:
            raise Unfit(
                f"{operator.name} takes no {claim.type}, or this version does not know it",
                "give the operator its URL, run the version that accepted it, or resolve it by hand",
            )
        seal = lane.seal.seal if lane.seal is not None else _no_key
        body = PROTOCOLS[claim.type].body(operator, claim, seal, now)
        bearer = self._bearer(lane, terms, claim, seal, now)
        more = [(name, value.reveal()) for name, value in operator.headers.items()]
        if operator.signing is not None:
            # The same for every attempt of a delivery, so that the operator can tell them apart from another one.
            more += signature_headers(operator.signing, f"dlv_{claim.id}", body, now)
        return _Letter(terms.url, body, bearer, more)

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

    async def _post(self, lane: Lane, letter: _Letter, deadline: int) -> Outcome:
        headers = json_headers(letter.bearer, letter.more)
        outcome = await self._wire.post(lane.transport, build_request(letter.url, headers, letter.body), deadline)
        return outcome._replace(body=_without([*lane.operator.headers.values(), letter.bearer], outcome.body))

    async def _granted(self, lane: Lane, grant: Grant, letter: _Letter, now: int) -> Outcome:
        """With a token from the operator's token endpoint; after a 401 once more with a fresh one.

        All of it within one attempt's deadline. Without a token the order was not sent: that is never ambiguous.
        """
        started, refused = time.perf_counter_ns(), None
        while True:
            spent = (time.perf_counter_ns() - started) // 1_000
            try:
                token = await grant.token(lane.operator.total_timeout - spent)
            except NoToken as error:
                ended = self._clock.now()
                return refused or Outcome(now, ended, spent, reason=error.reason, detail=error.detail, ours=error.ours)
            spent = (time.perf_counter_ns() - started) // 1_000
            outcome = await self._post(lane, letter._replace(bearer=token), lane.operator.total_timeout - spent)
            outcome = outcome._replace(started_at=now, duration=spent + (outcome.duration or 0))
            if outcome.http_status != 401 or refused is not None:
                return outcome
            grant.forget(token)
            refused = outcome


def _no_key(_plaintext: bytes) -> str:
    raise Unfit("the operator has no key to encrypt with", "give it its crypto settings")


def _without(secrets: Sequence[Secret | None], body: bytes) -> bytes:
    """An answer that repeats our token or header must not carry it into the log."""
    for secret in secrets:
        text = b"" if secret is None else secret.reveal().encode()
        if len(text) >= _SHORTEST_SECRET:
            body = body.replace(text, b"[token]")
    return body
