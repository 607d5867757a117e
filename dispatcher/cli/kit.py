"""`dispatcher kit`: what an operator's people need to take our callbacks, for their actual settings."""

import os
from collections.abc import Mapping
from pathlib import Path

import click

from dispatcher.cli.common import print_json, read_configuration, scripted
from dispatcher.cli.opening import operator_named
from dispatcher.ground.errors import Refused
from dispatcher.ground.fields import printable


@click.command("kit")
@click.argument("operator")
@click.option(
    "-o",
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where to; kit-OPERATOR unless given.",
)
@click.option("--force", is_flag=True, help="Also into a folder that has files; those of the kit are written over.")
@scripted
def command(operator: str, folder: Path | None, force: bool, config_path: Path, as_json: bool) -> None:
    """Write the integration kit of OPERATOR: what its people need to take our callbacks.

    A document in Chinese and English, test vectors under throw-away keys, and a complete receiver in PHP, Java, Node,
    Go, Python and C#, all for this operator's own settings. No secret of the operator's is in it.
    """
    from dispatcher.kit import kit_files

    files = kit_files(operator_named(read_configuration(config_path), operator))
    folder = folder or Path(f"kit-{operator}")
    _write(folder, files, force=force)
    if as_json:
        print_json({"operator": operator, "folder": str(folder), "files": list(files)})
    else:
        for name in files:
            click.echo(printable(str(folder / name)))


def _write(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Each file whole or not at all: what stands under its name is exchanged at once."""
    shown = printable(str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise Refused(f"{shown} is not empty; name another folder with -o, or write over its files with --force")
        for name, text in files.items():
            fresh = folder / f".{name}.new"
            fresh.write_text(text, "utf-8", newline="\n")
            os.replace(fresh, folder / name)
    except OSError as error:
        raise Refused(f"{shown} can't be written ({error.strerror}); mend it, or name another with -o") from None
