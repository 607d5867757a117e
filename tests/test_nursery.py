"""What is born of a process that has imported everything is as good as what is started from nothing."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nursery import COMMAND, Ended, Process, for_a_shell, run, start
from tests.story import Story

ENDS = {
    "by itself": "print('said')",
    "with a status": "raise SystemExit(3)",
    "with words": "raise SystemExit('why')",
    "of a fault": "1 / 0",
    "of a signal": "import os; os.kill(os.getpid(), 9)",
    "of an interrupt": "import os; os.kill(os.getpid(), 2)",
    "after its last words": "import atexit; atexit.register(print, 'last')",
    "after its threads": "import threading; threading.Timer(0.1, print, ['late']).start()",
    "with what is not written yet": "import os, sys; sys.stdout.write('x'); os.close(1)",
    "with what it was to write": "import sys; sys.stdout = open(1, 'w'); print('said')",
    "with what it was given": "import sys; print(sys.argv, sys.stdin.read())",
}


def started(*line: str, given: bytes = b"") -> Ended:
    done = subprocess.run(line, input=given, capture_output=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("words", [("--version",), ("log", "--limit", "none"), ("check",)])
def test_what_is_born_says_what_is_said_by_what_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    with Story(tmp_path) as story:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DISPATCHER_CONFIG", str(story.config))
        assert run([*COMMAND, *words]) == started(*COMMAND, *words)


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_what_is_born_ends_as_what_was_started(code: str) -> None:
    line = [sys.executable, "-c", code, "word"]
    born, other = run(line, b"given"), started(*line, given=b"given")
    assert (born.returncode, born.stdout) == (other.returncode, other.stdout)
    assert born.stderr.splitlines()[-1:] == other.stderr.splitlines()[-1:]


def test_descriptors_keep_their_numbers() -> None:
    read, write = os.pipe()
    code = f"import os; os.write({write}, os.read(0, 9)); print(os.listdir('/proc/self/fd'))"
    begin: Callable[..., Any]
    said = []
    for begin in (start, subprocess.Popen):
        line = [sys.executable, "-c", code]
        with begin(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[write]) as process:
            said.append(process.communicate(b"given", 60)[0])
        assert process.returncode == 0
        assert os.read(read, 9) == b"given"
    assert said[0] == said[1]
    for fd in (read, write):
        os.close(fd)


def test_what_is_typed_into_a_shell_reads_writes_and_ends_there(tmp_path: Path) -> None:
    words, fds = for_a_shell()

    def typed(line: str) -> tuple[int, str, str]:
        script = f'dispatcher() {{ exec {shlex.join(words)} "$@"; }}; {line}'
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, pass_fds=fds)
        return done.returncode, done.stdout, done.stderr

    with Story(tmp_path) as story:
        story.config.rename(tmp_path / "other.toml")
        handed_in = "echo '{}' | DISPATCHER_CONFIG=other.toml dispatcher enqueue - | tr a-z A-Z"
        status, out, err = typed(handed_in)
        assert (status, out) == (0, "ACCEPTED 0, DUPLICATE 0, CONFLICT 0, INVALID 1\n")
        assert "line 1" in err
        assert typed("dispatcher log -c absent.toml 2>&1 | grep -c absent.toml:; exit ${PIPESTATUS[0]}")[:2] == (
            2,
            "1\n",
        )


def test_it_reads_and_writes_more_than_a_pipe_holds(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        story.call("db", "upgrade")
        done = run(story.line("enqueue", "-"), b"{}\n" * 100_000, 60)
    assert done.returncode == 1
    assert len(done.stderr) > 1 << 17


def test_it_is_a_process_of_its_own_and_dies_of_a_signal(tmp_path: Path) -> None:
    with Story(tmp_path) as story, story.running() as daemon:
        if not isinstance(daemon.process, Process):
            pytest.skip("here each process is started from nothing")
        assert daemon.process.pid != os.getpid()
        assert daemon.process.poll() is None
        daemon.kill()
        assert daemon.process.returncode == -signal.SIGKILL
        assert not Path(f"/proc/{daemon.process.pid}").exists()
