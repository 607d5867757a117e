"""Processes forked from one that has imported everything already.

A command's imports cost several times what it does, and the tests start a thousand. What is born here is a process of
its own, which is killed, signalled and waited for like any other; only `exec` and the imports are left out.
"""

import atexit
import fcntl
import gc
import marshal
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple, TextIO

COMMAND = (sys.executable, "-m", "dispatcher")
ROOT = Path(__file__).parent.parent
# What the interpreter reads as it starts; where a test changes one, a process is started from nothing.
_OF_THE_START = ("PYTHON", "LC_", "LANG", "COVERAGE")
# What may be asked of a process that is born.
_OPTIONS = {"stdin", "stdout", "stderr", "text", "encoding", "env", "cwd", "pass_fds"}
_REPLY = 4_096
# What commands import, or have imported, only once they need it.
_LATE = [
    "apscheduler.executors.asyncio",
    "dispatcher.alone",
    "dispatcher.app",
    "dispatcher.store.migrate",
    "encodings.ascii",
    "encodings.idna",
    "psycopg",
    "pwd",
    "rich._emoji_codes",
    "uvicorn.lifespan.off",
    "uvloop",
]


class Ended(NamedTuple):
    """What a command came to."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Process(subprocess.Popen[Any]):
    """A process that is born instead of started: it is another's child, who tells its end."""

    def _execute_child(self, args: Sequence[str], *given: Any) -> None:
        # As Popen has it on every Python of ours: pass_fds, cwd, env, and the three pipes, theirs and ours.
        pass_fds, cwd, env, pipes = given[3], given[4], given[5], given[9:15]
        theirs = (pipes[0], pipes[3], pipes[5])
        fds = {number: number if fd == -1 else fd for number, fd in enumerate(theirs)} | {fd: fd for fd in pass_fds}
        self.pid, self._told = _nursery().bear(args[1:], fds, cwd, env)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._wait(0)
        return None

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.recv(_REPLY))
            self._told.close()
        return int(self.returncode)


def start(line: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` of `python -m MODULE …` or `python -c CODE …`, born where that makes no difference."""
    may_be_born = line[0] == sys.executable and line[1] in ("-m", "-c") and options.keys() <= _OPTIONS
    if may_be_born and _is_as_started(options.get("env") or os.environ):
        return Process(line, **options)
    return subprocess.Popen(line, **options)


def run(line: Sequence[str], given: bytes = b"", timeout: float = 60.0, env: Mapping[str, str] | None = None) -> Ended:
    """As `start`, with this on its standard input, to its end."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start(line, env=env, **pipes) as process:
        try:
            out, err = process.communicate(given, timeout)
        finally:
            process.kill()
    return Ended(process.returncode, out, err)


def for_a_shell() -> tuple[list[str], tuple[int, ...]]:
    """What a shell is to run for `dispatcher`, and the descriptors that it has to hand on for that."""
    if not _is_as_started(os.environ):
        return [*COMMAND], ()
    asked = _nursery().asked.fileno()
    return [sys.executable, "-I", "-S", str(ROOT / "tests" / "client.py"), str(asked)], (asked,)


class _Nursery:
    """The process that forks, as its client sees it."""

    def __init__(self) -> None:
        self.asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = Lock()
        line = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(line, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=ROOT)
        theirs.close()

    def bear(
        self, words: Sequence[str], fds: Mapping[int, int], folder: Any, env: Mapping[str, str] | None
    ) -> tuple[int, socket.socket]:
        """Its number, and where its end is told. `fds`: descriptors of ours by the numbers that they have there."""
        told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = (list(map(str, words)), list(fds), str(folder or os.getcwd()), dict(os.environ if env is None else env))
        with self._one_at_a_time, theirs:
            socket.send_fds(self.asked, [marshal.dumps(asked)], [*fds.values(), theirs.fileno()])
            return int(told.recv(_REPLY)), told

    def close(self) -> None:
        """It ends as soon as nobody can ask any more."""
        self.asked.close()
        self._process.wait()


@cache
def _nursery() -> _Nursery:
    nursery = _Nursery()
    atexit.register(nursery.close)
    return nursery


def _start_of(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OF_THE_START)}


_FIRST = _start_of(os.environ)


def _is_as_started(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment is the same when it is born."""
    # Whoever measures which lines are run has to see each process start.
    plain = sys.platform == "linux" and "COVERAGE_PROCESS_CONFIG" not in os.environ
    return plain and _start_of(environment) == _FIRST


def _forks(asked: socket.socket) -> tuple[Any, ...] | None:
    """Forks for whoever asks, until nobody does; in each that is born, what it is to do."""
    ends: dict[int, tuple[int, socket.socket]] = {}
    watch = select.poll()
    watch.register(asked, select.POLLIN)
    while True:
        for fd, _ in watch.poll():
            if fd != asked.fileno():
                watch.unregister(fd)
                pid, told = ends.pop(fd)
                with told, suppress(BrokenPipeError, ConnectionError):
                    told.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                os.close(fd)
                continue
            message, fds, _, _ = socket.recv_fds(asked, 1 << 20, 16)
            if not message:
                return None
            told = socket.socket(fileno=fds.pop())
            pid = os.fork()
            if pid == 0:
                for watched, (_, other) in ends.items():
                    os.close(watched)
                    other.close()
                asked.close()
                told.close()
                words, numbers, *rest = marshal.loads(message)
                _give(fds, numbers)
                return (words, *rest)
            for given in fds:
                os.close(given)
            watched = os.pidfd_open(pid)
            ends[watched] = (pid, told)
            watch.register(watched, select.POLLIN)
            told.send(str(pid).encode())


def _give(fds: Sequence[int], numbers: Sequence[int]) -> None:
    """Each of these descriptors is to have its own number, whoever has that now."""
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD, max(numbers) + 1) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(above, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)


def _output(fd: int, errors: str) -> TextIO:
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    raw = open(fd, "wb", 0 if at_once else -1, closefd=False)  # noqa: SIM115
    return TextIOWrapper(raw, errors=errors, line_buffering=fd == 2 or raw.isatty(), write_through=at_once)


def _grow_up(words: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    """Becomes `python` with these words: `-m MODULE …` or `-c CODE …`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    tempfile.tempdir = None
    how, what, *rest = words
    sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), _output(1, "strict"), _output(2, "backslashreplace")  # noqa: SIM115
    try:
        if how == "-m":
            sys.argv = [what, *rest]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [how, *rest]
            sys.modules["__main__"] = ModuleType("__main__")
            exec(what, vars(sys.modules["__main__"]))
        _status.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _status.append(end.code or 0)
        raise


# The exit status of what was born, once it is known.
_status: list[int] = []


def _leave() -> None:
    """The last of its end: what it shares with those who are still to be born is not taken to pieces.

    An end that is not as usual is Python's own.
    """
    if _status:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_status[0])


def main() -> None:
    # Before anybody else: who is registered first is called last.
    atexit.register(_leave)
    import dispatcher.cli

    for name in dispatcher.cli.main.list_commands(None):  # type: ignore[arg-type]
        import_module(f"dispatcher.cli.{name}")
    for name in _LATE:
        import_module(name)
    # What is here before the first is born lives as long as they do: none has to look through it.
    gc.freeze()
    born = _forks(socket.socket(fileno=int(sys.argv[1])))
    if born is not None:
        _grow_up(*born)


if __name__ == "__main__":
    main()
