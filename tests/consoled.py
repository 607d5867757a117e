"""The console for the tests: the real application on a real store, reached in process or by a browser."""

import asyncio
import base64
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from dispatcher.config import load_config
from dispatcher.config.web import Web
from dispatcher.frontage import Frontage
from dispatcher.ground import account
from dispatcher.ground.account import Account, Role, digest, form_token, fresh_token
from dispatcher.ground.clock import Clock
from dispatcher.ground.secret import Secret
from dispatcher.metrics import State
from dispatcher.roster import Roster, load, open_vault, provision
from dispatcher.store.accounts import account_named, begin_session, create_account
from dispatcher.store.engine import Database
from tests.story import PATIENCE
from tests.workshop import MovedClock, configuration, kept_log

OPERATORS = ("acme", "bolt", "coin")
PASSWORD = "a whole sentence of my own"
COOKIE = "dispatcher_session"
HOST = "dispatcher.test"


def sealed_cheaply(password: str) -> str:
    """As `account.sealed`, in a hundredth of the time: the parameters stand beside what comes of them."""
    made = account._scrypt(Secret(password), b"salt" * 4, 2**8, 8, 1)
    return "$".join(("scrypt", str(2**8), "8", "1", base64.b64encode(b"salt" * 4).decode(), account._text(made)))


class Console:
    """The application; `faults` is what /readyz would tell. `log` has what it logged."""

    def __init__(self, database: Database, folder: Path, clock: Clock | None = None) -> None:
        self.database = database
        self.clock = clock or MovedClock()
        self.url = f"http://{HOST}"
        self.logger, self.lines = kept_log()
        self.faults: dict[str, str] = {}
        config = load_config(configuration(folder, *OPERATORS))
        vault = open_vault(config, database)
        provision(database, vault, config, self.clock.now(), actor="file")
        self._config, self._vault = config, vault
        web = Web(("127.0.0.1", 0))
        self.front = Frontage(database, self.clock, web, self.roster, vault.lock, self.logger, self)
        self.api, self.desk, self.app = self.front.api, self.front.desk, self.front.app

    def not_ready(self) -> dict[str, str]:
        return self.faults

    def checks(self) -> dict[str, str]:
        return {}

    def state(self) -> State:
        return State({})

    def roster(self) -> Roster:
        return load(self.database, self._vault, self._config)

    def account(self, role: Role | str = Role.ADMIN, operator: str | None = None, name: str | None = None) -> Account:
        """The account of that name, which is made if there is none; its password is PASSWORD."""
        name = name or f"{role}-{operator or 'all'}"
        known = account_named(self.database, name)
        if known is None:
            now = self.clock.now()
            known = Account(name, Role(role), operator, sealed_cheaply(PASSWORD), now, now)
            create_account(self.database, known, "tests")
        return known

    def session(self, role: Role | str = Role.ADMIN, operator: str | None = None, name: str | None = None) -> str:
        """The token of a new session of such an account."""
        token = fresh_token().reveal()
        begin_session(self.database, digest(token), self.account(role, operator, name), self.clock.now())
        return token

    def told(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        return [line for line in self.lines if line["event"] == name]


NONE: Mapping[str, str] = {}
Answer = httpx.Response


class Visitor:
    """A browser without a screen: it keeps cookies, and sends the forms that pages show it."""

    def __init__(self, at: Console, session: str | None = None, **headers: str) -> None:
        transport = httpx.ASGITransport(at.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url=at.url, headers=headers)
        self.session = session
        if session is not None:
            self.client.cookies.set(COOKIE, session, domain=HOST, path="/console")

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, token: str | None = None, headers: Mapping[str, str] = NONE, **form: Any) -> Answer:
        """With the form token of this session, or the one that is given."""
        own = form_token(self.session or "") if token is None else token
        return await self.client.post(path, data={"form_token": own, **form}, headers=dict(headers))

    async def log_in(
        self, name: str, password: str = PASSWORD, path: str = "/console/login", **headers: str
    ) -> httpx.Response:
        """By the form that the door shows."""
        shown = await self.client.get(path)
        answer = await self.client.post(
            path, data={"form_token": token_in(shown.text), "name": name, "password": password}, headers=headers
        )
        self.session = self.client.cookies.get(COOKIE)
        return answer


def token_in(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]*)"', page)
    assert found is not None, page
    return found[1]


@asynccontextmanager
async def consoled(database: Database, folder: Path) -> AsyncIterator[Console]:
    at = Console(database, folder)
    async with at.api.working():
        yield at


@contextmanager
def console_served(database: Database, folder: Path, clock: Clock | None = None) -> Iterator[Console]:
    """On a port of this machine, from a thread of its own, for as long as the block lasts."""
    at = Console(database, folder, clock or database.clock())
    up, end, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with at.front.open() as at.url:
            up.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert up.wait(PATIENCE)
        yield at
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(PATIENCE)
        loop.close()
