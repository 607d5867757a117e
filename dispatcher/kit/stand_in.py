"""The operator with every secret of its own exchanged for a throw-away one: all that a kit is made from.

What is secret never gets further than this file, so nothing in a kit can have it. The throw-away secrets are made from
fixed words: two kits for the same settings agree.
"""

import base64
import dataclasses
import hashlib
import re
import string
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from dispatcher.ground.crypto import (
    BLOCK,
    CryptoReading,
    IvEncoding,
    IvMode,
    KeyEncoding,
    Spelling,
    read_iv,
    read_key,
)
from dispatcher.ground.operator import OAuth, Operator, Signing, Terms, Tls
from dispatcher.ground.secret import Secret

HIDDEN = "YOUR-SECRET"
TOKEN = "kit-test-token"
PLAYERS_TOKEN = "kit-test-token-of-player-1"
_LETTERS = string.ascii_letters + string.digits
# What in a path may be a secret: long, letters and digits in no order that a person would give them.
_SECRET_PART = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_~.-]{20,}")


class StandIn(NamedTuple):
    """The operator as a kit knows it, and the texts of its throw-away key and IV (None where there is none)."""

    operator: Operator
    key: str | None
    iv: str | None


def stand_in(operator: Operator) -> StandIn:
    """Of `operator` itself only what is no secret is kept."""
    key, iv, reading = (None, None, None) if operator.reading is None else _reading(operator.reading)
    made = dataclasses.replace(
        operator,
        terms=_masked(operator.terms),
        token=None if operator.token is None else Secret(TOKEN),
        reading=reading,
        headers={name: Secret(f"kit-test-{name.lower()}") for name in operator.headers},
        signing=None if operator.signing is None else Signing((Secret(_webhook_secret()),)),
        oauth=None if operator.oauth is None else _oauth(operator.oauth),
        tls=None if operator.tls is None else _tls(operator.tls),
    )
    return StandIn(made, key, iv)


def masked_url(url: str) -> str:
    """The URL with a placeholder for whatever in it may be secret: each value of its query, long random path parts."""
    parts = urlsplit(url)
    path = "/".join(HIDDEN if _SECRET_PART.fullmatch(part) else part for part in parts.path.split("/"))
    # A query without names is one value.
    pairs = [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []
    query = "&".join(f"{name}={HIDDEN}" if sign else HIDDEN for name, sign, _ in pairs)
    return urlunsplit((parts.scheme, parts.netloc, path or "/", query, ""))


def _masked(terms: Mapping[str, Terms]) -> dict[str, Terms]:
    return {
        kind: dataclasses.replace(one, url=None if one.url is None else masked_url(one.url))
        for kind, one in terms.items()
    }


def _oauth(oauth: OAuth) -> OAuth:
    return dataclasses.replace(oauth, token_url=masked_url(oauth.token_url), client_secret=Secret(TOKEN))


def _tls(tls: Tls) -> Tls:
    """Only which of them there are."""
    return Tls(*(None if one is None else Secret("PEM") for one in (tls.ca, tls.certificate, tls.key)))


def _webhook_secret() -> str:
    return "whsec_" + base64.b64encode(_bytes("signature", 32)).decode()


def _reading(real: CryptoReading) -> tuple[str, str | None, CryptoReading]:
    """A key and an IV that are written, read and used as the operator's are."""
    spelling = real.spelling or Spelling(KeyEncoding.HEX)
    key = _key_text(spelling.key, real.cipher.key_size)
    iv = _iv_text(spelling.iv) if spelling.iv_mode is IvMode.FIXED else None
    raw = read_key(key, spelling.key, real.cipher)
    iv_bytes = read_iv(iv, spelling.iv_mode, spelling.iv, raw)
    return key, iv, CryptoReading(real.cipher, raw, iv_bytes, real.padding, real.output, spelling)


def _key_text(encoding: KeyEncoding, size: int) -> str:
    match encoding:
        case KeyEncoding.UTF8:
            return _letters("key", size)
        case KeyEncoding.UTF8_FIRST16:
            # As such operators hand it out: 32 characters, of which the first 16 count.
            return _letters("key", 2 * BLOCK)
        case KeyEncoding.HEX:
            return _bytes("key", size).hex()
        case KeyEncoding.BASE64:
            return base64.b64encode(_bytes("key", size)).decode()


def _iv_text(encoding: IvEncoding) -> str:
    match encoding:
        case IvEncoding.UTF8:
            return _letters("iv", BLOCK)
        case IvEncoding.HEX:
            return _bytes("iv", BLOCK).hex()
        case IvEncoding.BASE64:
            return base64.b64encode(_bytes("iv", BLOCK)).decode()


def _bytes(what: str, size: int) -> bytes:
    return hashlib.blake2b(f"integration kit, test {what}".encode(), digest_size=size).digest()


def _letters(what: str, size: int) -> str:
    return "".join(_LETTERS[one % len(_LETTERS)] for one in _bytes(what, size))
