"""Access tokens by OAuth2 client credentials (RFC 6749, section 4.4), fetched once for all who need them."""

import asyncio
import base64
import re
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote_plus, urlencode

from dispatcher.ground.clock import SECOND, WallClock
from dispatcher.ground.errors import DispatcherError, Unfit
from dispatcher.ground.events import parse_json
from dispatcher.ground.operator import ClientAuth, OAuth
from dispatcher.ground.policy import Outcome, Reason
from dispatcher.ground.secret import Secret
from dispatcher.wire.failures import blame
from dispatcher.wire.post import Transport, Wire
from dispatcher.wire.request import Headers, Request

_TOKEN = re.compile(r"[!-~]{1,4096}")
# What the codes of RFC 6749, section 5.2, look like; no more of an answer is ever quoted, it may repeat what we sent.
_ERROR = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
# How long one fetch may take, whoever waits for it and however long.
FETCH_TIMEOUT = 10 * SECOND
# A token is left alone this long before it runs out, so that none runs out on its way: a tenth of a short life.
MARGIN_SECONDS = 30.0
# The life of a token that does not say (RFC 6749 leaves it open), and the longest that is believed.
LIFE_SECONDS = 300.0
LONGEST_LIFE_SECONDS = Decimal(86_400)

# As they are; whatever else keeps a token from us is called write_error: the order itself was never sent.
_KEPT = frozenset(
    {
        Reason.DNS,
        Reason.CONNECT_REFUSED,
        Reason.CONNECT_TIMEOUT,
        Reason.TLS,
        Reason.BLOCKED_ADDRESS,
        Reason.CONFIG,
    }
)
# Of all 4xx these say "not now", not "not you".
_NOT_NOW = frozenset({408, 425, 429})


class NoToken(DispatcherError):
    """No token, so the order was not sent: `reason` is never an ambiguous one.

    `detail` begins with "oauth2: " and has neither the secret nor a token in it. `ours` as in `Outcome`.
    """

    def __init__(self, reason: Reason, told: str, *, ours: bool = False) -> None:
        super().__init__(f"oauth2: {told}")
        self.reason = reason
        self.told = told
        self.ours = ours

    @property
    def detail(self) -> str:
        return f"oauth2: {self.told}"


class Grant:
    """One operator's access token: kept until shortly before it runs out, fetched by one request at a time."""

    def __init__(self, transport: Transport, oauth: OAuth, timeout: int = FETCH_TIMEOUT) -> None:
        """`transport` is the operator's own: the same guard, the same certificates. `timeout` (µs) is for one fetch."""
        self._transport = transport
        self._oauth = oauth
        self._timeout = timeout
        self._wire = Wire(WallClock())
        self._token: Secret | None = None
        self._until = 0.0
        self._fetch: tuple[Request, asyncio.Task[Secret | NoToken]] | None = None

    async def token(self, deadline: int) -> Secret:
        """The token, fetched if there is none within `deadline` (µs). Raises NoToken, which is not kept."""
        if self._token is not None and time.monotonic() < self._until:
            return self._token
        if self._fetch is None:
            request = _request(self._oauth)
            self._fetch = request, asyncio.create_task(self._renew(request))
        request, fetch = self._fetch
        try:
            async with asyncio.timeout(deadline / SECOND):
                # Shielded: one attempt that runs out of time must not cancel the fetch of all the others.
                found = await asyncio.shield(fetch)
        except TimeoutError as error:
            reason, ours = blame(error, request)
            raise NoToken(_unambiguous(reason), f"no token within {deadline / SECOND:g} s", ours=ours) from None
        if isinstance(found, NoToken):
            # One of its own for each who waited: a traceback grows with every raising.
            raise NoToken(found.reason, found.told, ours=found.ours)
        return found

    def forget(self, token: Secret) -> None:
        """The operator refused this token. If it is still the kept one, the next `token` fetches another, once."""
        if self._token == token:
            self._token = None

    async def _renew(self, request: Request) -> Secret | NoToken:
        """What comes of one fetch; a refusal is a value, since it may be that nobody waits for it any more."""
        sent = time.monotonic()
        try:
            outcome = await self._wire.post(self._transport, request, self._timeout)
            token, life = _read(outcome, self._oauth)
        except NoToken as error:
            return error
        finally:
            self._fetch = None
        # Counted from before it was asked for: when exactly the operator made it, nobody knows.
        self._token, self._until = token, sent + life
        return token


def _request(oauth: OAuth) -> Request:
    """RFC 6749, sections 4.4.2 and 2.3.1: of the two ways to show the secret, the one that is set."""
    form = {"grant_type": "client_credentials"}
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    if oauth.scope is not None:
        form["scope"] = oauth.scope
    if oauth.client_auth is ClientAuth.POST:
        form |= {"client_id": oauth.client_id, "client_secret": oauth.client_secret.reveal()}
    else:
        headers.append(("Authorization", f"Basic {_credentials(oauth)}"))
    return Request(oauth.token_url, Headers(headers), urlencode(form).encode())


def _credentials(oauth: OAuth) -> str:
    # Each is form-encoded first, so that a colon in the id is none to the reader.
    pair = f"{quote_plus(oauth.client_id)}:{quote_plus(oauth.client_secret.reveal())}"
    return base64.b64encode(pair.encode()).decode()


def _unambiguous(reason: Reason) -> Reason:
    return reason if reason in _KEPT else Reason.WRITE_ERROR


def _read(outcome: Outcome, oauth: OAuth) -> tuple[Secret, float]:
    """The token and for how long to keep it (s). Raises NoToken, which quotes the answer's `error` code at most."""
    if outcome.reason is not None:
        raise NoToken(_unambiguous(outcome.reason), outcome.detail or outcome.reason, ours=outcome.ours)
    status = outcome.http_status or 0
    try:
        body = parse_json(outcome.body)
    except Unfit:
        body = {}
    if status != 200:
        ours_to_mend = 400 <= status < 500 and status not in _NOT_NOW
        told = f"the token endpoint answered {status}{_error_code(body, oauth)}"
        raise NoToken(Reason.CONFIG if ours_to_mend else Reason.WRITE_ERROR, told)
    if outcome.truncated or not body:
        raise NoToken(Reason.WRITE_ERROR, "the answer is not a JSON object of a bearable size")
    token, kind = body.get("access_token"), body.get("token_type")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise NoToken(Reason.WRITE_ERROR, "the answer has no access_token of up to 4096 visible ASCII characters")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise NoToken(Reason.WRITE_ERROR, "the answer's token_type is not Bearer")
    return Secret(token), _life(body.get("expires_in"))


def _error_code(body: Mapping[str, Any], oauth: OAuth) -> str:
    """` (invalid_client)`, or nothing: it must look like a code, and not like what we sent."""
    code = body.get("error")
    if not isinstance(code, str) or not _ERROR.fullmatch(code):
        return ""
    sent = (oauth.client_secret.reveal(), _credentials(oauth).rstrip("="))
    return "" if any(one in code for one in sent) else f" ({code})"


def _life(expires_in: object) -> float:
    """Seconds, without the margin; some write the number as text."""
    if isinstance(expires_in, str) and expires_in.isascii() and expires_in.isdigit():
        expires_in = Decimal(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | Decimal) or expires_in < 0:
        return LIFE_SECONDS
    life = float(min(Decimal(expires_in), LONGEST_LIFE_SECONDS))
    return life - min(MARGIN_SECONDS, life / 10)
