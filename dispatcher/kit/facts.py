"""What a kit says of an operator, as plain values for its templates. Made from the stand-in: nothing here is secret."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dispatcher.ground.crypto import IvEncoding, IvMode, KeyEncoding, Output, Padding
from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Auth, NetCheck, Operator, TimeUnit
from dispatcher.ground.policy import Rule
from dispatcher.kit.stand_in import PLAYERS_TOKEN, StandIn
from dispatcher.protocols import PROTOCOLS
from dispatcher.protocols.base import agreeing

# What a key's text means, as a comment beside the code that reads it.
_KEY_TOLD = {
    KeyEncoding.UTF8: "Each character of the key's text is a byte: no hex, no base64, no hash.",
    KeyEncoding.HEX: "The key's text is hex: two digits are a byte.",
    KeyEncoding.BASE64: "The key's text is base64 of the key's bytes.",
    KeyEncoding.UTF8_FIRST16: "The first 16 characters of the key's text, each a byte; the rest counts for nothing.",
}
_NO_CONTENT = frozenset({204, 205, 304})
# A no that is no success by accident, should an operator's rule name one of the usual statuses.
_NOES = {"bad": 400, "stranger": 401, "conflict": 409}
_OTHER_NOES = (422, 500, 502, 503)


class Message(NamedTuple):
    """One message type that the operator takes; `answer` is a body that counts as success."""

    kind: str
    url: str
    path: str
    auth: str
    status: int
    answer: str
    numeric: bool


class Setting(NamedTuple):
    """An environment variable of the receivers: its throw-away value, and what it is."""

    name: str
    value: str
    en: str
    zh: str


class Header(NamedTuple):
    header: str
    setting: str


class CryptoFacts(NamedTuple):
    cipher: str
    bits: int
    key_size: int
    key: KeyEncoding
    iv_mode: IvMode
    iv: IvEncoding
    padding: Padding
    output: Output
    key_told: str
    key_text: str
    key_hex: str
    iv_text: str | None
    iv_hex: str | None


class MintFacts(NamedTuple):
    account: str
    username: str | None
    wallet: str
    millis: bool


class Facts(NamedTuple):
    """`settings` is what a receiver must be given; `refused` its statuses for what it does not book."""

    operator: str
    types: Sequence[Message]
    settings: Sequence[Setting]
    auths: Sequence[str]
    headers: Sequence[Header]
    signed: bool
    crypto: CryptoFacts | None
    mint: MintFacts | None
    net_strict: bool
    millis: bool
    refused: Mapping[str, int]

    def for_code(self) -> dict[str, Any]:
        """As the receivers' templates want it, with what follows from it for imports."""
        kinds = [one.kind for one in self.types]
        crypto = self.crypto
        base64 = crypto is not None and (
            crypto.key is KeyEncoding.BASE64
            or crypto.output is not Output.HEX
            or (crypto.iv_mode is IvMode.FIXED and crypto.iv is IvEncoding.BASE64)
        )
        hexed = crypto is not None and (
            crypto.key is KeyEncoding.HEX
            or crypto.output is Output.HEX
            or (crypto.iv_mode is IvMode.FIXED and crypto.iv is IvEncoding.HEX)
        )
        tokens = any(one != Auth.NONE for one in self.auths)
        shown = set(self.auths) & {Auth.BEARER, Auth.OAUTH2, Auth.PER_EVENT}
        return {
            **self._asdict(),
            "notice": "notice" in kinds,
            "settle": "settle" in kinds,
            "tokens": tokens,
            "compares": bool(shown or self.headers or self.signed),
            "dated": self.signed or self.mint is not None,
            "uses_base64": base64 or self.signed,
            "uses_hex": hexed,
        }


def facts_of(given: StandIn) -> Facts:
    """Raises Refused where no one receiver could tell its message types apart."""
    operator = given.operator
    taken = {kind: terms for kind, terms in operator.terms.items() if terms.url is not None}
    types = [_message(kind, terms.url or "", str(terms.auth), terms.rule) for kind, terms in taken.items()]
    if len({one.path for one in types}) < len(types):
        told = f"{operator.name} takes {' and '.join(taken)} at the same path, {types[0].path}"
        raise Refused(f"{told}; give one of them another: change notice_url or callback_url")
    auths = list(dict.fromkeys(one.auth for one in types))
    encrypts = any(PROTOCOLS[kind].encrypts for kind in taken) or Auth.MINTED in auths
    headers = _headers(operator)
    crypto = _crypto(given) if encrypts else None
    return Facts(
        operator=operator.name,
        types=types,
        settings=_settings(operator, crypto, auths, headers),
        auths=auths,
        headers=headers,
        signed=operator.signing is not None,
        crypto=crypto,
        mint=_mint(operator) if Auth.MINTED in auths else None,
        net_strict=operator.net_check is NetCheck.STRICT,
        millis=operator.time_unit is TimeUnit.MILLISECONDS,
        refused=_noes([terms.rule for terms in taken.values()]),
    )


def _message(kind: str, url: str, auth: str, rule: Rule) -> Message:
    status = 200 if 200 in rule.statuses else min(rule.statuses - _NO_CONTENT or rule.statuses)
    body = agreeing(rule, {}) or {"message": "ok"}
    answer = "" if status in _NO_CONTENT else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Message(kind, url, urlsplit(url).path or "/", auth, status, answer, bool(rule.numeric))


def _noes(rules: Sequence[Rule]) -> dict[str, int]:
    # Where the body is read too, the words of a refusal are no success under any status.
    taken = {status for rule in rules if not rule.reads_body for status in rule.statuses}
    found = {}
    for name, usual in _NOES.items():
        found[name] = next(status for status in (usual, *_OTHER_NOES, *range(423, 599)) if status not in taken)
    return found


def _headers(operator: Operator) -> list[Header]:
    found: list[Header] = []
    for name in operator.headers:
        setting = "CALLBACK_HEADER_" + re.sub("[^A-Z0-9]", "_", name.upper())
        # Two names may differ in nothing that a variable's name can show.
        while any(one.setting == setting for one in found):
            setting += "_"
        found.append(Header(name, setting))
    return found


def _settings(
    operator: Operator, crypto: CryptoFacts | None, auths: Sequence[str], headers: Sequence[Header]
) -> list[Setting]:
    found = []
    if crypto is not None:
        found.append(Setting("CALLBACK_KEY", crypto.key_text, "the key's text", "密钥文本"))
    if crypto is not None and crypto.iv_text is not None:
        found.append(Setting("CALLBACK_IV", crypto.iv_text, "the IV's text", "IV 文本"))
    if Auth.BEARER in auths and operator.token is not None:
        found.append(Setting("CALLBACK_TOKEN", operator.token.reveal(), "the bearer token", "Bearer 令牌"))
    if Auth.OAUTH2 in auths and operator.oauth is not None:
        token = operator.oauth.client_secret.reveal()
        found.append(Setting("CALLBACK_ACCESS_TOKEN", token, "an access token that you gave out", "已签发的访问令牌"))
    if Auth.PER_EVENT in auths:
        pairs = f"{PLAYERS_TOKEN}=player-1"
        found.append(Setting("CALLBACK_PLAYER_TOKENS", pairs, "players' tokens: token=uid,…", "玩家令牌：token=uid,…"))
    if operator.signing is not None:
        secret = operator.signing.secrets[0].reveal()
        found.append(Setting("CALLBACK_WEBHOOK_SECRET", secret, "the signature's secret, whsec_…", "签名密钥 whsec_…"))
    for one in headers:
        value = operator.headers[one.header].reveal()
        found.append(Setting(one.setting, value, f"the header {one.header}", f"请求头 {one.header}"))
    return found


def _crypto(given: StandIn) -> CryptoFacts | None:
    reading = given.operator.reading
    if reading is None or reading.spelling is None or given.key is None:
        return None
    spelling = reading.spelling
    return CryptoFacts(
        cipher=reading.cipher,
        bits=8 * reading.cipher.key_size,
        key_size=reading.cipher.key_size,
        key=spelling.key,
        iv_mode=spelling.iv_mode,
        iv=spelling.iv,
        padding=reading.padding,
        output=reading.output,
        key_told=_KEY_TOLD[spelling.key],
        key_text=given.key,
        key_hex=bytes(reading.key).hex(),
        iv_text=given.iv,
        iv_hex=None if reading.iv is None else bytes(reading.iv).hex(),
    )


def _mint(operator: Operator) -> MintFacts | None:
    mint = operator.mint
    if mint is None:
        return None
    return MintFacts(mint.account, mint.username, str(mint.wallet), mint.time_unit is TimeUnit.MILLISECONDS)
