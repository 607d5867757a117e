"""One POST to an operator, and what came of it as a value. The one room that knows HTTP.

`Wire` holds the deadline, the body cap and the names of failures over any `httpx.AsyncBaseTransport`.
"""

from dispatcher.wire.oauth import Grant, NoToken
from dispatcher.wire.post import (
    MAX_RESPONSE_BYTES,
    Transport,
    Wire,
    build_request,
    json_headers,
    reach,
)
from dispatcher.wire.resolver import Resolver
from dispatcher.wire.transport import PinnedTransport

__all__ = [
    "MAX_RESPONSE_BYTES",
    "Grant",
    "NoToken",
    "PinnedTransport",
    "Resolver",
    "Transport",
    "Wire",
    "build_request",
    "json_headers",
    "reach",
]
