"""The HTTP API: accepted means on disk, the same again is the same, every refusal is a problem that says what to do."""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from dispatcher.accept import committer
from dispatcher.ground.apikey import Scope
from dispatcher.ground.clock import DAY
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.events import MAX_EVENT_BYTES, Event
from dispatcher.ground.policy import Reason
from dispatcher.store.acceptance import Fate, Receipt, accept_told
from dispatcher.store.engine import Database
from dispatcher.store.schema import deliveries
from dispatcher.web import events, reading
from dispatcher.web.problem import Kind
from tests.ground import NOW, line, notice, settle_event
from tests.served import JSON, NDJSON, Served, faults_in, served
from tests.stores import trap, untrap
from tests.workshop import accept, event, failed, row, rows, settle, settled, take, until

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]


@pytest.fixture
async def at(database: Database) -> AsyncIterator[Served]:
    async with served(database) as at:
        yield at


def is_problem(answer: httpx.Response, kind: Kind) -> bool:
    """Whether it is this problem, whole (RFC 9457); an AssertionError with what it is else."""
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, told["status"], told["title"]) == (int(kind.status), int(kind.status), kind.title), told
    assert told["type"] == f"urn:dispatcher:problem:{kind.slug}"
    assert told["instance"] == f"urn:dispatcher:request:{answer.headers['x-request-id']}"
    return True


def dead(database: Database, *keys: int) -> list[int]:
    """Deliveries that nothing is tried for any more; their ids."""
    accept(database, *keys)
    for at in (0, DAY, 2 * DAY, 3 * DAY):
        settle(database, *(failed(claim, NOW + at, Reason.READ_TIMEOUT) for claim in take(database, NOW + at)))
    return [row(database, key).id for key in keys]


class Slow:
    """A store that takes what it is given, and writes it when it is told to."""

    def __init__(self) -> None:
        self.writing, self.go_on = threading.Event(), threading.Event()

    def write(self, database: Database, some: Sequence[Event], now: int) -> list[Receipt]:
        self.writing.set()
        assert self.go_on.wait(60)
        return accept_told(database, some, now)


def slow(at: Served, monkeypatch: pytest.MonkeyPatch) -> Slow:
    held = Slow()
    monkeypatch.setattr(at.api.committer._singles, "write", held.write)
    return held


# One event.


async def test_an_event_is_accepted_once_it_is_on_disk(at: Served) -> None:
    key = at.key(Scope.ENQUEUE)
    answer = await at.post("/v1/events", key, notice(total_bet="0.10"))
    assert answer.status_code == 202
    (stored,) = rows(at.database)
    assert answer.json() == {"id": stored.id, "status": "pending"}
    assert stored.accepted_at == stored.due_at == NOW
    assert json.loads(stored.body)["total_bet"] == "0.10"


async def test_an_amount_never_passes_through_a_float(at: Served) -> None:
    body = line(notice(), total_bet="99999999999999999999.9999", total_win="0.1").encode()
    assert (await at.post("/v1/events", at.key(), body)).status_code == 202
    shown = (await at.get("/v1/deliveries", at.key())).json()["deliveries"][0]
    assert (shown["total_bet"], shown["net_win"]) == ("99999999999999999999.9999", "-99999999999999999999.8999")


async def test_the_same_again_is_the_same_delivery_and_other_content_a_conflict(at: Served) -> None:
    key = at.key(Scope.ENQUEUE)
    first = await at.post("/v1/events", key, notice())
    again = await at.post("/v1/events", key, notice(total_bet="10.00"))
    assert (again.status_code, again.json()) == (200, first.json())
    settle(at.database, *(settled(claim, NOW) for claim in take(at.database)))
    later = await at.post("/v1/events", key, notice())
    assert (later.status_code, later.json()) == (200, {"id": first.json()["id"], "status": "delivered"})
    other = await at.post("/v1/events", key, notice(game_id=50))
    assert is_problem(other, Kind.CONFLICT)
    assert other.json()["id"] == first.json()["id"]
    assert "the first stands" in other.json()["detail"]
    assert len(rows(at.database)) == 1


async def test_all_faults_of_an_event_are_told_at_once_and_nothing_is_kept(at: Served) -> None:
    wrong = notice(total_bet="1.23456", uid="", game_id="7", unheard="of") | {"type": "notice"}
    del wrong["time"]
    answer = await at.post("/v1/events", at.key(), wrong)
    assert is_problem(answer, Kind.INVALID)
    assert faults_in(answer) == {"total_bet", "uid", "game_id", "unheard", "time"}
    assert all(one["mend"] for one in answer.json()["faults"])
    assert not rows(at.database)


async def test_posts_at_once_share_transactions_and_each_gets_its_own_answer(
    at: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []

    def counting(database: Database, some: Any, now: int) -> Any:
        groups.append(len(some))
        return accept_told(database, some, now)

    monkeypatch.setattr(at.api.committer._singles, "write", counting)
    key = at.key(Scope.ENQUEUE)
    # Each twice, and every tenth a third time with other content.
    given = [notice(order_no=str(number)) for number in [*range(50), *range(50)]]
    given += [notice(order_no=str(number), game_id=1) for number in range(0, 50, 10)]
    answers = await asyncio.gather(*(at.post("/v1/events", key, one) for one in given))
    assert len(groups) < 30
    assert sum(groups) == len(given)
    by_order: dict[str, list[httpx.Response]] = {}
    for one, answer in zip(given, answers, strict=True):
        by_order.setdefault(one["order_no"], []).append(answer)
    assert len({some[0].json()["id"] for some in by_order.values()}) == 50
    for order, some in by_order.items():
        assert len({answer.json()["id"] for answer in some}) == 1, order
        assert Counter(answer.status_code for answer in some)[202] == 1
    # Of what came at the same moment any may have been the first: the rest are told apart by their content.
    assert Counter(answer.status_code for answer in answers)[202] == 50
    assert 5 <= Counter(answer.status_code for answer in answers)[409] <= 10


async def test_what_the_store_cannot_hold_takes_no_other_event_down_with_it(at: Served) -> None:
    trap(at.database, "BEFORE INSERT ON deliveries WHEN (NEW.key = '3')", "no three")
    key = at.key(Scope.ENQUEUE)
    answers = await asyncio.gather(*(at.post("/v1/events", key, notice(order_no=str(one))) for one in range(6)))
    untrap(at.database)
    assert [answer.status_code for answer in answers] == [202, 202, 202, 500, 202, 202]
    assert is_problem(answers[3], Kind.BROKEN)
    assert "three" not in answers[3].text
    (broke,) = at.told("web_broke")
    assert broke["request_id"] == answers[3].headers["x-request-id"]
    assert {one.key for one in rows(at.database)} == {"0", "1", "2", "4", "5"}


async def test_a_receipt_names_the_delivery_that_stands_under_the_key(database: Database) -> None:
    accept(database, 1)
    receipts = accept_told(database, [event(1), event(2)], NOW)
    assert [one.fate for one in receipts] == [Fate.DUPLICATE, Fate.ACCEPTED]
    assert [one.id for one in receipts] == [row(database, 1).id, row(database, 2).id]


# Back-pressure and weather.


async def test_more_than_can_be_written_is_told_to_come_again(at: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "MOST_WAITING", 5)
    held = slow(at, monkeypatch)
    key = at.key(Scope.ENQUEUE)
    waiting = [asyncio.create_task(at.post("/v1/events", key, notice(order_no=str(one)))) for one in range(5)]
    await until(lambda: held.writing.is_set() and at.api.committer._singles.size == 5)
    refused = await at.post("/v1/events", key, notice(order_no="6"))
    assert is_problem(refused, Kind.BUSY)
    assert int(refused.headers["retry-after"]) >= 1
    held.go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {202}
    assert len(rows(at.database)) == 5
    assert (await at.post("/v1/events", key, notice(order_no="6"))).status_code == 202


async def test_one_that_has_waited_too_long_keeps_others_from_queueing(
    at: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = slow(at, monkeypatch)
    monkeypatch.setattr(at.api.committer, "_ticks", lambda: at.seconds)
    key = at.key(Scope.ENQUEUE)
    waiting = asyncio.create_task(at.post("/v1/events", key, notice()))
    await until(held.writing.is_set)
    at.seconds += 0.9 + committer.LONGEST_WAIT_SECONDS
    assert is_problem(await at.post("/v1/events", key, notice(order_no="6")), Kind.BUSY)
    held.go_on.set()
    assert (await waiting).status_code == 202


async def test_a_store_that_is_away_is_told_as_such_and_its_words_stay_in_the_log(
    at: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("the database /srv/secret.db can't be used: disk I/O error")

    key = at.key()
    assert (await at.post("/v1/events", key, notice(order_no="1"))).status_code == 202
    monkeypatch.setattr(at.api.committer._singles, "write", away)
    monkeypatch.setattr(at.api.committer._batches, "write", away)
    answer = await at.post("/v1/events", key, notice())
    assert is_problem(answer, Kind.AWAY)
    assert int(answer.headers["retry-after"]) >= 1
    assert "secret" not in answer.text
    assert "not taken twice" in answer.json()["detail"]
    batch = await at.post("/v1/events/batch", key, (line(notice()) + "\nnonsense").encode())
    assert is_problem(batch, Kind.AWAY)
    assert (batch.json()["accepted"], batch.json()["invalid"]) == (0, 1)
    assert ["disk I/O error" in one["fault"] for one in at.told("web_store_away")] == [True, True]


async def test_what_is_taken_in_is_written_before_the_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(database) as at:
        key = at.key(Scope.ENQUEUE)
        await at.get("/v1/deliveries", key)
        held = slow(at, monkeypatch)
        posts = [asyncio.create_task(at.post("/v1/events", key, notice(order_no=str(one)))) for one in range(20)]
        await until(lambda: at.api.committer._singles.size == 20)
        asyncio.get_running_loop().call_later(0.05, held.go_on.set)
    assert {(await post).status_code for post in posts} == {202}
    assert len(rows(database)) == 20


async def test_a_bug_in_writing_is_told_and_whoever_comes_next_is_served(
    at: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no bell")

    key = at.key(Scope.ENQUEUE)
    with monkeypatch.context() as patched:
        patched.setattr(at.database, "ring", broken)
        assert is_problem(await at.post("/v1/events", key, notice()), Kind.BROKEN)
    assert (await at.post("/v1/events", key, notice())).status_code == 200


# A batch.


async def test_a_batch_is_counted_as_enqueue_counts(at: Served) -> None:
    accept(at.database, 7)
    lines = [line(notice(order_no=str(one))) for one in (1, 2, 2)]
    lines += [line(settle_event()), "", "nonsense", line(notice(order_no="1", game_id=3)), line(notice(uid=""))]
    answer = await at.post("/v1/events/batch", at.key(Scope.ENQUEUE), "\r\n".join(lines).encode())
    told = answer.json()
    assert answer.status_code == 200
    assert {name: told[name] for name in ("accepted", "duplicate", "conflict", "invalid")} == {
        "accepted": 3,
        "duplicate": 1,
        "conflict": 1,
        "invalid": 2,
    }
    assert sorted(one["line"] for one in told["refused"]) == [6, 7, 8]
    assert all(one["reason"] for one in told["refused"])


async def test_a_batch_of_many_transactions_is_whole(at: Served) -> None:
    body = "\n".join(line(notice(order_no=str(one))) for one in range(2_345)).encode()
    answer = await at.post("/v1/events/batch", at.key(), body)
    assert answer.json() == {"accepted": 2_345, "duplicate": 0, "conflict": 0, "invalid": 0, "refused": []}
    again = await at.post("/v1/events/batch", at.key(), body)
    assert (again.json()["accepted"], again.json()["duplicate"]) == (0, 2_345)


async def test_a_batch_that_is_too_large_is_refused_whole(at: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_LINES", 3)
    body = "\n".join(line(notice(order_no=str(one))) for one in range(5)).encode()
    assert is_problem(await at.post("/v1/events/batch", at.key(), body), Kind.TOO_LARGE)
    monkeypatch.setattr(events, "MOST_BATCH_BYTES", 1_000)
    assert is_problem(await at.post("/v1/events/batch", at.key(), body), Kind.TOO_LARGE)
    assert not rows(at.database)


async def test_a_line_that_is_too_long_is_named(at: Served) -> None:
    body = b" " * MAX_EVENT_BYTES + line(notice()).encode() + b"\n" + line(notice(order_no="2")).encode()
    told = (await at.post("/v1/events/batch", at.key(), body)).json()
    assert (told["accepted"], told["invalid"], told["refused"][0]["line"]) == (1, 1, 1)


async def test_so_many_batches_are_in_memory_at_once(at: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_BATCHES", 1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield line(notice()).encode()

    key = at.key(Scope.ENQUEUE)
    first = asyncio.create_task(at.client.post("/v1/events/batch", content=slow(), headers={**NDJSON, **key}))
    await begun.wait()
    assert is_problem(await at.post("/v1/events/batch", key, b""), Kind.BUSY)
    assert (await at.post("/v1/events", key, notice(order_no="2"))).status_code == 202
    go_on.set()
    assert (await first).json()["accepted"] == 1
    assert (await at.post("/v1/events/batch", key, b"")).status_code == 200


# What a request is.


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (b"nonsense", JSON, Kind.MALFORMED),
        (b"[]", JSON, Kind.MALFORMED),
        (b'{"a":1,"a":2}', JSON, Kind.MALFORMED),
        (b'{"a":NaN}', JSON, Kind.MALFORMED),
        (b"", JSON, Kind.MALFORMED),
        (b"{}", JSON, Kind.INVALID),
        (b"{}", {"content-type": "text/plain"}, Kind.MEDIA),
        (b"{}", {"content-type": ""}, Kind.MEDIA),
        (b"{}", {**JSON, "content-encoding": "gzip"}, Kind.MEDIA),
        (b" " * (MAX_EVENT_BYTES + 1), JSON, Kind.TOO_LARGE),
        (b"{}", {**JSON, "content-length": "9" * 30}, Kind.TOO_LARGE),
        (b"{}", {"content-type": "Application/JSON; charset=utf-8"}, Kind.INVALID),
    ],
)
async def test_a_body_that_is_none_is_refused_with_what_it_should_be(
    at: Served, body: bytes, headers: dict[str, str], kind: Kind
) -> None:
    answer = await at.client.post("/v1/events", content=body, headers={**headers, **at.key()})
    assert is_problem(answer, kind)


async def test_a_body_without_a_length_is_cut_off_as_well(at: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * MAX_EVENT_BYTES

    answer = await at.client.post("/v1/events", content=endless(), headers={**JSON, **at.key()})
    assert is_problem(answer, Kind.TOO_LARGE)


async def test_a_body_that_does_not_come_is_waited_for_so_long(at: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BODY_SECONDS", 0.05)
    never = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    answer = await at.client.post("/v1/events", content=slow(), headers={**JSON, **at.key()})
    assert is_problem(answer, Kind.TIMEOUT)
    assert answer.headers["connection"] == "close"


async def test_a_request_keeps_its_name_where_that_is_plain(at: Served) -> None:
    key = at.key(Scope.ENQUEUE, name="game-server")
    given = await at.client.post("/v1/events", headers={**key, **JSON, "x-request-id": "spin-7"}, content=b"{}")
    assert given.headers["x-request-id"] == "spin-7"
    for name in (b"x" * 65, b"a b", b'a"b', b"\xe4", b""):
        told = await at.client.get("/v1/nowhere", headers={b"x-request-id": name})
        assert re.fullmatch("[0-9a-f]{16}", told.headers["x-request-id"])
    (said,) = at.told("request")
    assert (said["request_id"], said["key"], said["operation"], said["status"]) == (
        "spin-7",
        "game-server",
        "enqueue",
        422,
    )


async def test_a_path_or_method_that_is_none_is_a_problem(at: Served) -> None:
    for path in ("/v1/nothing", "/v1/events/", "/"):
        assert is_problem(await at.client.get(path), Kind.NOT_FOUND)
    wrong = await at.client.delete("/v1/events")
    assert is_problem(wrong, Kind.METHOD)
    assert wrong.headers["allow"] == "POST"
    both = await at.client.delete("/v1/replays")
    assert set(both.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_a_fault_of_ours_is_no_traceback(at: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the-token-of-acme")

    monkeypatch.setattr("dispatcher.web.deliveries.ledger.find_behind", broken)
    answer = await at.get("/v1/deliveries", at.key())
    assert is_problem(answer, Kind.BROKEN)
    assert "the-token" not in answer.text
    (told,) = at.told("web_broke")
    assert told["request_id"] == answer.headers["x-request-id"]


# Deliveries.


async def test_the_log_is_paged_through_by_a_cursor_even_where_its_row_is_gone(at: Served) -> None:
    accept(at.database, *range(1, 8))
    key = at.key(Scope.READ)
    first = (await at.get("/v1/deliveries?limit=3", key)).json()
    with at.database.writing() as connection:
        connection.execute(delete(deliveries).where(deliveries.c.key == "5"))
    accept(at.database, 8, now=NOW + 1)
    second = (await at.get(f"/v1/deliveries?limit=3&cursor={first['next']}", key)).json()
    last = (await at.get(f"/v1/deliveries?limit=3&cursor={second['next']}", key)).json()
    pages = [[one["key"] for one in page["deliveries"]] for page in (first, second, last)]
    assert pages == [["7", "6", "5"], ["4", "3", "2"], ["1"]]
    assert last["next"] is None


async def test_the_log_is_filtered_as_the_command_filters_it(at: Served) -> None:
    accept(at.database, 1, 2, now=NOW - DAY)
    accept(at.database, 3, operator="bolt", uid="player-9")
    key = at.key(Scope.READ)

    async def keys(query: str) -> list[str]:
        answer = await at.get(f"/v1/deliveries?{query}", key)
        assert answer.status_code == 200, answer.text
        return [one["key"] for one in answer.json()["deliveries"]]

    assert await keys("operator=acme") == ["2", "1"]
    assert await keys("uid=player-9&status=pending") == ["3"]
    assert await keys("key=2&type=notice") == ["2"]
    assert await keys("since=2026-01-01T00:00:00Z") == ["3"]
    assert await keys("until=2026-01-01T00:00:00Z") == ["2", "1"]
    assert await keys("operator=nobody") == []
    assert await keys("reason=read_timeout") == []


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0&status=gone", {"limit", "status"}),
        ("limit=1001", {"limit"}),
        ("limit=١", {"limit"}),
        ("cursor=abc", {"cursor"}),
        ("cursor=LTEuMg==", {"cursor"}),
        ("operater=acme", {"operater"}),
        ("since=yesterday", {"since"}),
        ("limit=1&limit=2", {"query"}),
        ("operator=%00", {"operator"}),
        ("&" * 200, {"query"}),
    ],
)
async def test_a_query_that_is_none_is_refused_with_every_fault(at: Served, query: str, fields: set[str]) -> None:
    answer = await at.get(f"/v1/deliveries?{query}", at.key())
    assert is_problem(answer, Kind.INVALID)
    assert faults_in(answer) == fields


async def test_a_delivery_is_shown_with_its_event_and_its_attempts(at: Served) -> None:
    (id_,) = dead(at.database, 1)
    shown = (await at.get(f"/v1/deliveries/{id_}", at.key(Scope.READ))).json()
    assert (shown["id"], shown["status"], shown["ambiguous"]) == (id_, "dead", True)
    assert shown["event"] == {**notice(order_no="1"), "net_win": "2.5"}
    assert [one["n"] for one in shown["attempts"]] == [1, 2, 3, 4]
    for absent in ("0", "99", "9" * 30, "-1", "1.0", "x", "%00"):
        assert is_problem(await at.get(f"/v1/deliveries/{absent}", at.key()), Kind.NOT_FOUND)


async def test_a_dead_one_is_replayed_and_what_is_not_dead_is_refused_with_the_reason(at: Served) -> None:
    (id_,) = dead(at.database, 1)
    key = at.key(Scope.ADMIN, name="back-office")
    answer = await at.post(f"/v1/deliveries/{id_}/replay", key)
    assert (answer.status_code, answer.json()) == (200, {"id": id_, "status": "pending"})
    again = await at.post(f"/v1/deliveries/{id_}/replay", key)
    assert is_problem(again, Kind.NOT_NOW)
    assert "its next attempt is due" in again.json()["detail"]
    shown = (await at.get(f"/v1/deliveries/{id_}", key)).json()
    assert [(one["verb"], one["actor"]) for one in shown["actions"]] == [("replay", "api:back-office")]


async def test_a_dead_one_is_resolved_with_a_note(at: Served) -> None:
    (id_,) = dead(at.database, 1)
    key = at.key(Scope.ADMIN, name="back-office")
    for wrong in ({}, {"note": "  "}, {"note": 7}, {"note": "x", "more": 1}):
        answer = await at.post(f"/v1/deliveries/{id_}/resolve", key, wrong)
        assert is_problem(answer, Kind.INVALID)
    done = await at.post(f"/v1/deliveries/{id_}/resolve", key, {"note": " 通过电话 "})
    assert (done.status_code, done.json()) == (200, {"id": id_, "status": "resolved"})
    assert is_problem(await at.post(f"/v1/deliveries/{id_}/resolve", key, {"note": "again"}), Kind.NOT_NOW)
    shown = (await at.get(f"/v1/deliveries/{id_}", key)).json()
    assert [(one["actor"], one["note"]) for one in shown["actions"]] == [("api:back-office", "通过电话")]
