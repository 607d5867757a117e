"""What the pages work with, and what one request for a page is."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dispatcher.console.gate import Gate
from dispatcher.console.look import Look
from dispatcher.console.view import actor_of
from dispatcher.console.words import TOLD
from dispatcher.ground.account import Account, Power
from dispatcher.ground.clock import Clock
from dispatcher.ground.operator import Operator
from dispatcher.roster import Roster
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log
from dispatcher.web.reading import body_of

# A thousand ticked rows, and more.
MOST_FORM_BYTES = 256 * 1024
# Answers of the store that are kept for a moment; each operator's people have some of their own.
MOST_KEPT = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desk:
    """`ask` runs a function of the store on another thread; `roster` gives the operators; `faults` as /readyz."""

    database: Database
    clock: Clock
    ask: Callable[..., Awaitable[Any]]
    roster: Callable[[], Roster]
    faults: Callable[[], dict[str, str]]
    log: Log
    gate: Gate = field(default_factory=Gate)
    _kept: dict[object, tuple[float, Any]] = field(default_factory=dict, repr=False)

    def operators(self) -> Mapping[str, Operator]:
        """Those in force."""
        return self.roster().operators

    async def remember(self, key: object, seconds: float, function: Callable[[], T]) -> T:
        """What this function of the store gave, or gave to somebody else so long ago at the most: however many look

        at a page that keeps itself fresh, the store is asked once.
        """
        kept = self._kept.get(key)
        if kept is None or kept[0] < time.monotonic():
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            kept = (time.monotonic() + seconds, await self.ask(function))
            self._kept[key] = kept
        given: T = kept[1]
        return given

    def forget(self) -> None:
        """Something was changed by hand: whoever did it sees it."""
        self._kept.clear()


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

    @property
    def actor(self) -> str:
        return actor_of(self.viewer)

    @property
    def address(self) -> str:
        """The page's, with what was asked of it."""
        url = self.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def told(self) -> str | None:
        """What was done just now, as one of TOLD: a page that something was done on leads to one that says so."""
        word = self.request.query_params.get("told")
        return word if word in TOLD else None

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
