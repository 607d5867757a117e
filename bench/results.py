"""What was measured, when and on what: kept as JSON, so that a part's figures outlive a run without it."""

import datetime
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.deadline import Failed, Missing, deadline

Cell = float | str | None


@dataclass(frozen=True, slots=True)
class Stamp:
    """When, at which commit of the sources, on which machine."""

    at: str
    commit: str
    machine: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a part's table; `fault` says why there are no figures, or that some are wanting."""

    name: str
    cells: dict[str, Cell] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Stamped:
    row: Row
    stamp: Stamp


class Results:
    """Rows by part. `put` replaces a row in its place, `keep_only` drops what a run of the part brought no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: dict[str, dict[str, Stamped]] = {}
        if path.exists():
            for part, rows in json.loads(path.read_text("utf-8")).items():
                read = (Stamped(Row(**one["row"]), Stamp(**one["stamp"])) for one in rows)
                self.parts[part] = {one.row.name: one for one in read}

    def put(self, part: str, row: Row, stamp: Stamp) -> None:
        self.parts.setdefault(part, {})[row.name] = Stamped(row, stamp)

    def keep_only(self, part: str, names: Iterable[str]) -> None:
        """In this order."""
        rows = self.parts.get(part, {})
        self.parts[part] = {name: rows[name] for name in names}

    def save(self) -> None:
        told = {part: [asdict(one) for one in rows.values()] for part, rows in sorted(self.parts.items())}
        self._path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")


def attempted(name: str, seconds: float, measure: Callable[[], dict[str, Cell]]) -> Row:
    """The row that `measure` brings within its deadline, or one that says why it brought none."""
    try:
        with deadline(seconds):
            return Row(name, measure())
    except Exception as error:
        return Row(name, fault=fault(error))


def fault(error: Exception) -> str:
    """One line for a table."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Missing):
        return f"skipped: {words}"
    return f"failed: {words}" if isinstance(error, Failed) else f"failed: {type(error).__name__}: {words}"


def stamp(machine: str) -> Stamp:
    return Stamp(datetime.datetime.now(datetime.UTC).date().isoformat(), _commit(), machine)


def _commit() -> str:
    """The sources' commit, with a plus where they differ from it."""
    here = Path(__file__).parent
    try:
        found = [
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "../dispatcher"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0] + "+" * bool(found[1])


def stamps(rows: Iterable[Stamped]) -> Iterator[tuple[Stamp, list[str]]]:
    """Each stamp with the names of its rows."""
    groups: dict[Stamp, list[str]] = {}
    for one in rows:
        groups.setdefault(one.stamp, []).append(one.row.name)
    yield from groups.items()
