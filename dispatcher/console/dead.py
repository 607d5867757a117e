"""The dead letters: choosing some, seeing what would become of them, and replaying or resolving them."""

import re
from typing import Any, NamedTuple

from starlette.responses import Response

from dispatcher.console.bulk import plan, which_of
from dispatcher.console.delivery import note_of
from dispatcher.console.desk import Page, Visit
from dispatcher.console.flow import Found, cells, found, listing
from dispatcher.console.sieve import read_pager, read_sieve, sieve_of
from dispatcher.console.view import MOST_AT_ONCE, View
from dispatcher.ground.account import Power
from dispatcher.ground.errors import Refused
from dispatcher.ground.policy import Status, Verb
from dispatcher.store.ledger import Change, Row
from dispatcher.web.problem import Kind, Problem
from dispatcher.web.reading import row_number

PATH = "/console/dead"


async def show(visit: Visit) -> Response:
    """The list, with what was done in the page before."""
    sieve = read_sieve(visit.request, visit.desk.clock.now(), visit.look.language, status=Status.DEAD)
    pager, view = read_pager(visit.request), View(visit.desk.database, visit.viewer)
    page: Found = await visit.desk.ask(found, view, sieve, pager.place)
    more = {"most": MOST_AT_ONCE, "may_mend": visit.may(Power.MEND), "did": _did(visit)}
    return listing(visit, "dead.html", PATH, sieve, pager, page, **more)


def _did(visit: Visit) -> tuple[str, int] | None:
    """What was done, as the address tells it: a number, and nothing that anybody could make it say."""
    for verb in (Verb.REPLAY, Verb.RESOLVE):
        told = visit.request.query_params.get(f"did_{verb}", "")
        if re.fullmatch("[0-9]{1,4}", told, re.ASCII):
            return f"did_{verb}", int(told)
    return None


class Choice(NamedTuple):
    """Rows that somebody chose: what would become of them, how many are not there (any more), and whether more fit."""

    change: Change
    gone: int
    more: bool


async def look(visit: Visit) -> Response:
    """What would be taken, and what refused; nothing is changed."""
    verb, view = await _verb(visit), View(visit.desk.database, visit.viewer)
    form = await visit.form()
    query, take = await visit.field("filter"), await visit.field("take")
    if take == "all":
        sieve = sieve_of(query, visit.desk.clock.now(), visit.look.language, status=Status.DEAD)
        if sieve.faults:
            raise Problem(Kind.INVALID, visit.look.t["unfit_filter"])
        if verb is Verb.REPLAY and (which := which_of(sieve)) is not None:
            return await plan(visit, sieve, which)
        page: Found = await visit.desk.ask(found, view, sieve, None, MOST_AT_ONCE)
        change: Change = await visit.desk.ask(view.sort_out, page.rows, verb)
        choice = Choice(change, 0, page.older is not None)
    else:
        numbers = _numbers(form.get("shown" if take == "page" else "id", []))
        rows: list[Row] = await visit.desk.ask(view.chosen, numbers)
        change = await visit.desk.ask(view.sort_out, rows, verb)
        choice = Choice(change, len(numbers) - len(rows), False)
    return _confirm(visit, verb, choice, query)


def _confirm(visit: Visit, verb: Verb, choice: Choice, query: str, status: int = 200, **more: object) -> Response:
    change = choice.change
    values: dict[str, Any] = {
        "verb": str(verb),
        "taken": [cells(row) for row in change.taken],
        "refused": [(cells(row), why) for row, why in change.refused],
        "gone": choice.gone,
        "more": choice.more,
        "most": MOST_AT_ONCE,
        "back": f"{PATH}?{_clean(visit, query)}",
        "query": _clean(visit, query),
        "done": None,
        "note": "",
        "note_missing": False,
    }
    return visit.page("dead_look.html", status, **(values | more))


async def do(visit: Visit) -> Response:
    """What was shown, and no other rows; what has changed since is sorted out anew, and told."""
    verb, view = await _verb(visit), View(visit.desk.database, visit.viewer)
    query, given = await visit.field("filter"), await visit.field("note")
    numbers = _numbers((await visit.form()).get("id", []))
    rows: list[Row] = await visit.desk.ask(view.chosen, numbers)
    note = note_of(given) if verb is Verb.RESOLVE else None
    if verb is Verb.RESOLVE and note is None:
        change: Change = await visit.desk.ask(view.sort_out, rows, verb)
        choice = Choice(change, len(numbers) - len(rows), False)
        return _confirm(visit, verb, choice, query, 422, note=given[:4_000], note_missing=True)
    now = visit.desk.clock.now()
    if verb is Verb.REPLAY:
        change = await visit.desk.ask(view.replay, rows, now)
    else:
        change = await visit.desk.ask(view.resolve, rows, note, now)
    visit.desk.log.info(f"console_{verb}", account=visit.viewer.name, taken=len(change.taken))
    if change.refused or len(rows) < len(numbers):
        choice = Choice(change, len(numbers) - len(rows), False)
        return _confirm(visit, verb, choice, query, done=len(change.taken))
    return visit.go(f"{PATH}?{_clean(visit, query)}&did_{verb}={len(change.taken)}")


async def _verb(visit: Visit) -> Verb:
    wanted = await visit.field("do")
    if wanted not in (Verb.REPLAY, Verb.RESOLVE):
        raise Refused(visit.look.t["no_page"])
    return Verb(wanted)


def _numbers(texts: list[str]) -> list[int]:
    """Those that are numbers, each once, as many as are taken at once."""
    numbers = dict.fromkeys(known for text in texts if (known := row_number(text)) is not None)
    return list(numbers)[:MOST_AT_ONCE]


def _clean(visit: Visit, query: str) -> str:
    """The filter as an address has it, whatever was sent for it."""
    return sieve_of(query, visit.desk.clock.now(), visit.look.language, status=Status.DEAD).query()


PAGES = (
    Page("GET", PATH, Power.VIEW, show),
    Page("POST", f"{PATH}/look", Power.MEND, look),
    Page("POST", f"{PATH}/do", Power.MEND, do),
)
