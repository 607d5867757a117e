"""The desks at one address: each takes one message type for one operator, at the path where that is posted to."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

from dispatcher.clock import Clock
from dispatcher.errors import Refused
from dispatcher.operator import Auth, Operator, Terms
from dispatcher.policy import Rule
from dispatcher.receiver.http import Answer, Request, says
from dispatcher.receiver.notice import NoticeReader
from dispatcher.receiver.reading import Entry, Refusal
from dispatcher.receiver.settle import SettleReader
from dispatcher.receiver.tokens import Tokens
from dispatcher.receiver.trust import Trust

_PORTS = {"http": 80, "https": 443}


class _Reader(Protocol):
    """How one message type is read and refused; `key` is the field that names a message, `word` the one for words."""

    key: str
    word: str
    conflict: Answer

    def read(self, body: bytes) -> Entry: ...

    def refuse(self, told: str) -> Answer: ...


class Desk:
    """One message type of one operator: where it is posted to, whom it trusts, how it reads, what it answers."""

    def __init__(self, operator: Operator, type_: str, terms: Terms, tokens: Tokens, clock: Clock) -> None:
        self.operator, self.type = operator.name, type_
        url = urlsplit(terms.url or "")
        self.path = url.path or "/"
        issuer = _issuer(operator, terms, url, tokens)
        self.trust = Trust(operator, terms.auth, issuer, clock)
        self.reader: _Reader = NoticeReader(operator) if type_ == "notice" else SettleReader(operator)
        self.booked = _agreeing(terms.rule, "ok", self.reader.word)
        self.known = _agreeing(terms.rule, "ok, known already", self.reader.word)

    def __str__(self) -> str:
        return f"{self.operator} ({self.type})"

    def read(self, request: Request) -> "Reading":
        """The message of a caller whom this desk trusts, or why it is none."""
        try:
            entry = self.reader.read(request.body)
        except Refusal as refusal:
            return Reading(self, refusal.read.get(self.reader.key), self.reader.refuse(str(refusal)))
        if not self.trust.speaks_for(request, entry.uid):
            return Reading(self, entry.key, _stranger("the bearer token is not the one of this player"))
        return Reading(self, entry.key, entry)


class Reading(NamedTuple):
    """What is known of a request after it was read: whose it is, its key, and the entry or why it is none."""

    desk: Desk | None
    key: str | None
    verdict: Entry | Answer

    @property
    def named(self) -> tuple[str, str, str] | None:
        """The operator, the message type and the key of a request that has them all."""
        return (self.desk.operator, self.desk.type, self.key) if self.desk and self.key is not None else None


def open_desks(operators: Sequence[Operator], tokens: Tokens, clock: Clock) -> list[Desk]:
    """In the order in which they are asked: one that trusts everybody comes last. Raises Refused."""
    desks: dict[object, Desk] = {}
    for operator in operators:
        for type_, terms in operator.terms.items():
            if terms.url is None:
                continue
            desk = Desk(operator, type_, terms, tokens, clock)
            other = desks.setdefault((desk.path, desk.trust.identity), desk)
            if other is not desk:
                raise Refused(f"{other} and {desk} have the same path and token: play one of them")
    if both := [desk for desk in desks.values() if desk.path in tokens.paths]:
        raise Refused(f"{both[0]} is posted to where tokens are given out: give one of them another path")
    return sorted(desks.values(), key=lambda desk: desk.trust.rank)


def read_request(desks: Sequence[Desk], request: Request) -> Reading:
    """As the first desk reads it that has nothing against the caller."""
    told = None
    for desk in desks:
        if desk.path != request.path or not desk.trust.knows(request):
            continue
        objection = desk.trust.objection(request)
        if objection is None:
            return desk.read(request)
        told = told or objection
    return Reading(None, None, _stranger(told or "the bearer token is missing or not the one of an operator here"))


def _stranger(told: str) -> Answer:
    return says(401, told, ("WWW-Authenticate", "Bearer"))


def _issuer(operator: Operator, terms: Terms, url: SplitResult, tokens: Tokens) -> Tokens | None:
    """The token endpoint, where it stands beside the URL that is posted to."""
    if terms.auth is not Auth.OAUTH2 or operator.oauth is None:
        return None
    endpoint = urlsplit(operator.oauth.token_url)
    if _origin(endpoint) != _origin(url):
        return None
    tokens.enrol(operator.oauth, endpoint.path or "/", operator.name)
    return tokens


def _origin(url: SplitResult) -> tuple[object, ...]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _agreeing(rule: Rule, told: str, word: str) -> Answer:
    """A yes as the operator's rule wants it: code 0000, and beside it whatever the rule asks for."""
    yes = says(200 if 200 in rule.statuses else min(rule.statuses), told, code="0000", word=word)
    body: Mapping[str, object] = yes.body if isinstance(yes.body, Mapping) else {}
    wanted: list[object] = [*rule.values, *sorted(rule.extra)]
    if rule.field and wanted:
        body = _with(body, rule.field, wanted[0])
    if rule.numeric:
        body = _with(body, rule.numeric, 0)
    return yes._replace(body=body)


def _with(body: Any, path: Sequence[str], value: object) -> dict[str, object]:
    """The object with this value at a path, whatever stood there."""
    inside: dict[str, object] = dict(body) if isinstance(body, Mapping) else {}
    return inside | {path[0]: _with(inside.get(path[0]), path[1:], value) if path[1:] else value}
