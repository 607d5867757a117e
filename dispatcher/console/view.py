"""Deliveries as one account sees them. Every page looks them up here and nowhere else (a test holds it).

An account that is bound to an operator finds nothing of another's, by whatever way it asks; what is not for it is as
absent as what never was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dispatcher.ground.account import Account, Power
from dispatcher.ground.errors import Refused
from dispatcher.ground.policy import Verb
from dispatcher.store import ledger, line, replays
from dispatcher.store.counts import through
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, Filter, Row
from dispatcher.store.operators import Standing, standing_of
from dispatcher.store.replays import Counted, Replay, Which

Place = tuple[int, int]
History = tuple[list[dict[str, Any]], list[dict[str, Any]]]
# So many rows are taken by hand at once.
MOST_AT_ONCE = 1_000
_LOOKS_ONLY = "this account may look, and not replay or resolve; ask an administrator for one that may"


def actor_of(account: Account) -> str:
    """Who does it, for the journal; told from people who work on this machine, and from API keys."""
    return f"console:{account.name}"


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
        return standing_of(self._database, operator)

    def sort_out(self, rows: Sequence[Row], verb: Verb) -> Change:
        """What `replay` or `resolve` would take."""
        return ledger.sort_out(self._own(rows), verb)

    def replay(self, rows: Sequence[Row], now: int) -> Change:
        change = ledger.replay(self._database, self._own(rows), actor_of(self._account), now)
        self._database.ring()
        return change

    def resolve(self, rows: Sequence[Row], note: str, now: int) -> Change:
        change = ledger.resolve(self._database, self._own(rows), actor_of(self._account), note, now)
        # Whoever stood behind it in line is due.
        self._database.ring()
        return change

    def count(self, which: Which, now: int) -> Counted:
        """What a bulk replay would come by."""
        narrow = self._narrow(which)
        return Counted(0, 0) if narrow is None else replays.count(self._database, narrow, now)

    def make(self, which: Which, pace: int, note: str, now: int) -> Replay:
        narrow = self._narrow(which)
        if narrow is None or not self._account.may(Power.MEND):
            raise Refused(_LOOKS_ONLY)
        return replays.make(self._database, narrow, pace, actor_of(self._account), note, now)

    def job(self, number: int) -> Replay | None:
        """A bulk replay; one about several operators is for those who see all of them."""
        job = replays.find(self._database, number)
        return job if job is not None and self._sees_all_of(job) else None

    def jobs(self, most: int) -> list[Replay]:
        return replays.all_of(self._database, self._account.operator, most)

    def turn(self, job: Replay, verb: str, now: int) -> Replay:
        """Pause, resume or cancel it. Raises NotNow."""
        if not self._sees_all_of(job) or not self._account.may(Power.MEND):
            raise Refused(_LOOKS_ONLY)
        return replays.TURNS[verb](self._database, job.id, actor_of(self._account), now)

    def _sees_all_of(self, job: Replay) -> bool:
        return self._account.operator in (None, job.which.operator)

    def _narrow(self, which: Which) -> Which | None:
        bound = self._account.operator
        if bound is None:
            return which
        return which._replace(operator=bound) if which.operator in (None, bound) else None

    def _own(self, rows: Sequence[Row]) -> list[Row]:
        if not self._account.may(Power.MEND):
            raise Refused(_LOOKS_ONLY)
        return [row for row in rows if self._account.sees(row.operator)]
