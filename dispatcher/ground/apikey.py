"""Keys of the HTTP API: what one says of itself, how it is written, how it is known again. Pure but for chance.

Only a hash of a key is kept. It is a plain SHA-256: the secret has 256 random bits, so there is nothing to guess, and
a slow hash, which protects what people choose, would cost each request what one event costs.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from dispatcher.ground.secret import Secret


class Scope(StrEnum):
    """What a key may do: hand in events; look deliveries up; replay and resolve them."""

    ENQUEUE = "enqueue"
    READ = "read"
    ADMIN = "admin"


# Whoever replays has to see what. To hand in events is another matter: that is to say that somebody has won.
INCLUDED: Mapping[Scope, frozenset[Scope]] = {
    Scope.ENQUEUE: frozenset({Scope.ENQUEUE}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.ADMIN: frozenset({Scope.ADMIN, Scope.READ}),
}

_TOKEN = re.compile(r"dk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
# Compared with where there is no such key, so that an unknown one takes as long as a wrong one.
_NOBODY = bytes(32)


class ApiKey(NamedTuple):
    """One key; times in µs. `operator`: the only one that it sees. `rate`: requests a second, None for the default."""

    id: str
    name: str
    hash: bytes
    scopes: frozenset[Scope]
    operator: str | None
    rate: int | None
    created_at: int
    revoked_at: int | None = None
    last_used_at: int | None = None

    def may(self, scope: Scope) -> bool:
        return any(scope in INCLUDED[one] for one in self.scopes)


def fresh_token() -> tuple[str, Secret]:
    """A new key's id, and the token that is shown once: `dk_ID_SECRET`."""
    id_ = secrets.token_hex(6)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return id_, Secret(f"dk_{id_}_{secret}")


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("ascii")).digest()


def whose(token: str, keys: Mapping[str, ApiKey]) -> ApiKey | None:
    """The key that this token is, of those by id; None where it is none of them, or a revoked one."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    key = keys.get(match[1])
    same = hmac.compare_digest(digest(token), _NOBODY if key is None else key.hash)
    return key if key is not None and same and key.revoked_at is None else None
