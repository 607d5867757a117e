"""What transactions may do only one after the other: who does it holds a row of the table `locks` until its end."""

from collections.abc import Iterable
from enum import IntEnum

from sqlalchemy import Connection, insert, select

from dispatcher.errors import Refused
from dispatcher.store.schema import locks

# So many lines at most are locked by one transaction, however many it has to do with.
LINES = 64


class Alone(IntEnum):
    """The first row of each kind; of `LINES` there are as many as the number says."""

    OPERATORS = 0
    LINES = 1


def make_locks(connection: Connection) -> None:
    connection.execute(insert(locks), [{"id": number} for number in range(Alone.LINES + LINES)])


def alone(connection: Connection, about: Alone, keys: Iterable[int] = (0,)) -> None:
    """Until this transaction ends no other one is here with the same keys. On SQLite none is anyway."""
    if connection.dialect.name == "sqlite":
        return
    wanted = {about + key for key in keys}
    # In order, so that no two wait for one another.
    rows = select(locks.c.id).where(locks.c.id.in_(wanted)).order_by(locks.c.id).with_for_update()
    if len(connection.scalars(rows).all()) < len(wanted):
        raise Refused(f"the table {locks.name} lacks rows; give it those from 0 to {Alone.LINES + LINES - 1} again")
