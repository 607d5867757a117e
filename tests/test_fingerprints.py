"""A key's fingerprint counts its versions, and is of no use to whoever guesses keys."""

from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, text

from dispatcher.config import load_config
from dispatcher.roster import provision, relock
from dispatcher.seal.vault import MasterKey, Vault
from dispatcher.store.engine import Database
from dispatcher.store.fingerprints import hide_plain, key_history
from dispatcher.store.notary import Notary
from dispatcher.store.operators import standings
from dispatcher.store.schema import key_versions
from tests.ground import NOW
from tests.stores import STORES, apart, open_store
from tests.workshop import Bench, configuration

pytestmark = [pytest.mark.each_store]


VAULT = Vault(MasterKey.fresh())


def declare(database: Database, path: Path, vault: Vault = VAULT, *, lost_key: bool = False) -> list[str]:
    """As `operators apply` does it; all of acme's fingerprints then."""
    database.notary = Notary(vault.lock, vault.unlock)
    provision(database, vault, load_config(path), NOW, actor="ada", lost_key=lost_key)
    return [one["fingerprint"] for one in key_history(database, "acme")]


def plain(path: Path) -> str:
    """What whoever guesses acme's key and IV makes of a right guess."""
    reading = load_config(path).operators["acme"].reading
    assert reading is not None
    return reading.fingerprint


def older(database: Database, path: Path) -> None:
    """Puts in the place of what is stored what an older dispatcher stored."""
    with database.writing() as connection:
        connection.execute(text("UPDATE key_versions SET fingerprint = :plain"), {"plain": plain(path)})


def version(database: Database) -> int | None:
    return next(one.key_version for one in standings(database) if one.name == "acme")


def test_no_guess_of_a_key_can_be_tried_against_what_is_stored(database: Database, tmp_path: Path) -> None:
    path = configuration(tmp_path, "acme", "bolt")
    (stored,) = declare(database, path)
    with database.reading() as connection:
        for name in inspect(connection).get_table_names():
            rows = connection.execute(text(f"SELECT * FROM {name}")).all()
            assert plain(path) not in str(rows), name
        its = {one.fingerprint for one in connection.execute(text("SELECT fingerprint FROM key_versions"))}
    assert len(its) == 2, "nor can two operators be told to have one key"
    with apart(STORES.current, tmp_path, "other") as place:
        other = open_store(place)
        assert declare(other, path) != [stored], "it hangs on the store's own key"
        other.close()


@pytest.mark.anyio
async def test_with_the_next_start_what_an_older_dispatcher_stored_is_plain_no_more(tmp_path: Path) -> None:
    async with Bench(configuration(tmp_path)) as at:
        (stored,) = [one["fingerprint"] for one in key_history(at.database, "acme")]
        older(at.database, at.path)
        with at.database.writing() as connection:
            before = {"operator": "gone", "version": 3, "fingerprint": "0123456789abcdef", "since": NOW}
            connection.execute(insert(key_versions), before)
        await at.restart()
        assert [one["fingerprint"] for one in key_history(at.database, "acme")] == [stored]
        (gone,) = key_history(at.database, "gone")
        assert (gone["version"], gone["since"]) == (3, NOW)
        assert gone["fingerprint"].startswith("1.")
        assert "0123456789abcdef" not in gone["fingerprint"]
        assert (version(at.database), hide_plain(at.database, NOW)) == (1, 0)


def test_the_same_key_keeps_its_version_over_an_upgrade(database: Database, tmp_path: Path) -> None:
    path = configuration(tmp_path)
    declare(database, path)
    older(database, path)
    configuration(tmp_path, concurrency="7")
    assert (len(declare(database, path)), version(database)) == (1, 1)
    configuration(tmp_path, key="fedcba9876543210")
    assert (len(declare(database, path)), version(database)) == (2, 2)


def test_under_another_master_key_the_same_key_keeps_its_version(database: Database, tmp_path: Path) -> None:
    path = configuration(tmp_path)
    old, new = MasterKey.fresh(), MasterKey.fresh()
    before = declare(database, path, Vault(old))
    relock(database, Vault(new, old), "ada", NOW)
    configuration(tmp_path, concurrency="7")
    assert (declare(database, path, Vault(new)), version(database)) == (before, 1)


def test_with_the_journals_key_lost_nobody_can_tell_and_it_is_the_next_version(
    database: Database, tmp_path: Path
) -> None:
    path = configuration(tmp_path)
    (before,) = declare(database, path)
    first, second = declare(database, path, Vault(MasterKey.fresh()), lost_key=True)
    assert (first, second[:2], version(database)) == (before, "2.", 2)
    with database.reading() as connection:
        verbs = list(connection.scalars(text("SELECT verb FROM journal ORDER BY n")))
    assert verbs == ["set", "new_key", "set"], "and the journal says so"
