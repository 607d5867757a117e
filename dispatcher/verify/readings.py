"""Every reading of a key's and an IV's text that the contract names, and the settings that say it. Pure."""

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import TypeVar

from dispatcher.ground.crypto import (
    BLOCK,
    CipherName,
    CryptoReading,
    IvEncoding,
    IvMode,
    KeyEncoding,
    Output,
    Padding,
    Spelling,
    read_text,
)
from dispatcher.ground.presets import PRESETS
from dispatcher.verify.plaintext import readable

E = TypeVar("E", KeyEncoding, IvEncoding)

# Where nothing says how an operator's key and IV are written.
_UNKNOWN = Spelling(KeyEncoding.UTF8)
_MANNERS = {"utf8": "text", "utf8_first16": "text", "hex": "hex", "base64": "base64"}
_DEFAULTS = {"iv_mode": "fixed", "iv_encoding": "utf8", "padding": "pkcs7", "output": "base64"}
_ALPHABETS = {
    Output.BASE64: re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII),
    Output.BASE64URL: re.compile(r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?", re.ASCII),
    Output.HEX: re.compile(r"(?:[0-9A-Fa-f]{2})*", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class Material:
    """A key and an IV as text; several texts where only the bytes are known, none where there is no IV.

    `own` is what an operator's configuration makes of them.
    """

    keys: tuple[str, ...] = field(repr=False)
    ivs: tuple[str, ...] = field(repr=False)
    own: CryptoReading | None = None

    def key_bytes(self) -> list[tuple[KeyEncoding, bytes]]:
        return _candidates(self.keys, list(KeyEncoding))

    def iv_bytes(self) -> list[tuple[IvEncoding, bytes]]:
        return _candidates(self.ivs, list(IvEncoding))


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a key and an IV. `iv_encoding` is None where the mode takes no text, `iv` in random_prefix."""

    key_encoding: KeyEncoding
    cipher: CipherName
    iv_mode: IvMode
    iv_encoding: IvEncoding | None
    padding: Padding
    output: Output
    key: bytes = field(repr=False)
    iv: bytes | None = field(repr=False)

    def crypto(self) -> CryptoReading:
        return CryptoReading(self.cipher, self.key, self.iv, self.padding, self.output)

    def settings(self) -> dict[str, str | None]:
        """By their names in the configuration."""
        names = ("key_encoding", "cipher", "iv_mode", "iv_encoding", "padding", "output")
        return {name: getattr(self, name) and str(getattr(self, name)) for name in names}

    def toml(self) -> str:
        """The settings as they are written into the configuration, without the key and the IV."""
        return (
            "crypto = { " + ", ".join(f'{name} = "{value}"' for name, value in self.settings().items() if value) + " }"
        )


def from_operator(own: CryptoReading) -> Material:
    """What an operator's key and IV may have been written as: only their bytes are known."""
    made_up = own.iv in (None, bytes(BLOCK), own.key[:BLOCK])
    spelling = own.spelling or _UNKNOWN
    keys = _written(own.key, spelling.key)
    return Material(tuple(keys), () if own.iv is None or made_up else tuple(_written(own.iv, spelling.iv)), own)


def rewritten(material: Material, reading: Reading) -> dict[str, str]:
    """Which texts behind a reading are not those that the operator's settings have, and how they are written instead.

    For "key" and "iv", as far as they are rewritten; never a text itself. Where key and IV were given, they stand as
    they are.
    """
    own, told = material.own, {}
    if own is None:
        return {}
    spelling = own.spelling or _UNKNOWN
    if (reading.key_encoding, reading.key) != (spelling.key, own.key):
        told["key"] = _manner(_written(own.key, spelling.key), reading.key_encoding, reading.key)
    if own.iv is not None and reading.iv_encoding and (reading.iv_encoding, reading.iv) != (spelling.iv, own.iv):
        told["iv"] = _manner(_written(own.iv, spelling.iv), reading.iv_encoding, reading.iv)
    return {name: manner for name, manner in told.items() if manner}


def readings(material: Material) -> list[Reading]:
    """All that fit a cipher and an IV, the operator's own first."""
    ciphers = {cipher.key_size: cipher for cipher in CipherName}
    keys = [(encoding, key) for encoding, key in material.key_bytes() if len(key) in ciphers]
    found = [
        Reading(key_encoding, ciphers[len(key)], mode, iv_encoding, padding, output, key, iv)
        for key_encoding, key in keys
        for mode, iv_encoding, iv in ivs(material, key)
        for padding, output in product(Padding, Output)
    ]
    # What gives the operator's own bytes comes first; of that, how it writes them itself.
    found.sort(key=lambda one: len(rewritten(material, one)) if one.crypto() == material.own else 3)
    return found


def ivs(material: Material, key: bytes) -> Iterator[tuple[IvMode, IvEncoding | None, bytes | None]]:
    """The IVs that the contract knows: those of the text that have 16 bytes, and those that need none."""
    for encoding, iv in material.iv_bytes():
        if len(iv) == BLOCK:
            yield IvMode.FIXED, encoding, iv
    yield IvMode.ZERO, None, bytes(BLOCK)
    yield IvMode.KEY_FIRST16, None, key[:BLOCK]
    yield IvMode.RANDOM_PREFIX, None, None


def decode(text: str, output: Output) -> bytes | None:
    """The bytes of a text in exactly this alphabet: stricter than Seal, so that one text has few readings."""
    if not _ALPHABETS[output].fullmatch(text):
        return None
    if output is Output.HEX:
        return bytes.fromhex(text)
    return read_text(_as_standard(text), KeyEncoding.BASE64)


def presets_for(reading: Reading) -> list[str]:
    """The presets that say the same, or the same but for the key's encoding, of which they say nothing."""
    told = {name: value for name, value in reading.settings().items() if value}
    found = []
    for name, preset in PRESETS.items():
        crypto = preset.get("crypto", {})
        wanted = {**_DEFAULTS, "key_encoding": told["key_encoding"], **crypto}
        if crypto and told == wanted:
            found.append(name)
    return found


def sizes(text: str, encodings: Iterable[KeyEncoding | IvEncoding]) -> dict[str, int | None]:
    """How many bytes each encoding of a key or an IV gives; None where it can't read the text."""
    given = {encoding: read_text(text, encoding) for encoding in encodings}
    return {str(encoding): None if raw is None else len(raw) for encoding, raw in given.items()}


def ciphertext_sizes(text: str) -> dict[str, int | None]:
    given = {output: decode(text, output) for output in Output}
    return {str(output): None if raw is None else len(raw) for output, raw in given.items()}


def key_text_size(material: Material, reading: Reading) -> int:
    """How many bytes the text has that gives a reading's key."""
    texts = (text for text in material.keys if read_text(text, reading.key_encoding) == reading.key)
    return len(next(texts).encode())


def _manner(written: dict[str, str], encoding: KeyEncoding | IvEncoding, raw: bytes | None) -> str:
    """How the first text is written that gives these bytes; empty where it is the configured one."""
    return next(manner for text, manner in written.items() if read_text(text, encoding) == raw)


def _as_standard(text: str) -> str:
    return text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)


def _candidates(texts: tuple[str, ...], encodings: list[E]) -> list[tuple[E, bytes]]:
    given = [(encoding, read_text(text, encoding)) for text in texts if text for encoding in encodings]
    return list(dict.fromkeys((encoding, raw) for encoding, raw in given if raw is not None))


def _written(raw: bytes, spelled: KeyEncoding | IvEncoding) -> dict[str, str]:
    """The bytes as text where they are one, in hex and in base64: each with how it is written, the configured first.

    That one has no manner, unless its very text can't be known: the case of its hex digits, what was cut off.
    """
    hexed, text = raw.hex(), readable(raw)
    manners = {hexed: "hex", base64.b64encode(raw).decode("ascii"): "base64"}
    if text is not None:
        manners = {text: "text", **manners}
    own = next((one for one, manner in manners.items() if manner == _MANNERS[spelled]), None)
    if own is None:
        return manners
    if spelled is KeyEncoding.UTF8_FIRST16:
        itself = "its first 16 characters"
    elif own == hexed and not hexed.isdecimal():
        itself = "hex in small letters"
    else:
        itself = ""
    return {own: itself, **{one: manner for one, manner in manners.items() if one != own}}
