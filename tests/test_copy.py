"""A store that moves: every row arrives, whatever interrupts it, and at no moment are both sides in use."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import select, text

from dispatcher.ground.account import Account, Role
from dispatcher.ground.apikey import ApiKey, Scope
from dispatcher.ground.clock import MINUTE
from dispatcher.ground.errors import Refused
from dispatcher.ground.place import Place, Server
from dispatcher.ground.policy import Reason
from dispatcher.store import ledger, operators, replays, workers
from dispatcher.store.acceptance import Fate
from dispatcher.store.accounts import create_account
from dispatcher.store.engine import open_database
from dispatcher.store.keys import create_key
from dispatcher.store.moving import copy as procedure
from dispatcher.store.moving import quiet, transfer
from dispatcher.store.moving.copy import Copied, Different, abandon, copy, open_side
from dispatcher.store.moving.mark import passing
from dispatcher.store.moving.tally import by_table
from dispatcher.store.operators import Declared, declare
from dispatcher.store.schema import deliveries, metadata
from tests import nursery
from tests.desk import Desk
from tests.ground import NOW
from tests.stores import PostgreSQL, apart, open_store
from tests.story import orders, until
from tests.workshop import accept, failed, row, settle, settled, take

_AT = {name: position for position, name in enumerate(deliveries.c.keys())}


class Sides(NamedTuple):
    """From where to where."""

    source: Place
    target: Place


@pytest.fixture(params=["sqlite to postgresql", "postgresql to sqlite"])
def sides(request: pytest.FixtureRequest, postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Sides]:
    with apart(postgresql, tmp_path, "server") as server, apart(None, tmp_path, "file") as file:
        yield Sides(file, server) if request.param.startswith("sqlite") else Sides(server, file)


@pytest.fixture
def files(tmp_path: Path) -> Sides:
    return Sides(tmp_path / "one.db", tmp_path / "other.db")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAGE", 7)
    monkeypatch.setattr(procedure, "PAGE", 7)


def varied(place: Place) -> None:
    """A store with something of everything: each status, lines, late attempts, acts, two keys, a held operator."""
    database = open_store(place)
    for settings, fingerprint in (("k1.settings", "ab12"), ("k2.settings", "cd34")):
        declare(database, [Declared("acme", settings, fingerprint)], [], "file", ("set", "me"), NOW)
    declare(database, [Declared("bolt", "k1.bolt", None)], [], "command", ("set", "运营"), NOW)
    operators.stop(database, "bolt", "paused_at", ("pause", "me", "维护"), NOW)
    accept(database, *range(1, 31), business="Spin投入 ‰")
    accept(database, *range(31, 36), operator="bolt")
    with database.writing() as connection:
        # What is in a line, and a token.
        d = deliveries.c
        connection.execute(deliveries.update().where(d.key.in_(["28", "29", "30"])).values(sequence="p", in_line=True))
        connection.execute(deliveries.update().where(d.key.in_(["29", "30"])).values(parked=True, bearer="k1.locked"))
    claims = take(database, most=12)
    settle(database, *(settled(claim, NOW, body='{"余额":"1.50"}'.encode()) for claim in claims[:5]))
    dead = claims[5:8]
    for delay in (0, 1, 31, 81):
        settle(database, *(failed(claim, NOW + delay * MINUTE, Reason.READ_TIMEOUT) for claim in dead))
        late = dead[0]
        dead = [one for one in take(database, NOW + 500 * MINUTE, most=100) if one.key in {one.key for one in dead}]
        settle(database, settled(late, NOW + delay * MINUTE))
    gone = [one for one in ledger.find(database, ledger.Filter(status=None), None) if one.status == "dead"]
    if gone:
        ledger.resolve(database, gone[:1], "me", "通过电话", NOW)
        ledger.replay(database, gone[1:2], "me", NOW)
        replays.make(database, replays.Which(since=0), 7, "me", "商户恢复", NOW + 501 * MINUTE)
    create_key(database, ApiKey("0123456789ab", "game-server", bytes(32), frozenset(Scope), "acme", 7, NOW), "me")
    create_account(database, Account("li.wei", Role.OPERATOR, "acme", "as scrypt made it", NOW, NOW), "me")
    with database.writing() as connection:
        # Who worked here is gone, and nobody has said so.
        assert connection.execute(text("UPDATE workers SET seen_at = 1")).rowcount == 1
    database.close()


def content(place: Place) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as values."""
    database = open_side(place, create=False)
    with database.reading() as connection:
        rows = {
            name: sorted(map(tuple, connection.execute(select(*table.c))), key=repr)
            for name, table in metadata.tables.items()
            if name not in ("workers", "locks", "sessions", "minutes", "tails", "feed")
        }
    database.close()
    return rows


def nothing(_done: int, _all: int) -> None:
    """Nobody looks on."""


def moved(sides: Sides, tell: Callable[[int, int], None] = nothing) -> Copied:
    source, target = open_side(sides.source, create=False), open_side(sides.target, create=True)
    try:
        return copy(source, target, NOW, tell)
    finally:
        source.close()
        target.close()


# Every row.


def test_a_copy_has_every_row_as_it_was_and_goes_on_from_there(sides: Sides) -> None:
    varied(sides.source)
    before = content(sides.source)
    statuses = {one[_AT["status"]] for one in before["deliveries"]}
    assert statuses == {"pending", "sending", "delivered", "dead", "resolved"}
    assert all(before.values())
    heard: list[tuple[int, int]] = []
    done = moved(sides, lambda *told: heard.append(told))
    assert content(sides.target) == before
    assert by_table(done.counted) == {name: len(rows) for name, rows in before.items()}
    assert [one for one, _ in heard] == sorted(one for one, _ in heard)
    assert heard[-1][0] == heard[-1][1] == sum(len(before[name]) for name in ("deliveries", "attempts", "journal"))
    database = open_store(sides.target)
    assert accept(database, 99) == [Fate.ACCEPTED]
    assert accept(database, 1, business="Spin投入 ‰") == [Fate.DUPLICATE]
    assert row(database, 99).id == max(one[_AT["id"]] for one in before["deliveries"]) + 1
    operators.start(database, "bolt", "paused_at", ("resume", "me", None), NOW)
    database.close()
    with pytest.raises(Refused, match="has moved to"):
        open_store(sides.source)


def test_what_is_handed_in_or_declared_while_it_is_copied_arrives(sides: Sides) -> None:
    varied(sides.source)
    door = open_store(sides.source)
    handed: list[int] = []

    def hand_in(_done: int, _all: int) -> None:
        if len(handed) == 8:
            # The last rows go over while everybody else has to wait.
            return
        handed.append(100 + len(handed))
        assert accept(door, handed[-1]) == [Fate.ACCEPTED]
        declare(door, [Declared("coin", f"k1.{handed[-1]}", None)], [], "file", ("set", "me"), NOW)

    moved(sides, hand_in)
    after = content(sides.source)
    assert len(handed) == 8
    assert {one[_AT["key"]] for one in after["deliveries"]} >= {str(key) for key in handed}
    assert content(sides.target) == after
    with pytest.raises(Refused, match="has moved to"):
        accept(door, 500)
    door.close()


# Killed at any moment.

KILLED = """
import os, signal, sys
from pathlib import Path
from dispatcher.ground.place import Server
from dispatcher.ground.secret import Secret
from dispatcher.store.moving import copy, transfer
places = [Server(Secret(one), shown) if one != shown else Path(one) for one, shown in map(str.split, sys.argv[3:])]
transfer.PAGE = copy.PAGE = 7
step, count = getattr(copy, sys.argv[1]), int(sys.argv[2])

def dies(*arguments):
    global count
    given = step(*arguments)
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return given

setattr(copy, sys.argv[1], dies)
source, target = copy.open_side(places[0], create=False), copy.open_side(places[1], create=True)
copy.copy(source, target, 1, lambda *_: None)
"""


def killed(sides: Sides, step: str, count: int) -> None:
    """A process that copies, and is killed behind this step, before the transaction around it is committed."""
    addresses = [f"{one.url.reveal() if isinstance(one, Server) else one} {one}" for one in sides]
    line = [sys.executable, "-c", KILLED, step, str(count), *addresses]
    done = nursery.run(line)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    for one in sides:
        if isinstance(one, Server):
            until(partial(_is_left, one))


def _is_left(place: Server) -> bool:
    """Whether the server has seen that whoever was killed is gone: until then it holds what that one held."""
    with psycopg.connect(place.url.reveal().replace("+psycopg", "")) as session:
        busy = "datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
        return session.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {busy}").fetchone() == (0,)


def runs(place: Place) -> bool:
    """Whether a worker could begin here."""
    try:
        database = open_database(place, create=False)
    except Refused:
        return False
    try:
        database.occupy()
        workers.enter(database)
        workers.leave(database)
    except Refused:
        return False
    finally:
        database.close()
    return True


def test_a_copy_that_is_killed_again_and_again_doubles_nothing_and_never_leaves_two_in_use(sides: Sides) -> None:
    varied(sides.source)
    before = content(sides.source)
    # Where it is killed: the mark of the target, that of the source, pages, the last rows, the source's new mark, and
    # the end of the target's; whether a worker could run on the source then, and on the target.
    steps = [("set_mark", 1, True, True), ("set_mark", 2, True, False), ("put", 2, False, False)]
    steps += [("count_on", 1, False, False), ("set_mark", 1, False, False)]
    for step, count, source, target in [*steps, ("clear_mark", 1, False, False)]:
        killed(sides, step, count)
        assert (runs(sides.source), runs(sides.target)) == (source, target), step
    assert not moved(sides).already
    assert content(sides.target) == before
    assert (runs(sides.source), runs(sides.target)) == (False, True)
    assert moved(sides).already


def test_what_a_transaction_hands_in_while_the_copy_begins_arrives(postgresql: PostgreSQL, tmp_path: Path) -> None:
    with apart(postgresql, tmp_path, "server") as place, ThreadPoolExecutor(1) as hand:
        varied(place)
        door = open_store(place)
        with door.writing() as connection:
            fresh = connection.execute(select(deliveries).where(deliveries.c.key == "27")).mappings().one()
            connection.execute(deliveries.insert().values({**fresh, "id": 1_000, "key": "late"}))
            copying = hand.submit(moved, Sides(place, tmp_path / "file.db"))
            waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'deliveries'::regclass")
            until(lambda: connection.scalar(waits))
        door.close()
        copying.result()
        assert "late" in {one[_AT["key"]] for one in content(tmp_path / "file.db")["deliveries"]}


# Nobody else.


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(Refused) as error:
        act()
    return str(error.value)


def test_while_it_is_copied_the_source_takes_new_events_alone_and_the_target_nothing(sides: Sides) -> None:
    varied(sides.source)
    open_store(sides.target).close()
    source, target = open_store(sides.source), open_store(sides.target)
    (dead,) = [one for one in ledger.find(source, ledger.Filter(), None) if one.status == "dead"]
    told: list[str] = []

    def meanwhile(_done: int, _all: int) -> None:
        if not told:
            # By whoever opened them before, as by whoever comes now.
            told.append(refused(lambda: ledger.resolve(source, [dead], "me", "note", NOW)))
            told.append(refused(lambda: take(source)))
            later = open_store(sides.source)
            told.append(refused(later.occupy))
            told.append(refused(lambda: workers.enter(source)))
            later.close()
            assert all("is being copied to" in one and "takes new events and nothing else" in one for one in told)
            there = [lambda: accept(target, 1), lambda: open_store(sides.target)]
            assert all("not complete" in refused(one) for one in there)
            second = refused(lambda: moved(sides))
            assert "another `dispatcher db` command is at work" in second or "already runs a worker" in second

    moved(sides, meanwhile)
    assert told
    assert "has moved to" in refused(lambda: accept(source, 200))
    assert "has moved to" in refused(lambda: operators.stop(source, "acme", "paused_at", ("pause", "me", None), NOW))
    assert accept(target, 200) == [Fate.ACCEPTED]
    source.close()
    target.close()


def test_a_copy_is_refused_while_a_worker_runs_on_either_side(sides: Sides) -> None:
    varied(sides.source)
    for place in sides:
        database = open_store(place)
        database.occupy()
        workers.enter(database)
        assert f"process {os.getpid()}" in refused(lambda: moved(sides))
        workers.leave(database)
        database.close()
        assert (runs(sides.source), runs(sides.target)) == (True, True)
    moved(sides)


def test_of_two_copies_on_one_server_the_second_is_refused(postgresql: PostgreSQL, tmp_path: Path) -> None:
    with apart(postgresql, tmp_path, "server") as place:
        one, other = open_store(place), open_store(place)
        with quiet.moving(one):
            assert "another `dispatcher db` command is at work" in refused(quiet.moving(other).__enter__)
        with quiet.moving(other):
            pass
        one.close()
        other.close()


def test_a_worker_that_begins_between_the_look_and_the_mark_is_seen(
    postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with apart(postgresql, tmp_path, "server") as place:
        database = open_store(place)
        workers.enter(database)
        monkeypatch.setattr(quiet, "at_work", lambda _database: [])
        for sides in (Sides(place, tmp_path / "file.db"), Sides(tmp_path / "other.db", place)):
            open_store(sides.source).close()
            assert "is worked on" in refused(partial(moved, sides))
            assert runs(place)
        database.close()


def test_a_target_that_holds_something_and_a_store_itself_are_refused_as_they_are(sides: Sides) -> None:
    varied(sides.source)
    assert "are one database" in refused(lambda: moved(Sides(sides.source, sides.source)))
    database = open_store(sides.target)
    accept(database, 1)
    database.close()
    assert "has rows in deliveries; a copy goes into an empty database" in refused(lambda: moved(sides))
    assert (runs(sides.source), runs(sides.target)) == (True, True)


def test_a_copy_that_was_begun_goes_nowhere_else_and_can_be_given_up(sides: Sides, tmp_path: Path) -> None:
    varied(sides.source)
    before = content(sides.source)
    killed(sides, "put", 3)
    other = Sides(sides.source, tmp_path / "other.db")
    assert "go on with `dispatcher db copy`" in refused(lambda: moved(other))
    source = open_side(sides.source, create=False)
    abandon(source)
    assert "is not being copied" in refused(lambda: abandon(source))
    source.close()
    assert (runs(sides.source), runs(sides.target)) == (True, False)
    assert "not complete" in refused(lambda: moved(sides))
    moved(other)
    assert content(other.target) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM attempts WHERE delivery_id = 1", r"attempts: \d+ in the source, \d+ in the target"),
        ("UPDATE deliveries SET attempts = 9 WHERE id = 2", r"deliveries acme delivered attempts: \d+ in the source"),
        ("UPDATE deliveries SET operator = 'bolt' WHERE id = 3", r"deliveries acme delivered: 5 in the source, 4 in"),
    ],
)
def test_a_count_that_differs_is_told_and_nothing_moves(files: Sides, change: str, told: str) -> None:
    varied(files.source)
    killed(files, "count_on", 1)
    target = open_side(files.target, create=False)
    with target.writing() as connection, passing(connection):
        connection.execute(text(change))
    target.close()
    with pytest.raises(Different, match=told):
        moved(files)
    assert (runs(files.source), runs(files.target)) == (False, False)


# The command.


def test_the_command_moves_a_store_and_says_how_to_go_on(tmp_path: Path, postgresql: PostgreSQL) -> None:
    with Desk(tmp_path) as desk, apart(postgresql, tmp_path, "server") as place:
        assert isinstance(place, Server)
        desk.enqueue(orders(20))
        url = place.url.reveal().replace("postgres@", "postgres:geheim@")
        status, out, err = desk.call("db", "copy", "--to-env", "NEW_STORE", env={"NEW_STORE": url})
        assert (status, err) == (0, "")
        assert "deliveries: 20\n" in out
        assert "  acme pending: 20, 0 attempts\n" in out
        assert "name it in database.url" in out
        assert f"The master key stays in {desk.database}-key: " in out
        assert "geheim" not in out
        status, _, err = desk.call("enqueue", desk.file(orders(1)))
        assert status == 1
        assert f"the database {desk.database} has moved to postgresql://postgres@/postgres; name that one" in err
        status, out, _ = desk.call("db", "copy", "--json", "--to-env", "NEW_STORE", env={"NEW_STORE": url})
        told = json.loads(out)
        assert (status, told["complete"], told["already"], told["rows"]["deliveries"]) == (0, True, True, 20)
        assert told["deliveries"] == [{"operator": "acme", "status": "pending", "rows": 20, "attempts": 0}]
        assert "has moved to" in json.loads(desk.call("db", "status", "--json")[1])["state"]
        # The new configuration, with the master key that it was locked under.
        Path(f"{desk.database}-key").rename(desk.folder / "dispatcher.key")
        desk.tables["database"] = {"url": place.url.reveal()}
        desk.write()
        assert len(desk.call("log", "--json")[1].splitlines()) == 20
        assert desk.call("operators", "show", "acme")[0] == 0


def test_a_copy_that_is_refused_makes_no_target(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        desk.enqueue(orders(1))
        worked_on, target = open_side(desk.database, create=False), tmp_path / "target.db"
        with closing(worked_on), quiet.quiet(worked_on):
            done = desk.call("db", "copy", "--to", f"sqlite:///{target}")
        assert done.status == 1
        assert "already runs a worker" in done.err
        assert not target.exists()


def test_the_command_goes_by_another_configuration_and_gives_up_what_was_begun(tmp_path: Path, files: Sides) -> None:
    with Desk(tmp_path) as desk:
        desk.enqueue(orders(20))
        desk.tables["database"] = {"url": f"sqlite:///{files.target}"}
        new = desk.write(tmp_path / "new.toml")
        del desk.tables["database"]
        desk.write()
        killed(Sides(desk.database, files.target), "put", 2)
        assert "is being copied to" in desk.call("run")[2]
        assert desk.call("enqueue", desk.file(orders(1, start=100)))[0] == 0
        status, out, _ = desk.call("db", "copy", "--abandon", "--json")
        assert (status, json.loads(out)["abandoned"]) == (0, True)
        (tmp_path / "other.db").unlink()
        status, out, _ = desk.call("db", "copy", "--to-config", new, "--json")
        assert (status, json.loads(out)["rows"]["deliveries"]) == (0, 21)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give one of --to, --to-env and --to-config, or --abandon alone"),
        (["--to", "sqlite:///x.db", "--abandon"], "or --abandon alone"),
        (["--to-env", "ABSENT"], "--to-env: that variable is not set"),
        (["--to", "mysql://me:geheim@there/db"], "--to: it is not the address of a database"),
    ],
)
def test_a_command_that_does_not_say_where_to_is_wrong_use(tmp_path: Path, words: list[str], told: str) -> None:
    with Desk(tmp_path) as desk:
        desk.enqueue(orders(1))
        status, _, err = desk.call("db", "copy", *words)
        assert (status, "geheim" in err) == (2, False)
        assert told in err
