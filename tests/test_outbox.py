"""`from dispatcher import enqueue`: the spin and its callback commit together, or neither does."""

import asyncio
import re
import select
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dispatcher import enqueue, outbox
from dispatcher.config import load_config
from dispatcher.ground.errors import EventError, NotMade, Refused
from dispatcher.ground.place import Place, Server
from dispatcher.roster import open_vault, provision
from dispatcher.seal.vault import MasterKey, Vault
from dispatcher.store import ledger
from dispatcher.store.acceptance import Fate
from dispatcher.store.engine import open_database
from tests.ground import IV, KEY, NOW, notice, settle_event
from tests.stores import STORES, apart

pytestmark = pytest.mark.each_store

OPERATORS = f"""
[operators.acme]
notice_url = "https://acme.example/Demo/notice"
token = "the-token-of-acme"
crypto = {{ key = "{KEY}", iv = "{IV}" }}
"""


class Game:
    """A game's own database, with a table of its own, in which the dispatcher's tables stand as well."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.store = open_database(place)
        self.place = place
        self.config = folder / "config.toml"
        self.configure("")
        self.engine = create_engine(self.url())
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE spins (order_no VARCHAR PRIMARY KEY)"))

    def configure(self, more: str) -> None:
        url = self.place.url.reveal() if isinstance(self.place, Server) else f"sqlite:///{self.place}"
        self.config.write_text(f'[database]\nurl = "{url}"\n{OPERATORS}{more}')

    def url(self, driver: str = "") -> str:
        """As the game reaches it: its search path knows nothing of the dispatcher's schema."""
        if isinstance(self.place, Server):
            return re.sub(r"[&?]options=[^&]*", "", self.place.url.reveal())
        return f"sqlite{driver}:///{self.place}"

    def play(self, connection: Connection | Session, *keys: int, **changes: Any) -> list[Fate]:
        """One spin each, and what is to be told of it."""
        for key in keys:
            connection.execute(text("INSERT INTO spins VALUES (:key)"), {"key": str(key)})
        return self.tell(connection, *(notice(order_no=str(key), **changes) for key in keys))

    def tell(self, connection: Connection | Session, *events: dict[str, Any]) -> list[Fate]:
        return enqueue(connection, events, config=self.config)

    def spins(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.scalars(text("SELECT order_no FROM spins ORDER BY 1")))

    def told(self) -> list[str]:
        return sorted(row.key for row in ledger.find(self.store, ledger.Filter(), None))

    def close(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("DROP TABLE spins"))
        self.engine.dispose()
        self.store.close()


@pytest.fixture
def game(store: str, tmp_path: Path) -> Iterator[Game]:
    with apart(STORES.current, tmp_path, "callbacks") as place:
        opened = Game(tmp_path, place)
        yield opened
        for one in outbox._opened.values():
            one.close()
        outbox._opened.clear()
        opened.close()


@pytest.fixture(params=["connection", "session"])
def begun(request: pytest.FixtureRequest, game: Game) -> Any:
    """How a game begins a transaction."""
    return game.engine.connect if request.param == "connection" else lambda: Session(game.engine)


def test_a_spin_and_its_callback_are_committed_together(game: Game, begun: Any) -> None:
    with begun() as transaction:
        assert game.play(transaction, 1, 2) == [Fate.ACCEPTED, Fate.ACCEPTED]
        assert game.told() == []
        transaction.commit()
    assert game.spins() == game.told() == ["1", "2"]


def test_after_a_rollback_neither_was_ever_there(game: Game, begun: Any) -> None:
    with begun() as transaction:
        game.play(transaction, 1)
        transaction.rollback()
        game.play(transaction, 2)
        transaction.commit()
    assert game.spins() == game.told() == ["2"]


def test_nothing_is_committed_before_the_caller_does_even_where_the_callback_comes_first(
    game: Game, begun: Any
) -> None:
    with begun() as transaction:
        game.tell(transaction, notice(order_no="1"))
    assert game.told() == []


def test_a_savepoint_of_the_callers_that_is_rolled_back_takes_the_callback_with_it(game: Game, begun: Any) -> None:
    with begun() as transaction:
        game.play(transaction, 1)
        inner = transaction.begin_nested()
        game.play(transaction, 2)
        inner.rollback()
        transaction.commit()
    assert game.spins() == game.told() == ["1"]


def test_the_same_again_is_a_duplicate_and_no_second_delivery(game: Game, begun: Any) -> None:
    with begun() as transaction:
        game.play(transaction, 1)
        assert game.tell(transaction, notice(order_no="1"), notice(order_no="2")) == [Fate.DUPLICATE, Fate.ACCEPTED]
        transaction.commit()
    assert game.told() == ["1", "2"]


def test_other_content_under_a_known_key_is_refused_and_the_transaction_goes_on(game: Game, begun: Any) -> None:
    with begun() as transaction:
        game.play(transaction, 1)
        with pytest.raises(Refused, match=r"acme has notice 1 with other content already.*none of these events"):
            game.tell(transaction, notice(order_no="2"), notice(order_no="1", total_bet="11"))
        game.play(transaction, 3)
        transaction.commit()
    assert game.spins() == game.told() == ["1", "3"]


def test_every_fault_of_every_event_is_told_and_none_is_accepted(game: Game, begun: Any) -> None:
    faulty = [notice(), notice(order_no="2", total_bet=1.5, uid=""), settle_event(operator="acne")]
    with begun() as transaction:
        with pytest.raises(EventError) as caught:
            game.tell(transaction, *faulty)
        transaction.commit()
    assert [fault.where for fault in caught.value.faults] == [
        "events[1].uid",
        "events[1].total_bet",
        "events[2].operator",
    ]
    assert "is a float" in str(caught.value)
    assert game.told() == []


def test_amounts_keep_their_places_as_decimals_whole_numbers_or_text(game: Game, begun: Any) -> None:
    with begun() as transaction:
        game.tell(transaction, notice(total_bet=Decimal("10.50"), total_win=3, net_win="-7.5"))
        transaction.commit()
    (row,) = ledger.find(game.store, ledger.Filter(), None)
    assert '"total_bet":"10.50","total_win":"3","net_win":"-7.5"' in row.body


def test_the_callers_events_are_left_as_they_were(game: Game, begun: Any) -> None:
    given = notice()
    with begun() as transaction:
        game.tell(transaction, given)
    assert given == notice()


def test_no_events_are_no_work(game: Game, begun: Any) -> None:
    with begun() as transaction:
        assert game.tell(transaction) == []
        transaction.commit()


def test_with_the_commit_the_worker_is_woken(game: Game, begun: Any) -> None:
    bell = game.store.bell
    heard = bell.listen()
    assert heard is not None
    with begun() as transaction:
        game.play(transaction, 1)
        assert select.select([heard], [], [], 0.2)[0] == []
        transaction.commit()
        assert select.select([heard], [], [], 60)[0]
        bell.heard()
        game.play(transaction, 2)
        transaction.commit()
        assert select.select([heard], [], [], 60)[0]


def test_an_operator_that_is_set_meanwhile_is_known_to_the_next_call(game: Game, begun: Any) -> None:
    with begun() as transaction:
        game.play(transaction, 1)
        transaction.commit()
    game.configure(OPERATORS.replace("acme", "bolt"))
    config = load_config(game.config)
    provision(game.store, open_vault(config, game.store), config, NOW, actor="a person")
    with begun() as transaction:
        game.play(transaction, 2, operator="bolt")
        transaction.commit()
    assert game.told() == ["1", "2"]


def test_what_no_master_key_opens_is_not_taken_by_the_files_settings(game: Game, begun: Any) -> None:
    config = load_config(game.config)
    provision(game.store, Vault(MasterKey.fresh()), config, NOW, actor="tester")
    game.configure(f'[secrets]\nmaster_key = "{MasterKey.fresh().reveal()}"\n')
    with begun() as transaction, pytest.raises(EventError, match="'acme' can't be used: it is sealed under master key"):
        game.play(transaction, 1)


def test_a_connection_to_another_database_is_refused(game: Game, tmp_path: Path) -> None:
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with other.connect() as connection, pytest.raises(Refused, match="hand in a connection to the database"):
        game.tell(connection, notice())
    other.dispose()


def test_a_store_that_was_not_made_yet_is_refused_by_name(tmp_path: Path, game: Game, begun: Any) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    config = missing / "config.toml"
    config.write_text(f'[database]\nurl = "sqlite:///none.db"\n{OPERATORS}')
    with begun() as transaction, pytest.raises(NotMade, match="`dispatcher enqueue` or `dispatcher run` makes it"):
        enqueue(transaction, [notice()], config=config)


def test_the_environment_names_the_configuration(game: Game, begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_CONFIG", str(game.config))
    with begun() as transaction:
        enqueue(transaction, [notice()])
        transaction.commit()
    assert len(game.told()) == 1


def test_many_threads_hand_in_the_same_and_each_event_is_delivered_once(game: Game) -> None:
    fates: list[Fate] = []

    def hand_in() -> None:
        with game.engine.begin() as connection:
            fates.extend(game.tell(connection, *(notice(order_no=str(key)) for key in range(20))))

    threads = [threading.Thread(target=hand_in) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fates.count(Fate.ACCEPTED) == 20
    assert len(fates) == 80
    assert len(game.told()) == 20


def test_from_asyncio_it_goes_through_run_sync(game: Game) -> None:
    async def play() -> None:
        engine = create_async_engine(game.url("+aiosqlite"))
        async with AsyncSession(engine) as session:
            for key, end in (("1", session.commit), ("2", session.rollback)):
                await session.execute(text("INSERT INTO spins VALUES (:key)"), {"key": key})
                await session.run_sync(enqueue, [notice(order_no=key)], config=game.config)
                await end()
        await engine.dispose()

    asyncio.run(play())
    assert game.spins() == game.told() == ["1"]


def test_the_callers_search_path_is_as_it_was(game: Game, begun: Any, store: str) -> None:
    if store == "sqlite":
        pytest.skip("SQLite has no search path")
    with begun() as transaction:
        transaction.execute(text("SET LOCAL search_path = pg_catalog, public"))
        game.tell(transaction, notice())
        assert transaction.scalar(text("SHOW search_path")) == "pg_catalog, public"


def test_the_games_login_needs_no_more_than_the_documents_say(game: Game, store: str) -> None:
    if store == "sqlite":
        pytest.skip("SQLite has no logins")
    game.configure("[operators.bolt]\n" + OPERATORS.partition("\n[operators.acme]")[2] + 'ordering = { key = "uid" }\n')
    with game.store.reading() as connection:
        name = connection.scalar(text("SELECT current_schema()"))
    role = f"game_{name}"
    rights = ["ALL ON spins", f"USAGE ON SCHEMA {name}", f"USAGE ON SEQUENCE {name}.deliveries_id_seq"]
    rights += [f"SELECT, INSERT ON {name}.deliveries", f"SELECT ON {name}.operators", f"SELECT, UPDATE ON {name}.locks"]
    with game.engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        for right in rights:
            connection.execute(text(f"GRANT {right} TO {role}"))
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        game.play(connection, 1)
        game.play(connection, 2, operator="bolt")
        assert game.play(connection, 3, 4)
        assert game.tell(connection, notice(order_no="1")) == [Fate.DUPLICATE]
