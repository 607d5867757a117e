"""What is known of one delivery, gathered from the store for whoever tells its story."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dispatcher.ground.operator import Operator
from dispatcher.store import ledger
from dispatcher.store.counts.waiting import Run, run_of
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Row
from dispatcher.store.operators import Standing


class Case(NamedTuple):
    """A delivery: its row, its attempts and what was done by hand, as `ledger.history` gives them, and its place in its

    schedule. `operator` is None where it can't be used, `standing` where there never was such a one.
    """

    row: Row
    attempts: Sequence[Mapping[str, Any]]
    actions: Sequence[Mapping[str, Any]]
    run: Run | None = None
    operator: Operator | None = None
    standing: Standing | None = None


def gather(database: Database, row: Row, operators: Mapping[str, Operator], standings: Sequence[Standing]) -> Case:
    attempts, actions = ledger.history(database, row.id)
    standing = next((one for one in standings if one.name == row.operator), None)
    return Case(row, attempts, actions, run_of(database, row.id), operators.get(row.operator), standing)
