"""The kit's receivers, each run where its language is: by their self-check, and against the real dispatcher."""

import fcntl
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.config import load_config
from dispatcher.ground.clock import WallClock
from dispatcher.kit.receivers import LANGUAGES
from dispatcher.kit.stand_in import PLAYERS_TOKEN, StandIn
from dispatcher.kit.vectors import Made, Sender, decoded, encoded
from tests.ground import notice, settle_event
from tests.kits import TOOLS, URL, Reading, built, checked, covering, need, self_check, serving, write_kit
from tests.story import NO_TLS, Story, until

ALL = pytest.mark.parametrize("language", TOOLS)
# Their receivers are not compiled: a self-check costs next to nothing.
QUICK = ("PHP", "Node", "Python")
WEBHOOK = "whsec_" + "c2VjcmV0IG9mIHRoZSBvcGVyYXRvciwgMzIgYnl0ZXM="
PLAIN = {"key": "0123456789abcdef", "iv": "A1b2C3d4E5f6G7h8"}

# What else decides on the code that is written: who proves what, what is taken, what counts as a yes.
SHAPES: Mapping[str, dict[str, Any]] = {
    "one notice": {"notice_url": URL, "token": "t", "crypto": PLAIN},
    "settle alone": {"callback_url": "https://acme.example/wallet"},
    "settle, bearer": {"callback_url": "https://acme.example", "auth": "bearer", "token": "t"},
    "players' tokens": {"notice_url": URL, "auth": "per_event", "crypto": PLAIN, "preset": "notice-b"},
    "oauth2": {
        "notice_url": URL,
        "auth": "oauth2",
        "crypto": PLAIN,
        "oauth": {"token_url": "https://acme.example/token", "client_id": "p", "client_secret": "s"},
    },
    "minted, in hex": {
        "notice_url": URL,
        "callback_url": "https://acme.example/wallet",
        "auth": "minted",
        "crypto": {**PLAIN, "output": "hex"},
        "mint": {"account": "quote \" ' \\ 号🎰 $x", "username": "lobby", "wallet": 7, "time_unit": "ms"},
        "time_unit": "ms",
        "net_check": "off",
    },
    "minted settle": {
        "callback_url": "https://acme.example/wallet",
        "settle": {"auth": "minted", "success": {"field": "data.code", "values": [True, "号🎰\\"]}},
        "crypto": {"key": "0123456789abcdef", "iv_mode": "zero"},
        "mint": {"account": "provider-7"},
    },
    "signed, with headers": {
        "notice_url": "https://acme.example/Demo/notice?key=abc",
        "callback_url": "https://acme.example/wallet",
        "auth": "none",
        "crypto": {"key": "0123456789abcdef", "iv_mode": "zero", "output": "hex"},
        "headers": {"X-Api-Key": "k", "X-Api_Key": "l"},
        "signature": {"secret": WEBHOOK},
        "notice": {"success": {"statuses": [202, 400]}},
    },
}


def says_all_right(done: subprocess.CompletedProcess[str]) -> None:
    wrong = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    assert (wrong, done.returncode) == (["self-check: all right"], 0), done.stdout + done.stderr


def slow_unless(language: str, quick: bool) -> Any:
    return pytest.param(language, marks=() if quick else pytest.mark.slow)


@ALL
def test_every_language_of_the_kit_is_run_here_or_skipped_by_name(language: str) -> None:
    assert {one.name for one in LANGUAGES} == {*TOOLS}
    need(language)


@pytest.mark.parametrize("language", [slow_unless(one, one in QUICK) for one in TOOLS])
def test_a_receiver_reads_every_reading_of_the_key(tmp_path: Path, language: str) -> None:
    need(language)
    for number, reading in enumerate(covering()):
        folder = write_kit(tmp_path / str(number), notice_url=URL, token="t", crypto=reading.settings)
        says_all_right(self_check(language, folder))


@pytest.mark.parametrize("language", [slow_unless(one, one in QUICK) for one in TOOLS])
def test_a_receiver_asks_for_what_this_operator_is_sent(tmp_path: Path, language: str) -> None:
    need(language)
    for number, shape in enumerate(SHAPES.values()):
        says_all_right(self_check(language, write_kit(tmp_path / str(number), **shape)))


def test_with_the_package_cryptography_the_python_receiver_says_the_same(tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "kit", **SHAPES["minted, in hex"])
    words = [TOOLS["Python"].run[0], "receiver.py", "--self-check"]
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", timeout=60, check=False)
    says_all_right(done)


def test_gos_receiver_is_as_gofmt_would_write_it(tmp_path: Path) -> None:
    if shutil.which("gofmt") is None:
        pytest.skip("gofmt is not installed here")
    files = []
    for number, settings in enumerate([*SHAPES.values(), {**SHAPES["one notice"], "crypto": covering()[5].settings}]):
        files.append(str(write_kit(tmp_path / str(number), **settings) / "receiver.go"))
    done = subprocess.run(["gofmt", "-d", *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("fault", ["plaintext", "status", "books", "answer"])
@pytest.mark.parametrize("language", QUICK)
def test_a_self_check_that_goes_wrong_says_which_row(tmp_path: Path, language: str, fault: str) -> None:
    need(language)
    folder = write_kit(tmp_path / "kit", **SHAPES["one notice"])
    vectors = json.loads((folder / "vectors.json").read_text("utf-8"))
    row = vectors["cipher" if fault == "plaintext" else "requests"][0]
    row[fault] = {"plaintext": "b", "status": 404, "books": 0, "answer": "no"}[fault]
    (folder / "vectors.json").write_text(json.dumps(vectors), "utf-8")
    done = self_check(language, folder)
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("WRONG")] == [f"WRONG {row['name']}"]


# Against the real dispatcher: six operators, each with its own reading and its own language.

_OWN: Mapping[str, tuple[Reading, dict[str, Any]]] = {
    "PHP": (Reading("base64", "aes-256-cbc", "random_prefix", "utf8", "zero", "base64url"), {"token": "token-of-php"}),
    "Java": (Reading("hex", "aes-192-cbc", "fixed", "hex", "pkcs7", "base64"), {"token": "token-of-java"}),
    "Node": (Reading("utf8", "aes-256-cbc", "fixed", "utf8", "pkcs7", "base64"), {"auth": "per_event"}),
    "Go": (
        Reading("utf8_first16", "aes-128-cbc", "fixed", "base64", "zero", "hex"),
        {"auth": "minted", "mint": {"account": "provider-7"}, "signature": {"secret": WEBHOOK}},
    ),
    "Python": (
        Reading("utf8", "aes-192-cbc", "key_first16", "utf8", "pkcs7", "base64url"),
        {"token": "token-of-python", "headers": {"X-Api-Key": "key-of-python"}, "preset": "notice-b"},
    ),
    "C#": (Reading("hex", "aes-128-cbc", "zero", "utf8", "zero", "hex"), {"token": "token-of-csharp"}),
}
_PLAYER = "players-own-token"
_SECRETS = {
    "CALLBACK_WEBHOOK_SECRET": WEBHOOK,
    "CALLBACK_HEADER_X_API_KEY": "key-of-python",
    "CALLBACK_PLAYER_TOKENS": f"{_PLAYER}=player-1,{PLAYERS_TOKEN}=player-1",
}


class Desk(NamedTuple):
    """One language's receiver for its operator, listening."""

    name: str
    language: str
    folder: Path
    listen: str

    def settings(self) -> dict[str, str]:
        reading, own = _OWN[self.language]
        given = {"CALLBACK_KEY": reading.settings["key"], "CALLBACK_TOKEN": str(own.get("token", ""))}
        return {**_SECRETS, **given, "CALLBACK_IV": reading.settings.get("iv", "")}

    def books(self) -> list[tuple[str, str, list[str]]]:
        """Kind, key and content of each booking."""
        if self.language == "Python":
            with closing(sqlite3.connect(self.folder / "bookings.db")) as database:
                rows = database.execute("SELECT kind, key, content FROM bookings").fetchall()
            return [(kind, key, json.loads(content)) for kind, key, content in rows]
        lines = (self.folder / "bookings.ndjson").read_text("utf-8").splitlines()
        return [(row[0], row[1], row[2]) for row in map(json.loads, lines)]

    def log(self) -> str:
        return (self.folder / "receiver.log").read_text("utf-8")


def told(desk: Desk) -> str:
    return f"{desk.language}: {desk.log()[-2000:]}"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Story, list[Desk]]]:
    """A story whose operators are played by the receivers of their own kits."""
    with Story(tmp_path_factory.mktemp("story")) as story:
        story.operators.clear()
        desks = [_desk(story, language) for language in TOOLS if _is_here(language)]
        for desk in desks:
            words = ["kit", desk.name, "-o", str(desk.folder), "-c", str(story.config)]
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, done.output
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda desk: built(desk.language, desk.folder), desks))
        yield story, desks


def _is_here(language: str) -> bool:
    return all(shutil.which(one) for one in TOOLS[language].needs)


def _desk(story: Story, language: str) -> Desk:
    reading, own = _OWN[language]
    name = re.sub("[^a-z]", "", language.lower())
    listen = f"127.0.0.1:{story.port()}"
    settings = {"retry": {"delays": ["1s", "1s", "1s"]}, "settle": {"auth": own.get("auth", "bearer")}, **own}
    urls = {"notice_url": f"http://{listen}/Demo/notice", "callback_url": f"http://{listen}/wallet"}
    story.operators[name] = {**urls, "crypto": reading.settings, **settings}
    story.write()
    return Desk(name, language, story.folder / f"kit-{name}", listen)


def _events(desk: Desk) -> list[dict[str, Any]]:
    token = {"token": _PLAYER} if desk.language == "Node" else {}
    spins = [notice(operator=desk.name, order_no=str(9223372036854775000 + n), total_win="12.3456") for n in range(5)]
    payouts = [settle_event(operator=desk.name, txId=str(9223372036854775000 + n), fee="0.5") for n in range(5)]
    return [{**event, **token} for event in (*spins, *payouts)]


_NOTICE = ["player-1", "10.0000", "12.3456", "2.3456", "Spin投入", "49", "1767225601"]
_SETTLE = [
    *("SLOT", "fortune-mouse", "player-1", "round-1", "settled"),
    *("2022-10-14T23:00:00.000+0800", "2022-10-14T22:59:59.000+0800"),
    *("10.0000", "10.0000", "12.5000", "1.2500", "0.0000", "0.5000", "A", "K", "Q"),
]


def test_a_receiver_passes_the_check_of_its_own_kit(workshop: tuple[Story, list[Desk]]) -> None:
    for desk in workshop[1]:
        says_all_right(checked(desk.language, desk.folder))


def test_what_the_dispatcher_sends_is_booked_once_by_every_receiver(workshop: tuple[Story, list[Desk]]) -> None:
    story, desks = workshop
    expected = {(kind, str(9223372036854775000 + n)) for kind in ("notice", "settle") for n in range(5)}
    with ExitStack() as stack:
        for desk in desks:
            stack.enter_context(serving(desk.language, desk.folder, desk.listen, desk.settings()))
        events = [event for desk in desks for event in _events(desk)]
        # Twice from an empty database: the second time each order comes again, and is answered with success.
        for times in (1, 2):
            story.enqueue(events)
            with story.running():
                until(lambda: not story.query("SELECT 1 FROM deliveries WHERE status IN ('pending', 'sending')"))
            ended = story.query("SELECT DISTINCT operator, status, attempts, reason FROM deliveries ORDER BY operator")
            assert ended == [(name, "delivered", 1, None) for name in sorted(story.operators)]
            for desk in desks:
                books = desk.books()
                assert len(books) == len(expected), told(desk)
                assert {(kind, key) for kind, key, _ in books} == expected, told(desk)
                for kind, _, content in books:
                    assert content == (_NOTICE if kind == "notice" else _SETTLE), told(desk)
                assert desk.log().count("duplicate") == 10 * (times - 1), told(desk)
            for path in story.folder.glob("dispatcher.db*"):
                if not path.name.endswith("-key"):
                    path.unlink()
        for desk in desks:
            _beset(story, desk)
    for desk in desks:
        _after_a_cut(story, desk)


def _beset(story: Story, desk: Desk) -> None:
    """Posted to by hand what must be refused, and the same order eight times at once."""
    sender, now = _sender(story, desk), WallClock().now()
    event = {key: value for key, value in notice(order_no="at-once").items() if key not in ("operator", "type")}
    made = sender.make("notice", event, now=now)
    before = len(desk.books())

    def post(one: Made) -> httpx.Response:
        url = f"http://{desk.listen}/Demo/notice"
        return httpx.post(
            url, headers=one.headers, content=one.body.encode(), verify=NO_TLS, trust_env=False, timeout=60
        )

    wrong = made._replace(headers=made.headers | {"authorization": "Bearer another"})
    assert post(wrong).status_code == 401, told(desk)
    assert post(sender.remake("notice", event, lambda body: _tampered(sender, body), now=now)).status_code == 400, told(
        desk
    )
    assert len(desk.books()) == before, told(desk)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, [made] * 8))
    assert [one.status_code for one in answers] == [200] * 8, told(desk)
    assert len({one.text for one in answers}) == 1
    assert len(desk.books()) == before + 1, told(desk)
    other = sender.make("notice", {**event, "total_win": "13"}, now=now)
    assert post(other).status_code == 409, told(desk)
    assert len(desk.books()) == before + 1, told(desk)
    assert post(made._replace(body="x" * 70_000)).status_code in (401, 413), told(desk)


def _sender(story: Story, desk: Desk) -> Sender:
    """With the operator's real key."""
    return Sender(StandIn(load_config(story.config).operators[desk.name], None, None))


def _tampered(sender: Sender, body: str) -> str:
    """One bit of the first block is another."""
    reading, data = sender.operator.reading, json.loads(body)["data"]
    assert reading is not None
    raw = bytearray(decoded(data, reading.output))
    raw[(16 if reading.iv is None else 0) + 2] ^= 1
    return body.replace(data, encoded(bytes(raw), reading.output))


def _after_a_cut(story: Story, desk: Desk) -> None:
    """Killed, its last line torn: what it has said yes to is known, the torn one is booked anew."""
    before = desk.books()
    if desk.language != "Python":
        with (desk.folder / "bookings.ndjson").open("a", encoding="utf-8") as file:
            file.write('["notice","torn')
    sender, now = _sender(story, desk), WallClock().now()
    with serving(desk.language, desk.folder, desk.listen, desk.settings()):
        for order in ("torn", "at-once"):
            event = {key: value for key, value in notice(order_no=order).items() if key not in ("operator", "type")}
            made = sender.make("notice", event, now=now)
            url = f"http://{desk.listen}/Demo/notice"
            answer = httpx.post(
                url, headers=made.headers, content=made.body.encode(), verify=NO_TLS, trust_env=False, timeout=60
            )
            assert answer.status_code == 200, told(desk)
            assert len(desk.books()) == len(before) + 1, told(desk)


def test_in_php_one_process_at_a_time_has_the_books(tmp_path: Path) -> None:
    need("PHP")
    folder = write_kit(tmp_path / "kit", **SHAPES["one notice"])
    vectors = json.loads((folder / "vectors.json").read_text("utf-8"))
    row = vectors["requests"][0]
    with Story(tmp_path) as story, ThreadPoolExecutor(1) as pool:
        listen = f"127.0.0.1:{story.port()}"
        books = folder / "bookings.ndjson"
        with serving("PHP", folder, listen, vectors["settings"]), books.open("w", encoding="utf-8") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            url, content = f"http://{listen}{row['path']}", row["body"].encode()
            post = pool.submit(httpx.post, url, headers=row["headers"], content=content, trust_env=False, timeout=60)
            with pytest.raises(TimeoutError):
                post.result(1)
            assert books.read_text("utf-8") == ""
            fcntl.flock(held, fcntl.LOCK_UN)
            assert post.result(60).status_code == 200
        assert books.read_text("utf-8").count("\n") == 1


def test_the_documents_curl_line_posts_a_vector_that_is_booked(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    folder = write_kit(tmp_path / "kit", **SHAPES["minted, in hex"], signature={"secret": WEBHOOK})
    vectors = json.loads((folder / "vectors.json").read_text("utf-8"))
    text = (folder / "integration.md").read_text("utf-8")
    assert "`CALLBACK_CLOCK=1767225600`" in text
    lines = re.findall(r"```sh\n(curl .*?)```", text, re.DOTALL)
    assert len(lines) == 4
    with Story(tmp_path) as story:
        listen = f"127.0.0.1:{story.port()}"
        settings = {**vectors["settings"], "CALLBACK_CLOCK": str(vectors["now"])}
        with serving("Python", folder, listen, settings):
            for line, became in zip(lines, ("booked", "booked", "duplicate", "duplicate"), strict=True):
                posted = line.replace("https://acme.example", f"http://{listen}")
                done = subprocess.run(
                    ["bash", "-c", posted], cwd=folder, capture_output=True, text=True, timeout=60, check=True
                )
                assert done.stdout.startswith("HTTP/1.1 200"), done.stdout
                assert (folder / "receiver.log").read_text("utf-8").splitlines()[-1].startswith(f"{became}: ")
