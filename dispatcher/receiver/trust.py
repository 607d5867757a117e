"""Whom an operator trusts: the bearer token, the headers and the signature that it agreed on (wire-contract.md, Per
operator). What does not fit is named, and never shown.
"""

import base64
import hashlib
import hmac
from typing import Any

from dispatcher.ground.clock import MILLISECOND, MINUTE, SECOND, Clock
from dispatcher.ground.errors import Unfit
from dispatcher.ground.events import parse_json
from dispatcher.ground.operator import Auth, Mint, Operator, Signing, TimeUnit
from dispatcher.receiver.http import Request
from dispatcher.receiver.tokens import Tokens
from dispatcher.seal import Seal, SealError

# How far the times of a signature and of a minted token may be from ours: what Standard Webhooks recommends.
_LEEWAY = 5 * MINUTE
_CLAIMS = {"account", "uid", "time", "username", "wallet"}
_SCHEME = b"Bearer "


class Trust:
    """What one operator asks of a request for one message type.

    - `rank`: who trusts more callers comes later, so that among operators at one path the right one is found;
    - `identity`: equal for two that can't be told apart.
    """

    def __init__(self, operator: Operator, auth: Auth, tokens: Tokens | None, clock: Clock) -> None:
        """`tokens` where the operator's token endpoint is here; elsewhere nobody here can know its tokens."""
        anything = auth is Auth.PER_EVENT or (auth is Auth.OAUTH2 and tokens is None)
        self._auth = Auth.PER_EVENT if anything else auth
        self._operator, self._tokens, self._clock = operator, tokens, clock
        self._seal = Seal(operator.reading) if auth is Auth.MINTED and operator.reading else None
        self.rank = [Auth.BEARER, Auth.MINTED, Auth.OAUTH2, Auth.PER_EVENT, Auth.NONE].index(self._auth)
        self.identity = (self._auth, self._own(), tuple(sorted(_plain(operator).items())), operator.signing)

    def _own(self) -> object:
        operator = self._operator
        match self._auth:
            case Auth.BEARER:
                return operator.token
            case Auth.MINTED:
                return operator.mint, operator.reading
            case Auth.OAUTH2:
                return operator.oauth
        return None

    def knows(self, request: Request) -> bool:
        """Whether the token is one of this operator's."""
        authorization = request.header("authorization")
        token = authorization.removeprefix(_SCHEME) if authorization.startswith(_SCHEME) else b""
        operator = self._operator
        match self._auth:
            case Auth.NONE:
                return True
            case Auth.BEARER if operator.token is not None:
                return hmac.compare_digest(token, operator.token.reveal().encode())
            case Auth.MINTED:
                return self._claims(token) is not None
            case Auth.OAUTH2 if operator.oauth is not None and self._tokens is not None:
                return self._tokens.knows(operator.oauth, token)
            case Auth.PER_EVENT:
                return token != b""
        return False

    def speaks_for(self, request: Request, uid: str) -> bool:
        """Whether a token that `knows` said yes to may speak of this player: a minted one names its own."""
        if self._auth is not Auth.MINTED:
            return True
        claims = self._claims(request.header("authorization").removeprefix(_SCHEME))
        return claims is not None and claims["uid"] == uid

    def objection(self, request: Request) -> str | None:
        """What is wrong with the headers or the signature; None where nothing is."""
        for name, value in _plain(self._operator).items():
            if not hmac.compare_digest(request.header(name), value.encode()):
                return f"the header {name} is missing or not as agreed"
        signing = self._operator.signing
        return None if signing is None else _misjoined(signing, request, self._clock.now())

    def _claims(self, token: bytes) -> dict[str, Any] | None:
        """What a minted token says; None where it is none of this operator's, or an old one."""
        if self._seal is None or self._operator.mint is None:
            return None
        try:
            claims = parse_json(self._seal.open(token.decode("ascii")))
        except (SealError, Unfit, UnicodeDecodeError):
            return None
        fits = claims.keys() == _CLAIMS and _is_ours(claims, self._operator.mint, self._clock.now())
        return claims if fits else None


def _plain(operator: Operator) -> dict[str, str]:
    return {name: value.reveal() for name, value in operator.headers.items()}


def _is_ours(claims: dict[str, Any], mint: Mint, now: int) -> bool:
    unit = SECOND if mint.time_unit is TimeUnit.SECONDS else MILLISECOND
    username = claims["uid"] if mint.username is None else mint.username
    known = {"account": mint.account, "username": username, "wallet": mint.wallet}
    if any(type(claims[name]) is not type(value) or claims[name] != value for name, value in known.items()):
        return False
    return type(claims["time"]) is int and abs(claims["time"] * unit - now) <= _LEEWAY


def _misjoined(signing: Signing, request: Request, now: int) -> str | None:
    """What is wrong with a Standard Webhooks signature over the id, the time and the exact body; None for nothing."""
    given = {name: request.header(f"webhook-{name}") for name in ("id", "timestamp", "signature")}
    if absent := [f"webhook-{name}" for name, value in given.items() if not value]:
        return f"the signature is incomplete: {' and '.join(absent)} missing or twice"
    stamp = given["timestamp"]
    if not stamp.isdigit() or len(stamp) > 12 or abs(int(stamp) * SECOND - now) > _LEEWAY:
        return "the signature's webhook-timestamp is not in seconds, or over five minutes away"
    signed = b".".join((given["id"], stamp, request.body))
    shown = [text.removeprefix(b"v1,") for text in given["signature"].split(b" ") if text.startswith(b"v1,")]
    for secret in signing.secrets:
        key = base64.b64decode(secret.reveal().removeprefix("whsec_"))
        right = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        if any(hmac.compare_digest(one, right) for one in shown):
            return None
    return "the signature in webhook-signature is not right"
