"""What one setting may be: readers of single values, each raising Unfit with what to write instead. Pure."""

import base64
import os
import re
from errno import ENAMETOOLONG
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dispatcher.ground.clock import HOUR, LONGEST, parse_duration
from dispatcher.ground.egress import Network, loopback_of, may_call, parse_address
from dispatcher.ground.errors import Unfit
from dispatcher.ground.fields import shown
from dispatcher.ground.place import Place, Server
from dispatcher.ground.secret import Secret

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_TEXT = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
_MAX_HEADER_CHARACTERS = 4_096
_WEBHOOK_PREFIX = "whsec_"
_POSTGRESQL = "postgresql+psycopg://"
# As libpq, and so nearly everybody's environment, writes it: which driver, it does not say.
_LIBPQ = ("postgresql://", "postgres://")
# Longer ones are read by some and not by others; our own client's limit is 64 KiB.
_MAX_URL_CHARACTERS = 4_096
_NUMERIC = re.compile(r"(0[xX][0-9A-Fa-f]*|[0-9]+)")

_OF_THE_CONNECTION = "belongs to the connection, which is the dispatcher's"
_OF_THE_BODY = "is set by the dispatcher from what it sends"
_OF_THE_SIGNATURE = "is set by the signature"
# By name in small letters: why nobody may set it. With two lengths or framings two readers would see two requests.
_OWN_HEADERS = {
    "host": "is set from the URL",
    "content-length": _OF_THE_BODY,
    "content-type": _OF_THE_BODY,
    "transfer-encoding": _OF_THE_BODY,
    "connection": _OF_THE_CONNECTION,
    "keep-alive": _OF_THE_CONNECTION,
    "te": _OF_THE_CONNECTION,
    "trailer": _OF_THE_CONNECTION,
    "upgrade": _OF_THE_CONNECTION,
    "expect": "makes the operator answer before it has the request",
    "user-agent": "is always the dispatcher's own",
    "accept": "is always */*",
    "accept-encoding": "would have answers packed, and none is unpacked",
    "webhook-id": _OF_THE_SIGNATURE,
    "webhook-timestamp": _OF_THE_SIGNATURE,
    "webhook-signature": _OF_THE_SIGNATURE,
}


def json_path(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str) or not all(value.split(".")):
        raise Unfit(f"{shown(value)} is not the path of a JSON field", 'write e.g. "code" or "data.result"')
    return tuple(value.split("."))


def http_statuses(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(one) is int and 200 <= one < 600 for one in value):
        raise Unfit(f"{shown(value)} is not a list of HTTP statuses", "write e.g. [200]")
    return tuple(value)


def json_values(value: Any) -> tuple[object, ...]:
    if not isinstance(value, list) or not all(type(one) in (str, int, bool) for one in value):
        raise Unfit(f"{shown(value)} is not a list of texts, whole numbers or booleans", 'write e.g. ["0000"]')
    if large := [one for one in value if type(one) is int and not -(2**63) <= one < 2**63]:
        raise Unfit(f"has {shown(large[0])}, which does not fit 64 bits", "write a smaller number, or text")
    return tuple(value)


def _texts(value: Any, what: str, mend: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unfit(f"{shown(value)} is not a list of {what}", mend)
    return value


def codes(value: Any) -> tuple[str, ...]:
    return tuple(_texts(value, "texts", 'write e.g. ["1005"]'))


def delays(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        raise Unfit(f"{shown(value)} is not a list of durations", 'put it in a list, like ["1m", "30m", "50m"]')
    for one in value if isinstance(value, list) else ():
        if not isinstance(one, str):
            mend = f'write "{shown(one)}s"' if type(one) is int else 'write it in quotes, like "1m"'
            raise Unfit(f"{shown(one)} is not a duration", mend)
    return tuple(parse_duration(one) for one in _texts(value, "durations", 'write e.g. ["1m", "30m", "50m"]'))


def networks(value: Any) -> tuple[Network, ...]:
    texts = _texts(value, "networks", 'write CIDRs, like ["127.0.0.0/8"]')
    try:
        return tuple(ip_network(one) for one in texts)
    except ValueError:
        raise Unfit("has something that is not a network", 'write CIDRs, like "10.1.0.0/16"') from None


def _has_password(value: Any) -> bool:
    return isinstance(value, str) and "@" in value


def place(value: Any, folder: Path) -> Place:
    """A file below `folder`, or a server. What is refused is not shown where a password could be in it."""
    if isinstance(value, str) and value.startswith("postgres"):
        return _server(value)
    if not isinstance(value, str) or not value.startswith("sqlite:///") or value == "sqlite:///":
        raise Unfit(
            f"{shown(value) if not _has_password(value) else 'it'} is not the address of a database",
            'write "sqlite:///dispatcher.db" or "postgresql://user@host/db"',
        )
    try:
        # Resolved, since the worker's lock stands beside the file: one file, one lock, whatever leads to it.
        file = (folder / value.removeprefix("sqlite:///")).resolve()
        # Of those beside it, this has the longest name.
        os.lstat(f"{file}-journal")
    except ValueError:
        raise Unfit("has a NUL in its path", "name a file without") from None
    except OSError as error:
        if error.errno == ENAMETOOLONG:
            raise Unfit("has a path that is too long", "name a file with a shorter one") from None
    return file


def _server(value: str) -> Server:
    """However it is written, one place has one URL: that with the driver."""
    mend = 'write it like "postgresql://user@host/db"'
    for scheme in _LIBPQ:
        if value.startswith(scheme):
            value = _POSTGRESQL + value.removeprefix(scheme)
    if not value.startswith(_POSTGRESQL):
        raise Unfit("has another driver than psycopg", mend)
    if not value.isascii() or not value.isprintable() or " " in value or "#" in value:
        raise Unfit("has characters that a URL can't carry", "write them as %XX, a blank as %20")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Unfit("is not a URL", mend) from None
    if parts.netloc.count("@") > 1:
        # Who reads it from the left takes a part of the password for the host, and names that in an error.
        raise Unfit("has more than one @ before its host", "write those in the password as %40")
    name = parts.path.removeprefix("/")
    if not name or "/" in name:
        raise Unfit("does not name one database", mend)
    at = f"[{host}]" if host and ":" in host else host or ""
    user = f"{parts.username}@" if parts.username else ""
    shown_hosts = _hosts(parts.query) if host is None else f"{at}{f':{port}' if port else ''}"
    return Server(Secret(value), f"postgresql://{user}{shown_hosts}/{name}")


def _hosts(query: str) -> str:
    """The servers that stand behind the `?`, as libpq tries them; a socket's folder is no host."""
    given = parse_qs(query).get("host", [])
    return "" if any(one.startswith("/") for one in given) else ",".join(given)


def kept_for(value: Any) -> int | None:
    """How long something is kept (µs); None for `"never"`, which deletes nothing."""
    if value == "never":
        return None
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is not a duration", 'write it like "30d", or "never" to keep everything')
    length = parse_duration(value, longest=100 * LONGEST)
    if length < HOUR:
        raise Unfit(f"{shown(value)} is too short", 'write "1h" or longer, or "never" to keep everything')
    return length


def address_and_port(value: Any) -> tuple[str, int] | None:
    if value == "":
        return None
    return listen_address(value, 'write e.g. "127.0.0.1:8080", or "" to turn it off')


def listen_address(value: Any, mend: str) -> tuple[str, int]:
    """`HOST:PORT` of this machine; a host that no resolver could be asked for is refused as well."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    host = host.strip("[]")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535 or not (parse_address(host) or _HOST.fullmatch(host)):
        raise Unfit(f"{shown(value)} is not an address and a port", mend)
    return host, int(port)


def operator_url(value: Any, allow: tuple[Network, ...]) -> str:
    """An http(s) URL that means the same to every reader of URLs, and no address that may not be called."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise Unfit("is not a URL in plain ASCII", 'write it like "https://operator.example/Demo/notice"')
    if len(value) > _MAX_URL_CHARACTERS:
        raise Unfit(f"has {len(value)} characters", f"write at most {_MAX_URL_CHARACTERS}")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Unfit("is not a URL", 'write it like "https://operator.example/Demo/notice"') from None
    if parts.scheme not in ("http", "https"):
        told = f"has the scheme {shown(parts.scheme)}" if parts.scheme else "has no scheme"
        raise Unfit(told, "write https://…")
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
    meant = [address] if address is not None else loopback_of(host)
    if meant and not any(may_call(one, allow) for one in meant):
        raise Unfit(
            f"{host if address is None else address} is not on the public internet",
            f'if it is meant, add it to egress.allow, like ["{meant[0]}"]',
        )
    return value


def is_open(url: str) -> bool:
    """Whether whatever is sent there can be read on its way: plain http, and not to this machine itself."""
    parts = urlsplit(url)
    address = parse_address(parts.hostname or "")
    meant = [address] if address is not None else loopback_of(parts.hostname or "")
    return parts.scheme == "http" and not (meant and all(one.is_loopback for one in meant))


def header_name(name: str) -> str:
    """A header that an operator may be sent beside ours: a token of RFC 9110, section 5.6.2."""
    if not _TOKEN.fullmatch(name):
        raise Unfit(f"{shown(name)} is not the name of a header", 'write letters, digits and hyphens, like "X-Api-Key"')
    small = name.lower()
    why = "is meant for proxies, and none is used" if small.startswith("proxy-") else _OWN_HEADERS.get(small)
    if why is not None:
        raise Unfit(f"{name} {why}", "leave it out")
    return name


def header_value(text: str) -> str:
    """What may stand in one line of a header. The text is a secret: the fault says what it has, never the text."""
    if len(text) > _MAX_HEADER_CHARACTERS:
        raise Unfit(f"has {len(text)} characters", f"write at most {_MAX_HEADER_CHARACTERS}")
    if not text:
        raise Unfit("is empty", "write the header's value, or leave the header out")
    if _HEADER_TEXT.fullmatch(text):
        return text
    if any(sign in text for sign in "\r\n\0"):
        raise Unfit("has a line break or NUL in it", "write it in one line")
    if text.strip(" \t") != text:
        raise Unfit("begins or ends with a blank", "take it away")
    raise Unfit("has characters that a header can't carry", "write visible ASCII characters, blanks and tabs only")


def webhook_secret(text: str) -> str:
    """A secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64. The fault never shows it."""
    webhook_key(text)
    return text


def webhook_key(text: str) -> bytes:
    """The bytes that such a secret stands for, the key of the HMAC. Raises Unfit."""
    mend = f"write {_WEBHOOK_PREFIX} and the base64 of 24 to 64 random bytes, as the operator gave it to you"
    if not text.startswith(_WEBHOOK_PREFIX):
        raise Unfit(f"does not begin with {_WEBHOOK_PREFIX}", mend)
    try:
        key = base64.b64decode(text.removeprefix(_WEBHOOK_PREFIX), validate=True)
    except ValueError:
        raise Unfit(f"is not base64 after {_WEBHOOK_PREFIX}", mend) from None
    if not 24 <= len(key) <= 64:
        raise Unfit(f"stands for {len(key)} bytes", mend)
    return key
