"""What requests prove themselves with, as it is configured: everything named that is missing, unused or unfit."""

import itertools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dispatcher.config import Config, draft_operator
from dispatcher.ground.errors import ConfigError, Fault
from dispatcher.ground.operator import Auth, ClientAuth, Mint, OAuth, Signing, TimeUnit, Tls
from dispatcher.ground.secret import Secret
from tests.authority import Authority
from tests.ground import ACME, IV, KEY, config_with
from tests.story import toml

BARE = ACME.replace('token = "the-token-of-acme"\n', "")
WEBHOOK = "whsec_Z2VoZWltZ2VoZWltZ2VoZWltZ2VoZWlt"
OLD_WEBHOOK = "whsec_YWx0Z2VoZWltYWx0Z2VoZWltYWx0Z2Vo"
OAUTH = {"token_url": "https://login.example/token", "client_id": "us", "client_secret": "geheim-client"}
# What may be in a secret's place here; none of it may ever be shown.
HIDDEN = ("geheim", "Z2VoZWlt", "YWx0Z2Vo", "MII", "MIG", "MIH")

NEEDS: Mapping[str, tuple[str, Any]] = {
    "bearer": ("token", "geheim-token"),
    "minted": ("mint", {"account": "agent-1"}),
    "oauth2": ("oauth", OAUTH),
}


def acme(**settings: Any) -> str:
    """Acme, which takes notices, with these settings and no token beside them."""
    return BARE + "".join(f"{key} = {toml(value)}\n" for key, value in settings.items())


def both(**settings: Any) -> str:
    """As `acme`; it takes settles too."""
    return acme(callback_url="https://acme.example/wallet", **settings)


def told(text: str, folder: Path = Path("/nowhere")) -> list[Fault]:
    """The faults of this configuration, none of them twice and none with a secret in it; [] when it is fit."""
    faults: list[Fault] = []
    try:
        config = config_with(text, folder)
        shown = f"{config} {config!r} {config.operators!r} {config.warnings!r}"
    except ConfigError as error:
        faults, shown = list(error.faults), f"{error} {error!r} {error.faults!r}"
    assert not [hidden for hidden in HIDDEN if hidden in shown], shown
    assert len({(fault.where, fault.fault) for fault in faults}) == len(faults)
    return faults


def places(text: str, folder: Path = Path("/nowhere")) -> list[str]:
    """Where the faults stand, below acme."""
    return [fault.where.removeprefix("operators.acme.") for fault in told(text, folder)]


def the(text: str, folder: Path = Path("/nowhere")) -> Fault:
    """The only fault."""
    (fault,) = told(text, folder)
    return fault


def with_token(**settings: Any) -> str:
    return acme(token="geheim-token", **settings)


# Every auth and what it needs.


def test_notices_carry_the_operators_token_and_settles_none_unless_told_otherwise() -> None:
    terms = config_with(both(token="geheim-token")).operators["acme"].terms
    assert (terms["notice"].auth, terms["settle"].auth) == (Auth.BEARER, Auth.NONE)
    terms = config_with(both(auth="per_event")).operators["acme"].terms
    assert (terms["notice"].auth, terms["settle"].auth) == (Auth.PER_EVENT, Auth.PER_EVENT)
    terms = config_with(both(auth="none", token="geheim-token", settle={"auth": "bearer"})).operators["acme"].terms
    assert (terms["notice"].auth, terms["settle"].auth) == (Auth.NONE, Auth.BEARER)


@pytest.mark.parametrize("auth", NEEDS)
def test_an_auth_is_fit_with_what_it_needs_and_without_it_told_what_is_missing(auth: str) -> None:
    key, value = NEEDS[auth]
    assert told(acme(auth=auth, **{key: value})) == []
    fault = the(acme(auth=auth))
    assert (fault.where, fault.fault) == (f"operators.acme.{key}", f'is missing, and auth = "{auth}" needs it')
    assert fault.mend.endswith(', or auth = "none"')
    assert ("token, token_env or token_file" if auth == "bearer" else f"[operators.acme.{key}]") in fault.mend


@pytest.mark.parametrize("auth", ["none", "per_event"])
def test_the_other_auths_need_nothing(auth: str) -> None:
    assert told(acme(auth=auth)) == []


@pytest.mark.parametrize(("auth", "other"), list(itertools.product(Auth, NEEDS)))
def test_what_is_given_and_not_used_is_told_at_its_key_with_the_auth_that_would(auth: Auth, other: str) -> None:
    needed = dict([NEEDS[auth]]) if auth in NEEDS else {}
    key, value = NEEDS[other]
    if auth == other:
        assert told(acme(auth=auth, **needed)) == []
        return
    fault = the(acme(auth=auth, **needed, **{key: value}))
    assert fault.where == f"operators.acme.{key}"
    assert fault.fault == f'is given, and auth = "{auth}" uses none'
    assert fault.mend == f'remove it, or write auth = "{other}"'


def test_one_type_alone_can_need_it_and_one_type_alone_can_use_it() -> None:
    assert the(both(auth="none", settle={"auth": "bearer"})).where == "operators.acme.token"
    assert told(both(auth="none", settle={"auth": "bearer"}, token="geheim-token")) == []
    assert the(both(token="geheim-token", settle={"auth": "minted"})).where == "operators.acme.mint"
    assert told(both(token="geheim-token", settle={"auth": "oauth2"}, oauth=OAUTH)) == []
    fault = the(both(auth="per_event", settle={"auth": "none"}, token="geheim-token"))
    assert fault.fault == 'is given, and auth = "none" or "per_event" uses none'


def test_a_type_that_is_not_taken_neither_needs_anything_nor_uses_it() -> None:
    assert told(acme(auth="none", settle={"auth": "bearer"})) == []
    assert the(acme(auth="none", settle={"auth": "bearer"}, token="geheim-token")).where == "operators.acme.token"


@pytest.mark.parametrize(
    ("lines", "where"),
    [({"auth": "mintet"}, "auth"), ({"auth": "none", "settle": {"auth": "bearrer"}}, "settle.auth")],
)
def test_an_auth_that_nobody_knows_is_one_fault_and_nothing_follows_from_it(lines: Any, where: str) -> None:
    fault = the(both(**lines, mint={"account": "agent-1"}, token="geheim-token"))
    assert fault.where == f"operators.acme.{where}"
    assert '"none", "bearer", "per_event", "minted" or "oauth2"' in fault.mend


def test_a_token_that_is_refused_is_not_told_as_missing_nor_as_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    for auth in ("bearer", "none"):
        assert places(acme(auth=auth, token="geheim wort")) == ["token"]
        monkeypatch.setenv("DISPATCHER_TEST_TOKEN", "geheim\nwort")
        assert places(acme(auth=auth, token_env="DISPATCHER_TEST_TOKEN")) == ["token_env"]
        monkeypatch.delenv("DISPATCHER_TEST_TOKEN")
        assert places(acme(auth=auth, token_env="DISPATCHER_TEST_TOKEN")) == ["token_env"]


def test_a_token_from_elsewhere_that_nobody_uses_is_told_where_it_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISPATCHER_TEST_TOKEN", "geheim-token")
    assert places(acme(auth="none", token_env="DISPATCHER_TEST_TOKEN")) == ["token_env"]
    secret(tmp_path, "token.txt", "geheim-token")
    assert places(acme(auth="none", token_file="token.txt"), tmp_path) == ["token_file"]


@pytest.mark.parametrize("key", ["mint", "oauth", "headers", "signature", "tls"])
@pytest.mark.parametrize("value", ["geheim", ["geheim"], True], ids=repr)
def test_what_is_no_table_is_one_fault(key: str, value: object) -> None:
    auth = next((auth for auth, (needed, _) in NEEDS.items() if needed == key), "none")
    fault = the(acme(auth=auth, **{key: value}))
    assert (fault.where, fault.fault) == (f"operators.acme.{key}", "is not a table")


# The minted token.


def minted(**mint: Any) -> str:
    return acme(auth="minted", mint=mint)


def test_a_mint_has_an_account_and_defaults_for_the_rest() -> None:
    assert config_with(minted(account="agent-1")).operators["acme"].mint == Mint("agent-1", None, "", TimeUnit.SECONDS)
    whole = minted(account="代理", username="", wallet=-7, time_unit="ms")
    assert config_with(whole).operators["acme"].mint == Mint("代理", "", -7, TimeUnit.MILLISECONDS)


@pytest.mark.parametrize(
    ("mint", "where"),
    [
        ({}, "account"),
        ({"account": ""}, "account"),
        ({"account": 7}, "account"),
        ({"account": "a" * 256}, "account"),
        ({"account": "a\nb"}, "account"),
        ({"account": "a", "username": 7}, "username"),
        ({"account": "a", "wallet": True}, "wallet"),
        ({"account": "a", "wallet": 1.5}, "wallet"),
        ({"account": "a", "wallet": 2**63}, "wallet"),
        ({"account": "a", "wallet": "a\0"}, "wallet"),
        ({"account": "a", "time_unit": "us"}, "time_unit"),
        ({"account": "a", "uid": "u"}, "uid"),
    ],
    ids=repr,
)
def test_a_mint_that_is_unfit_is_told_at_the_key(mint: Any, where: str) -> None:
    assert places(minted(**mint)) == [f"mint.{where}"]


def test_a_number_in_base_16_without_end_is_refused_like_any_other() -> None:
    text = minted(account="a", wallet=0).replace('"wallet" = 0', f'"wallet" = 0x{"f" * 5_000}')
    assert places(text) == ["mint.wallet"]


def test_a_minted_token_needs_a_key_even_where_nothing_else_is_encrypted() -> None:
    text = """
[operators.acme]
callback_url = "https://acme.example/wallet"
auth = "minted"
mint = { account = "agent-1" }
"""
    fault = the(text)
    assert (fault.where, fault.fault) == ("operators.acme.crypto.key", 'is missing, and auth = "minted" needs it')
    assert told(f'{text}crypto = {{ key = "{KEY}", iv = "{IV}" }}') == []


# OAuth2.


def granted(**changes: Any) -> str:
    given = {key: value for key, value in {**OAUTH, **changes}.items() if value is not None}
    return acme(auth="oauth2", oauth=given)


def test_a_grant_has_where_who_and_the_secret_and_defaults_for_the_rest() -> None:
    url, name, secret_ = OAUTH["token_url"], OAUTH["client_id"], Secret(OAUTH["client_secret"])
    assert config_with(granted()).operators["acme"].oauth == OAuth(url, name, secret_, None, ClientAuth.BASIC)
    whole = config_with(granted(scope="a b", client_auth="post")).operators["acme"].oauth
    assert whole == OAuth(url, name, secret_, "a b", ClientAuth.POST)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"token_url": None, "client_id": None, "client_secret": None}, ["token_url", "client_id", "client_secret"]),
        ({"token_url": "login.example"}, ["token_url"]),
        ({"token_url": "https://us:geheim@login.example/"}, ["token_url"]),
        ({"client_id": ""}, ["client_id"]),
        ({"client_id": "a\nb", "client_secret": ""}, ["client_id", "client_secret"]),
        ({"client_secret": 7}, ["client_secret"]),
        ({"client_secret": None, "client_secret_env": "DISPATCHER_TEST_ABSENT"}, ["client_secret_env"]),
        ({"client_secret_file": "absent.txt"}, ["client_secret"]),
        ({"scope": ""}, ["scope"]),
        ({"client_auth": "jwt"}, ["client_auth"]),
        ({"secret": "geheim"}, ["secret"]),
    ],
    ids=repr,
)
def test_a_grant_that_is_unfit_is_told_at_the_key(changes: Any, where: list[str]) -> None:
    assert sorted(places(granted(**changes))) == sorted(f"oauth.{key}" for key in where)


def test_a_token_endpoint_in_our_own_network_is_refused_unless_it_is_allowed() -> None:
    private = granted(token_url="https://10.1.2.3/token")
    fault = the(private)
    assert fault.where == "operators.acme.oauth.token_url"
    assert "10.1.2.3 is not on the public internet" in fault.fault
    assert told(f'[egress]\nallow = ["10.0.0.0/8"]\n{private}') == []


def test_a_token_endpoint_without_tls_is_warned_of() -> None:
    config = config_with(granted(token_url="HTTP://login.example/token"))
    (warning,) = config.warnings
    assert warning.where == "operators.acme.oauth.token_url"
    assert "the client secret travels unencrypted" in warning.fault
    assert config_with(granted()).warnings == ()


# Headers.


def headed(**headers: Any) -> str:
    return acme(auth="none", headers=headers)


def headers_of(config: Config) -> Mapping[str, Secret]:
    return config.operators["acme"].headers


def test_headers_keep_their_letters_and_order_and_are_secrets() -> None:
    given = {"X-Api-Key": "geheim-key", "x-tenant": "a b\tc", "ACCEPT-LANGUAGE": "zh-CN", "Cookie": "a=1; b=2"}
    headers = headers_of(config_with(headed(**given)))
    assert {name: value.reveal() for name, value in headers.items()} == given
    assert list(headers) == list(given)


def test_a_header_comes_from_a_variable_or_a_file_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISPATCHER_TEST_HEADER", "geheim-1")
    secret(tmp_path, "header.txt", "geheim-2\n")
    text = headed(**{"X-Api-Key_env": "DISPATCHER_TEST_HEADER", "X-Other_file": "header.txt"})
    config = config_with(text, tmp_path)
    assert headers_of(config) == {"X-Api-Key": Secret("geheim-1"), "X-Other": Secret("geheim-2")}


FORBIDDEN = [
    *("Host", "content-length", "Content-Type", "Transfer-Encoding", "connection", "Keep-Alive", "TE", "Trailer"),
    *("Upgrade", "Expect", "User-Agent", "Accept", "Accept-Encoding", "Proxy-Authorization", "Webhook-Id"),
    *("webhook-timestamp", "WEBHOOK-SIGNATURE"),
]


@pytest.mark.parametrize("form", ["", "_env", "_file"])
@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_header_that_is_not_the_operators_to_set_is_refused_in_any_letters_and_form(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISPATCHER_TEST_HEADER", "geheim-1")
    secret(tmp_path, "header.txt", "geheim-1")
    value = {"": "geheim-1", "_env": "DISPATCHER_TEST_HEADER", "_file": "header.txt"}[form]
    fault = the(headed(**{f"{name}{form}": value}), tmp_path)
    assert fault.where == f"operators.acme.headers.{name}{form}"
    assert fault.mend == "leave it out"


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\r\nY", "X\0", "投", "X\n", " X", "X\t", "a" * 101, "(X)", '"X"'])
def test_a_name_that_is_no_headers_is_refused(name: str) -> None:
    fault = the(headed(**{name: "geheim-1"}))
    assert "is not the name of a header" in fault.fault
    assert fault.fault.isprintable()


@pytest.mark.parametrize(
    "value",
    [
        *("geheim\r\nX-Evil: 1", "geheim\n", "\rgeheim", "geheim\0", " geheim", "geheim\t", "geheim\x7f", "geheim\x0b"),
        *("geheimü", "geheim投", "", " ", "geheim" * 700, 7, True, ["geheim"], {"geheim": "geheim"}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_that_no_header_can_carry_is_refused_and_not_shown(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = headed(**{"X-Api-Key": value}).replace("\x7f", "\\u007f")
    assert places(text) == ["headers.X-Api-Key"]
    if isinstance(value, str) and "\0" not in value:
        monkeypatch.setenv("DISPATCHER_TEST_HEADER", value)
        assert places(headed(**{"X-Api-Key_env": "DISPATCHER_TEST_HEADER"})) == ["headers.X-Api-Key_env"]


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_authorization_is_either_a_header_or_what_auth_sets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    header = {name: "Basic geheim"}
    assert told(both(auth="none", headers=header)) == []
    for text in (
        both(auth="bearer", token="geheim-token", headers=header),
        both(auth="per_event", headers=header),
        both(auth="none", settle={"auth": "minted"}, mint={"account": "a"}, headers=header),
    ):
        fault = the(text)
        assert (fault.where, fault.fault) == (f"operators.acme.headers.{name}", "is what auth sets")
    monkeypatch.setenv("DISPATCHER_TEST_HEADER", "Basic geheim")
    from_outside = {f"{name}_env": "DISPATCHER_TEST_HEADER"}
    assert places(both(auth="per_event", headers=from_outside)) == [f"headers.{name}_env"]


def test_the_same_header_twice_is_refused_in_other_letters_and_in_another_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_TEST_HEADER", "geheim-2")
    assert the(headed(**{"X-Api-Key": "geheim-1", "x-api-key": "geheim-1"})).where == "operators.acme.headers"
    other = {"X-Api-Key": "geheim-1", "X-API-KEY_env": "DISPATCHER_TEST_HEADER"}
    assert the(headed(**other)).where == "operators.acme.headers"
    same = {"X-Api-Key": "geheim-1", "X-Api-Key_env": "DISPATCHER_TEST_HEADER"}
    assert the(headed(**same)).where == "operators.acme.headers.X-Api-Key"


@pytest.mark.parametrize("name", ["X_env_env", "X_env_file", "X_file_env", "X_file_file"])
def test_a_header_whose_name_would_be_read_as_another_form_is_not_known(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stored under the name that is left, it would be looked for in a variable or a file."""
    monkeypatch.setenv("DISPATCHER_TEST_HEADER", "geheim-1")
    secret(tmp_path, "DISPATCHER_TEST_HEADER", "geheim-1")
    assert places(headed(**{name: "DISPATCHER_TEST_HEADER"}), tmp_path) == [f"headers.{name}"]


# The signature.


def signed(**signature: Any) -> str:
    return acme(auth="none", signature=signature)


def test_a_signature_has_a_secret_and_during_a_rotation_two_the_one_in_force_first() -> None:
    assert config_with(signed(secret=WEBHOOK)).operators["acme"].signing == Signing((Secret(WEBHOOK),))
    rotating = config_with(signed(previous_secret=OLD_WEBHOOK, secret=WEBHOOK)).operators["acme"].signing
    assert rotating == Signing((Secret(WEBHOOK), Secret(OLD_WEBHOOK)))
    assert config_with(acme(auth="none")).operators["acme"].signing is None


@pytest.mark.parametrize(
    ("signature", "where"),
    [
        ({}, ["secret"]),
        ({"previous_secret": WEBHOOK}, ["secret"]),
        ({"secret": "geheim"}, ["secret"]),
        ({"secret": "whsec_geheim!"}, ["secret"]),
        ({"secret": "whsec_Z2VoZWlt"}, ["secret"]),
        ({"secret": WEBHOOK, "previous_secret": "geheim"}, ["previous_secret"]),
        ({"secret": "geheim", "previous_secret": "geheim"}, ["secret", "previous_secret"]),
        ({"secret": 7}, ["secret"]),
        ({"secret_file": "absent.txt"}, ["secret_file"]),
        ({"secret": WEBHOOK, "key": "geheim"}, ["key"]),
    ],
    ids=repr,
)
def test_a_signature_that_is_unfit_is_told_at_the_key(signature: Any, where: list[str]) -> None:
    assert places(signed(**signature)) == [f"signature.{key}" for key in where]


# Certificates.


def shown_by(**tls: Any) -> str:
    return acme(auth="none", tls=tls)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_private_ca_alone_a_certificate_alone_and_both_are_fit(authority: Authority) -> None:
    ca, (certificate, key) = authority.pem, authority.client()
    pair = {"certificate": certificate.reveal(), "key": key.reveal()}
    for given, wanted in (
        ({"ca": ca.reveal()}, Tls(ca, None, None)),
        (pair, Tls(None, certificate, key)),
        ({"ca": ca.reveal(), **pair}, Tls(ca, certificate, key)),
    ):
        assert told(shown_by(**given)) == []
        assert config_with(shown_by(**given)).operators["acme"].tls == wanted


def test_certificates_that_are_unfit_are_told_each_part_by_its_name(authority: Authority) -> None:
    ca = authority.pem.reveal()
    certificate, key = (part.reveal() for part in authority.client())
    _, other = authority.client(ec.generate_private_key(ec.SECP256R1()))
    _, encrypted = authority.client(password=b"geheim")
    cases: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"certificate": certificate}, {"tls.key": "is missing"}),
        ({"key": key}, {"tls.certificate": "is missing"}),
        ({"ca": "geheim"}, {"tls.ca": "the CA is not a certificate in PEM"}),
        ({"certificate": certificate, "key": other.reveal()}, {"tls": "the key does not belong"}),
        ({"certificate": certificate, "key": encrypted.reveal()}, {"tls": "the key is encrypted"}),
        ({"certificate": certificate, "key": "geheim"}, {"tls": "the key is not a private key in PEM"}),
        ({"certificate": "geheim", "key": key}, {"tls": "the certificate is not in PEM"}),
        (
            {"ca": key, "certificate": certificate, "key": ca},
            {"tls.ca": "the CA is not a certificate in PEM", "tls": "the key is not a private key in PEM"},
        ),
        ({"ca": ca, "cert": "geheim"}, {"tls.cert": "is not known"}),
        ({"certificate": certificate, "key_file": "absent.pem"}, {"tls.key_file": "names a file"}),
        ({"ca_file": "absent.pem"}, {"tls.ca_file": "names a file"}),
    ]
    for given, wanted in cases:
        found = {fault.where.removeprefix("operators.acme."): fault.fault for fault in told(shown_by(**given))}
        assert list(found) == list(wanted), given
        assert all(found[where].startswith(text) for where, text in wanted.items()), found


def test_a_ca_from_a_file_may_be_read_by_others_and_a_key_is_warned_of(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.client()
    files = {"ca": authority.pem, "certificate": certificate, "key": key}
    for name, text in files.items():
        secret(tmp_path, f"{name}.pem", text.reveal(), 0o644)
    config = config_with(shown_by(**{f"{name}_file": f"{name}.pem" for name in files}), tmp_path)
    assert [warning.mend for warning in config.warnings] == ["chmod 600 key.pem"]


# What is stored.


def secret(folder: Path, name: str, text: str, mode: int = 0o600) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(mode)


def everything(authority: Authority) -> dict[tuple[str, ...], str]:
    """Every secret that an operator can have, by where it stands."""
    certificate, key = authority.client()
    return {
        ("token",): "geheim-token",
        ("crypto", "key"): KEY,
        ("crypto", "iv"): IV,
        ("oauth", "client_secret"): "geheim, \"mit\" 'Zeichen' \\ ü投",
        ("headers", "X-Api-Key"): "geheim-key",
        ("headers", "X.Dotted"): "geheim-2",
        ("signature", "secret"): WEBHOOK,
        ("signature", "previous_secret"): OLD_WEBHOOK,
        ("tls", "ca"): authority.pem.reveal().strip(),
        ("tls", "certificate"): certificate.reveal().strip(),
        ("tls", "key"): key.reveal().strip(),
    }


def settings(given: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """An operator's table that uses all there is, with these keys in it."""
    raw: dict[str, Any] = {
        "notice_url": "https://acme.example/Demo/notice",
        "callback_url": "https://acme.example/wallet",
        "auth": "oauth2",
        "settle": {"auth": "bearer", "retry": {"every": "30s", "for": "1h"}},
        "notice": {"success": {"field": "ok", "values": [True, 1, "投"]}},
        "oauth": {"token_url": "https://login.example/token", "client_id": "us"},
        "ordering": {"key": "uid"},
        "breaker": {},
    }
    for (*above, last), value in given.items():
        table = raw
        for part in above:
            table = table.setdefault(part, {})
        table[last] = value
    return raw


@pytest.mark.parametrize("form", ["", "_env", "_file"])
def test_a_stored_operator_is_the_same_without_any_variable_or_file(
    form: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = everything(authority)
    given = {}
    for number, (path, text) in enumerate(whole.items()):
        monkeypatch.setenv(f"DISPATCHER_TEST_{number}", text)
        secret(tmp_path, f"secret-{number}", f"{text}\n")
        value = {"": text, "_env": f"DISPATCHER_TEST_{number}", "_file": f"secret-{number}"}[form]
        given[(*path[:-1], f"{path[-1]}{form}")] = value
    raw = settings(given)
    text = "[operators.acme]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in raw.items())
    config = config_with(text, tmp_path)
    document = config.documents["acme"]
    drafted = draft_operator("acme", tomllib.loads(text)["operators"]["acme"], config.defaults, tmp_path)
    assert (drafted.operator, drafted.document) == (config.operators["acme"], document)
    assert drafted.secrets == frozenset(whole)

    assert json.loads(document.reveal()) == settings(whole)
    for number in range(len(whole)):
        monkeypatch.delenv(f"DISPATCHER_TEST_{number}")
        (tmp_path / f"secret-{number}").unlink()
    again = draft_operator("acme", json.loads(document.reveal()), config.defaults, Path("/nowhere"))
    assert again.operator == config.operators["acme"]
    assert json.loads(again.document.reveal()) == json.loads(document.reveal())
    assert again.secrets == drafted.secrets


def test_files_are_looked_for_beside_the_configuration_and_not_where_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    secret(tmp_path / "here", "token.txt", "geheim-here")
    secret(tmp_path / "there", "token.txt", "geheim-there")
    monkeypatch.chdir(tmp_path / "there")
    text = acme(token_file="token.txt")
    assert config_with(text, tmp_path / "here").operators["acme"].token == Secret("geheim-here")
    drafted = draft_operator("acme", tomllib.loads(text)["operators"]["acme"], config_with("").defaults, Path.cwd())
    assert drafted.operator.token == Secret("geheim-there")


def test_an_operator_that_is_unfit_is_refused_whole_wherever_it_is_read() -> None:
    with pytest.raises(ConfigError) as error:
        draft_operator(
            "acme", tomllib.loads(headed(Host="geheim"))["operators"]["acme"], config_with("").defaults, Path()
        )
    assert [fault.where for fault in error.value.faults] == ["operators.acme.headers.Host"]
