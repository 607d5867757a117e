"""What a key's and an IV's text mean: the readings of wire-contract.md, The cipher, in truth. Pure."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.ground.errors import Unfit, listed
from dispatcher.ground.secret import SecretBytes

BLOCK = 16


class KeyEncoding(StrEnum):
    UTF8 = "utf8"
    HEX = "hex"
    BASE64 = "base64"
    UTF8_FIRST16 = "utf8_first16"


class IvEncoding(StrEnum):
    UTF8 = "utf8"
    HEX = "hex"
    BASE64 = "base64"


class CipherName(StrEnum):
    AES_128_CBC = "aes-128-cbc"
    AES_192_CBC = "aes-192-cbc"
    AES_256_CBC = "aes-256-cbc"

    @property
    def key_size(self) -> int:
        """Bytes."""
        return int(self.split("-")[1]) // 8


class IvMode(StrEnum):
    FIXED = "fixed"
    ZERO = "zero"
    KEY_FIRST16 = "key_first16"
    RANDOM_PREFIX = "random_prefix"


class Padding(StrEnum):
    PKCS7 = "pkcs7"
    ZERO = "zero"


class Output(StrEnum):
    BASE64 = "base64"
    BASE64URL = "base64url"
    HEX = "hex"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How the operator writes its key and its IV: what its people must do with the texts to have the same bytes."""

    key: KeyEncoding
    iv_mode: IvMode = IvMode.FIXED
    iv: IvEncoding = IvEncoding.UTF8


@dataclass(frozen=True, slots=True)
class CryptoReading:
    """One operator's cipher with nothing left to interpret. `iv` is None where each message has its own.

    `spelling` is for people and changes no message; None where the bytes were not read from an operator's settings.
    """

    cipher: CipherName
    key: bytes = field(repr=False)
    iv: bytes | None = field(repr=False)
    padding: Padding = Padding.PKCS7
    output: Output = Output.BASE64
    spelling: Spelling | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        # So that nothing shows them which walks through the fields, like `asdict`.
        object.__setattr__(self, "key", SecretBytes(self.key))
        if self.iv is not None:
            object.__setattr__(self, "iv", SecretBytes(self.iv))

    @property
    def fingerprint(self) -> str:
        """Tells one key from the next; key versions are counted by it. Guesses can be tried against it: it is stored

        and shown only as the journal's key makes something of it (`Key.fingerprint`).
        """
        material = b"|".join(
            [self.cipher.encode(), self.key, self.iv or b"", self.padding.encode(), self.output.encode()]
        )
        return hashlib.blake2b(material, digest_size=8, person=b"key-fingerprint").hexdigest()


def read_text(text: str, encoding: KeyEncoding | IvEncoding) -> bytes | None:
    """The bytes that a text gives under one reading; None where it can't be read so."""
    try:
        match encoding:
            case KeyEncoding.UTF8 | IvEncoding.UTF8:
                return text.encode()
            case KeyEncoding.HEX | IvEncoding.HEX:
                return binascii.unhexlify(text)
            case KeyEncoding.BASE64 | IvEncoding.BASE64:
                return base64.b64decode(text, validate=True)
            case KeyEncoding.UTF8_FIRST16:
                return text.encode()[:BLOCK]
    except ValueError:
        return None


def _told(text: str) -> str:
    sizes = {encoding: read_text(text, encoding) for encoding in KeyEncoding}
    return ", ".join(
        f"{encoding} can't read it" if given is None else f"{encoding} gives {len(given)} bytes"
        for encoding, given in sizes.items()
    )


def _whole_text(text: str, size: int) -> list[str]:
    """The pair that takes every character as a byte: what running servers do where documents say AES-128."""
    length = len(text.encode())
    fitting = [cipher for cipher in CipherName if cipher.key_size == length != size]
    return [f'cipher = "{cipher}" with key_encoding = "utf8"' for cipher in fitting]


def read_key(text: str, encoding: KeyEncoding | None, cipher: CipherName) -> bytes:
    """The key's bytes. Raises Unfit, which says what every reading would give but never the key itself."""
    size = cipher.key_size
    if encoding is not None:
        key = read_text(text, encoding)
        if key is not None and len(key) == size:
            return key
        told = "can't be read so" if key is None else f"gives {len(key)} bytes"
        raise Unfit(
            f"as {encoding} it {told}, {cipher} needs {size} ({_told(text)})",
            "set key_encoding or cipher to the pair that the operator uses",
        )
    fitting = {e: key for e in KeyEncoding if (key := read_text(text, e)) is not None and len(key) == size}
    # Cutting a key short is never taken for granted: it is what one broken sample does.
    if len(set(fitting.values())) == 1 and next(iter(fitting)) != KeyEncoding.UTF8_FIRST16:
        return next(iter(fitting.values()))
    if fitting:
        choice = listed([f'key_encoding = "{encoding}"' for encoding in fitting] + _whole_text(text, size))
        raise Unfit(
            f"gives {size} bytes only when it is cut short ({_told(text)})"
            if len(fitting) == 1
            else f"can be read in {len(fitting)} ways that give the {size} bytes of {cipher} ({_told(text)})",
            f"ask the operator which one is meant and write {choice}",
        )
    raise Unfit(
        f"gives the {size} bytes of {cipher} in no reading ({_told(text)})",
        "set key_encoding and cipher to what the operator uses, or check that the key is whole",
    )


def encoding_of(text: str, key: bytes) -> KeyEncoding:
    """The first reading of the text that gives these bytes, which `read_key` made of it."""
    return next(encoding for encoding in KeyEncoding if read_text(text, encoding) == key)


def read_iv(text: str | None, mode: IvMode, encoding: IvEncoding, key: bytes) -> bytes | None:
    """The IV's bytes, or None for `random_prefix`. Raises Unfit."""
    if mode is not IvMode.FIXED:
        if text is not None:
            raise Unfit(f'is given, and iv_mode = "{mode}" uses none', 'remove it, or write iv_mode = "fixed"')
        return {IvMode.ZERO: bytes(BLOCK), IvMode.KEY_FIRST16: key[:BLOCK]}.get(mode)
    if text is None:
        raise Unfit('is missing, and iv_mode = "fixed" needs it', "write iv, iv_env or iv_file")
    iv = read_text(text, encoding)
    if iv is None or len(iv) != BLOCK:
        told = "can't be read so" if iv is None else f"gives {len(iv)} bytes"
        raise Unfit(
            f"as {encoding} it {told}, an IV has {BLOCK}",
            "set iv_encoding to utf8, hex or base64 as the operator means it, or check that the IV is whole",
        )
    return iv
