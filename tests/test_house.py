"""The house stays one that can be read: short functions, files with one purpose, no two that import each other."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_walls import imported

ROOT = Path(__file__).parent.parent
MOST_OF_A_FUNCTION, MOST_OF_A_FILE = 45, 350
# With it a longer file says why it is so.
REASON = "Longer than other files, since"
# Seconds; and where each of these has its limit, if it is not by name.
LEAST_OF_A_LIMIT = 30
_LIMIT_AT = {"wait_for": 1, "timeout": 0, "wait": 0, "join": 0, "result": 0, "settimeout": 0}
_ASKS = {"get", "post", "request", "stream", "Client", "AsyncClient"}
# What is short in these is what is tested: nothing comes, or it is asked again, or time is only played.
MEANT = {
    "test_kit_receivers.py": 1,
    "test_readiness.py": 1,
    "test_receiver.py": 2,
    "test_receiver_settle.py": 1,
    "test_simulation.py": 1,
    "test_supervisor.py": 1,
}


# Few of them change between two looks.
parsed = cache(ast.parse)


def modules() -> dict[str, str]:
    """The text of each file by its dotted name; revisions of the schema are written once and left."""
    files = [path for path in (ROOT / "dispatcher").rglob("*.py") if "versions" not in path.parts]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return {name.removesuffix(".__init__"): path.read_text() for name, path in zip(names, files, strict=True)}


def long_ones(sources: Mapping[str, str]) -> Iterator[str]:
    for name, text in sources.items():
        if len(text.splitlines()) > MOST_OF_A_FILE and REASON not in (ast.get_docstring(ast.parse(text)) or ""):
            yield f"{name} has {len(text.splitlines())} lines; split it, or say why: {REASON} …"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_OF_A_FUNCTION:
                    yield f"{name}.{node.name} has {lines} lines"


def circle(sources: Mapping[str, str]) -> list[str]:
    """The first circle of imports, wherever they stand; nothing where there is none."""
    needs: dict[str, set[str]] = {}
    packages = {name for name in sources if any(other.startswith(f"{name}.") for other in sources)}
    for name, text in sources.items():
        found = {dotted for _, dotted in imported(name, name in packages, parsed(text))}
        # `from a import b` is a file, or what stands in one.
        own = {one if one in sources else one.rpartition(".")[0] for one in found}
        needs[name] = {one for one in own if one in sources and one != name}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_functions_and_files_are_short_or_say_why() -> None:
    assert list(long_ones(modules())) == []


def test_no_files_import_each_other() -> None:
    assert circle(modules()) == []


def unnamed(sources: Mapping[str, str], room: str) -> list[str]:
    """Those files and folders right within this folder that its first lines don't name; nor do those of the folders."""
    below = {name.removeprefix(f"{room}.").partition(".")[0] for name in sources if name.startswith(f"{room}.")}
    named = re.findall(r"`(\w+)`", ast.get_docstring(parsed(sources[room])) or "")
    inner = {f"{room}.{one}" for one in below - {"migrations"} if any(f"{room}.{one}." in name for name in sources)}
    missing = [f"{room}.{one}" for one in below - set(named) - {"migrations"}]
    return sorted(missing + [name for one in inner for name in unnamed(sources, one)])


def test_the_stores_map_names_every_file_of_it() -> None:
    assert unnamed(modules(), "dispatcher.store") == []


def test_a_planted_file_that_no_map_names_is_found() -> None:
    planted = ["dispatcher.store.more", "dispatcher.store.counts.more"]
    assert unnamed({**modules(), **dict.fromkeys(planted, "")}, "dispatcher.store") == sorted(planted)


def hurried(text: str) -> Iterator[str]:
    """Calls that end a hang in less time than a busy machine may need; httpx's own limit is five seconds."""
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        named = {word.arg: word.value for word in call.keywords}
        limits = [named.get("timeout"), *call.args[_LIMIT_AT.get(call.func.attr, 9) :][:1]]
        seconds = [one.value for one in limits if isinstance(one, ast.Constant) and isinstance(one.value, int | float)]
        by_httpx = isinstance(call.func.value, ast.Name) and call.func.value.id == "httpx"
        asks = by_httpx and call.func.attr in _ASKS and not {"timeout", "transport"} & named.keys()
        if asks or any(0 < one < LEAST_OF_A_LIMIT for one in seconds):
            yield ast.unparse(call)


def test_whatever_ends_a_hang_in_a_test_leaves_a_busy_machine_its_time() -> None:
    found = {path.name: [*hurried(path.read_text("utf-8"))] for path in (ROOT / "tests").glob("*.py")}
    assert {name: len(calls) for name, calls in found.items() if calls} == MEANT, found


@pytest.mark.parametrize(
    "call",
    [
        "subprocess.run(words, timeout=10)",
        "asyncio.wait_for(task, 5)",
        "asyncio.timeout(1)",
        "process.wait(2)",
        "thread.join(0.5)",
        "httpx.get(url, trust_env=False)",
    ],
)
def test_a_planted_limit_is_found(call: str) -> None:
    assert list(hurried(f"def f():\n    x = {call}\n")) == [call]
    assert (
        list(hurried(re.sub(r"(timeout=|, |\()\d[\d.]*\)", r"\g<1>60)", call.replace("False", "False, timeout=60"))))
        == []
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dispatcher.store.line", "from dispatcher.store.corridor import turn"),
        ("dispatcher.store.line", "def f():\n    from dispatcher.store import corridor"),
        (
            "dispatcher.dispatch.lane",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dispatcher.dispatch",
        ),
    ],
)
def test_a_planted_circle_is_found(name: str, text: str) -> None:
    sources = modules()
    assert name in circle({**sources, name: f"{sources[name]}\n{text}\n"})


def test_a_planted_long_function_and_file_are_found() -> None:
    long = "def f():\n" + "    x = 1\n" * MOST_OF_A_FUNCTION
    assert list(long_ones({"a": long})) == ["a.f has 46 lines"]
    assert len(list(long_ones({"a": "x = 1\n" * 351, "b": f'"""{REASON} …"""\n' + "x = 1\n" * 351}))) == 1
