"""The operators in force: what the file declares and what people set, locked in the database and read from there."""

import base64
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from dispatcher import roster
from dispatcher.config import Config, draft_operator, load_config
from dispatcher.ground.clock import HOUR, MINUTE
from dispatcher.ground.errors import ConfigError, Refused
from dispatcher.ground.events import whose_token
from dispatcher.roster import anything_locked, key_file, load, open_vault, provision, put, relock
from dispatcher.seal.vault import MasterKey, Vault, VaultError
from dispatcher.store import acceptance
from dispatcher.store import operators as store
from dispatcher.store.engine import Database, open_database
from dispatcher.store.fingerprints import key_history
from dispatcher.store.schema import deliveries, journal, operators
from tests.authority import Authority
from tests.ground import IV, KEY, NOW, line, notice, parse_event
from tests.stores import STORES
from tests.workshop import Bench, Gate, accept, opened, rows

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

OK = httpx.Response(200)
NO = httpx.Response(500)
NEW_KEY, NEW_IV = "fedcba9876543210", "0G1f2E3d4C5b6A7h"
OLD_MASTER, NEW_MASTER = MasterKey.fresh(), MasterKey.fresh()
PLAYERS_TOKEN = "players-own-token-49"


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    """What an operator's table says; None takes a setting away."""
    crypto = {"key": changes.pop("key", KEY), "iv": changes.pop("iv", IV)}
    given = {"notice_url": f"https://{name}.example/Demo/notice", "token": f"the-token-of-{name}", "crypto": crypto}
    return {key: value for key, value in (given | changes).items() if value is not None}


def per_event(name: str) -> dict[str, Any]:
    """An operator that wants each player's own token."""
    return settings_of(name, token=None, auth="per_event")


def toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def file(folder: Path, *declared: str, top: Mapping[str, Mapping[str, Any]] | None = None, **tables: Any) -> Path:
    """A configuration that declares these operators, and by `tables` others with settings of their own."""
    whole = {"web": {"listen": ""}, **(top or {})}
    whole |= {f"operators.{name}": settings_of(name) for name in declared}
    whole |= {f"operators.{name}": table for name, table in tables.items()}
    parts = (
        f"[{name}]\n" + "".join(f"{key} = {toml(one)}\n" for key, one in table.items()) for name, table in whole.items()
    )
    path = folder / "config.toml"
    path.write_text(STORES.settings() + "\n".join(parts), "utf-8")
    return path


def masters(current: MasterKey, former: MasterKey | None = None) -> dict[str, dict[str, str]]:
    """The table of the configuration that gives these master keys."""
    given = {"master_key": current.reveal()} | ({"former_master_key": former.reveal()} if former else {})
    return {"secrets": given}


def vault_of(at: Bench) -> Vault:
    vault: Vault = at.daemon._vault
    return vault


def put_by_command(at: Bench, name: str, table: Mapping[str, Any], now: int | None = None) -> None:
    """What `operators set` writes; nobody is told."""
    draft = draft_operator(name, table, at.daemon.config.defaults, at.path.parent)
    at_now = at.clock.now() if now is None else now
    before = {row.name: row.settings for row in store.standings(at.database)}.get(name)
    assert put(at.database, vault_of(at), draft, at_now, actor="tester", instead=before)


def standings(database: Database) -> dict[str, store.Standing]:
    return {row.name: row for row in store.standings(database)}


def actions(database: Database) -> list[tuple[str, str, str]]:
    j = journal.c
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(select(j.operator, j.verb, j.actor).order_by(j.n))]


def fate(at: Bench, operator: str, key: int = 1) -> tuple[str, int]:
    """What became of a delivery: its status, and how many attempts that took."""
    row = at.row(key, operator)
    return row.status, row.attempts


@pytest.fixture
def database(tmp_path: Path) -> Iterable[Database]:
    opened_one = open_database(STORES.place(tmp_path))
    yield opened_one
    opened_one.close()


def read(path: Path, database: Database, now: int = NOW, *, only_new: bool = False) -> tuple[Config, Vault, list[str]]:
    """A file, the vault, and what bringing the database in line with the file has changed."""
    config = load_config(path)
    vault = open_vault(config, database)
    return config, vault, provision(database, vault, config, now, actor="tester", only_new=only_new)


# The file and the database


def test_a_file_that_says_nothing_new_writes_nothing(tmp_path: Path, database: Database) -> None:
    path = file(tmp_path, "acme", "bolt")
    assert read(path, database)[2] == ["acme", "bolt"]
    before, done = standings(database), actions(database)
    assert done == [("acme", "set", "tester"), ("bolt", "set", "tester")]
    assert read(path, database, NOW + HOUR)[2] == []
    assert standings(database) == before
    assert actions(database) == done


def test_only_the_operator_that_differs_is_written(tmp_path: Path, database: Database) -> None:
    read(file(tmp_path, "acme", "bolt"), database)
    before = standings(database)
    assert read(file(tmp_path, "acme", bolt=settings_of("bolt", concurrency=5)), database, NOW + HOUR)[2] == ["bolt"]
    after = standings(database)
    assert after["acme"] == before["acme"]
    assert after["bolt"].revision > before["bolt"].revision
    assert (after["bolt"].updated_at, after["bolt"].key_version) == (NOW + HOUR, 1)


def test_an_operator_that_the_file_no_longer_declares_is_taken_out_of_force(tmp_path: Path, database: Database) -> None:
    read(file(tmp_path, "acme", "bolt"), database)
    config, vault, written = read(file(tmp_path, "acme"), database, NOW + HOUR)
    assert written == ["bolt"]
    assert actions(database)[-1] == ("bolt", "remove", "tester")
    bolt = standings(database)["bolt"]
    assert (bolt.settings, bolt.updated_at) == (None, NOW + HOUR)
    in_force = load(database, vault, config)
    assert (list(in_force.members), in_force.faults) == (["acme"], {})
    assert read(file(tmp_path, "acme"), database)[2] == [], "it goes once"


def test_who_hands_in_events_writes_only_what_the_database_does_not_know(tmp_path: Path, database: Database) -> None:
    read(file(tmp_path, "acme", "bolt"), database)
    before = standings(database)
    path = file(tmp_path, acme=settings_of("acme", concurrency=5), coin=settings_of("coin"))
    config, vault, written = read(path, database, only_new=True)
    assert written == ["coin"]
    after = standings(database)
    assert (after["acme"], after["bolt"]) == (before["acme"], before["bolt"])
    assert load(database, vault, config).operators["acme"].concurrency == 32


async def test_what_waits_for_an_operator_that_is_gone_waits_until_it_is_back(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, "acme", "bolt")) as at:
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(side_effect=[NO, OK])
        accept(at.database, 1, operator="bolt")
        await at.look()
        await at.daemon.reload(file(tmp_path, "acme"))
        await at.after(24 * HOUR)
        assert bolt.call_count == 1
        assert fate(at, "bolt") == ("pending", 1)
        assert [one["operator"] for one in at.told("operator_not_configured")] == ["bolt"]
        await at.daemon.reload(file(tmp_path, "acme", "bolt"))
        await at.calm()
        assert fate(at, "bolt") == ("delivered", 2)
        assert [one["key_version"] for one in at.attempts(1, "bolt")] == [1, 1]


async def test_a_command_s_operator_works_at_once_and_outlives_reloads_and_restarts(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, "acme")) as at:
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=OK)
        put_by_command(at, "bolt", settings_of("bolt"))
        accept(at.database, 1, operator="bolt")
        await at.look()
        assert fate(at, "bolt") == ("delivered", 1)
        before = standings(at.database)["bolt"]
        assert before.origin == "command"
        await at.daemon.reload(at.path)
        await at.restart()
        accept(at.database, 2, operator="bolt")
        await at.look()
        assert fate(at, "bolt", 2) == ("delivered", 1)
        assert bolt.call_count == 2
        assert standings(at.database)["bolt"] == before


async def test_without_any_operator_in_the_file_those_of_commands_work(tmp_path: Path) -> None:
    async with Bench(file(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        put_by_command(at, "acme", settings_of("acme"))
        await at.send(1)
        assert fate(at, "acme") == ("delivered", 1)


async def test_a_file_that_declares_a_command_s_operator_takes_it_over(tmp_path: Path) -> None:
    async with Bench(file(tmp_path)) as at:
        put_by_command(at, "acme", settings_of("acme", concurrency=5))
        # The same settings: even then it is the file's from now on, and goes with it.
        await at.daemon.reload(file(tmp_path, acme=settings_of("acme", concurrency=5)))
        assert (standings(at.database)["acme"].origin, at.dispatch.lanes["acme"].operator.concurrency) == ("file", 5)
        await at.daemon.reload(file(tmp_path, "acme"))
        assert at.dispatch.lanes["acme"].operator.concurrency == 32
        await at.daemon.reload(file(tmp_path))
        assert standings(at.database)["acme"].settings is None
        assert at.dispatch.lanes == {}


async def test_an_operator_that_became_unfit_is_left_out_and_told_and_the_others_go_on(tmp_path: Path) -> None:
    allowing = {"egress": {"allow": ["10.0.0.0/8"]}}
    async with Bench(file(tmp_path, "acme", top=allowing)) as at:
        at.acme.mock(return_value=OK)
        inner = at.router.post("http://10.1.2.3/Demo/notice").mock(side_effect=[NO, OK])
        put_by_command(at, "bolt", settings_of("bolt", notice_url="http://10.1.2.3/Demo/notice"))
        await at.send(1, operator="bolt")
        await at.daemon.reload(file(tmp_path, "acme"))
        for restarted in (False, True):
            if restarted:
                await at.restart()
            times = len(at.told("operator_unfit"))
            put_by_command(at, "coin", settings_of("coin", concurrency=5 + restarted))
            await at.after(HOUR)
            assert at.dispatch.lanes["coin"].operator.concurrency == 5 + restarted
            told = at.told("operator_unfit")[-1]
            assert (told["operator"], told["level"]) == ("bolt", "error")
            assert told["faults"][0].startswith("operators.bolt.notice_url: 10.1.2.3 is not on the public internet; ")
            assert len(at.told("operator_unfit")) == times, "once a worker, not at every look"
            await at.send(10 + restarted)
            assert fate(at, "acme", 10 + restarted) == ("delivered", 1)
        assert (inner.call_count, fate(at, "bolt")) == (1, ("pending", 1))
        await at.daemon.reload(file(tmp_path, "acme", top=allowing))
        await at.calm()
        assert fate(at, "bolt") == ("delivered", 2)


# What is read again, and how long a start takes


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was unlocked, in order."""
    abouts: list[str] = []
    unlock = Vault.unlock

    def noting(self: Vault, sealed: str, about: str) -> bytes:
        abouts.append(about)
        return unlock(self, sealed, about)

    monkeypatch.setattr(Vault, "unlock", noting)
    return abouts


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each operator's settings were read."""
    counted: Counter[str] = Counter()

    def counting(name: str, *rest: Any) -> Any:
        counted[name] += 1
        return draft_operator(name, *rest)

    monkeypatch.setattr(roster, "draft_operator", counting)
    return counted


async def test_after_one_change_one_operator_is_read_again(
    tmp_path: Path, readings: Counter[str], unlocked: list[str]
) -> None:
    names = [f"op{number}" for number in range(50)]
    async with Bench(file(tmp_path, *names)) as at:
        assert readings == dict.fromkeys(names, 1)
        lanes = {name: lane.operator for name, lane in at.dispatch.lanes.items()}
        readings.clear()
        unlocked.clear()
        put_by_command(at, "bolt", settings_of("bolt"))
        store.stop(at.database, "op7", "paused_at", ("pause", "tester", None), NOW)
        await at.look()
        settings = [one for one in unlocked if one.startswith("settings")]
        assert (readings, settings) == ({"bolt": 1}, ["settings of bolt"])
        assert at.dispatch.lanes["op7"].paused
        await at.daemon.reload(file(tmp_path, *names[1:], op0=settings_of("op0", concurrency=5)))
        assert readings == {"bolt": 1, "op0": 1}
        changed = [name for name in names if at.dispatch.lanes[name].operator is not lanes[name]]
        assert changed == ["op0"]


async def test_after_a_change_of_what_holds_for_all_every_operator_is_read_again(
    tmp_path: Path, readings: Counter[str]
) -> None:
    async with Bench(file(tmp_path, "acme", "bolt")) as at:
        readings.clear()
        await at.daemon.reload(file(tmp_path, "acme", "bolt", top={"http": {"total_timeout": "5s"}}))
        assert readings == {"acme": 1, "bolt": 1}
        assert at.dispatch.lanes["acme"].operator.total_timeout == 5_000_000


def test_what_was_read_with_other_defaults_is_not_taken_for_known(tmp_path: Path, database: Database) -> None:
    config, vault, _ = read(file(tmp_path, "acme"), database)
    known = load(database, vault, config).members
    shorter = load_config(file(tmp_path, "acme", top={"http": {"total_timeout": "5s"}}))
    assert load(database, vault, shorter, known).operators["acme"].total_timeout == 5_000_000


async def test_settings_that_are_only_locked_anew_disturb_nothing(tmp_path: Path, readings: Counter[str]) -> None:
    async with Bench(file(tmp_path, "acme", top=masters(OLD_MASTER))) as at:
        file(tmp_path, "acme", top=masters(NEW_MASTER, OLD_MASTER))
        await at.restart()
        readings.clear()
        operator, transport = at.dispatch.lanes["acme"].operator, at.dispatch.lanes["acme"].transport
        assert relock(at.database, vault_of(at), "tester", NOW).operators == 1
        await at.look()
        assert at.daemon.enrolment.roster.revision == standings(at.database)["acme"].revision
        assert readings == {}
        assert at.dispatch.lanes["acme"].operator is operator
        assert at.dispatch.lanes["acme"].transport is transport


# What is dear, to read them and to lock their secrets, is the same on every store.
@pytest.mark.parametrize("by_a_server", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_many_operators_are_declared_in_one_transaction_and_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database, by_a_server: int
) -> None:
    many = 1_000 if STORES.current is None else by_a_server
    path = file(tmp_path, *(f"op{number}" for number in range(many)))
    written = 0
    writing = Database.writing

    def counting(self: Database) -> Any:
        nonlocal written
        written += 1
        return writing(self)

    monkeypatch.setattr(Database, "writing", counting)
    started = time.process_time()
    config, vault, changed = read(path, database)
    assert (len(changed), written) == (many, 1)
    assert len(load(database, vault, config).members) == many
    # Measured: 2 s, and 5.04 s on a busy machine; one by one it was minutes.
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        assert time.process_time() - started < 10


# Secrets at rest


def spellings(secret: str) -> set[bytes]:
    """The secret as it stands, and as somebody could have written it who meant well."""
    raw = secret.encode()
    json_text = json.dumps(secret)[1:-1].encode()
    return {raw, json_text, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw).rstrip(b"=")}


def found_in(content: bytes, secrets: Mapping[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(one in content for one in spellings(secret))]


def on_disk(folder: Path) -> bytes:
    """Every byte of the database, of its log and of what stands beside them, but for the master key and the file."""
    found = [path for path in folder.glob("dispatcher.db*") if not path.name.endswith("-key") and path.is_file()]
    return b"".join(path.read_bytes() for path in found)


def secretive(authority: Authority) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Operators with every kind of secret, and those by what they are."""
    certificate, key = authority.client()
    pem = key.reveal()
    signature = "whsec_" + base64.b64encode(bytes(range(60, 92))).decode()
    previous = "whsec_" + base64.b64encode(bytes(range(90, 122))).decode()
    secrets = {
        "token": "the-token-of-acme",
        "key": KEY,
        "iv": IV,
        "header": "the-header-of-acme-1",
        "client secret": "the-client-secret-of-coin",
        "signature": signature,
        "previous signature": previous,
        "private key": pem.splitlines()[1],
        "player's token": PLAYERS_TOKEN,
    }
    tables = {
        "acme": settings_of(
            "acme",
            headers={"X-Api-Key": secrets["header"]},
            signature={"secret": signature, "previous_secret": previous},
            tls={"certificate": certificate.reveal(), "key": pem, "ca": authority.pem.reveal()},
        ),
        "bolt": per_event("bolt"),
        "coin": settings_of(
            "coin",
            token=None,
            auth="oauth2",
            oauth={"token_url": "https://coin.example/t", "client_id": "us", "client_secret": secrets["client secret"]},
        ),
    }
    return tables, secrets


def hand_in(at: Bench, *keys: int, operator: str = "bolt", token: str = PLAYERS_TOKEN) -> None:
    """Events that bring their player's token, accepted as `enqueue` does."""
    known = at.daemon.enrolment.roster.operators
    events = [
        parse_event(line(notice(order_no=str(key), operator=operator, token=token)), known, vault_of(at).lock)
        for key in keys
    ]
    acceptance.accept(at.database, events, at.clock.now())


@pytest.mark.sqlite_only
async def test_no_secret_stands_in_any_byte_on_disk_nor_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    tables, secrets = secretive(Authority(tmp_path / "ca"))
    async with Bench(file(tmp_path, **tables)) as at:
        # An operator that sends back whatever it got.
        def echo(request: httpx.Request) -> httpx.Response:
            return httpx.Response(500, text=f"{request.headers} {dict(request.headers)} {request.content!r}")

        at.acme.mock(side_effect=echo)
        at.router.post("https://bolt.example/Demo/notice").mock(side_effect=echo)
        at.router.post("https://coin.example/t").mock(side_effect=httpx.ConnectError("no"))
        put_by_command(at, "acme2", tables["acme"])
        accept(at.database, 1)
        accept(at.database, 1, operator="coin")
        hand_in(at, 1)
        await at.look()
        await at.after(MINUTE)
        assert fate(at, "bolt") == ("pending", 2)
        assert at.request().headers["Authorization"] == "Bearer the-token-of-acme"
        assert at.request().headers["X-Api-Key"] == secrets["header"]
        assert (tmp_path / "dispatcher.db-wal").stat().st_size, "what is only in the log of the database counts too"
        assert b"player-1" in on_disk(tmp_path), "what is no secret is found, so a secret would be"
        assert found_in(base64.b64encode(KEY.encode()) + IV.encode(), secrets) == ["key", "iv"]
        assert found_in(on_disk(tmp_path), secrets) == []
        assert found_in(repr(at.lines).encode(), secrets) == []
    assert found_in(on_disk(tmp_path), secrets) == []


async def test_nothing_that_is_held_in_memory_prints_a_secret(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    tables, secrets = secretive(Authority(tmp_path / "ca"))
    async with Bench(file(tmp_path, top=masters(OLD_MASTER), **tables)) as at:
        secrets["master key"] = OLD_MASTER.reveal()
        held = [at.daemon.enrolment.roster, at.daemon.config, vault_of(at), *at.dispatch.lanes.values()]
        held += [*at.daemon.enrolment.roster.members.values(), *standings(at.database).values()]
        printed = "".join(repr(one) + str(one) for one in held)
        assert "acme.example" in printed
        assert found_in(printed.encode(), secrets) == []
        shown = json.dumps(
            [member.settings() for member in at.daemon.enrolment.roster.members.values()], ensure_ascii=False
        )
        assert shown.count("…") == 14
        assert found_in(shown.encode(), secrets) == []


def test_an_error_of_the_store_shows_neither_the_statement_s_values_nor_a_secret(database: Database) -> None:
    row = store.Declared("acme", "no sealed text: the-token-of-acme", None)
    with pytest.raises(DBAPIError) as error:
        store.declare(database, [row], [], "nobody", ("set", "tester"), NOW)
    assert "origin_is_known" in str(error.value)
    assert "the-token-of-acme" not in f"{error.value!r} {error.value}"


def test_the_master_key_is_made_with_the_first_secret_for_its_owner_alone(tmp_path: Path, database: Database) -> None:
    config, _, _ = read(file(tmp_path, "acme"), database)
    path = key_file(config)
    assert path == tmp_path / ("dispatcher.db-key" if STORES.current is None else "dispatcher.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert read(file(tmp_path, "acme", "bolt"), database)[2] == ["bolt"]
    assert path.read_bytes() == content


def test_a_master_key_that_is_configured_makes_no_file(tmp_path: Path, database: Database) -> None:
    config, vault, _ = read(file(tmp_path, "acme", top=masters(OLD_MASTER)), database)
    assert vault.current_id == OLD_MASTER.key_id
    assert not key_file(config).exists()


@pytest.mark.parametrize("what", ["settings", "a token"])
def test_a_master_key_that_is_missing_is_never_made_anew_over_what_it_locked(
    tmp_path: Path, database: Database, what: str
) -> None:
    path = file(tmp_path, bolt=per_event("bolt"))
    config, vault, _ = read(path, database)
    if what == "a token":
        event = parse_event(line(notice(operator="bolt", token=PLAYERS_TOKEN)), config.operators, vault.lock)
        acceptance.accept(database, [event], NOW)
        assert provision(database, vault, load_config(file(tmp_path)), NOW, actor="tester") == ["bolt"]
    assert anything_locked(database)
    key_file(config).unlink()
    with pytest.raises(ConfigError) as error:
        open_vault(load_config(path), database)
    (fault,) = error.value.faults
    assert fault.where == str(key_file(config))
    assert fault.fault == "is missing: without it what is stored can't be read"
    assert fault.mend.startswith("put the file back, or name the one that has the key in secrets.master_key_file")
    assert not key_file(config).exists()


def test_unfit_master_keys_are_told_both_at_once_and_not_shown(tmp_path: Path, database: Database) -> None:
    path = file(tmp_path, top={"secrets": {"master_key": "hunter-number-2", "former_master_key": "hunter-number-1"}})
    with pytest.raises(ConfigError) as error:
        open_vault(load_config(path), database)
    assert [fault.where for fault in error.value.faults] == ["secrets.master_key", "secrets.former_master_key"]
    assert "hunter" not in str(error.value)


async def test_under_another_master_key_nothing_is_written_over_unless_the_old_one_is_lost(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, "acme", top=masters(OLD_MASTER))) as at:
        at.acme.mock(return_value=OK)
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=OK)
        put_by_command(at, "bolt", settings_of("bolt"))
        before = standings(at.database)["acme"]
        file(tmp_path, "acme", top=masters(NEW_MASTER))
        await at.cut_off()
        with pytest.raises(Refused, match=r"settings of acme can't be read: it is sealed under .* apply --lost-key"):
            at.build()
        lost = open_database(STORES.place(tmp_path))
        assert standings(lost)["acme"] == before
        assert provision(lost, Vault(NEW_MASTER), at.config, at.clock.now(), actor="tester", lost_key=True) == ["acme"]
        lost.close()
        await at.start()
        await at.send(1)
        await at.send(1, operator="bolt")
        assert fate(at, "acme") == ("delivered", 1)
        # Whether it is the key of before, nobody can tell without the journal's key, which was lost with it.
        assert standings(at.database)["acme"].key_version == 2
        told = at.told("operator_unfit")[-1]
        assert told["operator"] == "bolt"
        assert told["faults"] == [
            f"it is sealed under master key {OLD_MASTER.key_id}, which is not given;"
            " give it as secrets.master_key or secrets.former_master_key"
        ]
        assert (bolt.call_count, fate(at, "bolt")) == (0, ("pending", 0))
        file(tmp_path, "acme", top=masters(NEW_MASTER, OLD_MASTER))
        await at.restart()
        await at.look()
        assert fate(at, "bolt") == ("delivered", 1)


async def test_settings_that_were_moved_to_another_operator_do_not_open(tmp_path: Path) -> None:
    async with Bench(file(tmp_path)) as at:
        for name in ("acme", "bolt"):
            put_by_command(at, name, settings_of(name))
        moved = standings(at.database)["acme"].settings
        with at.database.writing() as connection:
            changes = update(operators).where(operators.c.name == "bolt").values(settings=moved, revision=99)
            connection.execute(changes)
        await at.look()
        assert list(at.dispatch.lanes) == ["acme"]
        (told,) = at.told("operator_unfit")
        assert (told["operator"], told["faults"]) == (
            "bolt",
            [
                "it was changed since it was sealed, or was sealed for another place;"
                " put back what stood there, or set it anew"
            ],
        )


# Players' tokens


def locked_tokens(database: Database) -> dict[str, str]:
    d = deliveries.c
    with database.reading() as connection:
        return {row.key: row.bearer for row in connection.execute(select(d.key, d.bearer).where(d.bearer.is_not(None)))}


async def test_a_player_s_token_is_locked_when_it_is_accepted_and_unlocked_for_the_attempt(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, bolt=per_event("bolt"))) as at:
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=OK)
        hand_in(at, 1)
        (locked,) = locked_tokens(at.database).values()
        assert locked.startswith(f"{vault_of(at).current_id}.")
        assert PLAYERS_TOKEN not in locked
        await at.look()
        assert bolt.calls[0].request.headers["Authorization"] == f"Bearer {PLAYERS_TOKEN}"
        assert fate(at, "bolt") == ("delivered", 1)


async def test_a_lost_master_key_puts_a_delivery_off_and_costs_no_attempt(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, bolt=per_event("bolt"), top=masters(OLD_MASTER))) as at:
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(side_effect=[NO, OK])
        hand_in(at, 1)
        await at.look()
        file(tmp_path, bolt=per_event("bolt"), top=masters(NEW_MASTER))
        await at.cut_off()
        lost = open_database(STORES.place(tmp_path))
        provision(lost, Vault(NEW_MASTER), at.config, at.clock.now(), actor="tester", lost_key=True)
        lost.close()
        await at.start()
        for _ in range(5):
            await at.after(HOUR)
        assert (bolt.call_count, fate(at, "bolt")) == (1, ("pending", 1))
        told = at.told("put_off")
        assert told[-1]["detail"] == (
            f"the player's token can't be unlocked: it is sealed under master key {OLD_MASTER.key_id}, which is not"
            " given; give it as secrets.master_key or secrets.former_master_key"
        )
        file(tmp_path, bolt=per_event("bolt"), top=masters(NEW_MASTER, OLD_MASTER))
        await at.restart()
        await at.after(HOUR)
        assert fate(at, "bolt") == ("delivered", 2)
        assert bolt.calls[1].request.headers["Authorization"] == f"Bearer {PLAYERS_TOKEN}"


async def test_a_token_that_was_moved_to_another_delivery_is_not_sent(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, bolt=per_event("bolt"))) as at:
        bolt = at.router.post("https://bolt.example/Demo/notice").mock(return_value=OK)
        hand_in(at, 1)
        hand_in(at, 2, token="another-players-token")
        moved = locked_tokens(at.database)["2"]
        with at.database.writing() as connection:
            connection.execute(update(deliveries).where(deliveries.c.key == "1").values(bearer=moved))
        await at.look()
        assert [call.request.headers["Authorization"] for call in bolt.calls] == ["Bearer another-players-token"]
        assert fate(at, "bolt") == ("pending", 0)


# Another master key


class Exchange:
    """A database with two operators and many players' tokens, all under the old master key."""

    def __init__(self, folder: Path, database: Database, tokens: int) -> None:
        self.folder, self.database, self.tokens = folder, database, tokens
        config, self.old, _ = read(self.file(masters(OLD_MASTER)), database)
        lock = self.old.lock
        known = config.operators
        events = [
            parse_event(line(notice(order_no=str(key), operator="bolt", token=f"token-{key}")), known, lock)
            for key in range(tokens)
        ]
        acceptance.accept(database, events, NOW)

    def file(self, top: dict[str, dict[str, str]]) -> Path:
        return file(self.folder, "acme", bolt=per_event("bolt"), top=top)

    @property
    def both(self) -> Vault:
        return open_vault(load_config(self.file(masters(NEW_MASTER, OLD_MASTER))), self.database)

    @property
    def new(self) -> Vault:
        return open_vault(load_config(self.file(masters(NEW_MASTER))), self.database)

    def blobs(self) -> dict[str, str]:
        settings = {row.name: row.settings or "" for row in store.standings(self.database)}
        return settings | locked_tokens(self.database)

    def openable(self, vault: Vault) -> int:
        """How many tokens this vault opens to what they were."""
        right = 0
        for one in store.locked_tokens(self.database, "", 0, 10_000):
            right += vault.unlock(one.bearer, whose_token(one)).decode() == f"token-{one.key}"
        return right


async def test_afterwards_everything_is_under_the_new_key_and_the_old_one_is_not_needed(
    tmp_path: Path, database: Database
) -> None:
    at = Exchange(tmp_path, database, 2_500)
    revisions = {row.name: row.revision for row in store.standings(database)}
    done = relock(database, at.both, "tester", NOW)
    assert done == (2, 2_500, 0, {})
    assert {blob.partition(".")[0] for blob in at.blobs().values()} == {NEW_MASTER.key_id}
    assert at.openable(at.new) == 2_500
    in_force = load(database, at.new, load_config(at.file(masters(NEW_MASTER))))
    assert (set(in_force.members), in_force.faults) == ({"acme", "bolt"}, {})
    assert in_force.operators["acme"].token == load_config(at.file(masters(NEW_MASTER))).operators["acme"].token
    assert all(row.revision > revisions[row.name] for row in store.standings(database)), "a running worker is told"
    before = at.blobs()
    assert relock(database, at.both, "tester", NOW) == (0, 0, 0, {})
    assert at.blobs() == before, "once more changes nothing"


async def test_cut_off_in_the_middle_it_is_run_again_and_goes_on(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Exchange(tmp_path, database, 2_500)
    pages: list[int] = []
    whole = store.relock_tokens

    def cut_off(database: Database, renewed: Any) -> None:
        pages.append(len(renewed))
        if len(pages) == 2:
            raise KeyboardInterrupt
        whole(database, renewed)

    monkeypatch.setattr(store, "relock_tokens", cut_off)
    with pytest.raises(KeyboardInterrupt):
        relock(database, at.both, "tester", NOW)
    assert pages == [1_000, 1_000]
    under = Counter(blob.partition(".")[0] for blob in at.blobs().values())
    assert under == {NEW_MASTER.key_id: 2 + 1_000, OLD_MASTER.key_id: 1_500}
    assert at.openable(at.both) == 2_500, "in between both keys open everything"
    assert relock(database, at.both, "tester", NOW) == (0, 1_500, 0, {})
    assert at.openable(at.new) == 2_500


def test_what_no_given_key_opens_stays_and_is_told_and_keeps_nothing_else_from_the_new_key(
    tmp_path: Path, database: Database
) -> None:
    at = Exchange(tmp_path, database, 3)
    lost = Vault(MasterKey.fresh())
    draft = draft_operator("coin", settings_of("coin"), load_config(at.file({})).defaults, tmp_path)
    assert put(database, at.both, draft, NOW, actor="tester", instead=None)
    with database.writing() as connection:
        theirs = lost.lock(draft.document.reveal().encode(), "settings of coin")
        connection.execute(update(operators).where(operators.c.name == "coin").values(settings=theirs))
        sealed = lost.lock(b"token-1", "token of bolt notice 1")
        connection.execute(update(deliveries).where(deliveries.c.key == "1").values(bearer=sealed))
    told = f"it is sealed under master key {lost.current_id}, which is not given"
    for operators_renewed, tokens in ((2, 2), (0, 0)):
        done = relock(database, at.both, "tester", NOW)
        assert done[:3] == (operators_renewed, tokens, 1)
        assert list(done.operators_left) == ["coin"]
        assert done.operators_left["coin"].startswith(told)
    under = Counter(blob.partition(".")[0] for blob in at.blobs().values())
    assert under == {NEW_MASTER.key_id: 4, lost.current_id: 2}


def test_settings_that_somebody_changes_meanwhile_are_not_overwritten(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Exchange(tmp_path, database, 0)
    whole = store.relock

    def late(database: Database, *given: Any) -> int:
        draft = draft_operator("acme", settings_of("acme", concurrency=5), load_config(at.file({})).defaults, tmp_path)
        now = {row.name: row.settings for row in store.standings(database)}
        assert put(database, at.both, draft, NOW, actor="tester", instead=now["acme"])
        return whole(database, *given)

    monkeypatch.setattr(store, "relock", late)
    assert relock(database, at.both, "tester", NOW).operators == 1
    in_force = load(database, at.new, load_config(at.file(masters(NEW_MASTER))))
    assert in_force.operators["acme"].concurrency == 5


async def test_a_worker_with_both_keys_goes_on_delivering_while_everything_is_locked_anew(tmp_path: Path) -> None:
    async with Bench(file(tmp_path, "acme", bolt=per_event("bolt"), top=masters(OLD_MASTER))) as at:
        hand_in(at, 1, 2)
        file(tmp_path, "acme", bolt=per_event("bolt"), top=masters(NEW_MASTER, OLD_MASTER))
        gate = Gate()
        at.transport = httpx.MockTransport(gate.answer)
        await at.restart()
        await at.look()
        assert gate.waiting == {"bolt": 2}
        assert relock(at.database, vault_of(at), "tester", NOW) == (2, 2, 0, {})
        gate.open()
        hand_in(at, 3)
        await at.look()
        assert {one.status for one in rows(at.database)} == {"delivered"}
        assert at.told("operator_unfit") == []
        hand_in(at, 4)
        file(tmp_path, "acme", bolt=per_event("bolt"), top=masters(NEW_MASTER))
        await at.restart()
        await at.look()
        assert fate(at, "bolt", 4) == ("delivered", 1)
        assert at.told("put_off") == []


# Another key of an operator, while retries wait


ROTATIONS: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "key": ({"key": NEW_KEY}, NEW_KEY, IV),
    "IV": ({"iv": NEW_IV}, KEY, NEW_IV),
    "key and IV": ({"key": NEW_KEY, "iv": NEW_IV}, NEW_KEY, NEW_IV),
}


def sent_data(at: Bench, number: int) -> str:
    return str(json.loads(at.request(number).content)["data"])


@pytest.mark.parametrize("by", ["file", "command"])
@pytest.mark.parametrize(("changes", "key", "iv"), ROTATIONS.values(), ids=list(ROTATIONS))
async def test_what_was_first_sent_under_the_old_key_is_retried_under_the_new(
    tmp_path: Path, by: str, changes: dict[str, Any], key: str, iv: str
) -> None:
    async with Bench(file(tmp_path, *(["acme"] if by == "file" else []))) as at:
        at.acme.mock(side_effect=[NO, OK])
        if by == "command":
            put_by_command(at, "acme", settings_of("acme"))
        await at.send(1)
        if by == "command":
            put_by_command(at, "acme", settings_of("acme", **changes))
        else:
            await at.daemon.reload(file(tmp_path, acme=settings_of("acme", **changes)))
        await at.after(MINUTE)
        assert fate(at, "acme") == ("delivered", 2)
        assert [one["key_version"] for one in at.attempts()] == [1, 2]
        assert opened(sent_data(at, 0), KEY, IV) == opened(sent_data(at, 1), key, iv)
        assert [one["version"] for one in key_history(at.database, "acme")] == [1, 2]


async def test_an_attempt_under_way_keeps_the_key_that_it_began_with(tmp_path: Path) -> None:
    gate = Gate()
    sent: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content)["data"])
        await gate.answer(request)
        return NO if len(sent) == 1 else OK

    async with Bench(file(tmp_path), answer=answer) as at:
        put_by_command(at, "acme", settings_of("acme"))
        await at.send(1)
        assert gate.waiting == {"acme": 1}
        put_by_command(at, "acme", settings_of("acme", key=NEW_KEY))
        await at.look()
        gate.open()
        await at.calm()
        await at.after(MINUTE)
        assert fate(at, "acme") == ("delivered", 2)
        assert [one["key_version"] for one in at.attempts()] == [1, 2]
        assert opened(sent[0], KEY) == opened(sent[1], NEW_KEY)


async def test_the_same_key_again_is_no_new_version_and_an_old_one_that_is_back_is_one(tmp_path: Path) -> None:
    async with Bench(file(tmp_path)) as at:
        at.acme.mock(return_value=OK)
        versions = []
        for key, concurrency in ((KEY, 5), (KEY, 6), (NEW_KEY, 6), (KEY, 6)):
            put_by_command(at, "acme", settings_of("acme", key=key, concurrency=concurrency))
            versions.append(standings(at.database)["acme"].key_version)
            if versions[-1] != 2:
                # The second key comes and goes between two looks.
                await at.send(len(versions))
        assert versions == [1, 1, 2, 3]
        assert [at.attempts(key)[0]["key_version"] for key in (1, 2, 4)] == [1, 1, 3]


def test_a_lost_settings_text_is_told_as_what_it_is(tmp_path: Path, database: Database) -> None:
    _, vault, _ = read(file(tmp_path, "acme"), database)
    acme = standings(database)["acme"]
    with pytest.raises(VaultError, match="it is no sealed text, or was cut off"):
        roster.document_of(acme._replace(settings=(acme.settings or "")[:30]), vault)


async def test_an_operator_that_cannot_be_used_makes_the_worker_unready_and_is_not_called_unconfigured(
    tmp_path: Path,
) -> None:
    async with Bench(file(tmp_path)) as at:
        put_by_command(at, "acme", settings_of("acme"))
        await at.look()
        await at.send(1)
        with at.database.writing() as connection:
            connection.execute(update(operators).values(settings="00000000.AAAA", revision=99))
        await at.look()
        assert at.daemon.not_ready()["operator acme"] == "its settings can't be used; the log says why"
        assert at.told("operator_unfit")
        assert not at.told("operator_not_configured")


async def test_what_changed_of_an_operator_is_told_without_its_secrets(tmp_path: Path) -> None:
    async with Bench(file(tmp_path)) as at:
        put_by_command(at, "acme", settings_of("acme"))
        await at.look()
        put_by_command(at, "acme", settings_of("acme", crypto={"key": "fedcba9876543210", "iv": IV}))
        await at.look()
        store.stop(at.database, "acme", "paused_at", ("pause", "tester", None), NOW)
        await at.look()
        told = [
            {name: line[name] for name in line if name not in ("event", "level")}
            for line in at.told("operator_changed")
        ]
        assert told == [
            {"operator": "acme", "settings": "changed", "key_version": 2},
            {"operator": "acme", "paused": True},
        ]
