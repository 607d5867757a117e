"""One POST to an operator, and what came of it as a value. The one room that knows HTTP.

`Wire` gives failures their names, over our own transport or any of httpx's.
"""

from dispatcher.wire.connection import MAX_RESPONSE_BYTES
from dispatcher.wire.oauth import Grant, NoToken
from dispatcher.wire.post import (
    Transport,
    Wire,
    reach,
)
from dispatcher.wire.probes import LookingTransport, SlowTransport
from dispatcher.wire.request import Headers, Request
from dispatcher.wire.resolver import Resolver
from dispatcher.wire.transport import PinnedTransport

__all__ = [
    "MAX_RESPONSE_BYTES",
    "Grant",
    "Headers",
    "LookingTransport",
    "NoToken",
    "PinnedTransport",
    "Request",
    "Resolver",
    "SlowTransport",
    "Transport",
    "Wire",
    "reach",
]
