"""The request of a delivery as it would be sent now, for people to look at: what proves us is left out of it."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from dispatcher.dispatch.form import form_of
from dispatcher.ground.operator import Auth, Operator
from dispatcher.ground.policy import Claim
from dispatcher.ground.secret import Secret
from dispatcher.protocols.credentials import attempt_headers, message_headers
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
    form = form_of(operator, Seal(operator.reading) if operator.reading else None, None, row.type)
    claim = _claim(row)
    plain: list[bytes] = []

    def seal(plaintext: bytes) -> str:
        plain.append(plaintext)
        return form.seal(plaintext)

    body = form.body(operator, claim, seal, now)
    proved = attempt_headers(operator, claim, body, now)
    more = [(name, f"v1,{HIDDEN}" if name == "webhook-signature" else value) for name, value in proved]
    bearer = None if form.terms.auth is Auth.NONE else Secret(HIDDEN)
    headers = message_headers(bearer, [*((name, HIDDEN) for name in operator.headers), *more])
    shown = plain[0].decode("utf-8", "replace") if plain else None
    return Letter(shown_url(form.terms.url or ""), headers, body.decode("utf-8", "replace"), shown)


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
