"""The rows as the watch reads them, and by its own reckoning when a delivery is due again."""

from dataclasses import dataclass
from typing import NamedTuple

from dispatcher.ground.clock import SECOND
from dispatcher.ground.schedule import Delays, Schedule
from tests.simulation.operators import Delivery, Sent

# What the views of two processes may differ by while a pause, a hold or its end is on its way to both (µs).
LAG = 8 * SECOND

DELIVERIES = """
    SELECT id, operator, type, key, sequence, in_line, parked, status, due_at, attempts, run_from, probes, anchor_at,
           worker, token, claimed_at, finished_at, ambiguous
    FROM deliveries ORDER BY id
"""
ATTEMPTS = """
    SELECT n, started_at, duration, http_status, reason, key_version FROM attempts
    WHERE delivery_id = ? AND NOT late ORDER BY n
"""
JOURNAL_KEY = "SELECT version, locked FROM journal_keys"
KEY = "SELECT fingerprint FROM key_versions WHERE operator = ? AND version = ?"
OPERATORS = "SELECT name, key_version, paused_at, held_at, closed_since, closed_total FROM operators"


class Seen(NamedTuple):
    """A delivery's row."""

    id: int
    operator: str
    type: str
    key: str
    sequence: str | None
    in_line: int
    parked: int
    status: str
    due_at: int | None
    attempts: int
    run_from: int
    probes: int
    anchor_at: int | None
    worker: int | None
    token: int | None
    claimed_at: int | None
    finished_at: int | None
    ambiguous: int

    @property
    def delivery(self) -> Delivery:
        return (self.operator, self.type, self.key)

    @property
    def made(self) -> int:
        """How many attempts have ended."""
        return self.attempts - (self.status == "sending")

    def __str__(self) -> str:
        return f"{'/'.join(self.delivery)} ({self.status}, attempt {self.attempts})"


class Made(NamedTuple):
    """An attempt's row that decided something."""

    n: int
    started_at: int
    duration: int | None
    http_status: int | None
    reason: str | None
    key_version: int | None


@dataclass(slots=True)
class Closed:
    """An operator as the database has it, and when that was last changed (µs of the world).

    `late`: so long after the moment at which it is said to have been closed that was written (µs).
    """

    paused_at: int | None
    held_at: int | None
    since: int | None
    total: int
    at: int
    paused_from: int = 0
    ever: bool = False
    late: int = 0

    def follow(self, was: "Closed", wall: int) -> None:
        """What hangs on how it stood before."""
        self.ever = self.since is not None or self.total > 0 or was.ever
        self.paused_from = self.at if was.paused_at is None else was.paused_from
        self.late = max(0, wall - self.since) if self.since is not None and self.since != was.since else 0

    def length(self, wall: int) -> int:
        return self.total + (max(0, wall - self.since) if self.since is not None else 0)


def due_again(row: Seen, sent: Sent, schedule: Schedule, closed: Closed) -> tuple[int | None, bool]:
    """When it is due again by its schedule (µs), None for never; and whether that can be told to the µs."""
    ended, anchor = sent.ended_wall, row.anchor_at or 0
    asked = min(sent.asked, schedule.retry_after)
    if isinstance(schedule, Delays):
        expected = _by_delays(row, schedule, ended, anchor + closed.length(ended), asked)
        return expected, not closed.ever or schedule.measured_from == "previous"
    due, end = ended + schedule.every, anchor + closed.length(ended) + schedule.window
    clear = abs(due - end) > LAG and asked <= schedule.every
    return (max(due, min(ended + asked, end)) if due <= end else None), clear or not closed.ever


def _by_delays(row: Seen, schedule: Delays, ended: int, anchor: int, asked: int) -> int | None:
    failures = row.made - row.run_from - row.probes
    if failures > len(schedule.delays):
        return None
    start = ended if schedule.measured_from == "previous" else anchor
    return max(ended + asked, start + schedule.delays[failures - 1])
