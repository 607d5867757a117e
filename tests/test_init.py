"""`dispatcher init`: two files to start with, secrets that were never anyone else's, and nothing overwritten."""

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dispatcher.cli import init, main
from dispatcher.config import load_config
from dispatcher.seal import vault
from dispatcher.seal.vault import read_or_make_key_file
from tests.story import Done


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A new folder that is the current one, under the widest rights there are."""
    mask, before = os.umask(0), Path.cwd()
    os.chdir(tmp_path)
    try:
        yield tmp_path
    finally:
        os.chdir(before)
        os.umask(mask)


def call(*words: str, env: Mapping[str, str | None] | None = None) -> Done:
    given = {"LC_ALL": "C", "DISPATCHER_CONFIG": None, **(env or {})}
    result = CliRunner().invoke(main, words, env=given, catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def written(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def test_a_configuration_and_a_master_key_are_made_for_their_owner_alone(here: Path) -> None:
    assert call("init").status == 0
    assert files(here) == ["config.toml", "master.key"]
    for path in here.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert written(here / "config.toml")["secrets"] == {"master_key_file": "master.key"}
    assert read_or_make_key_file(here / "master.key", make=False)


def test_what_was_made_loads_and_the_key_is_the_one_beside_it(here: Path) -> None:
    call("init")
    config = load_config(here / "config.toml")
    assert list(config.operators) == ["acme"]
    assert not config.warnings
    assert config.master_key is not None
    assert config.master_key.reveal() == (here / "master.key").read_text().strip()


def test_what_was_made_is_checked_without_a_fault(here: Path) -> None:
    call("init", "-c", "new.toml")
    done = call("check", "--no-network", "--json", "-c", "new.toml")
    assert (done.status, done.json()["faults"]) == (0, [])
    assert [warning["where"] for warning in done.json()["warnings"]] == ["database.url"]


def secrets_of(folder: Path) -> list[str]:
    acme = written(folder / "config.toml")["operators"]["acme"]
    return [acme["token"], acme["crypto"]["key"], acme["crypto"]["iv"], (folder / "master.key").read_text().strip()]


def test_every_secret_is_another_each_time_and_none_is_shown(here: Path) -> None:
    seen: list[str] = []
    for words in ([], ["--json"], []):
        done = call("init", *words)
        assert done.status == 0
        assert not [secret for secret in secrets_of(here) if secret in done.out + done.err]
        seen += secrets_of(here)
        for path in here.iterdir():
            path.unlink()
    assert len(set(seen)) == 12


def test_the_sample_key_and_iv_are_16_ascii_characters_and_say_how_they_are_read(here: Path) -> None:
    call("init")
    crypto = written(here / "config.toml")["operators"]["acme"]["crypto"]
    assert all(re.fullmatch("[A-Za-z0-9]{16}", crypto[name]) for name in ("key", "iv"))
    assert crypto["key_encoding"] == "utf8"


def test_what_to_do_next_is_said_in_two_lines(here: Path) -> None:
    done = call("init")
    key_id = read_or_make_key_file(here / "master.key", make=False).key_id
    assert done.out.splitlines() == [
        f"made config.toml and master.key (master key {key_id})",
        "Next: write your operator into config.toml; `dispatcher check`; `dispatcher run`.",
        "Keep a copy of master.key apart from the database's backups: without it they can't be read.",
    ]
    assert done.err == ""


def test_the_next_commands_name_a_configuration_of_another_name(here: Path) -> None:
    (here / "my shop").mkdir()
    done = call("init", "-c", "my shop/a.toml")
    assert "`dispatcher check -c 'my shop/a.toml'`; `dispatcher run -c 'my shop/a.toml'`" in done.out
    assert files(here / "my shop") == ["a.toml", "master.key"]
    assert files(here) == ["my shop"]


def test_json_names_both_files_and_the_keys_id(here: Path) -> None:
    done = call("init", "--json", "-c", str(here / "a.toml"))
    assert done.json() == {
        "config": str(here / "a.toml"),
        "master_key": str(here / "master.key"),
        "key_id": read_or_make_key_file(here / "master.key", make=False).key_id,
    }
    assert (done.status, done.out.count("\n")) == (0, 1)


def test_the_environment_names_the_file_to_write(here: Path) -> None:
    assert call("init", env={"DISPATCHER_CONFIG": "mine.toml"}).status == 0
    assert files(here) == ["master.key", "mine.toml"]


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    ("there", "told"),
    [
        (["config.toml"], "Error: config.toml exists already"),
        (["master.key"], "Error: master.key exists already"),
        (["config.toml", "master.key"], "Error: config.toml and master.key exist already"),
    ],
    ids=["config", "key", "both"],
)
def test_nothing_that_stands_there_is_overwritten(here: Path, there: list[str], told: str, words: list[str]) -> None:
    for name in there:
        (here / name).write_text("theirs")
    done = call("init", *words)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(told)
    assert files(here) == there
    assert {(here / name).read_text() for name in there} == {"theirs"}


def test_a_link_that_leads_nowhere_stands_there_too_and_nothing_is_begun(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "write_new", None)
    (here / "config.toml").symlink_to("/nowhere/config.toml")
    done = call("init")
    assert (done.status, files(here)) == (1, ["config.toml"])
    assert "config.toml exists already" in done.err


@pytest.mark.parametrize("name", ["config.toml", "master.key"])
def test_what_appears_while_we_write_is_not_overwritten_and_our_half_goes(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def too_late(path: Path, text: str) -> None:
        if path.name == name:
            path.write_text("theirs")
        vault.write_new(path, text)

    monkeypatch.setattr(init, "write_new", too_late)
    done = call("init")
    assert done.status == 1
    assert f"{name} exists already" in done.err
    assert files(here) == [name]
    assert (here / name).read_text() == "theirs"


def test_a_full_disk_leaves_neither_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        if path.name == "config.toml":
            raise OSError(28, "No space left on device")
        vault.write_new(path, text)

    monkeypatch.setattr(init, "write_new", full)
    done = call("init")
    assert done.status == 1
    assert "config.toml can't be written (No space left on device)" in done.err
    assert files(here) == []


def test_a_folder_that_is_not_there_is_told_in_a_sentence(here: Path) -> None:
    done = call("init", "-c", "nowhere/config.toml")
    assert done.status == 1
    assert "nowhere/master.key can't be written (No such file or directory)" in done.err


@pytest.mark.parametrize("name", ["", "master.key", "\udcff.toml"])
def test_a_name_that_cannot_be_is_told_in_a_sentence(here: Path, name: str) -> None:
    done = call("init", "-c", name, "--json")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert files(here) == []


def test_init_is_the_first_command_after_the_demo() -> None:
    assert main.list_commands(None)[:2] == ["demo", "init"]  # type: ignore[arg-type]  # needs no context
    assert "a configuration and a master key to start with" in call("--help").out
    assert "Overwrites nothing" in call("init", "--help").out


def test_a_master_key_alone_is_made_for_an_installation_that_has_its_configuration(here: Path) -> None:
    done = call("init", "--master-key", "fresh.key")
    assert (done.status, files(here)) == (0, ["fresh.key"])
    key = read_or_make_key_file(here / "fresh.key", make=False)
    assert done.out == f"made fresh.key (master key {key.key_id})\n"
    assert stat.S_IMODE((here / "fresh.key").stat().st_mode) == 0o600
    again = call("init", "--master-key", "fresh.key", "--json")
    assert again.status == 1
    assert "fresh.key exists already and won't be overwritten" in again.err
    assert read_or_make_key_file(here / "fresh.key", make=False).key_id == key.key_id
