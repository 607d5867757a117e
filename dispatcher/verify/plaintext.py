"""Whether what came out of a cipher is a text that somebody put in, or looks decrypted by luck. Pure.

CBC under a wrong IV garbles the first 16 bytes only, zero padding can always be taken off, and PKCS#7 is right by
luck once in 256. So nothing counts as decrypted that can't be read as well.
"""

import json
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from dispatcher.ground.crypto import BLOCK, Padding


class Worth(IntEnum):
    """How much a plaintext speaks for its reading, least first. From TEXT on it counts as decrypted."""

    NOTHING = 0
    PADDING = 1
    TAIL = 2
    TEXT = 3
    JSON = 4


class Opened(NamedTuple):
    """What came out. `text` is the whole plaintext from TEXT on, what follows byte 16 for TAIL, else None."""

    worth: Worth
    text: str | None
    note: str


WRONG_PADDING = "the padding is wrong: another key, cipher or padding"
WRONG_IV = "key is right, IV is wrong: text from byte 16 on"
NO_TEXT = "gives no readable text, and zero padding proves nothing"
BY_LUCK = "only the padding is right, which happens by luck once in 256: no readable text"
TWICE = "padded twice: under the padding is more padding"
NOT_ZERO = "what ends it is PKCS#7 padding, not zeros"
IS_JSON = "a JSON object: this is it"
WRONG_START = "key is right, IV is wrong: it ends as a JSON object and does not begin as one"
IS_TEXT = "printable text, though no JSON object"


def weigh(padded: bytes, padding: Padding) -> Opened:
    """What whole decrypted blocks are worth, padding and all."""
    return _weigh_pkcs7(padded) if padding is Padding.PKCS7 else _weigh_zero(padded)


def strip_pkcs7(padded: bytes) -> bytes | None:
    """Without its PKCS#7 padding; None where it has none."""
    count = padded[-1] if padded else 0
    whole = len(padded) % BLOCK == 0 and 1 <= count <= BLOCK and padded.endswith(bytes([count]) * count)
    return padded[:-count] if whole else None


def readable(raw: bytes, charset: str = "utf-8") -> str | None:
    """The text, where it is one that people write: printable characters and line ends."""
    try:
        text = raw.decode(charset)
    except UnicodeDecodeError:
        return None
    return text if all(sign.isprintable() or sign in "\r\n\t" for sign in text) else None


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; numbers stay text."""
    try:
        value = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def told_text(text: str) -> Opened:
    """A whole text, ranked. An IV that is wrong by a few bits leaves every sign printable."""
    if json_object(text) is not None:
        return Opened(Worth.JSON, text, IS_JSON)
    raw = text.encode()
    if len(raw) > BLOCK and text.rstrip().endswith("}") and not text.lstrip().startswith("{"):
        return Opened(Worth.TAIL, raw[BLOCK:].decode(errors="ignore"), WRONG_START)
    return Opened(Worth.TEXT, text, "; ".join([IS_TEXT, *_oddities(text)]))


def _oddities(text: str) -> Iterator[str]:
    if not text:
        yield "it is empty"
    if text.lstrip().startswith("{") and text.rstrip().endswith("}"):
        yield "it begins and ends as one, so compare the IV sign by sign"
    try:
        inner = json.loads(text) if text[:1] == text[-1:] == '"' else None
    except ValueError:
        inner = None
    if isinstance(inner, str) and json_object(inner) is not None:
        yield "it is a JSON string that holds a JSON object: encoded twice"


def _weigh_pkcs7(padded: bytes) -> Opened:
    body = strip_pkcs7(padded)
    if body is None:
        return Opened(Worth.NOTHING, None, WRONG_PADDING)
    if strip_pkcs7(body) is not None:
        return Opened(Worth.PADDING, None, TWICE)
    text = readable(body)
    if text is not None:
        return told_text(text)
    tail = _tail(body) if len(padded) > BLOCK else None
    return Opened(Worth.PADDING, None, BY_LUCK) if tail is None else Opened(Worth.TAIL, tail, WRONG_IV)


def _weigh_zero(padded: bytes) -> Opened:
    if strip_pkcs7(padded) is not None:
        return Opened(Worth.NOTHING, None, NOT_ZERO)
    body = padded.rstrip(b"\0")
    if len(padded) - len(body) >= BLOCK:
        return Opened(Worth.NOTHING, None, NO_TEXT)
    text = readable(body)
    if text is not None:
        return told_text(text)
    tail = _tail(body)
    return Opened(Worth.TAIL, tail, WRONG_IV) if tail else Opened(Worth.NOTHING, None, NO_TEXT)


def _tail(body: bytes) -> str | None:
    """What follows the first block; a character that the block's end cut in two is left out."""
    rest = body[BLOCK:]
    cut = next((n for n, byte in enumerate(rest[:4]) if byte & 0xC0 != 0x80), min(len(rest), 4))
    return readable(rest[cut:]) if cut < 4 else None
