"""What only a server can do: be of another version, be away, come back, be shared with others."""

import asyncio
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from dispatcher.ground.errors import NotMade, Refused, StoreUnavailable
from dispatcher.ground.place import Place, Server
from dispatcher.ground.secret import Secret
from dispatcher.store import acceptance, corridor, operators
from dispatcher.store.acceptance import Fate
from dispatcher.store.databases.postgresql import weather
from dispatcher.store.engine import Database, open_database
from tests.ground import NOW
from tests.stores import STORES, PostgreSQL, notary
from tests.story import ServerStory, moment, orders, until
from tests.workshop import Bench, accept, attempts_of, configuration, event, row, rows, settle, settled, take
from tests.workshop import until as soon

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("on_the_server")]


def cut_off() -> None:
    """The server ends every session that is at work there."""
    assert STORES.current is not None
    STORES.current.cut_off()


@contextmanager
def schema(postgresql: PostgreSQL, name: str) -> Iterator[Server]:
    """A schema of its own, and the place that it is."""
    door = open_database(postgresql.place)
    with door.writing() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    try:
        yield Server(Secret(f"{postgresql.url}&options=-csearch_path%3D{name}"), f"postgresql://{name}")
    finally:
        with door.writing() as connection:
            connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
        door.close()


# Opening.


def test_a_place_without_tables_is_made_only_where_that_is_asked_for(postgresql: PostgreSQL) -> None:
    with schema(postgresql, "fresh") as place:
        with pytest.raises(NotMade, match="holds no wallet-flow log yet"):
            open_database(place, create=False)
        open_database(place).close()
        open_database(place, create=False).close()


def test_processes_that_make_the_tables_at_once_all_find_them(postgresql: PostgreSQL) -> None:
    with schema(postgresql, "at_once") as place, ThreadPoolExecutor(4) as hands:
        for database in hands.map(open_database, [place] * 4):
            assert corridor.survey(database).earliest == {}
            database.close()


def test_another_programs_tables_are_refused_and_left_as_they_are(postgresql: PostgreSQL) -> None:
    with schema(postgresql, "theirs") as place:
        door = open_database(postgresql.place)
        with door.writing() as connection:
            connection.execute(text("CREATE TABLE theirs.operators (id integer)"))
        with pytest.raises(Refused, match="another program"):
            open_database(place)
        with door.reading() as connection:
            there = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'theirs'")).all()
        door.close()
        assert there == ["operators"]


def test_another_version_of_the_tables_is_refused(postgresql: PostgreSQL) -> None:
    with schema(postgresql, "newer") as place:
        database = open_database(place)
        with database.writing() as connection:
            connection.execute(text("UPDATE dispatcher_revision SET version_num = '9999'"))
        database.close()
        with pytest.raises(Refused, match=r"older than the store: .* has schema 9999"):
            open_database(place)


@pytest.mark.parametrize(
    "url",
    [
        "nobody:geheim@127.0.0.1:1/db?connect_timeout=2",
        "nobody:geheim@/absent?host=/nowhere",
        "nobody:geheim@127.0.0.1:1/db?nonsense=geheim",
    ],
)
def test_a_server_that_cannot_be_reached_is_told_without_the_password(url: str) -> None:
    place = Server(Secret(f"postgresql+psycopg://{url}"), "postgresql://nobody@there/db")
    with pytest.raises((StoreUnavailable, Refused), match="postgresql://nobody@there/db can't be") as error:
        open_database(place)
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"database": "no db"}, "create it: createdb 'no db'; or name another in database.url"),
        ({"username": "nobody-here"}, "create it: createuser nobody-here; or name another user in database.url"),
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "start the server, or mend host and port in database.url"),
        ({"query": {"host": "/nowhere"}}, "start the server, or mend host and port in database.url"),
    ],
)
def test_a_connection_that_does_not_come_about_is_told_with_what_mends_it(
    postgresql: PostgreSQL, changes: dict[str, Any], mend: str
) -> None:
    url = make_url(postgresql.url).set(**changes).render_as_string(hide_password=False)
    with pytest.raises(StoreUnavailable) as error:
        open_database(Server(Secret(url), "postgresql://there"))
    assert str(error.value).endswith(f"; {mend}")


def test_a_password_that_the_server_does_not_take_is_to_be_mended_and_a_busy_server_waited_for() -> None:
    """As libpq says it: the tests' own server asks for none."""
    said = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  '
    for why, mend in {
        'password authentication failed for user "us"': "mend the user or the password in database.url, or in"
        " ~/.pgpass",
        "the database system is starting up": "try again, and where that lasts look into the server's log",
    }.items():
        told = weather(OperationalError("", {}, psycopg.OperationalError(said + why)))
        assert str(told).endswith(f"{why}; {mend}")


# Weather.


def test_a_session_that_was_ended_is_weather_and_the_next_one_works() -> None:
    database = STORES.open(Path())
    accept(database, 1)
    (claim,) = take(database)
    cut_off()
    with pytest.raises(StoreUnavailable, match="can't be used"):
        settle(database, settled(claim, NOW))
    assert settle(database, settled(claim, NOW)) == []
    assert (row(database).status, len(attempts_of(database))) == ("delivered", 1)
    database.close()


def test_a_session_that_ends_at_the_commit_is_weather_too(monkeypatch: pytest.MonkeyPatch) -> None:
    database = STORES.open(Path())
    accept(database, 1)
    claim = corridor._claim

    def last(connection: Connection, *arguments: Any) -> Any:
        claims = claim(connection, *arguments)
        cut_off()
        return claims

    monkeypatch.setattr(corridor, "_claim", last)
    with pytest.raises(StoreUnavailable):
        take(database)
    monkeypatch.setattr(corridor, "_claim", claim)
    assert [one.key for one in take(database)] == ["1"]
    assert row(database).attempts == 1
    database.close()


def change(database: Database, setting: str) -> None:
    with database.writing() as connection:
        connection.execute(text(f"SET LOCAL {setting}"))
        connection.execute(text("INSERT INTO key_versions VALUES ('acme', 1, 'ab12', 1)"))


@pytest.mark.parametrize(
    ("setting", "told"),
    [("lock_timeout = 1", "lock timeout"), ("transaction_read_only = on", "read-only transaction")],
)
def test_a_server_that_takes_nothing_at_the_moment_is_weather(setting: str, told: str) -> None:
    database, other = STORES.open(Path()), STORES.open(Path())
    with other.writing() as connection:
        if "lock" in setting:
            connection.execute(text("LOCK TABLE key_versions"))
        with pytest.raises(StoreUnavailable, match=told):
            change(database, setting)
    database.close()
    other.close()


def test_a_statement_of_ours_that_is_wrong_is_no_weather() -> None:
    database = STORES.open(Path())
    with pytest.raises(Exception, match="nowhere") as error, database.reading() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    assert not isinstance(error.value, StoreUnavailable)
    database.close()


# Beside others.


def many(place: Place, work: Any, hands: int = 4) -> list[Any]:
    """What some threads, each with a store of its own, make of it at once."""

    def one(hand: int) -> Any:
        database = open_database(place)
        try:
            return work(database, hand)
        finally:
            database.close()

    with ThreadPoolExecutor(hands) as pool:
        return list(pool.map(one, range(hands)))


def test_processes_that_hand_in_the_same_events_accept_each_once(postgresql: PostgreSQL) -> None:
    events = [event(key) for key in range(300)]

    def hand_in(database: Database, hand: int) -> list[Fate]:
        return acceptance.accept(database, events[::-1] if hand % 2 else events, NOW)

    fates = [fate for some in many(postgresql.place, hand_in) for fate in some]
    assert (fates.count(Fate.ACCEPTED), fates.count(Fate.DUPLICATE)) == (300, 900)


def test_of_two_contents_handed_in_at_once_one_is_a_conflict(postgresql: PostgreSQL) -> None:
    def hand_in(database: Database, hand: int) -> list[Fate]:
        return acceptance.accept(database, [event(key, total_bet=str(hand)) for key in range(100)], NOW)

    fates = [fate for some in many(postgresql.place, hand_in) for fate in some]
    assert (fates.count(Fate.ACCEPTED), fates.count(Fate.CONFLICT)) == (100, 300)


def test_a_line_that_some_join_while_others_leave_it_parks_nobody_for_ever(postgresql: PostgreSQL) -> None:
    def work(database: Database, hand: int) -> None:
        if hand == 0:
            for _ in range(60):
                settle(database, *(settled(claim, NOW) for claim in take(database)))
            return
        for key in range(20):
            acceptance.accept(database, [event(f"{hand}-{key}")._replace(sequence="p1")], NOW)

    many(postgresql.place, work)
    database = STORES.open(Path())
    while claims := take(database):
        assert len(claims) == 1
        settle(database, settled(claims[0], NOW))
    assert {one.status for one in rows(database)} == {"delivered"}
    assert len(rows(database)) == 60
    database.close()


def test_no_two_changes_of_operators_share_a_revision(postgresql: PostgreSQL) -> None:
    def declare(database: Database, hand: int) -> None:
        database.notary = notary()
        for number in range(10):
            made = operators.Declared(f"op{hand}-{number}", "LOCKED", None)
            operators.declare(database, [made], [], "command", ("set", "tester"), NOW)

    many(postgresql.place, declare)
    database = STORES.open(Path())
    revisions = [one.revision for one in operators.standings(database)]
    assert sorted(revisions) == list(range(1, 41))
    database.close()


# The bell.


async def test_a_bell_that_is_lost_is_listened_for_again_and_heard_as_before(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        working = asyncio.create_task(at.daemon.run())
        await soon(lambda: bool(at.told("running")))
        cut_off()
        await soon(lambda: bool(at.told("listening")))
        assert at.told("bell_lost")
        other = STORES.open(tmp_path)
        acceptance.accept(other, [event(1)], NOW)
        other.ring()
        await soon(lambda: at.sent == 1)
        other.close()
        at.dispatch.stop()
        await working


async def test_whoever_is_named_on_the_bell_is_served_without_a_look_at_all_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.rounds.LOOK_SECONDS", 3_600)
    async with Bench(configuration(tmp_path)) as at:
        at.acme.respond(200)
        looks: list[int] = []
        # From the start on it looks no more, whoever asks it to.
        at.dispatch.look = lambda: looks.append(at.sent)
        working = asyncio.create_task(at.daemon.run())
        await soon(lambda: bool(at.told("running")))
        acceptance.accept(at.database, [event(1)], NOW)
        at.database.ring(["acme"])
        await soon(lambda: at.sent == 1)
        for operators in ([], ["acme"] * 2_000):
            looks.clear()
            at.database.ring(operators)
            await soon(lambda: bool(looks))
        at.dispatch.stop()
        await working


# Whole stories.


@pytest.fixture
def story(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[ServerStory]:
    with ServerStory(tmp_path, postgresql) as story:
        yield story


def test_every_command_works_with_a_server(story: ServerStory) -> None:
    events = orders(20)
    with story.receiving() as receiver, story.running():
        assert story.call("check", "--no-network").status == 0
        story.enqueue(events)
        until(lambda: story.all_are("delivered"))
        assert receiver.booked() == {one["order_no"]: 1 for one in events}
    assert len(story.call("log", "--json").rows()) == 20
    assert story.show(events[0]["order_no"])["status"] == "delivered"
    assert story.call("dead", "list", "--json").status == 0
    assert (story.folder / "dispatcher.key").exists()
    assert story.call("reencrypt").status == 0
    assert not list(story.folder.glob("dispatcher.db*"))


def test_check_tells_that_the_server_is_away_without_the_password(story: ServerStory) -> None:
    story.set("database", url="postgresql+psycopg://nobody:geheim@127.0.0.1:1/db")
    for command in (("check", "--no-network"), ("enqueue", "-"), ("run",)):
        done = story.call(*command)
        assert done.status in (1, 2)
        assert "postgresql://nobody@127.0.0.1:1/db" in done.out + done.err
        assert "geheim" not in done.out + done.err


def test_an_idle_daemon_hears_of_new_work_on_a_server_at_once(story: ServerStory) -> None:
    waits = []
    with story.receiving(), story.running():
        for one in orders(3):
            story.enqueue([one])
            until(lambda: story.all_are("delivered"))
            shown = story.show(one["order_no"])
            waits.append(moment(shown["attempts"][0]["started_at"]) - moment(shown["accepted_at"]))
    # It looks by itself every five seconds only.
    assert statistics.median(waits) < 1, waits
