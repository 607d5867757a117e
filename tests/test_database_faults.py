"""What a worker makes of a database that fails it: one story, told of every fault on every kind of store.

One process lives through all of them. Deliveries are under way before, during and after each; none of them may cost an
attempt, be sent twice or get lost, and nobody restarts anything.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.dispatch.outage import Outage
from dispatcher.ground.clock import WallClock
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.place import Place, Server
from dispatcher.store import acceptance, corridor
from dispatcher.store.databases import silence, torn
from dispatcher.store.databases.silence import Limit
from dispatcher.store.engine import open_database
from tests import nursery
from tests.proxy import Cut, Proxy
from tests.stores import PostgreSQL, Standby, open_folder, started
from tests.story import Daemon as Worker
from tests.story import Receiver, ServerStory, Story, orders, until
from tests.workshop import accept, event, kept_log, rows

PASSWORD = "geheim-9"
# Small, so that it is quickly full; the tables and their indexes take half of it.
DISK_BYTES = 24 << 20
# What a worker keeps open however many faults it has seen: the ear's, the store's two threads', one for what is rare.
SESSIONS = 4


S = TypeVar("S", bound="Scene")


class Scene:
    """A worker at work, its operator, and the database between them, which the tests can do anything to."""

    def __init__(self, story: Story, place: Place, disk: Path | None) -> None:
        self.story, self.place, self.disk = story, place, disk
        self.daemon: Worker
        self.receiver: Receiver
        self._made = 0
        # One for all that is asked for often.
        self.http = httpx.Client(trust_env=False, timeout=60)

    def posts(self) -> int:
        """What the operator has seen."""
        return int(self.http.get(f"{self.receiver.url}/stats").json()["requests"])

    def hand_in(self, count: int) -> list[str]:
        """So many new orders, past whatever stands between the worker and its database."""
        keys = [str(1767225600000000000 + self._made + n) for n in range(count)]
        self._made += count
        database = open_database(self.place)
        acceptance.accept(database, [event(key) for key in keys], WallClock().now())
        database.ring()
        database.close()
        return keys

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = self.http.get(f"{self.daemon.web}/readyz")
        return answer.status_code, answer.json()

    def trouble(self) -> str:
        """What `/readyz` says of the database; nothing while all is well."""
        return str(self.ready()[1].get("database", ""))

    def told(self, name: str, since: int) -> list[dict[str, Any]]:
        """The log lines of one kind, from that line on."""
        before = len([one for one in self.daemon.lines[:since] if f'"event":"{name}"' in one])
        return self.daemon.told(name)[before:]

    def last(self) -> str:
        """The end of the log, without what is told of every delivery."""
        return "".join([one for one in self.daemon.lines if '"event":"attempt"' not in one][-20:])

    def sessions(self) -> int:
        return 0


class FileScene(Scene):
    def __init__(self, story: Story, disk: Path | None) -> None:
        super().__init__(story, story.database, disk)
        self.file = story.database


class ServerScene(Scene):
    def __init__(self, story: ServerStory, server: PostgreSQL, place: Server, proxy: Proxy, disk: Path | None) -> None:
        super().__init__(story, place, disk)
        self.server, self.proxy = server, proxy

    def pids(self) -> list[int]:
        """The worker's sessions, as the server knows them."""
        rows = self.story.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'dispatcher'")
        return [pid for (pid,) in rows]

    def sessions(self) -> int:
        return len(self.pids())


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own in this folder; None where this process can't make one."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_name("image")
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    making = (["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], ["mount", "-o", "loop", str(image), str(folder)])
    if not all(succeeds(line) for line in making):
        yield None
        return
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        # By then some file may still be open; the mount goes with the last of them.
        assert succeeds(["umount", "--lazy", str(folder)])


def succeeds(line: list[str]) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    return False


@contextmanager
def at_work(scene: S) -> Iterator[S]:
    scene.story.set(concurrency=8)
    with scene.story.receiving("--delay", "50ms") as receiver, scene.story.running() as daemon:
        scene.receiver, scene.daemon = receiver, daemon
        yield scene
        scene.http.close()


@pytest.fixture(scope="module")
def on_server() -> Iterator[ServerScene]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        server = stack.enter_context(started(folder))
        disk = stack.enter_context(small_disk(folder / "disk"))
        few = "ALTER SYSTEM SET max_connections = 24; ALTER SYSTEM SET superuser_reserved_connections = 0;"
        server.process.psql(few)
        server.call("pg_ctl", "-D", server.process.pgdata, "-m", "fast", "-w", "restart")
        more = ""
        if disk is not None:
            (disk / "space").mkdir(mode=0o777)
            (disk / "space").chmod(0o777)
            os.chown(disk / "space", *owner(server.process.pgdata))
            server.process.psql(f"CREATE TABLESPACE small LOCATION '{disk / 'space'}'")
            more = "&options=-cdefault_tablespace%3Dsmall"
        url = f"{server.url}{more}"
        direct = PostgreSQL(f"{url}&application_name=tests")
        proxy = stack.enter_context(Proxy(Path(server.process.get_uri().partition("host=")[2])))
        through = re.sub(r"host=[^&]*", f"host=127.0.0.1&port={proxy.port}", url)
        story = stack.enter_context(ServerStory(folder, direct))
        story.set("database", url=through.replace("postgres@", f"postgres:{PASSWORD}@"))
        scene = ServerScene(story, server, direct.place, proxy, disk)
        stack.enter_context(at_work(scene))
        yield scene
        assert PASSWORD not in scene.daemon.text()


def owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


@pytest.fixture(scope="module")
def on_file() -> Iterator[FileScene]:
    # On a disk: in memory, a file that is made immutable is still written by whoever has it open.
    with (
        TemporaryDirectory(dir="/var/tmp", prefix="dispatcher-tests-") as folder,
        small_disk(Path(folder) / "disk") as disk,
        Story(Path(folder) / "disk") as story,
        at_work(FileScene(story, disk)) as scene,
    ):
        yield scene


# The faults. Each lasts as long as its block, or has passed by itself when that begins.


@contextmanager
def stopped(scene: ServerScene, how: str) -> Iterator[None]:
    scene.server.call("pg_ctl", "-D", scene.server.process.pgdata, "-m", how, "-w", "stop")
    try:
        yield
    finally:
        start(scene)


def start(scene: ServerScene) -> None:
    data = scene.server.process.pgdata
    options = f'-h "" -k {scene.proxy.folder}'
    scene.server.call("pg_ctl", "-D", data, "-o", options, "-l", data / "log", "-w", "start")


@contextmanager
def killed(scene: ServerScene) -> Iterator[None]:
    identity = int((scene.server.process.pgdata / "postmaster.pid").read_text().split()[0])
    everybody = [identity, *map(int, Path(f"/proc/{identity}/task/{identity}/children").read_text().split())]
    os.kill(identity, signal.SIGKILL)
    try:
        until(lambda: not any(map(lives, everybody)))
        yield
    finally:
        # Where nobody takes note of its death, its name would stand for a process that lives.
        for name in (scene.server.process.pgdata / "postmaster.pid", scene.proxy.folder / ".s.PGSQL.5432.lock"):
            name.unlink(missing_ok=True)
        start(scene)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def backend_killed(scene: ServerScene) -> Iterator[None]:
    """The server ends all sessions then, and recovers as after a crash."""
    os.kill(scene.pids()[0], signal.SIGKILL)
    yield


@contextmanager
def cut(scene: ServerScene) -> Iterator[None]:
    """Again until it is told: what is cut while nobody uses it may be replaced unseen."""
    told = len(scene.daemon.told("store_unavailable"))
    while len(scene.daemon.told("store_unavailable")) == told:
        scene.proxy.cut_all()
        time.sleep(0.02)
    yield


@contextmanager
def cut_at(scene: ServerScene, where: Cut) -> Iterator[None]:
    before = scene.proxy.cut
    scene.proxy.cuts = [where] * 5
    until(lambda: scene.proxy.cut == before + 5)
    yield


@contextmanager
def slow(scene: ServerScene) -> Iterator[None]:
    scene.proxy.delay = 0.3
    began = scene.posts()
    # Work that begins and ends in the slow time.
    until(lambda: scene.posts() >= began + 8)
    yield
    scene.proxy.delay = 0.0


@contextmanager
def silent(scene: ServerScene) -> Iterator[None]:
    scene.proxy.flowing.clear()
    try:
        yield
    finally:
        scene.proxy.flowing.set()


@contextmanager
def unreachable(scene: ServerScene) -> Iterator[None]:
    there, scene.proxy.folder = scene.proxy.folder, Path("/nowhere")
    scene.proxy.cut_all()
    try:
        yield
    finally:
        scene.proxy.folder = there


@contextmanager
def crowded(scene: ServerScene) -> Iterator[None]:
    """Others have taken every connection."""
    address = f"host={scene.proxy.folder} user=postgres dbname=postgres"
    with ExitStack() as others:
        with unreachable(scene), suppress(psycopg.OperationalError):
            while True:
                others.enter_context(closing(psycopg.connect(address)))
        yield


@contextmanager
def taking_no_writes(scene: ServerScene) -> Iterator[None]:
    scene.server.process.psql("ALTER DATABASE postgres SET default_transaction_read_only = on")
    scene.proxy.cut_all()
    yield
    with closing(psycopg.connect(f"host={scene.proxy.folder} user=postgres", autocommit=True)) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    scene.proxy.cut_all()


@contextmanager
def full(scene: Scene) -> Iterator[None]:
    if scene.disk is None:
        pytest.skip("no file system of its own can be mounted here")
    ballast = scene.disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 4096, 512, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\1" * size)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def locked(scene: FileScene) -> Iterator[None]:
    with closing(sqlite3.connect(scene.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def unwritable(scene: FileScene) -> Iterator[None]:
    """Rights don't bind the user root, and a file system in use is not made read-only: this file takes no writes."""
    files = [scene.file, scene.file.with_name("dispatcher.db-wal")]
    if not succeeds(["chattr", "+i", *map(str, files)]):
        pytest.skip("no file can be made immutable here")
    try:
        yield
    finally:
        assert succeeds(["chattr", "-i", *map(str, files)])


@contextmanager
def gone(scene: FileScene) -> Iterator[None]:
    aside = scene.file.with_name("aside.db")
    scene.file.rename(aside)
    yield
    aside.rename(scene.file)


@contextmanager
def read_for_long(scene: FileScene) -> Iterator[None]:
    with closing(sqlite3.connect(scene.file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        (before,) = reader.execute("SELECT count(*) FROM attempts").fetchone()
        began = scene.posts()
        until(lambda: scene.posts() >= began + 40)
        yield
        assert reader.execute("SELECT count(*) FROM attempts").fetchone() == (before,)


@contextmanager
def on_a_standby(scene: ServerScene, standby: Standby) -> Iterator[None]:
    """Its one address leads to the standby before that one has taken over."""
    scene.proxy.folder = standby.socket
    scene.proxy.cut_all()
    alone = PostgreSQL(f"postgresql+psycopg://postgres@/postgres?host={quote(str(standby.socket), safe='/')}")
    database = open_database(alone.place)
    # Who has read there writes on the same session.
    assert corridor.survey(database).revision
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        accept(database, 1)
    database.close()
    yield
    standby.take_over()


class Fault(NamedTuple):
    """`told`: what `/readyz` says as long as it lasts; "" where it has passed by itself, or harms nobody.

    `takes`: new events can be handed in meanwhile. `noticed`: the log tells of it.
    """

    holding: Callable[[Any], AbstractContextManager[None]]
    told: str = ""
    takes: bool = False
    noticed: bool = True


SERVER_FAULTS = {
    "stopped, fast": Fault(lambda at: stopped(at, "fast"), "closed the connection|shutting down|terminating"),
    "stopped at once": Fault(lambda at: stopped(at, "immediate"), "closed the connection|shutdown|terminating"),
    "postmaster killed": Fault(killed, "closed the connection|terminating|crash"),
    "backend killed": Fault(backend_killed),
    "connections cut": Fault(cut),
    "cut before a commit": Fault(lambda at: cut_at(at, Cut.BEFORE_COMMIT)),
    "cut after a commit": Fault(lambda at: cut_at(at, Cut.AFTER_COMMIT)),
    "slow": Fault(slow, takes=True, noticed=False),
    "silent": Fault(silent, "has not answered for|timeout expired", takes=True),
    "unreachable": Fault(unreachable, "closed the connection", takes=True),
    "crowded": Fault(crowded, "too many clients"),
    "read-only": Fault(taking_no_writes, "takes no writes: .* name the one that takes them"),
    "disk full": Fault(full, "No space left on device.*make room there"),
}
FILE_FAULTS = {
    "locked": Fault(locked, "database is locked; another process writes to it"),
    "disk full": Fault(full, "disk is full; make room"),
    "unwritable": Fault(unwritable, "the file, its folder or its disk|disk I/O error"),
    "gone": Fault(gone, "is gone; put it back"),
    "read for long": Fault(read_for_long, takes=True, noticed=False),
}
# What takes more than its share of the ordinary run: `make faults` has it too.
SLOW = pytest.mark.slow
LONG = ("stopped at once", "backend killed", "cut before a commit", "slow")
Record = Callable[[str, object], None]


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in LONG else ()) for name in SERVER_FAULTS])
def test_a_fault_of_the_server_costs_no_attempt_and_passes_without_a_restart(
    on_server: ServerScene, name: str, record_property: Record
) -> None:
    live_through(on_server, SERVER_FAULTS[name], record_property)


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_a_fault_of_the_file_costs_no_attempt_and_passes_without_a_restart(
    on_file: FileScene, name: str, record_property: Record
) -> None:
    live_through(on_file, FILE_FAULTS[name], record_property)


@pytest.mark.slow
def test_a_standby_behind_the_only_address_takes_no_writes_until_it_takes_over(
    tmp_path: Path, record_property: Record
) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        leader = stack.enter_context(started(folder))
        standby = Standby(folder, leader)
        standby.follow()
        stack.callback(standby.close)
        proxy = stack.enter_context(Proxy(Path(leader.process.get_uri().partition("host=")[2])))
        both = PostgreSQL(f"{standby.url}&application_name=tests")
        story = stack.enter_context(ServerStory(tmp_path, both))
        story.set("database", url=f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/postgres")
        scene = ServerScene(story, leader, both.place, proxy, None)
        stack.enter_context(at_work(scene))
        fault = Fault(lambda at: on_a_standby(at, standby), "takes no writes", takes=True)
        live_through(scene, fault, record_property)


def live_through(scene: Scene, fault: Fault, record: Record) -> None:
    until(lambda: scene.ready()[0] == 200)
    sent, since = scene.posts(), len(scene.daemon.lines)
    keys = scene.hand_in(80)
    until(lambda: scene.posts() >= sent + 16)
    try:
        with fault.holding(scene):
            if fault.told:
                trouble = until(scene.trouble)
                until(lambda: re.search(fault.told, scene.trouble()), told=scene.trouble)
                assert str(scene.story.database) in trouble or "postgresql://" in trouble
                record("readyz", scene.trouble())
                assert scene.daemon.get("/healthz").status_code == 200
            if fault.takes:
                keys += scene.hand_in(10)
            settled = len(scene.told("attempt", since))
    except pytest.skip.Exception:
        # The next story begins where nothing waits.
        until(lambda: scene.receiver.booked().keys() >= set(keys), told=scene.last)
        raise
    ended = time.monotonic()
    until(lambda: len(scene.told("attempt", since)) > settled, told=scene.last)
    record("seconds", round(time.monotonic() - ended, 2))
    keys += scene.hand_in(10)
    until(lambda: len(scene.told("attempt", since)) >= len(keys), told=scene.last)
    until(lambda: scene.ready()[0] == 200)
    told_of(scene, fault, since, record)
    until(lambda: scene.receiver.booked().keys() >= set(keys), told=scene.last)
    booked = scene.receiver.booked()
    assert {booked[key] for key in keys} == {1}, "sent twice"
    assert scene.posts() - sent == len(keys)
    one_each = scene.story.query(
        "SELECT d.status, d.attempts, a.n, a.late, a.http_status, count(*) FROM deliveries d JOIN attempts a"
        f" ON a.delivery_id = d.id WHERE d.key >= '{keys[0]}' GROUP BY 1, 2, 3, 4, 5"
    )
    assert one_each == [("delivered", 1, 1, False, 200, len(keys))]
    until(lambda: scene.sessions() <= SESSIONS, told=scene.sessions)


def told_of(scene: Scene, fault: Fault, since: int, record: Record) -> None:
    """The log tells when it began, and when it was over; no more often than it happened."""
    # A thread that asks seldom finds out late.
    until(lambda: len(scene.told("store_unavailable", since)) == len(scene.told("store_back", since)), told=scene.last)
    began, over = scene.told("store_unavailable", since), scene.told("store_back", since)
    record("log", [one["error"] for one in began])
    record("away", [one["away_seconds"] for one in over])
    assert bool(began) == fault.noticed
    assert len(began) == len(over)
    assert len(began) <= 6
    assert "Traceback" not in scene.daemon.text()
    assert scene.told("claims_rescued", since) == []


# What is found at the start.


class Damaged(NamedTuple):
    """What is left of a file of so many bytes, in pages of so many; and what is said of it."""

    left: Callable[[int, int], int]
    told: str


DAMAGED = {
    "half": Damaged(lambda size, page: size // page // 2 * page, "is cut off: of {size} bytes it has {left}"),
    "within a page": Damaged(lambda size, page: size - page - page // 3, "is cut off: of {size} bytes it has {left}"),
    "its header": Damaged(lambda _size, _page: 100, "is cut off: of {size} bytes it has 100"),
    "a piece of its header": Damaged(lambda _size, _page: 50, "is cut off"),
    "nothing": Damaged(lambda _size, _page: 0, "is empty, and dispatcher.db-key beside it says that it was not always"),
}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        yield story


def command(story: Story, *words: str) -> tuple[int, str]:
    """A command in this process: its exit status, and all that it said."""
    done = CliRunner().invoke(main, story.line(*words)[3:])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("name", DAMAGED)
def test_a_copy_that_is_cut_off_is_refused_in_words_and_left_as_it_is(story: Story, name: str) -> None:
    events = story.file(orders(60))
    assert command(story, "enqueue", str(events))[0] == 0
    whole = story.database.read_bytes()
    ((page,),) = story.query("PRAGMA page_size")
    left = DAMAGED[name].left(len(whole), page)
    story.database.write_bytes(whole[:left])
    told = DAMAGED[name].told.format(size=len(whole), left=left)
    for status, *words in ((1, "log"), (1, "dead", "list"), (1, "enqueue", str(events)), (2, "check", "--no-network")):
        exit_code, said = command(story, *words)
        assert exit_code == status
        assert f"the database {story.database} {told}" in said
        assert "a backup" in said
    refused = story.call("run")
    assert (refused.status, refused.err.splitlines()[-1].startswith(f"Error: the database {story.database}")) == (
        1,
        True,
    )
    assert story.database.read_bytes() == whole[:left], "nothing was made of it"
    story.database.write_bytes(whole)
    assert len(story.query("SELECT id FROM deliveries")) == 60


def test_a_file_that_is_made_at_this_moment_and_one_that_was_deleted_are_begun_anew(story: Story) -> None:
    story.database.touch()
    events = story.file(orders(3))
    for _ in range(2):
        assert command(story, "enqueue", str(events)) == (0, "accepted 3, duplicate 0, conflict 0, invalid 0\n")
        story.database.unlink()


def test_a_file_that_another_process_makes_between_two_looks_is_not_taken_for_an_emptied_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, beside = tmp_path / "dispatcher.db", torn._beside
    file.touch(0o600)
    makers = []

    def meanwhile(path: Path) -> list[str]:
        monkeypatch.setattr(torn, "_beside", beside)
        makers.append(open_database(path))
        return beside(path)

    monkeypatch.setattr(torn, "_beside", meanwhile)
    database = open_database(file)
    assert file.with_name("dispatcher.db-wal").exists()
    for one in (database, *makers):
        one.close()


def test_a_lock_on_a_file_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dispatcher.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="database is locked; another process writes to it"):
            open_database(file, patience=0.05)
        lets_go = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: other.execute("ROLLBACK"))
        monkeypatch.setattr("dispatcher.store.databases.sqlite.time", lets_go)
        open_database(file, patience=60).close()


DIES = """
import os, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from dispatcher.store.engine import open_database
from dispatcher.store import acceptance, corridor
from tests.workshop import accept, event, kept_log, rows
acceptance.accept(open_database(Path(sys.argv[1])), [event(n) for n in range(50)], 1)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_in_the_log_is_read_with_and_without_its_index(tmp_path: Path) -> None:
    file = tmp_path / "dispatcher.db"
    assert nursery.run([sys.executable, "-c", DIES, str(file)]).returncode == -signal.SIGKILL
    assert file.with_name("dispatcher.db-wal").stat().st_size > file.stat().st_size
    (tmp_path / "without").mkdir()
    for name in ("dispatcher.db", "dispatcher.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "without" / name)
    for place in (file, tmp_path / "without" / "dispatcher.db"):
        database = open_database(place, create=False)
        assert len(rows(database)) == 50
        database.close()


def test_a_log_that_a_long_reader_let_grow_is_cut_back_when_it_has_gone(tmp_path: Path) -> None:
    database = open_database(tmp_path / "dispatcher.db")

    def write(megabytes: int) -> int:
        with database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE ballast SET bytes = randomblob({megabytes} << 20)")
        return (tmp_path / "dispatcher.db-wal").stat().st_size >> 20

    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE ballast AS SELECT 0 AS bytes")
    with closing(sqlite3.connect(tmp_path / "dispatcher.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM ballast").fetchall()
        assert [write(16) for _ in range(5)][-1] >= 80
    write(1)
    assert write(1) <= 64
    database.close()


def test_a_file_that_another_took_the_place_of_is_written_to_no_more(tmp_path: Path) -> None:
    file, other = tmp_path / "dispatcher.db", tmp_path / "other.db"
    for place in (file, other):
        open_database(place).close()
    database = open_database(file)
    aside = file.rename(tmp_path / "aside.db")
    other.rename(file)
    with pytest.raises(StoreUnavailable, match="is not the file that was opened, but another; put it back"):
        accept(database, 1)
    file.unlink()
    database.engine.dispose()
    with pytest.raises(StoreUnavailable, match="is gone; put it back"):
        accept(database, 1)
    assert not file.exists(), "none is made in its place"
    aside.rename(file)
    accept(database, 1)
    database.close()


# Parts.


def test_a_statement_that_needs_longer_than_it_was_given_gets_twice_as_long(postgresql: PostgreSQL) -> None:
    database = open_database(postgresql.place, silence=1.0)

    def sleep() -> None:
        with database.writing() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(1.3)")

    with pytest.raises(StoreUnavailable, match="the server has not answered for"):
        sleep()
    sleep()
    database.close()


def test_the_time_that_a_server_has_grows_with_each_cut_and_is_what_it_was_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = Limit(4)
    given = []
    for _ in range(8):
        given.append(limit())
        limit.cut()
    assert given == [4, 8, 16, 32, 64, 64, 64, 64]
    monkeypatch.setattr(silence, "REMEMBERED_SECONDS", 0)
    assert limit() == 4


def test_one_who_can_read_ends_no_outage_of_one_who_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    log, lines = kept_log()
    outage = Outage(log, lambda: 3)
    monkeypatch.setattr("dispatcher.dispatch.outage.SOON_SECONDS", 0)
    for fault in ("it closed", "too many", "too many", "too many"):
        outage.failed("writer", fault)
    outage.failed("reader", "too many")
    outage.passed("reader")
    faults = [outage.fault]
    for _ in range(2):
        outage.passed("writer")
        faults.append(outage.fault)
    assert faults == ["too many", None, None]
    told = [(line["event"], line.get("error"), line["held"]) for line in lines]
    away = "store_unavailable"
    assert told == [(away, "it closed", 3), (away, "too many", 3), ("store_back", None, 3)]


def test_a_command_says_in_one_line_that_the_server_is_away(story: Story) -> None:
    story.tables["database"] = {"url": f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:1/db"}
    story.write()
    for words in (("log",), ("show", "acme", "1"), ("dead", "list"), ("operators", "list"), ("db", "status")):
        status, said = command(story, *words)
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("Error: the database postgresql://postgres@127.0.0.1:1/db can't be used: ")
        assert "refused" in said
        assert PASSWORD not in said
