"""What the row of a delivery, its attempts and its journal entries must say of one another; each a proof by itself.

`decided` are the attempts that were not late, by number; `done` what was done to the delivery by hand, in order. Every
proof gives what is wrong as sentences. What the corridor's rules allow is no fault: a late attempt while its claim is
under way in another hand, a put-off that leaves its reason behind.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any

from sqlalchemy import Row

from dispatcher.ground.policy import Reason, Status, Trigger, Verb

ENDED = (Status.DELIVERED, Status.DEAD, Status.RESOLVED)
_AMBIGUOUS = frozenset(reason.value for reason in Reason if reason.ambiguous)


class Check(StrEnum):
    """What is looked at; each has its count of rows and its faults."""

    INTEGRITY = "integrity"
    STATUS = "status"
    COUNTS = "counts"
    NUMBERS = "numbers"
    ATTEMPTS = "attempts"
    DELIVERED = "delivered"
    DEAD = "dead"
    RESOLVED = "resolved"
    REPLAYED = "replayed"
    AMBIGUOUS = "ambiguous"
    LATE = "late"
    TIMES = "times"
    CONTENT = "content"
    ORPHANS = "orphans"
    CLAIMS = "claims"
    LINES = "lines"
    KEYS = "keys"
    OPERATORS = "operators"
    API_KEYS = "api_keys"
    ACCOUNTS = "accounts"
    JOURNAL = "journal"


def status(row: Row[Any]) -> Iterator[str]:
    if row.status not in set(Status):
        yield f"its status is {row.status}, which there is not"
    if (row.status == Status.PENDING) != (row.due_at is not None):
        yield f"it is {row.status} and {'has no' if row.due_at is None else 'has a'} due time"
    held = {row.token is None, row.worker is None, row.claimed_at is None}
    if held != {row.status != Status.SENDING}:
        yield f"it is {row.status}, and its claim says otherwise"
    if (row.status in ENDED) != (row.finished_at is not None):
        yield f"it is {row.status} and {'has no' if row.finished_at is None else 'has an'} end"
    if row.attempts < row.run_from + row.probes:
        yield "its run begins after its last attempt"
    if row.in_line and row.status in (Status.DELIVERED, Status.RESOLVED):
        yield f"it is {row.status} and stands in a line"
    if (row.in_line and row.sequence is None) or (row.parked and not (row.in_line and row.status == Status.PENDING)):
        yield "its place in a line can't be"


def attempts(row: Row[Any], decided: Sequence[Row[Any]]) -> Iterator[str]:
    """Those that decided are 1 to n; one that is under way is counted and not recorded yet."""
    wanted = row.attempts - (row.status == Status.SENDING)
    numbers = [one.n for one in decided]
    if numbers != list(range(1, wanted + 1)):
        yield f"it counts {wanted} ended attempts, and has those of number {', '.join(map(str, numbers)) or 'none'}"
    for before, after in pairwise(decided):
        if before.reason is None:
            yield f"attempt {before.n} succeeded, and attempt {after.n} was made all the same"


def end(row: Row[Any], decided: Sequence[Row[Any]], done: Sequence[Row[Any]]) -> Iterator[tuple[Check, str]]:
    last = decided[-1] if decided else None
    if row.status == Status.DELIVERED and (last is None or last.reason is not None or row.reason is not None):
        yield Check.DELIVERED, "it is delivered, and its last attempt did not succeed"
    if row.status != Status.DELIVERED and last is not None and last.reason is None:
        yield Check.DELIVERED, f"its last attempt succeeded, and it is {row.status}"
    if row.status in (Status.DEAD, Status.RESOLVED) and (last is None or row.reason != last.reason):
        why = "none" if last is None else last.reason
        yield Check(row.status), f"it died of {row.reason}, its last attempt failed for {why}"
    if row.status == Status.RESOLVED:
        if not done or done[-1].verb != Verb.RESOLVE:
            yield Check.RESOLVED, "it is resolved, and the journal has nobody who did that"
        elif done[-1].at != row.finished_at:
            yield Check.RESOLVED, "it was resolved at another time than the journal says"
    elif (its_own := _since(row, done)) and its_own[-1].verb == Verb.RESOLVE:
        yield Check.RESOLVED, f"the journal says that it was resolved, and it is {row.status}"


def _since(row: Row[Any], done: Sequence[Row[Any]]) -> list[Row[Any]]:
    """What is accused of must have been done to this row: a file gives a number again whose row retention deleted."""
    return [one for one in done if one.at >= row.accepted_at]


def replays(row: Row[Any], decided: Sequence[Row[Any]], done: Sequence[Row[Any]]) -> Iterator[str]:
    told = sum(one.verb == Verb.REPLAY for one in done)
    if row.run_from > 0 and not told:
        yield f"its run begins after attempt {row.run_from}, and the journal has nobody who replayed it"
    if row.run_from == 0 and any(one.verb == Verb.REPLAY for one in _since(row, done)):
        yield "the journal says that it was replayed, and its run begins with the first attempt"
    again = sum(one.trigger == Trigger.REPLAY for one in decided)
    if again > told:
        yield f"{again} attempts were made by a replay, and the journal has {told}"


def ambiguous(row: Row[Any], made: Sequence[Row[Any]], decided: Sequence[Row[Any]]) -> Iterator[str]:
    doubtful = row.status != Status.DELIVERED and any(one.ambiguous for one in decided)
    if bool(row.ambiguous) != doubtful:
        told = "marked" if row.ambiguous else "not marked"
        yield f"it is {told} as one that the operator may have booked, and its attempts say otherwise"
    for one in made:
        if bool(one.ambiguous) != (one.reason in _AMBIGUOUS):
            yield f"attempt {one.n} failed for {one.reason}, and its mark says otherwise"


def late(row: Row[Any], made: Sequence[Row[Any]], decided: Sequence[Row[Any]]) -> Iterator[str]:
    """Beside one that decided, or will: the claim under way, which somebody took over."""
    numbers = {one.n for one in decided} | ({row.attempts} if row.status == Status.SENDING else set())
    for one in made:
        if one.late and one.n not in numbers:
            yield f"attempt {one.n} came late, and there is none that decided in its place"


def times(row: Row[Any], decided: Sequence[Row[Any]]) -> Iterator[str]:
    at = row.accepted_at
    for one in decided:
        if one.started_at < at:
            yield f"attempt {one.n} began before what came before it: a clock was set back, or a row was altered"
            return
        at = one.started_at
    if row.finished_at is not None and row.finished_at < at:
        yield "it ended before its last attempt began: a clock was set back, or a row was altered"
