"""What the front page and the operators' pages are made of: looked up once for everybody who looks at the moment."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dispatcher.console.desk import Desk, Visit
from dispatcher.ground.clock import DAY, HOUR, MINUTE, SECOND
from dispatcher.store import minutes
from dispatcher.store.counts.glance import Glance, Hand, Heap, Queue, glance
from dispatcher.store.minutes import Minute
from dispatcher.store.operators import Standing, standings
from dispatcher.store.workers import LIMIT

# What is due for longer than this, and has not gone out, is late.
LATE = 30 * SECOND
QUARTER = 15 * MINUTE


class Seen(NamedTuple):
    """Of one operator or of all, by operator: `states` those in force, `hour` and `day` what came of attempts."""

    heaps: Mapping[str, Heap]
    graves: Mapping[str, Heap]
    due: Mapping[str, Queue]
    hands: Sequence[Hand]
    states: Mapping[str, Standing]
    hour: Sequence[Minute]
    day: Sequence[Minute]

    @property
    def waiting(self) -> int:
        return sum(heap.count for heap in self.heaps.values())

    @property
    def dead(self) -> int:
        return sum(heap.count for heap in self.graves.values())

    @property
    def fresh(self) -> int:
        """How many of them died in the last day."""
        return sum(heap.fresh for heap in self.graves.values())

    @property
    def oldest_dead(self) -> int | None:
        return min((heap.oldest for heap in self.graves.values()), default=None)

    @property
    def earliest(self) -> int | None:
        """When the first of all that wait is due; those of operators that are open come first."""
        open_ones = [queue.earliest for name, queue in self.due.items() if self.is_open(name)]
        return min(open_ones or (queue.earliest for queue in self.due.values()), default=None)

    def is_open(self, name: str) -> bool:
        """Whether it is in force, and sent to."""
        state = self.states.get(name)
        return state is not None and state.paused_at is None and state.held_at is None


async def seen(visit: Visit) -> Seen:
    """As it was a few seconds ago at the most; the day, a minute."""
    return await seen_of(visit.desk, visit.viewer.operator)


async def seen_of(desk: Desk, operator: str | None) -> Seen:
    database, now = desk.database, desk.clock.now()
    found: Glance = await desk.remember(
        ("glance", operator), 2.0, lambda: glance(database, now - DAY, now - LATE, operator)
    )
    hour = await desk.remember(
        ("hour", operator),
        4.0,
        lambda: minutes.read(database, now - now % MINUTE - HOUR + MINUTE, now + MINUTE, operator),
    )
    day = await desk.remember(
        ("day", operator),
        60.0,
        lambda: minutes.read(database, now - now % QUARTER - DAY + QUARTER, now + QUARTER, operator, QUARTER),
    )
    rows: list[Standing] = await desk.remember(("standings", None), 1.0, lambda: standings(database))
    # An operator's people see nothing but what is theirs: what is not in here is not there for them.
    states = {row.name: row for row in rows if row.settings is not None and operator in (None, row.name)}
    # On a file nobody beats: who has the row has the file.
    beats = database.engine.dialect.name != "sqlite"
    hands = [hand for hand in found.workers if not beats or abs(now - hand.seen_at) <= 2 * LIMIT]
    return Seen(found.waiting, found.dead, found.due, hands, states, hour, day)
