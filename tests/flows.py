"""A log for the tests of the console's pages: what a back office sees on some day, hostile texts among it."""

from typing import Any

from sqlalchemy import insert, select, text

from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.events import Event
from dispatcher.ground.policy import Reason
from dispatcher.store import acceptance, ledger
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Row
from dispatcher.store.schema import attempts, deliveries
from tests.ground import NOW, line, lock, notice, parse_event, settle_event
from tests.served import OPERATORS
from tests.workshop import settle, settled, take

# What an operator may answer, or a game server may have for a business.
SCRIPT = "</script><img src=x onerror=document.title='broken'>"
TURNED = "abc\u202egnp.exe"


def spin(key: str, operator: str = "acme", **changes: Any) -> Event:
    return parse_event(line(notice(order_no=key, operator=operator, **changes)), OPERATORS, lock)


def payout(key: str, operator: str = "acme", **changes: Any) -> Event:
    return parse_event(line(settle_event(txId=key, operator=operator, **changes)), OPERATORS, lock)


def put(database: Database, *events: Event, at: int = NOW) -> None:
    acceptance.accept(database, events, at)


def try_all(database: Database, at: int, operator: str = "acme", status: int | None = 200, **changes: Any) -> None:
    """One attempt for everything of this operator that is due, all with the same outcome."""
    claims = take(database, at, operator=operator)
    settle(database, *(settled(claim, at + SECOND // 5, status, **changes) for claim in claims), now=at + SECOND)


def bury_all(database: Database, at: int, operator: str = "acme", **changes: Any) -> int:
    """Four attempts, by the schedule; when the last one ended (µs)."""
    for minutes in (0, 2, 40, 100):
        try_all(database, at + minutes * MINUTE, operator, changes.pop("status", None), **changes)
    return at + 101 * MINUTE


def row_of(database: Database, key: str, operator: str = "acme") -> Row:
    return ledger.one(database, operator, key, None)


# What a day leaves behind, by its beginning and the kind of store: each is played once.
_LEFT: dict[tuple[int, str], list[list[dict[str, Any]]]] = {}


def a_day(database: Database, at: int = NOW) -> None:
    """Delivered, dead for several reasons, ambiguous, resolved, pending; of two operators and both types."""
    day = at, database.engine.dialect.name
    tables = (deliveries, attempts)
    if day not in _LEFT:
        _live_through(database, at)
        with database.reading() as connection:
            _LEFT[day] = [[dict(row) for row in connection.execute(select(one)).mappings()] for one in tables]
    else:
        with database.writing() as connection:
            for table, rows in zip(tables, _LEFT[day], strict=True):
                connection.execute(insert(table), rows)
            if day[1] == "postgresql":
                connection.execute(text("SELECT setval('deliveries_id_seq', (SELECT max(id) FROM deliveries))"))
    ledger.resolve(database, [row_of(database, "closed-1")], "console:wang", "已与商户核对", at + 430 * MINUTE)


def _live_through(database: Database, at: int) -> None:
    put(database, *(spin(f"dead-{n}", game_id=49 + n % 2, uid=f"player-{n % 3}") for n in range(6)), at=at)
    bury_all(database, at, reason=Reason.CONNECT_REFUSED)
    put(database, spin("doubt-1"), at=at + 200 * MINUTE)
    bury_all(database, at + 200 * MINUTE, reason=Reason.READ_TIMEOUT)
    put(database, spin("closed-1"), at=at + 320 * MINUTE)
    bury_all(database, at + 320 * MINUTE, status=500, body=b'{"error": "no such wallet"}')
    put(database, spin("bolt-1", "bolt", total_bet="1.10", total_win="0"), at=at + 440 * MINUTE)
    bury_all(database, at + 440 * MINUTE, "bolt", status=503, body=b"later")
    put(database, *(spin(f"yes-{n}", total_bet="2.5", total_win="0.0001") for n in range(60)), at=at + 550 * MINUTE)
    put(database, *(payout(f"tx-{n}", betAmount="10", winAmount="12.5") for n in range(3)), at=at + 551 * MINUTE)
    put(database, spin("hostile-1", business=SCRIPT, uid="玩家-١٢٣"), at=at + 552 * MINUTE)
    try_all(database, at + 553 * MINUTE, body=b'{"code":"0000"}')
    put(database, spin("waits-1", business=TURNED), at=at + 554 * MINUTE)
    try_all(database, at + 555 * MINUTE, status=500, body=f"{SCRIPT} {TURNED} {'x' * 2_000}".encode())
