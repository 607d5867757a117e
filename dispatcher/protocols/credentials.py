"""The headers of a message, and what one attempt proves itself with: the minted token and the signature. Pure.

Sources: wire-contract.md, Per operator; Standard Webhooks 1.0, Verifying webhook authenticity.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Mint, Operator, Signing, TimeUnit
from dispatcher.ground.policy import Claim
from dispatcher.ground.readers import webhook_key
from dispatcher.ground.secret import Secret

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SENDABLE = re.compile(r"[!-~]+")


def message_headers(bearer: Secret | None, more: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What every message carries: its type, the token where there is one; and more, in this order and these letters."""
    headers = [("Content-Type", "application/json")]
    if bearer is not None:
        headers.append(("Authorization", f"Bearer {bearer.reveal()}"))
    return [*headers, *more]


def attempt_headers(
    operator: Operator, claim: Claim, body: bytes, now: int, traceparent: str | None = None
) -> list[tuple[str, str]]:
    """What stands behind those of the operator's settings, for this attempt alone. Raises Unfit."""
    headers = [("traceparent", traceparent)] if operator.traceparent and traceparent is not None else []
    if operator.signing is not None:
        headers += signature_headers(operator.signing, message_id(claim), body, now)
    return headers


def minted_token(mint: Mint, uid: str, now: int, seal: Callable[[bytes], str]) -> Secret:
    """`{"account","uid","time","username","wallet"}`, sealed with the operator's key; `now` in µs since 1970.

    `time` is cut to the mint's unit, never rounded up into the future; without a username the uid stands for it.
    """
    time = now // (SECOND if mint.time_unit is TimeUnit.SECONDS else MILLISECOND)
    username = uid if mint.username is None else mint.username
    fields = {"account": mint.account, "uid": uid, "time": time, "username": username, "wallet": mint.wallet}
    token = seal(_json(fields).encode())
    if not _SENDABLE.fullmatch(token):
        # No output of ours has such characters; in a header they would end the line, or start another one.
        raise Unfit(
            "the minted token has characters that no header can carry", "set output to base64, base64url or hex"
        )
    return Secret(token)


def message_id(claim: Claim) -> str:
    """What an operator may know a message again by: its own for each delivery, the same for every attempt of it.

    Made from what the delivery is, not from its number: a database that was set up anew counts from 1 again, and an
    operator that keeps the ids it has booked would take its orders for old ones.
    """
    whose = "\x1f".join((claim.operator, claim.type, claim.key))
    return f"dlv_{hashlib.blake2b(whose.encode(), digest_size=16).hexdigest()}"


def signature_headers(signing: Signing, message_id: str, body: bytes, now: int) -> list[tuple[str, str]]:
    """`webhook-id`, `webhook-timestamp`, `webhook-signature` for exactly these bytes; `now` in µs since 1970.

    One signature under each secret, in their order: an operator that knows either of them finds its own. `message_id`
    is the same for all attempts of a delivery and has no full stop in it, which separates the parts that are signed.
    Raises Unfit where a secret is none.
    """
    timestamp = str(now // SECOND)
    signed = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    signatures = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in _keys(signing)]
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", " ".join(f"v1,{signature}" for signature in signatures)),
    ]


@lru_cache(maxsize=1_024)
def _keys(signing: Signing) -> tuple[bytes, ...]:
    """Decoded once for each operator, not for each attempt."""
    return tuple(webhook_key(secret.reveal()) for secret in signing.secrets)
