"""What can be said of a store of any revision, also of one that is not worked with."""

from typing import NamedTuple

from sqlalchemy import text

from dispatcher.ground.errors import NotMade
from dispatcher.ground.place import Place
from dispatcher.ground.policy import Status
from dispatcher.store.engine import reach
from dispatcher.store.version import Found


class Condition(NamedTuple):
    """The database's own kind and version, the store in it, deliveries by status, and bytes on the disk."""

    kind: str
    version: str
    found: Found
    counts: dict[str, int]
    size: int


def condition(place: Place) -> Condition | None:
    """None where nothing is stored yet; nothing is made or changed. Raises StoreUnavailable, and Refused."""
    try:
        database, found = reach(place, create=False)
    except NotMade:
        return None
    try:
        with database.reading() as connection:
            # By name alone: these two columns have been there since the first revision.
            query = text("SELECT status, count(*) FROM deliveries GROUP BY status")
            counted = {row[0]: row[1] for row in connection.execute(query)}
            kind, version, size = database.told(connection)
        known = {status.value: counted.pop(status, 0) for status in Status}
        return Condition(kind, version, found, known | counted, size)
    finally:
        database.close()
