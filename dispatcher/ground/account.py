"""Accounts of the console: who somebody is, what they may do, how a password is kept. Pure but for chance.

Unlike an API key a password is chosen by a person, so it can be guessed: what is kept is made slow to try (scrypt).
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from dispatcher.ground.secret import Secret


class Role(StrEnum):
    """`operator`: the operator's own people, who look at what is theirs."""

    ADMIN = "admin"
    SUPPORT = "support"
    OPERATOR = "operator"


class Power(StrEnum):
    """Look; replay and resolve; pause and resume operators; make accounts."""

    VIEW = "view"
    MEND = "mend"
    STEER = "steer"
    GOVERN = "govern"


GRANTED: Mapping[Role, frozenset[Power]] = {
    Role.ADMIN: frozenset(Power),
    Role.SUPPORT: frozenset({Power.VIEW, Power.MEND, Power.STEER}),
    Role.OPERATOR: frozenset({Power.VIEW}),
}

# 32 MiB and some 0.2 s a try: the cost that OWASP names for scrypt at 32 MiB.
_N, _R, _P = 2**15, 8, 3
_MEMORY = 64 * 1024 * 1024
SHORTEST = 12
LONGEST = 256
NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}", re.ASCII)

# What people begin with where twelve characters are asked for; in small letters.
_WORDS = """
    password passwort passwd passphrase secret changeme letmein welcome administrator admin root superuser support
    operator dispatcher console casino jackpot money iloveyou princess sunshine football baseball basketball starwars
    pokemon monkey dragon master shadow superman batman michael trustno qwerty qwertyuiop asdfghjkl zxcvbnm qazwsx
    qazwsxedc woaini woaiwojia nihao mima computer internet whatever hello helloworld freedom company test testing
    tester user guest default example temporary login
"""
_COMMON = frozenset(_WORDS.split())
_LEET = str.maketrans("@4013$5!7", "aaoiessit")
_ROWS = (
    "12345678901234567890",
    "09876543210987654321",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl",
    "1qaz2wsx3edc4rfv",
)


class Account(NamedTuple):
    """One account; times in µs. `operator`: the only one that it sees, exactly with the role of that name."""

    name: str
    role: Role
    operator: str | None
    password: str
    created_at: int
    changed_at: int
    disabled_at: int | None = None
    last_login_at: int | None = None

    def may(self, power: Power) -> bool:
        return power in GRANTED[self.role]

    def sees(self, operator: str) -> bool:
        return self.operator in (None, operator)

    def __repr__(self) -> str:
        return f"Account({self.name}, {self.role}, {self.operator})"


def sealed(password: Secret) -> str:
    """What is kept of a password: the parameters, the salt and what scrypt makes of them."""
    salt = secrets.token_bytes(16)
    return _kept(salt, _scrypt(password, salt, _N, _R, _P))


def _kept(salt: bytes, made: bytes) -> str:
    return "$".join(("scrypt", str(_N), str(_R), str(_P), _text(salt), _text(made)))


def _scrypt(password: Secret, salt: bytes, n: int, r: int, p: int) -> bytes:
    given = password.reveal().encode("utf-8", "surrogatepass")
    return hashlib.scrypt(given, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class Weakness(StrEnum):
    """Why a password will not do."""

    SHORT = "short"
    LONG = "long"
    NAMED = "named"
    COMMON = "common"


def weakness(password: Secret, name: str) -> Weakness | None:
    """What is wrong with it as this account's; None where it will do.

    Length is what counts (NIST SP 800-63B): no rules of composition, but not what guessers begin with.
    """
    text = password.reveal()
    if len(text) < SHORTEST:
        return Weakness.SHORT
    if len(text) > LONGEST:
        return Weakness.LONG
    if len(name) > 3 and name in text.lower():
        return Weakness.NAMED
    return Weakness.COMMON if _is_common(text.lower()) else None


def _is_common(text: str) -> bool:
    """Few characters over and over, a row of the keyboard, one or two of the commonest words with figures around."""
    if len(set(text)) < 5 or any(_is_of(text, row) for row in _ROWS):
        return True
    # Figures at the end are mostly a year; elsewhere they stand for letters.
    stem = text.rstrip("0123456789!?.,*+#-_ ")
    plain = {re.sub(r"[^a-z]", "", one) for one in (text, stem, stem.translate(_LEET))}
    return any(one in _COMMON or any(one.removeprefix(word) in _COMMON for word in _COMMON) for one in plain)


def _is_of(text: str, row: str) -> bool:
    """Whether this row, over and over, is most of it."""
    runs = [row[:size] for size in range(len(row), 5, -1) if row[:size] in text]
    return bool(runs) and len(text.replace(runs[0], "")) * 2 < len(text)


def marked_browser(account: Account) -> str:
    """What tells the browser from which this account has logged in; void when the password is another one.

    It opens nothing. The key is what is kept of the password, which nobody outside has seen.
    """
    mark = secrets.token_hex(16)
    return f"{mark}.{_mark(account, mark)}"


def known_browser(account: Account | None, shown: str) -> str | None:
    """What tells this browser apart, where it was marked for this account."""
    mark, _, sealed_ = shown.partition(".")
    if account is None or not hmac.compare_digest(sealed_.encode("utf-8", "replace"), _mark(account, mark).encode()):
        return None
    return mark


def _mark(account: Account, mark: str) -> str:
    told = f"browser {account.name} {mark}".encode("utf-8", "replace")
    return hmac.new(account.password.encode(), told, hashlib.sha256).hexdigest()


@cache
def _nobodys() -> str:
    """Compared with where there is no such account, so that an unknown name takes as long as a wrong password."""
    salt, no_password = secrets.token_bytes(16), secrets.token_bytes(32)
    return _kept(salt, no_password)


def proves(password: Secret, account: Account | None) -> bool:
    """Whether this is the account's password. Takes as long for nobody's; some 0.2 s, so not on the event loop."""
    in_force = account if account is not None and account.disabled_at is None else None
    _, n, r, p, salt, made = (_nobodys() if in_force is None else in_force.password).split("$")
    tried = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(tried, base64.b64decode(made)) and in_force is not None


def fresh_token() -> Secret:
    """What the browser keeps of a session: 256 random bits."""
    return Secret(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="))


def digest(token: str) -> bytes:
    """What the store keeps of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def form_token(token: str) -> str:
    """What a session's own forms carry, and no other site's can know."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"form", hashlib.sha256).hexdigest()
