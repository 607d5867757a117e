"""What the image and the completion are made of, as far as it can be tried without Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nursery import COMMAND
from tests.story import Story

ROOT = Path(__file__).parent.parent
IMAGE = (ROOT / "Dockerfile").read_text("utf-8")


def instructions(name: str) -> list[str]:
    """What stands behind each instruction of this name, in order."""
    return re.findall(rf"^ *{name} (.*)$", IMAGE.replace("\\\n", " "), re.MULTILINE)


def copied() -> list[str]:
    return [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]


def test_what_the_dockerfile_copies_is_let_in_and_nothing_else() -> None:
    let_in = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sorted(let_in) == sorted(copied())
    assert all((ROOT / name).exists() for name in copied())


def test_what_the_dockerfile_copies_is_enough_to_run(tmp_path: Path) -> None:
    """The files alone, in a folder of their own, with the libraries that are installed here."""
    for name in copied():
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(source, tmp_path / name)
    line = [sys.executable, "-P", "-c", "import dispatcher.cli, sys; print(dispatcher.__file__); dispatcher.cli.main()"]
    told = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*line, "check", "--help"], capture_output=True, text=True, env=told, cwd="/", check=True)
    assert done.stdout.startswith(f"{tmp_path}/dispatcher/__init__.py\n")
    assert (ROOT / "pyproject.toml").read_text("utf-8").count('readme = "README.md"') == 1


def test_the_image_runs_as_nobody_in_particular_and_is_told_to_stop_as_the_daemon_wants() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    last = IMAGE[IMAGE.rindex("\nFROM ") :]
    assert "pip install" not in last
    assert "--constraint constraints.txt" in IMAGE
    assert json.loads(instructions("ENTRYPOINT")[0]) + json.loads(
        re.findall(r"^CMD (.*)$", IMAGE, re.MULTILINE)[0]
    ) == [
        "dispatcher",
        "run",
    ]


def test_the_images_health_check_tells_ready_from_not(tmp_path: Path) -> None:
    check = json.loads(re.findall(r"^ +CMD (\[.*\])$", IMAGE, re.MULTILINE)[0])
    assert check[0] == "python"
    assert "/readyz'" in check[-1]

    def healthy(url: str) -> bool:
        environment = {**os.environ, "DISPATCHER_READYZ": url, "http_proxy": "http://127.0.0.1:9"}
        done = subprocess.run([sys.executable, *check[1:]], env=environment, capture_output=True, check=False)
        return done.returncode == 0

    with Story(tmp_path) as story:
        url = f"http://{story.tables['web']['listen']}/readyz"
        assert not healthy(url)
        with story.running() as daemon:
            assert healthy(url)
            assert not healthy(f"{daemon.web}/nowhere")


# Completion.


def _script(shell: str) -> str:
    return subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True).stdout


def test_bash_completes_commands_and_operators_names(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not on this machine: its completion is not tried")
    with Story(tmp_path) as story:
        story.add_operator("acorn")
        story.add_operator("bolt")
        script = _script("bash")
        (tmp_path / "script.bash").write_text(script, "utf-8")
        # As it is installed: by its own name, which the script asks.
        there = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{there}:{os.environ['PATH']}", "DISPATCHER_CONFIG": str(story.config)}

        def completed(*words: str) -> list[str]:
            given = " ".join(shlex.quote(word) for word in words)
            asked = (
                f"source {tmp_path}/script.bash; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; "
                '_dispatcher_completion dispatcher; printf "%s\\n" "${COMPREPLY[@]}"'
            )
            line = [bash, "--norc", "-c", asked]
            done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60, check=False)
            return done.stdout.split()

        assert completed("dispatcher", "dea") == ["dead"]
        assert completed("dispatcher", "dead", "re") == ["replay", "resolve"]
        assert completed("dispatcher", "operators", "show", "ac") == ["acme", "acorn"]
        assert completed("dispatcher", "log", "--operator", "b") == ["bolt"]
        story.config.write_text("= no TOML", "utf-8")
        assert completed("dispatcher", "operators", "show", "ac") == []


@pytest.mark.parametrize(("shell", "said"), [("zsh", "#compdef dispatcher"), ("fish", "complete --no-files --command")])
def test_the_scripts_of_other_shells_are_clicks_own(shell: str, said: str) -> None:
    assert said in _script(shell)
    assert "_DISPATCHER_COMPLETE" in _script(shell)
