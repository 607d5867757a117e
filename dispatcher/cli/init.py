"""`dispatcher init`: a configuration and a master key to start with."""

import os
import secrets
import shlex
import string
from collections.abc import Sequence
from pathlib import Path

import click

from dispatcher.cli.common import print_json, scripted
from dispatcher.ground.errors import Refused
from dispatcher.ground.fields import printable
from dispatcher.seal.vault import MasterKey, write_new

KEY_FILE = "master.key"

_CONFIG = """\
# Made by `dispatcher init`, as a start; config.example.toml has every setting with its meaning.
# It holds secrets: they can come from the environment or from files as well (token_env, token_file, key_env, …).

[database]
url = "sqlite:///dispatcher.db"          # a relative path is relative to this file

[secrets]
master_key_file = "{key_file}"           # what the database keeps secret is sealed under it: back it up elsewhere

[egress]
allow = []                               # CIDRs outside the public internet that may be called, like "10.1.0.0/16"

[web]
listen = "127.0.0.1:8080"                # "" turns it off

# One table for each operator; its name is what events carry in their field "operator".
# Everything about this one is made up: write what your operator gave you.
[operators.acme]
notice_url = "https://acme.example/Demo/notice"
token = "{token}"

[operators.acme.crypto]
key = "{key}"
iv = "{iv}"
key_encoding = "utf8"                    # what the key's text means: "utf8", "hex", "base64", "utf8_first16"
cipher = "aes-128-cbc"                   # or "aes-192-cbc", "aes-256-cbc"
"""


@click.command(name="init")
@click.option(
    "--master-key", "alone", type=click.Path(dir_okay=False, path_type=Path), help="Only a fresh master key, there."
)
@scripted
def command(alone: Path | None, config_path: Path, as_json: bool) -> None:
    """Write a configuration to edit, and a master key beside it. Overwrites nothing; both are for you alone."""
    if alone is not None:
        _only_key(alone, as_json)
        return
    # First: a name that is not UTF-8 text could be written and not be told.
    str(config_path).encode()
    key_path, key = config_path.parent / KEY_FILE, MasterKey.fresh()
    # A link that leads nowhere stands there too.
    _refuse_to_overwrite([path for path in (config_path, key_path) if os.path.lexists(path)])
    # The key first: a configuration never stands without it. If the power goes between, nothing is sealed under it yet,
    # and the next try names it as what is to be moved away.
    _write(key_path, key.reveal() + "\n")
    try:
        _write(config_path, _configuration())
    except BaseException:
        # Nothing was sealed under it, and it would be in the way of the next try.
        key_path.unlink(missing_ok=True)
        raise
    if as_json:
        print_json({"config": str(config_path), "master_key": str(key_path), "key_id": key.key_id})
    else:
        _tell(config_path, key_path, key.key_id)


def _only_key(path: Path, as_json: bool) -> None:
    """For an installation that has a configuration already, and gets a new master key."""
    key = MasterKey.fresh()
    _refuse_to_overwrite([path] if os.path.lexists(path) else [])
    _write(path, key.reveal() + "\n")
    if as_json:
        print_json({"master_key": str(path), "key_id": key.key_id})
    else:
        click.echo(f"made {printable(str(path))} (master key {key.key_id})")


def _refuse_to_overwrite(paths: Sequence[Path]) -> None:
    if paths:
        told = " and ".join(printable(str(path)) for path in paths)
        stands = "exists" if len(paths) == 1 else "exist"
        raise Refused(
            f"{told} {stands} already and won't be overwritten; move what is there away, or name a new folder with -c"
        )


def _write(path: Path, text: str) -> None:
    try:
        write_new(path, text)
    except FileExistsError:
        # Made since we looked: another `dispatcher init` runs beside us.
        _refuse_to_overwrite([path])
    except OSError as error:
        told = f"{printable(str(path))} can't be written ({error.strerror})"
        raise Refused(f"{told}; mend its folder, or name another file with -c") from None


def _configuration() -> str:
    """The text of the file, with secrets that were never anyone else's: no key is shipped that all the world knows."""
    return _CONFIG.format(key_file=KEY_FILE, token=secrets.token_urlsafe(24), key=_characters(), iv=_characters())


def _characters() -> str:
    """16 characters, each a byte: what most operators hand out as a key or an IV."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))


def _tell(config_path: Path, key_path: Path, key_id: str) -> None:
    config, key = printable(str(config_path)), printable(str(key_path))
    option = "" if config == "config.toml" else f" -c {shlex.quote(config)}"
    click.echo(f"made {config} and {key} (master key {key_id})")
    click.echo(f"Next: write your operator into {config}; `dispatcher check{option}`; `dispatcher run{option}`.")
    click.echo(f"Keep a copy of {key} apart from the database's backups: without it they can't be read.")
