"""`dispatcher verify`: the answer to "your data does not decrypt"."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatcher.cli.common import read_configuration, scripted
from dispatcher.cli.opening import operator_named
from dispatcher.ground.errors import listed

if TYPE_CHECKING:
    from dispatcher.verify.readings import Material

MAX_BYTES = 256 * 1024
_SECRET = ("key", "iv")


@click.command("verify")
@click.argument("words", nargs=-1, metavar="")
@click.option("--key", metavar="TEXT", help="The key as the operator hands it out; it stays in the shell's history.")
@click.option("--key-file", metavar="FILE", help="A file with the key, or - for standard input.")
@click.option("--iv", metavar="TEXT", help="The IV, likewise; left out where there is none.")
@click.option("--iv-file", metavar="FILE", help="A file with the IV, or -.")
@click.option("--operator", metavar="NAME", help="Key and IV of this operator, from the configuration.")
@click.option("--ciphertext", metavar="TEXT", help="What should decrypt: `data` of a notice.")
@click.option("--ciphertext-file", metavar="FILE", help="A file with it, or -.")
@click.option("--plaintext", metavar="TEXT", help="Instead: what a right implementation makes of this text.")
@click.option("--plaintext-file", metavar="FILE", help="A file with it, or -; a line end at its end is left out.")
@click.option("--all", "every", is_flag=True, help="With --plaintext: every reading, not the first few alone.")
@scripted
def command(
    words: tuple[str, ...], operator: str | None, every: bool, config_path: Path, as_json: bool, **given: str | None
) -> None:
    """What a key, an IV and a ciphertext make of each other, in every reading.

    Says which reading decrypts, or which known mistake explains why none does, what to write into the configuration,
    and what typical PHP, Java, Node, Go and Python code makes of those settings. On a terminal it asks for key and
    IV, without showing them, where neither a key nor --operator is given. Exit status 1 when no reading decrypts.
    """
    from dispatcher.cli.verdict import reach_verdict

    if words:
        # Not said again: they may be the rest of a key with a blank in it.
        raise click.UsageError(f"{len(words)} word(s) belong to no option: put a text with blanks into quotes")
    _check(given, operator)
    kind = "plaintext" if given["plaintext"] is not None or given["plaintext_file"] is not None else "ciphertext"
    if every and kind == "ciphertext":
        raise click.UsageError("--all belongs to --plaintext: of a ciphertext every reading is told; leave it out")
    text = _text(given, kind)
    material = _material(given) if operator is None else _from_configuration(config_path, operator)
    if not text and kind == "ciphertext":
        raise click.UsageError("the ciphertext is empty: write what should decrypt")
    sys.exit(reach_verdict(material, text or "", kind, every=every, as_json=as_json))


def _check(given: Mapping[str, str | None], operator: str | None) -> None:
    """Raises UsageError where the options contradict each other."""
    there = [name for name, value in given.items() if value is not None]
    options = {name: f"--{name.replace('_', '-')}" for name in given}
    for name in ("key", "iv"):
        if {name, f"{name}_file"} <= {*there}:
            raise click.UsageError(f"--{name} and --{name}-file say the same: keep one of them")
    if operator is not None and (both := [options[name] for name in there if name.partition("_")[0] in _SECRET]):
        raise click.UsageError(f"--operator takes key and IV from the configuration: leave out {both[0]}")
    texts = [options[name] for name in options if name.partition("_")[0] not in _SECRET]
    if (given_texts := sum(options[name] in texts for name in there)) != 1:
        raise click.UsageError(f"{given_texts or 'no'} texts are given; give exactly one of {listed(texts)}")
    if sum(given[name] == "-" for name in there if name.endswith("_file")) > 1:
        raise click.UsageError("only one text can come from standard input; give the others by files or options")


def _text(given: Mapping[str, str | None], name: str) -> str | None:
    """An option's text, or that of its file; None where neither is given. Secrets are read as `key_file` is."""
    file = given[f"{name}_file"]
    if file is None:
        return given[name]
    text = _read(f"--{name}-file", file)
    if name in _SECRET:
        return text.strip()
    return text.removesuffix("\n").removesuffix("\r")


def _read(option: str, file: str) -> str:
    """A file's text. Its name is never said again: who mixes up --key and --key-file has written a key there."""
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(file, "rb") as opened:
                raw = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "its name is none"
        raise click.UsageError(f"the file of {option} can't be read ({told}); check its path and rights") from None
    if len(raw) > MAX_BYTES:
        raise click.UsageError(f"the file of {option} is longer than {MAX_BYTES} bytes: give one message")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"the file of {option} is not UTF-8 text: write raw bytes as base64 or hex") from None


def _material(given: Mapping[str, str | None]) -> "Material":
    from dispatcher.verify.readings import Material

    key, iv = _text(given, "key"), _text(given, "iv")
    if key is None:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no key: give --key, --key-file or --operator")
        key = click.prompt("Key", hide_input=True, err=True)
        if iv is None:
            iv = click.prompt("IV (empty: none)", hide_input=True, err=True, default="", show_default=False)
    if not key:
        raise click.UsageError("the key is empty: write the key as the operator hands it out")
    return Material((key,), (iv,) if iv else ())


def _from_configuration(path: Path, name: str) -> "Material":
    from dispatcher.verify.readings import from_operator

    reading = operator_named(read_configuration(path), name).reading
    if reading is None:
        raise click.UsageError(f"--operator {name} has no crypto settings: give --key and --iv instead")
    return from_operator(reading)
