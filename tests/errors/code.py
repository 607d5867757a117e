"""The texts that an expression of the product's code may have, read from the code without running it."""

import ast
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "dispatcher"
# How far a text is followed through what calls what, and how many ways of saying it are told apart.
_DEEP, _MOST = 5, 40
# What may be reckoned when the page is made: it says the same on every machine.
_RECKONED = ("choices", "listed", "duration_text")
# These write down a value of somebody else's: its name says more than the ways of shortening it.
_VALUES = ("choices", "listed", "shown", "printable", "_short", "duration_text", "in_years")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Room(NamedTuple):
    """One file of the package."""

    name: str
    module: ModuleType
    tree: ast.Module
    # For each node what it stands in, and in which of its parts.
    around: Mapping[ast.AST, tuple[ast.AST, str]]
    calls: Sequence[ast.Call]


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its file, its function, and what the function's parameters were given."""

    room: Room
    function: Function | None = None
    given: Mapping[str, "tuple[ast.expr, Scope]"] = field(default_factory=dict)
    deep: int = 0


@cache
def rooms() -> Sequence[Room]:
    return [_room(path) for path in sorted(PACKAGE.rglob("*.py")) if "migrations" not in path.parts]


def _room(path: Path) -> Room:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text("utf-8"))
    around: dict[ast.AST, tuple[ast.AST, str]] = {}
    for node in ast.walk(tree):
        for part, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    around[child] = (node, part)
    # Imported it would run.
    module = ModuleType(name) if path.name == "__main__.py" else import_module(name)
    return Room(name, module, tree, around, [node for node in around if isinstance(node, ast.Call)])


def places(node: ast.AST, room: Room) -> list[tuple[ast.AST, str]]:
    """What a node stands in, from the inside out."""
    found = []
    while node in room.around:
        found.append(room.around[node])
        node = found[-1][0]
    return found


def scope_of(node: ast.AST, room: Room) -> "Scope":
    return Scope(room, next((one for one, _ in places(node, room) if isinstance(one, Function)), None))


class Told(NamedTuple):
    """One way in which a text may come out; `by` is what decided that, so that two texts of one message go together."""

    text: str
    by: Mapping[object, int] = {}


def joined(parts: Sequence[Sequence[Told]], between: str = "") -> list[Told]:
    """Every way of saying the parts one after the other that can come out at once."""
    ways = [Told("")]
    for number, part in enumerate(parts):
        glue = between if number else ""
        ways = [
            Told(f"{one.text}{glue}{two.text}", {**one.by, **two.by})
            for one, two in itertools.product(ways, part)
            if all(two.by.get(key, value) == value for key, value in one.by.items())
        ][:_MOST]
    return ways


def said(node: ast.expr, scope: Scope) -> list[Told]:
    """The texts that an expression may have; what is known only when the program runs is `<its name>`."""
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return [Told(str(value))]
        case ast.JoinedStr(values=values):
            return joined([said(value, scope) for value in values])
        case ast.FormattedValue(value=value):
            return said(value, scope)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return joined([said(left, scope), said(right, scope)])
        case ast.IfExp(test=test, body=body, orelse=other):
            return decided(ast.dump(test), [said(body, scope), said(other, scope)])
        case ast.BoolOp(values=values):
            return decided(ast.dump(node), [said(value, scope) for value in values])
        case ast.Name():
            return named(node, scope) or [Told(f"<{word(node)}>")]
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int() as at)):
            table = getattr(scope.room.module, name, None)
            return [Told(str(table[at]) if isinstance(table, tuple) else f"<{word(node)}>")]
        case ast.Subscript(value=ast.Name(id=name)):
            return entries(name, scope) or [Told(f"<{word(node)}>")]
        case ast.Call():
            return called(node, scope)
    return [Told(f"<{word(node)}>")]


def entries(name: str, scope: Scope, other: Sequence[Told] = ()) -> list[Told]:
    """The texts of a table of the file's, and what is said where it has none."""
    table = getattr(scope.room.module, name, None)
    texts = [one for one in table.values() if isinstance(one, str)] if isinstance(table, dict) else []
    return decided(name, [[Told(re.sub(r"\{(\w+)\}", r"<\1>", one))] for one in texts] + [[one] for one in other])


def decided(key: object, ways: Sequence[Sequence[Told]]) -> list[Told]:
    """One of these, and which."""
    return [
        Told(one.text, {**one.by, key: number} if len(ways) > 1 else one.by)
        for number, way in enumerate(ways)
        for one in way
        if one.by.get(key, number) == number
    ][:_MOST]


def named(node: ast.Name, scope: Scope) -> list[Told]:
    """What a name may stand for: what a caller gave, what the function gave it, or a constant of the file."""
    if node.id in scope.given:
        return said(*scope.given[node.id])
    found = assigned(node, scope)
    if found and scope.deep < _DEEP:
        inner = replace(scope, deep=scope.deep + 1)
        return decided((id(scope.function), len(found)), [said(value, inner) for value in found])
    if found or (scope.function and node.id in arguments(scope.function)):
        return []
    value = getattr(scope.room.module, node.id, None)
    return [Told(f"{value:g}" if isinstance(value, float) else str(value))] if type(value) in (str, int, float) else []


def assigned(name: ast.Name, scope: Scope) -> list[ast.expr]:
    """What the function may have let this name be where it stands; nothing where that is not plain."""
    if scope.function is None:
        return []
    found: list[tuple[ast.AST, ast.expr]] = []
    for node in ast.walk(scope.function):
        if isinstance(node, ast.Assign):
            found += [(node, one) for target in node.targets for one in unpacked(name.id, target, node.value)]
        elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.iter, ast.Tuple | ast.List):
            found += [(node, one) for row in node.iter.elts for one in unpacked(name.id, node.target, row)]
    found.sort(key=lambda one: one[1].lineno)
    found = [one for one in found if one[1].lineno <= name.lineno or isinstance(one[0], ast.comprehension)]
    # What is sure to have been passed on the way hides what came before it.
    sure = [node for node, _ in found if scope.room.around[node] in places(name, scope.room)]
    return [value for n, (_, value) in enumerate(found) if not sure or sure[-1] in [one for one, _ in found[: n + 1]]]


def unpacked(name: str, target: ast.expr, value: ast.expr | None) -> list[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name and value is not None:
        return [value]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        return [found for one, other in pairs for found in unpacked(name, one, other)]
    return []


def called(node: ast.Call, scope: Scope) -> list[Told]:
    """What a call gives: reckoned where that says the same everywhere, followed where it is a function of ours."""
    unknown = [Told(f"<{word(node)}>")]
    match node:
        case ast.Call(func=ast.Name(id=name), args=[ast.Name() as given]) if name in _RECKONED:
            free = scope.function is None or given.id not in (*arguments(scope.function), *scope.given)
            known = getattr(scope.room.module, given.id, None) if free and not assigned(given, scope) else None
            return [Told(getattr(scope.room.module, name)(known))] if known else unknown
        case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get"), args=[_, *other]):
            return entries(table, scope, said(other[0], scope) if other else ()) or unknown
        case ast.Call(func=ast.Attribute(value=ast.Subscript() as value, attr="format")):
            return said(value, scope)
    for room, function in followed(node.func, scope.room) if scope.deep < _DEEP else []:
        if function.name in _VALUES:
            continue
        given_to = {key: (value, scope) for key, value in handed(node, function).items()}
        inner = Scope(room, function, given_to, scope.deep + 1)
        ways = [said(one.value, inner) for one in ast.walk(function) if isinstance(one, ast.Return) and one.value]
        return [one for one in decided(id(function), ways) if not re.fullmatch("<[^<>]*>", one.text)] or unknown
    return unknown


def followed(name: ast.expr, room: Room) -> list[tuple[Room, Function]]:
    """The function of ours that is called, where there is no doubt which."""
    match name:
        case ast.Name(id=called):
            target = getattr(room.module, called, None)
        case ast.Attribute(value=ast.Name(id=owner), attr=called) if owner != "self":
            target = getattr(getattr(room.module, owner, None), called, None)
        case ast.Attribute(attr=called):
            target = None
        case _:
            return []
    found = functions().get(called, [])
    if target is not None:
        return [one for one in found if one[0].name == target.__module__ and one[1].name == called]
    methods = [one for one in found if isinstance(one[0].around[one[1]][0], ast.ClassDef)]
    own = [one for one in methods if one[0] is room]
    return own if len(own) == 1 else methods if len(methods) == 1 else []


def name_of(call: ast.Call) -> str:
    return str(getattr(call.func, "id", None) or getattr(call.func, "attr", ""))


def arguments(function: Function) -> list[str]:
    return [one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg) and one.arg not in ("self", "cls")]


def handed(call: ast.Call, function: Function) -> dict[str, ast.expr]:
    """What a call hands to each parameter."""
    return dict(zip(arguments(function), call.args, strict=False)) | {
        one.arg: one.value for one in call.keywords if one.arg
    }


@cache
def functions() -> Mapping[str, Sequence[tuple[Room, Function]]]:
    found: dict[str, list[tuple[Room, Function]]] = {}
    for room in rooms():
        for node in ast.walk(room.tree):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append((room, node))
    return found


# The mend of a fault that was found elsewhere, and is listed there.
PASSED_ON = "<mend of the fault>"
# How a name of the code is told to somebody who doesn't read it.
_WORDS = {
    "__name__": "type",
    "__traceback__": "place",
    "strerror": "why",
    "error": "why",
    "told": "what",
    "unfit": "why",
    "id_": "id",
    "len": "number",
}


def word(node: ast.expr) -> str:
    """A name for what stands there."""
    match node:
        case ast.Name(id=name):
            return _WORDS.get(name, name.strip("_").lower())
        case ast.Attribute(attr="name" | "value" | "args", value=value) | ast.Starred(value=value):
            return word(value)
        case ast.Attribute(attr="mend"):
            return PASSED_ON[1:-1]
        case ast.Attribute(attr=name):
            return _WORDS.get(name, name.strip("_"))
        case ast.Call(func=ast.Name(id="len")):
            return "number"
        case ast.Call(func=ast.Name(id="map"), args=[_, of]):
            return word(of)
        case ast.Call(func=ast.Name(id="choices" | "listed")) | ast.Call(func=ast.Attribute(attr="join")):
            return _listed(node)
        case ast.Call(args=[first, *_]):
            return word(first)
        case ast.Call(func=ast.Attribute(value=value)):
            return word(value)
        case ast.Call(func=ast.Name() as name):
            return word(name)
        case ast.Subscript(slice=ast.Constant(value=str() as key)):
            return key
        case ast.Subscript(value=value) | ast.FormattedValue(value=value):
            return word(value)
        case ast.GeneratorExp(elt=elt) | ast.ListComp(elt=elt):
            return word(elt)
        case ast.BoolOp(values=[first, *_]) | ast.BinOp(left=first):
            return word(first)
    return "what"


def _listed(call: ast.Call) -> str:
    """What is told one after the other."""
    told = word(call.args[0])
    return "names" if told == "what" else told
