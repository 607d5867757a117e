"""What is served, by whom and to whom: TLS, proxies, strangers; the API in the daemon and alone, as processes."""

import asyncio
import json
import sqlite3
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.config.web import Web
from dispatcher.ground.apikey import Scope
from dispatcher.store.engine import Database
from dispatcher.store.journal import Noted, digest
from dispatcher.web import bind, server, serving
from tests.authority import Authority
from tests.ground import ACME, config_with, faults_of, notice
from tests.served import JSON, Served, served
from tests.stores import PostgreSQL
from tests.story import ServerStory, Story, until

pytestmark = pytest.mark.anyio


# The table [web].


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('certificate = "x"', {"web.key"}),
        ('key = "x"', {"web.certificate"}),
        ('certificate = "x"\nkey = "x"', {"web.certificate"}),
        ('key_file = "nowhere.pem"\ncertificate = "x"', {"web.key_file"}),
        ("rate = 0", {"web.rate"}),
        ('proxies = "10.0.0.1"', {"web.proxies"}),
        ('trusted = "10.0.0.1"', {"web.trusted"}),
    ],
)
def test_a_fault_of_the_web_is_named(lines: str, where: set[str]) -> None:
    assert set(faults_of(f"[web]\n{lines}\n{ACME}")) == where


@pytest.mark.parametrize(
    ("listen", "more", "warned"),
    [
        ("127.0.0.1:1", "", False),
        ("[::1]:1", "", False),
        ("localhost:1", "", False),
        ("", "", False),
        ("0.0.0.0:1", "", True),
        ("[::]:1", "", True),
        ("web.example:1", "", True),
        ("0.0.0.0:1", 'proxies = ["10.0.0.0/8"]', False),
    ],
)
def test_a_listening_that_can_be_overheard_is_warned_of(listen: str, more: str, warned: bool) -> None:
    config = config_with(f'[web]\nlisten = "{listen}"\n{more}\n{ACME}')
    assert ("web.listen" in {one.where for one in config.warnings}) is warned


# Connections.


@asynccontextmanager
async def listening(database: Database, web: Web) -> AsyncIterator[tuple[Served, str]]:
    async with served(database) as at, serving(bind(("127.0.0.1", 0)), at.app, web) as url:
        yield at, url


async def raw(url: str, *parts: bytes) -> bytes:
    """What comes back until the server hangs up."""
    host, _, port = url.partition("://")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"G",),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ",),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /he",),
    ],
)
async def test_a_head_that_does_not_end_is_hung_up_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    async with listening(database, Web(None)) as (_, url):
        answered = await raw(url, *parts)
    assert answered == b"" or (b"alive" in answered and answered.count(b"HTTP/1.1") == 1)


async def test_a_head_that_is_endless_is_hung_up_on(database: Database) -> None:
    async with listening(database, Web(None)) as (_, url):
        answered = await raw(url, b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ", *[b"a" * 10_000] * 20)
        assert answered == b"reset" or answered.startswith(b"HTTP/1.1 431")
        fine = await raw(url, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b"alive" in fine


async def test_connections_are_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    async with listening(database, Web(None)) as (_, url):
        host, _, port = url.partition("://")[2].partition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200" in await reader.readline()
        assert await raw(url) == b""
        for _, writer in held:
            writer.close()


async def test_no_header_tells_what_serves(database: Database) -> None:
    async with listening(database, Web(None)) as (at, url), httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.get(f"{url}/v1/deliveries", headers=at.key(Scope.READ))
    assert answer.status_code == 200
    assert set(answer.headers) == {"content-type", "content-length", "date", "x-request-id"}


@pytest.mark.parametrize(
    ("proxies", "client"), [((), "127.0.0.1"), (("127.0.0.0/8",), "9.9.9.9"), (("10.0.0.0/8",), "127.0.0.1")]
)
async def test_a_proxy_is_believed_where_it_is_named(database: Database, proxies: tuple[str, ...], client: str) -> None:
    web = Web(None, proxies=tuple(ip_network(one) for one in proxies))
    async with listening(database, web) as (at, url), httpx.AsyncClient(trust_env=False, timeout=60) as caller:
        await caller.get(f"{url}/v1/deliveries", headers={"x-forwarded-for": "9.9.9.9"} | at.key(Scope.READ))
        assert [one["client"] for one in at.told("request")] == [client]


# As processes.


@pytest.fixture
def story(tmp_path: Path) -> Any:
    with Story(tmp_path) as story:
        yield story


def test_what_was_answered_with_202_over_tls_survives_a_kill_at_that_moment(story: Story, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.context()
    (pair,) = tmp_path.glob("acme*.pem")
    pair.chmod(0o600)
    story.set("web", certificate_file=pair.name, key_file=pair.name)
    key = story.key("enqueue", "read")
    with story.starting() as daemon:
        until(lambda: daemon.told("running"), told=daemon.text)
        (told,) = daemon.told("running")
        assert told["web"].startswith("https://")
        with pytest.raises(httpx.RemoteProtocolError):
            daemon.get("/healthz")
        trusting = ssl.create_default_context(cafile=str(authority.trusted))
        with httpx.Client(verify=trusting, base_url=told["web"], trust_env=False, timeout=60) as client:
            answer = client.post("/v1/events", headers=key, json=notice(total_bet="1.5"))
            daemon.process.kill()
        daemon.ended()
        assert answer.status_code == 202, answer.text
    assert story.query("SELECT id, key FROM deliveries") == [(answer.json()["id"], notice()["order_no"])]


def deliver_through_the_web_alone(story: Story) -> None:
    """What it takes in is delivered by the daemon beside it at once; of operators it hears by itself."""
    key = story.key("enqueue", "admin")
    with story.receiving() as receiver:
        story.set("acme", notice_url=f"{receiver.url}/Demo/notice")
        with story.running("web") as web:
            (told,) = web.told("serving")
            assert (told["web"], told["worker"]) == (web.web, False)
            story.set("web", listen="")
            with story.running():
                story.add_operator("bolt")
                assert story.call("operators", "apply").status == 0
                with httpx.Client(base_url=web.web, headers=key, trust_env=False, timeout=60) as client:
                    one = client.post("/v1/events", json=notice())
                    assert one.status_code == 202
                    path = f"/v1/deliveries/{one.json()['id']}"
                    until(lambda: client.get(path).json()["status"] == "delivered", told=web.text)
                    other = notice(operator="bolt", order_no="2")
                    until(lambda: client.post("/v1/events", json=other).is_success, told=web.text)
                    assert client.get("/readyz").status_code == 200
                assert receiver.booked() == {notice()["order_no"]: 1}
            assert not web.told("web_broke")
        assert web.told("stopped")


def test_the_web_alone_takes_in_what_the_daemon_delivers(story: Story) -> None:
    deliver_through_the_web_alone(story)


def test_the_web_alone_takes_in_what_the_daemon_delivers_on_a_server(postgresql: PostgreSQL, tmp_path: Path) -> None:
    postgresql.empty()
    with ServerStory(tmp_path, postgresql) as story:
        deliver_through_the_web_alone(story)


def test_the_web_alone_seals_what_an_upgrade_has_chained_as_the_daemon_does(story: Story) -> None:
    assert story.call("operators", "apply").status == 0
    (entry,) = story.query(f"SELECT {', '.join(Noted._fields)} FROM journal")
    unsealed = digest(Noted._make(entry)._replace(sealed_by=None), b"")
    with closing(sqlite3.connect(story.database)) as connection, connection:
        connection.execute("UPDATE journal SET hash = ?, sealed_by = NULL, seal = NULL", (unsealed,))
        connection.execute("DELETE FROM journal_keys")
    assert "not sealed yet" in story.call("audit").err
    with story.running("web"):
        assert story.query("SELECT verb FROM journal WHERE seal IS NOT NULL") == [("seal",)]
    assert story.call("audit").status == 0


def test_the_web_alone_refuses_where_there_is_no_store_or_nowhere_to_listen(story: Story) -> None:
    words = ["web", "-c", str(story.config)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "there is no database" in done.stderr) == (1, True), done
    assert not story.database.exists()
    story.set("web", listen="")
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "there is nowhere to serve" in done.stderr) == (1, True), done


async def test_the_log_says_whose_request_was_which_and_never_the_key(database: Database) -> None:
    async with (
        listening(database, Web(None)) as (at, url),
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        key = at.key(Scope.ENQUEUE, operator="acme", name="game-server")
        await client.post("/v1/events", headers={**key, **JSON, "x-request-id": "r-1"}, content=b"{}")
        await client.get("/v1/deliveries", headers={"authorization": "Bearer dk_secret"})
        first, second = at.told("request")
    assert (first["request_id"], first["key"], first["status"]) == ("r-1", "game-server", 422)
    assert (second["key"], second["status"]) == (None, 401)
    assert "dk_" not in json.dumps([first, second])
