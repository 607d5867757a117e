"""What others make of a key's and an IV's text: cut short, filled up, hashed, read in another alphabet."""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dispatcher.ground.crypto import BLOCK, CipherName, IvMode, KeyEncoding, read_text
from dispatcher.verify.foreign import Mistake
from dispatcher.verify.readings import Material, ivs

SIZES = {cipher.key_size: cipher for cipher in CipherName}

KEY_FILLED = Mistake(
    "key filled with NUL",
    "the key is too short and was filled up with NUL bytes, as PHP's openssl_encrypt does without a word",
    "agree on a key of 16, 24 or 32 bytes; until then write the filled-up bytes as hex",
)
KEY_CUT = Mistake(
    "key cut short",
    "the key is too long for its cipher and was cut, as PHP's openssl_encrypt does without a word",
    "name the cipher that the key's size belongs to, or write the cut bytes as hex",
)
KEY_HASHED = Mistake(
    "key hashed",
    "the key was hashed before use (md5 or sha256), which no setting here does",
    "use the key's own bytes, or write the hash as the key in hex",
)
KEY_CASE = Mistake(
    "key in another case",
    "the key's letters were written in the other case before its characters were used as bytes",
    "write the key exactly as it is used: A and a are two keys",
)
KEY_URL = Mistake(
    "key in base64url",
    "the key is base64url, or base64 without its =, which a strict decoder refuses",
    "write it in standard base64 (+ and /, filled up with =)",
)
KEY_DRESSED = Mistake(
    "key in quotes",
    "quotes or blanks stand round the key's text and were not meant",
    "write the key without them",
)
IV_FILLED = Mistake(
    "IV filled with NUL",
    "the IV is too short and was filled up with NUL bytes, as PHP does with a warning",
    "agree on an IV of 16 bytes; until then write the filled-up bytes as hex",
)
IV_CUT = Mistake(
    "IV cut short",
    "the IV is too long and was cut to 16 bytes, as PHP does with a warning",
    "write the first 16 bytes as the IV, or agree on how its text is read",
)
IV_HASHED = Mistake(
    "IV hashed",
    "the IV is the beginning of a hash of its text (substr(hash('sha256', $iv), 0, 16) in PHP samples)",
    "use the IV's own bytes, or write the beginning of the hash as the IV",
)
IV_ASCII_ZEROS = Mistake(
    "IV of the digit 0",
    "the IV is sixteen times the digit 0 (0x30), not sixteen zero bytes",
    'write iv = "0000000000000000" with iv_mode = "fixed", or use zero bytes on the other side',
)
SWAPPED = Mistake("key and IV swapped", "key and IV were handed over in each other's place", "swap them back")

IV_MISTAKES = frozenset({IV_FILLED, IV_CUT, IV_HASHED, IV_ASCII_ZEROS})


class Key(NamedTuple):
    mistake: Mistake | None
    encoding: KeyEncoding
    raw: bytes


class Iv(NamedTuple):
    """`raw` is None where the IV stands in front of the ciphertext."""

    mistake: Mistake | None
    mode: IvMode
    raw: bytes | None


def keys(material: Material) -> list[Key]:
    """Each key's bytes once, the readings of the contract first."""
    found: dict[bytes, Key] = {}
    for key in (*_plain(material), *_resized(material), *_rewritten(material), *_swapped(material)):
        if len(key.raw) in SIZES:
            found.setdefault(key.raw, key)
    return list(found.values())


def ivs_for(material: Material, key: Key) -> list[Iv]:
    """Each IV's bytes once, those of the contract first."""
    if key.mistake is SWAPPED:
        return [Iv(None, IvMode.FIXED, raw[:BLOCK]) for _, raw in material.key_bytes() if len(raw) >= BLOCK]
    plain = [Iv(None, mode, iv) for mode, _, iv in ivs(material, key.raw)]
    found: dict[bytes | None, Iv] = {}
    for iv in (*plain, *_foreign_ivs(material)):
        found.setdefault(iv.raw, iv)
    return list(found.values())


def _plain(material: Material) -> Iterator[Key]:
    for encoding, raw in material.key_bytes():
        yield Key(None, encoding, raw)


def _resized(material: Material) -> Iterator[Key]:
    for encoding, raw in material.key_bytes():
        for size in SIZES:
            if 0 < len(raw) < size:
                yield Key(KEY_FILLED, encoding, raw.ljust(size, b"\0"))
            elif len(raw) > size:
                yield Key(KEY_CUT, encoding, raw[:size])


def _rewritten(material: Material) -> Iterator[Key]:
    for text in material.keys:
        for mistake, encoding, other in _other_texts(text):
            raw = read_text(other, encoding)
            if raw:
                yield Key(mistake, encoding, raw)
        for raw in _hashes(text):
            yield Key(KEY_HASHED, KeyEncoding.UTF8, raw)


def _other_texts(text: str) -> Iterator[tuple[Mistake, KeyEncoding, str]]:
    for encoding in KeyEncoding:
        yield KEY_DRESSED, encoding, text.strip(" \t\r\n\"'")
    yield KEY_CASE, KeyEncoding.UTF8, text.upper()
    yield KEY_CASE, KeyEncoding.UTF8, text.lower()
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    yield KEY_URL, KeyEncoding.BASE64, bare + "=" * (-len(bare) % 4)


def _swapped(material: Material) -> Iterator[Key]:
    for _, raw in material.iv_bytes():
        yield Key(SWAPPED, KeyEncoding.UTF8, raw)


def _foreign_ivs(material: Material) -> Iterator[Iv]:
    for _, raw in material.iv_bytes():
        if 0 < len(raw) < BLOCK:
            yield Iv(IV_FILLED, IvMode.FIXED, raw.ljust(BLOCK, b"\0"))
        elif len(raw) > BLOCK:
            yield Iv(IV_CUT, IvMode.FIXED, raw[:BLOCK])
    yield Iv(IV_ASCII_ZEROS, IvMode.FIXED, b"0" * BLOCK)
    for text in material.ivs:
        for raw in _hashes(text):
            yield Iv(IV_HASHED, IvMode.FIXED, raw[:BLOCK])


_HASHES: tuple[Callable[[bytes], bytes], ...] = (
    lambda raw: hashlib.md5(raw, usedforsecurity=False).digest(),
    lambda raw: hashlib.sha256(raw).digest(),
)


def _hashes(text: str) -> Iterator[bytes]:
    """Raw, and as hex digits that are used as characters; whole and cut to each size of a key."""
    raw = read_text(text, KeyEncoding.UTF8)
    for digest in [] if raw is None else [take(raw) for take in _HASHES]:
        for form in (digest, digest.hex().encode()):
            yield from dict.fromkeys(form[:size] for size in (32, 24, 16))
