"""The request of a delivery as it would be sent now, for people to look at: what proves us is left out of it."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from dispatcher.errors import Unfit
from dispatcher.operator import Auth, Operator
from dispatcher.policy import Claim
from dispatcher.protocols import PROTOCOLS
from dispatcher.protocols.credentials import message_id, signature_headers
from dispatcher.seal import Seal
from dispatcher.store.ledger import Row

HIDDEN = "…"
# A longer part of a path may be somebody's secret, as with the addresses that chat tools give out.
_LONGEST_PART = 16


class Letter(NamedTuple):
    """`plain`: what was encrypted into the body, where anything was."""

    url: str
    headers: Sequence[tuple[str, str]]
    body: str
    plain: str | None


def letter(operator: Operator, row: Row, now: int) -> Letter:
    """With the settings and the key in force; `now` in µs. Raises Unfit where nothing can be sent."""
    terms = operator.terms.get(row.type)
    if terms is None or terms.url is None or row.type not in PROTOCOLS:
        raise Unfit(f"{operator.name} takes no {row.type}", "give the operator its URL, or resolve it by hand")
    claim = _claim(row)
    plain: list[bytes] = []

    def seal(plaintext: bytes) -> str:
        if operator.reading is None:
            raise Unfit("the operator has no key to encrypt with", "give it its crypto settings")
        plain.append(plaintext)
        return Seal(operator.reading).seal(plaintext)

    body = PROTOCOLS[row.type].body(operator, claim, seal, now)
    headers = [("Content-Type", "application/json")]
    if terms.auth is not Auth.NONE:
        headers.append(("Authorization", f"Bearer {HIDDEN}"))
    headers += [(name, HIDDEN) for name in operator.headers]
    if operator.signing is not None:
        signed = signature_headers(operator.signing, message_id(claim), body, now)
        headers += [(name, f"v1,{HIDDEN}" if name == "webhook-signature" else value) for name, value in signed]
    shown = plain[0].decode("utf-8", "replace") if plain else None
    return Letter(shown_url(terms.url), headers, body.decode("utf-8", "replace"), shown)


def _claim(row: Row) -> Claim:
    return Claim(
        id=row.id,
        operator=row.operator,
        type=row.type,
        key=row.key,
        uid=row.uid,
        body=row.body,
        bearer=None,
        attempt=row.attempts + 1,
        run_from=0,
        anchor_at=None,
        due_at=0,
        token=0,
        ambiguous=row.ambiguous,
    )


def shown_url(url: str) -> str:
    """Where it goes, without what a query or a long part of the path may keep."""
    parts = urlsplit(url)
    path = "/".join(HIDDEN if len(part) > _LONGEST_PART else part for part in parts.path.split("/"))
    names = [quote(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    # A query without names is a secret as a whole.
    query = "&".join(f"{name}={HIDDEN}" for name in names if len(name) <= _LONGEST_PART) or (parts.query and HIDDEN)
    return f"{parts.scheme}://{parts.netloc}{path}{f'?{query}' if query else ''}"
