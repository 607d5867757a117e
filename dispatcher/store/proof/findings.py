"""What an audit is asked, and what it gives: its scope, each thing that is wrong, and how much was looked at."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from dispatcher.store.journal import Head
from dispatcher.store.proof.proofs import Check


class Finding(NamedTuple):
    """What is wrong, as a sentence, and where: a delivery, an operator, or an entry of the journal.

    `fault` is False for a remark: what a machine's clock that was set back leaves behind, too.
    """

    check: Check
    told: str
    operator: str | None = None
    type: str | None = None
    key: str | None = None
    id: int | None = None
    fault: bool = True


class Scope(NamedTuple):
    """Which deliveries are looked at, all unless it says otherwise; `keep`: for how long (µs) retention keeps them.

    `heads`: of the journal, as they were noted once: a number, and how its hash begins.
    """

    operator: str | None = None
    since: int | None = None
    keep: int | None = None
    thorough: bool = False
    heads: Sequence[tuple[int, str]] = ()

    @property
    def whole(self) -> bool:
        return self.operator is None and self.since is None


# (type, body) → (key, uid, digest) as they are frozen from it; False: it is no such event, None: nobody here can say.
Freeze = Callable[[str, str], tuple[str, str, bytes] | Literal[False] | None]
# How many rows of how many.
Tell = Callable[[int, int], None]


class Seen:
    """Rows looked at and faults by check, deliveries by status; `findings` are whatever was not read away."""

    def __init__(self) -> None:
        self.rows: Counter[Check] = Counter(dict.fromkeys(Check, 0))
        self.faults: Counter[Check] = Counter()
        self.remarks: Counter[Check] = Counter()
        self.statuses: Counter[str] = Counter()
        self.head = Head(0, b"")
        self.sealed_from: int | None = None
        # Numbers that no row has: what retention took, and on a server what was never a row.
        self.absent = 0

    def count(self, finding: Finding) -> Finding:
        (self.faults if finding.fault else self.remarks)[finding.check] += 1
        return finding
