"""What is answered when a request is not carried out: problem details (RFC 9457), and never a traceback."""

from collections.abc import Mapping, Sequence
from enum import Enum
from http import HTTPStatus

import orjson
from starlette.responses import Response

from dispatcher.accept.committer import Busy
from dispatcher.ground.errors import Fault

MEDIA_TYPE = "application/problem+json"


class Kind(Enum):
    """Each kind of problem: the end of its `type`, its status, its `title`, and its `mend`: what helps."""

    MALFORMED = ("malformed", 400, "The body is not one JSON object", "send one JSON object, in UTF-8")
    NO_KEY = (
        "no-key",
        401,
        "No API key that is in force",
        "send a key in Authorization: Bearer; `dispatcher keys create` makes one",
    )
    FORBIDDEN = (
        "forbidden",
        403,
        "The API key is not for this",
        "send a key with that scope, for that operator or for all of them",
    )
    NOT_FOUND = ("not-found", 404, "There is nothing here", "look for it in the list; /openapi.json has every path")
    METHOD = ("method", 405, "Not with this method", "use one that the header Allow names")
    TIMEOUT = ("timeout", 408, "The request did not arrive in time", "send it again, or less of it at once")
    CONFLICT = (
        "conflict",
        409,
        "The key is taken by other content",
        "compare it with the delivery under `id`; another event has a key of its own",
    )
    NOT_NOW = (
        "not-now",
        409,
        "Not in the state that it is in",
        "look at what it is now; where it wants nothing more, leave it so",
    )
    TOO_LARGE = ("too-large", 413, "The body is too large", "send it in several requests")
    MEDIA = ("media-type", 415, "The body is of another type", "send it as it is, of the type that is named")
    INVALID = ("invalid", 422, "Something in it is not fit", "mend each of `faults`, and send it again")
    RATE = (
        "rate",
        429,
        "Too many requests with this API key",
        "wait as Retry-After says, or have a key made with a higher --rate",
    )
    BUSY = ("busy", 429, "More comes in than can be written", "wait as Retry-After says, and hand it in again")
    BROKEN = (
        "broken",
        500,
        "A fault on our side",
        "send it again; report the line web_broke of our log that has this request's id",
    )
    AWAY = ("store-away", 503, "The store can't be used now", "wait as Retry-After says, and hand it in again")

    def __init__(self, slug: str, status: int, title: str, mend: str) -> None:
        self.slug = slug
        self.status = HTTPStatus(status)
        self.title = title
        self.mend = mend


class Problem(Exception):
    """Raised by whoever can't do what is asked. `more` are further members of the document, `faults` one of them."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = faults
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def answer(self, request_id: str) -> Response:
        told: dict[str, object] = {
            "type": f"urn:dispatcher:problem:{self.kind.slug}",
            "title": self.kind.title,
            "status": int(self.kind.status),
            "detail": self.detail,
            "mend": self.kind.mend,
            "instance": f"urn:dispatcher:request:{request_id}",
            **self.more,
        }
        if self.faults:
            told["faults"] = [{"field": one.where, "fault": one.fault, "mend": one.mend} for one in self.faults]
        return Response(orjson.dumps(told), int(self.kind.status), self.headers, MEDIA_TYPE)


def later(kind: Kind, detail: str, seconds: float = 1.0, more: Mapping[str, object] | None = None) -> Problem:
    """One that passes by itself: try again after so long."""
    return Problem(kind, detail, headers={"retry-after": str(max(1, round(seconds + 0.5)))}, more=more)


def passing(error: Exception, so_far: Mapping[str, object] | None = None) -> Problem:
    """What is told of a trouble that is ours, and will pass. What it is in particular is for our log."""
    again = "hand it in again: what is on disk already is known by its key, and not taken twice"
    if isinstance(error, Busy):
        return later(Kind.BUSY, f"more waits to be written than can be at once; {again}", more=so_far)
    return later(Kind.AWAY, f"the store can't be used now; {again}", 2.0, more=so_far)
