"""What bench/costs.toml says: the costs that bench.cells reckons with, and the load that it reckons for."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("costs.toml")
MINUTE_US = 60e6


@dataclass(frozen=True, slots=True)
class Costs:
    """The rows of the file that have a key; times are µs of CPU."""

    delivery_us: float
    failed_us: float
    accepted_us: float
    event_bytes: float
    cores: float
    usable: float

    @property
    def minute_us(self) -> float:
        """What one cell can do in a minute."""
        return self.cores * self.usable * MINUTE_US

    @property
    def event_us(self) -> float:
        """An event that is delivered at once."""
        return self.accepted_us + self.delivery_us


@dataclass(frozen=True, slots=True)
class Load:
    """What comes in, and who is down; the file's comments say what each value means. `breaker`: operators have one."""

    spins: float
    operators: int
    skew: float
    down_share: float
    down_from: int
    down_for: int
    horizon: int
    delays: tuple[int, ...]
    answer_s: float
    refusal_s: float
    timeout_s: float
    failures: int
    probe_s: float
    catch_up: float
    target: float
    largest: float
    worked_off: int
    draws: int
    breaker: bool = True

    def down(self, minute: int) -> bool:
        return self.down_from <= minute < self.down_from + self.down_for


def read(path: Path = FILE) -> tuple[Costs, Load, list[dict[str, Any]]]:
    """Costs and load, and the rows as they are shown."""
    file = tomllib.loads(path.read_text("utf-8"))
    costs = Costs(**{row["key"]: row["figure"] for row in file["row"] if "key" in row})
    return costs, Load(**{**file["load"], "delays": tuple(file["load"]["delays"])}), file["row"]
