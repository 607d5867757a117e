"""What is written behind `operators set`: settings, what is taken away, secrets that never stand in a command line."""

import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dispatcher.config.operators import Defaults, operator_of
from dispatcher.ground.errors import Refused
from dispatcher.ground.settings import Report, Table

Keys = tuple[str, ...]

_SECRETS = "token, crypto.key, crypto.iv, oauth.client_secret, signature.secret, headers.NAME and what [tls] has"
_KINDS = (str, bool, int, float, list, dict)


def assignments(texts: Sequence[str], defaults: Defaults) -> list[tuple[Keys, Any]]:
    """`SETTING=VALUE` each, the value as in TOML with or without quotes. Raises UsageError, also for an open secret."""
    given = [_assignment(number, text) for number, text in enumerate(texts, start=1)]
    open_ones = [_told(path) for path in _leaves(given) if is_secret(path, defaults)]
    if open_ones:
        ways = "; ".join(f"--secret {name}, {name}_file=PATH or {name}_env=NAME" for name in open_ones)
        told = f"{', '.join(open_ones)}: a secret is never given as VALUE, where others can read it"
        raise click.UsageError(f"{told}; use {ways}; nothing was changed")
    return given


def _assignment(number: int, text: str) -> tuple[Keys, Any]:
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        # Not the text itself: it may be a secret that stands behind a blank.
        raise click.UsageError(
            f"setting {number} is no SETTING=VALUE: write e.g. concurrency=8 or crypto.cipher=aes-256-cbc"
        )
    try:
        read = tomllib.loads(f"x = {value}")
    except (ValueError, RecursionError):
        return path, value
    if len(read) > 1:
        # Not dropped unseen: whoever wrote them meant them.
        raise click.UsageError(f"setting {number} has more than one line: write each setting as an argument of its own")
    found = read["x"]
    # What looks like a date is text here: no setting is one.
    return path, found if isinstance(found, _KINDS) else value


def _leaves(given: Sequence[tuple[Keys, Any]]) -> Iterator[Keys]:
    # Without calling itself: dotted keys nest as deep as somebody cares to write them.
    rest = [*reversed(given)]
    while rest:
        path, value = rest.pop()
        if isinstance(value, Mapping):
            rest += reversed([((*path, key), below) for key, below in value.items()])
        else:
            yield path


def _told(path: Keys) -> str:
    return ".".join(path)


def is_secret(path: Keys, defaults: Defaults) -> bool:
    """True where this setting is read as a secret, whatever else an operator has."""
    raw: Any = "x"
    for part in reversed(path):
        raw = {part: raw}
    report = Report(Path())
    operator_of("x", Table(raw, (), report), defaults)
    return path in report.secrets


def asked(settings: Sequence[str], defaults: Defaults) -> list[tuple[Keys, str]]:
    """The secrets by name: asked for at a terminal, otherwise a line of standard input each, in order."""
    paths = [tuple(one.split(".")) for one in settings]
    for path in paths:
        if not is_secret(path, defaults):
            raise click.UsageError(f"--secret {_told(path)} is no secret of an operator; those are {_SECRETS}")
    return [(path, _ask(path)) for path in dict.fromkeys(paths)]


def _ask(path: Keys) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(_told(path), hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Refused(
            f"{_told(path)}: what came on standard input is not UTF-8 text; write it so; nothing was changed"
        ) from None
    if not text:
        raise Refused(
            f"{_told(path)}: no line came for it on standard input; write one for each --secret; nothing was changed"
        )
    return text


def changed(raw: dict[str, Any], given: Sequence[tuple[Keys, Any]], unset: Sequence[str]) -> None:
    """Puts settings into a table and takes others away, in place. Raises UsageError."""
    for path, value in given:
        _forget_other_forms(raw, path)
        below = _table(raw, path, make=True)
        below[path[-1]] = value
    for name in unset:
        path = tuple(name.split("."))
        below = _table(raw, path, make=False)
        if path[-1] not in below:
            there = ", ".join(map(_told, _leaves([((), raw)]))) or "nothing"
            raise click.UsageError(f"--unset {name}: that is not set; set are: {there}; nothing was changed")
        del below[path[-1]]


def _forget_other_forms(raw: dict[str, Any], path: Keys) -> None:
    """A secret that comes from a file or a variable takes the place of the one that is stored."""
    last = path[-1].removesuffix("_env").removesuffix("_file")
    if last != path[-1]:
        _table(raw, path, make=False).pop(last, None)


def _table(raw: dict[str, Any], path: Keys, *, make: bool) -> dict[str, Any]:
    """The table that this setting stands in; one that isn't there is made, or taken for an empty one."""
    for part in path[:-1]:
        below = raw.setdefault(part, {}) if make else raw.get(part, {})
        if not isinstance(below, dict):
            raise click.UsageError(
                f"{_told(path)}: {part} is no table; write {part} alone, or what is below a table; nothing was changed"
            )
        raw = below
    return raw
