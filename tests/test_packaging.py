"""What is handed out: the wheel, the sdist, and what they say they need."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dispatcher import __version__
from tests.pythons import OURS
from tests.test_walls import LIBRARIES

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
FOR_USERS = ("postgresql", "otel")
NAME = f"dispatcher-{__version__}"
FRONT = "import dispatcher; print(dispatcher.__file__)"
# `env` is Alembic's, and asks for a migration that is under way.
ALL = f"""
import importlib, pkgutil
import opentelemetry.exporter.otlp.proto.http.trace_exporter, opentelemetry.sdk.trace
{FRONT}
for module in pkgutil.walk_packages(dispatcher.__path__, "dispatcher."):
    if not module.name.endswith(("__main__", "migrations.env")):
        importlib.import_module(module.name)
"""


def files() -> set[str]:
    """Every file of the package as it stands here, seen from the checkout."""
    found = (ROOT / "dispatcher").rglob("*")
    return {str(path.relative_to(ROOT)) for path in found if path.is_file() and "__pycache__" not in path.parts}


def handed_out() -> Iterator[tuple[str, str, set[str]]]:
    """Of each pattern in package-data: its package, itself, and the files that it means."""
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            meant = (ROOT / package.replace(".", "/")).glob(pattern)
            yield package, pattern, {str(path.relative_to(ROOT)) for path in meant if path.is_file()}


def requirements(lines: Sequence[str]) -> dict[str, Requirement]:
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def needed() -> dict[str, Requirement]:
    """What a user's environment may hold: the dependencies, and those of the extras for users."""
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in FOR_USERS for line in EXTRAS[extra])]
    return requirements(lines)


def floor(requirement: Requirement) -> str:
    """The oldest version that it allows."""
    (least,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return least


def test_every_file_of_the_package_is_handed_out() -> None:
    data = set().union(*(meant for _, _, meant in handed_out()))
    assert {path for path in files() if not path.endswith(".py")} == data


def test_every_pattern_of_the_package_data_means_something() -> None:
    assert not [(package, pattern) for package, pattern, meant in handed_out() if not meant]


def test_every_folder_with_code_is_a_package() -> None:
    folders = {(ROOT / path).parent for path in files() if path.endswith(".py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_the_version_of_the_project_is_that_of_the_package() -> None:
    assert PROJECT["project"]["version"] == __version__


def test_what_is_imported_is_what_is_asked_for() -> None:
    owners = packages_distributions()
    imported = {canonicalize_name(owners[library][0]) for library in LIBRARIES if library != "opentelemetry"}
    tracing = {name for name in needed() if name.startswith("opentelemetry-")}
    assert imported | tracing == set(needed())
    assert len(tracing) == 2


def test_whatever_is_asked_for_is_pinned_at_a_version_that_it_allows() -> None:
    pinned = requirements(
        [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[0] != "#"]
    )
    for lines in (PROJECT["project"]["dependencies"], *EXTRAS.values()):
        for name, wanted in requirements(lines).items():
            (exactly,) = pinned[name].specifier
            assert wanted.specifier.contains(exactly.version, prereleases=True), (str(wanted), exactly.version)


def test_every_python_that_is_named_is_one_that_is_tried() -> None:
    named = [found[1] for one in PROJECT["project"]["classifiers"] if (found := re.search(r":: (3\.\d+)$", one))]
    assert set(named) <= set(OURS)
    assert PROJECT["project"]["requires-python"] == f">={named[0]}" == f">={OURS[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"


# The rest builds and installs, for which it needs a registry of packages.


def run(line: Sequence[str | Path], folder: Path) -> str:
    """A command in an environment that knows nothing of this checkout; what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(line, cwd=folder, env=clean, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """May skip: what builds a wheel must come from somewhere."""
    (wanted,) = PROJECT["build-system"]["requires"]
    folder = tmp_path_factory.mktemp("registry")
    words = ["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--retries", "1", "--no-deps", wanted]
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip(f"no registry gives {wanted}: {done.stderr.splitlines()[-1]}")


@pytest.fixture(scope="module")
def built(registry: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of this checkout, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT], folder)
    return folder


@pytest.mark.slow
def test_the_sdist_has_the_package_and_what_builds_it_and_nothing_else(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        inside = {one.name.removeprefix(f"{NAME}/") for one in sdist if one.isfile()}
    beside = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    assert {path for path in inside if not path.startswith("dispatcher.egg-info/")} == files() | beside


@pytest.mark.slow
def test_the_wheel_has_the_package_and_its_licence_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        inside = set(wheel.namelist())
        assert all(wheel.read(path) == (ROOT / path).read_bytes() for path in files())
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    assert inside == files() | {f"{NAME}.dist-info/{name}" for name in about}


@pytest.mark.slow
def test_the_wheel_from_the_sdist_is_the_wheel_from_the_checkout(built: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], tmp_path)
    wheels = [zipfile.ZipFile(folder / f"{NAME}-py3-none-any.whl") for folder in (built, tmp_path)]
    one, other = ({path: wheel.read(path) for path in wheel.namelist()} for wheel in wheels)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("age", ["newest", "oldest"])
def test_the_demo_works_where_nothing_but_the_wheel_is_installed(built: Path, tmp_path: Path, age: str) -> None:
    """With the newest of everything; and with the oldest that pyproject allows, where every module is imported too."""
    empty = tmp_path / "empty"
    empty.mkdir()
    run([sys.executable, "-m", "venv", tmp_path / "venv"], empty)
    here = tmp_path / "venv" / "bin"
    # The extras are left out of the first: without them it works as well.
    oldest = [f"{one.name}{_bracketed(one)}=={floor(one)}" for one in needed().values()] if age == "oldest" else []
    words = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([here / "python", *words, built / f"{NAME}-py3-none-any.whl", *oldest], empty)
    where = run([here / "python", "-W", "error", "-c", ALL if age == "oldest" else FRONT], empty)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    assert "1 resolved by hand" in run([here / "dispatcher", "demo"], empty)
    assert not list(empty.iterdir())


def _bracketed(requirement: Requirement) -> str:
    return f"[{','.join(requirement.extras)}]" if requirement.extras else ""
