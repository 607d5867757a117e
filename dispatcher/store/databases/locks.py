"""What transactions may do only one after the other: who does it holds a row of the table `locks` until its end."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NoReturn

from sqlalchemy import Connection, insert, select

from dispatcher.ground.errors import Refused
from dispatcher.store.schema import locks

# So many lines at most are locked by one transaction, however many it has to do with.
LINES = 64


class Alone(IntEnum):
    """The first row of each kind; of `LINES` there are as many as the number says. A new one wants a revision."""

    OPERATORS = 0
    LINES = 1
    MOVE = 65
    JOURNAL = 66


_ROWS = Alone.JOURNAL + 1


def make_locks(connection: Connection) -> None:
    connection.execute(insert(locks), [{"id": number} for number in range(_ROWS)])


def alone(connection: Connection, about: Alone, keys: Iterable[int] = (0,)) -> None:
    """Until this transaction ends no other one is here with the same keys. On SQLite none is anyway."""
    if connection.dialect.name == "sqlite":
        return
    wanted = {about + key for key in keys}
    # In order, so that no two wait for one another.
    rows = select(locks.c.id).where(locks.c.id.in_(wanted)).order_by(locks.c.id).with_for_update()
    if len(connection.scalars(rows).all()) < len(wanted):
        _raise_lacking()


def is_free(connection: Connection, about: Alone) -> bool:
    """Whether nobody was here; then it is ours until this transaction ends."""
    row = select(locks.c.id).where(locks.c.id == int(about))
    free = connection.scalar(row.with_for_update(skip_locked=True)) is not None
    if not free and connection.scalar(row) is None:
        _raise_lacking()
    return free


def _raise_lacking() -> NoReturn:
    raise Refused(f"the table {locks.name} lacks rows; give it those from 0 to {_ROWS - 1} again")
