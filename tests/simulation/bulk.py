"""Bulk replays: who makes them and turns them, and what the watch holds each of their steps to."""

import re
from collections import Counter
from contextlib import suppress
from random import Random

from dispatcher.store import replays
from dispatcher.store.engine import Database
from dispatcher.store.replays import NotNow, State, Which
from tests.simulation.machine import Link
from tests.simulation.rows import Seen

_NOTE = "SELECT note FROM journal WHERE delivery_id = ? ORDER BY n DESC LIMIT 1"
_JOB = "SELECT state, created_at, taken FROM replays WHERE id = ?"
_RUNNING = f"SELECT id FROM replays WHERE state = '{State.RUNNING}'"


def make(database: Database, chance: Random, name: str, now: int) -> None:
    """Of this operator's dead, or of all; where there are none, nothing."""
    which = Which(operator=chance.choice((name, None)), since=0, even_superseded=chance.random() < 0.2)
    with suppress(NotNow):
        replays.make(database, which, chance.choice((1, 1, 2, 100)), "ada", "agreed", now)
        if chance.random() < 0.4:
            turn(database, chance, now)


def turn(database: Database, chance: Random, now: int) -> None:
    """One of them is paused, resumed or cancelled, if it can be."""
    jobs = replays.all_of(database)
    if jobs:
        with suppress(NotNow):
            replays.TURNS[chance.choice(list(replays.TURNS))](database, chance.choice(jobs).id, "ada", now)


class Bulk:
    """`taken`: by each job, how many deliveries."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.taken = Counter[int]()

    def took(self, old: Seen, row: Seen) -> str | None:
        """It was finished, and nobody changed it by hand: what is wrong with that."""
        noted = self._link.seen(_NOTE, row.id) if row.status == "pending" else []
        named = re.match(r"replay (\d+): agreed$", noted[0][0] or "") if noted else None
        if named is None:
            return f"{old} became {row.status}, and nobody wanted that"
        job = int(named[1])
        ((state, created_at, taken),) = self._link.seen(_JOB, job)
        self.taken[job] += 1
        if state not in (State.RUNNING, State.DONE):
            return f"{row} was replayed by a job that is {state}"
        if (old.finished_at or 0) >= created_at:
            return f"{row} was replayed by a job that was made before it died"
        # It may take more than it was told to come by: what had died before it was made, and was settled after.
        if self.taken[job] > taken:
            return f"{row} was replayed, and its job says that it took {taken}"
        return None

    def running(self) -> list[str]:
        """Which of them are to go on by themselves."""
        return [f"bulk replay {id_}" for (id_,) in self._link.seen(_RUNNING)]
