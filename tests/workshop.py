"""The workshop for the tests: a clock that is moved, a real file, a daemon on it, and operators who are only played."""

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx
import respx
import structlog
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from sqlalchemy import select

from dispatcher.app import Daemon
from dispatcher.config import Config, load_config
from dispatcher.ground.events import Event
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Claim, Outcome, Reason, judge
from dispatcher.store import acceptance, corridor, ledger
from dispatcher.store.acceptance import Fate
from dispatcher.store.corridor import Adopted, Settlement
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Row
from dispatcher.store.schema import attempts
from dispatcher.telemetry import Log
from tests.ground import IV, KEY, NOW, line, lock, notice, operator, parse_event
from tests.stores import STORES, bury, is_used, make

# Rounds of the event loop without anything to do, after which nothing more can come without a timer.
CALM = 10
PATIENCE_SECONDS = 60.0

OPERATORS: Mapping[str, Operator] = {
    name: operator({"url": f"https://{name}.example/Demo/notice"}, name=name) for name in ("acme", "bolt", "coin")
}

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until the condition holds; fails when it does not within a minute."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


class MovedClock:
    """A wall clock that stands still until it is moved, forward or back (µs)."""

    def __init__(self, at: int = NOW) -> None:
        self.at = at

    def now(self) -> int:
        return self.at

    def move(self, by: int) -> None:
        self.at += by


def event(key: int | str = 1, operator: str = "acme", **changes: Any) -> Event:
    """An accepted event with this order number."""
    return parse_event(line(notice(order_no=str(key), operator=operator, **changes)), OPERATORS, lock)


def accept(database: Database, *keys: int | str, now: int = NOW, **changes: Any) -> list[Fate]:
    return acceptance.accept(database, [event(key, **changes) for key in keys], now)


def take(database: Database, now: int = NOW, most: int = 100, operator: str = "acme") -> list[Claim]:
    return corridor.turn(database, [], {operator: most}, now).claimed


def settled(claim: Claim, now: int, http_status: int | None = 200, **changes: Any) -> Settlement:
    """What a hand brings back from an attempt that ended now, judged by acme's schedule; changes go to the outcome."""
    outcome = Outcome(now, now, 0, http_status)._replace(**changes)
    terms = OPERATORS["acme"].terms["notice"]
    return Settlement(claim, outcome, judge(claim, outcome, terms.schedule, terms.rule))


def failed(claim: Claim, now: int, reason: Reason = Reason.CONNECT_REFUSED) -> Settlement:
    return settled(claim, now, None, reason=reason)


def settle(database: Database, *done: Settlement, now: int = NOW) -> list[Settlement]:
    """The settlements that came too late to decide."""
    return corridor.turn(database, done, {}, now).late


def adopt(database: Database, before: int = NOW, held: Collection[tuple[int, int]] = ()) -> list[Adopted]:
    """What was left behind: by workers that are gone, and by this one up to `before`, but for what is held."""
    return corridor.adopt(database, before, held, secrets.randbits(63))


def row(database: Database, key: int | str = 1, operator: str = "acme") -> Row:
    return ledger.one(database, operator, str(key), None)


def rows(database: Database, **where: Any) -> list[Row]:
    """Oldest first."""
    return list(ledger.find(database, ledger.Filter(**where), None))[::-1]


def attempts_of(database: Database, key: int | str = 1, operator: str = "acme") -> list[dict[str, Any]]:
    """Every recorded attempt, by number, those that came late after those that decided."""
    query = select(attempts).where(attempts.c.delivery_id == row(database, key, operator).id)
    with database.reading() as connection:
        found = connection.execute(query.order_by(attempts.c.n, attempts.c.late)).mappings().all()
    return [dict(one) for one in found]


def opened(data: str, key: str = KEY, iv: str = IV) -> str:
    """`data` decrypted by the book (AES-CBC, PKCS#7, base64), without a line of our own cipher."""
    decryptor = Cipher(AES(key.encode()), CBC(iv.encode())).decryptor()
    unpadder = PKCS7(128).unpadder()
    padded = decryptor.update(base64.b64decode(data, validate=True)) + decryptor.finalize()
    return (unpadder.update(padded) + unpadder.finalize()).decode()


def kept_log() -> tuple[Log, list[dict[str, Any]]]:
    """A log and the list in which its lines end, as dictionaries."""
    lines: list[dict[str, Any]] = []

    def keep(_logger: Any, _name: str, told: Any) -> Any:
        lines.append(dict(told))
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None,
        processors=[structlog.processors.add_log_level, keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return cast(Log, log.bind()), lines


def configuration(folder: Path, *operators: str, top: str = "", **lines: str) -> Path:
    """A configuration file with these operators (acme alone if none is named); `lines` go into each one's table."""
    own = "\n".join(f"{name} = {value}" for name, value in lines.items() if name not in ("key", "iv"))
    key, iv = lines.get("key", KEY), lines.get("iv", IV)
    if "[database]" not in top:
        top = f"{top}\n{STORES.settings()}"
    text = f'[web]\nlisten = ""\n{top}\n' + "".join(
        f'[operators.{name}]\nnotice_url = "https://{name}.example/Demo/notice"\ntoken = "the-token-of-{name}"\n'
        f'crypto = {{ key = "{key}", iv = "{iv}" }}\n{own}\n'
        for name in operators or ("acme",)
    )
    path = folder / "config.toml"
    path.write_text(text)
    return path


class Gate:
    """Operators who keep every request until the gate is opened, and who count how many wait at once."""

    def __init__(self, *, shut: str = "") -> None:
        self.waiting: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_in_all = 0
        self.answered: Counter[str] = Counter()
        self._shut = shut
        self._open = False
        self._queue: list[tuple[str, asyncio.Event]] = []

    def open(self) -> None:
        """From now on nobody waits."""
        self._open = True
        for _, passed in self._queue:
            passed.set()

    def let_one_pass(self, operator: str) -> None:
        next(passed for name, passed in self._queue if name == operator and not passed.is_set()).set()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """200 when the gate opens; at once from hosts that are not behind it."""
        name = request.url.host.removesuffix(".example")
        if not self._open and (not self._shut or name in self._shut.split()):
            await self._wait(name)
        self.answered[name] += 1
        return httpx.Response(200)

    async def _wait(self, name: str) -> None:
        self.waiting[name] += 1
        self.most[name] = max(self.most[name], self.waiting[name])
        self.most_in_all = max(self.most_in_all, self.waiting.total())
        passed = asyncio.Event()
        self._queue.append((name, passed))
        try:
            await passed.wait()
        finally:
            self.waiting[name] -= 1


class Bench:
    """A daemon on a real file, worked by hand: `calm` steps it until nothing is left to do at this moment.

    Operators are played by respx (`bench.acme.mock(side_effect=[…])`), or by `answer`.
    """

    def __init__(self, config: Path, clock: MovedClock | None = None, answer: Answer | None = None) -> None:
        self.router = respx.MockRouter(assert_all_called=False)
        self.acme = self.router.post("https://acme.example/Demo/notice")
        self.clock = clock or MovedClock()
        self.log, self.lines = kept_log()
        self.path = config
        handler = self.router.async_handler if answer is None else answer
        self.transport = httpx.MockTransport(cast(Any, handler))
        self.daemon: Daemon
        self.armed: list[int] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        await self.cut_off()

    def build(self) -> Daemon:
        return Daemon(self.config, self.log, self.clock, self.transport)

    async def start(self) -> None:
        """A daemon that has done what every start does with an old file: so does one that is told to stop at once."""
        place = self.config.database
        if is_used(place):
            bury(place)
            self.daemon = self.build()
            self.dispatch.stop()
            await self.daemon.run()
        else:
            make(place)
        self.daemon = self.build()
        arm = self.dispatch._arm

        def note(due_at: int) -> None:
            self.armed.append(due_at)
            arm(due_at)

        self.dispatch._arm = note

    async def cut_off(self) -> None:
        """The end without a goodbye: whatever is in flight is gone and settles nothing, the file stays as it is."""
        attempts = list(self.dispatch._held.values())
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        self.dispatch.close()
        await self.daemon.close()

    async def restart(self) -> None:
        await self.cut_off()
        await self.start()

    async def calm(self) -> None:
        """Steps until there is nothing to do; what waits for a timer or at a gate is left waiting."""
        quiet = 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            while quiet < CALM:
                quiet = 0 if await self.dispatch.step() else quiet + 1
                await asyncio.sleep(0)

    async def idle(self) -> None:
        """As `calm`, until nothing is in flight either."""
        await self.calm()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.dispatch.in_flight:
                await asyncio.wait(self.dispatch._held.values(), return_when=asyncio.FIRST_COMPLETED)
                await self.calm()

    async def look(self) -> None:
        """What the alarm and the rounds do."""
        self.dispatch.look()
        await self.calm()

    async def after(self, by: int) -> None:
        """Move the clock (µs), look, work until calm."""
        self.clock.move(by)
        await self.look()

    async def send(self, *keys: int | str, **changes: Any) -> list[Fate]:
        """Accept events, look, work until calm."""
        fates = accept(self.database, *keys, now=self.clock.now(), **changes)
        await self.look()
        return fates

    @property
    def config(self) -> Config:
        return load_config(self.path)

    @property
    def dispatch(self) -> Any:
        return self.daemon.dispatch

    @property
    def database(self) -> Database:
        return self.daemon.database

    @property
    def sent(self) -> int:
        """How many requests reached acme."""
        return self.acme.call_count

    def request(self, number: int = -1) -> httpx.Request:
        return cast(httpx.Request, self.acme.calls[number].request)

    def row(self, key: int | str = 1, operator: str = "acme") -> Row:
        return row(self.database, key, operator)

    def attempts(self, key: int | str = 1, operator: str = "acme") -> list[dict[str, Any]]:
        return attempts_of(self.database, key, operator)

    def told(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        return [line for line in self.lines if line["event"] == name]
