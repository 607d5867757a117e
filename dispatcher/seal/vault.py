"""Secrets at rest: AES-256-GCM under a master key that stands outside of the database.

Who has the database alone can't read them; who has lost the key's file can't either.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.ground.errors import ConfigError, DispatcherError, Fault, Unfit
from dispatcher.ground.secret import SecretBytes

KEY_SIZE = 32
_NONCE = 12
_TAG = 16
_ANEW = "put back what stood there, or set it anew"
_SEALED = re.compile(r"([0-9a-f]{8})\.([A-Za-z0-9_-]+)", re.ASCII)


class VaultError(DispatcherError):
    """A sealed text can't be opened; says why, never what is in it."""


class MasterKey:
    """The key that everything at rest is sealed under. Nothing prints it; only `reveal` gives its text."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = SecretBytes(raw)

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        """The key that this text means, blanks around it aside. Raises Unfit, which never shows the text."""
        text = text.strip()
        try:
            # No text is fit both ways: 64 characters of base64 are 48 bytes.
            raw = binascii.unhexlify(text) if len(text) == 2 * KEY_SIZE else base64.b64decode(text, validate=True)
        except ValueError:
            raw = b""
        if len(raw) != KEY_SIZE:
            told = "is no master key (32 bytes as standard base64, or 64 hex characters)"
            raise Unfit(told, "`dispatcher init` makes one")
        return cls(raw)

    @classmethod
    def fresh(cls) -> "MasterKey":
        """A key that nobody has had before."""
        return cls(secrets.token_bytes(KEY_SIZE))

    @property
    def key_id(self) -> str:
        """8 hex characters that tell one key from the next and give nothing of it away."""
        return hashlib.blake2b(self._raw, digest_size=4, person=b"master-key-id").hexdigest()

    def reveal(self) -> str:
        """The key as text that `parse` reads."""
        return base64.b64encode(self._raw).decode("ascii")

    def cipher(self) -> AESGCM:
        """What seals and opens under this key; it may be used again and again, by several threads."""
        return AESGCM(self._raw)

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._raw, other._raw) if isinstance(other, MasterKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __repr__(self) -> str:
        return f"MasterKey({self.key_id})"

    __str__ = __repr__


class Vault:
    """Locks under the current master key, unlocks under any that is given. Holds one key schedule for each.

    Nonces are random: under one key, 2**32 texts have a chance of 1 in 2**33 that two share theirs. Whoever locks
    so many gives a fresh key and keeps this one among the former.
    """

    def __init__(self, current: MasterKey, *former: MasterKey) -> None:
        self.current_id = current.key_id
        self._current = current.cipher()
        # The current one last, so that it wins should a former one be the same.
        self._ciphers = {key.key_id: key.cipher() for key in former} | {self.current_id: self._current}

    def lock(self, plaintext: bytes, about: str) -> str:
        """The sealed text, another one each time; `about` says what the secret belongs to and isn't kept in it."""
        nonce = os.urandom(_NONCE)
        return f"{self.current_id}.{_encode(nonce + self._current.encrypt(nonce, plaintext, about.encode()))}"

    def unlock(self, sealed: str, about: str) -> bytes:
        """The plaintext. Raises VaultError: sealed under a key that isn't given, changed, or of something else."""
        key_id, raw = _parts(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise VaultError(
                f"it is sealed under master key {key_id}, which is not given;"
                " give it as secrets.master_key or secrets.former_master_key"
            )
        try:
            return cipher.decrypt(raw[:_NONCE], raw[_NONCE:], about.encode())
        except InvalidTag:
            raise VaultError(f"it was changed since it was sealed, or was sealed for another place; {_ANEW}") from None

    def is_current(self, sealed: str) -> bool:
        """False where it says that it is sealed under another key than the current: lock it anew."""
        return sealed.startswith(f"{self.current_id}.")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _parts(sealed: str) -> tuple[str, bytes]:
    """The key's id, and nonce‖ciphertext‖tag. Raises VaultError, which doesn't show what may be an open secret."""
    found = _SEALED.fullmatch(sealed)
    if found:
        key_id, text = found.groups()
        with suppress(ValueError):
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            # One sealed text has one spelling: whatever was changed in it is told, spare bits too.
            if len(raw) >= _NONCE + _TAG and _encode(raw) == text:
                return key_id, raw
    raise VaultError(f"it is no sealed text, or was cut off; {_ANEW}")


def read_or_make_key_file(path: Path, *, make: bool) -> MasterKey:
    """The master key in this file; made first where `make` says so and nothing stands there.

    Processes that start at once end with one key, which is on disk before any of them has it. Raises ConfigError
    where the file is missing, can't be read or made, or holds no key; never shows what it holds.
    """
    if make and not os.path.lexists(path):
        try:
            # Another process may be quicker: then its key is the key.
            with suppress(FileExistsError):
                write_new(path, MasterKey.fresh().reveal() + "\n")
        except OSError as error:
            told = f"can't be made ({error.strerror})"
            raise _faulty(path, told, "mend its folder's rights or space, or name another file") from None
    key = _read(path)
    if make:
        # Another process may have made it this moment: if the power goes before its name is on disk, the key is lost,
        # and with it whatever we seal under it. Where the folder can't be opened, the key was put there by hand.
        with suppress(OSError):
            _sync_folder(path.parent)
    return key


def too_open(path: Path) -> bool:
    """True where others than its owner can do anything with this file. Raises OSError where there is none."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def write_new(path: Path, text: str) -> None:
    """A new file for its owner alone, which nobody ever sees half-written; on disk, name and all, on return.

    Raises FileExistsError where something stands there, which is left as it is, and OSError; then no trace is left.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # Before it gets its name: if the power goes, the name must not lead to an empty file.
            os.fsync(file.fileno())
        # Unlike a rename, a link never takes another's place.
        os.link(unfinished, path)
    finally:
        # If the power goes before, a hidden file stays behind, for its owner alone like the other.
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _read(path: Path) -> MasterKey:
    try:
        # What isn't ASCII is no key either way, and `parse` has the sentence for that.
        return MasterKey.parse(path.read_text("ascii", errors="replace"))
    except Unfit as unfit:
        mend = "put the right file back; where nothing is stored yet, remove it and `dispatcher init` makes one"
        raise _faulty(path, unfit.fault, mend) from None
    except FileNotFoundError:
        told = "is missing: without it what is stored can't be read"
        mend = (
            "put the file back, or name the one that has the key in secrets.master_key_file (`dispatcher init` makes"
            " master.key); if the key is lost, give another, and hand in again what is reported as lost"
        )
        raise _faulty(path, told, mend) from None
    except OSError as error:
        raise _faulty(path, f"can't be read ({error.strerror})", "give the dispatcher the right to read it") from None


def _faulty(path: Path, fault: str, mend: str) -> ConfigError:
    return ConfigError([Fault(str(path), fault, mend)])


def _sync_folder(folder: Path) -> None:
    """A file's name is on disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
