"""What the text of a key and of an IV means: every reading, every cipher, and messages that never show the text."""

import dataclasses
from itertools import product

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
    Spelling,
    encoding_of,
    read_iv,
    read_key,
    read_text,
)
from dispatcher.ground.errors import Unfit
from tests.ground import IV

AES128, AES192, AES256 = CipherName
SIZES = {AES128: 16, AES192: 24, AES256: 32}
RAW = bytes(range(200, 232))
ENCODINGS: list[KeyEncoding | None] = [None, *KeyEncoding]

# A key's text → what it gives as utf8, hex, base64 and utf8_first16; None where it can't be read so.
GIVES: dict[str, tuple[bytes | None, bytes | None, bytes | None, bytes | None]] = {
    "16 visible bytes": (b"0!23456789abcdef", None, None, b"0!23456789abcdef"),
    "24 visible bytes": (b"0!23456789abcdef01234567", None, None, b"0!23456789abcdef"),
    "32 visible bytes": (b"0!23456789abcdef0123456789abcdef", None, None, b"0!23456789abcdef"),
    "17 visible bytes": (b"0!23456789abcdefg", None, None, b"0!23456789abcdef"),
    "11 visible bytes": (b"too!-!short", None, None, b"too!-!short"),
    "hex of 16": (
        b"c8c9cacbcccdcecfd0d1d2d3d4d5d6d7",
        RAW[:16],
        bytes.fromhex("73c73d71a71b71c71d71e71f77477577677777877977a77b"),
        b"c8c9cacbcccdcecf",
    ),
    "hex of 24": (
        b"c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
        RAW[:24],
        bytes.fromhex("73c73d71a71b71c71d71e71f77477577677777877977a77b77c77d75a75b75c75d75e75f"),
        b"c8c9cacbcccdcecf",
    ),
    "base64 of 16": (b"yMnKy8zNzs/Q0dLT1NXW1w==", None, RAW[:16], b"yMnKy8zNzs/Q0dLT"),
    "base64 of 24": (
        b"yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f",
        None,
        RAW[:24],
        b"yMnKy8zNzs/Q0dLT",
    ),
    "base64 of 32": (
        b"yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5uc=",
        None,
        RAW,
        b"yMnKy8zNzs/Q0dLT",
    ),
    "16 bytes of Chinese and one digit": ("密钥密钥密1".encode(), None, None, "密钥密钥密1".encode()),
}


def whole(text: bytes | None) -> str:
    assert text is not None
    return text.decode()


def refusal(text: str, encoding: KeyEncoding | None, cipher: CipherName) -> str:
    with pytest.raises(Unfit) as refused:
        read_key(text, encoding, cipher)
    assert text not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("name", "n", "cipher"), list(product(GIVES, range(4), CipherName)))
def test_a_key_with_its_encoding_named_gives_its_bytes_or_both_sizes(name: str, n: int, cipher: CipherName) -> None:
    text, encoding, expected = whole(GIVES[name][0]), list(KeyEncoding)[n], GIVES[name][n]
    assert read_text(text, encoding) == expected
    if expected is not None and len(expected) == SIZES[cipher]:
        assert read_key(text, encoding, cipher) == expected
        return
    told = refusal(text, encoding, cipher)
    assert f"{cipher} needs {SIZES[cipher]}" in told
    assert f"as {encoding} it " + ("can't be read so" if expected is None else f"gives {len(expected)} bytes") in told


@pytest.mark.parametrize(
    ("name", "cipher", "n"),
    [
        ("16 visible bytes", AES128, 0),
        ("24 visible bytes", AES192, 0),
        ("32 visible bytes", AES256, 0),
        ("hex of 24", AES192, 1),
        ("hex of 16", AES192, 2),
        ("hex of 16", AES256, 0),
        ("base64 of 32", AES256, 2),
        ("base64 of 24", AES256, 0),
        ("base64 of 24", AES192, 2),
        ("base64 of 16", AES192, 0),
        ("16 bytes of Chinese and one digit", AES128, 0),
    ],
)
def test_a_key_that_reads_one_way_only_needs_no_encoding(name: str, cipher: CipherName, n: int) -> None:
    assert read_key(whole(GIVES[name][0]), None, cipher) == GIVES[name][n]


@pytest.mark.parametrize(
    ("name", "cipher", "ways"),
    [
        ("hex of 16", AES128, ["hex", "utf8_first16"]),
        ("base64 of 16", AES128, ["base64", "utf8_first16"]),
    ],
)
def test_a_key_that_reads_two_ways_is_refused_with_what_each_reading_gives(
    name: str, cipher: CipherName, ways: list[str]
) -> None:
    text = whole(GIVES[name][0])
    told = refusal(text, None, cipher)
    for encoding, given_bytes in zip(KeyEncoding, GIVES[name], strict=True):
        assert (
            f"{encoding} can't read it" if given_bytes is None else f"{encoding} gives {len(given_bytes)} bytes"
        ) in told
    for way in ways:
        assert f'key_encoding = "{way}"' in told


def test_the_message_for_32_hex_characters_offers_what_the_publishers_server_does() -> None:
    told = refusal(whole(GIVES["hex of 16"][0]), None, AES128)
    assert 'cipher = "aes-256-cbc" with key_encoding = "utf8"' in told


@pytest.mark.parametrize(
    ("name", "cipher", "whole_text"),
    [
        ("16 visible bytes", AES192, False),
        ("17 visible bytes", AES128, False),
        ("24 visible bytes", AES128, True),
        ("32 visible bytes", AES128, True),
        ("base64 of 16", AES128, True),
    ],
)
def test_the_whole_text_is_offered_exactly_where_it_is_a_key_of_another_cipher(
    name: str, cipher: CipherName, whole_text: bool
) -> None:
    told = refusal(whole(GIVES[name][0]), None, cipher)
    pairs = [f'cipher = "{one}" with key_encoding = "utf8"' for one in CipherName]
    assert [pair for pair in pairs if pair in told] == [
        f'cipher = "{one}" with key_encoding = "utf8"'
        for one in CipherName
        if whole_text and SIZES[one] == len(whole(GIVES[name][0]))
    ]


def test_a_key_that_would_have_to_be_cut_is_told_apart_from_one_that_reads_several_ways() -> None:
    cut, several = (refusal(whole(GIVES[name][0]), None, AES128) for name in ("24 visible bytes", "hex of 16"))
    assert "gives 16 bytes only when it is cut short" in cut
    assert "can be read in 2 ways that give the 16 bytes of aes-128-cbc" in several


@pytest.mark.parametrize(("name", "cipher", "n"), [("hex of 24", AES192, 1), ("base64 of 32", AES256, 2)])
def test_the_reading_that_gave_a_key_is_found_again(name: str, cipher: CipherName, n: int) -> None:
    text = whole(GIVES[name][0])
    assert encoding_of(text, read_key(text, None, cipher)) is list(KeyEncoding)[n]


@pytest.mark.parametrize(("name", "cipher"), [("11 visible bytes", cipher) for cipher in CipherName])
def test_a_key_that_reads_no_way_is_refused_with_what_each_reading_gives(name: str, cipher: CipherName) -> None:
    told = refusal(whole(GIVES[name][0]), None, cipher)
    assert "in no reading" in told
    assert "utf8 gives 11 bytes, hex can't read it, base64 can't read it, utf8_first16 gives 11 bytes" in told


@pytest.mark.parametrize("name", ["17 visible bytes", "24 visible bytes", "32 visible bytes", "hex of 24"])
def test_a_longer_key_is_not_cut_to_16_bytes_unasked(name: str) -> None:
    told = refusal(whole(GIVES[name][0]), None, AES128)
    assert f"utf8 gives {len(whole(GIVES[name][0]))} bytes" in told
    assert "16" in told


def test_a_text_that_is_no_unicode_is_refused() -> None:
    for encoding, cipher in product(ENCODINGS, CipherName):
        with pytest.raises(Unfit):
            read_key("0123456789abcde\udcff", encoding, cipher)


@given(st.from_regex(r"[!-~]{12,80}", fullmatch=True), st.sampled_from(ENCODINGS), st.sampled_from(list(CipherName)))
def test_a_key_is_read_to_its_size_or_refused_without_being_shown(
    text: str, encoding: KeyEncoding | None, cipher: CipherName
) -> None:
    told = ""
    try:
        assert len(read_key(text, encoding, cipher)) == SIZES[cipher]
    except Unfit as unfit:
        told = str(unfit)
    assert text[:12] not in told


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (IV, IvEncoding.UTF8),
        ("41316232433364344535663647376838", IvEncoding.HEX),
        ("QTFiMkMzZDRFNWY2RzdoOA==", IvEncoding.BASE64),
    ],
)
def test_a_fixed_iv_is_read_as_its_encoding_says(text: str, encoding: IvEncoding) -> None:
    assert read_iv(text, IvMode.FIXED, encoding, RAW) == IV.encode()


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [
        ("A1b2C3d4E5f6G7h", IvEncoding.UTF8, "as utf8 it gives 15 bytes, an IV has 16"),
        ("A1b2C3d4E5f6G7h89", IvEncoding.UTF8, "as utf8 it gives 17 bytes, an IV has 16"),
        ("41316232433364344535663647376838", IvEncoding.UTF8, "as utf8 it gives 32 bytes, an IV has 16"),
        (IV, IvEncoding.HEX, "as hex it can't be read so, an IV has 16"),
        (IV, IvEncoding.BASE64, "as base64 it gives 12 bytes, an IV has 16"),
    ],
)
def test_an_iv_of_another_size_is_refused_with_both_sizes(text: str, encoding: IvEncoding, told: str) -> None:
    with pytest.raises(Unfit, match="an IV has 16") as refused:
        read_iv(text, IvMode.FIXED, encoding, RAW)
    assert told in str(refused.value)
    assert text not in str(refused.value)


def test_a_fixed_iv_that_is_missing_is_refused() -> None:
    with pytest.raises(Unfit, match="is missing") as refused:
        read_iv(None, IvMode.FIXED, IvEncoding.UTF8, RAW)
    assert "iv_env" in refused.value.mend


@pytest.mark.parametrize(
    ("mode", "iv"), [(IvMode.ZERO, bytes(16)), (IvMode.KEY_FIRST16, RAW[:16]), (IvMode.RANDOM_PREFIX, None)]
)
def test_the_other_modes_make_their_own_iv_and_take_none(mode: IvMode, iv: bytes | None) -> None:
    assert read_iv(None, mode, IvEncoding.UTF8, RAW) == iv
    with pytest.raises(Unfit, match="uses none") as refused:
        read_iv(IV, mode, IvEncoding.UTF8, RAW)
    assert IV not in str(refused.value)


READING = CryptoReading(AES128, b"the key is hush!", b"and so is the iv")


def test_a_reading_never_shows_its_key_or_iv() -> None:
    shown = repr(READING) + str(READING)
    for hidden in ("hush", "so is", READING.key.hex(), repr(READING.iv)):
        assert hidden not in shown


def test_what_walks_through_a_readings_fields_finds_no_open_key_nor_iv() -> None:
    assert "hush" not in str(dataclasses.astuple(READING))
    assert "so is" not in str(dataclasses.astuple(READING))
    assert CryptoReading(AES128, READING.key, None).iv is None


@pytest.mark.parametrize(
    "other",
    [
        CryptoReading(AES128, b"the key is hush?", READING.iv),
        CryptoReading(AES128, READING.key, b"and so is the IV"),
        CryptoReading(AES128, READING.key, None),
        CryptoReading(AES256, READING.key * 2, READING.iv),
        CryptoReading(AES128, READING.key, READING.iv, Padding.ZERO),
        CryptoReading(AES128, READING.key, READING.iv, output=Output.HEX),
    ],
)
def test_whatever_changes_what_is_sent_changes_the_fingerprint(other: CryptoReading) -> None:
    assert other.fingerprint != READING.fingerprint


def test_the_fingerprint_is_the_same_for_the_same_reading_and_shows_nothing() -> None:
    again = CryptoReading(AES128, bytes(READING.key), bytes(READING.iv or b""))
    assert again.fingerprint == READING.fingerprint
    assert READING.key.hex()[:8] not in READING.fingerprint


def test_a_fingerprint_is_what_it_was_in_the_stores_that_count_key_versions_by_it() -> None:
    assert READING.fingerprint == "ff22fcf4f01778e5"


def test_how_a_key_is_spelt_makes_no_other_reading_of_it() -> None:
    assert CryptoReading(AES128, READING.key, READING.iv, spelling=Spelling(KeyEncoding.HEX)) == READING


def test_the_ciphers_know_their_sizes() -> None:
    assert {cipher: cipher.key_size for cipher in CipherName} == SIZES
