"""The configuration: TOML in, one frozen value out, or every fault at once (interface.md, Configuration)."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from dispatcher.clock import SECOND, duration_text
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
from dispatcher.egress import Network
from dispatcher.errors import ConfigError, Fault, Unfit, choices
from dispatcher.events import bearer_token, shown
from dispatcher.policy import Delays, Interval, Rule, Schedule
from dispatcher.presets import PRESETS
from dispatcher.readers import (
    address_and_port,
    codes,
    delays,
    http_statuses,
    json_path,
    json_values,
    networks,
    operator_url,
    sqlite_file,
)
from dispatcher.secret import Secret
from dispatcher.settings import Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


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
    rule: Rule | None
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
    allow = egress.read("allow", (), networks)
    timeouts = _timeouts(http, 3 * SECOND, 10 * SECOND)
    operators = top.table("operators")
    config = Config(
        path=path.resolve(),
        database=database.read("url", top.folder / "dispatcher.db", lambda value: sqlite_file(value, top.folder)),
        concurrency=worker.integer("concurrency", 256, 1, 10_000),
        lease=worker.duration("lease", 60 * SECOND, SECOND),
        allow=allow,
        listen=web.read("listen", ("127.0.0.1", 8080), address_and_port),
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
    for name, operator in config.operators.items():
        if len(config.operators) > 1 and operator.concurrency >= config.concurrency:
            told = f"{operator.concurrency} is all of worker.concurrency, {config.concurrency}"
            top.warn(f"operators.{name}.concurrency", told, "write less, or it can hold up the others when it hangs")
    if not config.operators:
        top.warn("operators", "there is none", "add [operators.NAME]; until then every event is refused")


def _operator(name: str, table: Table, timeouts: tuple[int, int], allow: tuple[Network, ...]) -> Operator:
    if not _NAME.fullmatch(name):
        table.fault("", f"{shown(name)} is no name for an operator", "use letters, digits, _ - and . (64 at most)")
    preset = table.read("preset", PRESETS["notice"], _preset)
    auth = table.choice("auth", Auth.BEARER)
    notice_url = table.read("notice_url", None, lambda value: operator_url(value, allow))
    if table.read("callback_url", None, lambda value: operator_url(value, allow)) is not None:
        table.warn("callback_url", "is for settle, which this version does not speak", "nothing is sent there")
    token = table.secret("token")
    connect_timeout, total_timeout = _timeouts(table, *timeouts)
    operator = Operator(
        name=name,
        notice_url=notice_url,
        concurrency=table.integer("concurrency", 32, 1, 10_000),
        auth=auth,
        token=token,
        schedule=_schedule(table),
        rule=_rule(table.table("success", preset.get("success"))),
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
        table.read("delays", Delays().delays, delays),
        table.choice("measured_from", Anchor.PREVIOUS).value,
    )
    if schedule.measured_from == "first" and list(schedule.delays) != sorted(schedule.delays):
        table.fault("delays", "must grow when they are measured from the first attempt", "sort them")
    table.close()
    return schedule


def _rule(table: Table) -> Rule | None:
    """What counts as a yes; None where the operator says nothing of it and the protocol's own rule holds."""
    given = bool(table.names())
    field, numeric = table.read("field", (), json_path), table.read("numeric", (), json_path)
    rule = Rule(
        statuses=frozenset(table.read("statuses", (200,), http_statuses)),
        field=field,
        values=table.read("values", (), json_values),
        numeric=numeric,
        coerce=table.boolean("coerce_code", default=False),
        extra=frozenset(table.read("extra_success_codes", (), codes)),
        final=frozenset(table.read("final_codes", (), codes)),
    )
    if rule.field and not rule.values and not rule.extra and not table.faulty("values"):
        table.fault("values", "is missing, so that no answer could count as a yes", 'write e.g. values = ["0000"]')
    if not rule.field and not table.faulty("field") and (rule.values or rule.coerce or rule.extra or rule.final):
        table.fault("field", "is missing, so that the codes are read from nowhere", 'write e.g. field = "code"')
    table.close()
    return rule if given else None


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
