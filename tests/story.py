"""What a story needs: a folder with a configuration, the real commands as processes, and patience with an end."""

import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import httpx

from dispatcher.store.engine import open_database
from tests import nursery
from tests.ground import IV, KEY, line, notice
from tests.nursery import COMMAND
from tests.stores import PostgreSQL

T = TypeVar("T")

PATIENCE = 60.0
# For plain http, asked again and again: without it each request would first read the system's authorities.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object a line."""
        return [json.loads(text) for text in self.out.splitlines()]


def until(happens: Callable[[], T], seconds: float = PATIENCE, told: Callable[[], object] = lambda: "") -> T:
    """What `happens` gives as soon as it is something; an AssertionError with what is known when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (given := happens()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {given!r} {told()}"
        time.sleep(0.01)
    return given


@contextmanager
def free_port() -> Iterator[int]:
    """A free port, kept free for whoever may share an address that is bound but not listened on."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield int(reserved.getsockname()[1])


def toml(value: object) -> str:
    """A value as TOML; tables are written inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def moment(text: str) -> float:
    """Seconds since 1970 of a time as `--json` writes it."""
    return datetime.fromisoformat(text).timestamp()


def orders(count: int, start: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """So many notices of acme, each with its own number of 19 digits."""
    return [notice(**{"order_no": str(1767225600000000000 + start + n), **changes}) for n in range(count)]


def leaks(text: str) -> list[str]:
    """The secrets of every story's configuration that stand in a text."""
    return [secret for secret in ("the-token-of-", KEY, IV) if secret in text]


def up_to(beginning: str, lines: Iterable[str]) -> list[str]:
    """The lines up to the first that begins so; all of them where none does."""
    heard = []
    for text in lines:
        heard.append(text)
        if text.startswith(beginning):
            break
    return heard


class Receiver:
    """The demo operator as a process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def booked(self) -> dict[str, int]:
        """How often each order was accepted, by its number; it stands here once it is booked."""
        rows = httpx.get(f"{self.url}/received", verify=NO_TLS, trust_env=False, timeout=60).json()
        times = {row["order_no"]: row["times"] for row in rows}
        assert len(times) == len(rows), "an order stands twice in the books"
        return times

    def requests(self) -> int:
        return int(httpx.get(f"{self.url}/stats", verify=NO_TLS, trust_env=False, timeout=60).json()["requests"])


class Daemon:
    """`dispatcher run` as a process, and what it has logged so far."""

    def __init__(self, process: "subprocess.Popen[str]", web: str) -> None:
        self.process = process
        self.web = web
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for text in self.process.stderr:
            self.lines.append(text)

    def text(self) -> str:
        return "".join(self.lines)

    def told(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one kind."""
        parsed = [json.loads(text) for text in list(self.lines) if text.startswith("{")]
        return [one for one in parsed if one["event"] == event]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.web}{path}", verify=NO_TLS, trust_env=False, timeout=60)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself and everything that it logged is here."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        return status

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.text()

    def kill(self) -> None:
        """As when the power goes."""
        self.signal(signal.SIGKILL)
        self.ended()


class Story:
    """One folder with a configuration and a database. `operators` and `tables` are what the configuration says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.database = folder / "dispatcher.db"
        self._reserved = ExitStack()
        self.tables: dict[str, dict[str, Any]] = {
            "egress": {"allow": ["127.0.0.0/8"]},
            "web": {"listen": f"127.0.0.1:{self.port()}"},
            "worker": {},
        }
        self.operators: dict[str, dict[str, Any]] = {}
        self.add_operator("acme")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reserved.close()

    def port(self) -> int:
        """A free port, kept free until the story ends."""
        return self._reserved.enter_context(free_port())

    def add_operator(self, name: str, **settings: Any) -> None:
        self.operators[name] = {
            "notice_url": f"http://127.0.0.1:{self.port()}/Demo/notice",
            "token": f"the-token-of-{name}",
            "retry": {"delays": ["1s", "1s", "1s"]},
            "crypto": {"key": KEY, "iv": IV},
            **settings,
        }
        self.write()

    def set(self, table: str = "acme", **settings: Any) -> None:
        """Change an operator, or a table like `worker`, and write the file anew."""
        (self.operators if table in self.operators else self.tables)[table].update(settings)
        self.write()

    def write(self, path: Path | None = None) -> Path:
        path = path or self.config
        tables = self.tables | {f"operators.{name}": settings for name, settings in self.operators.items()}
        parts = [
            f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
            for name, table in tables.items()
        ]
        path.write_text("\n".join(parts), "utf-8")
        return path

    def file(self, events: Iterable[Mapping[str, Any]], name: str = "events.ndjson") -> Path:
        path = self.folder / name
        path.write_text("".join(line(event) + "\n" for event in events), "utf-8")
        return path

    def call(self, *words: object, stdin: str | bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        """A command, to its end. It never shows a traceback."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = nursery.run(self.line(*words), given, PATIENCE, env)
        told = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in told.err, told.err
        assert "a bug of ours" not in told.err, told.err
        assert not leaks(told.out + told.err), told
        return told

    def line(self, *words: object) -> list[str]:
        """The command line of a command on this story's configuration."""
        first, *rest = map(str, words)
        # `dead list`, `db status` and their like take the option behind their second word.
        rest = (
            [*rest[:1], "-c", str(self.config), *rest[1:]]
            if first in ("accounts", "dead", "db", "keys", "notify", "operators", "replays")
            else ["-c", str(self.config), *rest]
        )
        return [*COMMAND, first, *rest]

    def enqueue(self, events: Sequence[Mapping[str, Any]]) -> None:
        done = self.call("enqueue", "-", "--json", stdin="".join(line(event) + "\n" for event in events))
        assert done.json()["accepted"] == len(events), done
        assert done.status == 0, done

    def key(self, *scopes: str, name: str = "game-server", **options: str) -> dict[str, str]:
        """The header that a new key of the API goes into."""
        words = [word for scope in scopes for word in ("--scope", scope)]
        words += [word for option, value in options.items() for word in (f"--{option}", value)]
        done = self.call("keys", "create", name, *words)
        assert done.status == 0, done
        return {"authorization": f"Bearer {done.out.strip()}"}

    def show(self, key: str, operator: str = "acme") -> dict[str, Any]:
        done = self.call("show", operator, key, "--json")
        assert done.status == 0, done
        shown: dict[str, Any] = done.json()
        return shown

    def prove(self) -> dict[str, Any]:
        """`dispatcher audit` finds nothing wrong, beside a daemon or after it; what it told. Remarks are no faults."""
        done = self.call("audit", "--json")
        told: dict[str, Any] = done.json()
        assert (done.status, [one for one in told["findings"] if one["fault"]]) == (0, []), done
        return told

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Rows straight from the database."""
        with closing(sqlite3.connect(self.database, timeout=PATIENCE)) as connection:
            return connection.execute(text).fetchall()

    def statuses(self, operator: str = "acme") -> Counter[str]:
        return Counter(
            status for name, status in self.query("SELECT operator, status FROM deliveries") if name == operator
        )

    def all_are(self, status: str, operator: str = "acme") -> bool:
        return set(self.statuses(operator)) == {status}

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that is recorded, by table."""
        return {name: self.query(f"SELECT * FROM {name}") for name in ("deliveries", "attempts", "journal")}

    @contextmanager
    def starting(self, command: str = "run") -> Iterator[Daemon]:
        """`dispatcher run` (or `web`), whether it comes up or not; ends with the block, however that ends."""
        with nursery.start(self.line(command), stderr=subprocess.PIPE, encoding="utf-8") as process:
            daemon = Daemon(process, f"http://{self.tables['web']['listen']}")
            try:
                yield daemon
            finally:
                process.kill()
                daemon.ended()

    @contextmanager
    def running(self, command: str = "run") -> Iterator[Daemon]:
        """A daemon that works; it is stopped cleanly unless the story has ended it already."""
        up = "running" if command == "run" else "serving"
        with self.starting(command) as daemon:
            until(lambda: daemon.told(up) or daemon.process.poll() is not None, told=daemon.text)
            assert daemon.process.poll() is None, daemon.text()
            yield daemon
            if daemon.process.poll() is None:
                daemon.stop()
            assert not leaks(daemon.text())

    @contextmanager
    def receiving(self, *options: str, config: Path | None = None, operator: str = "acme") -> Iterator[Receiver]:
        """The demo operator; with another `config` it plays by that one's key and token."""
        words = ["receiver", "-q", "--operator", operator, *options, "-c", str(config or self.config)]
        with nursery.start([*COMMAND, *words], stderr=subprocess.PIPE, encoding="utf-8") as process:
            try:
                assert process.stderr
                heard = up_to("receiver listens on ", process.stderr)
                assert heard[-1].startswith("receiver listens on "), heard
                yield Receiver(heard[-1].split()[3])
            finally:
                process.kill()


class ServerStory(Story):
    """A story whose database is on a server."""

    def __init__(self, folder: Path, postgresql: PostgreSQL) -> None:
        super().__init__(folder)
        self.place = postgresql.place
        self.tables["database"] = {"url": postgresql.url}
        self.write()

    def twin(self) -> "ServerStory":
        """The same once more, for a second worker: the same database, operators and key, another port."""
        other = copy(self)
        other.tables = self.tables | {"web": {"listen": f"127.0.0.1:{self.port()}"}}
        other.config = self.folder / "twin.toml"
        other.write()
        return other

    def query(self, text: str) -> list[tuple[Any, ...]]:
        database = open_database(self.place)
        try:
            with database.reading() as connection:
                return [tuple(found) for found in connection.exec_driver_sql(text)]
        finally:
            database.close()
