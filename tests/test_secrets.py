"""Recognisable secrets in every setting and every event; everything runs; nothing that comes out has one in it."""

import ast
import base64
import copy
import dataclasses
import json
import os
import pickle
import re
import resource
import signal
import stat
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.config import load_config
from dispatcher.ground.errors import ConfigError
from dispatcher.ground.policy import Claim
from dispatcher.ground.secret import Secret, SecretBytes, Unshown
from dispatcher.ground.settings import Table
from dispatcher.protocols import summary
from dispatcher.seal import Seal
from dispatcher.seal.vault import MasterKey
from dispatcher.store import acceptance, corridor
from tests.canaries import PART, Canaries, canary, own_url, tables
from tests.ground import NOW, line, notice, parse_event, settle_event
from tests.story import Daemon, Story, toml, until
from tests.test_bad_input import leaves
from tests.workshop import Bench

ROOT = Path(__file__).parent.parent
HERE = "http://127.0.0.1:9"
OWN = ("dispatcher.db", "dispatcher.db-wal", "dispatcher.db-shm", "dispatcher.db-worker", "dispatcher.db-bell")


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Canaries:
    return Canaries(tmp_path_factory.mktemp("ca"))


def written(folder: Path, whole: dict[str, Any]) -> Path:
    """A configuration file for its owner alone."""
    path = folder / "config.toml"
    path.write_text("".join(f"{name} = {toml(value)}\n" for name, value in whole.items()), "utf-8")
    path.chmod(0o600)
    return path


# That the search finds what it looks for.


def test_the_search_knows_a_secret_in_any_clothes(canaries: Canaries) -> None:
    token = canary("token")
    for clothes in (
        token,
        token[3 : 3 + PART],
        token.encode().hex(),
        json.dumps({"a": token}),
        "".join(f"\\u{ord(one):04x}" for one in token),
        "".join(f"%{ord(one):02X}" for one in token),
        *(base64.b64encode(b"x" * before + token.encode() + b"yz").decode() for before in range(3)),
        repr(token.encode()),
    ):
        assert canaries.found(f"… {clothes} …") == ["operators.NAME.token"], clothes
    assert canaries.found(token[: PART - 1]) == []


def test_every_setting_that_is_read_as_a_secret_has_a_canary(
    tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[str, ...]] = set()
    read = Table.secret

    def secret(self: Table, key: str, *, private: bool = True) -> Secret | None:
        asked.add((*self.path, key))
        return read(self, key, private=private)

    monkeypatch.setattr(Table, "secret", secret)
    load_config(written(tmp_path, tables(canaries, "http://127.0.0.1:9", "")))
    names = {re.sub(r"^operators\.\w+", "operators.NAME", ".".join(path)) for path in asked}
    names = {re.sub(r"^notifications\.\w+", "notifications.NAME", name) for name in names}
    names = {re.sub(r"\.headers\..*", ".headers.HEADER", name) for name in names}
    assert names == canaries.settings.keys()
    page = "".join((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("settings", "notifications"))
    assert names == {*re.findall(r"^\| `([^`]+)` ✱ \|", page, re.MULTILINE)}


# Everything runs.


class _Echo(BaseHTTPRequestHandler):
    """An operator that repeats all that it gets: in the body, in a traceback, in headers, in the fields we read."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        heard = f"{self.headers}{body}"
        bearer = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if self.path == "/token":
            self._say(400, {"error": "invalid_client", "error_description": heard})
        elif self.path.startswith("/hook"):
            self._say(200, {"errcode": self.path, "errmsg": f"{self.path} {heard}"})
        elif self.path == "/bolt":
            self._say(200, {"code": "0000", "desc": bearer, "message": heard})
        elif self.path == "/dime":
            self._say(302, {"desc": bearer}, ("Location", f"http://127.0.0.1:9/?{bearer}"))
        elif self.path == "/acme/settle":
            self._say(200, {"code": self.headers["X-Api-Key"], "desc": heard})
        else:
            trace = f"Traceback (most recent call last):\n  token = {bearer!r}\nValueError: {heard}"
            self._say(500, trace, ("X-Request", bearer))

    def _say(self, status: int, told: object, *more: tuple[str, str]) -> None:
        raw = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in (*more, ("Content-Length", str(len(raw)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that its base has
        pass


@contextmanager
def core_files_allowed() -> Iterator[None]:
    """As far as the system lets us; a process that is started now has leave to write one."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@contextmanager
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Watch:
    """Runs commands in this process, and keeps all that comes out."""

    def __init__(self, folder: Path, canaries: Canaries) -> None:
        self.folder, self.canaries, self.told = folder, canaries, 0

    def call(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> tuple[int, str]:
        with warnings.catch_warnings(record=True) as warned:
            result = CliRunner(env={"LC_ALL": "C", "COLUMNS": "200"}).invoke(main, words, input=stdin, env=env)
        assert isinstance(result.exception, SystemExit | None), (words, result.exc_info)
        told = result.stdout + result.stderr + "".join(str(one.message) for one in warned)
        self.clean(told, *words)
        return result.exit_code, told

    def clean(self, content: bytes | str, *what: str) -> None:
        assert self.canaries.found(content) == [], (*what, content[:2_000])
        self.told += len(content)


def queries(config: Path) -> Iterator[list[str]]:
    """Every command that looks at what is there; for people and for scripts."""
    first, paid = "1767225600000000001", "tx-0001"
    for words in (
        ["log"],
        ["log", "--status", "dead", "--operator", "acme"],
        *(["show", operator, first] for operator in ("acme", "bolt", "coin", "dime", "ghost")),
        ["show", "acme", paid],
        *(["dead", what] for what in ("list", "export")),
        ["dead", "replay", "--since", "1h", "--dry-run"],
        ["dead", "resolve", "acme", first, "--note", "agreed", "--dry-run"],
        *(["show", "notify:ops", key] for key in ("1", "2")),
        ["log", "--type", "summary"],
        ["dead", "list", "--operator", "notify:ops"],
        ["notify", "list"],
        ["notify", "test", "ops", "--wait", "0"],
        ["operators", "show", "notify:ops"],
        ["operators", "list"],
        *(["operators", "show", operator] for operator in ("acme", "bolt", "coin", "dime", "eve")),
        ["operators", "check"],
        ["operators", "apply"],
        ["operators", "pause", "acme", "--note", "why"],
        ["operators", "resume", "acme"],
        ["check"],
        ["db", "status"],
        ["db", "upgrade"],
        ["reencrypt"],
    ):
        yield [*words, "-c", str(config)]
        yield [*words, "--json", "-c", str(config)]


def events(canaries: Canaries) -> str:
    """One for each operator, and those that are refused with the token in them."""
    order, token = "1767225600000000001", canaries.players_token
    good = [line(notice(operator=name, order_no=order, token=token)) for name in ("acme", "bolt", "coin", "dime")]
    bad = [
        line(notice(operator="bolt", token=f"{token} {token}")),
        line(notice(operator="bolt", token=[token])),
        line(notice(operator="bolt", token=token), time=f'"{9}"'),
        line(notice(operator="bolt", order_no=order, token=token, uid="another")),
        f'{{"token":"{token}","token":"{token}"}}',
        f'{{"token":"{token}',
        f'["{token}"]',
    ]
    return "\n".join([*good, line(settle_event()), *bad]) + "\n"


def faulty(config: Path, canaries: Canaries) -> Iterator[str]:
    """The file with each secret spoiled in one way after the other."""
    text = config.read_text("utf-8")
    for name, secret in canaries.settings.items():
        secret = own_url(secret, HERE) if name == "notifications.NAME.url" else secret
        written = json.dumps(secret)
        assert written in text, name
        for spoiled in (
            f"[{written}]",
            json.dumps(f"{secret}\n é"),
            json.dumps(secret * 300),
            f"{written}x",
            f"{{a={written}}}",
        ):
            yield text.replace(written, spoiled)
        for suffix in ("_env", "_file"):
            yield text.replace(f'" = {written}', f'{suffix}" = {written}')


def run_daemon(story: Story, watch: Watch, folder: Path) -> None:
    """A real process through yes, no, no token, redirect, a faulty reload; then what it showed, and what it is."""
    with core_files_allowed(), story.starting() as daemon:
        until(lambda: daemon.told("running") or daemon.process.poll() is not None, told=daemon.text)
        ended = {"attempt": 7}
        until(lambda: len(daemon.told("attempt")) >= ended["attempt"], told=daemon.text)
        until(lambda: any(one["type"] == "summary" for one in daemon.told("attempt")), told=daemon.text)
        good = story.config.read_text("utf-8")
        for number, bad in enumerate((f"{good}\nx", good.replace('"provider-7"', "7")), 1):
            story.config.write_text(bad, "utf-8")
            _reload(daemon, "reload_refused", number)
        story.config.write_text(good, "utf-8")
        _reload(daemon, "reloaded", 1)
        for path in ("/healthz", "/readyz", "/metrics", "/", "/%00", "/../config.toml"):
            answer = httpx.get(
                f"{daemon.web.replace('http:', 'https:')}{path}", verify=False, trust_env=False, timeout=60
            )
            watch.clean(answer.text + str(answer.headers), path)
        for inside in ("cmdline", "limits"):
            watch.clean(Path(f"/proc/{daemon.process.pid}/{inside}").read_bytes(), inside)
        limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits), "a core file would have them all"
        for name in OWN[:4]:
            watch.clean((folder / name).read_bytes(), name)
        daemon.stop()
    assert {"http_status", "redirect", "body_field", "config", None} <= {
        one["reason"] for one in daemon.told("attempt")
    }
    watch.clean(daemon.text(), "the log")


def _reload(daemon: Daemon, event: str, times: int) -> None:
    daemon.signal(signal.SIGHUP)
    until(lambda: len(daemon.told(event)) >= times, told=daemon.text)


def test_nothing_that_comes_out_of_a_whole_day_has_a_secret_in_it(tmp_path: Path, canaries: Canaries) -> None:
    folder, mask = tmp_path / "day", os.umask(0o022)
    folder.mkdir()
    watch = Watch(folder, canaries)
    try:
        with echo() as url, Story(folder) as story:
            story.tables = tables(canaries, url, f"127.0.0.1:{story.port()}")
            config = written(folder, story.tables)
            story.config = config
            assert watch.call("enqueue", "-", "--json", "-c", str(config), stdin=events(canaries))[0] == 1
            made = ["operators", "set", "eve", f"notice_url={url}/eve", "-c", str(config)]
            hidden = [word for name in ("token", "crypto.key", "crypto.iv") for word in ("--secret", name)]
            secrets = [canaries.settings[f"operators.NAME.{name}"] for name in ("token", "crypto.key", "crypto.iv")]
            assert watch.call(*made, *hidden, stdin="\n".join(secrets) + "\n")[0] == 0
            assert watch.call(*made, f"token={canary('token')}")[0] == 2
            assert watch.call(*made, "headers.X=1", f"crypto={{key='{canary('key', 16)}'}}")[0] == 2
            for operator in ("acme", "coin", "dime"):
                assert watch.call("certify", operator, "--yes-test-orders", "-c", str(config))[0] == 1
            tried = ["certify", "bolt", "--yes-test-orders", "--token-file", "-", "-o", str(folder / "report.html")]
            assert watch.call(*tried, "--json", "-c", str(config), stdin=canaries.players_token)[0] == 1
            run_daemon(story, watch, folder)
            for words in queries(config):
                watch.call(*words)
            assert watch.call("db", "copy", "--to", f"sqlite:///{folder}/copy.db", "-c", str(config))[0] == 0
        for path in folder.rglob("*"):
            if path != config and path.is_file():
                watch.clean(path.read_bytes(), path.name)
        assert b"player-1" in (folder / "dispatcher.db").read_bytes(), "what is no secret is found"
        assert watch.told > 50_000
        assert {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.iterdir()} == {
            "config.toml": 0,
            "dispatcher.db": 0,
            "copy.db": 0,
            "report.html": 0o044,
            # The number of a process.
            **dict.fromkeys(("dispatcher.db-worker", "copy.db-worker"), 0o044),
        }
    finally:
        os.umask(mask)


def test_no_configuration_that_is_refused_shows_the_secret_that_is_wrong_in_it(
    tmp_path: Path, canaries: Canaries
) -> None:
    config = written(tmp_path, tables(canaries, HERE, ""))
    refused = 0
    for text in list(faulty(config, canaries)):
        config.write_text(text, "utf-8")
        with suppress(ConfigError):
            load_config(config)
            continue
        done = CliRunner().invoke(main, ["check", "--no-network", "--json", "-c", str(config)])
        assert done.exit_code == 2
        assert canaries.found(done.stdout + done.stderr) == [], done.stdout
        refused += 1
    assert refused > 60


def test_no_command_shows_the_password_of_a_database_that_is_away(tmp_path: Path, canaries: Canaries) -> None:
    whole = tables(canaries, "http://127.0.0.1:9", "")
    password = canaries.password
    watch = Watch(tmp_path, canaries)
    for place in (
        f"postgresql+psycopg://us:{password}@127.0.0.1:1/db",
        f"postgresql+psycopg://us@127.0.0.1:1/db?password={password}",
        f"postgresql+psycopg://us:{password}@127.0.0.1:1/db?sslmode={password}",
        f"postgresql+psycopg://us:{password}@127.0.0.1:{password}/db",
        f"postgresql+psycopg://us:{password}@/db?host=127.0.0.1:1&port=1",
        f"postgresql+psycopg://us:{password}@{password}@127.0.0.1:1/db",
        f"postgresql+psycopg://us:{password}/{password}@127.0.0.1:1/db",
        f"postgresql+psycopg://us:7?{password}@127.0.0.1:1/db",
        f"postgresql://us:{password}@127.0.0.1:1/db",
        f"mysql://us:{password}@127.0.0.1/db",
        f"sqlite:///{tmp_path}/nowhere/dispatcher.db",
    ):
        config = written(tmp_path, {"database": {"url": place}, **whole})
        for words in (["check", "--no-network"], ["log"], ["enqueue", "-"], ["operators", "list"], ["db", "status"]):
            assert watch.call(*words, "-c", str(config))[0] in (0, 1, 2)
        assert watch.call("db", "copy", "--to", place, "-c", str(config))[0] in (1, 2)


def test_what_helps_says_nothing_of_the_environment(canaries: Canaries, tmp_path: Path) -> None:
    watch = Watch(tmp_path, canaries)
    env = {"ACME_TOKEN": canary("token"), "DISPATCHER_CONFIG": "", "PGPASSWORD": canaries.password}
    for path, _ in leaves(main):
        assert watch.call(*path, "--help", env=env)[0] == 0


def test_verify_says_neither_key_nor_iv(canaries: Canaries, tmp_path: Path) -> None:
    key, iv = (canaries.settings[f"operators.NAME.crypto.{name}"] for name in ("key", "iv"))
    (tmp_path / "key").write_text(key)
    (tmp_path / "iv").write_text(iv)
    watch = Watch(tmp_path, canaries)
    for more in (["--ciphertext", "AAAAAAAAAAAAAAAAAAAAAA=="], ["--plaintext", "{}"], ["--ciphertext", "no base64"]):
        for form in ([], ["--json"]):
            given = ["--key-file", str(tmp_path / "key"), "--iv-file", str(tmp_path / "iv")]
            assert watch.call("verify", *given, *more, *form)[0] in (0, 1, 2)
            assert watch.call("verify", "--key", key, "--iv", iv, *more, *form)[0] in (0, 1, 2)


# In memory.


def whole_bench(tmp_path: Path, canaries: Canaries) -> Bench:
    return Bench(written(tmp_path, tables(canaries, "https://acme.example", "")))


@pytest.mark.anyio
async def test_nothing_that_is_held_is_shown_by_any_way_to_show_it(tmp_path: Path, canaries: Canaries) -> None:
    async with whole_bench(tmp_path, canaries) as at:
        roster = at.daemon.enrolment.roster
        held = [at.config, roster, at.daemon._vault, at.daemon, *roster.members.values(), *roster.operators.values()]
        held += [*at.dispatch.lanes.values(), *(one.seal for one in at.dispatch.lanes.values())]
        held += [MasterKey.parse(canaries.settings["secrets.master_key"])]
        for one in held:
            shown = [repr(one), str(one), f"{one}", f"{one!s}", "%s" % (one,), json.dumps(one, default=str)]  # noqa: UP031
            if dataclasses.is_dataclass(one) and not isinstance(one, type):
                shown += [repr(_fields(one)), repr(copy.copy(one))]
            assert canaries.found(" ".join(shown)) == [], type(one)
        assert canaries.found(repr([dataclasses.asdict(one) for one in roster.operators.values()])) == []


def _fields(one: Any) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}


@pytest.mark.parametrize(
    "secret",
    [Secret("the-secret"), SecretBytes(b"the-secret"), MasterKey(b"the-secret"), {"a": [Secret("the-secret")]}],
    ids=lambda one: type(one).__name__,
)
def test_a_secret_is_in_no_pickle(secret: object) -> None:
    with pytest.raises(TypeError, match="a secret is not pickled"):
        pickle.dumps(secret)
    assert "the-secret" not in repr(copy.deepcopy(secret))
    assert copy.deepcopy(secret) == secret


def test_secrets_are_equal_by_their_text_and_to_nothing_else() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("é")}) == 2
    assert repr(Unshown(("a", "b"))) == "Unshown(2)"


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("planted")


def claimed(at: Bench, operator: str, canaries: Canaries) -> Claim:
    event = line(notice(operator=operator, token=canaries.players_token))
    if operator == "notify:ops":
        facts = {"window": "test-1", "since": NOW, "until": NOW, "operators": [], "others": 0, "console": None}
        accepted = summary.freeze(at.daemon.enrolment.roster.notifications[operator], facts)
    else:
        accepted = parse_event(event, at.daemon.enrolment.roster.operators, at.daemon._vault.lock)
    acceptance.accept(at.database, [accepted], NOW)
    return corridor.turn(at.database, [], {operator: 1}, NOW).claimed[0]


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["seal", "post", "unlock"])
@pytest.mark.parametrize("operator", ["acme", "bolt", "dime", "notify:ops"])
async def test_a_traceback_with_the_local_variables_of_an_attempt_has_no_secret(
    tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch, operator: str, where: str
) -> None:
    """What crash reporters send away: they walk through the frames and write down every local variable."""
    async with whole_bench(tmp_path, canaries) as at:
        held = claimed(at, operator, canaries)
        attempts = at.dispatch._attempts
        if where == "seal":
            monkeypatch.setattr(Seal, "_pad", broken)
        elif where == "unlock":
            monkeypatch.setattr(attempts, "_unlock", broken)
        else:
            monkeypatch.setattr(attempts._wire._clock, "now", broken)
        if (where == "unlock" and operator != "bolt") or (where == "seal" and operator == "notify:ops"):
            return
        with pytest.raises(RuntimeError, match="planted") as error:
            await attempts.make(at.dispatch.lanes[operator], held)
        told = "".join(traceback.TracebackException.from_exception(error.value, capture_locals=True).format())
        assert "operator = " in told or "lane = " in told, "the variables are there"
        assert canaries.found(told) == []


# In the source.


def compared(tree: ast.AST) -> Iterator[int]:
    """The lines on which what `reveal` gives is compared by `==`, which ends at the first letter that differs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
            inside = [below for side in (node.left, *node.comparators) for below in ast.walk(side)]
            if any(isinstance(one, ast.Attribute) and one.attr in ("reveal", "_text", "_raw") for one in inside):
                yield node.lineno


def test_no_secret_in_the_clear_is_compared_by_an_operator() -> None:
    assert list(compared(ast.parse("if a == secret.reveal().encode(): pass"))) == [1]
    found = [
        f"{path.name}:{number}"
        for path in (ROOT / "dispatcher").rglob("*.py")
        for number in compared(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("file", "function"),
    [
        ("receiver/trust.py", "knows"),
        ("receiver/trust.py", "objection"),
        ("receiver/trust.py", "_misjoined"),
        ("receiver/tokens.py", "knows"),
        ("receiver/tokens.py", "_is_shown"),
        ("ground/secret.py", "__eq__"),
        ("seal/vault.py", "__eq__"),
    ],
)
def test_what_a_caller_shows_is_compared_in_constant_time(file: str, function: str) -> None:
    tree = ast.parse((ROOT / "dispatcher" / file).read_text("utf-8"))
    (body,) = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name == function]
    called = {ast.unparse(one.func) for one in ast.walk(body) if isinstance(one, ast.Call)}
    assert "hmac.compare_digest" in called
