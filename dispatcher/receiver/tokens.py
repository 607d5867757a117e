"""The token endpoints of the operators that have theirs here: OAuth2 client credentials (RFC 6749, section 4.4)."""

import base64
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote_plus

from dispatcher.ground.clock import HOUR, SECOND, Clock
from dispatcher.ground.operator import ClientAuth, OAuth
from dispatcher.receiver.http import Answer, Request

_LIFE = HOUR
_FORM = b"application/x-www-form-urlencoded"


class Tokens:
    """Gives tokens to clients that show their secret as agreed, and knows those again until they run out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: dict[OAuth, tuple[str, str]] = {}
        self._given: dict[bytes, tuple[OAuth, int]] = {}

    @property
    def paths(self) -> set[str]:
        return {path for path, _ in self._clients.values()}

    def enrol(self, client: OAuth, path: str, operator: str) -> None:
        """From now on this client of an operator gets its tokens here, at `path`."""
        self._clients.setdefault(client, (path, operator))

    def knows(self, client: OAuth, token: bytes) -> bool:
        """Whether this client got the token here, not longer ago than it lives."""
        found = [given for known, given in self._given.items() if hmac.compare_digest(known, token)]
        return any(whose == client and self._clock.now() < until for whose, until in found)

    def grant(self, request: Request) -> tuple[str | None, Answer]:
        """A token, or why not; and the operator whose client it was."""
        form = _form(request)
        for client, (path, operator) in self._clients.items():
            if path == request.path and _is_shown(client, request, form):
                return operator, self._answer(client, form)
        return None, _no(401, "invalid_client", ("WWW-Authenticate", "Basic"))

    def _answer(self, client: OAuth, form: Mapping[str, str]) -> Answer:
        if form.get("grant_type") != "client_credentials":
            return _no(400, "unsupported_grant_type" if "grant_type" in form else "invalid_request")
        if form.get("scope") != client.scope:
            return _no(400, "invalid_scope")
        now, token = self._clock.now(), secrets.token_urlsafe(32)
        self._given = {old: given for old, given in self._given.items() if now < given[1]}
        self._given[token.encode()] = (client, now + _LIFE)
        body = {"access_token": token, "token_type": "Bearer", "expires_in": _LIFE // SECOND}
        return Answer(200, body, [("Cache-Control", "no-store")])


def _no(status: int, error: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, {"error": error}, headers)


def _form(request: Request) -> dict[str, str]:
    """The fields of the form; empty where it is none. One that stands twice is none of them."""
    if request.header("content-type").partition(b";")[0].strip().lower() != _FORM:
        return {}
    fields = parse_qs(request.body.decode("latin-1"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


def _is_shown(client: OAuth, request: Request, form: Mapping[str, str]) -> bool:
    """The client's id and secret in the way that is agreed with it (section 2.3.1), and in no other way beside."""
    if client.client_auth is ClientAuth.BASIC:
        shown = None if "client_secret" in form else _basic(request.header("authorization"))
    elif request.header("authorization"):
        shown = None
    else:
        shown = (form.get("client_id", ""), form.get("client_secret", ""))
    if shown is None or shown[0] != client.client_id:
        return False
    return hmac.compare_digest(shown[1].encode(), client.client_secret.reveal().encode())


def _basic(authorization: bytes) -> tuple[str, str] | None:
    scheme, _, text = authorization.partition(b" ")
    try:
        pair = base64.b64decode(text, validate=True).decode("ascii")
    except ValueError:
        return None
    name, colon, password = pair.partition(":")
    return (unquote_plus(name), unquote_plus(password)) if scheme.lower() == b"basic" and colon else None
