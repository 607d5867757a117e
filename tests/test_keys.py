"""Keys of the HTTP API: what each opens and what stays shut, for how long one that is revoked goes on, how often."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from dispatcher.cli import main
from dispatcher.ground.apikey import INCLUDED, ApiKey, Scope, digest, fresh_token, whose
from dispatcher.ground.clock import DAY, MINUTE
from dispatcher.ground.errors import Refused, StoreUnavailable
from dispatcher.ground.policy import Reason
from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.keys import all_keys, create_key, note_use, revoke_key
from dispatcher.store.proof.access import mark
from dispatcher.store.replays import Which
from dispatcher.store.schema import api_keys, journal
from dispatcher.web import doorman
from tests.ground import NOW, line, notice
from tests.served import OPERATORS, Served, faults_in, served
from tests.stores import STORES
from tests.workshop import accept, configuration, failed, row, rows, settle, take

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


@pytest.fixture
async def at(database: Database) -> AsyncIterator[Served]:
    async with served(database) as at:
        yield at


def bury(database: Database, key: str, operator: str) -> int:
    """A dead delivery."""
    accept(database, key, operator=operator)
    for at in (0, DAY, 2 * DAY, 3 * DAY):
        claims = take(database, NOW + at, operator=operator)
        settle(database, *(failed(claim, NOW + at, Reason.READ_TIMEOUT) for claim in claims))
    return row(database, key, operator).id


# Every route with every key.


@pytest.mark.parametrize(
    ("scope", "bound"),
    [*product(Scope, [None, "acme", "bolt"]), (None, None)],
    ids=lambda one: str(one),
)
async def test_every_route_opens_to_its_scope_and_operator_alone(
    at: Served, scope: Scope | None, bound: str | None
) -> None:
    """The deliveries are acme's. Whatever is not opened leaves them as they are, and tells nothing of them."""
    ids = {name: bury(at.database, name, "acme") for name in ("replayDelivery", "resolveDelivery", "showDelivery")}
    at.clock.move(4 * DAY)
    job = replays.make(at.database, Which(operator="acme", since=0), 7, "ada", "player-1", at.clock.now())
    ids |= {f"{verb}Replay": job.id for verb in ("show", "pause", "resume", "cancel")}
    key = (
        at.key(scope, operator=bound) if scope is not None else {"authorization": f"Bearer {fresh_token()[1].reveal()}"}
    )
    for way in at.api.ways:
        before = {one.key: one.status for one in rows(at.database)}
        path = way.path.replace("{id}", str(ids.get(way.name, 0)))
        body: object = notice(order_no="new") if way.name == "enqueue" else {"note": "agreed"}
        body = line(notice(order_no="new-too")).encode() if way.name == "enqueueBatch" else body
        if way.name == "makeReplay":
            body = {"operator": "acme", "since": "1970-01-01", "pace": 7, "note": "agreed"}
        answer = await (at.get(path, key) if way.method == "GET" else at.post(path, key, body))
        opens = scope is not None and way.scope in INCLUDED[scope]
        if opens and bound in (None, "acme"):
            assert answer.status_code in (200, 201, 202), (way.name, answer.text)
            continue
        known = {"enqueue": 403, "enqueueBatch": 200, "listDeliveries": 200, "makeReplay": 403, "listReplays": 200}
        expected = known.get(way.name, 404)
        assert answer.status_code == (expected if opens else 401 if scope is None else 403), (way.name, answer.text)
        if not opens:
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert {one.key: one.status for one in rows(at.database)} == before
        assert [(one.id, one.state) for one in replays.all_of(at.database)] == [(job.id, "running")]
        assert "player-1" not in answer.text
        if opens and way.name == "listDeliveries":
            assert answer.json() == {"deliveries": [], "next": None}
        if opens and way.name == "listReplays":
            assert answer.json() == {"replays": []}
        if opens and way.name == "enqueueBatch":
            assert answer.json()["invalid"] == 1


async def test_a_bound_key_hears_nothing_of_another_operator(at: Served) -> None:
    bury(at.database, "1", "acme")
    bury(at.database, "2", "bolt")
    key = at.key(Scope.ENQUEUE, Scope.ADMIN, operator="bolt")
    for query in ("", "?operator=bolt", "?status=dead", "?key=2"):
        told = (await at.get(f"/v1/deliveries{query}", key)).json()
        assert [one["operator"] for one in told["deliveries"]] == ["bolt"], query
    for query in ("?operator=acme", "?key=1", "?operator=acme&status=dead"):
        assert (await at.get(f"/v1/deliveries{query}", key)).json()["deliveries"] == []
    # Neither its content nor whether there is such an operator is looked at.
    known = await at.post("/v1/events", key, {"operator": "acme", "type": "nonsense"})
    strange = await at.post("/v1/events", key, {"operator": "nobody", "type": "nonsense"})
    assert known.status_code == strange.status_code == 403
    assert known.json()["detail"] == strange.json()["detail"] == "this key is for bolt alone"
    batch = (await at.post("/v1/events/batch", key, b'{"operator":"acme"}\n{"operator":"nobody"}')).json()
    assert len({one["reason"] for one in batch["refused"]}) == 1
    missing = await at.post("/v1/events", key, {"type": "notice"})
    assert "operator" in faults_in(missing)
    assert "acme" not in missing.text + json.dumps(batch)


async def test_a_cursor_of_one_key_opens_nothing_to_another(at: Served) -> None:
    for number in range(4):
        accept(at.database, number, operator="acme" if number % 2 else "bolt")
    page = (await at.get("/v1/deliveries?limit=1", at.key(Scope.READ))).json()
    bound = at.key(Scope.READ, operator="bolt")
    told = (await at.get(f"/v1/deliveries?cursor={page['next']}", bound)).json()
    assert [one["operator"] for one in told["deliveries"]] == ["bolt", "bolt"]


# What a key is.


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer {shorter}",
        "Bearer dk_000000000000_{secret}",
        "Bearer dk_{id}_" + "A" * 43,
        "Bearer ١{token}",
    ],
)
async def test_what_is_no_key_opens_nothing(at: Served, given: str | None) -> None:
    token = at.key(Scope.READ)["authorization"].removeprefix("Bearer ")
    _, id_, secret = token.split("_", 2)
    headers: dict[bytes, bytes] = {}
    if given is not None:
        text = given.format(token=token, shorter=token[:-1], id=id_, secret=secret)
        headers[b"authorization"] = text.encode()
    answer = await at.client.get("/v1/deliveries", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="dispatcher"'
    assert secret not in answer.text
    assert (await at.get("/v1/deliveries", {"authorization": f"bearer  {token}"})).status_code == 200


async def test_only_a_hash_of_a_key_is_stored(at: Served) -> None:
    token = at.key(Scope.READ)["authorization"].removeprefix("Bearer ")
    with at.database.reading() as connection:
        (stored,) = connection.execute(select(api_keys)).all()
    assert bytes(stored.hash) == hashlib.sha256(token.encode()).digest()
    assert token.split("_", 2)[2] not in str(tuple(stored))
    (key,) = all_keys(at.database)
    assert whose(token, {key.id: key}) == key
    assert whose(token, {key.id: key._replace(hash=bytes(32))}) is None


def test_two_keys_are_never_alike() -> None:
    tokens = {fresh_token()[1].reveal() for _ in range(100)}
    assert len(tokens) == 100
    assert len({digest(token) for token in tokens}) == 100
    assert all(len(token.split("_", 2)[2]) >= 40 for token in tokens)


# How long, how often.


async def test_a_revoked_key_opens_nothing_two_seconds_later(at: Served) -> None:
    key = at.key(Scope.READ, name="old")
    assert (await at.get("/v1/deliveries", key)).status_code == 200
    revoke_key(at.database, "old", "ada", NOW)
    at.seconds += doorman.FRESH_SECONDS
    assert (await at.get("/v1/deliveries", key)).status_code == 200
    at.seconds += 0.001
    assert (await at.get("/v1/deliveries", key)).status_code == 401


async def test_where_keys_cannot_be_read_they_are_believed_no_longer_than_that(
    at: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = at.key(Scope.READ)
    assert (await at.get("/v1/deliveries", key)).status_code == 200

    tried: list[int] = []

    def away(_: Database) -> Any:
        tried.append(1)
        raise StoreUnavailable("gone")

    monkeypatch.setattr(doorman, "all_keys", away)
    at.seconds += doorman.STALE_SECONDS - 0.5
    assert (await at.get("/v1/deliveries", key)).status_code == 200
    at.seconds += 1
    answers = await asyncio.gather(*(at.get("/v1/deliveries", key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    assert len(tried) <= 2, "each waited for an attempt of its own"
    monkeypatch.undo()
    at.seconds += 1.5
    assert (await at.get("/v1/deliveries", key)).status_code == 200


async def test_keys_are_read_once_a_second_however_many_come(at: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    key = at.key(Scope.READ)
    read: list[int] = []

    def counted(database: Database) -> Any:
        read.append(1)
        return all_keys(database)

    monkeypatch.setattr(doorman, "all_keys", counted)
    answers = await asyncio.gather(*(at.get("/v1/deliveries?limit=1", key) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(read) == 1


async def test_a_key_may_so_much_a_second_and_no_other_one_less(at: Served) -> None:
    some, other = at.key(Scope.READ, rate=3), at.key(Scope.READ, rate=3)
    statuses = [(await at.get("/v1/deliveries", some)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = await at.get("/v1/deliveries", some)
    assert refused.json()["type"] == "urn:dispatcher:problem:rate"
    assert refused.headers["retry-after"] == "1"
    assert (await at.get("/v1/deliveries", other)).status_code == 200
    at.seconds += 0.34
    statuses = [(await at.get("/v1/deliveries", some)).status_code for _ in range(2)]
    assert statuses == [200, 429]
    at.seconds += 3600
    statuses = [(await at.get("/v1/deliveries", some)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_a_key_without_a_rate_has_the_configured_one(database: Database) -> None:
    async with served(database, rate=2) as at:
        key = at.key(Scope.READ, rate=None)
        assert [(await at.get("/v1/deliveries", key)).status_code for _ in range(3)] == [200, 200, 429]


async def test_when_a_key_was_last_used_is_written_once_a_minute(at: Served) -> None:
    key, unused = at.key(Scope.READ, name="used"), at.key(Scope.READ, name="unused")
    assert unused

    async def noted() -> dict[str, int | None]:
        await at.get("/v1/deliveries", key)
        await at.api.doorman.note()
        return {one.name: one.last_used_at for one in all_keys(at.database)}

    assert await noted() == {"used": NOW, "unused": None}
    at.clock.move(MINUTE - 1)
    assert (await noted())["used"] == NOW
    at.clock.move(1)
    assert (await noted())["used"] == NOW + MINUTE
    # Another process may have noted a later use.
    note_use(at.database, {all_keys(at.database)[0].id: NOW, all_keys(at.database)[1].id: NOW})
    assert (await noted())["used"] == NOW + MINUTE


# The commands.


def journal_rows(database: Database) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(journal).order_by(journal.c.n)))


def call(folder: Any, *words: str) -> Any:
    config = folder / "config.toml"
    if not config.exists():
        configuration(folder, *OPERATORS, top=STORES.settings())
    first, *rest = words
    return CliRunner().invoke(main, ["keys", first, "-c", str(config), *rest])


def test_a_key_is_made_shown_once_listed_and_revoked(database: Database, tmp_path: Any) -> None:
    made = call(tmp_path, "create", "game-1", "--scope", "enqueue", "--scope", "read", "--operator", "acme", "--json")
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    token = told.pop("token")
    assert {name: told[name] for name in ("name", "scopes", "operator", "rate", "revoked_at")} == {
        "name": "game-1",
        "scopes": ["enqueue", "read"],
        "operator": "acme",
        "rate": None,
        "revoked_at": None,
    }
    (key,) = all_keys(database)
    assert whose(token, {key.id: key}) == key
    listed = call(tmp_path, "list", "--json")
    assert json.loads(listed.stdout).items() >= told.items()
    assert "game-1" in call(tmp_path, "list").stdout
    revoked = call(tmp_path, "revoke", "game-1", "--json")
    at = json.loads(revoked.stdout)["revoked_at"]
    assert at is not None
    assert json.loads(call(tmp_path, "revoke", told["id"], "--json").stdout)["revoked_at"] == at
    secret = token.split("_", 2)[2]
    assert secret not in listed.output + revoked.output


def test_who_made_and_revoked_a_key_stands_in_the_journal_with_what_it_opens(
    database: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.cli.keys.actor", lambda: "ada")
    made = json.loads(
        call(tmp_path, "create", "back-office", "--scope", "admin", "--operator", "acme", "--json").stdout
    )
    assert call(tmp_path, "create", "back-office", "--scope", "read").exit_code == 1
    monkeypatch.setattr("dispatcher.cli.keys.actor", lambda: "bob")
    for _ in range(2):
        assert call(tmp_path, "revoke", "back-office").exit_code == 0
    noted = [one for one in journal_rows(database) if one.verb in ("create_key", "revoke_key")]
    told = f"{made['id']}: admin, for acme alone, web.rate a second, hash {mark(digest(made['token']))}"
    assert [(one.verb, one.actor, one.key, one.note, one.operator) for one in noted] == [
        ("create_key", "ada", "back-office", told, None),
        ("revoke_key", "bob", "back-office", told, None),
    ]
    assert made["token"].split("_", 2)[2] not in str(noted)
    listed = json.loads(call(tmp_path, "list", "--json").stdout)
    assert (listed["created_by"], listed["revoked_by"]) == ("ada", "bob")
    audited = CliRunner().invoke(main, ["audit", "-c", str(tmp_path / "config.toml"), "--json"])
    assert audited.exit_code == 0, audited.output


def test_a_key_that_cannot_be_noted_is_not_made(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise Refused("the journal can't be sealed")

    key = ApiKey("0123456789ab", "game", bytes(32), frozenset({Scope.READ}), None, None, NOW)
    monkeypatch.setattr("dispatcher.store.keys.append", refused)
    with pytest.raises(Refused):
        create_key(database, key, "ada")
    assert not all_keys(database)
    monkeypatch.undo()
    create_key(database, key, "ada")
    monkeypatch.setattr("dispatcher.store.keys.append", refused)
    with pytest.raises(Refused):
        revoke_key(database, "game", "ada", NOW)
    assert [one.revoked_at for one in all_keys(database)] == [None]


def test_a_name_stands_for_one_key_for_good(database: Database, tmp_path: Any) -> None:
    assert call(tmp_path, "create", "game", "--scope", "read").exit_code == 0
    call(tmp_path, "revoke", "game")
    again = call(tmp_path, "create", "game", "--scope", "read")
    assert again.exit_code == 1
    assert "give this one another name" in again.stderr
    assert len(all_keys(database)) == 1


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (["create", "game", "--scope", "read", "--operator", "nobody"], 'write "acme" or "bolt"', 1),
        (["create", "Game Server", "--scope", "read"], "small letters", 1),
        (["create", "game"], "--scope", 2),
        (["create", "game", "--scope", "all"], "'all' is not one of", 2),
        (["create", "game", "--scope", "read", "--rate", "0"], "0 is not in the range", 2),
        (["revoke", "nobody"], "there is no key nobody", 1),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(
    database: Database, tmp_path: Any, words: list[str], told: str, status: int
) -> None:
    done = call(tmp_path, *words)
    assert (done.exit_code, told in done.stderr) == (status, True), done.output
    assert not all_keys(database)
