"""Every page there is, and where it is found."""

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dispatcher.console import accounts, dead, delivery, door, export, flow, front, operators
from dispatcher.console.desk import Desk, Page, Visit
from dispatcher.console.guard import Guard, unknown
from dispatcher.console.look import static

LOG_PAGES = (*flow.PAGES, *export.PAGES, *delivery.PAGES, *dead.PAGES)
PAGES = (*door.PAGES, *front.PAGES, *operators.PAGES, *accounts.PAGES, *LOG_PAGES)


async def _home(_visit: Visit) -> Response:
    return RedirectResponse("/console", 307)


def routes(desk: Desk) -> list[Route]:
    pages = [Route(page.path, Guard(desk, page), methods=[page.method]) for page in PAGES]
    home = Route("/", Guard(desk, Page("GET", "/", None, _home)), methods=["GET"])
    # With any method, so that nothing below /console is answered by anybody else.
    nowhere = Guard(desk, Page("GET", "", None, unknown))
    files = Route("/console/files/{hash}/{name}", static)
    return [home, files, *pages, Route("/console", nowhere), Route("/console/{rest:path}", nowhere)]
