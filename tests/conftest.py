"""Which stores a test runs on: marked `each_store` on all of them, otherwise on files."""

import gc
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.store.engine import Database
from tests import browser, stores
from tests.stores import STORES, PostgreSQL

# Memory that looks like a disk: most of a test's time was waiting for a disk to say that it had everything.
MEMORY = Path("/dev/shm")
ROOM = 2 << 30
# They wait for most of their time. So they come first, in two rows: beside them the others have the machine.
WAITING = {
    "test_database_faults",
    "test_docs",
    "test_notifications_story",
    "test_readiness",
    "test_replays_story",
    "test_stats",
    "test_stories",
    "test_supervisor",
    "test_workers",
}


def pytest_configure() -> None:
    if MEMORY.is_mount() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    # Where the machine says that no bytecode is kept, each process of the tests would compile all of them anew.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: nobody who looks for garbage needs to look there, neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Unless chance has given them their order.
    if not config.pluginmanager.hasplugin("randomly"):
        waiting = [item for item in items if item.path.stem in WAITING]
        others = [item for item in items if item.path.stem not in WAITING]
        # Each process begins with its own part of all; of two or four, two begin with one of these halves.
        split, half = len(waiting) // 2, len(items) // 2
        first = waiting[:split] + others[: half - split]
        items[:] = first + waiting[split:] + others[half - split :]


def pytest_sessionfinish() -> None:
    """A process of the tests that is measured writes down what it saw before anybody can end it."""
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        import coverage

        if measured := coverage.Coverage.current():
            measured.save()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    uses_one = not {"database", "tmp_path"}.isdisjoint(metafunc.fixturenames)
    if uses_one and metafunc.definition.get_closest_marker("each_store"):
        only_files = metafunc.definition.get_closest_marker("sqlite_only") is not None
        metafunc.parametrize("store", ["sqlite"] if only_files else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def anyio_backend() -> str:
    """What runs the tests that are coroutines."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql(worker_id: str) -> Iterator[PostgreSQL]:
    """One server for this process of the test run."""
    with stores.open_folder() as folder, stores.postgresql(folder, worker_id) as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for a module, whose tests are not asynchronous: Playwright's own loop runs meanwhile. May skip."""
    with browser.started() as started:
        yield started


@pytest.fixture(autouse=True)
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of store on which this test runs; a PostgreSQL database is empty."""
    kind = getattr(request, "param", "sqlite")
    with STORES.on(request.getfixturevalue("postgresql") if kind == "postgresql" else None):
        yield kind
        assert STORES.asked or kind != "postgresql", "it is said to run on the server, and runs on a file"


@pytest.fixture
def on_the_server(store: str, postgresql: PostgreSQL) -> Iterator[None]:
    """For a module that is about the server alone: each of its tests has an empty database there."""
    with STORES.on(postgresql):
        yield


@pytest.fixture
def database(store: str, tmp_path: Path) -> Iterator[Database]:
    opened = STORES.open(tmp_path)
    yield opened
    opened.close()
