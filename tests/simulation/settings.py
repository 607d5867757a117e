"""The configurations that worlds are played with: one for each of some numbers, read by the real reader."""

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from dispatcher.config import Config, read_config
from dispatcher.ground.clock import HOUR, SECOND
from dispatcher.ground.place import Server
from dispatcher.ground.secret import Secret

VARIANTS = 64
NAMES = ("ash", "birch", "cedar")
FOLDER = Path("/simulated")
# No longer than this a schedule goes on, with all that an operator may ask for (µs).
LONGEST = 90 * SECOND
RETENTION = HOUR

_TOP = """
[database]
url = "sqlite:///dispatcher.db"
[worker]
concurrency = {concurrency}
lease = "8s"
[web]
listen = ""
[secrets]
master_key = "{master_key}"
[retention]
delivered = "1h"
"""


def _operator(chance: Random, name: str, generation: int) -> str:
    """One operator's table; its key is of this generation, and all else hangs on `chance` alone."""
    seconds = [chance.choice((1, 1, 2, 3, 5, 15)) for _ in range(chance.randint(1, 3))]
    anchor = chance.choice(("previous", "previous", "first"))
    heeds = f', retry_after = "{chance.choice((5, 15))}s"' if chance.random() < 0.5 else ""
    every, window = chance.choice((2, 3, 5)), chance.choice((7, 15, 30))
    lines = [
        f"[operators.{name}]",
        f'notice_url = "https://{name}.example/Demo/notice"',
        f'callback_url = "https://{name}.example/wallet"',
        f'token = "the-token-of-{name}"',
        f"concurrency = {chance.choice((1, 2, 2, 3, 4))}",
        f'connect_timeout = "1s"\ntotal_timeout = "{chance.choice((2, 3, 4))}s"',
        f'crypto = {{ key = "key-{generation:04}-o-{name:.<5}", iv = "A1b2C3d4E5f6G7h8" }}',
    ]
    if chance.random() < 0.4:
        lines.append(f'breaker = {{ failures = {chance.randint(2, 4)}, probe = "{chance.choice((2, 3, 5))}s" }}')
    if chance.random() < 0.4:
        lines.append(f'ordering = {{ key = "uid", dead = "{chance.choice(("block", "release"))}" }}')
    texts = ", ".join(f'"{one}s"' for one in sorted(seconds))
    lines += [
        f"[operators.{name}.notice]",
        f'retry = {{ delays = [{texts}], measured_from = "{anchor}"{heeds} }}',
        f"[operators.{name}.settle]",
        f'retry = {{ every = "{every}s", for = "{window}s"{heeds} }}',
    ]
    return "\n".join(lines)


@cache
def configuration(variant: int, generations: tuple[int, ...], shared: bool) -> Config:
    """With each operator's key of this generation; `shared`: on a database that several workers share."""
    chance = Random(variant)
    names = NAMES[: chance.choice((1, 1, 2, 3))]
    text = _TOP.format(concurrency=chance.choice((2, 3, 4, 8)), master_key="A" * 43 + "=")
    tables = [_operator(chance, name, generation) for name, generation in zip(names, generations, strict=False)]
    config = read_config(tomllib.loads("\n".join([text, *tables])), FOLDER / "config.toml")
    return replace(config, database=Server(Secret(""), "the simulated server")) if shared else config
