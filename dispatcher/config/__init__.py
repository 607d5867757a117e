"""The configuration: TOML in, one frozen value out, or every fault at once (interface.md, Configuration)."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from dispatcher.config.notifications import notification_of
from dispatcher.config.operators import Defaults, declared_document, operator_of, timeouts
from dispatcher.config.web import Web, web_of
from dispatcher.ground.clock import DAY, SECOND, duration_text
from dispatcher.ground.egress import Network
from dispatcher.ground.errors import ConfigError, Fault, Unfit
from dispatcher.ground.operator import NOTIFY, Operator
from dispatcher.ground.place import Place
from dispatcher.ground.readers import kept_for, networks, place
from dispatcher.ground.secret import Secret
from dispatcher.ground.settings import Report, Table
from dispatcher.tracing import refuse_unfit


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Config:
    """One whole configuration. `database` is the SQLite file or the server; durations in µs.

    `operators` and `notifications` are those that the file declares, by name; `documents` the settings of both as the
    store keeps them: JSON with every secret in it. `former_master_key` opens what was locked before the master key was
    exchanged.
    """

    path: Path
    database: Place
    concurrency: int
    lease: int
    defaults: Defaults
    # How long a delivery that ended well is kept; None: for good.
    retention: int | None
    web: Web
    log_format: LogFormat | None
    log_level: LogLevel
    master_key: Secret | None
    former_master_key: Secret | None
    # Whether OpenTelemetry traces are sent.
    traces: bool
    operators: Mapping[str, Operator]
    notifications: Mapping[str, Operator]
    documents: Mapping[str, Secret] = field(repr=False)
    warnings: tuple[Fault, ...] = field(default=(), compare=False)

    @property
    def listen(self) -> tuple[str, int] | None:
        return self.web.listen

    @property
    def declared(self) -> Mapping[str, Operator]:
        """Whatever has a document."""
        return {**self.operators, **self.notifications}

    @property
    def allow(self) -> tuple[Network, ...]:
        return self.defaults.allow


def load_config(path: Path) -> Config:
    """The configuration in the file at `path`. Raises ConfigError with every fault in it."""
    return read_config(load_toml(path), path)


def load_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        mend = "name the file with -c or DISPATCHER_CONFIG"
        mend += ", or make one: dispatcher init" if isinstance(error, FileNotFoundError) else ""
        fault = Fault(str(path), f"can't be read ({error.strerror})", mend)
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
    report = Report(path.resolve().parent)
    top = Table(raw, (), report)
    tables = {
        name: top.table(name)
        for name in ("database", "worker", "http", "egress", "web", "log", "telemetry", "secrets", "retention")
    }
    database, worker, log = tables["database"], tables["worker"], tables["log"]
    connect, total = timeouts(tables["http"], 3 * SECOND, 10 * SECOND)
    defaults = Defaults(connect, total, tables["egress"].read("allow", (), networks))
    declared = top.table("operators")
    operators = {name: operator_of(name, declared.table(name), defaults) for name in declared.names()}
    told = top.table("notifications")
    notifications = {f"{NOTIFY}{name}": notification_of(name, told.table(name), defaults) for name in told.names()}
    config = Config(
        path=path.resolve(),
        database=database.read("url", report.folder / "dispatcher.db", lambda value: place(value, report.folder)),
        concurrency=worker.integer("concurrency", 256, 1, 10_000),
        lease=worker.duration("lease", 60 * SECOND, SECOND),
        defaults=defaults,
        retention=tables["retention"].read("delivered", 30 * DAY, kept_for),
        web=web_of(tables["web"]),
        log_format=log.choice_or_none("format", LogFormat),
        log_level=log.choice("level", LogLevel.INFO),
        master_key=tables["secrets"].secret("master_key"),
        former_master_key=tables["secrets"].secret("former_master_key"),
        traces=_traces(tables["telemetry"]),
        operators=operators,
        notifications=notifications,
        documents={},
    )
    # Each puts its own in front of those that are told already: a table that nobody knows, before all that it lacks.
    for table in (told, declared, *reversed(tables.values()), top):
        table.close()
    _cross_check(config, top)
    faults = list(dict.fromkeys(report.faults))
    documents = {} if faults else {name: _document(declared.raw[name], _path(name), report) for name in operators}
    if not faults:
        documents |= {name: _document(told.raw[_path(name)[1]], _path(name), report) for name in notifications}
    return replace(config, documents=documents, warnings=tuple(dict.fromkeys(report.warnings))), faults


def _traces(table: Table) -> bool:
    wanted = table.boolean("traces", default=False)
    try:
        if wanted:
            refuse_unfit()
    except Unfit as unfit:
        table.fault("traces", unfit.fault, unfit.mend)
    return wanted


def where_declared(name: str) -> str:
    """The table that declares it, as a fault names it."""
    return ".".join(_path(name))


def _path(name: str) -> tuple[str, str]:
    """The table that declares it."""
    return ("notifications", name.removeprefix(NOTIFY)) if name.startswith(NOTIFY) else ("operators", name)


def _document(raw: Mapping[str, Any], path: tuple[str, str], report: Report) -> Secret:
    return Secret(json.dumps(declared_document(raw, path, report.secrets), ensure_ascii=False))


class Draft(NamedTuple):
    """An operator read from its table alone: `document` is what the store keeps, `secrets` the keys of its secrets."""

    operator: Operator
    document: Secret
    secrets: frozenset[tuple[str, ...]]
    warnings: Sequence[Fault]


def draft_operator(name: str, raw: Mapping[str, Any], defaults: Defaults, folder: Path) -> Draft:
    """The operator, or notification, that a table of settings describes, relative files below `folder`.

    Raises ConfigError.
    """
    report, path = Report(folder), _path(name)
    read = notification_of if name.startswith(NOTIFY) else operator_of
    operator = read(path[1], Table(raw, path, report), defaults)
    if report.faults:
        raise ConfigError(list(dict.fromkeys(report.faults)))
    secrets = frozenset(parts[2:] for parts in report.secrets)
    return Draft(operator, _document(raw, path, report), secrets, report.warnings)


def _cross_check(config: Config, top: Table) -> None:
    longest = max((operator.total_timeout for operator in config.declared.values()), default=0)
    if config.lease <= longest:
        top.fault(
            "worker.lease",
            f"{duration_text(config.lease)} is not longer than the longest total_timeout, {duration_text(longest)}",
            "write a longer lease, or an attempt could be taken for lost while it runs",
        )
    for name, operator in config.operators.items():
        if operator.traceparent and not config.traces:
            told = "is on, and nothing is traced: nothing is sent"
            top.warn(f"operators.{name}.traceparent", told, "turn telemetry.traces on, or leave it out")
        if len(config.operators) > 1 and operator.concurrency >= config.concurrency:
            told = f"{operator.concurrency} is all of worker.concurrency, {config.concurrency}"
            top.warn(f"operators.{name}.concurrency", told, "write less, or it can hold up the others when it hangs")
    if not config.operators:
        mend = "add [operators.NAME], or make one: dispatcher operators set NAME …; events for others are refused"
        top.warn("operators", "the file declares none", mend)
