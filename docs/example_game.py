"""A game server that keeps its players' balances, and tells the operator of every spin: both, or neither.

    python docs/example_game.py config.toml sqlite:///dispatcher.db

The configuration is the dispatcher's; the game's tables stand in the database that it names.
"""

import sys
import time
from decimal import Decimal
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from dispatcher import enqueue

TABLES = (
    "CREATE TABLE IF NOT EXISTS players (uid VARCHAR PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0))",
    "CREATE TABLE IF NOT EXISTS spins (order_no VARCHAR PRIMARY KEY, uid VARCHAR NOT NULL, cents INTEGER NOT NULL)",
)
TAKE = text("UPDATE players SET cents = cents - :bet WHERE uid = :uid AND cents >= :bet")
GIVE = text("UPDATE players SET cents = cents + :win WHERE uid = :uid")
KEEP = text("INSERT INTO spins VALUES (:order_no, :uid, :net)")


class NotEnough(Exception):
    """The player has not got the stake."""


def spin(session: Session, config: str, order_no: str, uid: str, bet: int, win: int) -> None:
    """One spin, amounts in cents. The transaction is the caller's: what is raised here undoes all of it."""
    event: dict[str, Any] = {
        "operator": "acme",
        "type": "notice",
        "order_no": order_no,
        "uid": uid,
        "total_bet": Decimal(bet) / 100,
        "total_win": Decimal(win) / 100,
        "business": "Spin",
        "game_id": 49,
        "time": int(time.time()),
    }
    enqueue(session, [event], config=config)
    session.execute(KEEP, {"order_no": order_no, "uid": uid, "net": win - bet})
    if session.execute(TAKE, {"bet": bet, "uid": uid}).rowcount == 0:
        raise NotEnough(f"{uid} has not got {Decimal(bet) / 100}")
    session.execute(GIVE, {"win": win, "uid": uid})


def main(config: str, url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(table))
        connection.execute(text("INSERT INTO players VALUES ('ann', 1000) ON CONFLICT DO NOTHING"))
    for number, (bet, win) in enumerate([(250, 0), (250, 1250), (99999, 0), (100, 50)]):
        order_no = str(1_767_225_600_000_000_000 + number)
        try:
            with Session(engine) as session, session.begin():
                spin(session, config, order_no, "ann", bet, win)
            sys.stdout.write(f"{order_no}: played\n")
        except NotEnough as error:
            sys.stdout.write(f"{order_no}: not played, {error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
