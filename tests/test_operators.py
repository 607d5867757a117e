"""`dispatcher operators`, `check` and `reencrypt` as people and scripts meet them, beside a daemon that runs."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.cli.operators import values
from dispatcher.cli.operators.values import is_secret
from dispatcher.config.operators import Defaults
from dispatcher.seal.vault import MasterKey
from dispatcher.store.databases.sqlite import FileBell
from tests.desk import Desk
from tests.ground import IV, KEY
from tests.nursery import COMMAND
from tests.story import Done, Story, orders, until

NEW_KEY, NEW_IV = "fedcba9876543210", "0G1f2E3d4C5b6A7h"
CHANGE = "dispatcher.cli.operators.change"
# For a delivery that is to be retried until somebody does something about it.
OFTEN = 'retry.delays=["100ms"' + ', "200ms"' * 99 + "]"
COLUMNS = {"name", "state", "origin", "types", "concurrency", "key_version", "waiting", "updated_at"}
COLUMNS |= {"paused_at", "held_at", "fault"}


class _Spoken(Story):
    """A story whose commands may be those about operators; by itself no operator stands in its file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tables["log"] = {"level": "debug"}
        self.operators.clear()
        self.write()

    def line(self, *words: object) -> list[str]:
        if words[0] == "operators":
            return [*COMMAND, "operators", str(words[1]), "-c", str(self.config), *map(str, words[2:])]
        return super().line(*words)

    def make(self, name: str, *more: object, url: str = "", **given: Any) -> Done:
        """An operator by `operators set`, its secrets by standard input."""
        url = url or f"http://127.0.0.1:{self.port()}/Demo/notice"
        secrets = ["--secret", "token", "--secret", "crypto.key", "--secret", "crypto.iv"]
        stdin = f"the-token-of-{name}\n{given.pop('key', KEY)}\n{IV}\n"
        done = self.call("operators", "set", name, f"notice_url={url}", *secrets, *more, stdin=stdin, **given)
        assert done.status == 0, done
        return done

    def listed(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.call("operators", "list", "--json").rows()}

    def shown(self, name: str) -> dict[str, Any]:
        done = self.call("operators", "show", name, "--json")
        assert done.status == 0, done
        given: dict[str, Any] = done.json()
        return given

    def played(self, name: str, url: str, **crypto: str) -> Path:
        """A configuration for the demo operator alone, which plays this one."""
        settings = {"notice_url": url, "token": f"the-token-of-{name}", "crypto": {"key": KEY, "iv": IV} | crypto}
        ours, self.operators = self.operators, {name: settings}
        path = self.write(self.folder / "played.toml")
        self.operators = ours
        return path

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}


class Bureau(_Spoken, Desk):
    """All of it in this process."""


@pytest.fixture
def bureau(tmp_path: Path) -> Iterator[Bureau]:
    with Bureau(tmp_path) as bureau:
        yield bureau


@pytest.fixture
def street(tmp_path: Path) -> Iterator[_Spoken]:
    """With real processes."""
    with _Spoken(tmp_path) as street:
        yield street


# set


def test_an_operator_is_made_with_nothing_but_a_database_in_the_file(bureau: Bureau) -> None:
    bureau.config.write_text('[database]\nurl = "sqlite:///dispatcher.db"\n[egress]\nallow = ["127.0.0.0/8"]\n')
    done = bureau.make("acme", "concurrency=8", 'settle.retry.every="60s"', "settle.retry.for=3h")
    assert done.out == "acme: set, key version 1\n"
    row = bureau.listed()["acme"]
    assert set(row) == COLUMNS
    assert {name: row[name] for name in ("state", "origin", "types", "concurrency", "key_version", "waiting")} == {
        "state": "open",
        "origin": "command",
        "types": ["notice"],
        "concurrency": 8,
        "key_version": 1,
        "waiting": 0,
    }
    bureau.enqueue(orders(2))
    assert bureau.listed()["acme"]["waiting"] == 2
    assert stat.S_IMODE((bureau.folder / "dispatcher.db-key").stat().st_mode) == 0o600


def test_settings_change_one_by_one_and_the_rest_stays(bureau: Bureau) -> None:
    bureau.make("acme", "concurrency=8", "retry.every=60s", "retry.for=3h", "breaker.failures=5")
    done = bureau.call("operators", "set", "acme", "concurrency=9", 'net_check="off"', "--unset", "breaker", "--json")
    assert done.json() == {"name": "acme", "changed": True, "dry_run": False, "key_version": 1}
    settings = bureau.shown("acme")["settings"]
    assert settings.pop("notice_url").startswith("http://127.0.0.1:")
    assert settings == {
        "concurrency": 9,
        "net_check": "off",
        "retry": {"every": "60s", "for": "3h"},
        "token": "…",
        "crypto": {"key": "…", "iv": "…"},
    }
    bureau.call("operators", "set", "acme", 'retry={ every = "30s", for = "1h" }')
    assert bureau.shown("acme")["settings"]["retry"] == {"every": "30s", "for": "1h"}


def test_what_is_as_it_was_is_not_written(bureau: Bureau) -> None:
    bureau.make("acme", "concurrency=8")
    before = bureau.query("SELECT * FROM operators"), bureau.query("SELECT * FROM journal")
    done = bureau.call("operators", "set", "acme", "concurrency=8", "--secret", "crypto.key", stdin=f"{KEY}\n")
    assert (done.status, done.out) == (0, "acme: nothing to change, key version 1\n")
    assert bureau.call("operators", "set", "acme").out == "acme: nothing to change, key version 1\n"
    assert (bureau.query("SELECT * FROM operators"), bureau.query("SELECT * FROM journal")) == before


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["token=hunter-two"], "token"),
        (["token=two words, hunter-two"], "token"),
        (["crypto.key=hunter-two"], "crypto.key"),
        (["crypto.iv='hunter-two'"], "crypto.iv"),
        (['crypto={ key = "hunter-two", cipher = "aes-256-cbc" }'], "crypto.key"),
        (["headers.X-Api-Key=hunter-two"], "headers.X-Api-Key"),
        (['headers={ "X-Api-Key" = "hunter-two" }'], "headers.X-Api-Key"),
        (["oauth.client_secret=hunter-two"], "oauth.client_secret"),
        (["signature.secret=hunter-two"], "signature.secret"),
        (["signature.previous_secret=hunter-two"], "signature.previous_secret"),
        (["tls.key=hunter-two"], "tls.key"),
        (["concurrency=9", "token=hunter-two", "nonsense=1"], "token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("known", [True, False], ids=["of one that is there", "of a new one"])
def test_a_secret_on_the_command_line_is_refused_unseen_and_changes_nothing(
    bureau: Bureau, words: list[str], name: str, known: bool
) -> None:
    if known:
        bureau.make("acme")
    before = bureau.files()
    done = bureau.call("operators", "set", "acme", *words)
    assert (done.status, done.out) == (2, "")
    assert f"{name}: a secret is never given as VALUE" in done.err
    assert f"--secret {name}, {name}_file=PATH or {name}_env=NAME" in done.err
    assert "hunter" not in done.err
    assert bureau.files() == before


def test_what_counts_as_a_secret_is_what_is_read_as_one(bureau: Bureau) -> None:
    bureau.make("acme", "concurrency=8", "mint.account=us", "auth=minted", "--unset", "token")
    settings = bureau.shown("acme")["settings"]
    defaults = Defaults(1, 1, ())
    leaves: list[tuple[str, ...]] = [(name,) for name, value in settings.items() if not isinstance(value, dict)]
    leaves += [(name, key) for name, value in settings.items() if isinstance(value, dict) for key in value]
    assert {leaf: is_secret(leaf, defaults) for leaf in leaves} == {
        ("notice_url",): False,
        ("concurrency",): False,
        ("auth",): False,
        ("mint", "account"): False,
        ("crypto", "key"): True,
        ("crypto", "iv"): True,
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hunter-two"], "setting 1 is no SETTING=VALUE: write e.g. concurrency=8"),
        (["concurrency=8", "=hunter-two"], "setting 2 is no SETTING=VALUE"),
        (["retry..every=60s"], "setting 1 is no SETTING=VALUE"),
        (["notice_url.x=8"], "notice_url.x: notice_url is no table"),
        (
            ["--unset", "crypto.kye"],
            "--unset crypto.kye: that is not set; set are: notice_url, crypto.key, crypto.iv, ",
        ),
        (["--unset", "breaker.probe"], "--unset breaker.probe: that is not set"),
        (["--secret", "crypto.kye"], "--secret crypto.kye is no secret of an operator; those are token, crypto.key,"),
        (["--secret", "concurrency"], "--secret concurrency is no secret of an operator"),
    ],
    ids=str,
)
def test_wrong_use_is_told_without_what_was_written(bureau: Bureau, words: list[str], told: str) -> None:
    bureau.make("acme")
    before = bureau.files()
    done = bureau.call("operators", "set", "acme", *words, stdin="hunter-two\n")
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert "hunter" not in done.err
    assert bureau.files() == before


@pytest.mark.parametrize(("stdin", "told"), [(b"", "no line came for it"), (b"\n", "no line came"), (b"\xff\n", "")])
def test_a_secret_that_does_not_come_changes_nothing(bureau: Bureau, stdin: bytes, told: str) -> None:
    bureau.make("acme")
    before = bureau.files()
    done = bureau.call("operators", "set", "acme", "--secret", "token", stdin=stdin)
    assert (done.status, done.out) == (1, "")
    assert f"token: {told}" in done.err
    assert "standard input" in done.err
    assert bureau.files() == before


def test_at_a_terminal_a_secret_is_asked_for_twice_and_not_shown(
    bureau: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    bureau.make("acme")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda one: one.name == "<stdin>", raising=False)
    done = bureau.call("operators", "set", "acme", "--secret", "crypto.key", stdin=f"{NEW_KEY}\n{NEW_KEY}\n")
    assert (done.status, done.out.splitlines()[-1]) == (0, "acme: set, key version 2")
    assert NEW_KEY not in done.out + done.err
    assert "crypto.key" in done.out + done.err
    unlike = bureau.call("operators", "set", "acme", "--secret", "crypto.key", stdin=f"{KEY}\n{NEW_KEY}\n")
    assert unlike.status == 1
    assert bureau.listed()["acme"]["key_version"] == 2


def test_every_fault_is_told_at_once_with_what_to_write_instead(bureau: Bureau) -> None:
    words = ["concurency=8", "concurrency=many", "retry.delays=['1 minute']", "notice_url=ftp://x", "net_check=of"]
    done = bureau.call("operators", "set", "acme", *words)
    assert (done.status, done.out) == (2, "")
    told = dict(one.strip().split(": ", 1) for one in done.err.splitlines()[1:])
    assert done.err.startswith("5 fault(s)")
    assert set(told) == {
        f"operators.acme.{key}" for key in ("concurency", "concurrency", "retry.delays", "notice_url", "net_check")
    }
    assert told["operators.acme.concurency"] == "is not known; did you mean 'concurrency'?"
    assert all("; " in one for one in told.values())
    assert not bureau.database.exists()


def test_a_total_timeout_as_long_as_the_lease_is_refused_as_the_file_s_is(bureau: Bureau) -> None:
    bureau.make("acme")
    done = bureau.call("operators", "set", "acme", "total_timeout=60s")
    assert done.status == 2
    assert "operators.acme.total_timeout: 1m is not shorter than worker.lease, 1m; write a shorter one" in done.err
    assert bureau.call("operators", "set", "acme", "total_timeout=59s").status == 0
    bureau.tables["worker"] = {"lease": "59s"}
    bureau.write()
    fault = bureau.call("check", "--json", "--no-network").json()["faults"][0]
    assert fault["where"] == "operators.acme.total_timeout"


@pytest.mark.parametrize("known", [True, False])
def test_a_dry_run_tells_and_changes_nothing(bureau: Bureau, known: bool) -> None:
    if known:
        bureau.make("acme")
    before = bureau.files()
    words = ["notice_url=http://127.0.0.1:9/n", "concurrency=9", "--secret", "crypto.key", "--secret", "crypto.iv"]
    words += ["--secret", "token", "--dry-run"]
    done = bureau.call("operators", "set", "acme", *words, stdin=f"{NEW_KEY}\n{NEW_IV}\nanother\n")
    assert (done.status, done.out) == (0, "acme: fit; nothing was changed\n")
    told = bureau.call("operators", "set", "acme", *words, "--json", stdin=f"{NEW_KEY}\n{NEW_IV}\nanother\n").json()
    assert told == {"name": "acme", "changed": True, "dry_run": True, "key_version": 1 if known else None}
    assert bureau.call("operators", "set", "acme", "nonsense=1", "--dry-run").status == 2
    assert bureau.files() == before


def test_what_the_file_declares_is_changed_there_and_nowhere_else(bureau: Bureau) -> None:
    bureau.add_operator("acme")
    for _ in range(2):
        done = bureau.call("operators", "set", "acme", "concurrency=9")
        assert (done.status, done.out) == (1, "")
        told = f"acme is declared by config.toml: change it there, then: dispatcher operators apply -c {bureau.config}"
        assert told in done.err
        assert bureau.call("operators", "list").status == 0
    bureau.operators.clear()
    bureau.write()
    done = bureau.call("operators", "set", "acme", "concurrency=9")
    assert (done.status, done.out) == (1, "")
    assert "acme was declared by a file, and config.toml does not declare it any more; take it out of force" in done.err
    assert bureau.listed()["acme"]["concurrency"] == 32
    assert bureau.call("operators", "apply", "--json").json() == {"changed": [], "out_of_force": ["acme"]}
    assert bureau.listed() == {}
    bureau.make("acme")
    assert bureau.listed()["acme"]["origin"] == "command"


def test_secrets_come_from_files_and_variables_too(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    bureau.make("acme")
    (bureau.folder / "key").write_text(f"{NEW_KEY}\n")
    (bureau.folder / "key").chmod(0o600)
    monkeypatch.setenv("ACME_IV", NEW_IV)
    monkeypatch.chdir(bureau.folder)
    assert bureau.call("operators", "set", "acme", "crypto.key_file=key").out == "acme: set, key version 2\n"
    assert bureau.call("operators", "set", "acme", "crypto.iv_env=ACME_IV").out == "acme: set, key version 3\n"
    assert (
        bureau.call("operators", "set", "acme", "crypto.key_file=key").out == "acme: nothing to change, key version 3\n"
    )
    (bureau.folder / "key").unlink()
    monkeypatch.delenv("ACME_IV")
    assert bureau.shown("acme")["settings"]["crypto"] == {"key": "…", "iv": "…"}, "and need not stay there"
    assert bureau.listed()["acme"]["fault"] is None
    absent = bureau.call("operators", "set", "acme", "crypto.key_file=absent")
    assert absent.status == 2
    assert "operators.acme.crypto.key_file: names a file that can't be read" in absent.err


def test_a_value_that_looks_like_a_date_or_is_endless_is_a_sentence(bureau: Bureau) -> None:
    bureau.make("acme", "auth=minted", "mint.account=2026-01-01", "--unset", "token")
    assert bureau.shown("acme")["settings"]["mint"] == {"account": "2026-01-01"}
    for value in ("9" * 5_000, "[" * 5_000, "nan", "1\nconcurrency = 2"):
        done = bureau.call("operators", "set", "acme", f"concurrency={value}")
        assert done.status == 2, value
    assert bureau.listed()["acme"]["concurrency"] == 32


# list, show, apply


def test_a_list_for_people_is_in_their_language(bureau: Bureau) -> None:
    assert bureau.call("operators", "list").out == "nothing found\n"
    bureau.make("acme")
    bureau.call("operators", "pause", "acme")
    english, chinese = (bureau.call("operators", "list", "--lang", lang).out for lang in ("en", "zh"))
    assert [word in english for word in ("declared by", "paused", "command", "notice")] == [True] * 4
    assert [word in chinese for word in ("来源", "已暂停", "command", "notice")] == [True] * 4
    assert "密钥" in bureau.call("operators", "show", "acme", "--lang", "zh").out


def test_one_operator_is_shown_whole_but_for_its_secrets(bureau: Bureau) -> None:
    bureau.make("acme")
    bureau.call("operators", "set", "acme", "--secret", "crypto.key", stdin=f"{NEW_KEY}\n")
    bureau.call("operators", "pause", "acme", "--note", "maintenance")
    shown = bureau.shown("acme")
    assert set(shown) == COLUMNS | {"settings", "keys", "actions"}
    assert [one["version"] for one in shown["keys"]] == [1, 2]
    assert len({one["fingerprint"] for one in shown["keys"]}) == 2
    assert all(set(one) == {"version", "fingerprint", "since"} and one["since"][-1] == "Z" for one in shown["keys"])
    assert [(one["verb"], one["note"]) for one in shown["actions"]] == [
        ("set", None),
        ("set", None),
        ("pause", "maintenance"),
    ]
    assert all(
        set(one) == {"at", "verb", "actor", "note", "changed", "key_version"} and one["at"][-1] == "Z"
        for one in shown["actions"]
    )
    text = bureau.call("operators", "show", "acme").out
    assert '"key": "…"' in text
    assert all(one["fingerprint"] in text for one in shown["keys"])
    for words in (["show", "acne"], ["pause", "acme", "acne"], ["resume", "acne"], ["check", "acne"]):
        done = bureau.call("operators", *words)
        assert (done.status, done.out) == (1, "")
        assert 'there is no operator acne; write "acme"' in done.err
    assert len(bureau.shown("acme")["actions"]) == 3, "and nothing was done to the one that is there"


def test_apply_brings_what_the_file_says_into_force(bureau: Bureau) -> None:
    bureau.make("coin")
    bureau.add_operator("acme")
    bureau.add_operator("bolt")
    assert bureau.call("operators", "apply").out == "changed: acme, bolt\n"
    before = bureau.listed()
    assert bureau.call("operators", "apply").out == "nothing to change\n"
    assert bureau.call("operators", "apply", "--json").json() == {"changed": [], "out_of_force": []}
    assert bureau.listed() == before
    del bureau.operators["bolt"]
    bureau.set(concurrency=5)
    bureau.enqueue(orders(1))
    assert bureau.listed()["acme"]["concurrency"] == 32, "events alone bring no change"
    assert bureau.call("operators", "apply").out == "changed: acme\nout of force: bolt\n"
    after = bureau.listed()
    assert (set(after), after["acme"]["concurrency"]) == ({"acme", "coin"}, 5)
    assert after["coin"] == before["coin"]


def test_events_warn_of_settings_that_are_not_in_force_yet_and_only_of_those(bureau: Bureau) -> None:
    bureau.add_operator("acme", headers={"X-Api-Key": "the-token-of-acme"}, retry={"every": "60s", "for": "3h"})
    file = bureau.file(orders(1))
    for _ in range(2):
        assert bureau.call("enqueue", file).err == ""
    bureau.call("operators", "apply")
    assert bureau.call("enqueue", file).err == ""
    bureau.set(concurrency=5)
    told = "operators.acme is in force with other settings than config.toml has now"
    assert told in bureau.call("enqueue", file).err


def test_what_goes_by_the_files_settings_says_where_others_are_in_force(bureau: Bureau) -> None:
    bureau.add_operator("acme")
    bureau.call("operators", "apply")
    words = ["verify", "--operator", "acme", "--plaintext", "x"]
    assert bureau.call(*words).err == ""
    bureau.set(crypto={**bureau.operators["acme"]["crypto"], "iv": "another-iv-of-16"})
    told = "Warning: this goes by what config.toml says of operators.acme, and other settings are in force; "
    assert bureau.call(*words).err == f"{told}`dispatcher operators apply` changes that\n"
    assert bureau.call("kit", "acme", "-o", bureau.folder / "kit").err.startswith(told)
    bureau.call("operators", "apply")
    assert bureau.call(*words).err == ""
    # Neither a store without its key nor one that is no store keeps from what needs none.
    bureau.set(crypto={**bureau.operators["acme"]["crypto"], "iv": "a-third-iv-of-16"})
    Path(f"{bureau.database}-key").unlink()
    assert (bureau.call(*words).status, bureau.call(*words).err) == (0, "")
    bureau.database.write_bytes(b"this is no database" * 100)
    assert (bureau.call(*words).status, bureau.call(*words).err) == (0, "")


def test_pause_and_resume_tell_what_they_changed(bureau: Bureau) -> None:
    bureau.make("acme")
    bureau.make("bolt")
    assert bureau.call("operators", "pause", "acme").out == "acme: paused\n"
    both = bureau.call("operators", "pause", "acme", "bolt", "--json")
    assert (both.status, both.json()) == (0, {"paused": ["bolt"], "unchanged": ["acme"]})
    assert bureau.call("operators", "resume", "acme", "acme").out == "acme: resumed\n"
    assert bureau.call("operators", "resume", "acme").out == "acme: is neither paused nor held\n"
    assert {name: row["state"] for name, row in bureau.listed().items()} == {"acme": "open", "bolt": "paused"}
    assert bureau.call("operators", "pause").status == 2


def test_every_change_rings_for_the_daemon(bureau: Bureau) -> None:
    bell = FileBell(bureau.database)
    bureau.make("acme")
    bureau.add_operator("bolt")
    pipe = bell.listen()
    try:
        for words in (
            ["set", "acme", "concurrency=9"],
            ["pause", "acme"],
            ["resume", "acme"],
            ["apply"],
        ):
            assert bureau.call("operators", *words).status == 0
            assert os.read(pipe, 10) == b"!", words
        bureau.call("operators", "set", "acme", "concurrency=9")
        bureau.call("operators", "set", "acme", "concurrency=5", "--dry-run")
        with pytest.raises(BlockingIOError):
            os.read(pipe, 10)
    finally:
        bell.deafen()


def unfit(bureau: Bureau) -> None:
    """Two operators by command, one of which may not be called any more."""
    bureau.make("acme")
    bureau.tables["egress"] = {"allow": ["127.0.0.0/8", "10.0.0.0/8"]}
    bureau.write()
    bureau.make("bolt", url="http://10.1.2.3/n")
    bureau.tables["egress"] = {"allow": ["127.0.0.0/8"]}
    bureau.write()


def test_an_operator_that_became_unfit_is_told_by_name_and_mended_by_set(bureau: Bureau) -> None:
    unfit(bureau)
    told = "bolt can't be used: operators.bolt.notice_url: 10.1.2.3 is not on the public internet"
    done = bureau.call("operators", "list", "--json")
    assert done.status == 1
    assert told in done.err
    assert {row["name"]: row["state"] for row in done.rows()} == {"acme": "open", "bolt": "unfit"}
    assert set(done.rows()[1]) == COLUMNS
    text = bureau.call("operators", "list")
    assert (text.status, "bolt" in text.out, told in text.err) == (1, False, True)
    shown = bureau.call("operators", "show", "bolt")
    assert (shown.status, told in shown.err) == (1, True)
    check = bureau.call("operators", "check", "bolt", "--json")
    assert (check.status, list(check.json()["faults"])) == (1, ["bolt"])
    assert bureau.call("operators", "check", "acme", "--json").json()["faults"] == {}
    assert "operators.bolt can't be used" in bureau.call("enqueue", bureau.file(orders(1))).err
    top = bureau.call("check", "--no-network", "--json")
    assert top.status == 2
    assert [fault["where"] for fault in top.json()["faults"]] == ["operators.bolt"]
    assert "10.1.2.3 is not on the public internet" in top.json()["faults"][0]["fault"]
    assert bureau.call("operators", "pause", "bolt").out == "bolt: paused\n", "that is no question of settings"
    # Its secrets are kept: only what is wrong is given anew.
    assert (
        bureau.call("operators", "set", "bolt", "notice_url=http://127.0.0.1:9/n").out == "bolt: set, key version 1\n"
    )
    assert bureau.listed()["bolt"]["fault"] is None


def test_an_operator_whose_master_key_is_lost_is_made_anew_from_all_of_its_settings(bureau: Bureau) -> None:
    bureau.make("acme")
    bureau.tables["secrets"] = {"master_key": MasterKey.fresh().reveal()}
    bureau.write()
    top = bureau.call("check", "--no-network", "--json")
    assert [fault["where"] for fault in top.json()["faults"]] == ["operators.acme", "secrets.master_key"]
    assert all("it is sealed under master key" in fault["fault"] for fault in top.json()["faults"])
    assert "dispatcher operators set acme" in top.json()["faults"][0]["mend"]
    done = bureau.call("operators", "set", "acme", "concurrency=9")
    assert done.status == 2
    assert "Warning: acme: the stored settings are lost (it is sealed under master key" in done.err
    assert "operators.acme.notice_url: is missing" in done.err
    assert bureau.make("acme").out == "acme: set, key version 2\n"
    assert bureau.listed()["acme"]["fault"] is None


def test_a_missing_key_file_is_refused_by_every_command_that_needs_it(bureau: Bureau) -> None:
    bureau.make("acme")
    key = bureau.folder / "dispatcher.db-key"
    key.unlink()
    for words in (
        ["operators", "list"],
        ["operators", "set", "acme", "concurrency=9"],
        ["operators", "apply"],
        ["enqueue", bureau.file(orders(1))],
        ["run"],
        ["check", "--no-network"],
        ["reencrypt"],
    ):
        done = bureau.call(*words)
        assert done.status == 2, words
        told = f"{key}: is missing: without it what is stored can't be read; put the file back, or "
        assert told in done.out + done.err
        assert not key.exists()


def test_a_key_file_that_is_named_and_not_there_is_the_one_fault(bureau: Bureau) -> None:
    bureau.make("acme")
    (bureau.folder / "dispatcher.db-key").unlink()
    bureau.tables["secrets"] = {"master_key_file": "absent.key"}
    bureau.write()
    told = bureau.call("check", "--no-network", "--json")
    assert [one["where"] for one in told.json()["faults"]] == ["secrets.master_key_file"]


# check


def under_another_key(bureau: Bureau) -> None:
    """The file declares mango, the database has it under a master key that the configuration gives no more."""
    bureau.add_operator("mango")
    bureau.tables["secrets"] = {"master_key": MasterKey.fresh().reveal()}
    bureau.write()
    bureau.call("operators", "apply")
    bureau.tables["secrets"] = {"master_key": MasterKey.fresh().reveal()}
    bureau.write()


def test_check_finds_what_run_would_refuse_under_another_master_key(bureau: Bureau) -> None:
    under_another_key(bureau)
    told = bureau.call("check", "--no-network", "--json")
    assert told.status == 2
    first, second = told.json()["faults"]
    assert (first["where"], second["where"]) == ("operators.mango", "secrets.master_key")
    assert first["fault"].startswith("its stored settings can't be read: it is sealed under master key")
    assert "give it as secrets.master_key" in first["mend"]
    assert first["mend"].endswith("dispatcher operators apply --lost-key")
    assert second["fault"].startswith("the journal's key can't be opened: it is sealed under master key")
    assert "the stored settings of mango can't be read" in bureau.call("run").err


def test_check_finds_a_journal_that_no_key_opens_where_no_settings_are_stored(bureau: Bureau) -> None:
    under_another_key(bureau)
    bureau.change("UPDATE operators SET settings = NULL")
    told = bureau.call("check", "--no-network", "--json")
    assert [one["where"] for one in told.json()["faults"]] == ["secrets.master_key"]
    assert "the journal's key can't be opened" in bureau.call("run").err


def test_an_operator_that_can_t_be_unlocked_is_not_called_unknown_and_takes_nothing(bureau: Bureau) -> None:
    under_another_key(bureau)
    order = {**orders(1)[0], "operator": "mango"}
    done = bureau.call("enqueue", bureau.file([order]))
    assert (done.status, done.out) == (1, "accepted 0, duplicate 0, conflict 0, invalid 1\n")
    warning, line = done.err.splitlines()
    assert warning.startswith("Warning: operators.mango can't be used: it is sealed under master key")
    assert warning.endswith("secrets.former_master_key; until then its events are refused")
    assert line.startswith("line 1: operator: 'mango' can't be used: it is sealed under master key")
    assert "not known" not in done.err
    asked = bureau.call("reconcile", "mango", bureau.file([order]), "--since", "1h")
    assert "mango can't be used: it is sealed under master key" in asked.err


def test_check_knows_what_stands_only_in_the_database_and_writes_nothing(bureau: Bureau) -> None:
    bureau.make("acme")
    bureau.add_operator("bolt")
    bureau.enqueue(orders(2))
    before = bureau.files()
    told = bureau.call("check", "--json", "--no-network")
    assert (told.status, told.json()["faults"]) == (0, [])
    assert told.json()["warnings"] == []
    lines = bureau.call("check", "--no-network").out.splitlines()
    assert lines[-3:] == ["bolt: aes-128-cbc, a key of 16 bytes", "acme: aes-128-cbc, a key of 16 bytes", "ok"]
    assert "operators.acme.notice_url: can't be reached now" in bureau.call("check").out
    assert bureau.files() == before


def test_check_does_not_say_that_there_is_no_operator_where_a_command_made_one(bureau: Bureau) -> None:
    assert "operators: the file declares none" in bureau.call("check").out
    bureau.make("acme")
    assert "declares none" not in bureau.call("check").out


def test_check_tells_of_an_operator_that_the_file_would_take_over(bureau: Bureau) -> None:
    bureau.make("acme")
    bureau.add_operator("acme")
    (told,) = [
        one for one in bureau.call("check", "--json", "--no-network").json()["warnings"] if "made by" in one["fault"]
    ]
    assert (told["where"], told["mend"]) == ("operators.acme", "take it out of the file, or its settings there win")


def test_check_tells_what_is_wrong_with_the_master_keys_and_makes_none(bureau: Bureau) -> None:
    assert bureau.call("check").status == 0
    assert set(bureau.files()) == {"config.toml"}
    bureau.make("acme")
    (bureau.folder / "dispatcher.db-key").chmod(0o644)
    told = bureau.call("check", "--no-network").out
    assert "dispatcher.db-key: the master key can be read by others; chmod 600 dispatcher.db-key\n" in told
    bureau.tables["secrets"] = {"master_key": "hunter-two", "former_master_key": "hunter-one"}
    bureau.write()
    for there in (True, False):
        assert bureau.database.exists() is there
        done = bureau.call("check", "--json", "--no-network")
        assert done.status == 2
        assert [one["where"] for one in done.json()["faults"]] == ["secrets.master_key", "secrets.former_master_key"]
        assert "hunter" not in done.out
        bureau.database.unlink(missing_ok=True)


def test_check_makes_no_master_key_where_nothing_is_locked(bureau: Bureau) -> None:
    assert bureau.call("operators", "list").status == 0
    (bureau.folder / "dispatcher.db-key").unlink(missing_ok=True)
    before = bureau.files()
    assert "dispatcher.db" in before
    assert bureau.call("check", "--no-network").status == 0
    assert bureau.files() == before


def test_whether_an_operator_s_server_is_up_is_told(street: _Spoken) -> None:
    url = f"http://127.0.0.1:{street.port()}/Demo/notice"
    street.make("acme", url=url)
    down = street.call("operators", "check", "--json")
    assert (down.status, down.json()["ok"], down.json()["faults"]) == (1, False, {})
    assert down.json()["unreached"][0].startswith("operators.acme.notice_url: can't be reached now: connect_refused")
    with street.receiving(config=street.played("acme", url)) as receiver:
        up = street.call("operators", "check", "--json")
        assert (up.status, up.json()) == (0, {"ok": True, "faults": {}, "unreached": []})
        assert street.call("operators", "check", "acme").out == "ok\n"
        assert receiver.requests() == 0, "nothing is sent"


# Beside a daemon that runs


def test_an_operator_that_is_made_while_the_daemon_runs_gets_its_events_at_once(street: _Spoken) -> None:
    (one,) = orders(1, operator="bolt")
    url = f"http://127.0.0.1:{street.port()}/Demo/notice"
    with street.receiving(config=street.played("bolt", url), operator="bolt") as receiver, street.running() as daemon:
        street.make("bolt", url=url)
        street.enqueue([one])
        until(lambda: street.all_are("delivered", "bolt"), told=daemon.text)
        assert receiver.booked() == {one["order_no"]: 1}
        street.call("operators", "pause", "bolt")
        (two,) = orders(1, start=1, operator="bolt")
        street.enqueue([two])
        street.call("operators", "set", "bolt", "concurrency=1")
        street.call("operators", "resume", "bolt")
        until(lambda: street.all_are("delivered", "bolt"), told=daemon.text)
        assert receiver.booked() == {one["order_no"]: 1, two["order_no"]: 1}
        assert len(daemon.told("running")) == 1
    assert street.listed()["bolt"]["concurrency"] == 1


WAYS = ("stdin", "key_file", "apply", "SIGHUP")


@pytest.mark.parametrize("way", WAYS)
def test_a_new_key_takes_effect_for_the_very_next_attempt(street: _Spoken, way: str) -> None:
    (one,) = orders(1)
    if way in ("apply", "SIGHUP"):
        street.add_operator("acme", retry={"delays": ["100ms"] + ["200ms"] * 99})
        url = street.operators["acme"]["notice_url"]
    else:
        url = f"http://127.0.0.1:{street.port()}/Demo/notice"
        street.make("acme", OFTEN, url=url)
    played = street.played("acme", url, key=NEW_KEY)
    with street.receiving(config=played) as receiver, street.running() as daemon:
        street.enqueue([one])
        until(lambda: street.query("SELECT n FROM attempts"), told=daemon.text)
        assert receiver.booked() == {}
        if way == "stdin":
            street.call("operators", "set", "acme", "--secret", "crypto.key", stdin=f"{NEW_KEY}\n")
        elif way == "key_file":
            (street.folder / "key").write_text(NEW_KEY)
            street.call("operators", "set", "acme", f"crypto.key_file={street.folder / 'key'}")
        else:
            street.set(crypto={"key": NEW_KEY, "iv": IV})
            if way == "apply":
                assert street.call("operators", "apply").out == "changed: acme\n"
            else:
                daemon.signal(signal.SIGHUP)
        until(lambda: street.all_are("delivered"), told=daemon.text)
        assert receiver.booked() == {one["order_no"]: 1}
        assert NEW_KEY not in daemon.text()
    attempts = street.show(one["order_no"])["attempts"]
    versions = [attempt["key_version"] for attempt in attempts]
    assert (versions[0], versions[-1], versions) == (1, 2, sorted(versions))
    # The first attempt under the new key is the one that was understood.
    assert versions.count(2) == 1
    assert {attempt["http_status"] for attempt in attempts[:-1]} == {400}
    assert [key["version"] for key in street.shown("acme")["keys"]] == [1, 2]


def test_the_master_key_is_exchanged_while_the_daemon_runs(street: _Spoken) -> None:
    first, second = orders(2)
    url = f"http://127.0.0.1:{street.port()}/Demo/notice"
    street.make("acme", OFTEN, url=url)
    old, new = street.folder / "dispatcher.db-key", MasterKey.fresh()
    street.tables["secrets"] = {"master_key": new.reveal(), "former_master_key_file": str(old)}
    street.write()
    with street.running() as daemon:
        street.enqueue([first])
        until(lambda: street.query("SELECT n FROM attempts"))
        done = street.call("reencrypt", "--json")
        assert (done.status, done.json()) == (
            0,
            {"master_key": new.key_id, "operators": 1, "tokens": 0, "tokens_left": 0, "operators_left": {}},
        )
        assert street.call("reencrypt").out == f"under master key {new.key_id} now: 0 operators, 0 tokens\n"
        with street.receiving(config=street.played("acme", url)):
            until(lambda: street.all_are("delivered"), told=daemon.text)
        assert daemon.told("operator_unfit") == []
    old.unlink()
    street.tables["secrets"] = {"master_key": new.reveal()}
    street.write()
    with street.receiving(config=street.played("acme", url)), street.running() as daemon:
        street.enqueue([second])
        until(lambda: street.all_are("delivered"), told=daemon.text)
        assert new.reveal() not in daemon.text()


def test_what_neither_master_key_opens_is_told_by_reencrypt(bureau: Bureau) -> None:
    bureau.make("acme")
    bureau.tables["secrets"] = {"master_key": MasterKey.fresh().reveal()}
    bureau.write()
    done = bureau.call("reencrypt", "--json")
    assert (done.status, list(done.json()["operators_left"])) == (1, ["acme"])
    assert "acme stays as it is: it is sealed under master key" in done.err


@pytest.mark.parametrize("origin", ["file", "command"])
def test_no_secret_stands_in_what_a_whole_day_leaves_behind(street: _Spoken, origin: str) -> None:
    secrets = [KEY, IV, "the-token-of-acme", "the-header-of-acme"]
    header = street.folder / "header"
    header.write_text("the-header-of-acme")
    url = f"http://127.0.0.1:{street.port()}/Demo/notice"
    if origin == "file":
        street.add_operator("acme", notice_url=url, headers={"X-Api-Key_file": str(header)})
    else:
        street.make("acme", f"headers.X-Api-Key_file={header}", url=url)
    told = []
    with street.receiving("--fail-first", "1", config=street.played("acme", url)), street.running() as daemon:
        street.enqueue(orders(3))
        until(lambda: street.all_are("pending") or street.all_are("delivered"))
        for words in (["operators", "show", "acme"], ["operators", "show", "acme", "--json"], ["operators", "list"]):
            done = street.call(*words)
            told.append(done.out + done.err)
        told.append(street.call("operators", "list", "--json").out + street.call("check", "--json").out)
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.told("reloaded"))
        names = {path.name for path in street.folder.glob("dispatcher.db*") if path.is_file()}
        assert names >= {"dispatcher.db", "dispatcher.db-wal", "dispatcher.db-key"}
        contents = [(street.folder / name).read_bytes() for name in sorted(names - {"dispatcher.db-key"})]
        whole = b"".join(contents)
    text = daemon.text() + "".join(told)
    assert b"1767225600000000000" in whole, "what is no secret is found, so a secret would be"
    assert [one for one in secrets if one.encode() in whole] == []
    assert [one for one in secrets if one in text] == []
    master = (street.folder / "dispatcher.db-key").read_text().strip()
    assert (master.encode() in whole, master in text) == (False, False)


def test_two_who_change_one_operator_at_once_do_not_undo_each_other(
    bureau: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    bureau.make("acme")

    def meanwhile(*asked: Any) -> Any:
        """While a person types the new token, a colleague exchanges the key."""
        monkeypatch.setattr(f"{CHANGE}.asked", values.asked)
        assert bureau.call("operators", "set", "acme", "--secret", "crypto.key", stdin=f"{NEW_KEY}\n").status == 0
        return values.asked(*asked)

    monkeypatch.setattr(f"{CHANGE}.asked", meanwhile)
    before = bureau.call("operators", "set", "acme", "--secret", "token", stdin="another-token-of-acme\n")
    assert before.status == 1
    assert "somebody else has changed acme meanwhile; look at it and say it again" in before.err
    assert [key["version"] for key in bureau.shown("acme")["keys"]] == [1, 2]
    assert bureau.listed()["acme"]["key_version"] == 2


def test_reencrypt_without_a_former_key_says_what_is_missing(bureau: Bureau) -> None:
    bureau.make("acme")
    done = bureau.call("reencrypt")
    assert done.status == 0
    assert "no former master key is given: to exchange the key, give the new key as secrets.master_key" in done.err
