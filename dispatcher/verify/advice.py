"""What typical code in five languages makes of settings, the one call that reads them, and what to do where none do.

Typical code takes the texts of key and IV as they stand, decodes base64 and leaves padding to its library.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dispatcher.ground.crypto import BLOCK, IvEncoding, IvMode, KeyEncoding, Output, Padding
from dispatcher.verify.plaintext import Worth
from dispatcher.verify.readings import Reading, decode
from dispatcher.verify.trials import Trial

LANGUAGES = ("PHP", "Java", "Node", "Go", "Python")


class Advice(NamedTuple):
    """`wrong` is what typical code meets, empty where it reads the settings; `call` reads them in any case."""

    language: str
    wrong: tuple[str, ...]
    call: str


class _Words(NamedTuple):
    """How one language says each part of a call. `$` stands for the text or the bytes that the part is made from."""

    text: Mapping[str, str]
    first16: str
    zeros: str
    prefix: tuple[str, str]
    data: Mapping[Output, str]
    calls: Mapping[Padding, str]


_SPEECH = {
    "PHP": _Words(
        {"utf8": "$", "hex": "hex2bin($)", "base64": "base64_decode($)"},
        "substr($, 0, 16)",
        'str_repeat("\\0", 16)',
        ("substr($raw, 0, 16)", "substr($raw, 16)"),
        {
            Output.BASE64: "base64_decode($data)",
            Output.BASE64URL: "base64_decode(strtr($data, '-_', '+/'))",
            Output.HEX: "hex2bin($data)",
        },
        {
            Padding.PKCS7: "openssl_decrypt({raw}, '{cipher}', {key}, OPENSSL_RAW_DATA, {iv})",
            Padding.ZERO: "rtrim(openssl_decrypt({raw}, '{cipher}', {key},"
            ' OPENSSL_RAW_DATA | OPENSSL_ZERO_PADDING, {iv}), "\\0")',
        },
    ),
    "Java": _Words(
        {
            "utf8": "$.getBytes(StandardCharsets.UTF_8)",
            "hex": "HexFormat.of().parseHex($)",
            "base64": "Base64.getDecoder().decode($)",
        },
        "Arrays.copyOf($, 16)",
        "new byte[16]",
        ("Arrays.copyOf(raw, 16)", "Arrays.copyOfRange(raw, 16, raw.length)"),
        {
            Output.BASE64: "Base64.getDecoder().decode(data)",
            Output.BASE64URL: "Base64.getUrlDecoder().decode(data)",
            Output.HEX: "HexFormat.of().parseHex(data)",
        },
        {
            Padding.PKCS7: 'var c = Cipher.getInstance("AES/CBC/PKCS5Padding"); c.init(Cipher.DECRYPT_MODE,'
            ' new SecretKeySpec({key}, "AES"), new IvParameterSpec({iv}));'
            " var text = new String(c.doFinal({raw}), StandardCharsets.UTF_8);",
            Padding.ZERO: 'var c = Cipher.getInstance("AES/CBC/NoPadding"); c.init(Cipher.DECRYPT_MODE,'
            ' new SecretKeySpec({key}, "AES"), new IvParameterSpec({iv}));'
            ' var text = new String(c.doFinal({raw}), StandardCharsets.UTF_8).replaceAll("\\0+$", "");',
        },
    ),
    "Node": _Words(
        {"utf8": "Buffer.from($, 'utf8')", "hex": "Buffer.from($, 'hex')", "base64": "Buffer.from($, 'base64')"},
        "$.subarray(0, 16)",
        "Buffer.alloc(16)",
        ("raw.subarray(0, 16)", "raw.subarray(16)"),
        {
            Output.BASE64: "Buffer.from(data, 'base64')",
            Output.BASE64URL: "Buffer.from(data, 'base64url')",
            Output.HEX: "Buffer.from(data, 'hex')",
        },
        {
            Padding.PKCS7: "const d = crypto.createDecipheriv('{cipher}', {key}, {iv});"
            " const text = Buffer.concat([d.update({raw}), d.final()]).toString('utf8');",
            Padding.ZERO: "const d = crypto.createDecipheriv('{cipher}', {key}, {iv}).setAutoPadding(false);"
            " const text = Buffer.concat([d.update({raw}), d.final()]).toString('utf8').replace(/\\0+$/, '');",
        },
    ),
    "Go": _Words(
        {
            "utf8": "[]byte($)",
            "hex": "must(hex.DecodeString($))",
            "base64": "must(base64.StdEncoding.DecodeString($))",
        },
        "$[:16]",
        "make([]byte, 16)",
        ("raw[:16]", "raw[16:]"),
        {
            Output.BASE64: "must(base64.StdEncoding.DecodeString(data))",
            Output.BASE64URL: "must(base64.RawURLEncoding.DecodeString(data))",
            Output.HEX: "must(hex.DecodeString(data))",
        },
        {
            Padding.PKCS7: "b := must(aes.NewCipher({key})); out := make([]byte, len({raw}));"
            " cipher.NewCBCDecrypter(b, {iv}).CryptBlocks(out, {raw}); text := out[:len(out)-int(out[len(out)-1])]",
            Padding.ZERO: "b := must(aes.NewCipher({key})); out := make([]byte, len({raw}));"
            ' cipher.NewCBCDecrypter(b, {iv}).CryptBlocks(out, {raw}); text := bytes.TrimRight(out, "\\x00")',
        },
    ),
    "Python": _Words(
        {"utf8": "$.encode()", "hex": "bytes.fromhex($)", "base64": "b64decode($)"},
        "$[:16]",
        "bytes(16)",
        ("raw[:16]", "raw[16:]"),
        {
            Output.BASE64: "b64decode(data)",
            Output.BASE64URL: "urlsafe_b64decode(data + '=' * (-len(data) % 4))",
            Output.HEX: "bytes.fromhex(data)",
        },
        {
            Padding.PKCS7: "unpad(AES.new({key}, AES.MODE_CBC, {iv}).decrypt({raw}), 16)",
            Padding.ZERO: "AES.new({key}, AES.MODE_CBC, {iv}).decrypt({raw}).rstrip(b'\\0')",
        },
    ),
}

# Go's `must` is `func must[T any](v T, err error) T`, which panics where there is an error.
_DECLARED = {
    "PHP": "$raw = {};",
    "Java": "var raw = {};",
    "Node": "const raw = {};",
    "Go": "raw := {};",
    "Python": "raw = {};",
}

# Where settings leave what typical code does: what each language does then.
_KEY_TEXT = {
    "PHP": "cuts the key's text or fills it up with NUL bytes to {need} without a word, and most often returns false",
    "Java": "takes {have} bytes for the key (AES follows its size): InvalidKeyException, or BadPaddingException",
    "Node": "throws \"Invalid key length\": the text has {have} bytes, '{cipher}' wants {need}",
    "Go": "aes.NewCipher takes the AES that {have} bytes mean, whatever the document says, or refuses the size",
    "Python": 'PyCryptodome takes the AES that {have} bytes mean, or says "Incorrect AES key length"; cryptography'
    ' says "Invalid key size"',
}
_IV_TEXT = {
    "PHP": "fills the IV's text up, or cuts it to 16 bytes, with a warning only: the first 16 bytes are garbage",
    "Java": 'throws "Wrong IV length: must be 16 bytes long"',
    "Node": 'throws "Invalid initialization vector"',
    "Go": 'panics: "IV length must equal block size"',
    "Python": 'says "Incorrect IV length (it must be 16 bytes long)"',
}
_NO_PKCS7 = {
    "PHP": "returns false: it looks for PKCS#7 padding unless OPENSSL_ZERO_PADDING is given",
    "Java": "PKCS5Padding throws BadPaddingException: use NoPadding and take the zeros off",
    "Node": 'throws "bad decrypt": call setAutoPadding(false) and take the zeros off',
    "Go": "leaves the zeros at the end: take them off",
    "Python": 'unpad says "Padding is incorrect."; without it the zeros stay: take them off',
}
_PKCS7_BY_HAND = {
    "Go": "has no padding of its own: people forget to take 1 to 16 bytes off the end",
    "Python": "PyCryptodome and cryptography's CBC take no padding off themselves: people forget unpad",
}
_OUTPUT = {
    "PHP": "openssl_decrypt with flags 0 expects base64: decode {output} first and pass OPENSSL_RAW_DATA",
    "Java": "Base64.getDecoder() refuses {output}, or gives other bytes",
    "Node": "reads base64url under 'base64' too, but hex gives other bytes: name the encoding",
    "Go": "base64.StdEncoding refuses {output}, or gives other bytes",
    "Python": "b64decode drops signs it does not know and gives other bytes for {output}",
}
_IV_MODE = {
    IvMode.ZERO: "uses the IV of its settings, where sixteen zero bytes (not digits) are meant",
    IvMode.KEY_FIRST16: "uses the IV of its settings, where the key's first 16 bytes are meant",
    IvMode.RANDOM_PREFIX: "uses the IV of its settings, where the first 16 bytes of the data are it:"
    " 16 bytes of garbage in front",
}


_NO_KEY = (
    "Next: a key has 16, 24 or 32 bytes. Ask the operator whether a character of it was lost, or one too many came"
    " along."
)
_CUT = (
    "Next: the ciphertext is whole in no alphabet. It was cut, or something else came along: copy `data` whole,"
    " without its quotes."
)
_NOT_THE_KEY = (
    "Next: so this is not the key, or the ciphertext was altered. Compare the key with the operator; have them encrypt"
    " a text that you both know, and hold what they get against `dispatcher verify … --plaintext`."
)
_ONE_BLOCK = (
    "The ciphertext has one block, which can't show that only the IV is wrong: give a longer one, of more than"
    f" {BLOCK} characters of text."
)


def next_steps(trials: Sequence[Trial], ciphertext: str | None) -> Iterator[str]:
    """What to do where no reading decrypts and no mistake explains why. A key that is right says itself what to ask."""
    if not trials:
        yield _NO_KEY
    if not trials or ciphertext is None or any(trial.worth is Worth.TAIL for trial in trials):
        return
    counts = {len(raw) for output in Output if (raw := decode(ciphertext, output)) and len(raw) % BLOCK == 0}
    if not counts:
        yield _CUT
        return
    if counts == {BLOCK}:
        yield _ONE_BLOCK
    if all(trial.reading.key_encoding is KeyEncoding.UTF8_FIRST16 for trial in trials):
        yield _NO_KEY
    yield _NOT_THE_KEY


def advise(reading: Reading, key_text_size: int) -> list[Advice]:
    """For each language. `key_text_size` is how many bytes the key's text has as it stands."""
    return [Advice(name, tuple(_wrong(name, reading, key_text_size)), _call(name, reading)) for name in LANGUAGES]


def _wrong(language: str, reading: Reading, have: int) -> Iterator[str]:
    if reading.key_encoding is KeyEncoding.UTF8_FIRST16 and have > BLOCK and language == "PHP":
        yield "cuts the key to 16 bytes without a word, which happens to be what is meant here: cut it visibly"
    elif reading.key_encoding is not KeyEncoding.UTF8 and have != len(reading.key):
        yield _KEY_TEXT[language].format(have=have, need=len(reading.key), cipher=reading.cipher)
    if reading.iv_mode in _IV_MODE:
        yield _IV_MODE[reading.iv_mode]
    elif reading.iv_encoding is not IvEncoding.UTF8:
        yield _IV_TEXT[language]
    if reading.padding is Padding.ZERO:
        yield _NO_PKCS7[language]
    elif language in _PKCS7_BY_HAND:
        yield _PKCS7_BY_HAND[language]
    if reading.output is not Output.BASE64 and not (language == "Node" and reading.output is Output.BASE64URL):
        yield _OUTPUT[language].format(output=reading.output)


def _call(language: str, reading: Reading) -> str:
    """One line; what needs the data's bytes twice names them first."""
    words = _SPEECH[language]
    sign = "$" if language == "PHP" else ""
    decoded = words.data[reading.output]
    first, rest = words.prefix if reading.iv_mode is IvMode.RANDOM_PREFIX else ("", f"{sign}raw")
    named = language == "Go" or reading.iv_mode is IvMode.RANDOM_PREFIX
    call = words.calls[reading.padding].format(
        cipher=reading.cipher,
        key=_key(words, reading.key_encoding, f"{sign}key"),
        iv=_iv(words, reading, sign) or first,
        raw=rest if named else decoded,
    )
    if not named:
        return call
    return f"{_DECLARED[language].format(decoded)} {call}"


def _key(words: _Words, encoding: KeyEncoding, name: str) -> str:
    if encoding is KeyEncoding.UTF8_FIRST16:
        return words.first16.replace("$", words.text["utf8"].replace("$", name, 1), 1)
    return words.text[encoding].replace("$", name, 1)


def _iv(words: _Words, reading: Reading, sign: str) -> str:
    if reading.iv_mode is IvMode.FIXED and reading.iv_encoding is not None:
        return words.text[reading.iv_encoding].replace("$", f"{sign}iv", 1)
    if reading.iv_mode is IvMode.KEY_FIRST16:
        return words.first16.replace("$", _key(words, reading.key_encoding, f"{sign}key"), 1)
    return words.zeros if reading.iv_mode is IvMode.ZERO else ""
