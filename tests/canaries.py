"""Secrets that are recognised wherever they turn up: one for each setting that holds any, in all ways to write it."""

import base64
import hashlib
import json
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.authority import Authority

_LETTERS = string.ascii_letters + string.digits
# So much of a secret is a find; less stands somewhere by chance.
PART = 8


def canary(name: str, length: int = 24) -> str:
    """Letters and digits that stand for this name and are met nowhere else."""
    drawn = hashlib.blake2b(name.encode(), digest_size=length).digest()
    return "".join(_LETTERS[one % len(_LETTERS)] for one in drawn)


def _webhook(name: str) -> str:
    return "whsec_" + base64.b64encode(canary(name, 32).encode()).decode()


class Canaries:
    """`settings` by the names of docs/settings.md; `others` are no settings. `found` looks for all of them."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        certificate, key = authority.client()
        served, served_by = authority.client()
        self.settings: Mapping[str, str] = {
            "secrets.master_key": base64.b64encode(canary("master", 32).encode()).decode(),
            "secrets.former_master_key": base64.b64encode(canary("former", 32).encode()).decode(),
            "operators.NAME.token": canary("token"),
            "operators.NAME.crypto.key": canary("key", 16),
            "operators.NAME.crypto.iv": canary("iv", 16),
            "operators.NAME.oauth.client_secret": canary("client secret") + "+/%é"[:3],
            "operators.NAME.headers.HEADER": f"ApiKey {canary('header')}",
            "operators.NAME.signature.secret": _webhook("signature"),
            "operators.NAME.signature.previous_secret": _webhook("previous signature"),
            "operators.NAME.tls.ca": authority.pem.reveal(),
            "operators.NAME.tls.certificate": certificate.reveal(),
            "operators.NAME.tls.key": key.reveal(),
            "web.certificate": served.reveal(),
            "web.key": served_by.reveal(),
            "notifications.NAME.url": f"https://127.0.0.1:9/hook?token={canary('webhook')}",
            "notifications.NAME.secret": canary("webhook secret"),
        }
        self.players_token = canary("player")
        self.password = canary("password")
        told = dict(self.settings) | {"a player's token": self.players_token, "the database's password": self.password}
        # Certificates are shown to whoever asks for them.
        told = {name: secret for name, secret in told.items() if not name.endswith((".ca", ".certificate"))}
        for name, one in (("operators.NAME.tls.key", key), ("web.key", served_by)):
            told[name] = "".join(one.reveal().splitlines()[1:-1])[40:]
        told["notifications.NAME.url"] = canary("webhook")
        told["the bytes of the master key"] = canary("master", 32)
        told["the bytes of the signature's secret"] = canary("signature", 32)
        self._told = {name: _spellings(secret.removeprefix("whsec_")) for name, secret in told.items()}
        every = frozenset().union(*self._told.values())
        # Whatever stands in a text begins with one of these: far fewer than there are spellings.
        self._length = min(map(len, every))
        self._heads = frozenset(one[: self._length] for one in every)

    def found(self, content: bytes | str) -> list[str]:
        """The names of what stands in it: whole or in part, as it is or written in another way."""
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        if self._heads.isdisjoint(raw[at : at + self._length] for at in range(len(raw) - self._length + 1)):
            return []
        return [name for name, spellings in self._told.items() if any(one in raw for one in spellings)]


def _spellings(secret: str) -> frozenset[bytes]:
    raw = secret.removeprefix("ApiKey ").encode()
    parts = {raw[at : at + PART] for at in range(len(raw) - PART + 1)}
    return frozenset(one for part in parts for one in _written(part)) | _in_base64(raw)


def _written(part: bytes) -> set[bytes]:
    text = part.decode("utf-8", "replace")
    escaped = "".join(f"\\u{ord(one):04x}" for one in text)
    percent = "".join(f"%{one:02X}" for one in part)
    written = {text, json.dumps(text)[1:-1], quote(text, safe=""), escaped, percent, percent.lower(), part.hex()}
    return {one.encode() for one in written | {part.hex().upper()}}


@cache
def _in_base64(raw: bytes) -> frozenset[bytes]:
    """Parts of what base64 makes of it, wherever in a longer text it begins."""
    found: set[bytes] = set()
    for before in range(3):
        # The characters that hang on what stands around it say nothing.
        whole = base64.b64encode(b"\0" * before + raw)[4:-4]
        found |= {whole[at : at + 12] for at in range(max(0, len(whole) - 11))}
        found |= {one.translate(bytes.maketrans(b"+/", b"-_")) for one in found}
    return frozenset(found)


def own_url(secret: str, url: str) -> str:
    """The webhook's path and token at this place."""
    return url + secret[secret.index("/hook") :]


def tables(canaries: Canaries, url: str, web: str) -> dict[str, Any]:
    """A configuration in which every secret is in use; the operators are at `url`, each under its own name."""
    own = {name.removeprefix("operators.NAME."): value for name, value in canaries.settings.items()}
    crypto = {"key": own["crypto.key"], "iv": own["crypto.iv"]}
    common = {"retry": {"delays": ["1s"]}, "total_timeout": "5s"}
    operators = {
        "acme": {
            **common,
            "notice_url": f"{url}/acme",
            "callback_url": f"{url}/acme",
            "token": own["token"],
            "crypto": crypto,
            "headers": {"X-Api-Key": own["headers.HEADER"]},
            "signature": {"secret": own["signature.secret"], "previous_secret": own["signature.previous_secret"]},
            "tls": {"ca": own["tls.ca"], "certificate": own["tls.certificate"], "key": own["tls.key"]},
        },
        "bolt": {**common, "notice_url": f"{url}/bolt", "auth": "per_event", "crypto": crypto},
        "coin": {
            **common,
            "notice_url": f"{url}/coin",
            "auth": "oauth2",
            "crypto": crypto,
            "oauth": {
                "token_url": f"{url}/token",
                "client_id": "provider-7",
                "client_secret": own["oauth.client_secret"],
                "client_auth": "post",
            },
        },
        "dime": {
            **common,
            "notice_url": f"{url}/dime",
            "auth": "minted",
            "crypto": crypto,
            "mint": {"account": "provider-7"},
        },
    }
    return {
        "web": {"listen": web, **{name: canaries.settings[f"web.{name}"] for name in ("certificate", "key")}},
        "egress": {"allow": ["127.0.0.0/8"]},
        "secrets": {name: canaries.settings[f"secrets.{name}"] for name in ("master_key", "former_master_key")},
        "operators": operators,
        "notifications": {
            "ops": {
                "preset": "dingtalk",
                "url": own_url(canaries.settings["notifications.NAME.url"], url),
                "secret": canaries.settings["notifications.NAME.secret"],
                "every": "3s",
                "retry": {"delays": []},
            },
        },
    }
