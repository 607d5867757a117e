"""Every message of the product with its mend, and where a person meets it."""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from dispatcher.web.problem import Kind
from tests.errors.code import (
    PASSED_ON,
    Function,
    Room,
    Scope,
    Told,
    functions,
    handed,
    joined,
    name_of,
    rooms,
    said,
    scope_of,
    word,
)

# Where the fault and its mend stand among what is given to those that take both.
_BOTH = {"Fault": (1, 2), "Unfit": (0, 1), "fault": (1, 2), "warn": (1, 2), "_faulty": (1, 2), "Outdated": (0, 1)}
# Those that take one text, which says both.
_ONE = (
    "Unreadable",
    "Refused",
    "StoreUnavailable",
    "NotMade",
    "Contended",
    "NotNow",
    "VaultError",
    "UsageError",
    "fail",
)
# What a command says by itself, and goes on or has more to do.
_BEGINS = ("Error: ", "Warning: ")
_PROBLEMS = ("Problem", "later")
_LINES = ("error", "exception", "warning")
# A text that says both: `cause; mend`, or `cause: mend` where the mend begins with what to do.
_SPLIT = re.compile(
    r"(.*?); ?(.+)|(.*?)(?:: |, )((?:add|change|choose|give|go on|keep|leave|let|name|play|put|say|see|write) .+)",
    re.DOTALL,
)
# What is promised beside that is no mend.
_PROMISE = re.compile(r"; (nothing \S+ \S+( \S+)?|nothing of this page was kept|none of these events was accepted)$")
# What stands for a text that was made elsewhere, and is listed there.
_PASSED = re.compile(r"(--\S* ?)?<[^<>]*>( -c <path>)?")
# What a database says comes behind these words, by `Database.translated`.
_KINDS = ("postgresql", "sqlite")
_WRAPPED = ("the database <place> can't be used: <why>", *(f"dispatcher.store.databases.{one}" for one in _KINDS))

# The parts of the page, in their order, and the rooms whose messages they have, by the beginnings of their names.
AREAS = {
    "Configuration": ("", "cli.check"),
    "Events": (
        *("accept", "ground.events", "ground.fields", "ground.money", "outbox", "protocols"),
        *("store.acceptance", "store.guest", "store.receipts"),
    ),
    "Attempts that can't be made": ("dispatch.attempt", "protocols.credentials"),
    "The store and its opening": ("store",),
    "Commands": ("cli", "store.accounts", "store.keys", "store.search"),
    "Replays, one by one and in bulk": ("store.replays", "cli.replays", "cli.dead", "web.replays"),
    "Copying a store": ("store.moving", "cli.db.move"),
    "The audit and the journal": ("cli.audit", "store.proof", "store.journal", "store.notary"),
    "reconcile": ("reconcile", "cli.reconcile"),
    "certify": ("certify", "cli.certify"),
    "kit": ("kit", "cli.kit"),
    "verify": ("cli.verify", "verify"),
    "demo, and the demo operator": ("cli.demo", "cli.receiver", "receiver"),
    "The HTTP API": ("web",),
    "The console": ("console",),
}


class Message(NamedTuple):
    """What is said, what to do, and where it stands in the code."""

    area: str
    cause: str
    mend: str
    place: str


@cache
def messages() -> Sequence[Message]:
    """Faults, refusals and warnings."""
    return [one for room in rooms() for node in room.calls for one in _messages(node, room)]


def _messages(node: ast.Call, room: Room) -> Iterator[Message]:
    for told in _of(node, room):
        cause, mend = told.text.split("\0")
        if _PASSED.fullmatch(cause) and room.name in _WRAPPED:
            cause = _WRAPPED[0]
        if not _PASSED.fullmatch(cause) and not cause.startswith(" ") and mend != PASSED_ON:
            where = f"{room.name}:{node.lineno}"
            yield Message(area_of(room), cause.replace("database <path>", "database <place>"), mend, where)


def area_of(room: Room) -> str:
    """By the longest beginning that fits."""
    name = f"{room.name}.".removeprefix("dispatcher.")
    begins = {begin: area for area, all_of in AREAS.items() for begin in all_of}
    return begins[max((begin for begin in begins if name.startswith(f"{begin}." if begin else "")), key=len)]


def made(call: ast.Call) -> list[ast.expr]:
    """The texts of which a call makes a message; none where it makes none."""
    name = name_of(call)
    if name in _BOTH and len(call.args) > max(_BOTH[name]):
        return [call.args[at] for at in _BOTH[name]]
    if name == "Unreadable":
        return call.args[1:]
    if name == "echo" and call.args:
        begin = next((node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)), "")
        return call.args[:1] if str(begin).startswith(_BEGINS) else []
    # click's `fail`, in a type of an argument, takes three.
    return call.args[:1] if name in _ONE and (name != "fail" or len(call.args) == 3) else []


def _of(node: ast.Call, room: Room) -> list[Told]:
    """The cause and the mend of a call that makes a message, by every way to it."""
    texts, scope = made(node), scope_of(node, room)
    if len(texts) == 1:
        told = (text.removeprefix("Error: ").removeprefix("Warning: ") for text, _ in said(texts[0], scope))
        return [Told("\0".join(split(text))) for text in told]
    if all(isinstance(text, ast.Attribute) for text in texts):
        return []
    if scope.function and scope.function.name in _BOTH and isinstance(texts[1], ast.Name):
        return []
    return [told for way in _ways(texts, scope) for told in joined([said(text, way) for text in texts], "\0")]


def split(text: str) -> tuple[str, str]:
    """A text's cause and its mend, which may be absent."""
    while promise := _PROMISE.search(text):
        text = text[: promise.start()]
    found = _SPLIT.fullmatch(text)
    if found is None:
        return text, ""
    return (found[1] or found[3], found[2] or found[4])


def _ways(texts: list[ast.expr], scope: Scope) -> list[Scope]:
    """The scope, or one for each call of its function where a text is what the caller gives."""
    function = scope.function
    given = {one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)} if function else set()
    if function is None or not any(isinstance(text, ast.Name) and text.id in given for text in texts):
        return [scope]
    return [
        Scope(scope.room, function, {name: (value, at) for name, value in handed(call, function).items()})
        for call, at in _calls(function)
    ] or [scope]


def _calls(function: Function) -> Iterator[tuple[ast.Call, Scope]]:
    """Who calls it: in its own file, and elsewhere where no other function has the name."""
    named = functions()[function.name]
    for room in rooms():
        if len(named) == 1 or (room, function) in named:
            yield from ((node, scope_of(node, room)) for node in room.calls if name_of(node) == function.name)


class Problem(NamedTuple):
    """A kind of problem of the HTTP API, and what its details say."""

    kind: Kind
    details: list[str]


def problems() -> list[Problem]:
    found: dict[Kind, set[str]] = {kind: set() for kind in Kind}
    for room in rooms():
        if not room.name.startswith("dispatcher.web"):
            continue
        for node in room.calls:
            match node:
                case ast.Call(func=ast.Name(id=name), args=[ast.Attribute(attr=kind), detail, *_]) if name in _PROBLEMS:
                    told = {one.text for one in said(detail, scope_of(node, room))}
                    found[Kind[kind]] |= {text for text in told if not _PASSED.fullmatch(text)}
    return [Problem(kind, sorted(details)) for kind, details in found.items()]


class Line(NamedTuple):
    """A line of the log that tells of a trouble: its event, what it carries, and its mend."""

    event: str
    level: str
    carries: list[str]
    mend: str
    place: str


def lines() -> Iterator[Line]:
    for room in rooms():
        for node in room.calls:
            match node:
                case ast.Call(func=ast.Attribute(value=log, attr=level), args=[event, *_]) if (
                    level in _LINES and word(log) == "log"
                ):
                    scope = scope_of(node, room)
                    given = {one.arg: one.value for one in node.keywords if one.arg}
                    for one in joined([said(event, scope), said(given.get("mend", ast.Constant("")), scope)], "\0"):
                        name, mend = one.text.split("\0")
                        yield Line(
                            name, level, [key for key in given if key != "mend"], mend, f"{room.name}:{node.lineno}"
                        )
