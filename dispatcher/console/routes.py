"""Every page there is, and where it is found."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dispatcher.console import dead, delivery, door, export, flow, front
from dispatcher.console.desk import Desk
from dispatcher.console.guard import Guard, unknown
from dispatcher.console.look import static

LOG_PAGES = (*flow.PAGES, *export.PAGES, *delivery.PAGES, *dead.PAGES)
PAGES = (*door.PAGES, *front.PAGES, *LOG_PAGES)


async def _home(_request: Request) -> Response:
    return RedirectResponse("/console", 307)


def routes(desk: Desk) -> list[Route]:
    pages = [Route(page.path, Guard(desk, page), methods=[page.method]) for page in PAGES]
    files = Route("/console/files/{hash}/{name}", static)
    return [Route("/", _home), files, *pages, Route("/console/{rest:path}", unknown)]
