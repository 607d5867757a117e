"""What becomes of an SQLite file behind our back: cut off by a broken copy, or gone from its place while it is used.

SQLite notices the one when it happens to read what is missing, and the other never.
"""

from pathlib import Path

from dispatcher.ground.errors import Refused, StoreUnavailable

# The file format's own words: https://sqlite.org/fileformat2.html, 1.3.
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_BACKUP = "put the whole file there, or a backup"


def refuse_cut_off(path: Path) -> None:
    """Raises Refused for a file that is shorter than it says itself, or empty where a worker was at work; OSError."""
    if not path.is_file():
        return
    header = _header(path)
    left = [] if header else [beside for beside in map(path.with_name, _beside(path)) if beside.exists()]
    # Looked at once more: whoever makes it at this moment writes into it before anything stands beside it.
    if left and not _header(path):
        told = f"the database {path} is empty, and {left[0].name} beside it says that it was not always"
        raise Refused(f"{told}; {_BACKUP}; to begin anew, delete it")
    size, wanted = path.stat().st_size, _bytes_wanted(header)
    # What its log holds is not in the file yet, and SQLite puts it there. Without a log it is whole, or never will be.
    if size < wanted and not _has_log(path) and path.stat().st_size == size:
        raise Refused(f"the database {path} is cut off: of {wanted} bytes it has {size}; {_BACKUP}")


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _beside(path: Path) -> list[str]:
    return [f"{path.name}-{what}" for what in ("wal", "worker", "key")]


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _bytes_wanted(header: bytes) -> int:
    """How long the file is by its own account; 0 where it gives none."""
    if len(header) < _HEADER_BYTES:
        return _HEADER_BYTES if header and (_MAGIC.startswith(header) or header.startswith(_MAGIC)) else 0
    page, pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
    counts = header.startswith(_MAGIC) and header[24:28] == header[92:96]
    return (65_536 if page == 1 else page) * pages if counts else 0


class Footing:
    """The file that stands there now. What is written into one that has lost its name nobody finds again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first = self._standing()

    def _standing(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def hold(self) -> None:
        """Raises StoreUnavailable where it stands there no more."""
        standing = self._standing()
        if standing is None or standing != self._first:
            what = "is gone" if standing is None else "is not the file that was opened, but another"
            raise StoreUnavailable(f"the database {self._path} {what}; put it back, or stop this process")
