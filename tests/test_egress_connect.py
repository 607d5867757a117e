"""The guard at the moment of connecting: on every way out, whatever a name answers and however a URL is written."""

import ast
import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import dispatcher
from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.egress import may_call, parse_address
from dispatcher.ground.operator import ClientAuth, OAuth
from dispatcher.ground.policy import Reason
from dispatcher.ground.secret import Secret
from dispatcher.wire import Grant, NoToken, reach
from tests.ground import KEY
from tests.hostile import OK, Caller, always, bound, calling, named, names, playing, set_ahead, silent
from tests.story import Story
from tests.test_egress import LITERALS, NOT_PUBLIC, PUBLIC
from tests.workshop import Bench, configuration

pytestmark = pytest.mark.anyio

Way = Callable[[Caller, str], Awaitable[str]]
PUBLIC_ADDRESS, ANOTHER = "93.184.216.34", "93.184.216.35"


class Connects:
    """Where connections were tried: each is refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.to: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", self._refuse)

    async def _refuse(self, _protocol: Any, host: str, _port: int, **_: Any) -> Any:
        self.to.append(host)
        raise ConnectionRefusedError(111, "refused")


# The ways out: each tells the reason, and some words.


async def deliver(caller: Caller, url: str) -> str:
    outcome = await caller.post(url)
    return f"{outcome.reason} ({outcome.detail})"


async def fetch_a_token(caller: Caller, url: str) -> str:
    oauth = OAuth(url, "acme", Secret("s3cret"), None, ClientAuth.BASIC)
    try:
        await Grant(caller.transport, oauth).token(5 * SECOND)
    except NoToken as error:
        return f"{error.reason} ({error.detail})"
    return "a token"


async def check(caller: Caller, url: str) -> str:
    return str(await reach(caller.transport, url))


WAYS: Sequence[Way] = (deliver, fetch_a_token, check)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in NOT_PUBLIC.items() for text in texts])
async def test_a_name_that_is_at_such_an_address_is_never_connected_to(
    kind: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, and among public ones in any place: a mixture is refused as a whole."""
    connects = Connects(monkeypatch)
    for found in ([text], [text, PUBLIC_ADDRESS], [PUBLIC_ADDRESS, text], [PUBLIC_ADDRESS, "2606:4700::1111", text]):
        names(monkeypatch, acme=[found])
        for way in WAYS:
            for scheme in ("http", "https"):
                async with calling(allow=[]) as caller:
                    told = await way(caller, f"{scheme}://acme.example/Demo/notice")
                assert told.startswith("blocked_address ("), f"{kind} {way.__name__}"
                assert f"acme.example is {parse_address(text)}, " in told
                assert "egress.allow" in told
    assert connects.to == []


@pytest.mark.parametrize("text", LITERALS)
async def test_a_url_with_such_an_address_is_never_connected_to(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connects = Connects(monkeypatch)
    for way in WAYS:
        async with calling(allow=[]) as caller:
            told = await way(caller, f"http://{f'[{text}]' if ':' in text else text}/")
        assert told.startswith("blocked_address (")
    assert connects.to == []


@pytest.mark.parametrize("text", PUBLIC)
async def test_a_name_at_a_public_address_is_connected_to_there(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connects = Connects(monkeypatch)
    names(monkeypatch, acme=[[text]])
    for way in WAYS:
        async with calling(allow=[]) as caller:
            await way(caller, "http://acme.example/")
    assert connects.to == [str(parse_address(text))] * len(WAYS)


# However it is written. The resolver reads numbers as getaddrinfo does; any other name is, at worst, this machine.

SPELLINGS = {
    "decimal": "2130706433",
    "decimal of the metadata": "2852039166",
    "octal": "0177.0.0.1",
    "octal in one": "017700000001",
    "octal with zeros": "00000177.0.0.1",
    "octal of a private one": "0300.0250.1.1",
    "zeros": "127.000.000.001",
    "hex": "0x7f.0.0.1",
    "hex in one": "0x7f000001",
    "hex in capitals": "0X7F.0.0.1",
    "hex at the end": "127.0.0.0x1",
    "hex and short": "0x7f.1",
    "two parts": "127.1",
    "three parts": "127.0.1",
    "zero": "0",
    "zero in hex": "0x0",
    "four zeros": "0.0.0.0",
    "ten in two parts": "10.1",
    "a user": "user@127.0.0.1",
    "a user and a password": "user:word@127.0.0.1",
    "a public address for a user": "8.8.8.8@127.0.0.1",
    "a public host and port for a user": "acme.example:80@127.0.0.1",
    "an empty user": "@127.0.0.1",
    "a fragment": "127.0.0.1#@8.8.8.8",
    "a query": "127.0.0.1?@8.8.8.8",
    "a backslash": "127.0.0.1\\@acme.example",
    "a backslash at the end": "127.0.0.1\\",
    "ideographic full stops": "127。0。0。1",
    "full-width full stops": "127．0．0．1",
    "half-width full stops": "127｡0｡0｡1",
    "circled digits": "①②⑦.⓪.⓪.①",
    "full-width digits": "１２７.0.0.1",
    "circled letters": "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "a soft hyphen": "local\u00adhost",
    "a dot at the end": "127.0.0.1.",
    "two dots at the end": "127.0.0.1..",
    "percent signs": "%31%32%37.0.0.1",
    "a percent sign for a dot": "127%2e0.0.1",
    "a slash in percent": "127.0.0.1%2facme.example",
    "a NUL in percent": "127.0.0.1%00.acme.example",
    "a tab": "127.0.\t0.1",
    "a tab at the end": "127.0.0.1\t",
    "a line break": "127.0.0.1\n",
    "a blank": "127.0.0.1 ",
    "a comma": "127.0.0.1,8.8.8.8",
    "a semicolon": "127.0.0.1;8.8.8.8",
    "localhost": "localhost",
    "localhost in capitals": "LOCALHOST",
    "localhost with a dot": "localhost.",
    "below localhost": "acme.localhost",
    "IPv6 loopback": "[::1]",
    "IPv6 loopback at length": "[0:0:0:0:0:0:0:1]",
    "IPv6 unspecified": "[::]",
    "mapped": "[::ffff:127.0.0.1]",
    "mapped in hex": "[::ffff:7f00:1]",
    "mapped at length": "[0:0:0:0:0:ffff:7f00:0001]",
    "compatible": "[::127.0.0.1]",
    "NAT64": "[64:ff9b::127.0.0.1]",
    "6to4": "[2002:7f00:1::]",
    "Teredo": "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "a zone": "[fe80::1%eth0]",
    "a zone in percent": "[fe80::1%25eth0]",
    "a zone for loopback": "[::1%lo]",
    "a mapped one in hex parts": "[::ffff:0x7f.1]",
    "IPv4 in brackets": "[127.0.0.1]",
    "a future address": "[v1.127.0.0.1]",
}


async def at_worst(host: str) -> list[tuple[Any, ...]]:
    try:
        return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@pytest.mark.parametrize("host", SPELLINGS.values(), ids=SPELLINGS)
async def test_no_spelling_of_this_machine_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the configuration had let it in: a listener on this machine hears of nobody."""
    monkeypatch.setattr("dispatcher.wire.resolver.ask", at_worst)
    four, six = bound("127.0.0.1", "::1")
    async with playing(silent, at=four) as (trap, url), playing(silent, at=six) as (trap_too, _):
        port = url.split(":")[2].split("/")[0]
        for way in WAYS:
            for text in (f"http://{host}:{port}/", f"http://{host}/"):
                async with calling(allow=[]) as caller:
                    told = await way(caller, text)
                assert told.split(" ")[0] in ("blocked_address", "config"), told
        assert [trap.peers, trap_too.peers] == [[], []]


# Between the check and the connection.


async def test_the_name_is_asked_once_and_the_address_that_was_checked_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rebinding: public for whoever checks, private for whoever asks again."""
    ahead = set_ahead(monkeypatch)
    for way in WAYS:
        connects = Connects(monkeypatch)
        asked = names(monkeypatch, acme=[[PUBLIC_ADDRESS], ["127.0.0.1"]])
        async with calling(allow=[]) as caller:
            told = await way(caller, "http://acme.example/")
            assert told.startswith("connect_refused (")
            assert (connects.to, asked.asked) == ([PUBLIC_ADDRESS], ["acme.example"])
            for _ in range(5):
                await way(caller, "http://acme.example/")
            assert (set(connects.to), len(asked.asked)) == ({PUBLIC_ADDRESS}, 1)
            ahead.seconds += 31
            told = await way(caller, "http://acme.example/")
            assert told.startswith("blocked_address (")
            assert "acme.example is 127.0.0.1" in told
            assert (set(connects.to), len(asked.asked)) == ({PUBLIC_ADDRESS}, 2)


async def test_of_several_public_addresses_one_is_called_and_after_its_failure_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connects = Connects(monkeypatch)
    names(monkeypatch, acme=[[PUBLIC_ADDRESS, ANOTHER]])
    async with calling(allow=[]) as caller:
        for _ in range(3):
            await caller.post("http://acme.example/")
    assert connects.to == [PUBLIC_ADDRESS, ANOTHER, PUBLIC_ADDRESS]


async def test_a_redirect_into_the_private_network_is_followed_on_no_way() -> None:
    """Not even where that could be called, and would say yes."""
    async with playing(always(OK)) as (trap, private):
        for status in (301, 302, 303, 307, 308):
            answer = b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, private.encode())
            async with playing(always(answer)) as (operator, url), calling() as caller:
                outcome = await caller.post(url)
                assert (trap.peers, outcome.http_status) == ([], status)
                told = await fetch_a_token(caller, url)
                assert (trap.peers, told.split(" (")[0]) == ([], "write_error")
                assert f"the token endpoint answered {status}" in told
                assert sum(peer.seen.count(b"POST ") for peer in operator.peers) == 2


# What is allowed.


@pytest.mark.parametrize(
    ("allow", "inside", "beside"),
    [
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
        ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
        ("127.0.0.0/8", "127.255.255.255", "128.0.0.1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1", "::1"),
        ("169.254.169.254/32", "169.254.169.254", "169.254.169.253"),
        ("100.64.0.0/10", "100.127.255.255", "192.0.0.1"),
        ("198.18.0.0/15", "198.19.255.255", "240.0.0.1"),
        ("::1/128", "::1", "::2"),
        ("fd12::/64", "fd12::ffff", "fd12:0:0:1::"),
        ("64:ff9b::/96", "64:ff9b::a00:1", "64:ff9b:1::a00:1"),
    ],
)
async def test_what_is_allowed_is_called_and_its_neighbour_is_not(
    allow: str, inside: str, beside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects = Connects(monkeypatch)
    names(monkeypatch, inside=[[inside]], beside=[[beside]], both=[[inside, beside]])
    for way in WAYS:
        connects.to.clear()
        async with calling(allow=[allow]) as caller:
            assert (await way(caller, "http://inside.example/")).startswith("connect_refused")
            address = parse_address(beside)
            assert address is not None
            if not may_call(address, []):
                assert (await way(caller, "http://beside.example/")).startswith("blocked_address")
                assert (await way(caller, "http://both.example/")).startswith("blocked_address")
        assert connects.to == [str(parse_address(inside))]


async def test_a_reload_that_allows_less_holds_for_the_next_attempt_though_a_connection_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, acme=[["127.0.0.1"]])
    at = Bench(configuration(tmp_path, top='[egress]\nallow = ["127.0.0.0/8"]'))
    at.transport = cast(Any, None)
    async with playing(always(OK)) as (operator, url):
        at.path.write_text(at.path.read_text().replace("https://acme.example/Demo/notice", named(url)))
        async with at:
            await at.send(1)
            await at.idle()
            at.path.write_text(at.path.read_text().replace('"127.0.0.0/8"', '"10.0.0.0/8"'))
            await at.daemon.reload(at.path)
            await at.send(2)
            await at.idle()
            assert [(at.row(key).status, at.row(key).reason) for key in (1, 2)] == [
                ("delivered", None),
                ("pending", Reason.BLOCKED_ADDRESS),
            ]
            assert sum(peer.seen.count(b"POST ") for peer in operator.peers) == 1
            await at.after(MINUTE)
            assert sum(peer.seen.count(b"POST ") for peer in operator.peers) == 1


def test_an_operator_made_by_a_command_is_guarded_alike(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        for url in ("https://10.0.0.1/", "https://[::ffff:10.0.0.1]/", "http://localhost:1/"):
            story.set("egress", allow=[])
            story.operators.clear()
            story.write()
            words = ("operators", "set", "bolt", f"notice_url={url}", "auth=none", "--secret", "crypto.key")
            done = story.call(*words, stdin=f"{KEY}\n")
            assert done.status == 2, done
            assert "notice_url: " in done.err
            assert "egress.allow" in done.err


# There is no other way out.

DIALS = {"create_connection", "open_connection", "open_unix_connection", "create_unix_connection", "sock_connect"}
DIALS |= {"create_datagram_endpoint", "connect_ex", "urlopen", "urlretrieve", "HTTPConnection", "HTTPSConnection"}
DIALS |= {"Client", "AsyncClient", "HTTPTransport", "AsyncHTTPTransport", "ProxyHandler", "SMTP"}


def test_the_product_opens_connections_to_operators_in_one_place() -> None:
    """The demo's one asks its own receiver on this machine what was booked. The database is its owner's own address."""
    package = Path(dispatcher.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in DIALS:
                    found.add((path.relative_to(package).as_posix(), name))
    assert found == {("wire/transport.py", "create_connection"), ("cli/demo.py", "urlopen")}
