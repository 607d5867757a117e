"""`python -m tests.fuzz EXAMPLES SECONDS`: the tests of bad input with so many examples each, then a guided fuzzer.

SECONDS are for each of the two readers that it drives. Exit status 1 where anything was found.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.ground import line
from tests.nasty import GOOD, SPLINTERS, VALUES

_ANSWERS = (b'{"code":"0000","desc":"ok"}', b'{"success":true,"wallet":1.5}', b'{"data":{"code":0}}', b"{}")


def main(examples: str, seconds: str) -> int:
    chosen = [sys.executable, "-m", "pytest", "tests/test_bad_input.py", "--durations=10", "--durations-min=1"]
    found = [subprocess.run(chosen, env={**os.environ, "FUZZ_EXAMPLES": examples}, check=False).returncode]
    if importlib.util.find_spec("atheris") is None:
        sys.stdout.write(
            "The fuzzer that is guided by coverage did not run: there is no atheris for this Python here.\n"
        )
    else:
        found += [_guided(target, seconds) for target in ("event", "answer")]
    return int(any(found))


def _guided(target: str, seconds: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        corpus, tokens = Path(folder) / "corpus", Path(folder) / "tokens"
        corpus.mkdir()
        for number, seed in enumerate(_seeds(target)):
            (corpus / str(number)).write_bytes(seed)
        tokens.write_text("".join(f'"{_escaped(token)}"\n' for token in _tokens()))
        options = [f"-dict={tokens}", f"-max_total_time={seconds}", "-max_len=4096", "-print_final_stats=1"]
        options += ["-artifact_prefix=.fuzz-"]
        command = [sys.executable, "-m", "tests.guided", target, str(corpus), *options]
        return subprocess.run(command, check=False).returncode


def _seeds(target: str) -> list[bytes]:
    if target == "event":
        return [line(event).encode() for event in GOOD.values()]
    return [bytes([rule, 0]) + body for rule in range(4) for body in _ANSWERS]


def _tokens() -> list[bytes]:
    """What a mutation may put somewhere at once."""
    names = {f'"{name}"'.encode() for event in GOOD.values() for name in event}
    values = {value.encode("utf-8", "surrogatepass") for value in VALUES}
    return sorted({one for one in names | values | {*SPLINTERS} if 0 < len(one) <= 60})


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{one:02x}" for one in token)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
