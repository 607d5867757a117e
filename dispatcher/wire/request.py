"""What is sent, and what comes back: one request, and its answer as far as it came."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dispatcher.ground.policy import Reason
from dispatcher.ground.secret import SecretBytes

_ALWAYS = b"User-Agent: dispatcher\r\nAccept: */*\r\n"


class Headers:
    """Header lines in this order and these letters, made once for all requests that share them. Shows none of them."""

    __slots__ = ("lines", "pairs")

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)
        lines = [b"%s: %s\r\n" % (name.encode("ascii"), value.encode("ascii")) for name, value in pairs]
        whole = all(line.count(b"\n") == line.count(b"\r") == 1 and b"\0" not in line for line in lines)
        # As HTTP/1.1 writes them, with those that every request has; None where one would break out of its line.
        self.lines = b"".join([*lines, _ALWAYS, b"Content-Length: "]) if whole else None


class Request:
    """One POST, and how far it is: `if_late` is what to call it if the deadline comes now, since being cut off leaves

    no time to say. `ours_if_late`, while a name is looked up: whether the fault is ours then. `target`: path and query
    where they are secret; the URL ends with its host then.
    """

    __slots__ = ("body", "headers", "if_late", "ours_if_late", "target", "url")

    def __init__(self, url: str, headers: Headers, body: bytes, target: SecretBytes | None = None) -> None:
        self.url = url
        self.headers = headers
        self.body = body
        self.target = target
        self.if_late = Reason.READ_TIMEOUT
        self.ours_if_late: Callable[[], bool] | None = None


class Answer(NamedTuple):
    """As much of it as came: `status` None where not even its head did, `failure` what kept the rest away.

    Of its `headers` at least those that are read here; names in any letters.
    """

    status: int | None
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    truncated: bool
    failure: Exception | None = None
