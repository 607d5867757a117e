"""The operators: all of them, and one with how it goes, what it is set to and what was done to it."""

import json
from typing import NamedTuple

from starlette.responses import Response

from dispatcher.console.charts import Tally, by_operator, chart, lately, tally
from dispatcher.console.desk import Page, Visit
from dispatcher.console.guard import told
from dispatcher.console.seen import Seen, seen, seen_of
from dispatcher.console.view import View
from dispatcher.ground.account import Power
from dispatcher.ground.clock import HOUR, MINUTE
from dispatcher.ground.errors import Unfit
from dispatcher.ground.policy import Status
from dispatcher.store import operators as store
from dispatcher.store.counts.glance import MOST, Heap, Queue
from dispatcher.store.fingerprints import key_history
from dispatcher.store.ledger import Filter, Row
from dispatcher.store.operators import Doors, Standing
from dispatcher.web.reading import note as note_of

ALL = "/console/operators"
# So many of the newest are looked through for one that failed.
LOOKED_INTO = 50
SHOWN_ACTIONS = 50


class Line(NamedTuple):
    """One operator in the list. `fault`: why its settings can't be used."""

    name: str
    state: str
    standing: Standing
    hour: Tally
    waiting: Heap | None
    due: Queue | None
    dead: Heap | None
    fault: str | None


def _line(visit: Visit, found: Seen, name: str, hour: Tally) -> Line:
    standing, fault = found.states[name], visit.desk.roster().faults.get(name)
    state = standing.doors if fault is None else Doors.UNFIT
    heaps = (found.heaps.get(name), found.due.get(name), found.graves.get(name))
    return Line(name, state, standing, hour, *heaps, fault)


async def show_all(visit: Visit) -> Response:
    found = await seen(visit)
    hours = by_operator(found.hour)
    lines = [_line(visit, found, name, hours.get(name, Tally())) for name in sorted(found.states)]
    return visit.page("operators.html", lines=lines, most=MOST)


def _named(visit: Visit, found: Seen) -> str | None:
    """The operator that the address names; None where there is none in force, or it is not theirs to see."""
    name: str = visit.request.path_params["name"]
    return name if name in found.states else None


async def show(visit: Visit) -> Response:
    desk, database = visit.desk, visit.desk.database
    name = _named(visit, await seen(visit))
    if name is None:
        return told(visit, "no_operator", 404)
    found = await seen_of(desk, name)
    now = desk.clock.now()
    last = await desk.remember(("last", name), 3.0, lambda: _last_fault(View(database, visit.viewer), name))
    done = await desk.ask(store.done_to, database, name, SHOWN_ACTIONS)
    keys = await desk.ask(key_history, database, name)
    member = desk.roster().members.get(name)
    settings = None if member is None else json.dumps(member.settings(), indent=2, ensure_ascii=False)
    return visit.page(
        "operator.html",
        one=_line(visit, found, name, tally(found.hour)),
        drawn=chart(found.hour, *lately(now, HOUR, MINUTE)),
        last=last,
        settings=settings,
        operator=None if member is None else member.operator,
        keys=keys[::-1],
        done=done[::-1],
        most=MOST,
    )


def _last_fault(view: View, name: str) -> Row | None:
    """The newest delivery of those that failed last, and wait or are dead."""
    rows = [
        row
        for status in (Status.PENDING, Status.DEAD)
        for row in view.find(Filter(operator=name, status=status), LOOKED_INTO)
        if row.reason is not None
    ]
    return max(rows, key=lambda row: row.place, default=None)


async def ask(visit: Visit) -> Response:
    """What is about to be done, and why: a page of its own, so that nothing is stopped by a slip."""
    name = _named(visit, await seen(visit))
    return told(visit, "no_operator", 404) if name is None else _asking(visit, name, None)


def _asking(visit: Visit, name: str, wrong: str | None, status: int = 200) -> Response:
    verb = visit.request.url.path.rpartition("/")[2]
    return visit.page("operator_turn.html", status, name=name, verb=verb, wrong=wrong)


async def pause(visit: Visit) -> Response:
    return await _turn(visit, "pause")


async def resume(visit: Visit) -> Response:
    return await _turn(visit, "resume")


async def _turn(visit: Visit, verb: str) -> Response:
    """As `dispatcher operators pause` and `resume` do it; a running daemon takes it up at once."""
    desk = visit.desk
    name = _named(visit, await seen(visit))
    if name is None:
        return told(visit, "no_operator", 404)
    try:
        note = note_of(await visit.field("note"))
    except Unfit:
        return _asking(visit, name, visit.look.t["note_wrong"], 422)
    turn = store.pause if verb == "pause" else store.resume
    changed = await desk.ask(turn, desk.database, name, visit.actor, note, desk.clock.now())
    desk.forget()
    if changed:
        desk.database.ring()
        desk.log.info("operator_turned", operator=name, did=verb, by=visit.viewer.name)
    word = f"operator_{verb}d" if changed else "operator_unchanged"
    return visit.go(f"{ALL}/{name}?told={word}")


PAGES = (
    Page("GET", ALL, Power.VIEW, show_all),
    Page("GET", f"{ALL}/{{name}}", Power.VIEW, show),
    Page("GET", f"{ALL}/{{name}}/pause", Power.STEER, ask),
    Page("POST", f"{ALL}/{{name}}/pause", Power.STEER, pause),
    Page("GET", f"{ALL}/{{name}}/resume", Power.STEER, ask),
    Page("POST", f"{ALL}/{{name}}/resume", Power.STEER, resume),
)
