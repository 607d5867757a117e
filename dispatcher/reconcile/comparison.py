"""The operator's list held against the log for a span of time, and what would settle the differences."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from msgspec import defstruct
from msgspec.json import Decoder
from msgspec.structs import astuple

from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import Status, Verb
from dispatcher.protocols import PROTOCOLS
from dispatcher.reconcile.books import Difference, Ours, books
from dispatcher.reconcile.kinds import Kind, Mend
from dispatcher.reconcile.listing import Listed, Listing, Unreadable, joined, plain
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Change, accepted, replay, resolve, sort_out, under_keys

# Lines that can't be read are named up to here, and counted beyond.
_NAMED = 20
_AT_ONCE = 500
_OURS_EVERY = 10_000

Tell = Callable[[str, int], None]


@dataclass(slots=True)
class Summary:
    """How many orders of each kind; what of the file could not be read; what became of those that were in doubt."""

    listed: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    unreadable: int = 0
    named: list[Unreadable] = field(default_factory=list)
    doubt: Counter[str] = field(default_factory=Counter)

    @property
    def agree(self) -> bool:
        return not self.unreadable and not any(self.kinds[kind] for kind in Kind if kind.differs)


class Question(NamedTuple):
    """Whose list, of which message type, against what was accepted from `since` to `until` (µs, exclusive)."""

    operator: Operator
    type: str
    path: Path
    since: int
    until: int


class Comparison:
    """One comparison: `differences` walks it once; `summary` and `names` (of the amounts compared) tell of it."""

    def __init__(self, database: Database, asked: Question, tell: Tell, folder: Path | None = None) -> None:
        """`tell` hears how many rows of which book are in. Raises Refused where the list can't be read."""
        protocol = PROTOCOLS[asked.type]
        export = asked.operator.terms[asked.type].export
        self._listing = Listing(asked.path, export, protocol.key, protocol.amounts)
        self.names: Sequence[str] = self._listing.names
        # Of an event's fields it makes these alone; the rest it only passes over.
        self._event = Decoder(defstruct("Amounts", [(name, str, "") for name in self.names]))
        self.summary = Summary()
        self._database = database
        self._asked = asked
        self._tell = tell
        self._folder = folder

    def differences(self) -> Iterator[Difference]:
        """What has to be looked at, by key. Raises Refused where the list is none."""
        with books(self._folder) as both:
            both.put_theirs(self._theirs())
            both.put_ours(self._within())
            for one in both.compared(self._outside):
                self.summary.kinds[one.kind] += 1
                self._note_doubt(one)
                if one.kind.differs:
                    yield one
            if both.agreed:
                self.summary.kinds[Kind.AGREED] += both.agreed

    def _theirs(self) -> Iterator[Listed]:
        for row in self._listing.lines():
            self.summary.listed += 1
            if isinstance(row, Unreadable):
                self.summary.unreadable += 1
                self.summary.named += [row] if len(self.summary.named) < _NAMED else []
            else:
                yield row
            if self.summary.listed % _OURS_EVERY == 0:
                self._tell("listed", self.summary.listed)

    def _within(self) -> Iterator[Ours]:
        asked = self._asked
        lane = accepted(self._database, asked.operator.name, asked.type, asked.since, asked.until)
        for count, (key, id_, status, ambiguous, body) in enumerate(lane, 1):
            yield Ours(key, self._amounts(body), id_, status, ambiguous)
            if count % _OURS_EVERY == 0:
                self._tell("log", count)

    def _outside(self, keys: list[str]) -> Iterator[Ours]:
        for row in under_keys(self._database, self._asked.operator.name, self._asked.type, keys):
            yield Ours(row.key, self._amounts(row.body), row.id, row.status, row.ambiguous)

    def _amounts(self, body: str) -> str:
        """Those of a frozen event that the list has a column for, as the list's are written."""
        return joined(map(plain, astuple(self._event.decode(body))))

    def _note_doubt(self, one: Difference) -> None:
        if one.ambiguous and one.status == Status.DEAD:
            self.summary.doubt["booked" if one.there.bookings else "not_booked"] += 1

    def unfit_to_mend(self) -> str | None:
        """Why nothing should be done by this list, once it was walked."""
        kinds = self.summary.kinds
        if self.summary.unreadable:
            return f"{self.summary.unreadable} line(s) of the list can't be read: mend them first"
        agreed, absent = kinds[Kind.AGREED], kinds[Kind.DELIVERED_ABSENT]
        if absent > agreed:
            return (
                "more of what was delivered is absent from the list than is in it: it is of another time, or not whole"
            )
        return None


class Plan(NamedTuple):
    """The keys whose delivery would be replayed, and those that would be resolved."""

    replay: list[str]
    resolve: list[str]

    def add(self, one: Difference) -> None:
        if one.kind.mend is Mend.REPLAY:
            self.replay.append(one.there.key)
        elif one.kind.mend is Mend.RESOLVE:
            self.resolve.append(one.there.key)


def carry_out(
    database: Database, asked: Question, plan: Plan, actor: str, now: int, *, dry_run: bool
) -> tuple[Change, Change]:
    """Replays and resolves what the plan names, or says what it would; whatever has changed meanwhile is refused."""
    note = f"booked by the operator according to {asked.path.name}"
    done = (Change([], []), Change([], []))
    for change, keys, verb in zip(done, plan, (Verb.REPLAY, Verb.RESOLVE), strict=True):
        for start in range(0, len(keys), _AT_ONCE):
            rows = under_keys(database, asked.operator.name, asked.type, keys[start : start + _AT_ONCE])
            if dry_run:
                some = sort_out(rows, verb)
            elif verb is Verb.REPLAY:
                some = replay(database, rows, actor, now)
            else:
                some = resolve(database, rows, actor, note, now)
            change.taken.extend(some.taken)
            change.refused.extend(some.refused)
    return done


def type_of(operator: Operator, wanted: str | None) -> str:
    """The message type that a list is of: the named one, or the only one that the operator takes. Raises Refused."""
    taken = [kind for kind, terms in operator.terms.items() if terms.url is not None]
    if wanted is None and len(taken) != 1:
        raise Refused(f"{operator.name} takes {' and '.join(taken)}: name the list's with --type")
    return wanted or taken[0]
