"""The front page: what needs a person, at a glance."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from starlette.responses import Response

from dispatcher.console.charts import Tally, by_operator, chart, lately, tally
from dispatcher.console.desk import Page, Visit
from dispatcher.console.seen import Seen, seen
from dispatcher.console.view import View
from dispatcher.ground.account import Power
from dispatcher.ground.clock import DAY, HOUR, MINUTE
from dispatcher.ground.policy import Status
from dispatcher.store.counts.glance import MOST
from dispatcher.store.ledger import Filter

QUARTER = 15 * MINUTE
# Of the newest dead letters so many are looked into.
LOOKED_INTO = 200
# So long an operator may be paused before one is reminded of it.
FORGOTTEN = HOUR
# An operator fails throughout when so many attempts in a quarter of an hour had no success among them.
FEW = 3


class Need(NamedTuple):
    """One thing that needs a person: how bad (bad, warn), the word that says what, its values, where one looks."""

    kind: str
    word: str
    about: str
    values: Mapping[str, object]
    path: str


async def show(visit: Visit) -> Response:
    desk, operator = visit.desk, visit.viewer.operator
    now, found = desk.clock.now(), await seen(visit)
    where, view = Filter(status=Status.DEAD, operator=operator), View(desk.database, visit.viewer)
    newest = await desk.remember(("newest", operator), 3.0, lambda: list(view.find(where, LOOKED_INTO)))
    doubtful = sum(bool(row.ambiguous) for row in newest)
    return visit.page(
        "front.html",
        needs=[*_needs(visit, found, now)],
        found=found,
        doubtful=doubtful,
        most=MOST,
        waiting=found.waiting,
        dead=found.dead,
        hour=tally(found.hour),
        charts=[
            ("hour", chart(found.hour, *lately(now, HOUR, MINUTE))),
            ("day", chart(found.day, *lately(now, DAY, QUARTER))),
        ],
    )


def _needs(visit: Visit, found: Seen, now: int) -> Iterator[Need]:
    """The worst first."""
    yield from _faults(visit)
    if not found.hands and visit.viewer.operator is None:
        yield Need("bad", "no_worker", "", {}, "")
    if found.dead:
        fresh = found.fresh
        counts = {"fresh": _some(fresh), "all": _some(found.dead), "oldest": found.oldest_dead}
        yield Need("bad" if fresh else "warn", "are_dead", "", counts, "/console/dead")
    for name, one in sorted(_failing(found, now).items()):
        why = {"attempts": one.attempts, "reason": one.reason}
        yield Need("bad", "fails", name, why, f"/console/operators/{name}")
    for name, state in sorted(found.states.items()):
        if state.held_at is not None:
            yield Need("warn", "is_held", name, {"since": state.held_at}, f"/console/operators/{name}")
        if state.paused_at is not None:
            word = "is_paused_long" if now - state.paused_at > FORGOTTEN else "is_paused"
            yield Need("warn", word, name, {"since": state.paused_at}, f"/console/operators/{name}")
    for name, queue in sorted(found.due.items()):
        if queue.late and found.is_open(name):
            values = {"count": _some(queue.late), "since": queue.earliest}
            yield Need("warn", "is_late", name, values, f"/console/operators/{name}")


def _faults(visit: Visit) -> Iterator[Need]:
    """What keeps this process from its work; to an operator's people only what is theirs."""
    bound = visit.viewer.operator
    for name, fault in sorted(visit.desk.faults().items()):
        if bound is None or name == f"operator {bound}":
            yield Need("bad", "fault", name, {"fault": fault}, "")


def _failing(found: Seen, now: int) -> dict[str, Tally]:
    """Those to whom nothing was delivered in the last quarter of an hour, though it was tried."""
    tallies = by_operator(row for row in found.hour if row.at > now - QUARTER)
    return {name: one for name, one in tallies.items() if one.attempts >= FEW and not one.delivered}


def _some(count: int) -> str:
    """Counting ends somewhere."""
    return f"{count:,}+" if count >= MOST else f"{count:,}"


PAGES = (Page("GET", "/console", Power.VIEW, show),)
