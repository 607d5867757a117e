"""Kits for the tests: an operator's files in a folder, and each language's receiver built and run from them."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from dispatcher.ground.crypto import CipherName, IvEncoding, IvMode, KeyEncoding, Output, Padding
from dispatcher.kit import kit_files
from tests.ground import config_with
from tests.story import PATIENCE, toml, until

URL = "https://acme.example/Demo/notice"


class Tool(NamedTuple):
    """What a language needs on the PATH, how its receiver is built (nothing where it is not), and how it is run."""

    needs: Sequence[str]
    build: Sequence[str]
    run: Sequence[str]
    serve: Sequence[str] = ()


TOOLS: Mapping[str, Tool] = {
    "PHP": Tool(("php",), (), ("php", "receiver.php"), ("php", "-S", "{listen}", "receiver.php")),
    "Java": Tool(
        ("java", "javac"),
        ("javac", "-Xlint:all", "-Werror", "-encoding", "US-ASCII", "Receiver.java"),
        ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "Receiver"),
    ),
    "Node": Tool(("node",), (), ("node", "receiver.js")),
    "Go": Tool(("go",), ("go", "build", "-o", "receiver.bin", "receiver.go"), ("./receiver.bin",)),
    # Without the packages of this environment: what AES there is, is the receiver's own.
    "Python": Tool((), (), (sys.executable, "-S", "-W", "error", "receiver.py")),
    "C#": Tool(("mcs", "mono"), ("mcs", "-warnaserror", "-out:receiver.exe", "Receiver.cs"), ("mono", "receiver.exe")),
}


def need(language: str) -> Tool:
    """Skips where the language is not here."""
    tool = TOOLS[language]
    if absent := [one for one in tool.needs if shutil.which(one) is None]:
        pytest.skip(f"{language} is not installed here: no {' and no '.join(absent)}")
    return tool


def write_kit(folder: Path, **settings: object) -> Path:
    """The kit of an operator with these settings beside a URL."""
    text = "[operators.acme]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in settings.items())
    folder.mkdir(exist_ok=True)
    for name, content in kit_files(config_with(text).operators["acme"]).items():
        (folder / name).write_text(content, "utf-8")
    return folder


def built(language: str, folder: Path) -> Tool:
    """The receiver of the kit in this folder, ready to run."""
    tool = need(language)
    if tool.build:
        environment = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        done = subprocess.run(
            tool.build, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), done
    return tool


def self_check(language: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the receiver says of the kit's own vectors, once it is built."""
    built(language, folder)
    return checked(language, folder)


def checked(language: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `self_check`, of a receiver that has been built."""
    words = [*TOOLS[language].run, "--self-check"]
    return subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", timeout=120, check=False)


@contextmanager
def serving(language: str, folder: Path, listen: str, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The receiver as a process; it must have been built."""
    tool = TOOLS[language]
    words = [word.format(listen=listen) for word in tool.serve or tool.run]
    environment = {**os.environ, **settings, "LISTEN": listen, "PHP_CLI_SERVER_WORKERS": "4"}
    with (folder / "receiver.log").open("ab") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    host, _, port = listen.rpartition(":")

    def is_up() -> bool:
        assert process.poll() is None, (folder / "receiver.log").read_text("utf-8")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    try:
        until(is_up)
        yield process
    finally:
        # With the workers that PHP's has started.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        until(lambda: _is_free(host, int(port)))


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


class Reading(NamedTuple):
    """One way to write and to use a key."""

    key_encoding: str
    cipher: str
    iv_mode: str
    iv_encoding: str
    padding: str
    output: str

    @property
    def settings(self) -> dict[str, str]:
        """As an operator's settings write it, with a key and an IV of this form."""
        size = CipherName(self.cipher).key_size
        letters = "KeyOfTheOperator-0123456789abcdef"
        keys = {
            "utf8": letters[:size],
            "hex": letters[:size].encode().hex(),
            "base64": _base64(letters[:size]),
            "utf8_first16": letters[:32],
        }
        iv = {"utf8": "IvOfTheOperator!", "hex": b"IvOfTheOperator!".hex(), "base64": _base64("IvOfTheOperator!")}
        given = {"key": keys[self.key_encoding], **self._asdict()}
        return given | {"iv": iv[self.iv_encoding]} if self.iv_mode == "fixed" else given


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _whole() -> list[Reading]:
    """Every reading that a configuration allows."""
    axes = (KeyEncoding, CipherName, IvMode, IvEncoding, Padding, Output)
    every = (Reading(*map(str, values)) for values in product(*axes))
    return [
        one
        for one in every
        # Cut to 16 bytes, a key fits but the one cipher; and no IV that is written has no encoding.
        if (one.key_encoding != "utf8_first16" or one.cipher == "aes-128-cbc")
        and (one.iv_mode == "fixed" or one.iv_encoding == "utf8")
    ]


def covering() -> list[Reading]:
    """Readings among which every two values that can stand together do so at least once, most useful first."""
    every = _whole()
    missing = {pair for one in every for pair in _pairs(one)}
    chosen = []
    while missing:
        best = max(every, key=lambda one: len(missing & _pairs(one)))
        chosen.append(best)
        missing -= _pairs(best)
    return chosen


def _pairs(one: Reading) -> set[tuple[int, str, int, str]]:
    return {(a, one[a], b, one[b]) for a in range(len(one)) for b in range(a)}
