"""Which schema a store has, and whether this dispatcher works with it. The revision in its table is the only truth.

Opening reads it and writes nothing; `migrate` changes it.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table

from dispatcher.ground.errors import Outdated, Refused
from dispatcher.ground.place import Place
from dispatcher.store.moving.mark import Mark, State
from dispatcher.store.schema import REVISION, metadata

# As Alembic makes it, under a name of ours: whose tables stand beside these may have an `alembic_version` of its own.
REVISIONS = Table(
    "dispatcher_revision",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="dispatcher_revision_pkc"),
)
READ_REVISION = f"SELECT version_num FROM {REVISIONS.name}"
# Stores made before there were revisions have a number instead, and what is of the first revision has this one.
FIRST, NUMBER_OF_FIRST = "0001", 2
# What every store of ours has, whatever its revision.
OURS = frozenset({"deliveries", "attempts", "operators", "key_versions"})


class Found(NamedTuple):
    """What stands at a place: the revision, None where there are no tables; whether that is written there; its mark."""

    revision: str | None
    stamped: bool = True
    mark: Mark | None = None


def of_number(place: Place, number: int) -> Found:
    """A store from before there were revisions. Raises Refused for one that nothing leads on from."""
    if number != NUMBER_OF_FIRST:
        told = "let the version that made it finish what waits there, and begin a new one"
        raise Refused(f"the database {place} has schema {number}, this dispatcher works with {REVISION}; {told}")
    return Found(FIRST, stamped=False)


def is_ours(tables: Collection[str], revision: str) -> bool:
    """Whether these tables are a store's of this revision; another program's may be like them."""
    return set(tables) >= OURS and (revision != REVISION or metadata.tables.keys() <= set(tables))


def stamp(connection: Connection, revision: str = REVISION) -> None:
    REVISIONS.create(connection)
    connection.execute(REVISIONS.insert().values(version_num=revision))


def admit(place: Place, found: Found) -> None:
    """Raises Outdated for a store of an earlier revision, Refused for one of a later one."""
    if found.revision in (None, REVISION):
        return
    told = f"the database {place} has schema {found.revision}, this dispatcher works with {REVISION}"
    if re.fullmatch(r"\d{4}", found.revision or "") and str(found.revision) < REVISION:
        raise Outdated(told, "stop what works on it, make a backup, and bring it up")
    raise Refused(f"this dispatcher is older than the store: {told}; run the newer one that made it so")


def admit_work(place: Place, found: Found) -> None:
    """As `admit`, and raises Refused for a store that has moved, or has not arrived yet."""
    admit(place, found)
    if found.mark is not None and found.mark.state is not State.LEAVING:
        raise found.mark.refused(place)
