"""The configuration: TOML in, one frozen value out, or every fault at once (interface.md, Configuration)."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dispatcher.clock import SECOND, duration_text, parse_duration
from dispatcher.crypto import (
    CipherName,
    CryptoReading,
    IvEncoding,
    IvMode,
    KeyEncoding,
    Output,
    Padding,
    read_iv,
    read_key,
)
from dispatcher.egress import Network, may_call, parse_address
from dispatcher.errors import ConfigError, Fault, Unfit, choices
from dispatcher.events import bearer_token, shown
from dispatcher.policy import Delays, Interval, Schedule
from dispatcher.presets import PRESETS
from dispatcher.secret import Secret
from dispatcher.settings import Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_NUMERIC = re.compile(r"(0[xX][0-9A-Fa-f]*|[0-9]+)")


class Auth(StrEnum):
    """Which token an operator's callbacks carry: none, one for all, or each event's own."""

    NONE = "none"
    BEARER = "bearer"
    PER_EVENT = "per_event"


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Anchor(StrEnum):
    PREVIOUS = "previous"
    FIRST = "first"


class NetCheck(StrEnum):
    STRICT = "strict"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Operator:
    """Everything one operator wants to be told, and how. Timeouts in µs."""

    name: str
    notice_url: str | None
    concurrency: int
    auth: Auth
    token: Secret | None
    schedule: Schedule
    reading: CryptoReading | None
    connect_timeout: int
    total_timeout: int
    net_check: NetCheck


@dataclass(frozen=True, slots=True)
class Config:
    """One whole configuration. `database` is the file of the SQLite store; durations in µs."""

    path: Path
    database: Path
    concurrency: int
    lease: int
    allow: tuple[Network, ...]
    listen: tuple[str, int] | None
    log_format: LogFormat | None
    log_level: LogLevel
    operators: Mapping[str, Operator]
    warnings: tuple[Fault, ...] = field(default=(), compare=False)


def load_config(path: Path) -> Config:
    """The configuration in the file at `path`. Raises ConfigError with every fault in it."""
    return read_config(load_toml(path), path)


def load_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        fault = Fault(str(path), f"can't be read ({error.strerror})", "name the file with -c or DISPATCHER_CONFIG")
        raise ConfigError([fault]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([Fault(str(path), f"is not TOML ({error})", "mend that line")]) from None


def read_config(raw: Mapping[str, Any], path: Path) -> Config:
    """As `load_config`, from parsed TOML; relative paths are relative to the folder of `path`."""
    config, faults = inspect_config(raw, path)
    if faults:
        raise ConfigError(faults)
    return config


def inspect_config(raw: Mapping[str, Any], path: Path) -> tuple[Config, list[Fault]]:
    """The configuration with a default wherever it is faulty, and its faults: for `check`, which tells everything."""
    faults: list[Fault] = []
    warnings: list[Fault] = []
    top = Table(raw, "", path.resolve().parent, faults, warnings)
    database, worker, http = top.table("database"), top.table("worker"), top.table("http")
    egress, web, log = top.table("egress"), top.table("web"), top.table("log")
    allow = egress.read("allow", (), _networks)
    timeouts = _timeouts(http, 3 * SECOND, 10 * SECOND)
    operators = top.table("operators")
    config = Config(
        path=path.resolve(),
        database=database.read("url", top.folder / "dispatcher.db", lambda value: _sqlite(value, top.folder)),
        concurrency=worker.integer("concurrency", 256, 1, 10_000),
        lease=worker.duration("lease", 60 * SECOND, SECOND),
        allow=allow,
        listen=web.read("listen", ("127.0.0.1", 8080), _listen),
        log_format=log.choice_or_none("format", LogFormat),
        log_level=log.choice("level", LogLevel.INFO),
        operators={name: _operator(name, operators.table(name), timeouts, allow) for name in operators.names()},
        warnings=(),
    )
    for table in (database, worker, http, egress, web, log, operators, top):
        table.close()
    _cross_check(config, top)
    return replace(config, warnings=tuple(warnings)), faults


def _cross_check(config: Config, top: Table) -> None:
    longest = max((operator.total_timeout for operator in config.operators.values()), default=0)
    if config.lease <= longest:
        top.fault(
            "worker.lease",
            f"{duration_text(config.lease)} is not longer than the longest total_timeout, {duration_text(longest)}",
            "write a longer lease, or an attempt could be taken for lost while it runs",
        )
    if not config.operators:
        top.warn("operators", "there is none", "add [operators.NAME]; until then every event is refused")


def _operator(name: str, table: Table, timeouts: tuple[int, int], allow: tuple[Network, ...]) -> Operator:
    if not _NAME.fullmatch(name):
        table.fault("", f"{shown(name)} is no name for an operator", "use letters, digits, _ - and . (64 at most)")
    preset = table.read("preset", PRESETS["notice"], _preset)
    auth = table.choice("auth", Auth.BEARER)
    notice_url = table.read("notice_url", None, lambda value: _url(value, allow))
    token = table.secret("token")
    connect_timeout, total_timeout = _timeouts(table, *timeouts)
    operator = Operator(
        name=name,
        notice_url=notice_url,
        concurrency=table.integer("concurrency", 32, 1, 10_000),
        auth=auth,
        token=token,
        schedule=_schedule(table),
        reading=_reading(table.table("crypto", preset.get("crypto"))),
        connect_timeout=connect_timeout,
        total_timeout=total_timeout,
        net_check=table.choice("net_check", NetCheck.STRICT),
    )
    _check_token(table, auth, token)
    if notice_url is None:
        if not table.faulty("notice_url"):
            table.fault("notice_url", "is missing", 'write notice_url = "https://…/Demo/notice"')
    elif notice_url.lower().startswith("http:"):
        table.warn("notice_url", "is plain http: token and player travel unencrypted", "use https outside of tests")
    table.close()
    return operator


def _check_token(table: Table, auth: Auth, token: Secret | None) -> None:
    if auth is Auth.BEARER and token is None:
        if not table.faulty("token"):
            table.fault(
                "token",
                'is missing, and auth = "bearer" needs it',
                'write token, token_env or token_file, or auth = "none"',
            )
    elif auth is not Auth.BEARER and token is not None:
        table.fault("token", f'is given, and auth = "{auth}" uses none', 'remove it, or write auth = "bearer"')
    elif token is not None:
        try:
            bearer_token(token.reveal())
        except Unfit as unfit:
            table.fault("token", unfit.fault, unfit.mend)


def _timeouts(table: Table, connect: int, total: int) -> tuple[int, int]:
    """A total_timeout that is shorter than the connect_timeout nobody wrote shortens that too."""
    total = table.duration("total_timeout", total)
    connect = table.duration("connect_timeout", min(connect, total))
    if connect > total:
        told = f"{duration_text(connect)} is longer than total_timeout {duration_text(total)}"
        table.fault("connect_timeout", told, "write a shorter one")
    return connect, total


def _schedule(operator: Table) -> Schedule:
    table = operator.table("retry")
    interval = table.has("every") or table.has("for")
    if interval:
        every, window = table.duration("every", 0, SECOND), table.duration("for", 0, SECOND)
        for key, given in (("every", every), ("for", window)):
            if not given and not table.faulty(key):
                table.fault(key, "is missing", 'write both, like { every = "60s", for = "3h" }')
        for key in ("delays", "measured_from"):
            if table.has(key):
                table.fault(key, "does not go with every", "keep either delays or every and for")
        table.close()
        return Interval(every, window)
    schedule = Delays(
        table.read("delays", Delays().delays, _delays),
        table.choice("measured_from", Anchor.PREVIOUS).value,
    )
    if schedule.measured_from == "first" and list(schedule.delays) != sorted(schedule.delays):
        table.fault("delays", "must grow when they are measured from the first attempt", "sort them")
    table.close()
    return schedule


def _reading(table: Table) -> CryptoReading | None:
    key_text, iv_text = table.secret("key"), table.secret("iv")
    encoding = table.choice_or_none("key_encoding", KeyEncoding)
    cipher = table.choice("cipher", CipherName.AES_128_CBC)
    iv_mode = table.choice("iv_mode", IvMode.FIXED)
    iv_encoding = table.choice("iv_encoding", IvEncoding.UTF8)
    padding, output = table.choice("padding", Padding.PKCS7), table.choice("output", Output.BASE64)
    table.close()
    if key_text is None:
        if not table.faulty("key"):
            table.fault("key", "is missing", "write key, key_env or key_file")
        return None
    if table.faulty("iv"):
        return None
    try:
        where = "key"
        key = read_key(key_text.reveal(), encoding, cipher)
        where = "iv"
        iv = read_iv(iv_text.reveal() if iv_text else None, iv_mode, iv_encoding, key)
    except Unfit as unfit:
        table.fault(where, unfit.fault, unfit.mend)
        return None
    return CryptoReading(cipher, key, iv, padding, output)


def _preset(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, str) or value not in PRESETS:
        raise Unfit(f"{shown(value)} is not known", f"write {choices(PRESETS)}")
    return PRESETS[value]


def _delays(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unfit(f"{shown(value)} is not a list of durations", 'write e.g. ["1m", "30m", "50m"]')
    return tuple(parse_duration(one) for one in value)


def _networks(value: Any) -> tuple[Network, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unfit(f"{shown(value)} is not a list of texts", 'write e.g. ["127.0.0.0/8"]')
    try:
        return tuple(ip_network(one) for one in value)
    except (ValueError, TypeError):
        raise Unfit(f"{shown(value)} has something that is not a network", 'write CIDRs, like "10.1.0.0/16"') from None


def _sqlite(value: Any, folder: Path) -> Path:
    if not isinstance(value, str) or not value.startswith("sqlite:///") or value == "sqlite:///":
        raise Unfit(
            f"{shown(value) if not _has_password(value) else 'it'} is not the address of an SQLite file",
            'write "sqlite:///dispatcher.db"',
        )
    return folder / value.removeprefix("sqlite:///")


def _has_password(value: Any) -> bool:
    return isinstance(value, str) and "@" in value


def _listen(value: Any) -> tuple[str, int] | None:
    if value == "":
        return None
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65_535 or not host:
        raise Unfit(
            f"{shown(value)} is not an address and a port",
            'write e.g. "127.0.0.1:8080", or "" to turn it off',
        )
    return host.strip("[]"), int(port)


def _url(value: Any, allow: tuple[Network, ...]) -> str:
    """An http(s) URL that means the same to every reader of URLs, and no address that may not be called."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise Unfit("is not a URL in plain ASCII", 'write it like "https://operator.example/Demo/notice"')
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Unfit("is not a URL", 'write it like "https://operator.example/Demo/notice"') from None
    if parts.scheme not in ("http", "https"):
        raise Unfit(f"has the scheme {shown(parts.scheme)}", "write https://…")
    if "@" in parts.netloc or "%" in parts.netloc or parts.fragment or port == 0:
        raise Unfit(
            "has a user, a password, a zone, a fragment or port 0",
            "leave them out; the token has a setting of its own",
        )
    address = parse_address(host)
    if address is None and (
        "[" in parts.netloc or not _HOST.fullmatch(host) or _NUMERIC.fullmatch(host.rpartition(".")[2])
    ):
        raise Unfit(
            f"has the host {shown(host)}",
            "write a plain host name (no final dot, punycode for IDN) or IP address",
        )
    if address is not None and not may_call(address, allow):
        raise Unfit(
            f"{address} is not on the public internet",
            f'if it is meant, add it to egress.allow, like ["{address}"]',
        )
    return value
