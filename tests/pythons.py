"""The ordinary suite on every Python of ours that is on this machine, each in an environment of its own."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

OURS = ("3.11", "3.12", "3.13", "3.14")
ROOT = Path(__file__).parent.parent
ASKED = "import sys; print('%d.%d' % sys.version_info[:2])"


def interpreter(version: str) -> Path | None:
    """The one on the path, else one of pyenv's, if it really is of this version."""
    on_path = shutil.which(f"python{version}")
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in [*([Path(on_path)] if on_path else []), *of_pyenv]:
        # pyenv puts a name on the path for every version, and refuses behind it those that are not chosen.
        asked = subprocess.run([found, "-c", ASKED], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == version:
            return found
    return None


def passes(version: str, python: Path, chosen: Sequence[str]) -> bool:
    """Whether the suite, or what is chosen of it, passes there."""
    place = f".venv/python{version}"
    sys.stdout.write(f"Python {version}: {python}\n")
    sys.stdout.flush()
    made = subprocess.run(["make", f"VENV={place}", f"PYTHON={python}", f"{place}/.dev"], cwd=ROOT, check=False)
    suite = [f"{place}/bin/python", "-m", "pytest", "-n", "2", *chosen]
    return made.returncode == 0 and subprocess.run(suite, cwd=ROOT, check=False).returncode == 0


def main(chosen: Sequence[str]) -> int:
    """Status 1 where it failed on one, or where there is none."""
    told = {}
    for version in OURS:
        python = interpreter(version)
        told[version] = ("passed" if passes(version, python, chosen) else "failed") if python else "not on this machine"
    for version, outcome in told.items():
        sys.stdout.write(f"Python {version}: {outcome}\n")
    return int("failed" in told.values() or "passed" not in told.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
