"""What requests prove themselves with, as operators get it: through the corridor, over sockets, between processes."""

import asyncio
import base64
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.cli import main
from dispatcher.config import read_config
from dispatcher.dispatch import Attempts, Lane, hiding
from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.errors import ConfigError, EventError
from dispatcher.ground.policy import Claim, Outcome, Rule
from dispatcher.ground.secret import SecretBytes
from dispatcher.protocols.credentials import message_id
from dispatcher.seal import Seal
from dispatcher.store import acceptance, ledger
from dispatcher.wire import PinnedTransport, Resolver, Wire
from dispatcher.wire.failures import DnsFailure, LocalFault
from tests import hostile
from tests.authority import Authority
from tests.ground import IV, KEY, NOW, claim, line, notice, outcome, parse_event, settle_event
from tests.story import NO_TLS, Story, orders, toml, until
from tests.workshop import Bench, MovedClock, opened

pytestmark = pytest.mark.anyio

OK = httpx.Response(200)
NO = httpx.Response(500)
TAKEN = httpx.Response(200, json={"code": "0000"})
FRESH = "whsec_" + base64.b64encode(bytes(range(32))).decode()
FORMER = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
OAUTH = {"token_url": "https://login.example/token", "client_id": "us", "client_secret": "the-client-secret"}
MINT = {"account": "agent-1", "wallet": "main"}
TYPE = (b"Content-Type", b"application/json")


def configured(folder: Path, **settings: Any) -> Path:
    """A configuration with acme, which takes notices and settles, and these settings of it."""
    acme = {
        "notice_url": "https://acme.example/Demo/notice",
        "callback_url": "https://acme.example/wallet",
        "crypto": {"key": KEY, "iv": IV},
        **settings,
    }
    path = folder / "config.toml"
    lines = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in acme.items())
    path.write_text(f'[web]\nlisten = ""\n[operators.acme]\n{lines}', "utf-8")
    return path


class Proof(Bench):
    """A bench whose operator answers a notice by `answers` and every settle with a yes."""

    def __init__(self, folder: Path, answers: Sequence[Any] = (OK,), **settings: Any) -> None:
        super().__init__(configured(folder, **settings))
        self.acme.mock(side_effect=list(answers))
        self.payout = self.router.post("https://acme.example/wallet/settle").mock(return_value=TAKEN)

    async def take(self, *events: Mapping[str, Any]) -> None:
        """Accept events as `dispatcher enqueue` does, work until nothing is in flight."""
        await take(self, *events)


async def take(at: Bench, *events: Mapping[str, Any]) -> None:
    operators = {name: lane.operator for name, lane in at.dispatch.lanes.items()}
    accepted = [parse_event(line(event), operators, at.daemon._vault.lock) for event in events]
    acceptance.accept(at.database, accepted, at.clock.now())
    at.dispatch.look()
    await at.idle()


def order(number: int = 1, **changes: Any) -> dict[str, Any]:
    return notice(order_no=str(number), **changes)


def bearer(request: httpx.Request) -> str:
    (sent,) = request.headers.get_list("Authorization")
    scheme, token = sent.split(" ")
    assert scheme == "Bearer"
    return str(token)


# The headers, to the letter.


@pytest.mark.parametrize(
    ("settings", "event", "sent"),
    [
        ({"auth": "none"}, {}, []),
        ({"token": "the-token"}, {}, [(b"Authorization", b"Bearer the-token")]),
        ({"auth": "per_event"}, {"token": "the-players"}, [(b"Authorization", b"Bearer the-players")]),
        (
            {
                "auth": "none",
                "headers": {"x-aPi-KEY": "k", "AUTHORIZATION": "Basic dXM6dGhlbQ==", "Cookie": "a=1; b=2"},
            },
            {},
            [(b"x-aPi-KEY", b"k"), (b"AUTHORIZATION", b"Basic dXM6dGhlbQ=="), (b"Cookie", b"a=1; b=2")],
        ),
        (
            {"token": "the-token", "headers": {"X-Tenant": "a \tb"}},
            {},
            [(b"Authorization", b"Bearer the-token"), (b"X-Tenant", b"a \tb")],
        ),
    ],
    ids=["none", "bearer", "per_event", "headers", "both"],
)
async def test_a_notice_has_exactly_the_headers_that_are_configured_in_their_letters(
    settings: Any, event: Any, sent: Any, tmp_path: Path
) -> None:
    async with Proof(tmp_path, **settings) as at:
        await at.take(order(**event))
        assert at.request().headers.raw == [TYPE, *sent]


async def test_each_type_proves_itself_as_it_is_told_and_the_headers_go_with_both(tmp_path: Path) -> None:
    settings: Any = {"token": "the-token", "headers": {"X-Api-Key": "the-api-key"}, "signature": {"secret": FRESH}}
    async with Proof(tmp_path, **settings) as at:
        await at.take(order(), settle_event())
        told, paid = at.request(), at.payout.calls.last.request
        assert told.headers.raw[:3] == [TYPE, (b"Authorization", b"Bearer the-token"), (b"X-Api-Key", b"the-api-key")]
        assert paid.headers.raw[:2] == [TYPE, (b"X-Api-Key", b"the-api-key")]
        for request in (told, paid):
            names = [name for name, _ in request.headers.raw[-3:]]
            assert names == [b"webhook-id", b"webhook-timestamp", b"webhook-signature"]
            assert verified(request, FRESH) == [True]
        assert told.headers["webhook-id"] != paid.headers["webhook-id"]
    async with Proof(tmp_path, auth="none", token="the-token", settle={"auth": "bearer"}) as at:
        await at.take(order(2), settle_event(txId="tx-0002"))
        assert at.request().headers.raw == [TYPE]
        assert at.payout.calls.last.request.headers.raw == [TYPE, (b"Authorization", b"Bearer the-token")]


# Minted tokens.


@pytest.mark.parametrize(("unit", "part"), [("s", SECOND), ("ms", 1_000)])
async def test_a_minted_token_is_made_anew_for_each_attempt_and_opens_with_the_operators_key(
    unit: str, part: int, tmp_path: Path
) -> None:
    async with Proof(tmp_path, [NO, NO, OK], auth="minted", mint={**MINT, "time_unit": unit}) as at:
        at.clock.move(999_999)
        made = []
        await at.take(order(uid="玩家-1"))
        for delay in (MINUTE, 30 * MINUTE):
            made.append(at.clock.now())
            await at.after(delay)
        made.append(at.clock.now())
        tokens = [bearer(call.request) for call in at.acme.calls]
        assert [json.loads(opened(token)) for token in tokens] == [
            {"account": "agent-1", "uid": "玩家-1", "time": now // part, "username": "玩家-1", "wallet": "main"}
            for now in made
        ]
        assert len(set(tokens)) == 3


async def test_a_minted_token_is_made_with_the_key_in_force_and_speaks_of_the_player_of_a_settle(
    tmp_path: Path,
) -> None:
    async with Proof(tmp_path, [NO, OK], auth="minted", mint={**MINT, "username": "us", "wallet": 7}) as at:
        await at.take(order(), settle_event(userId="player-7"))
        payout = json.loads(opened(bearer(at.payout.calls.last.request)))
        assert (payout["uid"], payout["username"], payout["wallet"]) == ("player-7", "us", 7)
        new_key = "fedcba9876543210"
        configured(tmp_path, auth="minted", mint=MINT, crypto={"key": new_key, "iv": IV})
        await at.daemon.reload(at.path)
        await at.after(MINUTE)
        assert json.loads(opened(bearer(at.request()), new_key))["uid"] == "player-1"


# The signature.


def hmac_sha256(key: bytes, text: bytes) -> bytes:
    """RFC 2104, section 2, word by word."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(one ^ 0x36 for one in block) + text).digest()
    return hashlib.sha256(bytes(one ^ 0x5C for one in block) + inner).digest()


def verified(request: httpx.Request, secret: str) -> list[bool]:
    """Which of the request's signatures hold under this secret, over exactly its bytes."""
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        assert len(request.headers.get_list(name)) == 1
    parts = [request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.content]
    right = base64.b64encode(hmac_sha256(base64.b64decode(secret[6:]), b".".join(parts))).decode()
    return [one == f"v1,{right}" for one in request.headers["webhook-signature"].split(" ")]


async def test_every_attempt_is_signed_over_its_bytes_with_its_time_under_the_deliverys_one_id(tmp_path: Path) -> None:
    async with Proof(tmp_path, [NO] * 6, auth="none", signature={"secret": FRESH}) as at:
        await at.take(order())
        times = [at.clock.now()]
        await at.restart()
        for delay in (MINUTE, 30 * MINUTE, 50 * MINUTE):
            # Later than due, so that it shows which of the two times is signed.
            await at.after(delay + 7 * SECOND)
            times.append(at.clock.now())
        assert at.row().status == "dead"
        assert ledger.replay(at.database, [at.row()], "somebody", at.clock.now()).taken
        await at.look()
        times.append(at.clock.now())
        requests = [call.request for call in at.acme.calls]
        assert [verified(request, FRESH) for request in requests] == [[True]] * 5
        assert [int(request.headers["webhook-timestamp"]) for request in requests] == [now // SECOND for now in times]
        assert len({request.headers["webhook-id"] for request in requests}) == 1
        await at.take(order(2))
        assert at.request().headers["webhook-id"] != requests[0].headers["webhook-id"]


async def test_another_database_gives_another_order_another_id_and_the_same_order_its_own(tmp_path: Path) -> None:
    ids: list[str] = []
    for number in (1, 2, 1):
        folder = tmp_path / str(len(ids))
        folder.mkdir()
        async with Proof(folder, auth="none", signature={"secret": FRESH}) as at:
            await at.take(order(number))
            assert at.row(number).id == 1
            ids.append(at.request().headers["webhook-id"])
    assert ids[0] == ids[2] != ids[1]


def test_a_messages_id_tells_operators_types_and_keys_apart_and_has_no_sign_of_the_signatures_own() -> None:
    made = [
        message_id(claim(operator=operator, type=kind, key=key))
        for operator in ("acme", "acmenotice")
        for kind in ("notice", "settle")
        for key in ("1", "settle1", "1.1", "投 1")
    ]
    assert len(set(made)) == len(made)
    assert all(one.startswith("dlv_") and one.isascii() and one.isidentifier() for one in made)


async def test_during_a_rotation_both_secrets_sign_and_afterwards_the_new_one_alone(tmp_path: Path) -> None:
    async with Proof(tmp_path, [NO, NO, OK], auth="none", signature={"secret": FORMER}) as at:
        await at.take(order())
        configured(tmp_path, auth="none", signature={"secret": FRESH, "previous_secret": FORMER})
        await at.daemon.reload(at.path)
        await at.after(MINUTE)
        configured(tmp_path, auth="none", signature={"secret": FRESH})
        await at.daemon.reload(at.path)
        await at.after(30 * MINUTE)
        requests = [call.request for call in at.acme.calls]
        assert [verified(request, FORMER) for request in requests] == [[True], [False, True], [False]]
        assert [verified(request, FRESH) for request in requests] == [[False], [True, False], [True]]


# The player's own token.


def kept(at: Bench) -> bytes:
    """Everything that lies on the disk beside the configuration."""
    folder = at.path.parent
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file() and file != at.path)


async def test_a_players_token_is_locked_on_the_disk_and_goes_out_with_every_attempt(tmp_path: Path) -> None:
    token = "the-players-own~token"
    async with Proof(tmp_path, [NO, OK], auth="per_event") as at:
        await at.take(order(token=token), settle_event(token=f"{token}-2"))
        await at.restart()
        await at.after(MINUTE)
        assert [bearer(call.request) for call in at.acme.calls] == [token] * 2
        assert bearer(at.payout.calls.last.request) == f"{token}-2"
        assert token.encode() not in kept(at)
        with pytest.raises(EventError, match="token: is missing"):
            await at.take(order(2))


# OAuth2.


class Login:
    """The operator and its token endpoint. Tokens are token-1, token-2, …; `good` says which the operator takes."""

    def __init__(self) -> None:
        self.granted = 0
        self.asked: list[httpx.Request] = []
        self.orders: list[httpx.Request] = []
        self.good: Callable[[str], bool] = lambda _: True
        self.secret = OAUTH["client_secret"]
        self.before_token: Callable[[], Any] | None = None
        self.before_answer: Callable[[], Any] | None = None
        self.weather: dict[int, Any] = {}

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "login.example":
            return await self._grant(request)
        self.orders.append(request)
        if self.before_answer is not None:
            await self.before_answer()
        return httpx.Response(200 if self.good(bearer(request)) else 401, json={"code": "0000"})

    async def _grant(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.before_token is not None:
            await self.before_token()
        weather = self.weather.get(len(self.asked))
        if isinstance(weather, Exception):
            raise weather
        if weather is not None:
            return httpx.Response(weather)
        shown = base64.b64encode(f"us:{self.secret}".encode()).decode()
        if request.headers["Authorization"] != f"Basic {shown}":
            return httpx.Response(401, json={"error": "invalid_client"})
        self.granted += 1
        given = {"access_token": f"token-{self.granted}", "token_type": "Bearer", "expires_in": 3600}
        return httpx.Response(200, json=given)

    @property
    def shown(self) -> list[str]:
        """The tokens that came with orders."""
        return [bearer(request) for request in self.orders]


def granted(folder: Path, login: Login, **settings: Any) -> Bench:
    return Bench(configured(folder, auth="oauth2", oauth=OAUTH, **settings), answer=login.answer)


def made(at: Bench, key: int = 1) -> list[tuple[Any, ...]]:
    """What is recorded of each attempt."""
    return [(one["n"], one["http_status"], one["reason"], one["ambiguous"]) for one in at.attempts(key)]


async def test_a_hundred_deliveries_at_once_and_all_that_follow_share_one_token(tmp_path: Path) -> None:
    login, gate = Login(), asyncio.Event()
    login.before_token = gate.wait
    async with granted(tmp_path, login, concurrency=100) as at:
        waiting = asyncio.create_task(take(at, *map(order, range(100))))
        await hostile.until(lambda: at.dispatch.in_flight == 100 and bool(login.asked))
        assert len(login.asked) == 1
        gate.set()
        await waiting
        await take(at, order(100), settle_event())
        assert len(login.asked) == 1
        assert login.shown == ["token-1"] * 102
        assert {one.status for one in ledger.find(at.database, ledger.Filter(), None)} == {"delivered"}


async def test_a_401_gets_a_fresh_token_and_the_order_again_within_the_same_attempt(tmp_path: Path) -> None:
    login = Login()
    login.good = lambda token: token == "token-2"
    async with granted(tmp_path, login, signature={"secret": FRESH}) as at:
        await take(at, order())
        assert login.shown == ["token-1", "token-2"]
        assert made(at) == [(1, 200, None, False)]
        assert at.attempts(order()["order_no"])[0]["detail"] == "sent twice: 401 with the token before"
        assert at.row().status == "delivered"
        first, second = login.orders
        assert first.content == second.content
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            assert first.headers[name] == second.headers[name]
        assert len(at.told("attempt")) == 1
        await take(at, order(2))
        assert login.shown[2:] == ["token-2"]
        assert len(login.asked) == 2


async def test_many_that_are_refused_at_once_share_the_fresh_token(tmp_path: Path) -> None:
    login, everybody = Login(), asyncio.Event()
    login.before_answer = everybody.wait
    login.good = lambda token: token != "token-1"
    async with granted(tmp_path, login, concurrency=50) as at:
        waiting = asyncio.create_task(take(at, *map(order, range(50))))
        await hostile.until(lambda: len(login.orders) == 50)
        everybody.set()
        await waiting
        assert len(login.asked) == 2
        assert login.shown == ["token-1"] * 50 + ["token-2"] * 50
        assert {len(at.attempts(number)) for number in range(50)} == {1}


async def test_a_second_401_is_the_attempts_failure_and_the_next_attempt_asks_anew(tmp_path: Path) -> None:
    login = Login()
    login.good = lambda token: token == "token-3"
    async with granted(tmp_path, login) as at:
        await take(at, order())
        assert login.shown == ["token-1", "token-2"]
        assert made(at) == [(1, 401, "http_status", False)]
        assert (at.row().status, at.row().due_at) == ("pending", NOW + MINUTE)
        await at.after(MINUTE)
        assert login.shown[2:] == ["token-2", "token-3"]
        assert made(at)[1:] == [(2, 200, None, False)]


async def test_a_401_without_oauth2_is_tried_once(tmp_path: Path) -> None:
    async with Proof(tmp_path, [httpx.Response(401)] * 2, token="the-token") as at:
        await at.take(order())
        assert at.sent == 1


WEATHER: dict[str, tuple[Any, str]] = {
    "refused": (httpx.ConnectError("no"), "connect_refused"),
    "slow": (httpx.ConnectTimeout("no"), "connect_timeout"),
    "silent": (httpx.ReadTimeout("no"), "write_error"),
    "broken": (httpx.ReadError("no"), "write_error"),
    "no name": (DnsFailure("no"), "dns"),
    "500": (500, "write_error"),
    "503": (503, "write_error"),
    "401": (401, "config"),
    "302": (302, "write_error"),
}


@pytest.mark.parametrize("weather", WEATHER)
async def test_without_a_token_nothing_is_sent_and_the_attempt_counts_and_is_in_no_doubt(
    weather: str, tmp_path: Path
) -> None:
    login, (said, reason) = Login(), WEATHER[weather]
    login.weather = dict.fromkeys(range(1, 5), said)
    async with granted(tmp_path, login) as at:
        await take(at, order())
        for delay in (MINUTE, 30 * MINUTE, 50 * MINUTE):
            await at.after(delay)
        assert login.orders == []
        assert made(at) == [(n, None, reason, False) for n in range(1, 5)]
        assert all(one["detail"].startswith("oauth2: ") for one in at.attempts())
        assert (at.row().status, at.row().ambiguous) == ("dead", False)


@pytest.mark.parametrize("fault", [LocalFault("no descriptors"), DnsFailure("our resolver", ours=True)], ids=repr)
async def test_a_fault_of_our_own_on_the_way_to_the_token_costs_no_attempt(fault: Exception, tmp_path: Path) -> None:
    login = Login()
    login.weather = {1: fault}
    async with granted(tmp_path, login) as at:
        await take(at, order())
        assert (made(at), at.row().status, at.row().attempts) == ([], "pending", 0)
        assert at.dispatch.own_fault.startswith("oauth2: ")
        await at.after(5 * SECOND)
        assert made(at) == [(1, 200, None, False)]


@pytest.mark.parametrize("said", [500, httpx.ReadTimeout("no"), LocalFault("no descriptors")], ids=repr)
async def test_a_401_without_a_fresh_token_stays_a_401_in_no_doubt(said: Any, tmp_path: Path) -> None:
    login = Login()
    login.good = lambda token: token != "token-1"
    login.weather = {2: said}
    async with granted(tmp_path, login) as at:
        await take(at, order())
        assert made(at) == [(1, 401, "http_status", False)]
        await at.after(MINUTE)
        assert made(at)[1:] == [(2, 200, None, False)]
        assert login.shown == ["token-1", "token-2"]


def paced(*seconds: float) -> Callable[[], Any]:
    """Takes so long the first time, the second, …; for ever once none is left."""
    left = list(seconds)

    async def wait() -> None:
        await asyncio.sleep(left.pop(0) if left else 60)

    return wait


@pytest.mark.parametrize(
    ("token", "answer", "sent", "found"),
    [
        ([], [], 0, (None, "write_error", False)),
        ([0.6], [], 1, (None, "read_timeout", True)),
        ([0.35], [0.35], 1, (401, "http_status", False)),
        ([0.25, 0.25], [0.25], 2, (None, "read_timeout", True)),
    ],
    ids=["the token", "the order", "the fresh token", "the order again"],
)
async def test_one_deadline_covers_both_tokens_and_both_posts(
    token: list[float], answer: list[float], sent: int, found: Any, tmp_path: Path
) -> None:
    login = Login()
    login.before_token, login.before_answer = paced(*token), paced(*answer)
    login.good = lambda token: token != "token-1"
    async with granted(tmp_path, login, total_timeout="1s") as at:
        await take(at, order())
        assert len(login.orders) == sent
        ((_, *rest),) = made(at)
        assert tuple(rest) == found
        # The last part with a deadline of its own would come to 1.6 s and more.
        assert 990_000 <= at.attempts()[0]["duration"] < 1_500_000


async def test_a_token_that_comes_at_the_very_end_of_the_time_sends_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, ticks = Login(), [0]
    monkeypatch.setattr("dispatcher.dispatch.attempt.time", SimpleNamespace(perf_counter_ns=lambda: ticks[0]))

    async def slow() -> None:
        ticks[0] += 10 * 10**9

    login.before_token = slow
    async with granted(tmp_path, login) as at:
        await take(at, order())
        assert login.orders == []
        assert made(at) == [(1, None, "write_error", False)]
        assert at.attempts()[0]["duration"] == 10 * SECOND


async def test_a_new_client_secret_is_taken_up_by_a_reload_and_the_old_token_is_not_used_again(tmp_path: Path) -> None:
    login = Login()
    async with granted(tmp_path, login) as at:
        await take(at, order())
        login.secret = "another-client-secret"
        login.good = lambda token: token != "token-1"
        await take(at, order(2))
        assert made(at, 2) == [(1, 401, "http_status", False)]
        configured(tmp_path, auth="oauth2", oauth={**OAUTH, "client_secret": login.secret})
        await at.daemon.reload(at.path)
        await at.after(MINUTE)
        assert made(at, 2)[1:] == [(2, 200, None, False)]
        assert login.shown == ["token-1", "token-1", "token-2"]


async def test_a_wrong_client_secret_is_for_us_to_mend(tmp_path: Path) -> None:
    login = Login()
    login.secret = "another-client-secret"
    async with granted(tmp_path, login) as at:
        await take(at, order())
        assert made(at) == [(1, None, "config", False)]
        assert at.attempts()[0]["detail"] == "oauth2: the token endpoint answered 401 (invalid_client)"


# Answers that repeat what we sent.

PROOFS: dict[str, dict[str, Any]] = {
    "bearer": {"auth": "bearer", "token": 'the-"token"/of\\acme+=='},
    "per_event": {"auth": "per_event"},
    "minted": {"auth": "minted", "mint": MINT},
    "oauth2": {"auth": "oauth2", "oauth": OAUTH},
    "headers": {"auth": "none", "headers": {"X-Api-Key": 'the-"api"/key <&>', "Cookie": "sid=0123456789/abc"}},
}
PLAYERS = "the-players/own'token\""
ESCAPES: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in PHP's JSON": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "in Go's JSON": lambda text: "".join(
        f"\\u{ord(one):04x}" if one in "<>&" else json.dumps(one)[1:-1] for one in text
    ),
    "all in numbers": lambda text: "".join(f"\\u{ord(one):04X}" for one in text),
}


def carried(request: httpx.Request) -> list[str]:
    """The secrets in a request."""
    own = [request.headers[name] for name in ("X-Api-Key", "Cookie") if name in request.headers]
    return own or [bearer(request)]


class Echo(Login):
    """Answers with the request's own secrets, between `before` and `after`."""

    def __init__(self, escape: Callable[[str], str], before: str = '{"message":"', after: str = '"}') -> None:
        super().__init__()
        self.escape, self.before, self.after = escape, before, after

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "login.example":
            return await self._grant(request)
        self.orders.append(request)
        text = self.before + " ".join(map(self.escape, carried(request))) + self.after
        return httpx.Response(500, content=text.encode())


async def echoed(folder: Path, echo: Echo, **settings: Any) -> tuple[list[str], dict[str, Any]]:
    """Everything that is kept and shown of an attempt that such an answer ended, and what `show` says of it."""
    at = Bench(configured(folder, **settings), answer=echo.answer)
    async with at:
        await take(at, order() | ({"token": PLAYERS} if settings["auth"] == "per_event" else {}))
        shown = [
            CliRunner().invoke(main, ["show", "acme", "1", "-c", str(at.path), *more]) for more in ([], ["--json"])
        ]
        assert [one.exit_code for one in shown] == [0, 0]
        row = at.attempts()[0]
        kept_ = [
            *map(str, row.values()),
            *map(str, at.lines),
            *(one.output for one in shown),
            kept(at).decode("latin-1"),
        ]
        assert echo.orders
        return kept_, json.loads(shown[1].output)["attempts"][0]


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("proof", PROOFS)
async def test_an_answer_that_repeats_our_proof_carries_it_nowhere(proof: str, escape: str, tmp_path: Path) -> None:
    echo = Echo(ESCAPES[escape])
    # By this rule the answer's own words and code are kept too.
    rule = {"field": "message", "values": ["yes"]}
    everywhere, attempt = await echoed(tmp_path, echo, success=rule, **PROOFS[proof])
    for secret in carried(echo.orders[0]):
        for form in ESCAPES.values():
            assert not [text for text in everywhere if form(secret) in text]
    hidden = " ".join(["[token]"] * len(carried(echo.orders[0])))
    assert attempt["response"] == f'{{"message":"{hidden}"}}'
    assert attempt["code"] == hidden
    assert attempt["reason"] == "http_status"


@pytest.mark.parametrize("shift", range(0, 30, 3))
async def test_a_token_across_the_cut_of_what_is_kept_leaves_no_part_of_it(shift: int, tmp_path: Path) -> None:
    echo = Echo(str, before="x" * (1_024 - shift), after="y" * 70_000)
    _, attempt = await echoed(tmp_path, echo, auth="bearer", token="geheim-token-of-thirty-letters")
    assert len(attempt["response"]) == 1_024
    assert "geh" not in attempt["response"]


async def test_what_is_cut_out_of_an_answer_is_the_secret_alone(tmp_path: Path) -> None:
    echo = Echo(str, before='{"message":"投\\u6295 \\/ \\"quoted\\" ', after=' \\n the-token"}')
    _, attempt = await echoed(tmp_path, echo, auth="bearer", token="the-token-of-acme")
    assert attempt["response"] == '{"message":"投\\u6295 \\/ \\"quoted\\" [token] \\n the-token"}'


def test_an_answer_full_of_escapes_is_unescaped_once_however_many_words_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Done for each word, one such answer held up everybody's requests for a twentieth of a second."""
    unescape = Mock(wraps=hiding._ESCAPED.sub)
    monkeypatch.setattr(hiding, "_ESCAPED", SimpleNamespace(sub=unescape))
    words = [SecretBytes(f"word-{n}".encode()) for n in range(50)]
    said = outcome(200, body=b"\\" * 65_536)
    assert hiding.hide(words, said, Rule()) is said
    assert unescape.call_count == 1


@pytest.mark.parametrize(
    ("headers", "success", "answer", "status"),
    [
        ({"X-Kind": "wallet"}, {"field": "success", "values": [True], "numeric": "wallet"}, {"wallet": 7}, "delivered"),
        (
            {"X-Site": "100000"},
            {"field": "success", "values": [True], "numeric": "wallet"},
            {"wallet": 100000},
            "delivered",
        ),
        ({"X-Says": "success"}, {"field": "success", "values": [True]}, {}, "delivered"),
        ({"X-Code": "000000"}, {"field": "code", "values": ["000000"]}, {"code": "000000"}, "delivered"),
        (
            {"X-Code": "100501"},
            {"field": "code", "values": ["0"], "final_codes": ["100501"]},
            {"code": "100501"},
            "dead",
        ),
    ],
    ids=["a field's name", "an amount", "another name", "a yes", "a final code"],
)
async def test_a_header_that_is_also_what_the_rule_reads_never_turns_the_verdict(
    headers: Any, success: Any, answer: Any, status: str, tmp_path: Path
) -> None:
    said = httpx.Response(200, json={"success": True, **answer})
    async with Proof(tmp_path, [said], auth="none", headers=headers, success=success) as at:
        await at.take(order())
        assert at.row().status == status


async def test_what_an_attempt_sent_is_hidden_also_when_a_reload_came_in_between(tmp_path: Path) -> None:
    echo, gate = Echo(str), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        await gate.wait()
        return await echo.answer(request)

    async with Bench(configured(tmp_path, auth="none", headers={"X-Api-Key": "the-old-key"}), answer=answer) as at:
        waiting = asyncio.create_task(take(at, order()))
        await hostile.until(lambda: at.dispatch.in_flight == 1)
        configured(tmp_path, auth="none", headers={"X-Api-Key": "the-new-key"})
        await at.daemon.reload(at.path)
        gate.set()
        await waiting
        assert at.attempts()[0]["response"] == '{"message":"[token]"}'
        await at.after(MINUTE)
        assert [request.headers["X-Api-Key"] for request in echo.orders] == ["the-old-key", "the-new-key"]


# No line that nobody configured.

NASTY = st.text(st.sampled_from("aB7-_:,;=\"'%\\ \t\r\n\0\x0b\x0c\x1b\x7f\x85\u2028é投"), max_size=12)
TAIL = st.sampled_from(
    ["", "", "", "\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\0X-Evil: 1", "\r\n\r\nPOST / HTTP/1.1\r\n"]
)
PLAIN = st.text(st.sampled_from("aB7-"), min_size=1, max_size=8)
TEXT = st.builds(str.__add__, PLAIN | NASTY, TAIL)


class Wiretap:
    """A raw operator, and attempts that reach it over a socket; `heard` is what came, byte for byte."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.heard: list[bytes] = []
        self.clock = MovedClock()
        self.attempts = Attempts(Wire(self.clock), self.clock, lambda locked, _: locked.encode())
        self.transport = PinnedTransport(Resolver(), [ip_network("127.0.0.0/8")], 3 * SECOND)
        self.url = self.runner.run(self._listen())

    async def _listen(self) -> str:
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().rpartition(b"content-length: ")[2].split(b"\r")[0])
                self.heard.append(head + await reader.readexactly(length))
                writer.write(hostile.OK)
        writer.close()

    def post(self, raw: Mapping[str, Any], event: Mapping[str, Any]) -> Outcome | None:
        """One attempt under these settings; None where the settings or the event are refused."""
        urls = {"notice_url": f"{self.url}/Demo/notice", "callback_url": f"{self.url}/wallet"}
        config = {"egress": {"allow": ["127.0.0.0/8"]}, "operators": {"acme": {**urls, **raw}}}
        try:
            acme = read_config(config, Path("/nowhere/config.toml")).operators["acme"]
            made_ = parse_event(line(event), {"acme": acme}, lambda text, _: text.decode())
        except (ConfigError, EventError):
            return None
        lane = Lane(acme, Seal(acme.reading) if acme.reading else None, self.transport)
        taken: Claim = claim(type=made_.type, key=made_.key, uid=made_.uid, body=made_.body, bearer=made_.bearer)
        return self.runner.run(self.attempts.make(lane, taken))

    def close(self) -> None:
        async def end() -> None:
            await self.transport.aclose()
            self._server.close()
            await asyncio.sleep(0)

        self.runner.run(end())
        self.runner.close()


@pytest.fixture
def wiretap() -> Iterator[Wiretap]:
    made_ = Wiretap()
    yield made_
    made_.close()


SETTINGS = st.one_of(
    st.builds(lambda token: {"auth": "bearer", "token": token}, TEXT),
    st.just({"auth": "per_event"}),
    st.just({"auth": "none"}),
    st.builds(lambda account, name: {"auth": "minted", "mint": {"account": account, "username": name}}, TEXT, TEXT),
)


def test_whatever_is_accepted_never_makes_a_line_that_nobody_configured(wiretap: Wiretap) -> None:
    sent = refused = 0

    @given(SETTINGS, st.dictionaries(TEXT, TEXT, max_size=2), TEXT, TEXT, TEXT, st.booleans())
    @example({"auth": "bearer", "token": "t"}, {"X-A": "a b"}, "t", "u", "k", True)
    @example({"auth": "none"}, {"X-A": "a\r\nX-Evil: 1"}, "t", "u", "k", False)
    @example({"auth": "none"}, {"X-A: 1\r\nX-Evil": "a"}, "t", "u", "k", False)
    @example({"auth": "bearer", "token": "t\r\nX-Evil: 1"}, {}, "t", "u", "k", False)
    @example({"auth": "per_event"}, {}, "t\r\nX-Evil: 1", "u", "k", False)
    @example({"auth": "minted", "mint": {"account": "a"}}, {}, "t", "u\u2028", "投", True)
    def one(auth: Any, headers: Any, token: str, uid: str, key: str, pays: bool) -> None:
        nonlocal sent, refused
        raw = {**auth, "headers": headers, "crypto": {"key": KEY, "iv": IV}, "signature": {"secret": FRESH}}
        brought = {"token": token} if auth["auth"] == "per_event" else {}
        event = settle_event(userId=uid, txId=key) if pays else notice(uid=uid, order_no=key)
        wiretap.heard.clear()
        outcome = wiretap.post({**raw, "settle": {"auth": auth["auth"]}}, {**event, **brought})
        if outcome is None:
            refused += 1
            assert not wiretap.heard
            return
        sent += 1
        assert (outcome.http_status, outcome.reason) == (200, None)
        (request,) = wiretap.heard
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        assert not [part for part in lines if set(part) & {*b"\r\n\0"}]
        names = [part.split(b":")[0].decode() for part in lines]
        own = [] if auth["auth"] == "none" else ["Authorization"]
        signed = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        wanted = ["Host", "Content-Type", *own, *headers, *signed, "User-Agent", "Accept", "Content-Length"]
        assert names == wanted
        assert first == (b"POST /wallet/settle HTTP/1.1" if pays else b"POST /Demo/notice HTTP/1.1")
        assert [part.decode() for part in lines if part.split(b":")[0].decode() in headers] == [
            f"{name}: {value}" for name, value in headers.items()
        ]
        assert lines[-1] == b"Content-Length: %d" % len(body)

    one()
    # The examples above, at least: what else is drawn is chance.
    assert sent >= 2
    assert refused >= 4


@pytest.mark.parametrize("told", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0"])
def test_what_would_break_out_of_its_line_is_not_sent_even_if_every_reader_let_it_pass(
    told: str, wiretap: Wiretap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.config.access.header_value", str)
    monkeypatch.setattr("dispatcher.config.access.bearer_token", str)
    crypto = {"key": KEY, "iv": IV}
    for raw in ({"auth": "none", "headers": {"X-A": told}}, {"auth": "bearer", "token": told}):
        outcome = wiretap.post({**raw, "crypto": crypto}, notice())
        assert outcome is not None
        assert outcome.reason == "config"
        assert not wiretap.heard


# Between processes.


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        del story.operators["acme"]["token"]
        yield story


def delivered(story: Story, receiver: Any) -> None:
    """Orders and a payout go out, are verified and booked by the demo operator, each once, and nothing is shown."""
    events = [*orders(20), settle_event()]
    with story.running() as daemon:
        story.enqueue(events)
        until(lambda: story.all_are("delivered"), told=daemon.text)
    booked = httpx.get(f"{receiver.url}/received", verify=NO_TLS, trust_env=False, timeout=60).json()
    assert sorted(one.get("order_no") or one["txId"] for one in booked) == sorted(
        str(event.get("order_no") or event["txId"]) for event in events
    )
    assert {one["times"] for one in booked} == {1}
    assert story.query("SELECT DISTINCT n, http_status FROM attempts") == [(1, 200)]


def address(story: Story) -> str:
    """Where acme's operator listens."""
    return str(story.operators["acme"]["notice_url"]).removesuffix("/Demo/notice")


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_the_demo_operator_takes_the_minted_tokens_of_a_running_daemon(story: Story, unit: str) -> None:
    mint = {**MINT, "time_unit": unit}
    story.set(auth="minted", mint=mint, callback_url=f"{address(story)}/wallet")
    with story.receiving() as receiver:
        delivered(story, receiver)


@pytest.mark.parametrize("way", ["basic", "post"])
def test_the_demo_operator_gives_a_running_daemon_its_tokens_and_takes_no_others(story: Story, way: str) -> None:
    (story.folder / "client.txt").write_text("s3cret: of+acme/ü\n")
    (story.folder / "client.txt").chmod(0o600)
    grant = {"client_id": "us & them", "client_secret_file": "client.txt", "scope": "a b", "client_auth": way}
    grant["token_url"] = f"{address(story)}/oauth/token"
    story.set(auth="oauth2", oauth=grant, callback_url=f"{address(story)}/wallet")
    with story.receiving() as receiver:
        delivered(story, receiver)
        assert (
            httpx.post(f"{receiver.url}/wallet/settle", json={}, verify=NO_TLS, trust_env=False, timeout=60).status_code
            == 401
        )


def test_the_demo_operator_verifies_the_headers_and_signatures_of_a_running_daemon(story: Story) -> None:
    settings: Any = {
        "auth": "none",
        "callback_url": f"{address(story)}/wallet",
        "headers": {"X-Api-Key": "the-api-key"},
    }
    story.set(**settings, signature={"secret": FRESH, "previous_secret": FORMER})
    theirs = story.write(story.folder / "theirs.toml")
    # Each side in the middle of the rotation: what they share is the former secret alone.
    theirs.write_text(theirs.read_text().replace(FRESH, "whsec_" + base64.b64encode(bytes(64)).decode()))
    with story.receiving(config=theirs) as receiver:
        delivered(story, receiver)


@contextmanager
def demanding(authority: Authority, booked: list[bytes]) -> Iterator[str]:
    """A server that talks to none but those who show a certificate of this authority's; its address."""
    context = authority.demanding(ssl.TLSVersion.TLSv1_3)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(taken,), daemon=True).start()

    def talk(taken: socket.socket) -> None:
        taken.settimeout(60)
        with context.wrap_socket(taken, server_side=True, do_handshake_on_connect=False) as wrapped:
            try:
                wrapped.do_handshake()
            except ssl.SSLError:
                # Hung up softly: with bytes unread the end would be a reset and take the alert with it.
                with socket.socket(fileno=wrapped.detach()) as raw, suppress(OSError):
                    raw.settimeout(60)
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(65_536):
                        pass
                return
            heard = b""
            while b"\r\n\r\n" not in heard or not heard.endswith(b"}"):
                heard += wrapped.recv(65_536)
            booked.append(heard)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.join()


def test_an_operator_behind_a_private_authority_that_demands_our_certificate_is_reached_with_it_alone(
    story: Story,
) -> None:
    folder = story.folder / "certificates"
    folder.mkdir()
    authority, booked = Authority(folder), list[bytes]()
    certificate, key = authority.client()
    for name, text in (("client.pem", certificate), ("client.key", key)):
        (folder / name).write_text(text.reveal())
        (folder / name).chmod(0o600)
    ca = {"ca_file": "certificates/authority.pem"}
    shows = {"certificate_file": "certificates/client.pem", "key_file": "certificates/client.key"}
    with demanding(authority, booked) as url:
        story.set(auth="none", notice_url=f"{url}/Demo/notice", tls={**ca, **shows})
        story.add_operator("bolt", auth="none", notice_url=f"{url}/bolt", tls=ca, retry={"delays": []})
        story.add_operator("coin", auth="none", notice_url=f"{url}/coin", retry={"delays": []})
        for name in ("bolt", "coin"):
            del story.operators[name]["token"]
        story.write()
        with story.running() as daemon:
            story.enqueue([*orders(1), *orders(1, operator="bolt"), *orders(1, operator="coin")])
            until(lambda: story.statuses().total() and story.all_are("delivered"), told=daemon.text)
            until(lambda: story.all_are("dead", "bolt") and story.all_are("dead", "coin"), told=daemon.text)
    assert [request.split(b" ")[1] for request in booked] == [b"/Demo/notice"]
    for name in ("bolt", "coin"):
        shown = story.show(orders(1)[0]["order_no"], name)
        assert [(one["reason"], one["ambiguous"]) for one in shown["attempts"]] == [("tls", False)]


async def test_a_headers_words_are_hidden_one_by_one_too(tmp_path: Path) -> None:
    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, content=b'{"message":"bad key S3CRETVALUE123"}')

    at = Bench(configured(tmp_path, auth="none", headers={"Authorization": "ApiKey S3CRETVALUE123"}), answer=answer)
    async with at:
        await take(at, order())
        assert at.attempts()[0]["response"] == '{"message":"bad key [token]"}'
