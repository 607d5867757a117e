"""What can keep a whole answer from coming, and its names (wire-contract.md, Failure reasons)."""

import errno

import httpx

from dispatcher.ground.policy import Reason
from dispatcher.wire.request import Request

# Errors of connect(2) and socket(2) that come from this machine before a packet leaves it: no descriptors, memory or
# local ports left, the interface down, a local firewall. That there is no route is not among them, nor that the host
# is unreachable: routers on the way say that too, and as a rule it is the other side that is gone.
OUR_ERRNOS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.EACCES,
        errno.EPERM,
    }
)


class DnsFailure(httpx.ConnectError):
    """The host's name has no address now. `ours`: as far as one can tell our own resolver is at fault."""

    def __init__(self, message: str, *, ours: bool = False) -> None:
        super().__init__(message)
        self.ours = ours


class TlsFailure(httpx.ConnectError):
    """No trusted encrypted connection: certificate or handshake."""


class BlockedAddress(httpx.ConnectError):
    """The address is not on the public internet and not in `egress.allow`."""


class LocalFault(httpx.ConnectError):
    """This machine could not even try to connect (OUR_ERRNOS)."""

    ours = True


# The first that fits names the failure: special before general.
_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (DnsFailure, Reason.DNS),
    (TlsFailure, Reason.TLS),
    (BlockedAddress, Reason.BLOCKED_ADDRESS),
    (httpx.ConnectTimeout, Reason.CONNECT_TIMEOUT),
    (httpx.PoolTimeout, Reason.CONNECT_TIMEOUT),
    (httpx.ConnectError, Reason.CONNECT_REFUSED),
    (httpx.WriteTimeout, Reason.WRITE_ERROR),
    (httpx.WriteError, Reason.WRITE_ERROR),
    (httpx.TimeoutException, Reason.READ_TIMEOUT),
    (httpx.UnsupportedProtocol, Reason.CONFIG),
    (httpx.LocalProtocolError, Reason.CONFIG),
    # The configuration lets none in that could raise it.
    (httpx.InvalidURL, Reason.CONFIG),
    # Whatever else goes wrong once the request may be out: the operator may have booked it.
    (httpx.TransportError, Reason.RESET),
)
# What a request can end with beside an answer; TimeoutError is the deadline.
WEATHER: tuple[type[Exception], ...] = (TimeoutError, *(kind for kind, _ in _REASONS))


def reason_of(error: Exception) -> Reason:
    """The name of one of WEATHER but the deadline, whose name hangs on the request."""
    return next(name for kind, name in _REASONS if isinstance(error, kind))


def blame(error: Exception, request: Request) -> tuple[Reason, bool]:
    """The name of one of WEATHER, and whether the fault is on our side (`Outcome.ours`)."""
    if not isinstance(error, TimeoutError):
        return reason_of(error), getattr(error, "ours", False)
    ours = request.ours_if_late
    return request.if_late, request.if_late is Reason.DNS and ours is not None and ours()
