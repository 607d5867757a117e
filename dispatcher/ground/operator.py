"""What one operator wants to be told, and how: its settings as one value with nothing left to interpret.

Source: wire-contract.md, Per operator. Pure data; `config` reads it, everybody else uses it. Times in µs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.ground.crypto import CryptoReading
from dispatcher.ground.policy import Rule
from dispatcher.ground.schedule import Schedule
from dispatcher.ground.secret import Secret

# What people are told goes out as to an operator of this name and the notification's; no operator's name has a colon.
NOTIFY = "notify:"
# The message type of that.
SUMMARY = "summary"


class Auth(StrEnum):
    """What an operator's callbacks prove themselves with, in `Authorization: Bearer …`."""

    NONE = "none"
    BEARER = "bearer"
    PER_EVENT = "per_event"
    MINTED = "minted"
    OAUTH2 = "oauth2"


class Anchor(StrEnum):
    """What a schedule's delays are counted from: the attempt before, or the first one."""

    PREVIOUS = "previous"
    FIRST = "first"


class NetCheck(StrEnum):
    STRICT = "strict"
    OFF = "off"


class TimeUnit(StrEnum):
    """The unit in which a Unix time goes over the wire."""

    SECONDS = "s"
    MILLISECONDS = "ms"


class OrderingKey(StrEnum):
    """What ties events together that must go out one after the other."""

    UID = "uid"
    ROUND_ID = "roundId"


class WhenDead(StrEnum):
    """What a dead letter means for the events behind it that share its ordering key."""

    BLOCK = "block"
    RELEASE = "release"


class ClientAuth(StrEnum):
    """How an OAuth2 client shows its secret to the token endpoint (RFC 6749, section 2.3.1)."""

    BASIC = "basic"
    POST = "post"


@dataclass(frozen=True, slots=True)
class Mint:
    """A token that each attempt makes for itself: what stands in it beside the player's uid and the time."""

    account: str
    username: str | None
    wallet: str | int
    time_unit: TimeUnit


@dataclass(frozen=True, slots=True)
class Signing:
    """A Standard Webhooks signature; during a rotation under two secrets, the one in force first."""

    secrets: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM texts: the CA that signs the operator's certificate, and the certificate and key that we show."""

    ca: Secret | None
    certificate: Secret | None
    key: Secret | None


@dataclass(frozen=True, slots=True)
class OAuth:
    """OAuth2 client credentials (RFC 6749, section 4.4)."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str | None
    client_auth: ClientAuth


@dataclass(frozen=True, slots=True)
class Breaker:
    """After `failures` in a row the operator is held, and one delivery is tried every `probe` µs."""

    failures: int
    probe: int


@dataclass(frozen=True, slots=True)
class Ordering:
    """Events with the same `key` go out one after the other; `dead` says whether a dead one stops those behind it."""

    key: OrderingKey
    dead: WhenDead


class Chat(StrEnum):
    """What a notification's webhook reads; `feishu` is Lark as well."""

    JSON = "json"
    FEISHU = "feishu"
    DINGTALK = "dingtalk"
    WECOM = "wecom"
    SLACK = "slack"


class Tell(StrEnum):
    """What a notification tells of: deliveries that died, operators of whom nothing succeeds."""

    DEAD = "dead"
    FAILING = "failing"


class Language(StrEnum):
    EN = "en"
    ZH = "zh"


@dataclass(frozen=True, slots=True)
class Notification:
    """A webhook by which people are told, in one summary every `every` µs at most.

    `target` is the path and query of its URL, which let anybody write there; `secret` signs what is sent. `operators`:
    of whom it tells, of all where it is empty. An operator is failing after `failures` in a row over `over` µs.
    """

    preset: Chat
    target: Secret
    secret: Secret | None
    operators: frozenset[str]
    every: int
    language: Language
    tell: frozenset[Tell]
    failures: int
    over: int


@dataclass(frozen=True, slots=True)
class Export:
    """The operator's own list of one message type. `columns`: what it calls our fields that it calls otherwise.

    `state`: the column that says, with a value of `booked`, that a row was booked; None: whatever is listed was.
    `delimiter`: None to find it out.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None
    booked: frozenset[str] = frozenset()
    encoding: str = "utf-8-sig"
    delimiter: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What an operator wants of one message type. `url` is None where it does not take that type."""

    url: str | None
    auth: Auth
    schedule: Schedule
    rule: Rule
    export: Export = field(default_factory=Export)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator. `terms` has every message type that this version speaks; `headers` go with every request."""

    name: str
    terms: Mapping[str, Terms]
    concurrency: int
    connect_timeout: int
    total_timeout: int
    token: Secret | None = None
    reading: CryptoReading | None = None
    net_check: NetCheck = NetCheck.STRICT
    time_unit: TimeUnit = TimeUnit.SECONDS
    headers: Mapping[str, Secret] = field(default_factory=dict)
    mint: Mint | None = None
    signing: Signing | None = None
    oauth: OAuth | None = None
    tls: Tls | None = None
    breaker: Breaker | None = None
    ordering: Ordering | None = None
    # Whether it is told which trace an attempt belongs to.
    traceparent: bool = False
    notification: Notification | None = None

    @property
    def blocks(self) -> bool:
        """True where a dead one is in the way of those behind it."""
        return self.ordering is not None and self.ordering.dead is WhenDead.BLOCK
