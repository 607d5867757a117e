"""The front page: what needs a person, at a glance."""

from starlette.responses import Response

from dispatcher.account import Power
from dispatcher.console.desk import Page, Visit


async def show(visit: Visit) -> Response:
    return visit.page("front.html")


PAGES = (Page("GET", "/console", Power.VIEW, show),)
