"""One operator's table: read whole, every fault told, nothing left to interpret (wire-contract.md, Per operator)."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from dispatcher.config.access import check_access, read_access, read_auth
from dispatcher.config.export import read_export
from dispatcher.ground.clock import SECOND, duration_text
from dispatcher.ground.crypto import (
    CipherName,
    CryptoReading,
    IvEncoding,
    IvMode,
    KeyEncoding,
    Output,
    Padding,
    Spelling,
    encoding_of,
    read_iv,
    read_key,
)
from dispatcher.ground.egress import Network
from dispatcher.ground.errors import Unfit, choices, listed
from dispatcher.ground.fields import shown
from dispatcher.ground.operator import (
    Anchor,
    Auth,
    Breaker,
    NetCheck,
    Operator,
    Ordering,
    OrderingKey,
    Terms,
    TimeUnit,
    WhenDead,
)
from dispatcher.ground.policy import Rule
from dispatcher.ground.presets import PRESETS
from dispatcher.ground.readers import codes, delays, http_statuses, is_open, json_path, json_values, operator_url
from dispatcher.ground.schedule import Delays, Interval, Schedule
from dispatcher.ground.secret import Secret
from dispatcher.ground.settings import Table
from dispatcher.protocols import PROTOCOLS, Protocol

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
# Of `success`: what is said of codes without saying where in the answer they stand.
_CODES = ("coerce_code", "extra_success_codes", "final_codes")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every operator: timeouts (µs) it may override, and which addresses may be called at all."""

    connect_timeout: int
    total_timeout: int
    allow: tuple[Network, ...]


def operator_of(name: str, table: Table, defaults: Defaults) -> Operator:
    """The operator that a table describes; its faults and warnings go to the table's report."""
    if not _NAME.fullmatch(name):
        table.fault("", f"{shown(name)} is no name for an operator", "use letters, digits, _ - and . (64 at most)")
    preset = table.read("preset", PRESETS["notice"], _preset)
    wanted = [protocol for protocol in PROTOCOLS.values() if table.has(protocol.url)] or list(PROTOCOLS.values())
    terms = {kind: _terms(protocol, table, preset, wanted, defaults) for kind, protocol in PROTOCOLS.items()}
    taken = {kind: own for kind, own in terms.items() if own.url is not None}
    auths = {own.auth for own in taken.values()}
    access = read_access(table, auths, defaults.allow)
    connect_timeout, total_timeout = timeouts(table, defaults.connect_timeout, defaults.total_timeout)
    operator = Operator(
        name=name,
        terms=terms,
        concurrency=table.integer("concurrency", 32, 1, 10_000),
        connect_timeout=connect_timeout,
        total_timeout=total_timeout,
        reading=_reading(table, preset, needed_by=_who_encrypts(taken)),
        net_check=table.choice("net_check", NetCheck.STRICT),
        time_unit=table.choice("time_unit", TimeUnit.SECONDS),
        breaker=_breaker(table),
        ordering=_ordering(table),
        traceparent=table.boolean("traceparent", default=False),
        **access,
    )
    if operator.traceparent and any(header.lower() == "traceparent" for header in operator.headers):
        table.fault("headers.traceparent", "is what traceparent = true sets", "keep one of them")
    _check_together(table, operator, auths, taken, wanted)
    table.close()
    return operator


def _check_together(
    table: Table, operator: Operator, auths: Set[Auth], taken: Mapping[str, Terms], wanted: Sequence[Protocol]
) -> None:
    """What follows from which message types it takes: nothing, as long as a fault keeps that from being known."""
    urls, meant = [protocol.url for protocol in PROTOCOLS.values()], table.meant()
    faulty = any(table.faulty(key) for key in urls)
    if not taken and not faulty and not meant & {*urls}:
        table.fault(urls[0], "is missing", f'write {listed(urls)}, like "https://…"; more than one may be given')
    if faulty or meant:
        return
    check_access(table, auths, operator.token)
    for protocol in PROTOCOLS.values():
        if protocol not in wanted and isinstance(own := table.raw.get(protocol.name), Mapping) and own:
            mend = f"write {protocol.url}, or leave it out"
            table.warn(protocol.name, f"says how, and there is no {protocol.url}", mend)
    if "crypto" in table.raw and _who_encrypts(taken) is None:
        table.warn("crypto", "is given, and nothing that is sent is encrypted", "leave it out")
    _check_order(table, operator.ordering, taken)


def declared_document(
    raw: Mapping[str, Any], path: tuple[str, ...], secrets: Mapping[tuple[str, ...], Secret]
) -> dict[str, Any]:
    """The table with each secret's text in place of where it was to be found: complete without any file or variable."""
    document: dict[str, Any] = {}
    found = {parts[-1]: secret for parts, secret in secrets.items() if parts[:-1] == path}
    given = {f"{key}{suffix}" for key in found for suffix in ("", "_env", "_file")}
    for key, value in raw.items():
        if isinstance(value, Mapping):
            document[key] = declared_document(value, (*path, key), secrets)
        elif key not in given:
            document[key] = value
    return document | {key: secret.reveal() for key, secret in found.items()}


def timeouts(table: Table, connect: int, total: int) -> tuple[int, int]:
    """A total_timeout that is shorter than the connect_timeout nobody wrote shortens that too."""
    total = table.duration("total_timeout", total)
    connect = table.duration("connect_timeout", min(connect, total))
    if connect > total:
        told = f"{duration_text(connect)} is longer than total_timeout {duration_text(total)}"
        table.fault("connect_timeout", told, "write a shorter one")
    return connect, total


def _terms(
    protocol: Protocol, table: Table, preset: Mapping[str, Any], wanted: Sequence[Protocol], defaults: Defaults
) -> Terms:
    """One message type: the protocol's defaults; over them the preset's, the operator's, its own for this type."""
    own = table.table(protocol.name)
    url = table.read(protocol.url, None, lambda value: message_url(value, protocol, defaults.allow))
    layers = (protocol.defaults, preset.get(protocol.name, {}), _general(protocol, table.raw, preset, wanted), own.raw)
    terms = Terms(
        url=url,
        auth=read_auth(own, read_auth(table, Auth(protocol.defaults["auth"]))),
        schedule=schedule_of(_merged(table, own, "retry", _schedules(layers))),
        rule=_rule(_merged(table, own, "success", _layers(layers, "success"))),
        export=read_export(own.table("export"), protocol),
    )
    own.close()
    if url is not None and is_open(url):
        table.warn(protocol.url, "is plain http: token and player travel unencrypted", "use https outside of tests")
    return terms


def message_url(value: Any, protocol: Protocol, allow: tuple[Network, ...]) -> str:
    """Where messages of this type are posted to, from the setting that says so. Raises Unfit."""
    url = operator_url(value, allow)
    if protocol.path and "?" in url:
        raise Unfit("has a query", f"leave it out: {protocol.path} is added at the end")
    return url.rstrip("/") + protocol.path if protocol.path else url


def _general(
    protocol: Protocol, raw: Mapping[str, Any], preset: Mapping[str, Any], wanted: Sequence[Protocol]
) -> Mapping[str, Any]:
    """What the operator says for all its message types, as far as it is said for this one.

    Nothing is for a type that it does not take; codes are for those types whose answers have a field to read them from.
    """
    if protocol not in wanted:
        return {}
    success = raw.get("success")
    reads = [one for one in wanted if _reads_codes(one, raw, preset)]
    if not isinstance(success, Mapping) or not reads or protocol in reads:
        return raw
    return {**raw, "success": {key: value for key, value in success.items() if key not in _CODES}}


def _reads_codes(protocol: Protocol, raw: Mapping[str, Any], preset: Mapping[str, Any]) -> bool:
    own = raw.get(protocol.name)
    layers = (protocol.defaults, preset.get(protocol.name, {}), raw, own if isinstance(own, Mapping) else {})
    return any("field" in layer for layer in _layers(layers, "success"))


class _Merged(Table):
    """What an operator's table and the one of a message type say together; each fault is told where its key stands."""

    def __init__(self, raw: Mapping[str, Any], key: str, own: Table, general: Table) -> None:
        nearest, self._below = (own if key in own.raw else general), (*general.path, key)
        self._given, self._given_below = (one.raw.get(key, {}) for one in (nearest, general))
        super().__init__(raw, (*nearest.path, key), own.report)

    def at(self, key: str) -> str:
        stands_below = key in self._given_below and key not in self._given
        return Table({}, self._below, self.report).at(key) if stands_below else super().at(key)


def _merged(table: Table, own: Table, key: str, layers: Iterable[Mapping[str, Any]]) -> Table:
    """The table that the layers give together."""
    table.has(key)
    for one in (own, table):
        if one.has(key) and not isinstance(one.raw[key], Mapping):
            return one.table(key)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return _Merged(merged, key, own, table)


def _layers(layers: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    found = [layer.get(key, {}) for layer in layers]
    return [layer for layer in found if isinstance(layer, Mapping)]


def _schedules(layers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """As `_layers`; a layer that says one kind of schedule takes the other kind's keys away from those below it.

    `measured_from` alone says no kind: it is for those message types that have delays.
    """
    found: list[Mapping[str, Any]] = []
    for layer in _layers(layers, "retry"):
        interval, spaced = {"every", "for"} & layer.keys(), "delays" in layer
        gone = {"delays", "measured_from"} if interval else set()
        gone |= {"every", "for"} if spaced else set()
        found = [_less(below, gone) for below in found]
        below_interval = any("every" in below for below in found)
        found.append(_less(layer, {"measured_from"}) if below_interval and not interval and not spaced else layer)
    return found


def _less(layer: Mapping[str, Any], gone: Collection[str]) -> Mapping[str, Any]:
    return {key: value for key, value in layer.items() if key not in gone}


def schedule_of(table: Table) -> Schedule:
    """When it is tried again; the table is read whole."""
    asked = table.duration("retry_after", 0)
    if table.has("every") or table.has("for"):
        every, window = table.duration("every", 0, SECOND), table.duration("for", 0, SECOND)
        for key, given in (("every", every), ("for", window)):
            if not given and not table.faulty(key):
                table.fault(key, "is missing", 'write both, like { every = "60s", for = "3h" }')
        for key in ("delays", "measured_from"):
            if table.has(key):
                table.fault(key, "does not go with every", "keep either delays or every and for")
        table.close()
        return Interval(every, window, asked)
    schedule = Delays(
        table.read("delays", Delays().delays, delays), table.choice("measured_from", Anchor.PREVIOUS).value, asked
    )
    if schedule.measured_from == "first" and list(schedule.delays) != sorted(schedule.delays):
        table.fault("delays", "must grow when they are measured from the first attempt", "sort them")
    table.close()
    return schedule


def _rule(table: Table) -> Rule:
    """What counts as a yes."""
    rule = Rule(
        statuses=frozenset(table.read("statuses", (200,), http_statuses)),
        field=table.read("field", (), json_path),
        values=table.read("values", (), json_values),
        numeric=table.read("numeric", (), json_path),
        coerce=table.boolean("coerce_code", default=False),
        extra=frozenset(table.read("extra_success_codes", (), codes)),
        final=frozenset(table.read("final_codes", (), codes)),
    )
    if rule.field and not rule.values and not rule.extra and not table.faulty("values"):
        table.fault("values", "is missing, so that no answer could count as a yes", 'write e.g. values = ["0000"]')
    if not rule.field and not table.faulty("field") and (rule.values or rule.coerce or rule.extra or rule.final):
        table.fault("field", "is missing, so that the codes are read from nowhere", 'write e.g. field = "code"')
    table.close()
    return rule


def _who_encrypts(taken: Mapping[str, Terms]) -> str | None:
    """What needs a key, in words; None where nothing does."""
    for kind, terms in taken.items():
        if PROTOCOLS[kind].encrypts:
            return kind
        if terms.auth is Auth.MINTED:
            return f'auth = "{Auth.MINTED}"'
    return None


def _reading(operator: Table, preset: Mapping[str, Any], needed_by: str | None) -> CryptoReading | None:
    table = operator.table("crypto", preset.get("crypto"))
    key_text, iv_text = table.secret("key"), table.secret("iv")
    encoding = table.choice_or_none("key_encoding", KeyEncoding)
    cipher = table.choice("cipher", CipherName.AES_128_CBC)
    iv_mode = table.choice("iv_mode", IvMode.FIXED)
    iv_encoding = table.choice("iv_encoding", IvEncoding.UTF8)
    padding, output = table.choice("padding", Padding.PKCS7), table.choice("output", Output.BASE64)
    table.close()
    if key_text is None:
        if needed_by is not None and not table.faulty("key"):
            table.fault("key", f"is missing, and {needed_by} needs it", "write key, key_env or key_file")
        return None
    if table.faulty("iv"):
        return None
    where = "key"
    try:
        key = read_key(key_text.reveal(), encoding, cipher)
        where = "iv"
        iv = read_iv(iv_text.reveal() if iv_text else None, iv_mode, iv_encoding, key)
    except Unfit as unfit:
        table.fault(where, unfit.fault, unfit.mend)
        return None
    spelling = Spelling(encoding or encoding_of(key_text.reveal(), key), iv_mode, iv_encoding)
    return CryptoReading(cipher, key, iv, padding, output, spelling)


def _breaker(operator: Table) -> Breaker | None:
    given = operator.has("breaker")
    table = operator.table("breaker")
    breaker = Breaker(table.integer("failures", 20, 1, 1_000_000), table.duration("probe", 30 * SECOND, SECOND))
    table.close()
    return breaker if given else None


def _ordering(operator: Table) -> Ordering | None:
    given = operator.has("ordering")
    table = operator.table("ordering")
    key, dead = table.choice_or_none("key", OrderingKey), table.choice("dead", WhenDead.BLOCK)
    if given and key is None and not table.faulty("key"):
        table.fault("key", "is missing", f"write {choices(OrderingKey)}")
    table.close()
    return Ordering(key, dead) if key is not None else None


def _check_order(operator: Table, ordering: Ordering | None, taken: Mapping[str, Terms]) -> None:
    """Whether anything that the operator takes has what it is to be ordered by."""
    if ordering is None or ordering.key is OrderingKey.UID:
        return
    without = [kind for kind in taken if all(field.name != ordering.key for field in PROTOCOLS[kind].fields)]
    if taken and len(without) == len(taken):
        told = f"is {ordering.key}, which {listed(without)} does not have: nothing would be in order"
        operator.fault("ordering.key", told, f'write "{OrderingKey.UID}"')
    for kind in without if len(without) < len(taken) else ():
        operator.warn("ordering.key", f"is {ordering.key}, which {kind} does not have", f"{kind} goes out unordered")


def _preset(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, str) or value not in PRESETS:
        raise Unfit(f"{shown(value)} is not known", f"write {choices(PRESETS)}")
    return PRESETS[value]
