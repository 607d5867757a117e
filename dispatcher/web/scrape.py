"""GET /metrics, for whoever may see it."""

from collections.abc import Awaitable, Callable
from math import inf

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher.config.web import Metrics
from dispatcher.ground.apikey import Scope
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.web.api import request_id_of
from dispatcher.web.doorman import Doorman
from dispatcher.web.problem import Kind, Problem, passing

# The content type and the text for an Accept header.
Scrape = Callable[[str], Awaitable[tuple[str, bytes]]]


def metrics_route(scrape: Scrape, doorman: Doorman, to: Metrics) -> list[Route]:
    """Operators' names and rates are business: with a key only one that sees all of them."""
    if to is Metrics.OFF:
        return []

    async def metrics(request: Request) -> Response:
        try:
            if to is Metrics.KEY:
                # An outage is when the figures are wanted most: a key that was good before it is good.
                key = await doorman.admit(request.headers.get("authorization"), Scope.READ, stale=inf)
                if key.operator is not None:
                    raise Problem(Kind.FORBIDDEN, f"this key is for {key.operator} alone, the metrics are of all")
            kind, text = await scrape(request.headers.get("accept", ""))
        except Problem as problem:
            return problem.answer(request_id_of(request))
        except (StoreUnavailable, Refused) as error:
            return passing(error).answer(request_id_of(request))
        return Response(text, headers={"content-type": kind})

    return [Route("/metrics", metrics)]
