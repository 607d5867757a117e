"""The endpoints at one address: each takes one message type for one operator, at the path where that is posted to."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

from dispatcher.ground.clock import Clock
from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Auth, Operator, Terms
from dispatcher.ground.policy import Rule
from dispatcher.protocols.base import agreeing
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


class Endpoint:
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
        """The message of a caller whom this endpoint trusts, or why it is none."""
        try:
            entry = self.reader.read(request.body)
        except Refusal as refusal:
            return Reading(self, refusal.read.get(self.reader.key), self.reader.refuse(str(refusal)))
        if not self.trust.speaks_for(request, entry.uid):
            return Reading(self, entry.key, _stranger("the bearer token is not the one of this player"))
        return Reading(self, entry.key, entry)


class Reading(NamedTuple):
    """What is known of a request after it was read: whose it is, its key, and the entry or why it is none."""

    endpoint: Endpoint | None
    key: str | None
    verdict: Entry | Answer

    @property
    def named(self) -> tuple[str, str, str] | None:
        """The operator, the message type and the key of a request that has them all."""
        return (
            (self.endpoint.operator, self.endpoint.type, self.key) if self.endpoint and self.key is not None else None
        )


def open_endpoints(operators: Sequence[Operator], tokens: Tokens, clock: Clock) -> list[Endpoint]:
    """In the order in which they are asked: one that trusts everybody comes last. Raises Refused."""
    endpoints: dict[object, Endpoint] = {}
    for operator in operators:
        for type_, terms in operator.terms.items():
            if terms.url is None:
                continue
            endpoint = Endpoint(operator, type_, terms, tokens, clock)
            other = endpoints.setdefault((endpoint.path, endpoint.trust.identity), endpoint)
            if other is not endpoint:
                raise Refused(f"{other} and {endpoint} have the same path and token: play one of them")
    if both := [endpoint for endpoint in endpoints.values() if endpoint.path in tokens.paths]:
        raise Refused(f"{both[0]} is posted to where tokens are given out: give one of them another path")
    return sorted(endpoints.values(), key=lambda endpoint: endpoint.trust.rank)


def read_request(endpoints: Sequence[Endpoint], request: Request) -> Reading:
    """As the first endpoint reads it that has nothing against the caller."""
    told = None
    for endpoint in endpoints:
        if endpoint.path != request.path or not endpoint.trust.knows(request):
            continue
        objection = endpoint.trust.objection(request)
        if objection is None:
            return endpoint.read(request)
        told = told or objection
    return Reading(None, None, _stranger(told or "the bearer token is missing or not the one of an operator here"))


def _stranger(told: str) -> Answer:
    return says(401, told, ("WWW-Authenticate", "Bearer"))


def _issuer(operator: Operator, terms: Terms, url: SplitResult, tokens: Tokens) -> Tokens | None:
    """The token endpoint, where it stands beside the URL that is posted to."""
    if terms.auth is not Auth.OAUTH2 or operator.oauth is None:
        return None
    tokens_url = urlsplit(operator.oauth.token_url)
    if _origin(tokens_url) != _origin(url):
        return None
    tokens.enrol(operator.oauth, tokens_url.path or "/", operator.name)
    return tokens


def _origin(url: SplitResult) -> tuple[object, ...]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _agreeing(rule: Rule, told: str, word: str) -> Answer:
    """A yes as the operator's rule wants it: code 0000, and beside it whatever the rule asks for."""
    yes = says(200 if 200 in rule.statuses else min(rule.statuses), told, code="0000", word=word)
    return yes._replace(body=agreeing(rule, yes.body if isinstance(yes.body, Mapping) else {}))
