"""Where the store is: the file of an SQLite database, or a PostgreSQL database on its server. Pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dispatcher.secret import Secret


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database. `url` may hold its password; `shown`, which is its text, never does."""

    url: Secret
    shown: str

    def __str__(self) -> str:
        return self.shown


Place: TypeAlias = Path | Server
