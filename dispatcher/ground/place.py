"""Where the store is: the file of an SQLite database, or a PostgreSQL database on its server. Pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from dispatcher.ground.secret import Secret


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database. `url` may hold its password; `shown`, which is its text, never does."""

    url: Secret
    shown: str

    def __str__(self) -> str:
        return self.shown

    def hide(self, text: str) -> str:
        """A driver's sentence without the address's password, which it may quote."""
        parts = urlsplit(self.url.reveal())
        given = [parts.password or "", unquote(parts.password or ""), *parse_qs(parts.query).get("password", [])]
        for password in given:
            # Cut out of a sentence, a shorter one would be told by its gaps.
            text = text.replace(password, "…") if len(password) > 3 else text
        return text


Place: TypeAlias = Path | Server
