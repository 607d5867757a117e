"""Seal against Node and the openssl command: each opens what the other made, in every setting there is."""

import base64
import json
import shutil
import subprocess
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

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
from dispatcher.seal import Seal
from dispatcher.verify.advice import advise
from dispatcher.verify.readings import Reading

NODE, OPENSSL = shutil.which("node"), shutil.which("openssl")
IV = b"A1b2C3d4E5f6G7h8"
ORDER = '{"order_no":"1767225600123456049","total_win":299.55,"business":"Spin投入"}'
# One text that fills its blocks, one that does not: zero padding adds nothing to the first.
TEXTS = [ORDER, ORDER + " " * (-len(ORDER.encode()) % 16), "a"]


class Setting(NamedTuple):
    """One combination, with the key as the text that a document would show."""

    key_encoding: KeyEncoding
    cipher: CipherName
    iv_mode: IvMode
    padding: Padding
    output: Output

    def key_text(self) -> str:
        raw = bytes(range(65, 97))[: self.cipher.key_size]
        match self.key_encoding:
            case KeyEncoding.HEX:
                return raw.hex()
            case KeyEncoding.BASE64:
                return base64.b64encode(raw).decode()
            case KeyEncoding.UTF8_FIRST16:
                return raw.decode() + "and what is cut off"
            case KeyEncoding.UTF8:
                return raw.decode()

    def key(self) -> bytes:
        return read_key(self.key_text(), self.key_encoding, self.cipher)

    def iv(self) -> bytes | None:
        text = IV.decode() if self.iv_mode is IvMode.FIXED else None
        return read_iv(text, self.iv_mode, IvEncoding.UTF8, self.key())

    def seal(self) -> Seal:
        return Seal(CryptoReading(self.cipher, self.key(), self.iv(), self.padding, self.output))

    def reading(self) -> Reading:
        fixed = IvEncoding.UTF8 if self.iv_mode is IvMode.FIXED else None
        return Reading(*self[:3], fixed, self.padding, self.output, self.key(), self.iv())


SETTINGS = [
    Setting(*parts)
    for parts in product(KeyEncoding, CipherName, IvMode, Padding, Output)
    if parts[0] is not KeyEncoding.UTF8_FIRST16 or parts[1] is CipherName.AES_128_CBC
]

# Node reads the key's text by its own means; nothing is handed over as bytes but what we have sealed.
SCRIPT = r"""
const crypto = require('crypto');
const job = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const keyOf = s => s.key_encoding === 'utf8_first16' ? Buffer.from(s.key, 'utf8').subarray(0, 16)
  : Buffer.from(s.key, s.key_encoding);
const ivOf = (s, key, sent) => ({
  fixed: () => Buffer.from(job.iv, 'utf8'), zero: () => Buffer.alloc(16), key_first16: () => key.subarray(0, 16),
  random_prefix: () => sent ? sent.subarray(0, 16) : crypto.randomBytes(16)})[s.iv_mode]();
function make(s, text) {
  const key = keyOf(s), iv = ivOf(s, key);
  const c = crypto.createCipheriv(s.cipher, key, iv);
  let plain = Buffer.from(text, 'utf8');
  if (s.padding === 'zero') {
    c.setAutoPadding(false);
    plain = Buffer.concat([plain, Buffer.alloc((16 - plain.length % 16) % 16)]);
  }
  const parts = [c.update(plain), c.final()];
  return Buffer.concat(s.iv_mode === 'random_prefix' ? [iv, ...parts] : parts).toString(s.output);
}
function open(s, data) {
  const key = keyOf(s), sent = Buffer.from(data, s.output), iv = ivOf(s, key, sent);
  const d = crypto.createDecipheriv(s.cipher, key, iv);
  if (s.padding === 'zero') d.setAutoPadding(false);
  const blocks = s.iv_mode === 'random_prefix' ? sent.subarray(16) : sent;
  const text = Buffer.concat([d.update(blocks), d.final()]).toString();
  return s.padding === 'zero' ? text.replace(/\0+$/, '') : text;
}
const advised = (s, data) => new Function('crypto', 'key', 'iv', 'data', s.call + '; return text;')(
  crypto, s.key, job.iv, data);
const attempt = f => { try { return f(); } catch (e) { return 'error: ' + e.message; } };
process.stdout.write(JSON.stringify(job.settings.map(s => ({
  made: job.texts.map(text => attempt(() => make(s, text))),
  opened: s.sealed.map(data => attempt(() => open(s, data))),
  advised: s.sealed.map(data => attempt(() => advised(s, data))),
}))));
"""


@cache
def node() -> list[dict[str, Any]]:
    """What Node makes of every setting and text, and of what we sealed; one process for all."""
    job = {
        "iv": IV.decode(),
        "texts": TEXTS,
        "settings": [
            {
                **{name: str(value) for name, value in setting._asdict().items()},
                "key": setting.key_text(),
                "sealed": [setting.seal().seal(text.encode()) for text in TEXTS],
                "call": next(one.call for one in advise(setting.reading(), 0) if one.language == "Node"),
            }
            for setting in SETTINGS
        ],
    }
    done = subprocess.run(
        [str(NODE), "-e", SCRIPT], input=json.dumps(job).encode(), capture_output=True, check=True, timeout=60
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(answers) == len(SETTINGS)
    return answers


needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the openssl command is not installed")


@needs_node
def test_seal_opens_what_node_makes_in_every_setting() -> None:
    for setting, answer in zip(SETTINGS, node(), strict=True):
        assert [setting.seal().open(made).decode() for made in answer["made"]] == TEXTS, setting


@needs_node
def test_node_makes_the_same_text_to_the_letter_where_no_chance_is_in_it() -> None:
    for setting, answer in zip(SETTINGS, node(), strict=True):
        ours = [setting.seal().seal(text.encode()) for text in TEXTS]
        assert (answer["made"] == ours) is (setting.iv_mode is not IvMode.RANDOM_PREFIX), setting


@needs_node
def test_node_opens_what_seal_makes_in_every_setting() -> None:
    for setting, answer in zip(SETTINGS, node(), strict=True):
        assert answer["opened"] == TEXTS, setting


@needs_node
def test_the_call_that_verify_advises_for_node_reads_what_seal_makes() -> None:
    for setting, answer in zip(SETTINGS, node(), strict=True):
        assert answer["advised"] == TEXTS, setting


@needs_node
def test_node_says_of_a_wrong_key_and_iv_what_the_advice_says() -> None:
    script = "for (const [k, i] of [[32, 16], [16, 15]]) try { require('crypto').createDecipheriv('aes-128-cbc',"
    script += " Buffer.alloc(k), Buffer.alloc(i)) } catch (e) { console.log(e.message) }"
    done = subprocess.run([str(NODE), "-e", script], capture_output=True, check=True, timeout=60, text=True)
    assert done.stdout.splitlines() == ["Invalid key length", "Invalid initialization vector"]


def openssl(setting: Setting, direction: str, data: bytes, iv: bytes) -> bytes:
    words = [direction, f"-{setting.cipher}", "-K", setting.key().hex(), "-iv", iv.hex()]
    words += ["-nopad"] if setting.padding is Padding.ZERO else []
    return subprocess.run([str(OPENSSL), "enc", *words], input=data, capture_output=True, check=True, timeout=60).stdout


@needs_openssl
@pytest.mark.parametrize(("cipher", "mode", "padding"), list(product(CipherName, IvMode, Padding)))
def test_seal_opens_what_openssl_makes_and_openssl_what_seal_makes(
    cipher: CipherName, mode: IvMode, padding: Padding
) -> None:
    """Key encodings and outputs are no part of openssl's work: they are told apart here, in every pair."""
    for encoding, output in [*zip(KeyEncoding, [*Output, Output.BASE64], strict=True)]:
        if encoding is KeyEncoding.UTF8_FIRST16 and cipher is not CipherName.AES_128_CBC:
            continue
        setting = Setting(encoding, cipher, mode, padding, output)
        iv = setting.iv() or bytes(range(50, 66))
        prefix = iv if mode is IvMode.RANDOM_PREFIX else b""
        plain = ORDER.encode()
        padded = plain + bytes(-len(plain) % 16) if padding is Padding.ZERO else plain
        theirs = prefix + openssl(setting, "-e", padded, iv)
        assert setting.seal().open(in_output(theirs, output)) == plain
        raw = out_of(setting.seal().seal(plain), output)
        front, blocks = (raw[:16], raw[16:]) if prefix else (iv, raw)
        assert openssl(setting, "-d", blocks, front) == padded


def in_output(raw: bytes, output: Output) -> str:
    url = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return {Output.BASE64: base64.b64encode(raw).decode(), Output.BASE64URL: url, Output.HEX: raw.hex()}[output]


def out_of(text: str, output: Output) -> bytes:
    if output is Output.HEX:
        return bytes.fromhex(text)
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_" if output is Output.BASE64URL else None)


class _PyCryptodome:
    """What the advised Python calls use of PyCryptodome's AES, which is no dependency of ours."""

    MODE_CBC = 2

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = Cipher(AES(key), CBC(iv))

    @classmethod
    def new(cls, key: bytes, _mode: int, iv: bytes) -> "_PyCryptodome":
        return cls(key, iv)

    def decrypt(self, raw: bytes) -> bytes:
        decryptor = self._cipher.decryptor()
        return decryptor.update(raw) + decryptor.finalize()


def test_the_call_that_verify_advises_for_python_reads_what_seal_makes() -> None:
    libraries: dict[str, Any] = {"AES": _PyCryptodome, "unpad": lambda padded, _: padded[: -padded[-1]]}
    libraries |= {"b64decode": base64.b64decode, "urlsafe_b64decode": base64.urlsafe_b64decode}
    for setting in SETTINGS:
        call = next(one.call for one in advise(setting.reading(), 0) if one.language == "Python")
        names = {"key": setting.key_text(), "iv": IV.decode(), "data": setting.seal().seal(ORDER.encode()), **libraries}
        declared, _, last = call.rpartition("; ")
        exec(declared, names)
        assert eval(last, names) == ORDER.encode(), setting


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK is installed")
def test_the_calls_that_verify_advises_for_java_read_what_seal_makes(tmp_path: Path) -> None:
    """One class for all settings, because a JVM takes longer to start than to decrypt."""
    methods, lines = [], []
    for n, setting in enumerate(SETTINGS):
        call = next(one.call for one in advise(setting.reading(), 0) if one.language == "Java")
        methods.append(
            f"static String f{n}(String key, String iv, String data) throws Exception {{ {call} return text; }}"
        )
        words = [setting.key_text(), IV.decode(), setting.seal().seal(ORDER.encode())]
        given = ", ".join(json.dumps(word) for word in words)
        lines.append(f"if (!f{n}({given}).equals({json.dumps(ORDER)})) System.out.println({n});")
    imports = "java.util.*; import javax.crypto.*; import javax.crypto.spec.*; import java.nio.charset.StandardCharsets"
    main = f"public static void main(String[] words) throws Exception {{ {' '.join(lines)} System.out.println(-1); }}"
    body = "\n".join([*methods, main])
    (tmp_path / "Calls.java").write_text(f"import {imports};\nclass Calls {{\n{body}\n}}\n", "utf-8")
    done = subprocess.run(["java", "Calls.java"], cwd=tmp_path, capture_output=True, check=True, timeout=60, text=True)
    assert done.stdout == "-1\n"
