"""What the pages work with, and what one request for a page is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dispatcher.account import Account, Power
from dispatcher.clock import Clock
from dispatcher.console.look import Look
from dispatcher.operator import Operator
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log
from dispatcher.web.reading import body_of

# A thousand ticked rows, and more.
MOST_FORM_BYTES = 256 * 1024


class Desk(NamedTuple):
    """`ask` runs a function of the store on another thread; `operators` gives those in force; `faults` as /readyz."""

    database: Database
    clock: Clock
    ask: Callable[..., Awaitable[Any]]
    operators: Callable[[], Mapping[str, Operator]]
    faults: Callable[[], dict[str, str]]
    log: Log


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a page, by whom: `account` is None only on pages that want nobody."""

    desk: Desk
    request: Request
    look: Look
    account: Account | None
    form_token: str

    @property
    def viewer(self) -> Account:
        assert self.account is not None
        return self.account

    def may(self, power: Power) -> bool:
        return self.viewer.may(power)

    def page(self, template: str, status: int = 200, **values: object) -> Response:
        """The template, which knows `visit`, `t` (words) and these values."""
        return HTMLResponse(self.look.render(template, visit=self, **values), status)

    def go(self, path: str) -> Response:
        """After something was done: a reload of what follows does it not again."""
        return RedirectResponse(path, 303)

    async def form(self) -> Mapping[str, list[str]]:
        """What was sent, every value of each name. Raises Problem where it is no form, or too long."""
        state = self.request.state
        if not hasattr(state, "form"):
            body = await body_of(self.request, MOST_FORM_BYTES, ("application/x-www-form-urlencoded",))
            state.form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        given: Mapping[str, list[str]] = state.form
        return given

    async def field(self, name: str) -> str:
        """The first of this name; nothing where there is none."""
        return (await self.form()).get(name, [""])[0]


Handler = Callable[[Visit], Awaitable[Response]]


class Page(NamedTuple):
    """One page: `power` is what its visitor has to be granted; None: anybody may come."""

    method: str
    path: str
    power: Power | None
    handler: Handler
