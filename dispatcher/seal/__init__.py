"""Encryption of one attempt's data (wire-contract.md, The cipher, in truth). The one room that knows `cryptography`."""

import base64
import binascii
import os

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from dispatcher.crypto import BLOCK, CryptoReading, Output, Padding
from dispatcher.errors import DispatcherError

_PKCS7 = PKCS7(8 * BLOCK)


class SealError(DispatcherError):
    """A text can't be decrypted with this key, IV and these settings."""


class Seal:
    """Seals and opens text with one operator's key. Holds one key schedule; each message gets its own context."""

    def __init__(self, reading: CryptoReading) -> None:
        self._reading = reading
        self._algorithm = AES(reading.key)
        self._cipher = None if reading.iv is None else Cipher(self._algorithm, CBC(reading.iv))

    def seal(self, plaintext: bytes) -> str:
        """Pad, encrypt, encode. With an IV per message the result is the encoding of iv‖ciphertext."""
        iv = b""
        cipher = self._cipher
        if cipher is None:
            iv = os.urandom(BLOCK)
            cipher = Cipher(self._algorithm, CBC(iv))
        encryptor = cipher.encryptor()
        ciphertext = encryptor.update(self._pad(plaintext)) + encryptor.finalize()
        return _encode(iv + ciphertext, self._reading.output)

    def open(self, text: str) -> bytes:
        """The plaintext. Raises SealError without saying which step failed: the text comes from outside."""
        try:
            raw = _decode(text, self._reading.output)
            cipher = self._cipher
            if cipher is None:
                cipher, raw = Cipher(self._algorithm, CBC(raw[:BLOCK])), raw[BLOCK:]
            return self._unpad(_finish(cipher.decryptor(), raw))
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
