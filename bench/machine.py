"""The machine and the versions, in one line."""

import contextlib
import os
import platform
import shutil
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.deadline import Failed
from bench.ground import pgserver, redis_version
from bench.processes import run

LIBRARIES = ("sqlalchemy", "psycopg", "httptools", "uvloop", "cryptography")


def machine() -> str:
    """What is not there is not named."""
    parts = [f"{os.cpu_count()} cores {_processor()}", f"{platform.system()} {platform.release().partition('-')[0]}"]
    parts += [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    with contextlib.suppress(Failed):
        parts.append(f"PostgreSQL {pgserver().TARGET_POSTGRES_VERSION}")
    with contextlib.suppress(Failed):
        parts.append(f"Redis {redis_version()}")
    if shutil.which("node"):
        parts.append(f"Node {run(['node', '--version']).strip().removeprefix('v')}")
    return ", ".join(parts + [told for name in LIBRARIES if (told := _library(name))])


def _library(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
