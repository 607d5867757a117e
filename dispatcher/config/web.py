"""What is served over HTTP, where, to whom: the table [web]."""

import re
import ssl
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from typing import Any

from dispatcher.ground.egress import Network
from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import shown
from dispatcher.ground.readers import address_and_port, networks
from dispatcher.ground.secret import Secret
from dispatcher.ground.settings import Table
from dispatcher.tls import server_context

MOST_A_SECOND = 1_000_000
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]{1,255}(/[A-Za-z0-9._~/-]{0,200})?", re.ASCII)


class Metrics(StrEnum):
    """Who may see /metrics: whoever reaches the address, whoever shows an API key that may read, or nobody."""

    OPEN = "open"
    KEY = "key"
    OFF = "off"


@dataclass(frozen=True)
class Web:
    """`listen`: address and port, None for nowhere. `rate`: requests a second of a key that has no rate of its own.

    `proxies`: whose word is taken for where a request comes from. `url`: under which
    people find it. Certificate and key are PEM; both or neither.
    """

    listen: tuple[str, int] | None
    certificate: Secret | None = None
    key: Secret | None = None
    proxies: tuple[Network, ...] = ()
    rate: int = 2_000
    metrics: Metrics = Metrics.OPEN
    url: str | None = None

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        if self.certificate is None or self.key is None:
            return None
        return server_context(self.certificate, self.key)


def web_of(table: Table) -> Web:
    """Its faults are the table's; a listening that others could overhear is warned of."""
    listen, proxies = table.read("listen", ("127.0.0.1", 8080), address_and_port), table.read("proxies", (), networks)
    # Operators' names and rates are business: unless it is said, only this machine sees them without a key.
    ours_alone = listen is None or (_is_loopback(listen[0]) and not proxies)
    web = Web(
        listen=listen,
        certificate=table.secret("certificate", private=False),
        key=table.secret("key"),
        proxies=proxies,
        rate=table.integer("rate", 2_000, 1, MOST_A_SECOND),
        metrics=table.choice("metrics", Metrics.OPEN if ours_alone else Metrics.KEY),
        url=table.read("url", None, _public_url),
    )
    if web.metrics is Metrics.OPEN and not ours_alone:
        told = "is open, and others than this machine can see operators' names and rates"
        table.warn("metrics", told, 'write "key", and have Prometheus show an API key with the scope read')
    if (web.certificate is None) != (web.key is None):
        missing = "certificate" if web.certificate is None else "key"
        if not table.faulty(missing):
            table.fault(missing, "is missing", "write both certificate_file and key_file, or neither")
    try:
        encrypted = web.tls is not None
    except Unfit as unfit:
        encrypted = True
        table.fault("certificate", unfit.fault, unfit.mend)
    if web.listen is not None and not encrypted and not web.proxies and not _is_loopback(web.listen[0]):
        mend = "give certificate_file and key_file, or name the proxy that encrypts in proxies"
        table.warn("listen", f"{web.listen[0]} can be reached from elsewhere, and keys would pass unencrypted", mend)
    return web


def _public_url(value: Any) -> str:
    """Any http(s) URL without a secret in it: it is shown, and called by browsers, not by us."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise Unfit(
            f"{'it' if '@' in str(value) else shown(value)} is no URL of a server",
            'write e.g. "https://dispatcher.example"',
        )
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
