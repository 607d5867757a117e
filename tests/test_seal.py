"""AES-CBC against NIST's vectors, our golden ones and OpenSSL, and round trips through every setting there is."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.crypto import (
    CipherName,
    CryptoReading,
    IvEncoding,
    IvMode,
    KeyEncoding,
    Output,
    Padding,
    read_iv,
    read_key,
)
from dispatcher.seal import Seal, SealError, decrypt_raw
from tests import ground

GOLDEN: list[dict[str, str]] = json.loads(Path(__file__).with_name("golden_vectors.json").read_text("utf-8"))["vectors"]
NIST = [f"CBC{kind}{bits}" for kind in ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT") for bits in (128, 192, 256)]
BITS = {128: CipherName.AES_128_CBC, 192: CipherName.AES_192_CBC, 256: CipherName.AES_256_CBC}
IV = ground.IV.encode()
TEXTS = [b"", b"a", b"x" * 15, b"y" * 16, b"z" * 17, '{"business":"游戏赢得"}'.encode(), bytes(range(1, 256))]


def seal(
    iv: bytes | None = IV,
    cipher: CipherName = CipherName.AES_128_CBC,
    padding: Padding = Padding.PKCS7,
    output: Output = Output.BASE64,
) -> Seal:
    return Seal(CryptoReading(cipher, bytes(range(1, 33))[: cipher.key_size], iv, padding, output))


def golden(vector: dict[str, str], output: Output) -> Seal:
    """The vector's own reading of its key text and IV, made by the readers that a configuration goes through."""
    cipher = CipherName(vector["cipher"].lower())
    key = read_key(vector["key_text"], KeyEncoding(vector["key_encoding"]), cipher)
    assert key.hex() == vector["key_hex"]
    fixed = vector["iv_mode"] == "fixed_utf8"
    mode = IvMode.FIXED if fixed else IvMode(vector["iv_mode"])
    iv = read_iv(bytes.fromhex(vector["iv_hex"]).decode() if fixed else None, mode, IvEncoding.UTF8, key)
    assert iv == bytes.fromhex(vector["iv_hex"])
    return Seal(CryptoReading(cipher, key, iv, Padding(vector["padding"]), output))


@pytest.mark.parametrize(
    ("output", "field"),
    [(Output.BASE64, "ct_base64"), (Output.BASE64URL, "ct_base64url_nopad"), (Output.HEX, "ct_hex")],
)
@pytest.mark.parametrize("vector", GOLDEN, ids=range(len(GOLDEN)))
def test_a_golden_vector_is_sealed_and_opened_to_the_letter(vector: dict[str, str], output: Output, field: str) -> None:
    plaintext = vector["plaintext"].encode()
    assert golden(vector, output).seal(plaintext) == vector[field]
    assert golden(vector, output).open(vector[field]) == plaintext


@pytest.mark.parametrize("vector", GOLDEN, ids=range(len(GOLDEN)))
def test_a_golden_vector_with_its_iv_in_front_is_opened(vector: dict[str, str]) -> None:
    key = bytes.fromhex(vector["key_hex"])
    prefixed = Seal(CryptoReading(CipherName(vector["cipher"].lower()), key, None))
    assert prefixed.open(vector["iv_prefixed_base64"]) == vector["plaintext"].encode()


def test_all_golden_vectors_are_there() -> None:
    assert len(GOLDEN) == 63


def nist(name: str) -> Iterator[dict[str, bytes]]:
    """The vectors of one of NIST's files: KEY, IV, PLAINTEXT and CIPHERTEXT as bytes."""
    with cryptography_vectors.open_vector_file(f"ciphers/AES/CBC/{name}.rsp", "r") as file:
        text: str = file.read()
    for block in text.split("\n\n"):
        pairs = [row.split(" = ") for row in block.strip().splitlines() if " = " in row and not row.startswith("#")]
        vector = {name: value.strip() for name, value in pairs}
        if "COUNT" in vector:
            yield {name: bytes.fromhex(vector[name]) for name in ("KEY", "IV", "PLAINTEXT", "CIPHERTEXT")}


@pytest.mark.parametrize("name", NIST)
def test_nists_vectors_are_sealed_and_opened_to_the_letter(name: str) -> None:
    cipher, vectors = BITS[int(name[-3:])], list(nist(name))
    for vector in vectors:
        exact = Seal(CryptoReading(cipher, vector["KEY"], vector["IV"], Padding.ZERO, Output.HEX))
        ciphertext = vector["CIPHERTEXT"].hex()
        assert exact.seal(vector["PLAINTEXT"]) == ciphertext
        assert exact.open(ciphertext) == vector["PLAINTEXT"].rstrip(b"\0")
        padded = Seal(CryptoReading(cipher, vector["KEY"], vector["IV"], Padding.PKCS7, Output.HEX))
        sealed = padded.seal(vector["PLAINTEXT"])
        assert sealed[:-32] == ciphertext
        assert padded.open(sealed) == vector["PLAINTEXT"]
    assert len(vectors) >= 10


def combinations(text: bytes, iv_text: str) -> Iterator[tuple[Seal, Padding, Output, int]]:
    for cipher, mode, padding, output in product(CipherName, IvMode, Padding, Output):
        key = bytes(range(1, 33))[: cipher.key_size]
        iv = read_iv(iv_text if mode is IvMode.FIXED else None, mode, IvEncoding.UTF8, key)
        prefix = 16 if mode is IvMode.RANDOM_PREFIX else 0
        yield Seal(CryptoReading(cipher, key, iv, padding, output)), padding, output, prefix + len(text)


@given(st.binary(max_size=100), st.text("0123456789abcdef", min_size=16, max_size=16))
def test_every_combination_of_settings_opens_what_it_sealed(text: bytes, iv_text: str) -> None:
    for hand, padding, _, _ in combinations(text, iv_text):
        # Zero padding can't tell its own zeros from those of the text (PHP's and OpenSSL's callers live with it).
        expected = text.rstrip(b"\0") if padding is Padding.ZERO else text
        assert hand.open(hand.seal(text)) == expected


@given(st.binary(max_size=100))
def test_every_combination_of_settings_gives_whole_blocks_in_its_own_alphabet(text: bytes) -> None:
    alphabets = {
        Output.BASE64: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=",
        Output.BASE64URL: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        Output.HEX: "0123456789abcdef",
    }
    for hand, padding, output, size in combinations(text, IV.decode()):
        sealed = hand.seal(text)
        assert set(sealed) <= set(alphabets[output])
        padded = size // 16 * 16 + 16 if padding is Padding.PKCS7 else -(-size // 16) * 16
        raw = bytes.fromhex(sealed) if output is Output.HEX else base64.urlsafe_b64decode(as_urlsafe(sealed))
        assert len(raw) == padded


def as_urlsafe(text: str) -> str:
    plain = text.rstrip("=").replace("+", "-").replace("/", "_")
    return plain + "=" * (-len(plain) % 4)


def test_each_message_has_its_own_iv_where_it_is_sent_along() -> None:
    hand = seal(iv=None)
    sealed = {hand.seal(b"the same") for _ in range(20)}
    assert len({base64.b64decode(text)[:16] for text in sealed}) == 20
    assert {hand.open(text) for text in sealed} == {b"the same"}


@given(st.lists(st.binary(max_size=70), min_size=2, max_size=6), st.sampled_from(list(Padding)))
def test_no_message_depends_on_the_one_before(texts: list[bytes], padding: Padding) -> None:
    reading = CryptoReading(CipherName.AES_128_CBC, ground.KEY.encode(), IV, padding)
    one_after_the_other = Seal(reading)
    assert [one_after_the_other.seal(text) for text in texts] == [Seal(reading).seal(text) for text in texts]


def test_a_fixed_iv_gives_the_same_text_every_time() -> None:
    hand = seal()
    assert hand.seal(b"the same") == hand.seal(b"the same") == seal().seal(b"the same")


def told(hand: Seal, text: str) -> str:
    with pytest.raises(SealError) as refused:
        hand.open(text)
    assert refused.value.__cause__ is None
    return str(refused.value)


@given(st.binary(min_size=16, max_size=80), st.integers(1, 255))
def test_a_tampered_ciphertext_is_refused(text: bytes, flip: int) -> None:
    """Changing the last byte of the block before the last changes the last byte of the padding: never by luck."""
    pad = 16 - len(text) % 16
    if 1 <= pad ^ flip <= 16:
        flip ^= 0xE0
    hand = seal(output=Output.HEX)
    raw = bytearray.fromhex(hand.seal(text))
    raw[-17] ^= flip
    assert "can't be decrypted" in told(hand, raw.hex())


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("iv", [IV, None])
@pytest.mark.parametrize("text", ["", "A", "zz", "=", "A===", "%%%%", "投", "QUJD", "41", "\ud800", "AAAA\n", " "])
def test_what_is_no_ciphertext_is_refused_in_the_same_words(output: Output, iv: bytes | None, text: str) -> None:
    hand = seal(iv=iv, output=output)
    assert told(hand, text) == told(seal(), "%")


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_ciphertext_that_was_cut_off_is_refused(output: Output, cut: int) -> None:
    hand = seal(output=output)
    sealed = hand.seal(b"x" * 40).rstrip("=")
    assert told(hand, sealed[:-cut])


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("sign", [" ", "\n", "%", "投", "\0"])
def test_a_foreign_sign_within_a_whole_ciphertext_is_refused(output: Output, sign: str) -> None:
    hand = seal(output=output)
    sealed = hand.seal(b"x" * 40)
    for place in (0, 8, len(sealed)):
        assert told(hand, sealed[:place] + sign + sealed[place:])


@pytest.mark.parametrize(("key", "iv", "ciphertext"), [(15, 16, 16), (16, 15, 16), (16, 16, 17)])
def test_what_has_an_impossible_size_is_not_decrypted_raw(key: int, iv: int, ciphertext: int) -> None:
    with pytest.raises(SealError, match="has an impossible size"):
        decrypt_raw(bytes(key), bytes(iv), bytes(ciphertext))


def test_another_key_iv_or_cipher_does_not_open_it() -> None:
    sealed = seal().seal(b"x" * 15)
    assert told(seal(iv=bytes(16)), sealed)
    assert told(seal(cipher=CipherName.AES_256_CBC), sealed)
    assert told(Seal(CryptoReading(CipherName.AES_128_CBC, bytes(16), IV)), sealed)


@given(st.text(max_size=60) | st.binary(max_size=48).map(bytes.hex), st.sampled_from(list(Output)), st.booleans())
def test_any_text_is_opened_or_refused_as_a_seal_error(text: str, output: Output, prefixed: bool) -> None:
    for padding in Padding:
        try:
            opened = seal(iv=None if prefixed else IV, padding=padding, output=output).open(text)
        except SealError:
            continue
        assert len(opened) <= len(text)


def openssl(*arguments: Any, stdin: bytes) -> bytes:
    return subprocess.run(
        ["openssl", "enc", *map(str, arguments)], input=stdin, capture_output=True, check=True, timeout=60
    ).stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
@pytest.mark.parametrize("cipher", list(CipherName))
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_openssl_opens_what_we_seal_and_seals_what_we_open(cipher: CipherName, text: bytes) -> None:
    hand = seal(cipher=cipher)
    setting = [f"-{cipher}", "-K", bytes(range(1, 33))[: cipher.key_size].hex(), "-iv", IV.hex()]
    assert openssl("-d", *setting, stdin=base64.b64decode(hand.seal(text))) == text
    theirs = base64.b64encode(openssl("-e", *setting, stdin=text)).decode()
    assert theirs == hand.seal(text)
    assert hand.open(theirs) == text
