"""What the documents say is run: the example configuration, the README's blocks in order, both languages the same."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx
import pytest

from dispatcher.certify.checks import CHECKS
from dispatcher.cli import main
from dispatcher.config import load_config
from dispatcher.console.gate import LIMITS
from dispatcher.ground.settings import Table
from dispatcher.protocols import PROTOCOLS
from dispatcher.web.problem import Kind
from tests import nursery
from tests.nursery import COMMAND
from tests.stores import PostgreSQL
from tests.story import NO_TLS, ServerStory, Story, free_port, orders, until
from tests.test_notifications_story import Chat, chatting

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
KIT = (ROOT / "docs" / "kit.md").read_text("utf-8")
API = (ROOT / "docs" / "api.md").read_text("utf-8")
CERTIFY = (ROOT / "docs" / "certify.md").read_text("utf-8")
RECONCILE = (ROOT / "docs" / "reconcile.md").read_text("utf-8")
REPLAYS = (ROOT / "docs" / "replays.md").read_text("utf-8")
SETTINGS = "".join((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("settings", "notifications"))
NOTIFICATIONS = (ROOT / "docs" / "notifications.md").read_text("utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
DEPLOY = (ROOT / "docs" / "deploy.md").read_text("utf-8")
CONSOLE = (ROOT / "docs" / "console.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text("utf-8")
ORDER = "1234567890123456789"
# The one that the README has die.
ANOTHER = "1234567890123456790"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    return [line.partition("#")[0].strip() for line in block.splitlines() if line.startswith("dispatcher")]


def uncommented(block: str) -> list[str]:
    return [line.partition(" #")[0].rstrip() for line in block.splitlines()]


class Desk:
    """A user's folder with the README's two files, and a shell to type its commands into."""

    def __init__(self, folder: Path, more: str) -> None:
        self.folder = folder
        self._reserved = ExitStack()
        port = self.port()
        (config,) = blocks(README, "toml")
        text = config.replace("127.0.0.1:9000", f"127.0.0.1:{port}") + more + '\n[web]\nlisten = ""\n'
        (folder / "config.toml").write_text(text, "utf-8")
        (spins,) = blocks(README, "json")
        (folder / "spins.ndjson").write_text(spins, "utf-8")
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment: dict[str, str] = {}
        self.receiver = f"http://127.0.0.1:{port}"
        self._port = port

    def type(self, command: str) -> subprocess.CompletedProcess[str] | None:
        """Runs a line as it stands in the README; `&` leaves it running."""
        given: dict[str, Any] = {"cwd": self.folder, "env": {**os.environ, **self.environment}}
        if command.endswith("&"):
            line = [*COMMAND, *shlex.split(command.removesuffix("&"))[1:]]
            self.running.append(nursery.start(line, stderr=subprocess.DEVNULL, **given))
            # Whoever posts before a receiver listens is refused, and comes back in a minute; who reads before a
            # daemon has made its database finds none.
            until(self._listens if "receiver" in line else (self.folder / "dispatcher.db-bell").exists)
            return None
        words, fds = nursery.for_a_shell()
        script = f'dispatcher() {{ exec {shlex.join(words)} "$@"; }}; {command}'
        given |= {"timeout": 60, "check": False, "pass_fds": fds}
        return subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", **given)

    def _listens(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self._port)) == 0

    def port(self) -> int:
        """A free port, kept free until the desk is left."""
        return self._reserved.enter_context(free_port())

    def leave(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        self._reserved.close()

    def end(self, process: subprocess.Popen[bytes], number: int) -> None:
        process.send_signal(number)
        process.wait(60)

    def settled(self, order: str) -> bool:
        return self.status(order) == "delivered"

    def status(self, order: str = ORDER) -> str:
        return str(self.whole(order).get("status", "absent"))

    def whole(self, order: str) -> dict[str, Any]:
        shown = nursery.run([*COMMAND, "show", "acme", order, "--json", "-c", str(self.folder / "config.toml")])
        return dict(json.loads(shown.stdout)) if shown.returncode == 0 else {}

    def wait(self, status: str, order: str = ORDER) -> None:
        until(lambda: self.status(order) == status, told=lambda: self.status(order))


@contextmanager
def desk(folder: Path, more: str = "") -> Iterator[Desk]:
    place = Desk(folder, more)
    try:
        yield place
    finally:
        place.leave()


def test_the_example_configuration_loads_without_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROOK_TOKEN", "a-token")
    monkeypatch.setenv("BROOK_KEY", "0123456789abcdef")
    monkeypatch.setenv("BROOK_IV", "fedcba9876543210")
    monkeypatch.setenv("OPS_WEBHOOK", "https://hooks.example/services/T0/B0/0123456789abcdef")
    config = load_config(ROOT / "config.example.toml")
    assert not config.warnings
    assert set(config.operators) == {"acme", "brook"}


def test_the_example_configuration_names_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "config.example.toml").read_text("utf-8")
    settings = {path[-1] for path in settings_read(monkeypatch)}
    assert len(settings) > 25
    assert [key for key in sorted(settings) if not re.search(rf"\b{key}(_env|_file)?\b", text)] == []


def test_the_table_of_settings_has_every_setting_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    page = SETTINGS
    rows = re.findall(r"^\| `([^`]+)`( ✱)? \|", page, re.MULTILINE)
    read = {".".join(_general(path)) for path in settings_read(monkeypatch)}
    tables = {name.rpartition(".")[0] for name in read} | {"operators", "operators.NAME.TYPE", "operators.NAME.headers"}
    tables |= {name for name in read if re.fullmatch(r"notifications\.\w+", name)}
    told = {name for name, _ in rows if not name.endswith(".HEADER")}
    of_a_type = {f"operators.NAME.TYPE.{table}" for table in ("retry", "success")}
    assert told == {name for name in read if name not in tables and not _of_a_type(name)} | of_a_type


def settings_read(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """Every key that the code looks for when it reads the example configuration."""
    asked: set[tuple[str, ...]] = set()
    ask = Table.has

    def has(self: Table, key: str) -> bool:
        asked.add((*self.path, key))
        return ask(self, key)

    monkeypatch.setattr(Table, "has", has)
    for name in ("BROOK_TOKEN", "BROOK_KEY", "BROOK_IV"):
        monkeypatch.setenv(name, "0123456789abcdef")
    monkeypatch.setenv("OPS_WEBHOOK", "https://hooks.example/services/T0/B0/0123456789abcdef")
    load_config(ROOT / "config.example.toml")
    return {path for path in asked if not path[-1].endswith(("_env", "_file"))}


def _general(path: tuple[str, ...]) -> tuple[str, ...]:
    """With NAME for the operator or notification, and TYPE for the message type."""
    if path[0] == "notifications" and len(path) > 2:
        # Its retry is an operator's, which is told once.
        return ("notifications", "NAME", *(path[2:3] if path[2] == "retry" else path[2:]))
    if path[0] != "operators" or len(path) < 2:
        return path
    below = path[2:]
    return ("operators", "NAME", *(("TYPE", *below[1:]) if below and below[0] in PROTOCOLS else below))


def _of_a_type(name: str) -> bool:
    """What stands below a message type's retry or success is told once, for the operator."""
    return re.fullmatch(r"operators\.NAME\.TYPE\.(retry|success)\..+", name) is not None


def test_the_readmes_commands_do_what_it_says(tmp_path: Path) -> None:
    _, operate, *_ = blocks(README, "sh")
    with desk(tmp_path) as place:
        for command in commands(operate):
            if command.startswith("dispatcher show"):
                place.wait("delivered")
            done = place.type(command)
            assert done is None or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_the_readmes_commands_for_dead_letters_do_what_it_says(tmp_path: Path) -> None:
    dead = blocks(README, "sh")[2]
    with desk(tmp_path, "retry = { delays = [] }\n") as place:
        place.type("dispatcher run &")
        (tmp_path / "spins.ndjson").write_text(order(ANOTHER), "utf-8")
        place.type("dispatcher enqueue spins.ndjson")
        place.wait("dead", ANOTHER)
        for command in commands(dead):
            done = place.type(command)
            assert done is not None
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert (tmp_path / "dead.csv").exists()
        # Resolved, and then replayed after all.
        until(lambda: len(place.whole(ANOTHER)["attempts"]) == 2)


def test_the_readmes_commands_for_a_new_master_key_do_what_it_says(tmp_path: Path) -> None:
    init, reencrypt = commands(blocks(README, "sh")[3])
    with desk(tmp_path) as place:
        place.type("dispatcher enqueue spins.ndjson")
        made = place.type(init)
        assert made is not None
        assert made.returncode == 0, made.stderr
        keys = '[secrets]\nmaster_key_file = "fresh.key"\nformer_master_key_file = "dispatcher.db-key"\n'
        config = tmp_path / "config.toml"
        config.write_text(config.read_text("utf-8") + keys, "utf-8")
        done = place.type(reencrypt)
        assert done is not None
        assert (done.returncode, done.stdout.partition(": ")[2]) == (0, "1 operators, 0 tokens\n"), done.stderr
        config.write_text(config.read_text("utf-8").replace("former_master_key_file", "# "), "utf-8")
        shown = place.type("dispatcher operators check acme --json")
        assert shown is not None
        assert json.loads(shown.stdout)["faults"] == {}


def curled(command: str, folder: Path, **variables: str) -> httpx.Response:
    """What a `curl` command of the documents would get."""
    for name, value in variables.items():
        command = command.replace(f"${name}", value)
    url, headers, content, method = "", {}, b"", "GET"
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    for word in words:
        match word:
            case "-sS":
                pass
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-X":
                method = next(words)
            case "-d" | "--data-binary":
                given, method = next(words), "POST"
                content = (folder / given[1:]).read_bytes() if given.startswith("@") else given.encode()
            case _:
                assert word.startswith("http"), word
                url = word
    return httpx.request(method, url, headers=headers, content=content, verify=NO_TLS, trust_env=False, timeout=60)


def test_the_apis_commands_do_what_its_page_says(tmp_path: Path) -> None:
    keys, events, deliveries, bulk = blocks(API, "sh")
    with desk(tmp_path, "retry = { delays = [] }\n") as place:
        address = f"127.0.0.1:{place.port()}"
        config = tmp_path / "config.toml"
        config.write_text(config.read_text("utf-8").replace('listen = ""', f'listen = "{address}"'), "utf-8")
        for command in commands(keys):
            done = place.type(command)
            assert done is not None
            assert done.returncode == 0, done.stderr
        made = place.type(re.findall(r"\$\((.*)\)", events)[0])
        assert made is not None
        place.type("dispatcher run &")
        answers: list[httpx.Response] = []
        for command in re.findall(r"^curl (?:.|\n)*?(?=^curl|\Z)", events + deliveries + bulk, re.MULTILINE):
            if answers and command not in bulk:
                place.wait("dead")
            end = time.monotonic() + 60
            while True:
                try:
                    answers.append(curled(command, tmp_path, KEY=made.stdout.strip(), API=f"http://{address}"))
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < end, "the daemon does not listen"
    assert [answer.status_code for answer in answers] == [202, *[200] * 7], [one.text for one in answers]
    assert answers[0].json() == {"id": 1, "status": "pending"}
    assert answers[1].json() == {"accepted": 1, "duplicate": 1, "conflict": 0, "invalid": 0, "refused": []}
    assert (answers[3].json()["key"], answers[3].json()["status"]) == (ORDER, "dead")
    assert [answer.json()["status"] for answer in answers[4:6]] == ["pending", "resolved"]
    # The other spin of the batch; it may not be dead yet.
    assert answers[6].json()["total"] in (0, 1)
    assert answers[7].json() == {"replays": []}


def test_the_commands_for_bulk_replays_do_what_their_page_says(tmp_path: Path) -> None:
    (bulk,) = blocks(REPLAYS, "sh")
    with desk(tmp_path, "retry = { delays = [] }\n") as place:
        place.type("dispatcher run &")
        place.type("dispatcher enqueue spins.ndjson")
        place.wait("dead")
        # Whoever types comes to the last line before a worker has made the first step.
        worker = place.running.pop()
        worker.send_signal(signal.SIGKILL)
        worker.wait(60)
        for command in commands(bulk):
            done = place.type(command)
            assert done is not None
            assert done.returncode == 0 or command.endswith("cancel 1"), f"{command}: {done.stdout}{done.stderr}"
        shown = place.type("dispatcher replays show 1 --json")
        assert shown is not None
        assert json.loads(shown.stdout)["state"] == "cancelled"


def test_the_commands_that_compare_the_books_do_what_their_page_says(tmp_path: Path) -> None:
    with desk(tmp_path) as place:
        place.type("dispatcher enqueue spins.ndjson")
        (tmp_path / "list.csv").write_text("order_no\nanother\n", "utf-8")
        for command in commands(blocks(RECONCILE, "sh")[0]):
            done = place.type(command)
            assert done is not None
            assert (done.returncode, done.stderr) == (1, "")
        assert "unknown_here" in (tmp_path / "differences.csv").read_text("utf-8")
    export = f"[operators.x]\nnotice_url = 'https://x.example/'\n{blocks(RECONCILE, 'toml')[0]}"
    columns = tomllib.loads(export)["operators"]["acme"]["notice"]["export"]["columns"]
    assert columns["order_no"] == "订单号"


def test_the_commands_of_the_page_on_notifications_do_what_it_says(tmp_path: Path) -> None:
    (trying,) = blocks(NOTIFICATIONS, "sh")
    (table,) = blocks(NOTIFICATIONS, "toml")
    chat = Chat((200, '{"code":0}'))
    with chatting(chat) as url, desk(tmp_path) as place:
        config = tmp_path / "config.toml"
        config.write_text(config.read_text("utf-8") + table, "utf-8")
        place.environment = {"OPS_WEBHOOK": url, "OPS_SECRET": "a-secret"}
        place.type("dispatcher run &")
        for command in commands(trying):
            done = place.type(command)
            assert done is not None
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            if command.startswith("dispatcher log"):
                assert "notify:ops" in done.stdout
    ((_, body),) = chat.got
    assert body["content"]["post"]["zh_cn"]["title"] == "dispatcher：notify:ops 的测试消息，无需处理"
    assert {"timestamp", "sign"} < body.keys()


def shell(block: str) -> list[str]:
    """Its lines without what is said of them."""
    return [line for line in uncommented(block) if line]


def times(receiver: str) -> dict[str, int]:
    """How often the demo operator got each order."""
    return {
        row["order_no"]: row["times"]
        for row in httpx.get(f"{receiver}/received", verify=NO_TLS, trust_env=False, timeout=60).json()
    }


def order(number: str) -> str:
    """The README's spin under another number, as a line."""
    return blocks(README, "json")[0].splitlines()[0].replace(ORDER, number) + "\n"


def test_what_the_page_on_operations_says_of_backup_and_restore_loses_no_order_and_says_what_comes_twice(
    tmp_path: Path,
) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3, the command, is not on this machine: the page's backup is not tried")
    backup, restore, every_day = blocks(OPERATIONS, "sh")
    before, waiting, after = "1234567890123456001", "1234567890123456002", "1234567890123456003"
    with desk(tmp_path) as place:

        def do(*lines: str) -> None:
            for line in lines:
                done = place.type(line)
                assert done is None or done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

        def hand_in(number: str, name: str) -> None:
            (tmp_path / name).write_text(order(number), "utf-8")
            do(f"dispatcher enqueue {name}")

        do("dispatcher receiver &", "dispatcher run &")
        receiver = place.receiver
        hand_in(before, "first.ndjson")
        until(lambda: place.settled(before))
        do('dispatcher operators pause acme --note "so that one waits"')
        hand_in(waiting, "second.ndjson")
        do(*shell(backup))
        assert (tmp_path / "backup.db").stat().st_mode & 0o077 == 0
        do("dispatcher operators resume acme")
        hand_in(after, "since-the-backup.ndjson")
        until(lambda: place.settled(waiting) and place.settled(after))
        place.end(place.running.pop(), signal.SIGKILL)
        do(*shell(restore))
        until(lambda: place.settled(waiting) and place.settled(after))
        do(*shell(every_day))
        assert times(receiver) == {before: 1, waiting: 2, after: 2}
        assert (tmp_path / "broken" / "dispatcher.db").exists()
        told = place.type("dispatcher audit --json")
        assert told is not None
        assert json.loads(told.stdout)["ok"]


def test_a_dump_of_a_server_is_a_backup(postgresql: PostgreSQL, tmp_path: Path) -> None:
    if postgresql.process is None:
        pytest.skip("another's server: its tools are not ours")
    # Where its user may write.
    (folder,) = parse_qs(urlsplit(postgresql.url).query)["host"]
    postgresql.empty()
    with ServerStory(tmp_path, postgresql) as story, story.receiving() as receiver:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        story.enqueue(orders(30))
        with story.running():
            url = postgresql.url.replace("+psycopg", "")
            postgresql.call("pg_dump", "--format=custom", f"--file={folder}/store", url)
            until(lambda: len(receiver.booked()) == 30)
        name = "restored"
        other = _database(url, name)
        postgresql.call("psql", "--quiet", f"--command=CREATE DATABASE {name}", url)
        try:
            postgresql.call("pg_restore", "--no-owner", f"--dbname={other}", f"{folder}/store")
            story.tables["database"] = {"url": other}
            story.write()
            story.prove()
            with story.running():
                until(lambda: json.loads(story.call("operators", "list", "--json").out)["waiting"] == 0)
            assert len(story.call("log", "--status", "delivered", "--limit", "100", "--json").rows()) == 30
            story.prove()
        finally:
            postgresql.call("psql", "--quiet", f"--command=DROP DATABASE {name} WITH (FORCE)", url)


def _database(url: str, name: str) -> str:
    """The same server's other database."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))


def test_every_page_on_running_it_is_one_that_is_read() -> None:
    for name in ("operations", "deploy", "store", "notifications"):
        assert os.path.getsize(ROOT / "docs" / f"{name}.md") < 12_000


def test_the_commands_of_the_kits_page_do_what_it_says(tmp_path: Path) -> None:
    (block,) = blocks(KIT, "sh")
    with desk(tmp_path) as place:
        told = ""
        for line in uncommented(block):
            done = place.type(line)
            assert done is not None
            assert done.returncode == 0, done.stdout + done.stderr
            told = done.stdout
    assert told.endswith("self-check: all right\n")


def test_the_consoles_commands_do_what_its_page_says(tmp_path: Path) -> None:
    with desk(tmp_path) as place:
        (tmp_path / "passphrase.txt").write_text("a whole sentence of my own\n", "utf-8")
        for command in commands(blocks(CONSOLE, "sh")[0]):
            done = place.type(command)
            assert done is not None
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        listed = place.type("dispatcher accounts list --json")
        assert listed is not None
        assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == [
            "acme-finance",
            "li.wei",
            "wang.fang",
        ]


def test_the_page_of_the_console_tells_how_often_one_may_try() -> None:
    rows = re.findall(r"^\| (?:for|from) .* \| (\d+) wrong \|", CONSOLE, re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(limit.free for limit in LIMITS.values())


def test_the_commands_that_try_an_operator_do_what_their_page_says(tmp_path: Path) -> None:
    receiver, certify = commands(blocks(CERTIFY, "sh")[0])
    with desk(tmp_path) as place:
        own = re.findall(r"127\.0\.0\.1:\d+", (tmp_path / "config.toml").read_text("utf-8"))[0]
        place.type(receiver)
        until(lambda: _listens(own))
        done = place.type(certify.replace("127.0.0.1:9000", own))
        assert done is not None
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Nothing failed."), done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert "<html" in (tmp_path / "report.html").read_text("utf-8")


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_the_page_of_the_checks_names_every_check() -> None:
    named = {
        name for cell in re.findall(r"^\| (`[^|]+) \|", CERTIFY, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == {check.name for check in CHECKS}
    assert len(CERTIFY.encode()) < 6_000


def test_the_page_of_the_api_names_every_problem_and_its_status() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \| ([^|]+) \|", API, re.MULTILINE)
    told = {
        (int(status), slug.strip("` "))
        for statuses, slugs in rows
        for status, slug in zip(statuses.split(","), slugs.split(","), strict=True)
    }
    assert told == {(int(kind.status), kind.slug) for kind in Kind}


def test_every_command_of_the_readme_is_in_a_block_that_is_run() -> None:
    # tests/test_watching.py runs those of its page.
    watching = (ROOT / "docs" / "watching.md").read_text("utf-8")
    pages = (README, API, CERTIFY, CONSOLE, KIT, REPLAYS, RECONCILE, NOTIFICATIONS, OPERATIONS, DEPLOY, watching)
    run = "\n".join(block for page in pages for block in blocks(page, "sh"))
    named = set(re.findall(r"^(?:KEY=\"\$\()?dispatcher ([a-z]+)", run, re.MULTILINE))
    # `web` is what `run` serves, without the worker; tests/test_web.py runs it.
    assert named == set(main.list_commands(None)) - {"demo", "web"}  # type: ignore[arg-type]  # needs no context


def test_the_demo_ends_as_it_should() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher", "demo"], capture_output=True, encoding="utf-8", check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 resolved by hand" in done.stdout


def test_the_two_make_targets_run_what_the_readme_says() -> None:
    told = {name: _dry_make(name) for name in ("demo", "test")}
    assert "dispatcher demo" in told["demo"]
    assert all(word in told["test"] for word in ("ruff format --check", "ruff check", "mypy", "pytest"))
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def _dry_make(target: str) -> str:
    return subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_both_languages_have_the_same_blocks_and_headings() -> None:
    for language in ("toml", "json", "sh"):
        assert [uncommented(block) for block in blocks(README, language)] == [
            uncommented(block) for block in blocks(CHINESE, language)
        ]
    assert len(re.findall(r"^#+ ", README, re.MULTILINE)) == len(re.findall(r"^#+ ", CHINESE, re.MULTILINE))
    assert README.count("\n- ") == CHINESE.count("\n- ")


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "README.zh-CN.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_test_that_a_document_names_exists() -> None:
    there = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("*.py"))
    known = {*re.findall(r"def (test_\w+)", there), *(path.stem for path in (ROOT / "tests").glob("test_*.py"))}
    named = {
        name: page.name
        for page in (ROOT / "README.md", ROOT / "README.zh-CN.md", *(ROOT / "docs").glob("*.md"))
        for name in re.findall(r"\btest_\w+", page.read_text("utf-8"))
    }
    assert len(named) > 20
    assert {name: page for name, page in named.items() if name not in known} == {}


def test_no_document_is_longer_than_a_reader_likes() -> None:
    assert README.count("\n") <= 200
    assert os.path.getsize(ROOT / "docs" / "architecture.md") < 12_000
    assert os.path.getsize(ROOT / "docs" / "api.md") < 9_000
    assert os.path.getsize(ROOT / "docs" / "security.md") < 10_000
    assert os.path.getsize(ROOT / "docs" / "settings.md") < 12_000
    assert os.path.getsize(ROOT / "docs" / "kit.md") < 9_000


def test_the_example_game_tells_of_the_spins_that_were_played_and_of_no_other(tmp_path: Path) -> None:
    with Story(tmp_path) as story, story.receiving() as receiver:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        story.enqueue([])
        words = [sys.executable, str(ROOT / "docs/example_game.py"), str(story.config), f"sqlite:///{story.database}"]
        with story.running():
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            until(lambda: len(receiver.booked()) == 3)
        played = [line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith(": played")]
        assert len(done.stdout.splitlines()) == 4
        assert sorted(receiver.booked()) == sorted(played)
        assert story.query("SELECT cents FROM players") == [(1000 - 250 - 250 + 1250 - 100 + 50,)]
        assert story.query("SELECT count(*) FROM spins") == [(3,)]
