"""Who stands before the store: a game server that hands events in, and people with their commands."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dispatcher.accept import read_event
from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.errors import StoreUnavailable
from dispatcher.ground.events import Event
from dispatcher.ground.policy import Status, Verb
from dispatcher.roster import open_vault, provision
from dispatcher.store import acceptance, ledger, operators
from dispatcher.store.acceptance import Fate
from dispatcher.store.engine import Database
from tests.ground import lock, notice, settle_event
from tests.simulation import bulk
from tests.simulation.loop import Process
from tests.simulation.operators import Delivery

if TYPE_CHECKING:
    from tests.simulation.town import Town


class Street:
    """`accepted`: what the game server was told to be accepted, by its content's digest."""

    def __init__(self, town: "Town") -> None:
        self._town = town
        self.world = town.world
        self.chance = town.world.chance
        self.accepted: dict[Delivery, bytes] = {}
        # Somebody has written a new key into the file, and does not know whether it came into force.
        self._unapplied = False
        self._opened: Database | None = None

    def hand_in(self, events: list[Event]) -> None:
        """Until it has an answer: what was in doubt is handed in again."""
        database = self.desk
        try:
            fates = self._by(
                self._town.people, "accept", lambda: acceptance.accept(database, events, self.world.wall())
            )
        except StoreUnavailable:
            self.world.after(self.chance.randrange(2 * SECOND), lambda: self.hand_in(events))
            return
        database.ring()
        for event, fate in zip(events, fates, strict=True):
            self._told(event, fate)

    def _told(self, event: Event, fate: Fate) -> None:
        known = self.accepted.get(event[:3])
        self.world.tell("game", f"{'/'.join(event[:3])}: {fate}")
        if fate is Fate.CONFLICT:
            if known == event.digest:
                self.world.blame("accepted", f"{event.key} is said to be another event than before")
            return
        if fate is Fate.ACCEPTED and known is not None and event[:3] not in self._town.watch.swept:
            self.world.blame("accepted", f"{event.key} was accepted twice")
        self.accepted[event[:3]] = event.digest

    @property
    def desk(self) -> Database:
        if self._opened is None:
            self._opened = self._town.memory.open(self._town.config.database)
            # Nothing is done by hand but by whoever can seal the journal.
            open_vault(self._town.config, self._opened)
        return self._opened

    def _by(self, process: Process, name: str, work: Callable[[], Any]) -> Any:
        """Somebody's call outside of any loop."""
        self.world.current = process
        try:
            return self._town.storing(process, name, work)
        finally:
            self.world.current = None

    def event(self, number: int) -> Event:
        name, chance = self.chance.choice(self._town.names), self.chance
        uid = f"player-{chance.randrange(2)}"
        if chance.random() < 0.5:
            raw = notice(operator=name, order_no=str(10**18 + number), uid=uid)
        else:
            raw = settle_event(operator=name, txId=f"tx-{number}", userId=uid)
        return read_event(raw, self._town.config.operators, lock)

    def hand_in_some(self, left: int) -> None:
        count = min(left, self.chance.choice((1, 1, 2, 4)))
        events = [self.event(left - number) for number in range(count)]
        if self.accepted and self.chance.random() < 0.2:
            number = self.chance.randrange(1, 12)
            events.append(self.event(number))
        self.hand_in(events)
        if left > count:
            self.world.after(self.chance.randrange(2 * SECOND), lambda: self.hand_in_some(left - count))

    def command(self) -> None:
        """One of the things that people do, by what their commands call."""
        chance, name = self.chance, self.chance.choice(self._town.names)
        kinds = ["pause", "resume"] * ("people" in self._town.weather) + ["key"] * ("keys" in self._town.weather)
        kinds += ["replay", "resolve", "bulk", "bulk", "turn"] * ("people" in self._town.weather)
        if kinds and not self._town.storm.over:
            self.do(chance.choice(kinds), name)
            self.world.after(chance.randrange(200 * MILLISECOND, 6 * SECOND), self.command)

    def do(self, kind: str, name: str) -> None:
        self.world.tell("people", f"{kind} {name}")
        works = {"pause": self._pause, "resume": self._resume, "key": self._rotate, "bulk": self._bulk}
        work = (works | {"turn": self._turn}).get(kind)
        self._town.watch.by_hand = True
        try:
            if work is not None:
                self._by(self._town.people, kind, lambda: work(name))
            else:
                self._by(self._town.people, kind, lambda: self._dead(Verb(kind)))
            self.desk.ring()
        except StoreUnavailable:
            self.world.tell("people", "that could not be done")
        finally:
            self._town.watch.by_hand = False

    def _pause(self, name: str) -> None:
        operators.stop(self.desk, name, "paused_at", ("pause", "ada", None), self.world.wall())

    def _resume(self, name: str) -> None:
        for column in ("paused_at", "held_at"):
            operators.start(self.desk, name, column, ("resume", "ada", None), self.world.wall())

    def _rotate(self, name: str) -> None:
        if not self._unapplied:
            self._town.generations[self._town.names.index(name)] += 1
            self._town.operators.history[name].append(self._town.config.operators[name])
        self._unapplied, config = True, self._town.config
        provision(self.desk, open_vault(config, self.desk), config, self.world.wall(), actor="ada")
        self._unapplied = False

    def _bulk(self, name: str) -> None:
        bulk.make(self.desk, self.chance, name, self.world.wall())

    def _turn(self, _name: str) -> None:
        bulk.turn(self.desk, self.chance, self.world.wall())

    def _dead(self, verb: Verb) -> None:
        rows = [
            row for row in ledger.find(self.desk, ledger.Filter(), 20) if row.status in (Status.DEAD, Status.RESOLVED)
        ]
        some = [row for row in rows if self.chance.random() < 0.6]
        if verb is Verb.REPLAY:
            ledger.replay(self.desk, some, "ada", self.world.wall())
        else:
            ledger.resolve(self.desk, some, "ada", "agreed", self.world.wall())
