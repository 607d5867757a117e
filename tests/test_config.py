"""The configuration: every fault at once with its key and what to write, secrets that stay hidden, exact defaults."""

import math
from collections.abc import Callable
from datetime import date, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.config import LogLevel, inspect_config, load_config, read_config
from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.crypto import CipherName, CryptoReading, Output, Padding
from dispatcher.ground.errors import ConfigError
from dispatcher.ground.operator import Auth, NetCheck
from dispatcher.ground.place import Server
from dispatcher.ground.schedule import Delays, Interval
from dispatcher.ground.secret import Secret
from tests.ground import ACME, IV, KEY, acme_with, config_with, faults_of

KEY32 = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def acme_by_key(crypto: str, lines: str = "") -> str:
    """Acme with another crypto table."""
    head = ACME.partition("crypto =")[0]
    return f"{head}{lines}\ncrypto = {{ {crypto} }}\n"


def raw() -> dict[str, Any]:
    """A parsed configuration that is fit and says something under every table."""
    return {
        "database": {"url": "sqlite:///dispatcher.db"},
        "worker": {"concurrency": 256, "lease": "60s"},
        "http": {"connect_timeout": "3s", "total_timeout": "10s"},
        "egress": {"allow": ["127.0.0.0/8"]},
        "web": {"listen": "127.0.0.1:8080"},
        "log": {"format": "json", "level": "info"},
        "operators": {
            "acme": {
                "preset": "notice",
                "notice_url": "https://acme.example/Demo/notice",
                "concurrency": 32,
                "auth": "bearer",
                "token": "the-token-of-acme",
                "net_check": "strict",
                "connect_timeout": "3s",
                "total_timeout": "10s",
                "retry": {"delays": ["1m"], "measured_from": "previous"},
                "crypto": {
                    "key": KEY,
                    "iv": IV,
                    "key_encoding": "utf8",
                    "cipher": "aes-128-cbc",
                    "iv_mode": "fixed",
                    "iv_encoding": "utf8",
                    "padding": "pkcs7",
                    "output": "base64",
                },
            }
        },
    }


def paths(table: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of nested tables, tables included."""
    found: list[tuple[str, ...]] = []
    for name, value in table.items():
        found.append((*above, name))
        if isinstance(value, dict):
            found += paths(value, (*above, name))
    return found


EVERY = paths(raw())
TABLES = [path for path in EVERY if path[-1] in {*raw(), "acme", "retry", "crypto"}]
KEYS = [path for path in EVERY if path not in TABLES]
SECRETS = {"token", "key", "iv"}


def with_value(path: tuple[str, ...], value: object) -> dict[str, Any]:
    changed = raw()
    table = changed
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = value
    return changed


def told(changed: dict[str, Any]) -> dict[str, str]:
    """The faults of parsed TOML by key; none when it is fit."""
    try:
        read_config(changed, Path("/nowhere/config.toml"))
    except ConfigError as error:
        return {fault.where: str(fault) for fault in error.faults}
    return {}


def test_what_is_not_written_has_the_defaults_of_the_interface() -> None:
    config = config_with(ACME, Path("/etc/dispatcher"))
    assert config.path == Path("/etc/dispatcher/config.toml")
    assert config.database == Path("/etc/dispatcher/dispatcher.db")
    assert (config.concurrency, config.lease) == (256, 60 * SECOND)
    assert config.allow == ()
    assert config.listen == ("127.0.0.1", 8080)
    assert config.log_level is LogLevel.INFO
    assert config.warnings == ()
    acme = config.operators["acme"]
    assert (acme.name, acme.terms["notice"].url) == ("acme", "https://acme.example/Demo/notice")
    assert (acme.connect_timeout, acme.total_timeout) == (3 * SECOND, 10 * SECOND)
    assert acme.concurrency == 32
    assert (acme.terms["notice"].auth, acme.token) == (Auth.BEARER, Secret("the-token-of-acme"))
    assert acme.terms["notice"].schedule == Delays((1 * MINUTE, 30 * MINUTE, 50 * MINUTE), "previous")
    assert acme.net_check is NetCheck.STRICT
    assert acme.reading == CryptoReading(
        CipherName.AES_128_CBC, KEY.encode(), IV.encode(), Padding.PKCS7, Output.BASE64
    )


def test_every_setting_can_be_written() -> None:
    assert told(raw()) == {}


def test_what_is_written_is_taken() -> None:
    config = config_with(
        acme_by_key(
            f'key = "{KEY32}", key_encoding = "hex", iv_mode = "zero", padding = "zero", output = "hex"',
            'connect_timeout = "500ms"\ntotal_timeout = "2s"\nconcurrency = 4\nnet_check = "off"\n'
            'retry = { every = "60s", for = "3h" }',
        )
        + '[worker]\nconcurrency = 7\nlease = "2m"\n[web]\nlisten = "[::1]:9"\n[egress]\nallow = ["10.0.0.0/8"]\n'
        '[database]\nurl = "sqlite:////var/lib/dispatcher/d.db"\n[log]\nlevel = "debug"\n'
    )
    assert config.database == Path("/var/lib/dispatcher/d.db")
    assert (config.concurrency, config.lease) == (7, 2 * MINUTE)
    assert (config.listen, config.allow) == (("::1", 9), (ip_network("10.0.0.0/8"),))
    assert config.log_level is LogLevel.DEBUG
    acme = config.operators["acme"]
    assert (acme.connect_timeout, acme.total_timeout, acme.concurrency) == (500_000, 2 * SECOND, 4)
    assert acme.terms["notice"].schedule == Interval(60 * SECOND, 3 * HOUR)
    assert acme.net_check is NetCheck.OFF
    assert acme.reading == CryptoReading(
        CipherName.AES_128_CBC, bytes.fromhex(KEY32), bytes(16), Padding.ZERO, Output.HEX
    )


def test_the_defaults_for_all_operators_come_from_http_and_each_may_differ() -> None:
    config = config_with(f'http.connect_timeout = "1s"\nhttp.total_timeout = "5s"\n{acme_with("")}')
    assert (config.operators["acme"].connect_timeout, config.operators["acme"].total_timeout) == (SECOND, 5 * SECOND)
    config = config_with(f'http.total_timeout = "5s"\n{acme_with("""total_timeout = "4s" """)}')
    assert (config.operators["acme"].connect_timeout, config.operators["acme"].total_timeout) == (
        3 * SECOND,
        4 * SECOND,
    )


def test_web_is_turned_off_by_an_empty_address() -> None:
    assert config_with(f'web.listen = ""\n{ACME}').listen is None


@pytest.mark.parametrize("url", ["sqlite:///dispatcher.db", "sqlite:///data/d.db", "sqlite:///./d.db"])
def test_a_relative_database_is_relative_to_the_file_that_names_it(tmp_path: Path, url: str) -> None:
    config = config_with(f'database.url = "{url}"\n{ACME}', tmp_path)
    assert config.database == tmp_path / url.removeprefix("sqlite:///")


def test_a_file_named_from_another_folder_still_stands_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "c.toml").write_text(ACME, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("conf/c.toml")).database == tmp_path / "conf" / "dispatcher.db"


def test_every_fault_is_told_at_once_with_its_key() -> None:
    faults = faults_of(
        """
        worker = { concurrency = 0, lease = "1 minute", lese = "1m" }
        http.total_timeout = 10
        egress.allow = ["10.0.0.1/8"]
        web.listen = "8080"
        log.level = "loud"
        databse.url = "sqlite:///d.db"
        [operators.acme]
        notice_url = "ftp://acme.example"
        preset = "notic"
        token = 1
        retry = { every = "1h" }
        [operators.acme.crypto]
        key = "short"
        cipher = "aes-512-cbc"
        [operators."two words"]
        auth = "none"
        notice_url = "https://two.example/"
        crypto = { key = "0123456789abcdef" }
        """
    )
    assert set(faults) == {
        *("worker.concurrency", "worker.lease", "worker.lese", "http.total_timeout", "egress.allow", "web.listen"),
        *("log.level", "databse", "operators.acme.notice_url", "operators.acme.preset", "operators.acme.token"),
        *("operators.acme.retry.for", "operators.acme.crypto.key", "operators.acme.crypto.cipher"),
        *("operators.two words", "operators.two words.crypto.iv"),
    }
    assert all(fault.fault and fault.mend for fault in faults.values())


def test_a_configuration_error_is_wrong_use() -> None:
    with pytest.raises(ConfigError) as error:
        config_with("nothing = 1")
    assert error.value.exit_status == 2
    assert str(error.value) == "\n".join(map(str, error.value.faults))


@pytest.mark.parametrize(
    ("path", "wrong", "meant"),
    [
        ((), "operator", "operators"),
        ((), "workers", "worker"),
        (("database",), "uri", "url"),
        (("worker",), "concurency", "concurrency"),
        (("http",), "total_timout", "total_timeout"),
        (("egress",), "allowed", "allow"),
        (("web",), "listens", "listen"),
        (("log",), "levle", "level"),
        (("operators", "acme"), "notice_ulr", "notice_url"),
        (("operators", "acme"), "tokenfile", "token_file"),
        (("operators", "acme", "retry"), "delay", "delays"),
        (("operators", "acme", "crypto"), "iv-mode", "iv_mode"),
        (("operators", "acme", "crypto"), "keyenv", "key_env"),
    ],
)
def test_an_unknown_key_is_answered_with_what_was_meant(path: tuple[str, ...], wrong: str, meant: str) -> None:
    faults = told(with_value((*path, wrong), "1m"))
    where = ".".join((*path, wrong))
    assert set(faults) == {where}
    assert f"did you mean '{meant}'?" in faults[where]


def test_a_retry_by_interval_knows_its_own_keys() -> None:
    faults = told(with_value(("operators", "acme", "retry"), {"every": "60s", "fro": "3h"}))
    assert "did you mean 'for'?" in faults["operators.acme.retry.fro"]


WRONG = [True, 7, -1, 0.5, math.nan, math.inf, "", "no such thing", [], [1], [True], [[]], {}, {"a": 1}]
WRONG += [date(2026, 1, 1), datetime(2026, 1, 1, 8)]  # noqa: DTZ001 (TOML has times without a zone)
FITS: dict[str, Callable[[Any], bool]] = {
    "concurrency": lambda value: value == 7 and value is not True,
    "delays": lambda value: value == [],
    "allow": lambda value: value == [],
    "listen": lambda value: value == "",
    "token": lambda value: isinstance(value, str) and value != "" and " " not in value,
}


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_a_value_of_a_wrong_kind_is_told_under_its_key(path: tuple[str, ...], value: object) -> None:
    faults = told(with_value(path, value))
    if FITS.get(path[-1], lambda _: False)(value):
        assert faults == {}
    else:
        assert ".".join(path) in faults


@pytest.mark.parametrize("value", [True, 7, 0.5, "text", [], [1], date(2026, 1, 1)], ids=repr)
@pytest.mark.parametrize("path", TABLES, ids=".".join)
def test_what_should_be_a_table_and_is_none_is_told_under_its_name(path: tuple[str, ...], value: object) -> None:
    faults = told(with_value(path, value))
    assert "is not a table" in faults[".".join(path)]


leaves = (
    st.none().map(lambda _: "")
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.sampled_from(["1m", "0s", "999999999d", "sqlite:///", "https://[", "a:1", "::", "%", "/", ".", "\0"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", max_size=3), inner, max_size=3),
    max_leaves=5,
)
spots = st.sampled_from([*EVERY, *((*path[:-1], f"{path[-1]}_{end}") for path in EVERY for end in ("env", "file"))])


@settings(max_examples=300)
@given(st.dictionaries(spots, values, min_size=1, max_size=4))
def test_arbitrary_values_under_known_keys_are_fit_or_a_configuration_error(
    changes: dict[tuple[str, ...], Any],
) -> None:
    changed = raw()
    for path, value in changes.items():
        table: Any = changed
        for name in path[:-1]:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = value
    for where, text in told(changed).items():
        assert text.startswith(f"{where}: ")


@pytest.mark.parametrize("path", [("worker", "concurrency"), ("operators", "acme", "concurrency"), ("web", "listen")])
def test_a_huge_number_is_refused_like_any_other(path: tuple[str, ...]) -> None:
    assert ".".join(path) in told(with_value(path, 16**5_000))


def test_a_port_of_many_digits_is_refused_like_any_other() -> None:
    assert "web.listen" in told(with_value(("web", "listen"), "127.0.0.1:" + "9" * 5_000))


@pytest.mark.parametrize("listen", ["8080", "localhost", ":8080", "a:b", "a:-1", "a:65536", "a:1.5", "a:８０", "a:"])
def test_an_address_without_a_port_or_a_host_is_refused(listen: str) -> None:
    assert set(told(with_value(("web", "listen"), listen))) == {"web.listen"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:geheim@h:x/db",
        "postgresql+psycopg2://u:geheim@h/db",
        "postgres://u:geheim@h/db/",
        "mysql://u:geheim@h/db",
        "sqlite:///",
        "d.db",
    ],
)
def test_what_is_said_about_a_database_never_shows_its_password(url: str) -> None:
    assert "geheim" not in "".join(told(with_value(("database", "url"), url)).values())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("u:geheim@h.example:5433/db?sslmode=require&sslpassword=geheim", "u@h.example:5433/db"),
        ("u:ge%40heim@h/db", "u@h/db"),
        ("u@/db?host=/run/postgresql", "u@/db"),
        ("h/db", "h/db"),
        ("u:geheim@/db?host=a.example:5432&host=b.example:5433&password=geheim", "u@a.example:5432,b.example:5433/db"),
        ("u:geheim@[::1]/db", "u@[::1]/db"),
    ],
)
def test_a_server_is_taken_as_it_is_given_and_shown_without_its_password(url: str, shown: str) -> None:
    config = config_with(f'database.url = "postgresql+psycopg://{url}"\n{ACME}')
    assert isinstance(config.database, Server)
    assert config.database.url.reveal() == f"postgresql+psycopg://{url}"
    assert str(config.database) == f"postgresql://{shown}"
    assert "heim" not in repr(config)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_however_a_server_is_written_it_is_one_place_reached_by_our_driver(scheme: str) -> None:
    config = config_with(f'database.url = "{scheme}://u:geheim@h:5433/db?sslmode=require"\n{ACME}')
    assert isinstance(config.database, Server)
    assert config.database.url.reveal() == "postgresql+psycopg://u:geheim@h:5433/db?sslmode=require"
    assert str(config.database) == "postgresql://u@h:5433/db"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "mysql://u@h/db",
            "postgresql+asyncpg://u@h/db",
            "postgresql:u@h/db",
            "postgres//u@h/db",
            "postgresqls://u@h/db",
        ),
        *("sqlite:///", "sqlite://", "sqlite", "dispatcher.db", "oracle://"),
    ],
)
def test_another_kind_of_database_is_refused(url: str) -> None:
    assert set(told(with_value(("database", "url"), url))) == {"database.url"}


@pytest.mark.parametrize(
    ("lease", "total", "fit"),
    [("61s", "60s", True), ("60s", "60s", False), ("10s", "10s", False), ("11s", "10s", True), ("1s", "1h", False)],
)
def test_a_lease_has_to_be_longer_than_the_longest_attempt(lease: str, total: str, fit: bool) -> None:
    faults = faults_of(f'worker.lease = "{lease}"\n{acme_with(f"total_timeout = {total!r}")}')
    assert set(faults) == (set() if fit else {"worker.lease"})


def test_the_longest_timeout_of_any_operator_counts_for_the_lease() -> None:
    other = ACME.replace("acme", "other").replace("[operators.other]", '[operators.other]\ntotal_timeout = "2m"')
    faults = faults_of(ACME + other)
    assert set(faults) == {"worker.lease"}
    assert "60s" in faults["worker.lease"].fault or "1m" in faults["worker.lease"].fault
    assert "2m" in faults["worker.lease"].fault


def test_a_timeout_to_connect_fits_into_the_total_one() -> None:
    assert set(faults_of(acme_with('connect_timeout = "11s"'))) == {"operators.acme.connect_timeout"}
    shorter = config_with(f'http.total_timeout = "2s"\n{ACME}').operators["acme"]
    assert (shorter.connect_timeout, shorter.total_timeout) == (2 * SECOND, 2 * SECOND)


@pytest.mark.parametrize(
    ("retry", "where"),
    [
        ('{ every = "60s" }', {"for"}),
        ('{ for = "3h" }', {"every"}),
        ('{ every = "60s", for = "3h", delays = ["1m"] }', {"delays"}),
        ('{ every = "60s", for = "3h", measured_from = "first" }', {"measured_from"}),
        ('{ every = "0s", for = "3h" }', {"every"}),
        ('{ every = "500ms", for = "3h" }', {"every"}),
        ('{ delays = "1m" }', {"delays"}),
        ('{ delays = ["1m", 5] }', {"delays"}),
        ('{ delays = ["1m", "soon"] }', {"delays"}),
        ('{ delays = ["1m", "-1m"] }', {"delays"}),
        ('{ measured_from = "last" }', {"measured_from"}),
        ('{ delays = ["30m", "1m"], measured_from = "first" }', {"delays"}),
        ('{ delays = ["30m", "1m"], measured_from = "previous" }', set()),
        ("{ }", set()),
    ],
)
def test_a_retry_is_a_list_of_delays_or_an_interval_and_not_both(retry: str, where: set[str]) -> None:
    faults = faults_of(acme_with(f"retry = {retry}"))
    assert set(faults) == {f"operators.acme.retry.{key}" for key in where}


@pytest.mark.parametrize("retry", ['{ delays = ["999999999d"] }', '{ every = "999999999d", for = "999999999d" }'])
def test_a_delay_that_no_store_could_hold_is_refused(retry: str) -> None:
    assert any(where.startswith("operators.acme.retry.") for where in faults_of(acme_with(f"retry = {retry}")))


def test_the_preset_for_aes256_takes_32_characters_as_bytes() -> None:
    config = config_with(acme_by_key(f'key = "{KEY32}", iv = "{IV}"', 'preset = "notice-aes256"'))
    assert config.operators["acme"].reading == CryptoReading(CipherName.AES_256_CBC, KEY32.encode(), IV.encode())


def test_an_operators_own_settings_override_its_preset() -> None:
    crypto = f'key = "{KEY32}", iv = "{IV}", key_encoding = "hex", cipher = "aes-128-cbc"'
    config = config_with(acme_by_key(crypto, 'preset = "notice-aes256"'))
    assert config.operators["acme"].reading == CryptoReading(CipherName.AES_128_CBC, bytes.fromhex(KEY32), IV.encode())


@pytest.mark.parametrize("preset", ['"notices"', "1", '""', '["notice"]', '{ name = "notice" }', "true"])
def test_an_unknown_preset_is_answered_with_those_there_are(preset: str) -> None:
    faults = faults_of(acme_with(f"preset = {preset}"))
    assert set(faults) == {"operators.acme.preset"}
    assert '"notice-aes256"' in faults["operators.acme.preset"].mend


def test_a_key_with_two_readings_stops_the_start_and_is_not_shown() -> None:
    faults = faults_of(acme_by_key(f'key = "{KEY32}", iv = "{IV}"'))
    assert set(faults) == {"operators.acme.crypto.key"}
    told_about_it = str(faults["operators.acme.crypto.key"])
    assert 'key_encoding = "hex"' in told_about_it
    assert 'key_encoding = "utf8_first16"' in told_about_it
    assert KEY32 not in told_about_it


def test_a_key_of_another_size_is_told_with_both_sizes() -> None:
    faults = faults_of(acme_by_key(f'key = "{KEY}", iv = "{IV}", cipher = "aes-256-cbc"'))
    assert set(faults) == {"operators.acme.crypto.key"}
    assert "16" in str(faults["operators.acme.crypto.key"])
    assert "32" in str(faults["operators.acme.crypto.key"])


def test_a_key_that_is_cut_short_by_nobody_stops_the_start() -> None:
    faults = faults_of(acme_by_key(f'key = "{KEY}-one-too-many", iv = "{IV}"'))
    assert set(faults) == {"operators.acme.crypto.key"}


@pytest.mark.parametrize(
    ("crypto", "where"),
    [
        (f'iv = "{IV}"', "key"),
        (f'key = "{KEY}"', "iv"),
        (f'key = "{KEY}", iv = "short"', "iv"),
        (f'key = "{KEY}", iv = "{IV}", iv_mode = "zero"', "iv"),
        (f'key = "{KEY}", iv = "{IV}", iv_encoding = "hex"', "iv"),
    ],
)
def test_a_key_or_an_iv_that_is_missing_or_unfit_is_told_under_its_key(crypto: str, where: str) -> None:
    faults = faults_of(acme_by_key(crypto))
    assert set(faults) == {f"operators.acme.crypto.{where}"}
    assert KEY not in str(faults)
    assert IV not in str(faults)


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('auth = "none"', {"token"}),
        ('auth = "per_event"', {"token"}),
        ('token_env = "DISPATCHER_TEST_TOKEN"', {"token"}),
        ('auth = "basic"', {"auth"}),
    ],
)
def test_a_token_that_does_not_go_with_the_rest_is_told(lines: str, where: set[str]) -> None:
    faults = faults_of(acme_with(lines))
    assert set(faults) == {f"operators.acme.{key}" for key in where}
    assert "the-token-of-acme" not in str(faults)


def test_a_bearer_operator_without_a_token_is_told_the_three_ways_to_give_one() -> None:
    faults = faults_of(ACME.replace('token = "the-token-of-acme"', ""))
    assert set(faults) == {"operators.acme.token"}
    assert "token_env or token_file" in faults["operators.acme.token"].mend


@pytest.mark.parametrize("auth", ["none", "per_event"])
def test_other_operators_need_no_token(auth: str) -> None:
    text = ACME.replace('token = "the-token-of-acme"', f'auth = "{auth}"')
    assert config_with(text).operators["acme"].token is None


SETTLED = {"callback_url": "https://acme.example/settle", "settle": {"auth": "none"}}


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("notice_url", "/mango/notice", "notice_url"),
        ("notice_url", "acme.example/notice", "notice_url"),
        ("notice_url", "http://10.1.2.3/notice", "notice_url"),
        ("notce_url", "https://acme.example/notice", "notce_url"),
        ("notice_url", "https://acme.example/notice", None),
    ],
)
def test_nothing_is_said_to_be_of_no_use_before_it_is_known_what_is_sent(
    key: str, value: str, where: str | None
) -> None:
    changed = raw()
    acme = changed["operators"]["acme"]
    del acme["notice_url"], acme["auth"]
    acme |= {**SETTLED, "notice": {"auth": "bearer"}, key: value}
    config, faults = inspect_config(changed, Path("/nowhere/config.toml"))
    assert [fault.where for fault in faults] == ([f"operators.acme.{where}"] if where else [])
    assert not where or config.warnings == ()


@pytest.mark.parametrize("key", ["callback_url", "calback_url"])
def test_nothing_is_said_to_be_out_of_order_before_it_is_known_what_is_sent(key: str) -> None:
    changed = raw()
    changed["operators"]["acme"] |= {"ordering": {"key": "roundId"}, key: "/settle"}
    assert list(told(changed)) == [f"operators.acme.{key}"]


def test_of_an_operator_whose_only_url_is_misspelt_the_misspelling_alone_is_told() -> None:
    faults = faults_of(ACME.replace("notice_url", "notce_url"))
    assert {where: fault.mend for where, fault in faults.items()} == {
        "operators.acme.notce_url": "did you mean 'notice_url'?"
    }


def test_a_key_that_is_not_known_is_told_before_what_may_come_of_it() -> None:
    changed = raw()
    changed["egres"] = changed.pop("egress")
    changed["worker"] |= {"concurrency": 0, "leese": "1s"}
    changed["log"] |= {"level": "loud", "farmat": "json"}
    changed["operators"]["acme"] |= {"notice_url": "http://127.0.0.1/notice", "concurency": 3}
    changed["operators"]["acme"]["crypto"] |= {"cipher": "rot13", "keys": "x"}
    assert list(told(changed)) == [
        *("egres", "worker.leese", "log.farmat"),
        *("operators.acme.concurency", "operators.acme.notice_url"),
        *("operators.acme.crypto.keys", "operators.acme.crypto.cipher"),
        *("worker.concurrency", "log.level"),
    ]


def test_an_operator_without_a_url_is_told_where_to_write_it() -> None:
    faults = faults_of(ACME.replace('notice_url = "https://acme.example/Demo/notice"', ""))
    assert set(faults) == {"operators.acme.notice_url"}


def test_a_secret_comes_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_TEST_TOKEN", "token-from-outside")
    monkeypatch.setenv("DISPATCHER_TEST_KEY", KEY)
    monkeypatch.setenv("DISPATCHER_TEST_IV", IV)
    crypto = 'key_env = "DISPATCHER_TEST_KEY", iv_env = "DISPATCHER_TEST_IV"'
    text = acme_by_key(crypto).replace('token = "the-token-of-acme"', 'token_env = "DISPATCHER_TEST_TOKEN"')
    acme = config_with(text).operators["acme"]
    assert acme.token == Secret("token-from-outside")
    assert acme.reading == config_with(ACME).operators["acme"].reading


def test_a_variable_that_is_not_set_or_empty_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ACME.replace('token = "the-token-of-acme"', 'token_env = "DISPATCHER_TEST_TOKEN"')
    monkeypatch.delenv("DISPATCHER_TEST_TOKEN", raising=False)
    assert "DISPATCHER_TEST_TOKEN is not set" in faults_of(text)["operators.acme.token_env"].fault
    monkeypatch.setenv("DISPATCHER_TEST_TOKEN", "")
    assert set(faults_of(text)) == {"operators.acme.token_env"}


@pytest.mark.parametrize("name", ["key", "iv"])
def test_a_secret_that_was_named_and_not_found_is_one_fault_and_not_two(name: str) -> None:
    crypto = {"key": f'key = "{KEY}"', "iv": f'iv = "{IV}"'} | {name: f'{name}_file = "absent.txt"'}
    faults = faults_of(acme_by_key(", ".join(crypto.values())))
    assert set(faults) == {f"operators.acme.crypto.{name}_file"}


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> str:
    """Acme with its token in the file `token.txt`."""
    path = folder / "token.txt"
    path.write_bytes(content)
    path.chmod(mode)
    return ACME.replace('token = "the-token-of-acme"', 'token_file = "token.txt"')


def test_a_secret_comes_from_a_file_beside_the_configuration_without_its_line_end(tmp_path: Path) -> None:
    config = config_with(secret_file(tmp_path, b"token-from-a-file\r\n"), tmp_path)
    assert config.operators["acme"].token == Secret("token-from-a-file")
    assert config.warnings == ()


@pytest.mark.parametrize("content", [b"", b" \n", b"geheim\xff\xfe"])
def test_a_file_without_a_readable_secret_is_told_and_not_shown(tmp_path: Path, content: bytes) -> None:
    faults = faults_of(secret_file(tmp_path, content), tmp_path)
    assert set(faults) == {"operators.acme.token_file"}
    assert "geheim" not in str(faults)


@pytest.mark.parametrize("name", ["absent.txt", ".", "", "a\\u0000b"])
def test_a_file_that_can_not_be_read_is_told(tmp_path: Path, name: str) -> None:
    text = ACME.replace('token = "the-token-of-acme"', f'token_file = "{name}"')
    assert set(faults_of(text, tmp_path)) == {"operators.acme.token_file"}


def test_a_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    config = config_with(secret_file(tmp_path, b"token-from-a-file", 0o644), tmp_path)
    (warning,) = config.warnings
    assert "chmod 600 token.txt" in warning.mend
    assert "token-from-a-file" not in str(warning)


@pytest.mark.parametrize(
    "text", ['"geheim wort"', '"geheim\\nwort"', '"geheimübel"', "12345678", "true", '""', '["geheim"]']
)
def test_a_token_that_can_not_stand_in_a_header_is_told_and_not_shown(text: str) -> None:
    faults = faults_of(ACME.replace('"the-token-of-acme"', text))
    assert set(faults) == {"operators.acme.token"}
    for part in ("geheim", "12345678"):
        assert part not in str(faults)


def test_no_secret_is_in_the_text_of_a_configuration_or_of_its_faults() -> None:
    config = config_with(ACME)
    for form in (repr(config), str(config), repr(config.operators), f"{config.operators['acme'].token}"):
        for hidden in (KEY, IV, "the-token-of-acme", KEY.encode().hex()):
            assert hidden not in form
    with pytest.raises(ConfigError) as error:
        config_with(acme_with('auth = "none"\nnotice_url2 = 1').replace(IV, IV + "!").replace(KEY, KEY + "!"))
    for hidden in (KEY, IV, "the-token-of-acme"):
        assert hidden not in str(error.value) + repr(error.value) + repr(error.value.faults)


@pytest.mark.parametrize("path", [("operators", "acme", "crypto"), ("operators", "acme"), ("operators",)])
@pytest.mark.parametrize("value", ["geheim1234567890", ["geheim1234567890"], [{"key": "geheim1234567890"}]], ids=repr)
def test_a_secret_in_the_place_of_a_table_is_not_shown(path: tuple[str, ...], value: object) -> None:
    faults = told(with_value(path, value))
    assert ".".join(path) in faults
    assert "geheim" not in "".join(faults.values())


def test_a_table_in_double_brackets_does_not_show_the_secrets_below_it() -> None:
    faults = faults_of('[[operators.acme]]\ntoken = "the-token-of-acme"\nnotice_url = "https://acme.example/"')
    assert "operators.acme" in faults
    assert "the-token" not in str(faults)


@pytest.mark.parametrize("value", [["geheim"], {"geheim": "geheim"}, 12345678, True], ids=repr)
@pytest.mark.parametrize("path", [path for path in KEYS if path[-1] in SECRETS], ids=".".join)
def test_a_secret_of_a_wrong_kind_is_not_shown(path: tuple[str, ...], value: object) -> None:
    faults = told(with_value(path, value))
    assert ".".join(path) in faults
    assert "geheim" not in "".join(faults.values())
    assert "12345678" not in "".join(faults.values())


@pytest.mark.parametrize("name", ["a b", "", ".a", "-a", "x" * 65, "ä", "a/b", "a\\nb", "a\\u001b[2J", "a\\u202eb"])
def test_an_operators_name_is_plain_and_what_is_said_about_it_can_be_printed(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for an operator") as error:
        config_with(ACME.replace("operators.acme", f'operators."{name}"'))
    for fault in error.value.faults:
        assert str(fault).isprintable()


@pytest.mark.parametrize("name", ["acme", "ACME-2", "a.b_c-d", "7", "x" * 64])
def test_a_plain_name_is_taken(name: str) -> None:
    assert set(config_with(ACME.replace("operators.acme", f'operators."{name}"')).operators) == {name}


@pytest.mark.parametrize(
    "url", [f"http://{host}:8080/notice" for host in ("127.0.0.1", "127.9.9.9", "[::1]", "localhost", "a.localhost")]
)
def test_what_never_leaves_this_machine_is_warned_of_by_nobody(url: str) -> None:
    changed = with_value(("operators", "acme", "notice_url"), url)
    changed["egress"]["allow"] += ["::1/128", "10.0.0.0/8"]
    oauth = {"token_url": url, "client_id": "us", "client_secret": "a-secret-of-ours"}
    changed["operators"]["other"] = {**changed["operators"]["acme"], "auth": "oauth2", "oauth": oauth}
    del changed["operators"]["other"]["token"]
    changed["notifications"] = {"desk": {"preset": "slack", "url": f"{url}/hook"}}
    assert read_config(changed, Path("/nowhere/config.toml")).warnings == ()
    changed["operators"]["acme"]["notice_url"] = "http://10.1.2.3/notice"
    (warning,) = read_config(changed, Path("/nowhere/config.toml")).warnings
    assert "plain http" in warning.fault


@pytest.mark.parametrize("url", ["http://acme.example/notice", "HTTP://acme.example/notice"])
def test_a_url_without_tls_is_a_warning_and_no_fault(url: str) -> None:
    config = config_with(ACME.replace("https://acme.example/Demo/notice", url))
    (warning,) = config.warnings
    assert warning.where == "operators.acme.notice_url"
    assert "unencrypted" in warning.fault
    assert config.operators["acme"].terms["notice"].url == url


def test_a_configuration_without_operators_is_fit_with_a_warning() -> None:
    (warning,) = config_with("").warnings
    assert warning.where == "operators"


def test_warnings_are_not_mixed_with_faults() -> None:
    with pytest.raises(ConfigError) as error:
        config_with(ACME.replace("https:", "http:") + "[worker]\nconcurrency = 0")
    assert [fault.where for fault in error.value.faults] == ["worker.concurrency"]


def test_a_file_is_loaded_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(ACME + "# 投入\n", "utf-8")
    assert load_config(path) == config_with(ACME, tmp_path)


def load_fault(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path)
    (fault,) = error.value.faults
    assert fault.where == str(path)
    return str(fault)


def test_a_missing_file_is_a_fault_that_says_how_to_name_it(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        text = load_fault(path)
        assert "-c" in text
        assert "DISPATCHER_CONFIG" in text
        assert ("or make one: dispatcher init" in text) is (path != tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"[worker", b"a = ", b"a = 1\na = 2", b"\xff\xfe", b"a = \xe4", b"a = 2026-02-30", b"{}", b"\0"],
)
def test_a_file_that_is_no_toml_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    assert "is not TOML" in load_fault(path)


@pytest.mark.parametrize("content", [b"a = " + b"[" * 5_000 + b"]" * 5_000, b"a = " + b"{b = " * 5_000 + b"1"])
def test_a_file_nested_without_end_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    assert load_fault(path)


def test_a_number_without_end_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for number in ("9" * 5_000, "0x" + "f" * 5_000):
        path.write_text(f"worker.concurrency = {number}", "utf-8")
        with pytest.raises(ConfigError):
            load_config(path)
