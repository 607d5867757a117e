"""Deliveries as one account sees them. Every page looks them up here and nowhere else (a test holds it).

An account that is bound to an operator finds nothing of another's, by whatever way it asks; what is not for it is as
absent as what never was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dispatcher.account import Account, Power
from dispatcher.errors import Refused
from dispatcher.policy import Verb
from dispatcher.store import ledger, line, through
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, Filter, Row
from dispatcher.store.operators import Standing, standings

Place = tuple[int, int]
History = tuple[list[dict[str, Any]], list[dict[str, Any]]]
# So many rows are taken by hand at once.
MOST_AT_ONCE = 1_000


class View:
    """The functions of the store's rooms, on another thread than the event loop's."""

    def __init__(self, database: Database, account: Account) -> None:
        self._database = database
        self._account = account

    def narrowed(self, where: Filter) -> Filter | None:
        """The filter within what the account sees; None where that is nothing."""
        bound = self._account.operator
        if bound is None:
            return where
        return replace(where, operator=bound) if where.operator in (None, bound) else None

    def find(self, where: Filter, limit: int | None, place: Place | None = None) -> Iterator[Row]:
        narrow = self.narrowed(where)
        if narrow is not None:
            yield from ledger.find_behind(self._database, narrow, limit, place)

    def step(self, where: Filter, place: through.Place | None, most: int) -> through.Step:
        narrow = self.narrowed(where)
        return through.Step([], 0, None) if narrow is None else through.step(self._database, narrow, place, most)

    def numbered(self, number: int) -> Row | None:
        row = ledger.numbered(self._database, number)
        return row if row is not None and self._account.sees(row.operator) else None

    def chosen(self, numbers: Sequence[int]) -> list[Row]:
        """Those of these that there are, newest first."""
        rows = ledger.all_numbered(self._database, list(dict.fromkeys(numbers))[:MOST_AT_ONCE])
        return [row for row in rows if self._account.sees(row.operator)]

    def history(self, row: Row) -> History:
        return ledger.history(self._database, row.id)

    def in_the_way(self, row: Row, most: int) -> list[Row]:
        """For whom it may have to wait in its line; nobody where it stands in none."""
        numbers = line.in_the_way_of(self._database, row.id, most)
        return sorted(self.chosen(numbers), key=lambda other: numbers.index(other.id))

    def standing(self, operator: str) -> Standing | None:
        if not self._account.sees(operator):
            return None
        return next((one for one in standings(self._database) if one.name == operator), None)

    def sort_out(self, rows: Sequence[Row], verb: Verb) -> Change:
        """What `replay` or `resolve` would take."""
        return ledger.sort_out(self._own(rows), verb)

    def replay(self, rows: Sequence[Row], now: int) -> Change:
        change = ledger.replay(self._database, self._own(rows), self._actor(), now)
        self._database.ring()
        return change

    def resolve(self, rows: Sequence[Row], note: str, now: int) -> Change:
        change = ledger.resolve(self._database, self._own(rows), self._actor(), note, now)
        # Whoever stood behind it in line is due.
        self._database.ring()
        return change

    def _actor(self) -> str:
        """Who did it, for the record; told from people on this machine, and from the API's clients."""
        return f"console:{self._account.name}"

    def _own(self, rows: Sequence[Row]) -> list[Row]:
        if not self._account.may(Power.MEND):
            raise Refused("this account may look, and not replay or resolve")
        return [row for row in rows if self._account.sees(row.operator)]
