"""What the breakers did and the database does not have yet. If the power goes, the next start finds out anew."""

from collections import deque
from collections.abc import Mapping

from dispatcher.dispatch.lane import Change, Lane, Turn
from dispatcher.dispatch.thread import StoreThread
from dispatcher.ground.errors import Refused
from dispatcher.store import operators
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log

_MEND = "mend that and restart this worker; deliveries go on"


class Changes:
    """Written in the order in which they came.

    One that is refused, since the journal can't be sealed, ends no delivery: it stands in its lane, and waits here,
    with what came after it. `refused`: why, and None while all is taken.
    """

    def __init__(self, store: StoreThread, database: Database, log: Log) -> None:
        self.refused: str | None = None
        self.waiting: deque[Change] = deque()
        self.tried = True
        self._store = store
        self._database = database
        self._log = log

    @property
    def due(self) -> bool:
        """Whether `write` would do something."""
        return bool(self.waiting) and (self.refused is None or not self.tried)

    def add(self, change: Change) -> None:
        """It stands in its lane already."""
        self.waiting.append(change)

    def try_again(self) -> None:
        """What was refused may be taken by now."""
        self.tried = False

    async def write(self, lanes: Mapping[str, Lane]) -> bool:
        """Whether somebody is held or let go now, for everybody and for our next start, who was not before."""
        wrote = False
        while self.due:
            change = self.waiting[0]
            try:
                await self._write(change)
            except Refused as refused:
                self._tell(change, str(refused))
                break
            self.waiting.popleft()
            if change.operator in lanes:
                lanes[change.operator].wrote(change)
            wrote = True
        if not self.waiting:
            self.refused = None
        self.tried = True
        return wrote

    async def _write(self, change: Change) -> None:
        name, turn, at = change
        write = operators.stop if turn is Turn.HOLD else operators.start
        if await self._store(write, self._database, name, "held_at", (turn.value, "breaker", None), at):
            self._log.warning("operator_held" if turn is Turn.HOLD else "operator_released", operator=name)

    def _tell(self, change: Change, refused: str) -> None:
        if self.refused != refused:
            told = {"operator": change.operator, "verb": change.turn.value, "error": refused}
            self._log.error("not_noted", **told, mend=_MEND)
        self.refused = refused
