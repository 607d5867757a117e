"""Deliveries that have come to their end, as the corridor leaves them, and by the row where it takes many."""

from sqlalchemy import update

from dispatcher.ground.policy import Reason, Status
from dispatcher.store import ledger
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Row
from dispatcher.store.schema import deliveries
from tests.ground import NOW
from tests.workshop import accept, failed, row, settle, settled, take


def bury(database: Database, *keys: int, now: int = NOW, reason: Reason = Reason.CONNECT_REFUSED) -> list[Row]:
    """Deliveries that have failed four times, the last time now."""
    accept(database, *keys, now=now)
    for _ in range(4):
        done = [failed(claim, now, reason) for claim in take(database, now)]
        soon = [
            one._replace(verdict=one.verdict._replace(due_at=now)) if one.verdict.due_at is not None else one
            for one in done
        ]
        settle(database, *soon, now=now)
    return [row(database, key) for key in keys]


def one_of_each(database: Database) -> dict[str, Row]:
    """A delivery in each status, by its name."""
    keys = {Status.DEAD: 1, Status.RESOLVED: 2, Status.PENDING: 3, Status.SENDING: 4, Status.DELIVERED: 5}
    _, closed = bury(database, 1, 2)
    ledger.resolve(database, [closed], "ada", "agreed", NOW)
    accept(database, 5)
    settle(database, settled(take(database)[0], NOW))
    accept(database, 4)
    take(database)
    accept(database, 3)
    return {str(status): row(database, key) for status, key in keys.items()}


def dead(database: Database, *keys: int | str, operator: str = "acme", at: int = NOW, uid: str = "player-1") -> None:
    """Dead letters as after four attempts, without these."""
    accept(database, *keys, operator=operator, now=at, uid=uid)
    d = deliveries.c
    buried = {"status": "dead", "due_at": None, "finished_at": at, "attempts": 4, "reason": "read_timeout"}
    with database.writing() as connection:
        connection.execute(
            update(deliveries).where(d.key.in_(list(map(str, keys))), d.operator == operator).values(**buried)
        )
