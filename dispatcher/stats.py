"""How things stand: what waits at whom, and what came of the attempts of the last minutes. One picture for everybody

who shows it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

from dispatcher.ground.clock import HOUR, MINUTE, SECOND, iso
from dispatcher.store import minutes, operators
from dispatcher.store.counts.loads import Load, loads_of
from dispatcher.store.engine import Database
from dispatcher.store.minutes import Minute
from dispatcher.store.operators import Standing

# Rates are those of so long (µs), and what was delivered is told of an hour.
WINDOW = 5 * MINUTE
# `minutes.Minute.result`: no attempts, since a fault of our own kept them from being made.
_NONE = "put_off"


class Flow(NamedTuple):
    """What came of the attempts within `seconds`. `took`, `late`: sums in µs; lateness is from due to begun."""

    seconds: float
    attempts: int = 0
    delivered: int = 0
    dead: int = 0
    took: int = 0
    late: int = 0

    def plus(self, one: Minute) -> Self:
        if one.result == _NONE:
            return self
        yes, dead = (one.count if one.result == result else 0 for result in ("delivered", "dead"))
        sums = (self.attempts + one.count, self.delivered + yes, self.dead + dead, self.took + one.took)
        return type(self)(self.seconds, *sums, self.late + one.late)

    @property
    def rate(self) -> float:
        """Attempts a second."""
        return self.attempts / self.seconds if self.seconds > 0 else 0.0

    @property
    def share(self) -> float | None:
        """How many of them were a yes, from 0 to 1; None where there were none."""
        return self.delivered / self.attempts if self.attempts else None

    @property
    def answer(self) -> int | None:
        """How long one took (µs)."""
        return self.took // self.attempts if self.attempts else None

    @property
    def lateness(self) -> int | None:
        """How long after it was due one began (µs)."""
        return self.late // self.attempts if self.attempts else None

    def as_json(self) -> dict[str, object]:
        return {
            "seconds": round(self.seconds, 1),
            "attempts": self.attempts,
            "delivered": self.delivered,
            "dead": self.dead,
            "attempts_per_second": round(self.rate, 3),
            "delivered_per_second": round(self.delivered / self.seconds, 3) if self.seconds > 0 else 0.0,
            "duration_ms": None if self.answer is None else self.answer // 1_000,
            "late_ms": None if self.lateness is None else self.lateness // 1_000,
        }


class Line(NamedTuple):
    """One operator: whether anything is sent to it, what it has, what came of it lately, and within an hour."""

    operator: str
    state: str
    load: Load
    flow: Flow
    delivered_hour: int

    def age(self, now: int) -> int:
        """Since when the first of what is due has been (µs); 0 where nothing is."""
        return 0 if self.load.oldest_due_at is None else max(0, now - self.load.oldest_due_at)


class Picture(NamedTuple):
    """All operators, the worst first, as of `at` (µs). `seen`: the minutes that the flow is made of."""

    at: int
    lines: Sequence[Line]
    total: Line
    reasons: Counter[str]
    seen: Sequence[Minute]

    def as_json(self) -> dict[str, object]:
        of_each = [_as_json(line, self.at) for line in self.lines]
        total = {name: value for name, value in _as_json(self.total, self.at).items() if name not in _NOT_IN_TOTAL}
        reasons = dict(self.reasons.most_common())
        return {"at": iso(self.at), "total": total, "operators": of_each, "reasons": reasons}


_NOT_IN_TOTAL = ("operator", "state")


def _as_json(line: Line, now: int) -> dict[str, object]:
    load = line.load._asdict()
    return {
        "operator": line.operator,
        "state": line.state,
        **load,
        "oldest_due_at": iso(line.load.oldest_due_at),
        "backlog_seconds": round(line.age(now) / SECOND, 1),
        "delivered_hour": line.delivered_hour,
        "rates": line.flow.as_json(),
    }


def picture(database: Database, now: int, *, operator: str | None = None, exact: bool = False) -> Picture:
    """How things stand now. `exact`: what was delivered is counted, however much it is."""
    loads = loads_of(database, now, exact=exact)
    standings = {one.name: one for one in operators.standings(database)}
    begin = _minute(now - WINDOW + MINUTE)
    lately = minutes.read(database, begin, now + MINUTE, operator)
    hour = minutes.read(database, _minute(now - HOUR + MINUTE), now + MINUTE, operator, step=366 * 24 * HOUR)
    in_force = {name for name, one in standings.items() if one.settings is not None}
    names = [name for name in sorted(in_force | loads.keys()) if operator in (None, name)]
    flows, hourly = flow_of(lately, (now - begin) / SECOND), flow_of(hour, 3_600.0)
    quiet = Flow((now - begin) / SECOND)
    counted = any(load.delivered is not None for load in loads.values()) or not loads
    lines = [
        Line(
            name,
            _state(standings.get(name)),
            loads.get(name, Load(delivered=0 if counted else None)),
            flows.get(name, quiet),
            hourly.get(name, quiet).delivered,
        )
        for name in names
    ]
    lines.sort(key=lambda one: (-one.age(now), -one.load.due, one.flow.share if one.flow.share is not None else 1.0))
    return Picture(now, lines, _total(lines, quiet), _reasons(lately), lately)


def _minute(at: int) -> int:
    return at - at % MINUTE


def _state(standing: Standing | None) -> str:
    if standing is None or standing.settings is None:
        return "gone"
    return standing.doors


def _total(lines: Sequence[Line], quiet: Flow) -> Line:
    loads = [line.load for line in lines]
    oldest = [load.oldest_due_at for load in loads if load.oldest_due_at is not None]
    delivered = [load.delivered for load in loads if load.delivered is not None]
    load = Load(
        sum(load.pending for load in loads),
        sum(load.due for load in loads),
        min(oldest, default=None),
        sum(load.parked for load in loads),
        sum(load.sending for load in loads),
        sum(load.dead for load in loads),
        sum(load.resolved for load in loads),
        sum(delivered) if len(delivered) == len(loads) else None,
    )
    flow = Flow(quiet.seconds, *(sum(line.flow[place] for line in lines) for place in range(1, len(quiet))))  # type: ignore[arg-type]  # all but the seconds are whole
    return Line("", "", load, flow, sum(line.delivered_hour for line in lines))


def flow_of(rows: Iterable[Minute], seconds: float) -> dict[str, Flow]:
    """By operator."""
    found: dict[str, Flow] = {}
    for one in rows:
        found[one.operator] = found.get(one.operator, Flow(seconds)).plus(one)
    return found


def since(before: Sequence[Minute], now: Sequence[Minute]) -> list[Minute]:
    """What has been added to these minutes since they were looked at before."""
    then: Mapping[tuple[object, ...], Minute] = {one[:5]: one for one in before}
    grown = []
    for one in now:
        old = then.get(one[:5])
        grown.append(
            one
            if old is None
            else one._replace(count=one.count - old.count, took=one.took - old.took, late=one.late - old.late)
        )
    return [one for one in grown if one.count > 0]


def _reasons(rows: Iterable[Minute]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for one in rows:
        if one.reason is not None:
            counted[one.reason] += one.count
    return counted
