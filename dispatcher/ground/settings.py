"""Reading one TOML table: every fault at once, each with its key, what is wrong and what to write instead."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from dispatcher.ground.clock import parse_duration
from dispatcher.ground.errors import Fault, Unfit, choices, listed
from dispatcher.ground.fields import printable, probably, shown, unknown
from dispatcher.ground.secret import Secret

_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", re.ASCII)
# The longest secret is a bundle of certificates; a device has no end.
_MAX_FILE_BYTES = 4 * 1024 * 1024
D = TypeVar("D")
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


@dataclass
class Report:
    """What reading a configuration brings to light, beside its values. `secrets` is by the keys that lead there."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    secrets: dict[tuple[str, ...], Secret] = field(default_factory=dict)


class Table:
    """A table that is read key by key. Faults are collected; a faulty key gives its default and reading goes on."""

    def __init__(self, raw: object, path: tuple[str, ...], report: Report) -> None:
        self.path = path
        self.report = report
        self._known: list[str] = []
        self._begins = len(report.faults)
        if not isinstance(raw, Mapping):
            # Not its value: a key or token may stand where the table should.
            name = printable(".".join(path))
            self.fault("", "is not a table", f"write [{name}] with its keys below, each table once")
            raw = {}
        self.raw: Mapping[str, Any] = raw

    def at(self, key: str) -> str:
        return shown(".".join(part for part in (*self.path, key) if part), 200)

    def fault(self, key: str, fault: str, mend: str) -> None:
        self.report.faults.append(Fault(self.at(key), fault, mend))

    def warn(self, key: str, fault: str, mend: str) -> None:
        self.report.warnings.append(Fault(self.at(key), fault, mend))

    def faulty(self, key: str) -> bool:
        """True where the key, or its `_env` or `_file`, was given and refused."""
        return any(
            fault.where in (self.at(key), self.at(f"{key}_env"), self.at(f"{key}_file")) for fault in self.report.faults
        )

    def has(self, key: str) -> bool:
        self._known.append(key)
        return key in self.raw

    def names(self) -> list[str]:
        return list(self.raw)

    def table(self, key: str, preset: Mapping[str, Any] | None = None) -> "Table":
        """The table below `key`, empty where there is none; what it does not say, `preset` says."""
        raw = self.raw.get(key, {}) if self.has(key) else {}
        merged = {**preset, **raw} if preset and isinstance(raw, Mapping) else raw
        return Table(merged, (*self.path, key), self.report)

    def read(self, key: str, default: D, reader: Callable[[Any], T]) -> D | T:
        """The key's value by `reader`, which raises Unfit; the default where the key is absent or unfit."""
        if not self.has(key):
            return default
        try:
            return reader(self.raw[key])
        except Unfit as unfit:
            self.report.faults.append(unfit.at(self.at(key)))
            return default

    def integer(self, key: str, default: int, lowest: int, highest: int) -> int:
        def read(value: Any) -> int:
            if type(value) is not int or not lowest <= value <= highest:
                raise Unfit(
                    f"{shown(value)} is not a whole number from {lowest} to {highest}",
                    f"write e.g. {default}",
                )
            return value

        return self.read(key, default, read)

    def duration(self, key: str, default: int, lowest: int = 1) -> int:
        """Microseconds."""

        def read(value: Any) -> int:
            length = parse_duration(_text(value))
            if length < lowest:
                raise Unfit(f"{shown(value)} is too short", "write a longer duration")
            return length

        return self.read(key, default, read)

    def boolean(self, key: str, *, default: bool) -> bool:
        def read(value: Any) -> bool:
            if type(value) is not bool:
                raise Unfit(f"{shown(value)} is neither true nor false", "write true or false, without quotes")
            return value

        return self.read(key, default, read)

    def choice(self, key: str, default: E) -> E:
        return self.read(key, default, _one_of(type(default)))

    def choice_or_none(self, key: str, kind: type[E]) -> E | None:
        return self.read(key, None, _one_of(kind))

    def secret(self, key: str, *, private: bool = True) -> Secret | None:
        """`key`, or the text of the variable `key_env` or the file `key_file` (interface.md, Configuration).

        A file that others can read is warned of where its content is `private`.
        """
        given = [name for name in (key, f"{key}_env", f"{key}_file") if self.has(name)]
        if not given:
            return None
        if len(given) > 1:
            self.fault(key, f"is given {len(given)} times ({listed(given)})", "keep one of them")
            return None
        readers = {0: self._plain, 4: self._from_env, 5: lambda value: self._from_file(value, private=private)}
        secret = self.read(given[0], None, readers[len(given[0]) - len(key)])
        if secret is not None:
            self.report.secrets[(*self.path, key)] = secret
        return secret

    def _plain(self, value: Any) -> Secret | None:
        if type(value) is not str or not value:
            told = "is empty" if value == "" else "is not text"
            raise Unfit(told, 'write the secret in quotes: "…"')
        return Secret(value)

    def _from_env(self, value: Any) -> Secret | None:
        name = _text(value)
        text = os.environ.get(name)
        if not text:
            # What looks like no variable's name may be the secret itself, written under the wrong key.
            told = f"the environment variable {name}" if _VARIABLE.fullmatch(name) else "the environment variable"
            raise Unfit(f"{told} is not set", "write the variable's name, and set it where the dispatcher starts")
        if not text.isprintable() and any("\ud800" <= one <= "\udfff" for one in text):
            raise Unfit(f"the environment variable {name} is not UTF-8 text", "set it anew")
        return Secret(text)

    def _from_file(self, value: Any, *, private: bool) -> Secret | None:
        path = self.report.folder / _text(value)
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_FILE_BYTES + 1)
            text = raw.decode("utf-8").strip()
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise Unfit(f"names a file that can't be read ({told})", "check its path and rights") from None
        if len(raw) > _MAX_FILE_BYTES:
            raise Unfit(f"names a file of more than {_MAX_FILE_BYTES} bytes", "check its path: that is no secret")
        if not text:
            raise Unfit("names a file that is empty", "write the secret into it")
        if private and path.stat().st_mode & 0o077:
            self.warn("", f"the file {shown(str(path))} can be read by others", f"chmod 600 {path.name}")
        return Secret(text)

    def close(self) -> None:
        """Call last: whatever nobody asked for is unknown. That is told first: other faults here may come of it."""
        told = [unknown(name, sorted(set(self._known))) for name in self._strange()]
        faults = [Fault(self.at(one.where), one.fault, one.mend) for one in told]
        self.report.faults[self._begins : self._begins] = faults

    def meant(self) -> set[str]:
        """Call when all has been asked for: the keys that are probably meant by those that nobody asked for."""
        return {meant for name in self._strange() if (meant := probably(name, sorted(set(self._known))))}

    def _strange(self) -> list[str]:
        return [name for name in self.raw if name not in self._known]


def _one_of(kind: type[E]) -> Callable[[Any], E]:
    def read(value: Any) -> E:
        if value not in list(kind):
            raise Unfit(f"{shown(value)} is not known", f"write {choices(kind)}")
        return kind(value)

    return read


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Unfit(f"{shown(value)} is not text", "write it in quotes")
    return value
