"""`dispatcher verify`: what decrypts is found, what does not is not called decrypted, and mistakes get their name.

What verify is given is made here with `cryptography` alone, not by the code that is tried.
"""

import base64
import binascii
import hashlib
import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli import main
from dispatcher.cli.verdict import FEW
from dispatcher.ground.crypto import CipherName, CryptoReading, IvEncoding, IvMode, KeyEncoding, Output, Padding
from dispatcher.verify.advice import LANGUAGES, advise
from dispatcher.verify.foreign import TEXT_MISTAKES
from dispatcher.verify.keys import keys
from dispatcher.verify.plaintext import Worth, weigh
from dispatcher.verify.readings import Material, Reading, decode, from_operator, presets_for, readings
from dispatcher.verify.trials import try_all

GOLDEN: list[dict[str, str]] = json.loads(Path(__file__).with_name("golden_vectors.json").read_text("utf-8"))["vectors"]
KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
IV = "A1b2C3d4E5f6G7h8"
ORDER = '{"order_no":"1767225600123456049","total_bet":3,"total_win":299.55,"business":"Spin投入","game_id":49}'
FIELDS = {"key_encoding", "cipher", "iv_mode", "iv_encoding", "padding", "output", "decrypts", "plaintext", "note"}


class Said(NamedTuple):
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def decrypting(self) -> list[dict[str, Any]]:
        return [row for row in self.json()["readings"] if row["decrypts"]]

    def mistakes(self) -> list[list[str]]:
        return [[one["name"] for one in row["mistakes"]] for row in self.json()["mistakes"]]


def verify(*words: str, stdin: str | bytes = "", hidden: tuple[str, ...] = (KEY, IV)) -> Said:
    result = CliRunner().invoke(main, ["verify", *words], input=stdin, catch_exceptions=False)
    for secret in hidden:
        assert secret not in result.stdout + result.stderr
    return Said(result.exit_code, result.stdout, result.stderr)


def tried(ciphertext: str, key: str = KEY, iv: str | None = IV) -> Said:
    given = ["--key", key, "--ciphertext", ciphertext, *(["--iv", iv] if iv is not None else [])]
    said = verify(*given, "--json", hidden=(key, iv or key))
    people = verify(*given, hidden=(key, iv or key))
    assert people.status == said.status
    return said


def pkcs7(text: bytes) -> bytes:
    count = 16 - len(text) % 16
    return text + bytes([count]) * count


def blocks(padded: bytes, key: bytes = KEY.encode(), iv: bytes = IV.encode()) -> bytes:
    return whole(Cipher(AES(key), CBC(iv)).encryptor(), padded)


def whole(context: CipherContext, data: bytes) -> bytes:
    return context.update(data) + context.finalize()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def sealed(text: str = ORDER, key: bytes = KEY.encode(), iv: bytes = IV.encode()) -> bytes:
    return blocks(pkcs7(text.encode()), key, iv)


# What decrypts


@pytest.mark.parametrize("field", ["ct_base64", "ct_base64url_nopad", "ct_hex", "iv_prefixed_base64"])
@pytest.mark.parametrize("vector", GOLDEN, ids=range(len(GOLDEN)))
def test_every_golden_vector_is_found_and_nothing_beside_it(vector: dict[str, str], field: str) -> None:
    fixed = vector["iv_mode"] == "fixed_utf8"
    material = Material((vector["key_text"],), (bytes.fromhex(vector["iv_hex"]).decode(),) if fixed else ())
    good = [trial for trial in try_all(material, vector[field]) if trial.decrypts]
    assert {trial.plaintext for trial in good} == {vector["plaintext"]}
    assert {trial.reading.key.hex() for trial in good} == {vector["key_hex"]}
    mode = "fixed" if fixed else vector["iv_mode"]
    expected = "random_prefix" if field == "iv_prefixed_base64" else mode
    assert {trial.reading.iv_mode.value for trial in good} == {expected}
    settings = [trial.reading.settings() for trial in good]
    assert vector["key_encoding"] in [one["key_encoding"] for one in settings]


@pytest.mark.parametrize("vector", GOLDEN[::6], ids=range(len(GOLDEN[::6])))
def test_a_golden_vector_is_found_by_the_command(vector: dict[str, str]) -> None:
    fixed = vector["iv_mode"] == "fixed_utf8"
    said = tried(vector["ct_base64"], vector["key_text"], bytes.fromhex(vector["iv_hex"]).decode() if fixed else None)
    assert said.status == 0
    assert {row["plaintext"] for row in said.decrypting()} == {vector["plaintext"]}


def texts_of(raw: bytes, encoding: KeyEncoding | IvEncoding | None) -> str | None:
    match encoding:
        case KeyEncoding.UTF8 | IvEncoding.UTF8:
            return raw.decode()
        case KeyEncoding.UTF8_FIRST16:
            return raw.decode() + "and what is cut off"
        case KeyEncoding.HEX | IvEncoding.HEX:
            return raw.hex()
        case KeyEncoding.BASE64 | IvEncoding.BASE64:
            return b64(raw)
    return None


def encoded(raw: bytes, output: Output) -> str:
    url = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return {Output.BASE64: b64(raw), Output.BASE64URL: url, Output.HEX: raw.hex()}[output]


@pytest.mark.parametrize(("padding", "output"), list(product(Padding, Output)))
@pytest.mark.parametrize("mode", list(IvMode))
@pytest.mark.parametrize("encoding", list(KeyEncoding))
def test_whatever_the_contract_names_is_found_in_a_foreign_ciphertext(
    encoding: KeyEncoding, mode: IvMode, padding: Padding, output: Output
) -> None:
    for cipher, iv_encoding in product(CipherName, IvEncoding):
        key = b"the key is hush! and never shown"[: cipher.key_size]
        if encoding is KeyEncoding.UTF8_FIRST16 and len(key) != 16:
            continue
        iv = {IvMode.ZERO: bytes(16), IvMode.KEY_FIRST16: key[:16]}.get(mode, b"an IV of 16 byte")
        padded = (
            pkcs7(ORDER.encode()) if padding is Padding.PKCS7 else ORDER.encode() + bytes(-len(ORDER.encode()) % 16)
        )
        raw = (iv if mode is IvMode.RANDOM_PREFIX else b"") + blocks(padded, key, iv)
        iv_text = texts_of(iv, iv_encoding) if mode is IvMode.FIXED else None
        material = Material((str(texts_of(key, encoding)),), (iv_text,) if iv_text else ())
        good = [trial for trial in try_all(material, encoded(raw, output)) if trial.decrypts]
        wanted = (encoding, cipher, mode, iv_encoding if mode is IvMode.FIXED else None, padding, output)
        found = [tuple(trial.reading.settings().values()) for trial in good]
        assert wanted in found
        assert {(trial.worth, trial.plaintext) for trial in good} == {(Worth.JSON, ORDER)}


def test_the_json_has_a_row_for_every_reading_and_its_fields() -> None:
    said = tried(b64(sealed()))
    rows = said.json()["readings"]
    assert all(set(row) >= FIELDS for row in rows)
    assert all((row["plaintext"] is None) is not row["decrypts"] for row in rows)
    # utf8, hex, base64 and utf8_first16 fit, the IV is read one way, two paddings, three outputs.
    assert len(rows) == 4 * 4 * 2 * 3
    assert rows[0]["decrypts"]
    (row,) = said.decrypting()
    assert {name: row[name] for name in FIELDS - {"note"}} == {
        "key_encoding": "utf8",
        "cipher": "aes-256-cbc",
        "iv_mode": "fixed",
        "iv_encoding": "utf8",
        "padding": "pkcs7",
        "output": "base64",
        "decrypts": True,
        "plaintext": ORDER,
    }
    assert "JSON object" in row["note"]
    assert "AES-256" in row["note"]


def test_the_settings_to_write_are_toml_without_a_secret() -> None:
    import tomllib

    document = tried(b64(sealed())).json()
    crypto = tomllib.loads(document["settings"])["crypto"]
    assert crypto == {
        "key_encoding": "utf8",
        "cipher": "aes-256-cbc",
        "iv_mode": "fixed",
        "iv_encoding": "utf8",
        "padding": "pkcs7",
        "output": "base64",
    }
    assert document["presets"] == ["notice-aes256"]


def test_a_preset_fits_only_where_nothing_but_the_keys_encoding_is_left_to_say() -> None:
    for reading in readings(Material((KEY,), (IV,))):
        plain = reading.settings() | {"key_encoding": "", "cipher": ""} == {
            "key_encoding": "",
            "cipher": "",
            "iv_mode": "fixed",
            "iv_encoding": "utf8",
            "padding": "pkcs7",
            "output": "base64",
        }
        assert ("notice" in presets_for(reading)) is (plain and reading.cipher is CipherName.AES_128_CBC)
        whole_text = reading.key_encoding is KeyEncoding.UTF8 and reading.cipher is CipherName.AES_256_CBC
        assert ("notice-aes256" in presets_for(reading)) is (plain and whole_text)


def test_people_see_first_what_decrypts_and_then_what_to_write() -> None:
    said = verify("--key", KEY, "--iv", IV, "--ciphertext", b64(sealed()))
    lines = said.out.splitlines()
    assert said.status == 0
    assert lines[0].startswith("This is it")
    assert ORDER in lines[2]
    assert "crypto = { key_encoding" in said.out
    assert 'preset = "notice-aes256"' in said.out
    assert all(re.search(rf"^  {language} ", said.out, re.MULTILINE) for language in LANGUAGES)
    assert len(lines) < 40


def test_signs_that_could_drive_a_terminal_are_written_as_escapes() -> None:
    said = verify("--key", KEY, "--iv", IV, "--ciphertext", b64(sealed('{"a":"\\u202e"}\n')))
    assert '{"a":"\\u202e"}\\n' in said.out


# What does not decrypt is not called so


@pytest.mark.parametrize("iv", ["B1b2C3d4E5f6G7h8", "totally another!", "0000000000000001"])
def test_under_a_wrong_iv_nothing_decrypts_and_the_key_is_called_right(iv: str) -> None:
    said = tried(b64(sealed()), iv=iv)
    assert (said.status, said.decrypting(), said.json()["mistakes"]) == (1, [], [])
    strong = [row for row in said.json()["readings"] if "key is right, IV is wrong" in row["note"]]
    assert {(row["key_encoding"], row["cipher"]) for row in strong} == {("utf8", "aes-256-cbc")}
    assert ORDER.encode()[16:].decode() in [row["from_byte_16"] for row in strong]
    people = verify("--key", KEY, "--iv", iv, "--ciphertext", b64(sealed()))
    assert people.out.count("key is right, IV is wrong") >= 1
    assert ORDER.encode()[16:].decode() in people.out
    assert people.out.count("Ask the operator for the IV") == 1


def test_a_text_that_lacks_its_beginning_is_not_called_whole_because_its_iv_could_stand_in_front() -> None:
    text = "this text is no JSON, and it is long enough"
    said = tried(b64(sealed(text)), iv="\x01\x02\x03\x04\x05\x06\x07\x08" * 2)
    assert (said.status, said.decrypting()) == (1, [])
    assert any("either each message has its own in front" in row["note"] for row in said.json()["readings"])


def test_of_two_ivs_that_give_signs_only_the_likelier_is_shown() -> None:
    """Their difference is the difference of two IVs, and one of them may be the key's beginning."""
    text = "abcdefghijklmnopqrstuvwxyz"
    said = tried(b64(sealed(text, iv=b"0" * 16)), key=KEY, iv="0" * 16)
    assert {row["plaintext"] for row in said.decrypting()} == {text}
    assert len({row["plaintext"] for row in said.json()["readings"]} - {None}) == 1


@given(st.binary(min_size=16, max_size=16) | st.binary(min_size=48, max_size=48))
def test_what_is_no_ciphertext_of_this_key_is_found_in_no_reading(raw: bytes) -> None:
    trials = try_all(Material((KEY,), (IV,)), b64(raw))
    assert not any(trial.decrypts for trial in trials)


def test_right_padding_alone_is_no_decryption() -> None:
    garbage = bytes(range(128, 191)) + b"\1"
    opened = weigh(garbage, Padding.PKCS7)
    assert (opened.worth, opened.text) == (Worth.PADDING, None)
    assert "by luck" in opened.note
    assert weigh(garbage[:-1] + b"\0", Padding.ZERO).worth is Worth.NOTHING


@pytest.mark.parametrize("count", [9, 10, 13])
def test_pkcs7_padding_of_line_ends_is_not_taken_for_zero_padding(count: int) -> None:
    text = b'{"a":"' + b"x" * (48 - count - 8) + b'"}'
    assert weigh(pkcs7(text), Padding.PKCS7).worth is Worth.JSON
    assert weigh(pkcs7(text), Padding.ZERO).worth is Worth.NOTHING


@pytest.mark.parametrize("count", [9, 10, 13])
def test_padding_of_line_ends_under_padding_is_not_taken_for_the_end_of_the_json(count: int) -> None:
    opened = weigh(pkcs7(pkcs7(b'{"a":"' + b"x" * (48 - count - 8) + b'"}')), Padding.PKCS7)
    assert (opened.worth, opened.text) == (Worth.PADDING, None)
    assert "padded twice" in opened.note


def test_a_fixed_iv_is_told_that_each_message_has_its_own_in_front() -> None:
    iv = bytes(range(100, 116))
    said = tried(b64(iv + sealed(iv=iv)))
    assert {row["iv_mode"] for row in said.decrypting()} == {"random_prefix"}
    fixed = [row for row in said.json()["readings"] if row["iv_mode"] == "fixed" and row["from_byte_16"]]
    assert fixed
    assert all("has its own in front" in row["note"] and row["from_byte_16"] == ORDER for row in fixed)


def test_a_text_ranks_by_what_it_is() -> None:
    ranks = [b"\xff" * 20, b'gar"bled":1,"total_win":2}', b"some text", b'{"a":1}']
    assert [weigh(pkcs7(text), Padding.PKCS7).worth.name for text in ranks] == ["PADDING", "TAIL", "TEXT", "JSON"]


def test_an_impossible_key_is_told_with_the_bytes_that_each_reading_gives() -> None:
    said = tried(b64(sealed()), key="too!-!short", iv="IV!")
    assert (said.status, said.json()["readings"]) == (1, [])
    assert said.json()["bytes"]["key"] == {"utf8": 11, "hex": None, "base64": None, "utf8_first16": 11}
    people = verify("--key", "too!-!short", "--iv", "IV!", "--ciphertext", b64(sealed()), hidden=("too!-!short", "IV!"))
    assert "key: utf8 gives 11 bytes, hex can't read it" in people.out
    assert "iv: utf8 gives 3 bytes" in people.out
    assert "A key has 16, 24 or 32 bytes, an IV 16" in people.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b64(sealed()[:-1]), "base64 gives 111 bytes"),
        (sealed()[:-3].hex(), "hex gives 109 bytes"),
        ("not a ciphertext!", "base64 can't read it, base64url can't read it, hex can't read it"),
    ],
)
def test_a_broken_ciphertext_is_told_with_its_bytes(text: str, told: str) -> None:
    assert len(sealed()) == 112
    said = verify("--key", KEY, "--iv", IV, "--ciphertext", text)
    assert said.status == 1
    assert told in said.out


# Mistakes

MADE: list[tuple[str, Callable[[], str]]] = [
    ("padded twice", lambda: b64(blocks(pkcs7(pkcs7(ORDER.encode()))))),
    ("padded twice", lambda: b64(blocks(pkcs7(ORDER.encode() + bytes(-len(ORDER.encode()) % 16))))),
    ("base64 twice", lambda: b64(b64(sealed()).encode())),
    ("hex of base64", lambda: b64(sealed()).encode().hex()),
    ("base64 of hex", lambda: b64(sealed().hex().encode())),
    ("hex twice", lambda: sealed().hex().encode().hex()),
    ("whole body", lambda: json.dumps({"order_no": "1", "data": b64(sealed()), "time": 1, "uid": "u" * 300})),
    ("whole body", lambda: json.dumps({"payload": b64(sealed()), "n": "1"})),
    ("quotes", lambda: f'"{b64(sealed())}"'),
    ("quotes", lambda: f"'{b64(sealed())}'"),
    ("JSON escapes", lambda: with_signs("/").replace("/", "\\/")),
    ("JSON escapes", lambda: with_signs("=").replace("=", "\\u003d")),
    ("percent-encoded", lambda: quote(with_signs("+"), safe="")),
    ("plus turned into blank", lambda: with_signs("+").replace("+", " ")),
    ("line breaks", lambda: "\n".join(re.findall(".{1,64}", b64(sealed())))),
    ("line breaks", lambda: " \r\n".join(re.findall(".{1,76}", sealed().hex()))),
    ("wrong =", lambda: with_signs("+=").rstrip("=")),
    ("wrong =", lambda: with_signs("+") + "=="),
    ("wrong =", lambda: with_signs("+=").replace("+", "-").replace("/", "_")),
    ("mixed alphabets", lambda: with_signs("+/").replace("+", "-")),
    ("dressed hex", lambda: "0x" + sealed().hex()),
    ("dressed hex", lambda: sealed().hex(":")),
    ("IV apart in front", lambda: f"{other_iv().hex()}:{sealed(iv=other_iv()).hex()}"),
    ("IV apart in front", lambda: f"{b64(other_iv())}.{b64(sealed(iv=other_iv()))}"),
    ("key in another case", lambda: b64(sealed(key=KEY.upper().encode()))),
    ("key hashed", lambda: b64(sealed(key=hashlib.md5(KEY.encode()).hexdigest().encode()))),
    ("key hashed", lambda: b64(sealed(key=hashlib.md5(KEY.encode()).digest()))),
    ("key hashed", lambda: b64(sealed(key=hashlib.sha256(KEY.encode()).digest()))),
    ("key hashed", lambda: b64(sealed(key=hashlib.sha256(KEY.encode()).hexdigest()[:32].encode()))),
    ("key cut short", lambda: b64(sealed(key=KEY.encode()[:24]))),
    ("key filled with NUL", lambda: b64(sealed(key=bytes.fromhex(KEY) + bytes(16)))),
    ("key and IV swapped", lambda: b64(sealed(key=IV.encode(), iv=KEY.encode()[:16]))),
    ("IV of the digit 0", lambda: b64(sealed(iv=b"0" * 16))),
    ("IV hashed", lambda: b64(sealed(iv=hashlib.sha256(IV.encode()).hexdigest()[:16].encode()))),
    ("IV hashed", lambda: b64(sealed(iv=hashlib.md5(IV.encode()).digest()))),
    ("ECB", lambda: b64(whole(Cipher(AES(KEY.encode()), ECB()).encryptor(), pkcs7(ORDER.encode())))),
    ("passphrase", lambda: b64(salted("md5"))),
    ("passphrase", lambda: b64(salted("sha256"))),
    ("another charset", lambda: b64(blocks(pkcs7(ORDER.encode("gbk"))))),
    ("another charset", lambda: b64(blocks(pkcs7(ORDER.encode("utf-16"))))),
    ("another padding", lambda: b64(blocks(ansi_x923(ORDER.encode())))),
]


def other_iv() -> bytes:
    return bytes(range(100, 116))


def with_signs(signs: str) -> str:
    """The base64 of an order whose ciphertext has these signs in it; an `=` only where it is asked for."""
    for n in range(10_000):
        text = b64(sealed(ORDER[:-1] + "x" * 0 + f',"n":{n}' + "}"))
        if all(sign in text for sign in signs) and ("=" in text) is ("=" in signs or "=" in text):
            return text
    raise AssertionError(signs)


def salted(name: str) -> bytes:
    salt, made, last = b"8 bytes!", b"", b""
    while len(made) < 48:
        last = hashlib.new(name, last + KEY.encode() + salt).digest()
        made += last
    return b"Salted__" + salt + sealed(key=made[:32], iv=made[32:48])


def ansi_x923(text: bytes) -> bytes:
    count = 16 - len(text) % 16
    return text + bytes(count - 1) + bytes([count])


@pytest.mark.parametrize(("name", "make"), MADE, ids=[f"{n}-{name}" for n, (name, _) in enumerate(MADE)])
def test_a_mistake_is_named_and_undone(name: str, make: Callable[[], str]) -> None:
    said = tried(make())
    assert (said.status, said.decrypting()) == (1, [])
    assert [name] in said.mistakes()
    for row in said.json()["mistakes"]:
        assert json.loads(row["plaintext"])["order_no"] == "1767225600123456049"
    people = verify("--key", KEY, "--iv", IV, "--ciphertext", make())
    assert people.out.startswith("No reading decrypts it.")
    assert f"  {name}: " in people.out
    assert "Mend: " in people.out


def test_a_passphrase_is_found_as_openssl_and_crypto_js_derive_it() -> None:
    done = subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-md", "md5", "-k", KEY, "-base64", "-A"],
        input=ORDER.encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert tried(done.stdout.decode()).mistakes() == [["passphrase"]]


@pytest.mark.parametrize(
    ("key", "iv", "raw_key", "raw_iv", "name"),
    [
        ("0123456789a", IV, b"0123456789a\0\0\0\0\0", IV.encode(), "key filled with NUL"),
        ("0123456789abcdefghi", IV, b"0123456789abcdefghi".ljust(24, b"\0"), IV.encode(), "key filled with NUL"),
        (KEY + "more", IV, KEY.encode(), IV.encode(), "key cut short"),
        (f' "{KEY}"', IV, KEY.encode(), IV.encode(), "key in quotes"),
        ("-_-_" * 10 + "-_8", IV, base64.urlsafe_b64decode("-_-_" * 10 + "-_8="), IV.encode(), "key in base64url"),
        (KEY, "short!", KEY.encode(), b"short!".ljust(16, b"\0"), "IV filled with NUL"),
        (KEY, IV + "more", KEY.encode(), IV.encode(), "IV cut short"),
        (KEY, IV.encode().hex().upper() + "!", KEY.encode(), IV.encode().hex().upper()[:16].encode(), "IV cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_php_does_to_a_key_and_an_iv_of_a_wrong_size_is_named(
    key: str, iv: str, raw_key: bytes, raw_iv: bytes, name: str
) -> None:
    if len(raw_key) not in (16, 24, 32):
        raw_key = raw_key[:32]
        key = key[:43]
    said = tried(b64(sealed(key=raw_key, iv=raw_iv)), key=key, iv=iv)
    assert said.status == 1
    assert [name] in said.mistakes()


def test_two_mistakes_together_are_both_named() -> None:
    text = b64(b64(blocks(pkcs7(pkcs7(ORDER.encode())))).encode())
    assert tried(text).mistakes() == [["base64 twice", "padded twice"]]
    broken = quote("\n".join(re.findall(".{1,64}", with_signs("+"))))
    assert tried(broken).mistakes() == [["percent-encoded", "line breaks"]]


def test_no_mistake_is_looked_for_where_a_reading_decrypts() -> None:
    assert tried(b64(sealed())).json()["mistakes"] == []


def test_every_mistake_in_the_text_has_its_case_here() -> None:
    assert {known.mistake.name for known in TEXT_MISTAKES} <= {name for name, _ in MADE}


@given(st.binary(min_size=48, max_size=48))
def test_no_mistake_explains_what_is_garbage(raw: bytes) -> None:
    from dispatcher.verify.mistakes import find

    assert find(Material((KEY,), (IV,)), b64(raw)) == []


def test_the_key_itself_comes_before_what_others_make_of_it() -> None:
    tries = keys(Material((KEY,), (IV,)))
    assert [key.mistake is None for key in tries] == sorted((key.mistake is None for key in tries), reverse=True)


# Languages


def reading(**changes: Any) -> Reading:
    parts: dict[str, Any] = {
        "key_encoding": KeyEncoding.UTF8,
        "cipher": CipherName.AES_256_CBC,
        "iv_mode": IvMode.FIXED,
    }
    parts |= {"iv_encoding": IvEncoding.UTF8, "padding": Padding.PKCS7, "output": Output.BASE64}
    parts |= {"key": KEY.encode(), "iv": IV.encode()}
    return Reading(**(parts | changes))


def wrong(**changes: Any) -> dict[str, str]:
    size = changes.pop("size", 32)
    return {one.language: " ".join(one.wrong) for one in advise(reading(**changes), size)}


def test_typical_code_reads_the_usual_settings_but_forgets_to_unpad_where_nothing_does_it() -> None:
    told = wrong()
    assert [language for language in LANGUAGES if not told[language]] == ["PHP", "Java", "Node"]
    assert "forget" in told["Go"]
    assert "forget unpad" in told["Python"]


def test_a_hex_key_that_is_taken_for_text_is_told_in_each_language() -> None:
    told = wrong(key_encoding=KeyEncoding.HEX, cipher=CipherName.AES_128_CBC, key=bytes.fromhex(KEY))
    assert "cuts" in told["PHP"]
    assert "Invalid key length" in told["Node"]
    assert "32 bytes" in told["Go"]
    assert "32 bytes" in told["Java"]
    assert "Incorrect AES key length" in told["Python"]


def test_php_is_told_that_it_cuts_the_key_only_where_it_does() -> None:
    cut: dict[str, Any] = {"key_encoding": KeyEncoding.UTF8_FIRST16, "cipher": CipherName.AES_128_CBC, "key": OWN.key}
    assert "cut it visibly" in wrong(**cut)["PHP"]
    assert wrong(**cut, size=16)["PHP"] == ""


def test_each_departure_from_the_usual_settings_is_told_in_each_language() -> None:
    usual = wrong()
    for change in (
        {"padding": Padding.ZERO},
        {"output": Output.HEX},
        {"iv_encoding": IvEncoding.HEX},
        {"iv_mode": IvMode.ZERO, "iv_encoding": None},
        {"iv_mode": IvMode.KEY_FIRST16, "iv_encoding": None},
        {"iv_mode": IvMode.RANDOM_PREFIX, "iv_encoding": None, "iv": None},
    ):
        told = wrong(**change)
        assert all(told[language] and told[language] != usual[language] for language in LANGUAGES), change


def test_the_calls_hold_no_secret() -> None:
    for one in readings(Material((KEY,), (IV,))):
        for advice in advise(one, 32):
            assert KEY not in advice.call + " ".join(advice.wrong)
            assert "{" not in re.sub(r"\{(?=$)", "", advice.call)
            assert "$" not in advice.call or advice.language in ("PHP", "Java", "Node")


# Making


def test_a_plaintext_gives_for_each_reading_what_a_right_implementation_sends() -> None:
    said = verify("--key", KEY, "--iv", IV, "--plaintext", ORDER, "--json")
    rows = said.json()["readings"]
    assert said.status == 0
    assert all(row["decrypts"] and row["plaintext"] == ORDER for row in rows)
    usual = [row for row in rows if (row["padding"], row["output"], row["iv_mode"]) == ("pkcs7", "base64", "fixed")]
    (one,) = [row for row in usual if row["cipher"] == "aes-256-cbc"]
    assert one["ciphertext"] == b64(sealed())
    fresh = [row for row in rows if row["iv_mode"] == "random_prefix"]
    assert fresh
    assert all("another one each time" in row["note"] for row in fresh)
    for row in rows:
        raw = decode(row["ciphertext"], Output(row["output"]))
        assert raw is not None
        assert len(raw) % 16 == 0


def test_a_plaintext_is_shown_to_people_once_for_each_key_iv_and_padding() -> None:
    said = verify("--key", KEY, "--iv", IV, "--plaintext", ORDER)
    assert said.status == 0
    assert said.out.count(b64(sealed())) == 1
    assert "another one each time" in said.out


def test_a_plaintext_under_an_impossible_key_cannot_be_made() -> None:
    said = verify("--key", "abc", "--plaintext", ORDER)
    assert said.status == 1
    assert "utf8 gives 3 bytes" in said.out


def test_people_see_the_first_few_of_what_a_plaintext_gives_and_all_of_it_where_they_ask() -> None:
    words = ["--key", KEY, "--iv", IV, "--plaintext", ORDER]
    few, every = verify(*words).out, verify(*words, "--all").out
    assert (few.count("key_encoding = "), len(few.splitlines()) < 40) == (FEW, True)
    assert f"{every.count('(the same each time') + every.count('(another one') - FEW} further readings" in few
    assert "not shown" not in every
    assert verify("--key", KEY, "--all", "--ciphertext", CT).status == 2


MANGO = """
[operators.mango]
notice_url = "https://mango.example/Demo/notice"
token = "the-token-of-mango"
crypto = {{ key = "{key}", iv = "0102030405060708", key_encoding = "{encoding}" }}
"""
DIGITS = "00112233445566778899001122334455"


@pytest.mark.parametrize(
    ("key", "encoding", "own"),
    [
        (DIGITS, "hex", DIGITS),
        (DIGITS[:16], "utf8", DIGITS[:16]),
        (base64.b64encode(bytes(range(200, 216))).decode(), "base64", None),
        (DIGITS, "utf8_first16", None),
        (DIGITS[:30] + "AA", "hex", None),
    ],
)
def test_settings_that_take_another_text_than_the_configured_say_so(
    key: str, encoding: str, own: str | None, tmp_path: Path
) -> None:
    """What says nothing of a text is what the same settings give with the configured texts."""
    (tmp_path / "config.toml").write_text(MANGO.format(key=key, encoding=encoding), "utf-8")
    words = ["--operator", "mango", "-c", str(tmp_path / "config.toml"), "--plaintext", ORDER]
    hidden = (key, "0102030405060708")
    rows = verify(*words, "--json", hidden=hidden).json()["readings"]
    assert (rows[0]["key_encoding"], rows[0]["key_written"], rows[0]["iv_written"]) == (encoding, None, None)
    plainly = verify("--key", key, "--iv", hidden[1], "--plaintext", ORDER, "--json").json()["readings"]
    names = ("key_encoding", "cipher", "iv_mode", "iv_encoding", "padding", "output")
    right = {tuple(row[name] for name in names): row["ciphertext"] for row in plainly}
    plain = [row for row in rows if (row["key_written"], row["iv_written"]) == (None, None)]
    assert all(
        right[tuple(row[name] for name in names)] == row["ciphertext"]
        for row in plain
        if row["iv_mode"] != "random_prefix"
    )
    if own is not None:
        assert {tuple(row[name] for name in names) for row in plain} == {*right}
    told = verify(*words, "--all", hidden=hidden).out
    for row in rows:
        if row["output"] == "base64" and row["key_written"] and row["iv_mode"] == "zero":
            assert f"with the key written as {row['key_written']}" in told


def test_what_decrypts_with_another_text_than_the_configured_is_told_with_it(config: Path) -> None:
    text = sealed(key=OWN.key.hex().encode()).hex()
    said = verify("--operator", "acme", "-c", str(config), "--ciphertext", text, hidden=("0123456789abcdef", IV))
    assert "To write into the configuration, with the key written as hex:" in said.out


# What to do next

NOT_THE_KEY = "this is not the key, or the ciphertext was altered"


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        (KEY, b64(bytes(range(48))), [NOT_THE_KEY]),
        (KEY, b64(bytes(range(16))), ["give a longer one", NOT_THE_KEY]),
        (KEY, b64(bytes(range(43))), ["copy `data` whole"]),
        (KEY, b64(sealed())[:-6], ["copy `data` whole"]),
        (KEY[:-1], b64(bytes(range(48))), ["whether a character of it was lost", NOT_THE_KEY]),
        ("abc", b64(bytes(range(48))), ["whether a character of it was lost"]),
    ],
)
def test_what_nothing_explains_ends_with_what_to_do(key: str, text: str, told: list[str]) -> None:
    said = verify("--key", key, "--iv", IV, "--ciphertext", text)
    steps = verify("--key", key, "--iv", IV, "--ciphertext", text, "--json").json()["next"]
    assert [part in step for part, step in zip(told, steps, strict=True)] == [True] * len(told)
    assert said.out.splitlines()[-1] == steps[-1]


def test_what_is_explained_says_nothing_of_another_key() -> None:
    for iv in (IV, "totally another!"):
        assert tried(b64(sealed()), iv=iv).json()["next"] == []
    assert "a key has 16, 24 or 32 bytes" in verify("--key", "abc", "--plaintext", ORDER).out


# Where the texts come from


def test_each_text_can_come_from_a_file(tmp_path: Path) -> None:
    for name, text in (("key", KEY), ("iv", IV), ("ciphertext", b64(sealed())), ("plaintext", ORDER)):
        (tmp_path / name).write_text(text + "\n", "utf-8")
    files = ["--key-file", f"{tmp_path}/key", "--iv-file", f"{tmp_path}/iv"]
    said = verify(*files, "--ciphertext-file", f"{tmp_path}/ciphertext", "--json")
    assert {row["plaintext"] for row in said.decrypting()} == {ORDER}
    made = verify(*files, "--plaintext-file", f"{tmp_path}/plaintext", "--json")
    assert b64(sealed()) in [row["ciphertext"] for row in made.json()["readings"]]


@pytest.mark.parametrize("name", ["key", "iv", "ciphertext"])
def test_each_text_can_come_from_standard_input(name: str) -> None:
    texts = {"key": KEY, "iv": IV, "ciphertext": b64(sealed())}
    words = [word for other in texts if other != name for word in (f"--{other}", texts[other])]
    said = verify(*words, f"--{name}-file", "-", "--json", stdin=texts[name] + "\n")
    assert {row["plaintext"] for row in said.decrypting()} == {ORDER}


def test_a_key_without_an_iv_is_tried_in_the_modes_that_need_none() -> None:
    said = tried(b64(sealed(iv=bytes(16))), iv=None)
    assert {row["iv_mode"] for row in said.json()["readings"]} == {"zero", "key_first16", "random_prefix"}
    assert {row["iv_mode"] for row in said.decrypting()} == {"zero"}


CT = b64(sealed())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ciphertext", CT], "there is no key"),
        (["--key", KEY], "exactly one of --ciphertext"),
        (["--key", KEY, "--ciphertext", CT, "--plaintext", "x"], "exactly one of --ciphertext"),
        (["--key", KEY, "--ciphertext", CT, "--ciphertext-file", "-"], "exactly one of --ciphertext"),
        (["--key", KEY, "--key-file", "-", "--ciphertext", CT], "--key and --key-file"),
        (["--key-file", "-", "--iv-file", "-", "--ciphertext", CT], "only one text"),
        (["--operator", "acme", "--key", KEY, "--ciphertext", CT], "leave out --key"),
        (["--operator", "acme", "--iv-file", "-", "--ciphertext", CT], "leave out --iv-file"),
        (["--key", "", "--ciphertext", CT], "the key is empty"),
        (["--key", KEY, "--ciphertext", ""], "the ciphertext is empty"),
        (["--key-file", f"/nowhere/{KEY}", "--ciphertext", CT], "--key-file can't be read"),
        (["--key-file", f"{KEY}\0", "--ciphertext", CT], "--key-file can't be read"),
        (["--key-file", KEY, "--ciphertext", CT], "--key-file can't be read"),
        (["--key-file", "/dev/zero", "--ciphertext", CT], "longer than"),
        (["--key", "two", KEY, "--ciphertext", CT], "belong to no option"),
        ([f"--kee={KEY}", "--ciphertext", CT], "--kee"),
        ([f"-k{KEY}", "--ciphertext", CT], "-k"),
        (["--ciphertext", CT, "--key"], "--key"),
    ],
)
def test_wrong_use_is_told_without_a_secret(words: list[str], told: str) -> None:
    said = verify(*words)
    assert (said.status, said.out) == (2, "")
    assert told in said.err


def test_a_file_that_is_no_text_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\xff\xfe" + sealed())
    said = verify("--key", KEY, "--ciphertext-file", f"{tmp_path}/raw")
    assert said.status == 2
    assert "not UTF-8 text" in said.err


@pytest.mark.parametrize("iv", [IV, ""])
def test_on_a_terminal_key_and_iv_are_asked_for_and_never_shown(iv: str) -> None:
    raw_iv = iv.encode() or bytes(16)
    words = [sys.executable, "-m", "dispatcher", "verify", "--ciphertext", b64(sealed(iv=raw_iv)), "--json"]
    pid, terminal = pty.fork()
    if not pid:
        os.execv(words[0], words)
    # What is typed before the question is thrown away.
    read_up_to("Key: ", terminal)
    os.write(terminal, f"{KEY}\n".encode())
    shown = read_up_to("IV (empty: none): ", terminal)
    os.write(terminal, f"{iv}\n".encode())
    shown += read_up_to(None, terminal)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert KEY not in shown
    assert IV not in shown
    assert json.loads(shown[shown.index("{") :])["readings"][0]["plaintext"] == ORDER


def read_up_to(end: str | None, terminal: int) -> str:
    """What the terminal shows up to this text, or to its end."""
    shown = b""
    while end is None or not shown.endswith(end.encode()):
        assert select.select([terminal], [], [], 20)[0], shown
        try:
            part = os.read(terminal, 65536)
        except OSError:
            part = b""  # how a terminal tells that its other end has gone
        if not part:
            break
        shown += part
    return shown.decode()


# Operators


OWN = CryptoReading(CipherName.AES_128_CBC, b"0123456789abcdef", IV.encode(), Padding.PKCS7, Output.HEX)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
[operators.acme]
notice_url = "https://acme.example/Demo/notice"
token = "the-token-of-acme"
crypto = {{ key = "0123456789abcdef", iv = "{IV}", key_encoding = "utf8", output = "hex" }}
""",
        "utf-8",
    )
    return path


def test_an_operators_own_settings_are_tried_first_and_said_to_be_in_force(config: Path) -> None:
    text = sealed(key=OWN.key).hex()
    words = ["--operator", "acme", "-c", str(config), "--ciphertext", text]
    said = verify(*words, "--json", hidden=("0123456789abcdef", IV))
    assert said.status == 0
    assert said.json()["readings"][0]["plaintext"] == ORDER
    assert "That is what the configuration says already." in verify(*words, hidden=("0123456789abcdef", IV)).out


def test_a_sibling_of_an_operators_settings_is_found_and_what_to_write_is_said(config: Path) -> None:
    for text in (b64(sealed(key=OWN.key)), sealed(key=OWN.key.hex().encode()).hex()):
        said = verify("--operator", "acme", "-c", str(config), "--ciphertext", text, hidden=("0123456789abcdef", IV))
        assert said.status == 0
        assert "To write into the configuration" in said.out


def test_what_an_operator_would_be_sent_is_made(config: Path) -> None:
    said = verify("--operator", "acme", "-c", str(config), "--plaintext", ORDER, hidden=("0123456789abcdef", IV))
    assert said.out.index(sealed(key=OWN.key).hex()) < 400
    assert "The first is as configured" in said.out
    given = verify("--key", KEY, "--iv", IV, "--plaintext", ORDER)
    assert "as configured" not in given.out


def test_an_operator_that_is_not_configured_is_wrong_use(config: Path) -> None:
    said = verify("--operator", "acne", "-c", str(config), "--ciphertext", CT)
    assert (said.status, said.out) == (2, "")
    assert "acme" in said.err


def test_a_configuration_that_is_none_is_wrong_use(tmp_path: Path) -> None:
    said = verify("--operator", "acme", "-c", str(tmp_path / "absent.toml"), "--ciphertext", CT)
    assert (said.status, said.out) == (2, "")


@pytest.mark.parametrize("iv", [None, bytes(16), IV.encode(), bytes(range(200, 216)), OWN.key])
@pytest.mark.parametrize("key", [OWN.key, bytes(range(200, 224)), KEY.encode()])
def test_an_operators_own_reading_is_always_among_those_tried(key: bytes, iv: bytes | None) -> None:
    own = CryptoReading(
        {16: CipherName.AES_128_CBC, 24: CipherName.AES_192_CBC}.get(len(key), CipherName.AES_256_CBC),
        key,
        iv,
        Padding.ZERO,
        Output.BASE64URL,
    )
    first = readings(from_operator(own))[0]
    assert first.crypto() == own


def test_nothing_that_holds_a_secret_shows_it() -> None:
    material = Material((KEY,), (IV,), OWN)
    text = repr(material) + repr(readings(material)) + repr(try_all(material, CT))
    assert KEY not in text
    assert IV not in text
    assert binascii.hexlify(IV.encode()).decode() not in text
