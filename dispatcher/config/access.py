"""How requests prove themselves to one operator: token, minted token, OAuth2, headers, signature, certificates."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypedDict

from dispatcher.ground.egress import Network
from dispatcher.ground.errors import Unfit, choices
from dispatcher.ground.fields import bearer_token, integer, opaque, shown
from dispatcher.ground.operator import Auth, ClientAuth, Mint, OAuth, Signing, TimeUnit, Tls
from dispatcher.ground.readers import header_name, header_value, is_open, operator_url, webhook_secret
from dispatcher.ground.secret import Secret
from dispatcher.ground.settings import Table
from dispatcher.protocols import PROTOCOLS
from dispatcher.tls import tls_context

_NEEDS = {Auth.BEARER: "token", Auth.MINTED: "mint", Auth.OAUTH2: "oauth"}
_FORMS = re.compile(r"(_env|_file)+\Z")
_NO_TLS = Tls(None, None, None)
_number = integer(-(2**63), 2**63 - 1, "a whole number that fits 64 bits")


class Access(TypedDict):
    """These fields of `Operator`."""

    token: Secret | None
    mint: Mint | None
    oauth: OAuth | None
    headers: Mapping[str, Secret]
    signing: Signing | None
    tls: Tls | None


def read_auth(table: Table, default: Auth) -> Auth:
    return table.choice("auth", default)


def read_access(table: Table, auths: Collection[Auth], allow: tuple[Network, ...]) -> Access:
    """`auths`: those that its message types use."""
    return Access(
        token=_fit(table, "token", bearer_token),
        mint=_mint(table),
        oauth=_oauth(table, allow),
        headers=_headers(table, auths),
        signing=_signing(table),
        tls=_tls(table),
    )


def check_access(table: Table, auths: Collection[Auth], token: Secret | None) -> None:
    """What its message types use must be there, and nothing that none uses."""
    # An auth that nobody knows says nothing of what it needs.
    if any(table.faulty(key) for key in ("auth", *(f"{kind}.auth" for kind in PROTOCOLS))):
        return
    given = {Auth.BEARER: token is not None, Auth.MINTED: "mint" in table.raw, Auth.OAUTH2: "oauth" in table.raw}
    for auth, key in _NEEDS.items():
        if auth in auths and not given[auth] and not table.faulty(key):
            also = f"{key}, {key}_env or {key}_file" if auth is Auth.BEARER else f"[{table.at(key)}]"
            table.fault(key, f'is missing, and auth = "{auth}" needs it', f'write {also}, or auth = "none"')
        if auth not in auths and given[auth] and auths:
            used = choices(sorted(auths))
            table.fault(
                _written(table, key), f"is given, and auth = {used} uses none", f'remove it, or write auth = "{auth}"'
            )


def _below(operator: Table, key: str) -> tuple[Table, bool]:
    """The table below `key`, and whether it is given: what is no table is told as that alone."""
    table = operator.table(key)
    return table, isinstance(operator.raw.get(key), Mapping)


def _written(table: Table, key: str) -> str:
    """The key as it is written: itself, or with `_env` or `_file` behind it."""
    return next((name for name in (key, f"{key}_env", f"{key}_file") if name in table.raw), key)


def _fit(table: Table, key: str, reader: Callable[[str], object]) -> Secret | None:
    """A secret that `reader` passes; its fault never shows it."""
    secret = table.secret(key)
    if secret is None:
        return None
    try:
        reader(secret.reveal())
    except Unfit as unfit:
        table.fault(_written(table, key), unfit.fault, unfit.mend)
        return None
    return secret


def _filled(longest: int) -> Callable[[Any], str]:
    read_text = opaque(longest)

    def read(value: Any) -> str:
        if value == "":
            raise Unfit("is empty", "write it as the operator gave it to you")
        return read_text(value)

    return read


def _mint(operator: Table) -> Mint | None:
    table, given = _below(operator, "mint")
    account = table.read("account", None, _filled(255))
    mint = Mint(
        account=account or "",
        username=table.read("username", None, opaque(255)),
        wallet=table.read("wallet", "", _wallet),
        time_unit=table.choice("time_unit", TimeUnit.SECONDS),
    )
    if given and account is None and not table.faulty("account"):
        table.fault("account", "is missing", "write the account that the operator gave you")
    table.close()
    return mint if given else None


def _wallet(value: Any) -> str | int:
    if type(value) is int:
        return _number(value)
    if type(value) is not str:
        raise Unfit(f"{shown(value)} is neither text nor a whole number", 'write e.g. "main" or 1')
    return opaque(255)(value)


def _oauth(operator: Table, allow: tuple[Network, ...]) -> OAuth | None:
    table, given = _below(operator, "oauth")
    url = table.read("token_url", None, lambda value: operator_url(value, allow))
    client_id, secret = table.read("client_id", None, _filled(255)), table.secret("client_secret")
    scope = table.read("scope", None, _filled(1024))
    client_auth = table.choice("client_auth", ClientAuth.BASIC)
    for key, value in (("token_url", url), ("client_id", client_id), ("client_secret", secret)):
        if given and not value and not table.faulty(key):
            table.fault(key, "is missing", f"write {key} as the operator's token endpoint wants it")
    if url is not None and is_open(url):
        table.warn("token_url", "is plain http: the client secret travels unencrypted", "use https outside of tests")
    table.close()
    if not (given and url and client_id and secret):
        return None
    return OAuth(url, client_id, secret, scope, client_auth)


def _headers(operator: Table, auths: Collection[Auth]) -> Mapping[str, Secret]:
    """Values are secrets, like `token`: `"X-Api-Key"`, `"X-Api-Key_env"` or `"X-Api-Key_file"`."""
    table = operator.table("headers")
    headers: dict[str, Secret] = {}
    # With both endings taken off, a header of such a name is not known: kept under it, it would be read as another's.
    names = dict.fromkeys(_FORMS.sub("", name) for name in table.names())
    for name in names:
        try:
            header_name(name)
        except Unfit as unfit:
            table.fault(_written(table, name), unfit.fault, unfit.mend)
        if name.lower() == "authorization" and set(auths) - {Auth.NONE}:
            table.fault(_written(table, name), "is what auth sets", 'keep one of them, or write auth = "none"')
        value = _fit(table, name, header_value)
        if value is not None:
            headers[name] = value
    if len({name.lower() for name in names}) < len(names):
        table.fault("", "has a header twice, in different letters", "keep one of them")
    table.close()
    return headers


def _signing(operator: Table) -> Signing | None:
    table, given = _below(operator, "signature")
    found = [_fit(table, key, webhook_secret) for key in ("secret", "previous_secret")]
    if given and found[0] is None and not table.faulty("secret"):
        table.fault("secret", "is missing", 'write secret, secret_env or secret_file: "whsec_…"')
    table.close()
    return Signing(tuple(secret for secret in found if secret is not None)) if found[0] else None


def _tls(operator: Table) -> Tls | None:
    table, written = _below(operator, "tls")
    tls = Tls(table.secret("ca", private=False), table.secret("certificate", private=False), table.secret("key"))
    table.close()
    if not written:
        return None
    if (tls.certificate is None) != (tls.key is None):
        missing = "certificate" if tls.certificate is None else "key"
        if not table.faulty(missing):
            table.fault(missing, "is missing", "write both certificate and key (or …_file), or neither")
        return None
    # With a CA that is fit the system's are not read, which would cost more than all the rest of a configuration.
    fit = tls.ca if _is_fit(table, "ca", Tls(tls.ca, None, None)) else None
    _is_fit(table, "", Tls(fit, tls.certificate, tls.key))
    return tls


def _is_fit(table: Table, key: str, part: Tls) -> bool:
    try:
        if part != _NO_TLS:
            tls_context(part)
    except Unfit as unfit:
        table.fault(_written(table, key), unfit.fault, unfit.mend)
        return False
    return True
