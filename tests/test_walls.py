"""The walls of the house, held by walking every import: down the floors only, and each library in its own room."""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import dispatcher

FLOORS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "ground",
        frozenset({"errors", "clock", "events", "fields", "money", "schedule", "policy", "crypto", "egress", "secret"})
        | {"settings", "presets", "readers", "operator", "place", "apikey", "account", "figures", "lang", "ground"},
    ),
    ("doors out", frozenset({"seal", "wire", "store", "telemetry", "tls", "tracing", "supervisor"})),
    ("protocols", frozenset({"protocols"})),
    ("configuration", frozenset({"config"})),
    ("workshop", frozenset({"accept", "dispatch", "ear", "rounds", "broom", "pacer", "roster", "summaries"})),
    (
        "street side",
        frozenset(
            {
                "app",
                "receiver",
                "demo",
                "web",
                "console",
                "metrics",
                "frontage",
                "health",
                "cli",
                "rows",
                "sheet",
                "verify",
                "certify",
                "reconcile",
                "kit",
                "outbox",
                "__main__",
                "__init__",
            }
        )
        | {"alone", "enrolment", "explain", "forecast", "stats"},
    ),
)
# On these floors the rooms may use one another, though never in a circle; on the others never.
NEIGHBOURLY = frozenset({"ground", "street side"})

LIBRARIES: Mapping[str, frozenset[str]] = {
    "alembic": frozenset({"store"}),
    "apscheduler": frozenset({"rounds"}),
    "click": frozenset({"cli"}),
    "cryptography": frozenset({"seal"}),
    "h11": frozenset({"receiver"}),
    "httptools": frozenset({"wire"}),
    "httpx": frozenset({"wire"}),
    "jinja2": frozenset({"console", "kit"}),
    "markupsafe": frozenset({"console"}),
    "msgspec": frozenset({"events", "reconcile"}),
    "opentelemetry": frozenset({"tracing"}),
    "prometheus_client": frozenset({"metrics"}),
    "orjson": frozenset({"protocols", "telemetry", "store", "cli", "rows", "web"}),
    "psycopg": frozenset({"store"}),
    "rich": frozenset({"cli", "demo"}),
    "sqlalchemy": frozenset({"store", "outbox"}),
    "starlette": frozenset({"web", "console"}),
    "structlog": frozenset({"telemetry"}),
    "uvicorn": frozenset({"web"}),
    "uvloop": frozenset({"cli", "app"}),
}

FLOOR = {room: number for number, (_, rooms) in enumerate(FLOORS) for room in rooms}
COMPUTED = "<computed>"
TABLE = "put it in the table at the top of tests/test_walls.py"


def imported(module: str, is_package: bool, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every import in a module, wherever it stands: (line, dotted name). `from a import b` is `a.b`."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if name in ("import_module", "__import__"):
                yield node.lineno, called(first)


def called(argument: ast.expr | None) -> str:
    """The name, or its first part up to where it is computed, that is imported by a call."""
    if isinstance(argument, ast.JoinedStr) and argument.values:
        argument = argument.values[0]
    return str(argument.value).rstrip(".") if isinstance(argument, ast.Constant) else COMPUTED


def room_of(dotted: str) -> str:
    """The room that a module of `dispatcher` stands in; those of the ground stand in a folder of its name."""
    parts = dotted.split(".")
    return parts[2] if parts[1:2] == ["ground"] and len(parts) > 2 else ".".join(parts[1:2])


def front_door_names(sources: Mapping[str, str]) -> frozenset[str]:
    """What `from dispatcher import …` may give beside rooms: the names that the front door itself binds."""
    tree = ast.parse(sources.get("dispatcher/__init__.py", ""))
    bound = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    bound |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return frozenset(bound)


def edges(sources: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(where, room, what it imports): a room, or a library as `library:name`; the standard library is left out."""
    given = front_door_names(sources)
    for path, text in sorted(sources.items()):
        dotted = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        is_package = path.endswith("/__init__.py")
        room = "__init__" if dotted == "dispatcher" else room_of(dotted)
        for line, name in imported(dotted, is_package, ast.parse(text)):
            top = name.split(".")[0]
            if top == "dispatcher":
                other = room_of(name)
                front = name == top or (other not in FLOOR and (other in given or other == "*"))
                yield f"{path}:{line}", room, "__init__" if front else other
            elif top not in sys.stdlib_module_names:
                yield f"{path}:{line}", room, f"library:{top}"


def breach(room: str, other: str) -> str | None:
    """What is wrong with this import; None when it stays within the walls."""
    if other.startswith("library:"):
        library = other.removeprefix("library:")
        if library == COMPUTED:
            return f"{room} imports a computed name, and no wall can hold that; write it out"
        if library not in LIBRARIES:
            return f"the library {library} has no room yet; {TABLE}"
        if room not in LIBRARIES[library]:
            return f"{room} imports {library}, which belongs to {' and '.join(sorted(LIBRARIES[library]))}"
        return None
    for name in (room, other):
        if name not in FLOOR:
            return f"the room {name} stands on no floor yet; {TABLE}"
    if room == other:
        return None
    floor, below = FLOORS[FLOOR[room]][0], FLOORS[FLOOR[other]][0]
    if FLOOR[other] > FLOOR[room]:
        return f"{room} ({floor}) imports {other} ({below}), which is above it"
    if FLOOR[other] == FLOOR[room] and floor not in NEIGHBOURLY:
        return f"{room} imports {other}, and rooms of the {floor} never import one another"
    if floor == "protocols" and below == "doors out":
        return f"{room} imports the door {other}: it gets what it needs as an argument"
    return None


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of rooms that import one another; empty when there is none."""
    done: set[str] = set()

    def walk(room: str, way: list[str]) -> list[str]:
        if room in way:
            return [*way[way.index(room) :], room]
        if room in done:
            return []
        found = next((loop for other in sorted(graph.get(room, ())) if (loop := walk(other, [*way, room]))), [])
        done.add(room)
        return found

    return next((loop for room in sorted(graph) if (loop := walk(room, []))), [])


def breaches(sources: Mapping[str, str]) -> list[str]:
    """Everything in these sources (path → text) that goes through a wall."""
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    rooms = {
        room_of(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")) or "__init__" for path in sources
    }
    found += [
        f"dispatcher/{room}: the room {room} stands on no floor yet; {TABLE}" for room in sorted(rooms - {*FLOOR})
    ]
    for where, room, other in edges(sources):
        wrong = breach(room, other)
        if wrong:
            found.append(f"{where}: {wrong}")
        if room != other and not other.startswith("library:"):
            graph.setdefault(room, set()).add(other)
    if loop := circle(graph):
        found.append(f"a circle: {' → '.join(loop)}")
    return found


def house() -> dict[str, str]:
    """The sources as they stand: path from above `dispatcher` → text."""
    root = Path(dispatcher.__file__).parent
    return {str(Path("dispatcher") / path.relative_to(root)): path.read_text("utf-8") for path in root.rglob("*.py")}


def told(sources: Mapping[str, str]) -> str:
    return "\n".join(breaches(sources))


def test_the_walls_hold() -> None:
    assert not breaches(house()), told(house())


def test_the_walk_sees_the_imports_that_are_there() -> None:
    seen = {(room, other) for _, room, other in edges(house())}
    known = {("seal", "library:cryptography"), ("seal", "crypto"), ("protocols", "policy"), ("accept", "protocols")}
    assert known <= seen
    assert {room for _, room, _ in edges(house())} > {"seal", "protocols", "accept", "config", "settings", "policy"}


def test_every_room_stands_on_one_floor() -> None:
    rooms = [room for _, floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert {room for allowed in LIBRARIES.values() for room in allowed} <= set(rooms)


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("ground/policy.py", "from dispatcher.store import claims", "policy (ground) imports store (doors out)"),
        ("ground/policy.py", "import dispatcher.seal", "policy (ground) imports seal (doors out)"),
        ("ground/clock.py", "from dispatcher import wire", "clock (ground) imports wire (doors out)"),
        ("store/rows.py", "from dispatcher.dispatch import Hand", "store (doors out) imports dispatch (workshop)"),
        ("seal.py", "import dispatcher.wire as out", "rooms of the doors out never import one another"),
        ("wire.py", "from dispatcher.telemetry import log", "rooms of the doors out never import one another"),
        ("store/a/b.py", "from dispatcher import seal", "rooms of the doors out never import one another"),
        ("protocols/notice.py", "from dispatcher.seal import Seal", "protocols imports the door seal"),
        ("protocols/settle.py", "def f():\n    import dispatcher.wire", "protocols imports the door wire"),
        ("protocols/notice.py", "from .. import seal", "protocols imports the door seal"),
        ("protocols/notice.py", "from ..store.rows import x", "protocols imports the door store"),
        ("protocols/base.py", "from dispatcher.accept import x", "protocols (protocols) imports accept (workshop)"),
        ("dispatch.py", "from dispatcher.rounds import Rounds", "rooms of the workshop never import one another"),
        ("accept.py", "from dispatcher.cli.common import x", "accept (workshop) imports cli (street side)"),
        ("store/__init__.py", "from .. import enqueue", "store (doors out) imports __init__ (street side)"),
        ("ground/policy.py", "def f():\n    from dispatcher.app import x", "policy (ground) imports app (street side)"),
        (
            "ground/events.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dispatcher.store import x",
            "events (ground) imports store (doors out)",
        ),
        (
            "ground/policy.py",
            'import importlib\nimportlib.import_module("dispatcher.wire")',
            "policy (ground) imports wire",
        ),
        ("ground/policy.py", "import importlib\nimportlib.import_module(name)", "policy imports a computed name"),
        (
            "ground/policy.py",
            'from importlib import import_module\nimport_module(f"dispatcher.cli.{n}")',
            "imports cli",
        ),
        ("ground/policy.py", '__import__("httpx")', "policy imports httpx, which belongs to wire"),
        ("ground/crypto.py", "from cryptography.hazmat.primitives import padding", "crypto imports cryptography"),
        ("dispatch.py", "import httpx", "dispatch imports httpx, which belongs to wire"),
        ("store/rows.py", "import httpx", "store imports httpx, which belongs to wire"),
        ("rounds.py", "from sqlalchemy import select", "rounds imports sqlalchemy, which belongs to outbox and store"),
        ("store/jobs.py", "import apscheduler.schedulers.asyncio", "store imports apscheduler"),
        ("wire.py", "import structlog", "wire imports structlog, which belongs to telemetry"),
        ("receiver.py", "import click", "receiver imports click, which belongs to cli"),
        ("receiver.py", "import rich.table", "receiver imports rich, which belongs to cli and demo"),
        ("wire.py", "import h11", "wire imports h11, which belongs to receiver"),
        ("app.py", "import uvicorn", "app imports uvicorn, which belongs to web"),
        ("receiver.py", "import starlette.routing", "receiver imports starlette, which belongs to console and web"),
        ("ground/events.py", "import orjson", "events imports orjson, which belongs to cli and protocols and "),
        ("web.py", "import uvloop", "web imports uvloop, which belongs to app and cli"),
        (
            "ground/policy.py",
            "x = 1\ndef f():\n    import httpx",
            "dispatcher/ground/policy.py:3: policy imports httpx",
        ),
    ],
)
def test_a_deliberate_breach_is_refused(path: str, text: str, wrong: str) -> None:
    assert wrong in told({"dispatcher/__init__.py": "def enqueue(): ...", f"dispatcher/{path}": text})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("manager.py", ""),
        ("services/thing.py", "import json"),
        ("ground/policy.py", "from dispatcher.manager import x"),
        ("ground/policy.py", "from dispatcher import manager"),
        ("cli/__init__.py", "import requests"),
        ("seal.py", "import Crypto.Cipher.AES"),
    ],
)
def test_what_the_table_does_not_know_is_refused_with_where_to_put_it(path: str, text: str) -> None:
    found = breaches({"dispatcher/__init__.py": "", f"dispatcher/{path}": text})
    assert found
    assert all("put it in the table at the top of tests/test_walls.py" in one for one in found)


def test_a_circle_of_neighbours_is_refused() -> None:
    sources = {
        "dispatcher/app.py": "from dispatcher.web import serve",
        "dispatcher/web/__init__.py": "from dispatcher.web.pages import x",
        "dispatcher/web/pages.py": "def f():\n    from dispatcher.rows import say",
        "dispatcher/rows.py": "from dispatcher.app import y",
    }
    assert told(sources) == "a circle: app → web → rows → app"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ground/policy.py", "from dispatcher.ground.clock import MINUTE\nimport json, asyncio.tasks"),
        (
            "store/rows.py",
            "from dispatcher.store.schema import t\nfrom . import schema\nfrom ..ground.policy import Claim",
        ),
        ("store/rows.py", "from sqlalchemy import select\nimport orjson\nimport sqlite3"),
        ("protocols/notice.py", "from dispatcher.protocols.base import Letter\nfrom .base import x\nimport orjson"),
        ("dispatch.py", "from dispatcher import seal, wire\nfrom dispatcher.protocols import PROTOCOLS"),
        ("rounds.py", "from apscheduler.schedulers.asyncio import AsyncIOScheduler"),
        ("cli/run.py", "import click, rich.table, uvloop, orjson\nfrom dispatcher.app import App"),
        ("__main__.py", "from dispatcher.cli import main"),
        ("demo.py", "import rich\nfrom dispatcher import enqueue\nfrom dispatcher import receiver"),
        ("__init__.py", "def enqueue():\n    from dispatcher.store import insert\n    from dispatcher import accept"),
        ("web.py", "import starlette.routing\nimport uvicorn"),
        ("cli/__init__.py", 'from importlib import import_module\nimport_module(f"dispatcher.cli.{name}")'),
    ],
)
def test_what_stays_within_the_walls_passes(path: str, text: str) -> None:
    sources = {"dispatcher/__init__.py": "def enqueue(): ...", f"dispatcher/{path}": text}
    assert told(sources) == ""


def test_the_whole_house_is_walked() -> None:
    files = house()
    assert "dispatcher/protocols/notice.py" in files
    assert len(files) > 15
