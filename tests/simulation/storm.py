"""What goes wrong: processes that end or stand still, a store that is away, clocks that jump, operators that change."""

from functools import partial
from typing import TYPE_CHECKING

from dispatcher.ground.clock import HOUR, MILLISECOND, SECOND
from tests.simulation.loop import Process
from tests.simulation.operators import MOODS

if TYPE_CHECKING:
    from tests.simulation.town import Town

# Each world draws which of these it has.
WEATHER = ("death", "stop", "store", "outage", "slow", "stall", "cut_off", "clock", "people", "keys", "moods", "bells")
_BLOWS = ("death", "stop", "outage", "stall", "cut_off", "clock", "moods")


class Storm:
    """`over`: nothing fails any more on our side; `well_since`: nor on the operators' (µs of the world)."""

    def __init__(self, town: "Town") -> None:
        self._town = town
        self.world = town.world
        self.chance = town.world.chance
        self.outage_until = 0
        self.over = False
        self.well_since = 0

    def blow(self) -> None:
        """Something goes wrong, now and then, until the storm is over."""
        if self.over:
            return
        kinds = [
            one
            for one in ("death", "stop", "outage", "stall", "cut_off", "clock", "moods")
            if one in self._town.weather
        ]
        if kinds:
            getattr(self, f"_{self.chance.choice(kinds)}")()
        self.world.after(self.chance.randrange(100 * MILLISECOND, 4 * SECOND), self.blow)

    def _someone(self) -> Process | None:
        living = self._town.living()
        return self.chance.choice(living) if living else None

    def _death(self) -> None:
        process = self._someone()
        if process is not None:
            process.kill()
            process.bury()

    def _stop(self) -> None:
        process = self._someone()
        if process is not None:
            self.world.tell(process, "is told to stop")
            self._town.daemons[process].dispatch.stop()
            process.loop.call_soon(lambda: None)

    def _while(self) -> int:
        """Shorter or longer than it takes until others take somebody for dead (µs)."""
        shorter = self.chance.random() < 0.5
        return self.chance.randrange(4 * SECOND) if shorter else self.chance.randrange(5 * SECOND, 15 * SECOND)

    def _outage(self) -> None:
        self.outage_until = self.world.now + self._while()
        self.world.tell(None, f"the store is away until {self.outage_until}")

    def _stall(self) -> None:
        process = self._someone()
        if process is not None:
            process.stalled_until = self.world.now + self._while()
            self.world.tell(process, f"stands still until {process.stalled_until}")

    def _cut_off(self) -> None:
        process = self._someone()
        if process is not None:
            process.away_until = self.world.now + self._while()
            self.world.tell(process, f"has no store until {process.away_until}")

    def _clock(self) -> None:
        far = self.chance.random() < 0.2
        self.world.jump(self.chance.randrange(30 * HOUR) if far else self.chance.randrange(-20 * SECOND, 40 * SECOND))

    def _moods(self) -> None:
        name = self.chance.choice(self._town.names)
        self._town.operators.moods[name] = mood = self.chance.choice(list(MOODS))
        self.world.tell("operator", f"{name} is {mood}")

    def clear_up(self) -> None:
        """The storm is over: what was switched off is on again, and nothing fails any more."""
        self.over = True
        # Whoever was well already: the store and the workers are so from now on only.
        self.well_since = self.world.now
        self.world.tell(None, "calm")
        self.outage_until = self.world.slow_store = 0
        self._town.memory.lost_rings = 0.0
        for process in self._town.living():
            process.away_until = min(process.away_until, self.world.now)
        for name in self._town.names:
            self._town.street.do("resume", name)
            if "people" in self._town.weather:
                # What died in the storm, and meanwhile.
                self.world.after(self.chance.randrange(40 * SECOND), partial(self._town.street.do, "bulk", name))
            if self._town.operators.moods[name] == "away" or self.chance.random() < 0.5:
                self._recover(name)
            else:
                # Our own side is well, the operator not yet.
                self.world.after(self.chance.randrange(40 * SECOND), partial(self._recover, name))

    def well_for(self) -> int:
        """For how long everything has been well (µs)."""
        well = self.over and set(self._town.operators.moods.values()) == {"well"}
        return self.world.now - self.well_since if well else 0

    def _recover(self, name: str) -> None:
        self._town.operators.moods[name] = "well"
        self.well_since = self.world.now
