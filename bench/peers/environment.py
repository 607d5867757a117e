"""The peers' own environments: made when first needed, below the user's cache, in the versions pinned beside this."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from bench.deadline import Failed, Missing
from bench.processes import run

HERE = Path(__file__).parent
READY = ".ready"


def cache() -> Path:
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "dispatcher-bench"


def python(name: str) -> Path:
    """The folder of the programs in the environment that requirements/NAME.txt describes. Raises Missing."""
    wanted = (HERE / "requirements" / f"{name}.txt").read_bytes()
    folder = cache() / f"{name}-{_mark(wanted, sys.version.encode())}"
    if not (folder / READY).exists():
        _fresh(folder, name, [sys.executable, "-m", "venv", str(folder)])
        requirements = str(HERE / "requirements" / f"{name}.txt")
        _install(name, [str(folder / "bin" / "pip"), "install", "--quiet", "--requirement", requirements])
        (folder / READY).touch()
    return folder / "bin"


def node() -> Path:
    """A folder with node_modules as package.json says, and our scripts beside it. Raises Missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("there is no node with npm on the PATH")
    wanted = (HERE / "package.json").read_bytes()
    folder = cache() / f"node-{_mark(wanted)}"
    if not (folder / READY).exists():
        _fresh(folder, "node", ["mkdir", "-p", str(folder)])
        shutil.copy(HERE / "package.json", folder)
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        _install("node", ["npm", "install", "--prefix", str(folder), *quiet])
        (folder / READY).touch()
    for script in HERE.glob("*.mjs"):
        # Node looks for modules beside the script, wherever it was started.
        shutil.copy(script, folder)
    return folder


def pinned(name: str, package: str) -> str:
    """The version of a package that a Python environment has."""
    lines = (HERE / "requirements" / f"{name}.txt").read_text("utf-8").split()
    found = (line.partition("==")[2] for line in lines if line.partition("==")[0].partition("[")[0] == package)
    return next(found)


def _mark(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _fresh(folder: Path, name: str, command: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _install(name, command)


def _install(name: str, command: list[str]) -> None:
    try:
        run(command)
    except Failed as failure:
        raise Missing(f"the environment for {name} can't be installed: {failure}") from None
