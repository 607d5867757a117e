"""One delivery's page: what it is, all that happened to it, what comes next, and what a person can do about it."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.responses import Response

from dispatcher.console.desk import Page, Visit
from dispatcher.console.flow import cells
from dispatcher.console.letter import Letter, letter
from dispatcher.console.view import View
from dispatcher.ground.account import Power
from dispatcher.ground.clock import SECOND, parse_moment
from dispatcher.ground.errors import Unfit
from dispatcher.ground.policy import MOVES, Reason, Status, Verb
from dispatcher.rows import event_of
from dispatcher.store.ledger import Change, Row
from dispatcher.store.operators import Standing
from dispatcher.web.problem import Kind, Problem
from dispatcher.web.reading import note as fit_note
from dispatcher.web.reading import row_number

# A delivery that is tried every minute for hours has hundreds; the others are shown on demand.
NEWEST = 60
NEIGHBOURS = 5


class Told(NamedTuple):
    """All that the store tells of a delivery, at one moment."""

    row: Row
    attempts: Sequence[dict[str, Any]]
    actions: Sequence[dict[str, Any]]
    line: Sequence[Row]
    standing: Standing | None


def _told(view: View, number: int) -> Told | None:
    row = view.numbered(number)
    if row is None:
        return None
    line = view.in_the_way(row, NEIGHBOURS) if row.parked else []
    return Told(row, *view.history(row), line, view.standing(row.operator))


def number_of(visit: Visit) -> int:
    known = row_number(visit.request.path_params["id"])
    if known is None:
        raise Problem(Kind.NOT_FOUND, visit.look.t["no_delivery"])
    return known


async def show(visit: Visit) -> Response:
    return await _page(visit)


async def _page(visit: Visit, status: int = 200, **more: object) -> Response:
    """`more`: what was written into a form that was refused."""
    told: Told | None = await visit.desk.ask(_told, View(visit.desk.database, visit.viewer), number_of(visit))
    if told is None:
        raise Problem(Kind.NOT_FOUND, visit.look.t["no_delivery"])
    row, now = told.row, visit.desk.clock.now()
    entries = timeline(told)
    whole = "all" in visit.request.query_params
    request, fault = _request(visit, row, now)
    values: dict[str, object] = {
        "row": cells(row),
        "event": [(name, _text(value)) for name, value in event_of(row).items()],
        # Those that are numbers on the wire.
        "times": {
            name: value * SECOND for name, value in event_of(row).items() if name == "time" and type(value) is int
        },
        "entries": entries if whole else entries[-NEWEST:],
        "hidden": 0 if whole else max(0, len(entries) - NEWEST),
        "next": _next(told, visit, now),
        "line": [cells(one) for one in told.line],
        "request": request,
        "request_fault": fault,
        "may_replay": _may(visit, row, Verb.REPLAY),
        "may_resolve": _may(visit, row, Verb.RESOLVE),
        "note": "",
        "note_missing": False,
    }
    return visit.page("delivery.html", status, **(values | more))


def _may(visit: Visit, row: Row, verb: Verb) -> bool:
    return visit.may(Power.MEND) and (Status(row.status), verb) in MOVES


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def timeline(told: Told) -> list[dict[str, Any]]:
    """What happened, in order: accepted, every attempt, everything done by hand; `at` in µs."""
    happened: list[dict[str, Any]] = [{"kind": "accepted", "at": told.row.accepted_at}]
    happened += [{**one, "kind": "attempt", "at": parse_moment(one["started_at"], 0)} for one in told.attempts]
    happened += [{**one, "kind": "hand", "at": parse_moment(one["at"], 0)} for one in told.actions]
    # By the millisecond, as they are told; what was done by hand came after an attempt of the same one.
    return sorted(happened, key=lambda one: (one["at"] // 1_000, ("accepted", "attempt", "hand").index(one["kind"])))


def _next(told: Told, visit: Visit, now: int) -> dict[str, Any]:
    """What comes next, by a word, and when, where a time is known."""
    row, standing = told.row, told.standing
    match Status(row.status):
        case Status.DELIVERED | Status.RESOLVED | Status.SENDING as status:
            return {"word": f"now_{status}", "at": None}
        case Status.DEAD:
            final = row.reason == Reason.BODY_FIELD and _was_final(told, visit)
            return {"word": "now_final" if final else "now_dead", "at": None}
    if row.parked:
        return {"word": "now_parked", "at": None}
    if standing is not None and standing.paused_at is not None:
        return {"word": "now_paused", "at": None}
    if row.operator not in visit.desk.operators():
        return {"word": "now_unfit", "at": None}
    if standing is not None and standing.held_at is not None:
        return {"word": "now_held", "at": None}
    assert row.due_at is not None
    return {"word": "now_waits", "at": row.due_at} if row.due_at > now else {"word": "now_due", "at": None}


def _was_final(told: Told, visit: Visit) -> bool:
    operator = visit.desk.operators().get(told.row.operator)
    terms = operator.terms.get(told.row.type) if operator else None
    return bool(terms and told.attempts and told.attempts[-1]["code"] in terms.rule.final)


def _request(visit: Visit, row: Row, now: int) -> tuple[Letter | None, str]:
    """The request as it would be sent now, or why there is none; nothing for what is over."""
    if Status(row.status) in (Status.DELIVERED, Status.RESOLVED):
        return None, ""
    operator = visit.desk.operators().get(row.operator)
    if operator is None:
        return None, visit.look.t["now_unfit"]
    try:
        return letter(operator, row, now), ""
    except Unfit as unfit:
        return None, str(unfit)


async def replay(visit: Visit) -> Response:
    view = View(visit.desk.database, visit.viewer)
    return await _do(visit, view, lambda row: view.replay([row], visit.desk.clock.now()))


async def resolve(visit: Visit) -> Response:
    view, given = View(visit.desk.database, visit.viewer), await visit.field("note")
    note = note_of(given)
    if note is None:
        return await _page(visit, 422, note=given[:4_000], note_missing=True)
    return await _do(visit, view, lambda row: view.resolve([row], note, visit.desk.clock.now()))


def note_of(text: str) -> str | None:
    """The note in one line, as every record of it has it; None where it is none."""
    try:
        return str(fit_note(" ".join(text.split())))
    except Unfit:
        return None


async def _do(visit: Visit, view: View, change: Any) -> Response:
    def done(number: int) -> Change | None:
        row = view.numbered(number)
        return None if row is None else change(row)

    made: Change | None = await visit.desk.ask(done, number_of(visit))
    if made is None:
        raise Problem(Kind.NOT_FOUND, visit.look.t["no_delivery"])
    for _, why in made.refused:
        raise Problem(Kind.NOT_NOW, why)
    return visit.go(f"/console/deliveries/{number_of(visit)}")


PAGES = (
    Page("GET", "/console/deliveries/{id}", Power.VIEW, show),
    Page("POST", "/console/deliveries/{id}/replay", Power.MEND, replay),
    Page("POST", "/console/deliveries/{id}/resolve", Power.MEND, resolve),
)
