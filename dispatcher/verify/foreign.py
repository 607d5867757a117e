"""What others do to a ciphertext's text on its way, undone. Each `undo` gives the texts that may have been meant."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from urllib.parse import unquote

from dispatcher.ground.crypto import BLOCK, Output
from dispatcher.verify.plaintext import json_object
from dispatcher.verify.readings import decode


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake by its name, what it is and who makes it, and what to do instead."""

    name: str
    told: str
    mend: str


@dataclass(frozen=True, slots=True)
class TextMistake:
    mistake: Mistake
    undo: Callable[[str], Iterator[str]]


def _without_blanks(text: str) -> Iterator[str]:
    yield "".join(text.split())


def _plus_for_blank(text: str) -> Iterator[str]:
    if "\n" not in text:
        yield text.replace(" ", "+")


def _unquoted(text: str) -> Iterator[str]:
    inner = text.strip()
    if len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "\"'`":
        yield inner[1:-1]


def _json_unescaped(text: str) -> Iterator[str]:
    if "\\" in text:
        try:
            yield json.loads(f'"{text}"')
        except ValueError:
            return


def _from_body(text: str) -> Iterator[str]:
    """The longest text in a JSON object: `data` in a notice, whatever it is called elsewhere."""
    body = json_object(text) or {}
    texts = [value for value in body.values() if isinstance(value, str)]
    data = body.get("data")
    if isinstance(data, str):
        yield data
    elif texts:
        yield max(texts, key=len)


def _with_equals(text: str) -> Iterator[str]:
    """`=` is right where it fills up to four; base64 with too few or too many of them, or base64url with any."""
    bare = text.rstrip("=")
    if set(bare) & set("-_"):
        yield bare
    else:
        yield bare + "=" * (-len(bare) % 4)


def _one_alphabet(text: str) -> Iterator[str]:
    if set(text) & set("-_") and set(text) & set("+/"):
        bare = text.rstrip("=").replace("-", "+").replace("_", "/")
        yield bare + "=" * (-len(bare) % 4)


def _plain_hex(text: str) -> Iterator[str]:
    yield re.sub(r"0x|\\x|[\s:,-]", "", text, flags=re.IGNORECASE)


def _iv_before_colon(text: str) -> Iterator[str]:
    """IV and ciphertext as two texts with a sign between them, joined as iv‖ciphertext."""
    for sign in ":.|,$":
        first, found, second = text.partition(sign)
        for outputs in product(Output, Output) if found else ():
            iv, rest = decode(first, outputs[0]), decode(second, outputs[1])
            if iv and rest and len(iv) == BLOCK:
                yield (iv + rest).hex()


def _inner(*pairs: tuple[Output, Output]) -> Callable[[str], Iterator[str]]:
    def undo(text: str) -> Iterator[str]:
        for outer, inner in pairs:
            raw = decode(text, outer)
            if raw and raw.isascii() and decode(raw.decode("ascii").strip(), inner):
                yield raw.decode("ascii").strip()

    return undo


_BASE64 = (Output.BASE64, Output.BASE64URL)

# Where two of them undo a text in the same way the first gives the name: hex digits are base64 as well.
TEXT_MISTAKES = (
    TextMistake(
        Mistake(
            "whole body",
            "this is the whole JSON body, not the ciphertext in it",
            "decrypt the text of its field, `data` in a notice",
        ),
        _from_body,
    ),
    TextMistake(
        Mistake("quotes", "quotes stand round the ciphertext, copied along from JSON or code", "take them off"),
        _unquoted,
    ),
    TextMistake(
        Mistake(
            "JSON escapes",
            r"the ciphertext is JSON source, not its value: PHP's json_encode writes / as \/, Java's Gson = as \u003d",
            "parse the body with a JSON parser instead of cutting the text out of it",
        ),
        _json_unescaped,
    ),
    TextMistake(
        Mistake(
            "percent-encoded",
            "the ciphertext is percent-encoded, as in a URL or a form",
            "decode it once with urldecode, or read the body as JSON",
        ),
        lambda text: iter([unquote(text)]),
    ),
    TextMistake(
        Mistake(
            "plus turned into blank",
            "a form decoder has turned every + of the base64 into a blank",
            "read the body as it is (PHP: php://input, not $_POST), or percent-encode it before it is sent as a form",
        ),
        _plus_for_blank,
    ),
    TextMistake(
        Mistake(
            "line breaks",
            "blanks or line breaks stand within the text: MIME base64, chunk_split, `base64` without -w0",
            "take all white space out before decoding (Java: getMimeDecoder), or encode without line breaks",
        ),
        _without_blanks,
    ),
    TextMistake(
        Mistake(
            "wrong =",
            "the = at the end are missing, too many, or don't belong to this alphabet (base64url is written without)",
            "fill base64 up with = to a multiple of four characters, or decode base64url after taking = off",
        ),
        _with_equals,
    ),
    TextMistake(
        Mistake(
            "mixed alphabets",
            "- and _ of base64url stand beside + and / of base64: translated only in part",
            "translate both signs (PHP: strtr($data, '-_', '+/'))",
        ),
        _one_alphabet,
    ),
    TextMistake(
        Mistake(
            "IV apart in front",
            "the IV stands in front as a text of its own, with a sign between them, as many Node samples write it",
            'join the bytes (iv‖ciphertext) before encoding: iv_mode = "random_prefix"',
        ),
        _iv_before_colon,
    ),
    TextMistake(
        Mistake("dressed hex", "hex with 0x, blanks or colons between its digits", "write the bare digits"), _plain_hex
    ),
    TextMistake(
        Mistake(
            "hex twice",
            "encoded as hex twice",
            "encode once",
        ),
        _inner((Output.HEX, Output.HEX)),
    ),
    TextMistake(
        Mistake(
            "base64 of hex",
            "hex that was encoded as base64: the digits were encoded, not the bytes",
            "decode the hex first, or send it as it is",
        ),
        _inner(*((outer, Output.HEX) for outer in _BASE64)),
    ),
    TextMistake(
        Mistake(
            "base64 twice",
            "encoded as base64 twice: PHP code that leaves OPENSSL_RAW_DATA out gets base64 already,"
            " and encodes it again",
            "leave the further base64_encode out, or pass OPENSSL_RAW_DATA",
        ),
        _inner(*product(_BASE64, _BASE64)),
    ),
    TextMistake(
        Mistake(
            "hex of base64",
            "base64 written as hex: bin2hex of what openssl_encrypt gave without OPENSSL_RAW_DATA",
            "pass OPENSSL_RAW_DATA, or leave bin2hex out",
        ),
        _inner(*((Output.HEX, inner) for inner in _BASE64)),
    ),
)


def meant(text: str, depth: int = 3) -> dict[str, tuple[Mistake, ...]]:
    """The texts that may have been meant, each by the fewest mistakes; the text itself by none."""
    found: dict[str, tuple[Mistake, ...]] = {text: (), text.strip(): ()}
    latest = list(found)
    for _ in range(depth):
        fresh: dict[str, tuple[Mistake, ...]] = {}
        for one, known in ((one, known) for one in latest for known in TEXT_MISTAKES):
            for other in known.undo(one):
                if other and other not in found:
                    fresh.setdefault(other, (*found[one], known.mistake))
        found |= fresh
        latest = list(fresh)
    return found
