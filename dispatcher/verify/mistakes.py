"""Known mistakes, each undone and tried: which of them explains a ciphertext that no reading decrypts."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from dispatcher.ground.crypto import BLOCK, CipherName, IvMode, KeyEncoding, Output, Padding, read_text
from dispatcher.seal import decrypt_raw
from dispatcher.verify.foreign import Mistake, meant
from dispatcher.verify.keys import IV_MISTAKES, SIZES, Iv, Key, ivs_for, keys
from dispatcher.verify.plaintext import Opened, Worth, json_object, readable, strip_pkcs7, told_text, weigh
from dispatcher.verify.readings import Material, decode

MAX_FOUND = 3

PADDED_TWICE = Mistake(
    "padded twice",
    "padded twice: PHP code that pads by hand and leaves OpenSSL's padding on",
    "leave the padding by hand out, or pass OPENSSL_ZERO_PADDING (which turns OpenSSL's own off)",
)
OTHER_PADDING = Mistake(
    "another padding",
    "padded as ANSI X9.23 or ISO 10126: only the last byte counts, as .NET and Java can be told to",
    "use PKCS#7 (Java calls it PKCS5Padding)",
)
CHARSET = Mistake(
    "another charset",
    "the text is not UTF-8 but GB18030/GBK or UTF-16: getBytes() without a charset, Encoding.Unicode",
    "turn the text into UTF-8 bytes before encrypting (Java: getBytes(StandardCharsets.UTF_8))",
)
ECB = Mistake(
    "ECB",
    'encrypted as ECB, without an IV: Java\'s Cipher.getInstance("AES") means AES/ECB/PKCS5Padding',
    "name the mode: AES/CBC/PKCS5Padding in Java, aes-…-cbc in PHP",
)
PASSPHRASE = Mistake(
    "passphrase",
    "the key was taken for a passphrase: CryptoJS.AES.encrypt with a text as the key, Node's createCipher,"
    " or `openssl enc -k` derive key and IV from it",
    "hand over bytes (CryptoJS.enc.Utf8.parse(key) and an iv; createCipheriv; openssl enc -K and -iv)",
)


class Found(NamedTuple):
    """Mistakes that together explain a ciphertext. `plaintext` begins at byte 16 where `worth` is TAIL."""

    mistakes: tuple[Mistake, ...]
    worth: Worth
    plaintext: str
    key_encoding: KeyEncoding
    cipher: CipherName
    iv_mode: IvMode | None
    padding: Padding | None
    output: Output


class _Sent(NamedTuple):
    """A ciphertext's bytes as they may have been meant."""

    mistakes: tuple[Mistake, ...]
    output: Output
    raw: bytes


class _Blocks(NamedTuple):
    """Whole blocks as one key and IV decrypt them."""

    mistakes: tuple[Mistake, ...]
    key: Key
    iv_mode: IvMode | None
    padded: bytes


def find(material: Material, text: str) -> list[Found]:
    """What explains the text best, at most MAX_FOUND: JSON before text, fewer mistakes before more."""
    found: dict[tuple[Mistake, ...], Found] = {}
    for sent in _sent(text):
        for blocks in _decrypted(material, sent.raw):
            for one in _explained(sent, blocks):
                before = found.get(one.mistakes)
                if one.mistakes and (before is None or one.worth > before.worth):
                    found[one.mistakes] = one
    best = max((_rank(one) for one in found.values()), default=None)
    return [one for one in found.values() if _rank(one) == best][:MAX_FOUND]


def _rank(found: Found) -> tuple[int, int]:
    return found.worth, -len(found.mistakes)


def _sent(text: str) -> list[_Sent]:
    found: dict[bytes, _Sent] = {}
    for other, mistakes in meant(text).items():
        for output in Output:
            raw = decode(other, output)
            if raw and len(raw) % BLOCK == 0:
                found.setdefault(raw, _Sent(mistakes, output, raw))
    return list(found.values())


def _decrypted(material: Material, raw: bytes) -> Iterator[_Blocks]:
    for key in keys(material):
        for iv in ivs_for(material, key):
            front, blocks = (raw[:BLOCK], raw[BLOCK:]) if iv.raw is None else (iv.raw, raw)
            if blocks:
                yield _Blocks(_named(key, iv), key, iv.mode, decrypt_raw(key.raw, front, blocks))
        yield _Blocks((*_named(key), ECB), key, None, _ecb(key.raw, raw))
    yield from _from_passphrase(material, raw)


def _named(*parts: Key | Iv) -> tuple[Mistake, ...]:
    return tuple(part.mistake for part in parts if part.mistake is not None)


def _ecb(key: bytes, raw: bytes) -> bytes:
    """CBC under a zero IV with its chaining taken out again."""
    chained, before = decrypt_raw(key, bytes(BLOCK), raw), bytes(BLOCK) + raw[:-BLOCK]
    return (int.from_bytes(chained) ^ int.from_bytes(before)).to_bytes(len(raw))


def _from_passphrase(material: Material, raw: bytes) -> Iterator[_Blocks]:
    salted = raw.startswith(b"Salted__")
    salt, blocks = (raw[8:BLOCK], raw[BLOCK:]) if salted else (b"", raw)
    for text in material.keys if blocks else ():
        for size, name in ((size, name) for size in SIZES for name in ("md5", "sha256")):
            derived = _derived(name, read_text(text, KeyEncoding.UTF8) or b"", salt, size + BLOCK)
            key = Key(PASSPHRASE, KeyEncoding.UTF8, derived[:size])
            yield _Blocks((PASSPHRASE,), key, None, decrypt_raw(key.raw, derived[size:], blocks))


def _derived(name: str, passphrase: bytes, salt: bytes, size: int) -> bytes:
    """OpenSSL's EVP_BytesToKey with one round."""
    made = last = b""
    while len(made) < size:
        last = hashlib.new(name, last + passphrase + salt, usedforsecurity=False).digest()
        made += last
    return made[:size]


def _explained(sent: _Sent, blocks: _Blocks) -> Iterator[Found]:
    for padding, extra, opened in _opened(blocks.padded):
        if opened.text is not None and _convincing(opened, blocks, padding):
            yield Found(
                (*sent.mistakes, *blocks.mistakes, *extra),
                opened.worth,
                opened.text,
                blocks.key.encoding,
                SIZES[len(blocks.key.raw)],
                blocks.iv_mode,
                padding,
                sent.output,
            )


def _convincing(opened: Opened, blocks: _Blocks, padding: Padding | None) -> bool:
    """Hundreds of tries are made, so that luck is met more often than in the readings of the contract."""
    if opened.worth is Worth.JSON:
        return True
    if padding is Padding.ZERO:
        return opened.worth is Worth.TEXT and len(blocks.padded) > BLOCK and blocks.iv_mode is not IvMode.RANDOM_PREFIX
    if opened.worth is Worth.TAIL:
        return blocks.iv_mode is not None and not IV_MISTAKES & {*blocks.mistakes}
    # Under an IV in front a text that lacks its beginning looks whole.
    return blocks.iv_mode is not IvMode.RANDOM_PREFIX


def _opened(padded: bytes) -> Iterator[tuple[Padding | None, tuple[Mistake, ...], Opened]]:
    for padding in Padding:
        opened = weigh(padded, padding)
        if opened.worth >= Worth.TAIL:
            yield padding, (), opened
    body = strip_pkcs7(padded)
    if body is not None:
        yield from _under_pkcs7(body)
    elif 1 <= padded[-1] <= BLOCK:
        yield from _only_json(OTHER_PADDING, readable(padded[: -padded[-1]]))


def _under_pkcs7(body: bytes) -> Iterator[tuple[Padding, tuple[Mistake, ...], Opened]]:
    inner = strip_pkcs7(body)
    if inner is None and len(body) % BLOCK == 0 and body.endswith(b"\0"):
        inner = body.rstrip(b"\0")
    text = None if inner is None else readable(inner)
    if text is not None:
        yield Padding.PKCS7, (PADDED_TWICE,), told_text(text)
    elif readable(body) is None:
        for charset in ("gb18030", "utf-16"):
            for _, extra, opened in _only_json(CHARSET, readable(body, charset)):
                yield Padding.PKCS7, extra, opened


def _only_json(mistake: Mistake, text: str | None) -> Iterator[tuple[None, tuple[Mistake, ...], Opened]]:
    if text is not None and json_object(text) is not None:
        yield None, (mistake,), told_text(text)
