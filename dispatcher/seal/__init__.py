"""Encryption of one attempt's data (wire-contract.md, The cipher, in truth). The one room that knows `cryptography`."""

import base64
import binascii
import os

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from dispatcher.ground.crypto import BLOCK, CryptoReading, Output, Padding
from dispatcher.ground.errors import DispatcherError

_PKCS7 = PKCS7(8 * BLOCK)


class SealError(DispatcherError):
    """A text can't be decrypted with this key, IV and these settings."""


class Seal:
    """Seals and opens text with one operator's key. Holds one key schedule. For one thread at a time."""

    def __init__(self, reading: CryptoReading) -> None:
        self._reading = reading
        self._algorithm = AES(reading.key)
        self._last = bytes(BLOCK)
        self._encryptor = Cipher(self._algorithm, CBC(self._last)).encryptor()

    def seal(self, plaintext: bytes) -> str:
        """Pad, encrypt, encode. With an IV per message the result is the encoding of iv‖ciphertext."""
        fixed = self._reading.iv
        if fixed is not None:
            return _encode(self._encrypt(self._pad(plaintext), fixed), self._reading.output)
        iv = os.urandom(BLOCK)
        return _encode(iv + self._encrypt(self._pad(plaintext), iv), self._reading.output)

    def _encrypt(self, padded: bytes, iv: bytes) -> bytes:
        """CBC with this IV, by the one context: to make a new one would cost as much as all the rest of a message.

        CBC adds (xor) to each block the ciphertext before it. The context adds to the first block of this message the
        last one that it wrote; that, added here as well, cancels out, and what remains is the IV.
        """
        if not padded:
            return b""
        first = int.from_bytes(padded[:BLOCK], "big") ^ int.from_bytes(self._last, "big") ^ int.from_bytes(iv, "big")
        written = self._encryptor.update(first.to_bytes(BLOCK, "big") + padded[BLOCK:])
        self._last = written[-BLOCK:]
        return written

    def open(self, text: str) -> bytes:
        """The plaintext. Raises SealError without saying which step failed: the text comes from outside."""
        try:
            raw = _decode(text, self._reading.output)
            iv = self._reading.iv
            if iv is None:
                iv, raw = raw[:BLOCK], raw[BLOCK:]
            return self._unpad(_finish(Cipher(self._algorithm, CBC(iv)).decryptor(), raw))
        except ValueError:
            raise SealError("the data can't be decrypted with this key, IV and these settings") from None

    def _pad(self, plaintext: bytes) -> bytes:
        if self._reading.padding is Padding.ZERO:
            return plaintext + bytes(-len(plaintext) % BLOCK)
        missing = BLOCK - len(plaintext) % BLOCK
        return plaintext + bytes([missing]) * missing

    def _unpad(self, padded: bytes) -> bytes:
        if self._reading.padding is Padding.ZERO:
            return padded.rstrip(b"\0")
        unpadder = _PKCS7.unpadder()
        return unpadder.update(padded) + unpadder.finalize()


def decrypt_raw(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """The blocks as they are, padding and all: for those who must see what is wrong with it. Raises SealError."""
    try:
        return _finish(Cipher(AES(key), CBC(iv)).decryptor(), ciphertext)
    except ValueError:
        raise SealError("the key, the IV or the ciphertext has an impossible size") from None


def _finish(context: CipherContext, data: bytes) -> bytes:
    return context.update(data) + context.finalize()


def _encode(raw: bytes, output: Output) -> str:
    match output:
        case Output.BASE64:
            return binascii.b2a_base64(raw, newline=False).decode("ascii")
        case Output.BASE64URL:
            return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
        case Output.HEX:
            return raw.hex()


def _decode(text: str, output: Output) -> bytes:
    match output:
        case Output.BASE64:
            return base64.b64decode(text, validate=True)
        case Output.BASE64URL:
            return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        case Output.HEX:
            return binascii.unhexlify(text)
