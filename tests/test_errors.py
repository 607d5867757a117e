"""Every message has a mend and stands on docs/errors.md; a bug of ours is one line, and a traceback only by --debug."""

import ast
import re
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import dispatcher.cli
from dispatcher.cli import common, main
from tests import nursery
from tests.errors.code import rooms, said, scope_of
from tests.errors.messages import lines, made, messages, problems
from tests.errors.page import PAGE, page

# In what is planted it stands where a careless exception would have it.
SECRET = "the-secret-of-acme"


def test_the_page_of_errors_is_what_the_code_says() -> None:
    assert PAGE.read_text("utf-8") == page(), "python -m tests.errors docs/errors.md"


def test_every_message_says_what_to_do() -> None:
    known = messages()
    assert len(known) > 350
    assert [one for one in known if not one.cause or not re.sub(r"<[^<>]*>", "", one.mend).strip()] == []


def test_every_message_that_has_words_of_its_own_is_on_the_page() -> None:
    found = {one.place for one in messages()}
    silent = {
        f"{room.name}:{call.lineno}": ast.unparse(call)
        for room in rooms()
        for call in room.calls
        for text in made(call)[:1]
        if _words(text) and f"{room.name}:{call.lineno}" not in found
    }
    assert silent == {}


def _words(text: ast.expr) -> bool:
    return any(isinstance(node, ast.Constant) and " " in str(node.value).strip() for node in ast.walk(text))


@pytest.mark.parametrize(
    ("cause", "mend"),
    [
        ("has <twice> twice", "keep one of them"),
        ("--seed has no dice to throw", "add --fail-rate"),
        ("the password is too short", "choose one of at least 12 characters"),
        ("<value> is not a list of durations", 'write e.g. ["1m", "30m", "50m"]'),
        ("the database <place> has moved to <other>", "name that one in database.url"),
        ("the database <place> can't be used: <why>", "make room on the disk"),
        ('is missing, and iv_mode = "fixed" needs it', "write iv, iv_env or iv_file"),
    ],
)
def test_a_message_is_found_however_its_text_comes_about(cause: str, mend: str) -> None:
    assert (cause, mend) in [(one.cause, one.mend) for one in messages()]


def test_every_kind_of_problem_says_what_to_do() -> None:
    assert [one for one in problems() if not one.kind.mend] == []


def test_every_error_in_the_log_says_what_to_do() -> None:
    told = list(lines())
    assert len(told) > 25
    assert [one for one in told if one.level != "warning" and not one.mend] == []


def test_two_texts_that_hang_on_one_question_are_told_together() -> None:
    text = "def one(there):\n    told = 'a' if there else 'b'\n    return f\"{told} {'c' if there else 'd'}\""
    room = rooms()[0]
    tree = ast.parse(text)
    around = {
        child: (node, part)
        for node in ast.walk(tree)
        for part, value in ast.iter_fields(node)
        for child in (value if isinstance(value, list) else [value])
        if isinstance(child, ast.AST)
    }
    planted = room._replace(tree=tree, around=around)
    (back,) = [node for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert back.value is not None
    assert [one.text for one in said(back.value, scope_of(back.value, planted))] == ["a c", "b d"]


def leaves(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by what is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, *words, name)
        else:
            yield (*words, name), command


COMMANDS = dict(leaves(main))


def plant(patch: pytest.MonkeyPatch, command: click.Command, error: BaseException) -> None:
    """The command's own body raises this; whatever is around it stays, and nothing has to be given."""

    def body(*_given: object, **_named: object) -> None:
        raise error

    around: Any = command.callback
    while hasattr(around.__wrapped__, "__wrapped__"):
        around = around.__wrapped__
    (cell,) = [one for one in around.__closure__ if one.cell_contents is around.__wrapped__]
    patch.setattr(cell, "cell_contents", body)
    names = [one.name for one in command.params if one.expose_value]
    patch.setattr(command, "params", [click.Option([f"--{name}", name]) for name in names if name])


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, [*words])


def one_line(done: Result) -> str:
    """What stands on stderr."""
    assert done.exit_code == 1
    assert done.stdout == ""
    (told,) = done.stderr.splitlines()
    assert "Traceback" not in told
    assert SECRET not in told
    return told


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_bug_in_any_command_is_one_line_and_its_traceback_comes_by_debug(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    error = RuntimeError(f"the token {SECRET}")
    plant(monkeypatch, COMMANDS[words], error)
    told = one_line(typed(*words))
    assert told.startswith("Error: a bug of ours, RuntimeError in dispatcher.cli.common:")
    assert "`dispatcher --debug`" in told
    assert told.endswith("(exit status 1)")
    assert typed("--debug", *words).exception is error


@pytest.mark.parametrize(
    "error",
    [
        KeyError(SECRET),
        AssertionError(SECRET),
        RecursionError(SECRET),
        MemoryError(SECRET),
        NotImplementedError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_kind_of_bug_shows_its_text(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    plant(monkeypatch, COMMANDS["check",], error)
    assert f"a bug of ours, {type(error).__name__} in " in one_line(typed("check"))


def test_what_the_system_refuses_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(28, "No space left on device")
    plant(monkeypatch, COMMANDS["check",], error)
    told = one_line(typed("check"))
    assert told.startswith("Error: the system says [Errno 28] No space left on device; mend that")
    assert typed("--debug", "check").exception is error


def _fails(*_given: object) -> Any:
    raise LookupError(SECRET)


@pytest.mark.parametrize(
    ("where", "name", "words"),
    [
        (dispatcher.cli, "import_module", ["check"]),
        (common, "parse_moment", ["log", "--since", "1h"]),
    ],
    ids=["a command's file that can't be imported", "an option that can't be read"],
)
def test_a_bug_before_the_command_begins_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, words: list[str]
) -> None:
    monkeypatch.setattr(where, name, _fails)
    assert "a bug of ours, LookupError in dispatcher.cli" in one_line(typed(*words))
    assert isinstance(typed("--debug", *words).exception, LookupError)


# A process of its own: Python itself writes the traceback.
PLANTED = f"""
import sys
from dispatcher.cli import common, main, check
from dispatcher.ground.secret import Secret

def read(path, **given):
    kept = Secret("{SECRET}")
    raise RuntimeError("what was read", kept, {{"token": kept}})

check.opened = check.inspect_config = read
check.load_toml = read
sys.argv = ["dispatcher", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("debug", [True, False])
def test_a_traceback_shows_no_secret_that_is_kept_as_one(debug: bool) -> None:
    words = [sys.executable, "-c", PLANTED, *(["--debug"] if debug else []), "check"]
    done = nursery.run(words)
    told = done.stderr.decode()
    assert done.returncode == 1
    assert ("Traceback" in told, "what was read" in told) == (debug, debug)
    assert SECRET not in told.replace(f'Secret("{SECRET}")', "")


def test_a_refusal_is_a_sentence_with_debug_too() -> None:
    done = typed("--debug", "check", "-c", "/nowhere/config.toml")
    assert done.exit_code == 2
    assert "name the file with -c or DISPATCHER_CONFIG" in done.stderr + done.stdout
