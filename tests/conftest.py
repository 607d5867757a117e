"""Which stores a test runs on: marked `each_store` on all of them, otherwise on files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.store.engine import Database
from tests import browser, stores
from tests.stores import STORES, PostgreSQL


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    uses_one = not {"database", "tmp_path"}.isdisjoint(metafunc.fixturenames)
    if uses_one and metafunc.definition.get_closest_marker("each_store"):
        only_files = metafunc.definition.get_closest_marker("sqlite_only") is not None
        metafunc.parametrize("store", ["sqlite"] if only_files else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[PostgreSQL]:
    """One server for this process of the test run."""
    with stores.postgresql(tmp_path_factory.mktemp("server"), worker_id) as server:
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


@pytest.fixture
def database(store: str, tmp_path: Path) -> Iterator[Database]:
    opened = STORES.open(tmp_path)
    yield opened
    opened.close()
