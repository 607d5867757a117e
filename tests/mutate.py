"""`python -m tests.mutate JOBS [ROOM…]`: faults planted one at a time in the pure rooms; whether their tests see each.

Cosmic Ray makes the mutants. They are tried here, in forks: processes of their own would spend their time importing.
One within functions is put into those that are there, in a fork of a process that has collected the tests; one in a
module's own lines is imported, in a fork of a process that knows nothing of ours. Exit status 1: too many survive.
"""

import ast
import gc
import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from difflib import SequenceMatcher
from functools import _lru_cache_wrapper, partial
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from time import process_time
from types import CodeType, FrameType, FunctionType
from typing import NamedTuple

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from hypothesis import Phase, settings

ROOT = Path(__file__).parent.parent
ROOMS: Mapping[str, Sequence[str]] = {
    "ground/schedule": ("policy", "values"),
    "ground/policy": ("policy", "success", "values"),
    "ground/crypto": ("crypto", "values"),
    "ground/events": ("events", "accept"),
    "ground/money": ("fields", "events"),
    "ground/fields": ("fields", "events", "accept"),
    "ground/readers": ("readers", "config", "egress", "web"),
    "seal/__init__": ("seal",),
    "seal/vault": ("vault",),
    "protocols/credentials": ("credentials",),
    "protocols/notice": ("accept", "notice"),
    "protocols/settle": ("settle",),
    "protocols/chat": ("summary",),
    "protocols/summary": ("summary",),
}
ENOUGH = 0.95
# A test that takes longer (s of CPU) is left out: a mutant is worth a glance, thousands of them.
QUICK = 0.5
# Where a test asks for one of these it looks into more than a pure room.
_APART = {"database", "postgresql", "chromium", "tmp_path"}
# This one reads and writes files itself.
_FILES = "seal/vault"
# Cosmic Ray's names. One replacement for each arithmetic operator, the boundary and the negation of each comparison: to
# try all ten and all seven only adds mutants that every test kills.
_OPERATORS = (
    *("Add_Sub", "Sub_Add", "Mul_FloorDiv", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv", "Pow_Mul"),
    *("RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd"),
    *("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    *("Is_IsNot", "IsNot_Is", "USub_UAdd", "Delete_Invert", "Delete_Not", "AddNot"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
    *("ExceptionReplacer", "NumberReplacer", "RemoveDecorator"),
)
_PRELOADING = "ignore::pytest.PytestAssertRewriteWarning"
# pytest's exit statuses; a mutant with which a test can't even be imported tells nothing of the tests.
_FAILED = 1
# What must never come of one: it is no key of the fates, so that it ends everything.
_BROKEN = 70
_FATES = {0: "survived", _FAILED: "killed", 2: "unfit", 4: "unfit"}
_FATES |= dict.fromkeys((-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM), "timeout")
# In place of a mutant's number: none at all.
_PUT_IN, _IMPORTED = -1, -2
# What one mutant may use: seconds of CPU, bytes, and seconds in all.
CPU, MEMORY, WALL = 20, 4 * 2**30, 300


class Mutant(NamedTuple):
    """One fault: the whole module's text with it, and the line where it is, before and after."""

    source: str
    line: int
    before: str
    after: str


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant that means something else to the interpreter, annotations aside, each once."""
    tree, known, found = get_ast(source), {_meaning(source)}, []
    nodes = list(ast_nodes(tree))
    for name in operator_names():
        if not name.endswith(tuple(f"{sign}{one}" for one in _OPERATORS for sign in "_/")):
            continue
        operator = get_operator(name)()
        for occurrence in range(sum(len(list(operator.mutation_positions(node))) for node in nodes)):
            mutated = mutate_code(source, operator, occurrence)
            meaning = _meaning(mutated)
            if meaning is not None and meaning not in known:
                known.add(meaning)
                found.append(_located(source, mutated))
    return found


def _meaning(source: str) -> str | None:
    """What is run of it, as text; None where it is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    return ast.dump(tree)


def _located(source: str, mutated: str) -> Mutant:
    before, after = source.splitlines(), mutated.splitlines()
    edits = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    _, start, end, new_start, new_end = next(edit for edit in edits if edit[0] != "equal")
    return Mutant(mutated, start + 1, " ".join(before[start:end]).strip(), " ".join(after[new_start:new_end]).strip())


def _functions(code: CodeType, path: str = "") -> Iterator[tuple[str, CodeType]]:
    """Each code object of a module by its place in the tree of them."""
    yield path, code
    nested = (one for one in code.co_consts if isinstance(one, CodeType))
    for number, one in enumerate(nested):
        yield from _functions(one, f"{path}/{number}:{one.co_name}")


def _own(code: CodeType) -> object:
    """A code object without those nested in it."""
    values = [(type(one), one) for one in code.co_consts if not isinstance(one, CodeType)]
    return code.co_code, values, code.co_names, code.co_varnames, code.co_freevars, code.co_exceptiontable


def changed(module: Path, mutant: Mutant) -> set[str] | None:
    """The qualified names of the functions that differ; None where what runs at import does."""
    before, after = (dict(_functions(compile(text, module, "exec"))) for text in (module.read_text(), mutant.source))
    if before.keys() != after.keys():
        return None
    differ = [before[path] for path in before if _own(before[path]) != _own(after[path])]
    at_import = any(code.co_name == "<module>" or not code.co_flags & 1 for code in differ)
    return None if at_import else {code.co_qualname for code in differ}


def put_in(module: Path, mutant: Mutant) -> None:
    """The mutant's code into every function of the module that lives in this process, and no cache remembers before."""
    before, after = (dict(_functions(compile(text, module, "exec"))) for text in (module.read_text(), mutant.source))
    codes = {(code.co_qualname, code.co_firstlineno): after[path] for path, code in before.items()}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == str(module):
            one.__code__ = codes[one.__code__.co_qualname, one.__code__.co_firstlineno]
    for cache in remembered():
        cache.cache_clear()


def remembered() -> "list[_lru_cache_wrapper[object]]":
    caches = [one for one in gc.get_objects() if isinstance(one, _lru_cache_wrapper)]
    return [one for one in caches if one.__module__.startswith(("dispatcher", "tests"))]


def plant(module: Path, mutant: Mutant) -> None:
    """From now on this process imports the module from the mutant's text."""
    usual = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        mine = loader.get_filename(name) == str(module)
        return compile(mutant.source, module, "exec") if mine else usual(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]


class Run:
    """What pytest is given to hold on to: chooses the tests, and ends the process at the first that fails."""

    def __init__(
        self, apart: Set[str], chosen: Sequence[str] | None, loop: Callable[[pytest.Session], None] | None
    ) -> None:
        self._apart, self._chosen, self._loop = apart, chosen, loop

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._chosen is not None:
            place = {name: number for number, name in enumerate(self._chosen)}
            items[:] = sorted((one for one in items if one.nodeid in place), key=lambda one: place[one.nodeid])
        else:
            items[:] = [one for one in items if self._apart.isdisjoint(getattr(one, "fixturenames", ()))]

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        settings.register_profile(
            "mutants",
            derandomize=True,
            max_examples=20,
            phases=[Phase.explicit, Phase.generate],
            deadline=None,
            database=None,
        )
        settings.load_profile("mutants")
        if self._loop is None:
            return None
        self._loop(session)
        return True


def run(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


class Room:
    """One module, its mutants and its tests, in a process that has imported nothing of ours."""

    def __init__(self, name: str, jobs: int) -> None:
        self.name, self._jobs = name, jobs
        self._module = ROOT / "dispatcher" / f"{name}.py"
        self._tests = [f"tests/test_{test}.py" for test in ROOMS[name]]
        source = self._module.read_text()
        self.mutants = mutants_of(source)
        self._changed = [changed(self._module, one) for one in self.mutants]
        # The module as it is, put in and imported, is survived, or what kills is not the mutants.
        self._untouched = Mutant(source, 0, "", "")
        self._apart = _APART - ({"tmp_path"} if name == _FILES else set())
        self._children: dict[int, int] = {}

    def fates(self) -> list[str]:
        """Of each mutant, in their order."""
        with tempfile.TemporaryDirectory() as folder:
            self._told = Path(folder) / "told"
            self._told.touch()
            child = os.fork()
            if child == 0:
                os._exit(self._pytest(Run(self._apart, None, self._inside)))
            failed = os.waitpid(child, 0)[1] != 0
            told = [json.loads(one) for one in self._told.read_text().splitlines()]
            if failed:
                raise SystemExit(f"{self.name}: without a mutant as well this fails: {told}")
            self._quick, libraries, outside = told[0]
            for library in libraries:
                with suppress(Exception):
                    import_module(library)
            for number in (_IMPORTED, *outside):
                self._fork(number, self._outside)
            self._reap(0)
            fates = dict(json.loads(one) for one in self._told.read_text().splitlines()[1:])
        if (fates[_PUT_IN], fates[_IMPORTED]) != ("survived", "survived"):
            raise SystemExit(f"{self.name}: without a mutant it is {fates[_PUT_IN]}, {fates[_IMPORTED]}")
        return [fates[number] for number in range(len(self.mutants))]

    def _mutant(self, number: int) -> Mutant:
        return self.mutants[number] if number >= 0 else self._untouched

    def _pytest(self, plugin: Run) -> int:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        options = ["-x", "-n", "0", "-p", "no:terminalreporter", "--tb=no", "--noconftest", "-W", _PRELOADING]
        return int(pytest.main([*options, *self._tests], plugins=[plugin]))

    def _inside(self, session: pytest.Session) -> None:
        """Every test once, to see how long it takes and what it calls; then each mutant that can be put in here."""
        calls: dict[pytest.Item, set[str]] = {}
        taken: dict[pytest.Item, float] = {}
        caches = remembered()
        for item in session.items:
            for cache in caches:
                cache.cache_clear()
            started, calls[item] = process_time(), set()
            sys.setprofile(partial(self._note, calls[item]))
            run(item)
            sys.setprofile(None)
            if session.testsfailed:
                self._tell(item.nodeid)
                os._exit(_FAILED)
            taken[item] = process_time() - started
        quick = sorted((one for one in taken if taken[one] < QUICK), key=lambda one: taken[one])
        libraries = [name for name in sys.modules if name.split(".")[0] not in ("dispatcher", "tests")]
        # What is called at import alone must be imported anew.
        tests = {
            number: [one for one in quick if names is not None and not names.isdisjoint(calls[one])]
            for number, names in enumerate(self._changed)
        }
        self._tell(([one.nodeid for one in quick], libraries, [number for number in tests if not tests[number]]))
        for number, chosen in {_PUT_IN: quick, **tests}.items():
            if chosen:
                self._fork(number, partial(self._put_in, chosen, session))
        self._reap(0)

    def _note(self, called: set[str], frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == str(self._module):
            called.add(frame.f_code.co_qualname)

    def _put_in(self, chosen: Sequence[pytest.Item], session: pytest.Session, number: int) -> int:
        put_in(self._module, self._mutant(number))
        for item in chosen:
            run(item)
            if session.testsfailed:
                return _FAILED
        return 0

    def _outside(self, number: int) -> int:
        plant(self._module, self._mutant(number))
        return self._pytest(Run(self._apart, self._quick, None))

    def _fork(self, number: int, test: Callable[[int], int]) -> None:
        """Tries one mutant beside at most `jobs` - 1 others; a loop without an end is ended."""
        self._reap(self._jobs - 1)
        child = os.fork()
        if child == 0:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                signal.alarm(WALL)
                os._exit(test(number))
            finally:
                os._exit(_BROKEN)
        self._children[child] = number

    def _reap(self, most: int) -> None:
        while len(self._children) > most:
            child, status = os.wait()
            self._tell((self._children.pop(child), _FATES[os.waitstatus_to_exitcode(status)]))

    def _tell(self, what: object) -> None:
        with self._told.open("a") as file:
            file.write(json.dumps(what) + "\n")


def main(jobs: str, *rooms: str) -> int:
    sys.stdout.write("| room | mutants | killed | survived | timeouts | share |\n|---|---|---|---|---|---|\n")
    total: Counter[str] = Counter()
    for name in rooms or ROOMS:
        room = Room(name, int(jobs))
        fates = room.fates()
        total.update(fates)
        sys.stdout.write(_row(name, Counter(fates)))
        for one, fate in zip(room.mutants, fates, strict=True):
            if fate == "survived":
                sys.stdout.write(f"  {name}.py:{one.line}\n    - {one.before}\n    + {one.after}\n")
        sys.stdout.flush()
    sys.stdout.write(_row("all of these", total))
    return int(_share(total) < ENOUGH)


def _share(fates: Counter[str]) -> float:
    found = fates["killed"] + fates["timeout"]
    return found / (found + fates["survived"]) if found else 1.0


def _row(name: str, fates: Counter[str]) -> str:
    killed, survived, late = fates["killed"], fates["survived"], fates["timeout"]
    return f"| {name} | {killed + survived + late} | {killed} | {survived} | {late} | {_share(fates):.1%} |\n"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
