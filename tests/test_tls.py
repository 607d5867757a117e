"""Private authorities and client certificates, against real servers; and settings that are none, told part by part."""

import asyncio
import os
import socket
import ssl
import stat
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dispatcher import tls as tls_room
from dispatcher.ground.clock import SECOND
from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Tls
from dispatcher.ground.policy import Reason
from dispatcher.ground.secret import Secret
from dispatcher.tls import tls_context
from dispatcher.wire import reach, transport
from dispatcher.wire.connection import Connection, Traffic
from dispatcher.wire.failures import TlsFailure
from tests.authority import Authority
from tests.ground import acme_with, config_with
from tests.hostile import OK, PATIENCE, always, bound, calling, playing, told

pytestmark = pytest.mark.anyio

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("public"))


@pytest.fixture(autouse=True)
def system(public: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(public.trusted))


def only_ca(ca: Secret) -> Tls:
    return Tls(ca, None, None)


def unfit(tls: Tls) -> str:
    with pytest.raises(Unfit) as error:
        tls_context(tls)
    assert error.value.__cause__ is None
    assert "----\n" not in str(error.value)
    return error.value.fault


# Whom we trust.


async def test_without_settings_the_systems_authorities_are_trusted_and_no_private_one(
    own: Authority, public: Authority
) -> None:
    for context in (None, tls_context(None), tls_context(Tls(None, None, None))):
        async with calling(context=context) as caller:
            async with playing(always(OK), public.context()) as (_, url):
                assert told(await caller.post(url)) == (200, b"ok", None)
            async with playing(always(OK), own.context()) as (operator, url):
                outcome = await caller.post(url)
                assert (outcome.reason, outcome.ours) == (Reason.TLS, False)
                assert not any(peer.seen for peer in operator.peers)


async def test_the_systems_authorities_are_read_once_for_all_operators(
    own: Authority, public: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For each of a thousand operators it would be a gigabyte, and half a minute in which nothing is sent."""
    another = tmp_path / "authority.pem"
    another.write_text(public.pem.reveal())
    monkeypatch.setenv("SSL_CERT_FILE", str(another))
    made = Mock(wraps=ssl.create_default_context)
    monkeypatch.setattr(ssl, "create_default_context", made)
    async with playing(always(OK), public.context()) as (_, url):
        for _ in range(3):
            async with calling() as caller:
                assert told(await caller.post(url)) == (200, b"ok", None)
    assert made.call_count == 1
    for n in range(3):
        config_with(acme_with(f'tls = {{ ca = """{own.pem.reveal()}""" }}').replace("acme", f"acme{n}"))
    assert made.call_count == 1


async def test_a_private_authority_is_trusted_where_it_is_set_and_nothing_else_is(
    own: Authority, public: Authority
) -> None:
    async with calling(context=tls_context(only_ca(own.pem))) as caller:
        async with playing(always(OK), own.context()) as (_, url):
            assert told(await caller.post(url)) == (200, b"ok", None)
            assert await reach(caller.transport, url) is None
            wrong_name = url.replace("127.0.0.1", "localhost")
            assert (await caller.post(wrong_name)).reason is Reason.TLS
        async with playing(always(OK), public.context()) as (_, url):
            assert (await caller.post(url)).reason is Reason.TLS
            assert str(await reach(caller.transport, url)).startswith("tls (")


async def test_several_authorities_with_comments_in_any_language_are_taken(own: Authority, public: Authority) -> None:
    bundle = Secret(f"# Unsere Behörde, 投\n{own.pem.reveal()}\n# 另一个\n{public.pem.reveal()}")
    async with calling(context=tls_context(only_ca(bundle))) as caller:
        for authority in (own, public):
            async with playing(always(OK), authority.context()) as (_, url):
                assert told(await caller.post(url)) == (200, b"ok", None)


async def test_the_operators_own_certificate_can_stand_in_place_of_an_authority(own: Authority) -> None:
    server = own.context()
    pem = (own.folder / "acme1True.pem").read_text()
    pinned = Secret(pem[pem.index("-----BEGIN CERTIFICATE") :])
    async with calling(context=tls_context(only_ca(pinned))) as caller:
        async with playing(always(OK), server) as (_, url):
            assert told(await caller.post(url)) == (200, b"ok", None)
        async with playing(always(OK), own.context()) as (_, url):
            assert (await caller.post(url)).reason is Reason.TLS


def test_nothing_older_than_tls_1_2_is_spoken_and_names_are_checked(
    own: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system itself would speak what is older."""

    def older(context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        return context

    default, private = ssl.create_default_context, tls_room._trusting
    monkeypatch.setattr(ssl, "create_default_context", lambda: older(default()))
    monkeypatch.setattr(tls_room, "_trusting", lambda ca: older(private(ca)))
    for context in (tls_context(None), tls_context(only_ca(own.pem)), transport._public.__wrapped__()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


# What we show.


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_certificate_is_shown_to_an_operator_that_demands_one(
    own: Authority, version: ssl.TLSVersion
) -> None:
    context = tls_context(Tls(own.pem, *own.client()))
    async with playing(always(OK), own.demanding(version)) as (operator, url), calling(context=context) as caller:
        assert told(await caller.post(url)) == (200, b"ok", None)
        shown = operator.peers[0].writer.get_extra_info("peercert")
        assert shown["subject"] == ((("commonName", "dispatcher"),),)


def refuses(listener: socket.socket, context: ssl.SSLContext) -> None:
    """One handshake, by OpenSSL itself: asyncio's servers hang up without the alert. Then all that comes is let in."""
    taken, _ = listener.accept()
    with context.wrap_socket(taken, server_side=True, do_handshake_on_connect=False) as wrapped:
        wrapped.settimeout(PATIENCE)
        with pytest.raises(ssl.SSLError):
            wrapped.do_handshake()
        with socket.socket(fileno=wrapped.detach()) as raw:
            raw.settimeout(PATIENCE)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65_536):
                pass


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shows", ["none", "another authority's"])
async def test_an_operator_that_refuses_our_certificate_or_its_absence_is_a_tls_failure_and_not_in_doubt(
    own: Authority, public: Authority, version: ssl.TLSVersion, shows: str
) -> None:
    """In TLS 1.3 its refusal comes after the request, which nobody has read."""
    context = tls_context(Tls(own.pem, *(public.client() if shows != "none" else (None, None))))
    (listener,) = bound("127.0.0.1")
    listener.listen()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
    with listener:
        operator = asyncio.create_task(asyncio.to_thread(refuses, listener, own.demanding(version)))
        async with calling(context=context) as caller:
            outcome = await caller.post(url)
        assert (outcome.reason, outcome.reason and outcome.reason.ambiguous) == (Reason.TLS, False)
        await operator


async def test_the_same_alert_later_on_a_connection_leaves_doubt() -> None:
    """Once an exchange has gone well the handshake was over, and whoever breaks off then may have read the request."""
    refusal = ssl.SSLError(1, "alert")
    refusal.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    lost = []
    for used in (False, True):
        connection = Connection()
        if used:
            connection.rest(0)
        connection.connection_made(Mock(asyncio.Transport, is_closing=lambda: False))
        sent = connection.exchange(b"", time.monotonic() + SECOND, Traffic())
        for _ in ("begun", "written"):
            await asyncio.sleep(0)
        connection.connection_lost(refusal)
        lost.append(type(await sent))
    assert lost == [TlsFailure, httpx.ReadError]


# What is no such thing.


def broken(pem: Secret) -> Secret:
    """Four characters in the middle of it are gone."""
    text = pem.reveal()
    return Secret(text[: len(text) // 2] + text[len(text) // 2 + 4 :])


def test_what_is_no_authority_in_pem_is_named_and_not_shown(own: Authority) -> None:
    _, key = own.client()
    for text in (
        "ca.pem",
        "",
        "投",
        key.reveal(),
        broken(own.pem).reveal(),
        own.pem.reveal() + broken(own.pem).reveal(),
    ):
        assert unfit(only_ca(Secret(text))) == "the CA is not a certificate in PEM"


def test_what_is_no_client_certificate_in_pem_is_named_and_not_shown(own: Authority) -> None:
    certificate, key = own.client()
    for wrong in (Secret("client.pem"), Secret("投"), key, broken(certificate)):
        assert unfit(Tls(None, wrong, key)) == "the certificate is not in PEM"


def test_what_is_no_key_in_pem_is_named_and_not_shown(own: Authority) -> None:
    certificate, key = own.client()
    for wrong in (Secret("key.pem"), Secret("投"), certificate, broken(key)):
        assert unfit(Tls(None, certificate, wrong)) == "the key is not a private key in PEM"


def test_a_key_of_another_certificate_is_named(own: Authority) -> None:
    (certificate, _), (_, other) = own.client(), own.client()
    assert "does not belong" in unfit(Tls(None, certificate, other))
    another_kind = own.client(ec.generate_private_key(ec.SECP384R1()))[1]
    assert "does not belong" in unfit(Tls(None, certificate, another_kind))


def test_an_encrypted_key_is_named_and_nobody_is_asked_for_its_password(own: Authority) -> None:
    certificate, key = own.client(password=b"swordfish")
    assert unfit(Tls(None, certificate, key)) == "the key is encrypted with a password"


def test_one_of_certificate_and_key_alone_is_refused(own: Authority) -> None:
    certificate, key = own.client()
    assert "key is missing" in unfit(Tls(None, certificate, None))
    assert "certificate is missing" in unfit(Tls(None, None, key))


@pytest.mark.parametrize(
    ("reason", "told_"), [("EE_KEY_TOO_SMALL", "ee key too small"), ("CA_MD_TOO_WEAK", "too weak")]
)
def test_a_certificate_that_is_too_weak_is_told_from_a_key_that_is_none(reason: str, told_: str) -> None:
    assert told_ in tls_room._unfit(reason).fault


# Where the key is meanwhile.


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_file_that_openssl_reads_is_for_the_owner_alone_and_gone_afterwards(
    own: Authority, in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with tls_room._file("the key") as path:
        assert Path(path).read_text() == "the key"
        assert in_memory or stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert bool(list(tmp_path.iterdir())) != in_memory
    assert not os.path.exists(path)
    with pytest.raises(RuntimeError), tls_room._file("the key") as path:
        raise RuntimeError
    assert not os.path.exists(path)
    assert tls_context(Tls(None, *own.client()))
    assert not list(tmp_path.iterdir())
