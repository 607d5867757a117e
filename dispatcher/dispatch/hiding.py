"""No record of an answer shows what proves us: which words those are, and how they are taken out of it."""

import re
from collections.abc import Sequence

from dispatcher.ground.operator import Notification
from dispatcher.ground.policy import Outcome, Reason, Rule, read_answer
from dispatcher.ground.secret import Secret, SecretBytes

# A shorter secret is no secret, and to cut it out of an answer would garble that.
_SHORTEST_SECRET = 6
# Shorter ones in a webhook's path are words.
_SHORTEST_TARGET = 16
_HIDDEN = b"[token]"
# The ways in which JSON writes a visible ASCII character other than as itself.
_ESCAPED = re.compile(rb'\\u00([2-7][0-9A-Fa-f])|\\(["\\/])')


def hide(texts: Sequence[SecretBytes], outcome: Outcome, rule: Rule) -> Outcome:
    """An answer that repeats our token or a header must not carry it into the log.

    But the verdict comes first: where a header's value is also what the rule reads (a code, an amount), it stays.
    """
    # Once for all texts: an answer full of escapes would take the time of others' requests for each.
    plain = _ESCAPED.sub(_unescaped, outcome.body) if b"\\" in outcome.body else b""
    for text in texts:
        if outcome.body.find(text) < 0 and plain.find(text) < 0:
            continue
        body = _without(text, outcome.body)
        if body != outcome.body:
            hidden = outcome._replace(body=body)
            outcome = hidden if _verdict(hidden, rule) == _verdict(outcome, rule) else outcome
    return outcome


def parts_of(secret: Secret | None) -> list[SecretBytes]:
    """A header's value whole, and each of its words: `ApiKey …` may be repeated without the first."""
    if secret is None:
        return []
    words = dict.fromkeys([secret.reveal(), *secret.reveal().split()])
    return [SecretBytes(word.encode()) for word in words if len(word) >= _SHORTEST_SECRET]


def aims_of(notification: Notification) -> list[SecretBytes]:
    """Of a webhook's path and query what lets others write there: each part that nobody could guess."""
    parts = [part for part in re.split(r"[/?&=]", notification.target.reveal()) if len(part) >= _SHORTEST_TARGET]
    words = dict.fromkeys([notification.target.reveal(), *parts])
    return [SecretBytes(word.encode()) for word in words] + parts_of(notification.secret)


def _without(text: bytes, body: bytes) -> bytes:
    """The body without this text, be it as it was sent or as JSON may write it."""
    body = body.replace(text, _HIDDEN)
    if b"\\" in body and text in _ESCAPED.sub(_unescaped, body):
        spellings = [rb"(?:%s|\\?%s)" % (rb"\\u(?i:%04x)" % one, re.escape(bytes([one]))) for one in text]
        body = re.sub(b"".join(spellings), _HIDDEN, body)
    return body


def _unescaped(escaped: re.Match[bytes]) -> bytes:
    return escaped[2] or bytes([int(escaped[1], 16)])


def _verdict(outcome: Outcome, rule: Rule) -> tuple[Reason | None, bool]:
    answer = read_answer(outcome, rule)
    return answer.failure, answer.code in rule.final
