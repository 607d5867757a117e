"""A text tried under every reading, and the trials held against one another: one alone can look right by luck."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dispatcher.ground.crypto import BLOCK, IvMode, KeyEncoding, Output, Padding
from dispatcher.seal import Seal, decrypt_raw
from dispatcher.verify.plaintext import Opened, Worth, weigh
from dispatcher.verify.readings import Material, Reading, decode, key_text_size, readings

ANOTHER_IV = "key is right, IV is wrong: another IV gives a whole JSON object"
LIKELIER_IV = "key is right, IV is likely wrong: another IV gives what is more like a text"
IV_IN_FRONT = 'key is right, IV is wrong: each message has its own in front (iv_mode = "random_prefix")'
EITHER_OR = (
    "key is right, IV is not certain: either each message has its own in front and this is the whole text,"
    " or the IV is wrong and this is the text from byte 16 on"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a reading makes of a text. `plaintext` only where it decrypts; `tail` is what stands from byte 16 on."""

    reading: Reading
    worth: Worth
    plaintext: str | None
    tail: str | None
    note: str
    ciphertext: str | None = None

    @property
    def decrypts(self) -> bool:
        return self.worth >= Worth.TEXT


def try_all(material: Material, text: str) -> list[Trial]:
    """Every reading of a ciphertext, the best first; equals keep the order of the contract."""
    trials = [_trial(material, reading, text) for reading in readings(material)]
    trials = [_against(trial, trials, material, text) for trial in trials]
    return sorted(trials, key=lambda trial: -trial.worth)


def make_all(material: Material, plaintext: str) -> list[Trial]:
    """What a right implementation sends for a plaintext, in every reading."""
    return [_made(reading, plaintext) for reading in readings(material)]


def opened(reading: Reading, raw: bytes) -> Opened:
    """What a reading makes of a ciphertext's bytes."""
    iv, blocks = (raw[:BLOCK], raw[BLOCK:]) if reading.iv is None else (reading.iv, raw)
    if not blocks or len(raw) % BLOCK:
        return Opened(Worth.NOTHING, None, _no_blocks(len(raw), prefixed=reading.iv is None))
    return weigh(decrypt_raw(reading.key, iv, blocks), reading.padding)


def _no_blocks(count: int, *, prefixed: bool) -> str:
    if prefixed and count == BLOCK:
        return "has no block after the IV in front of it"
    return f"{count} bytes are no ciphertext: AES-CBC gives whole blocks of {BLOCK}"


def _trial(material: Material, reading: Reading, text: str) -> Trial:
    raw = decode(text, reading.output)
    if raw is None:
        return Trial(reading, Worth.NOTHING, None, None, f"the text is no {reading.output}")
    worth, given, note = opened(reading, raw)
    if worth >= Worth.TEXT:
        return Trial(reading, worth, given, None, "; ".join([note, *_remarks(material, reading, text)]))
    return Trial(reading, worth, None, given, note)


def _remarks(material: Material, reading: Reading, text: str) -> Iterable[str]:
    """What to know of settings that decrypt, because others get them wrong."""
    have, size = key_text_size(material, reading), len(reading.key)
    if reading.key_encoding is KeyEncoding.UTF8_FIRST16 and have > size:
        yield f"the key is cut from {have} to 16 bytes, as PHP's openssl_encrypt does without a word"
    if reading.key_encoding is KeyEncoding.UTF8 and size > BLOCK:
        yield f"the key's {size} characters are its bytes: AES-{8 * size}, whatever a document says"
    if reading.padding is Padding.ZERO:
        yield "filled up with zeros, or not padded at all (OPENSSL_ZERO_PADDING in PHP pads nothing itself)"
    if reading.output is Output.BASE64URL and len(text) % 4 and not set(text) & set("-_"):
        yield "base64url, or base64 that has lost its ="


def _against(trial: Trial, trials: list[Trial], material: Material, text: str) -> Trial:
    """The same trial, lower where another of the same key shows that its IV only seemed right."""
    if trial.worth not in (Worth.TAIL, Worth.TEXT):
        return trial
    same = [other for other in trials if other.reading.key == trial.reading.key and other.decrypts]
    whole = [other for other in same if other.worth is Worth.JSON]
    if whole:
        in_front = any(other.reading.iv_mode is IvMode.RANDOM_PREFIX for other in whole)
        return _lowered(trial, IV_IN_FRONT if in_front else ANOTHER_IV)
    if trial.worth is Worth.TAIL:
        return trial
    if trial.reading.iv_mode is IvMode.RANDOM_PREFIX and not _surely_in_front(trial, same, material, text):
        return _lowered(trial, EITHER_OR)
    likeliest = max(same, key=_likeness)
    return trial if likeliest.plaintext == trial.plaintext else _lowered(trial, LIKELIER_IV)


def _surely_in_front(trial: Trial, same: list[Trial], material: Material, text: str) -> bool:
    """Whether a text without its first block can be the whole: nothing in it says so, as a JSON object's braces do."""
    raw = decode(text, trial.reading.output) or b""
    if raw[:BLOCK] in [iv for _, iv in material.iv_bytes()]:
        return True
    another = any(other.reading.iv_mode is not IvMode.RANDOM_PREFIX for other in same)
    return not (material.ivs or another or (trial.plaintext or "").rstrip().endswith(("}", "]")))


def _likeness(trial: Trial) -> tuple[bool, bool, int]:
    """How much a text is like one. Two IVs that are both ASCII can both give signs in its first block.

    Only the likeliest is ever shown: the difference between two of them is the difference between two IVs.
    """
    signs = sum(sign.isalnum() or sign == " " for sign in (trial.plaintext or "")[:BLOCK])
    return trial.reading.padding is Padding.PKCS7, trial.reading.iv_mode is not IvMode.RANDOM_PREFIX, signs


def _lowered(trial: Trial, note: str) -> Trial:
    """Below the text that it seemed to be; under an IV in front the tail is all there was."""
    text = trial.plaintext
    if text is not None and trial.reading.iv_mode is not IvMode.RANDOM_PREFIX:
        text = text.encode()[BLOCK:].decode(errors="ignore")
    return replace(trial, worth=Worth.TAIL, plaintext=None, tail=trial.tail if text is None else text, note=note)


def _made(reading: Reading, plaintext: str) -> Trial:
    sealed = Seal(reading.crypto()).seal(plaintext.encode())
    note = "another one each time: the IV in front is random" if reading.iv is None else "the same each time"
    if reading.padding is Padding.ZERO and plaintext.endswith("\0"):
        note += "; zeros that end the plaintext are lost with the padding"
    return Trial(reading, Worth.TEXT, plaintext, None, note, sealed)
