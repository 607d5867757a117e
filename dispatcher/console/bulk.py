"""Bulk replays: all dead letters that fit a filter, sent again at a pace by a job that goes on without its page."""

import re
from typing import Any

from starlette.responses import Response

from dispatcher.console.delivery import note_of, number_of
from dispatcher.console.desk import Page, Visit
from dispatcher.console.sieve import Sieve, sieve_of
from dispatcher.console.view import View
from dispatcher.ground.account import Power
from dispatcher.ground.policy import Status
from dispatcher.store.replays import MOST_PACE, TURNS, Counted, NotNow, Replay, State, Which
from dispatcher.web.problem import Kind, Problem

PATH = "/console/replays"
PACE = 20
NEWEST = 50


def which_of(sieve: Sieve) -> Which | None:
    """The filter as a job has it; None for one that a job can't have: by game, business or order."""
    where = sieve.where
    if sieve.sifts or where.key is not None:
        return None
    # Without a beginning: all that is dead at this moment, however old.
    return Which(where.operator, where.type, where.uid, where.reason, where.since or 0, where.until)


async def plan(visit: Visit, sieve: Sieve, which: Which, status: int = 200, **more: object) -> Response:
    """What a job would come by, and the form that makes one; `more`: what was written into one that was refused."""
    view, now = View(visit.desk.database, visit.viewer), visit.desk.clock.now()
    counted: Counted = await visit.desk.ask(view.count, which, now)
    values: dict[str, Any] = {
        "counted": counted,
        "query": sieve.query(),
        "back": f"/console/dead?{sieve.query()}",
        "pace": str(PACE),
        "most": MOST_PACE,
        "note": "",
        "faults": (),
    }
    return visit.page("bulk_plan.html", status, **(values | more))


async def make(visit: Visit) -> Response:
    now = visit.desk.clock.now()
    sieve = sieve_of(await visit.field("filter"), now, visit.look.language, status=Status.DEAD)
    which = None if sieve.faults else which_of(sieve)
    if which is None:
        raise Problem(Kind.INVALID, visit.look.t["unfit_filter"])
    pace, given = await visit.field("pace"), await visit.field("note")
    note = note_of(given)
    fits = re.fullmatch("[0-9]{1,5}", pace, re.ASCII) and 1 <= int(pace) <= MOST_PACE
    faults = [name for name, fine in (("pace", fits), ("note", note is not None)) if not fine]
    if faults:
        return await plan(visit, sieve, which, 422, pace=pace[:20], note=given[:4_000], faults=faults)
    view = View(visit.desk.database, visit.viewer)
    if await visit.field("even_superseded") == "yes":
        which = which._replace(even_superseded=True)
    try:
        job: Replay = await visit.desk.ask(view.make, which, int(pace), note, now)
    except NotNow as error:
        raise Problem(Kind.NOT_NOW, str(error)) from None
    visit.desk.log.info("console_replay_made", account=visit.viewer.name, replay=job.id, total=job.total)
    return visit.go(f"{PATH}/{job.id}")


async def list_(visit: Visit) -> Response:
    view, now = View(visit.desk.database, visit.viewer), visit.desk.clock.now()
    jobs: list[Replay] = await visit.desk.ask(view.jobs, NEWEST)
    return visit.page("bulk_list.html", jobs=[shown(job, now) for job in jobs])


async def show(visit: Visit) -> Response:
    view, now = View(visit.desk.database, visit.viewer), visit.desk.clock.now()
    job = await _job(visit, view)
    offered = {"pause": State.RUNNING, "resume": State.PAUSED}
    verbs = [verb for verb in TURNS if offered.get(verb, job.state) == job.state]
    live = job.state in (State.RUNNING, State.PAUSED)
    may = live and visit.may(Power.MEND)
    return visit.page("bulk.html", job=shown(job, now), live=live, verbs=verbs if may else [])


async def _job(visit: Visit, view: View) -> Replay:
    job: Replay | None = await visit.desk.ask(view.job, number_of(visit))
    if job is None:
        raise Problem(Kind.NOT_FOUND, visit.look.t["no_replay"])
    return job


def shown(job: Replay, now: int) -> dict[str, Any]:
    """A job as its page tells it; `state` is a badge's, and `share` how much of it is done, in percent."""
    seen = job.taken + job.refused
    waits = job.state is State.RUNNING and not job.driven(now)
    chosen = [(name, value) for name, value in job.which.values().items() if name not in ("since", "until", "keys")]
    return {
        **job._asdict(),
        "state": "undriven" if waits else str(job.state),
        "left": job.left,
        "rate": None if job.rate is None else f"{job.rate:.1f}",
        "ends_at": job.ends_at(now),
        "share": 100 if not job.left else min(99, 100 * seen // max(1, job.total)),
        "chosen": chosen,
        "since": job.which.since or None,
        "until": job.which.until,
    }


async def turn(visit: Visit) -> Response:
    verb = await visit.field("do")
    if verb not in TURNS:
        raise Problem(Kind.NOT_FOUND, visit.look.t["no_page"])
    view = View(visit.desk.database, visit.viewer)
    job = await _job(visit, view)
    try:
        await visit.desk.ask(view.turn, job, verb, visit.desk.clock.now())
    except NotNow as error:
        raise Problem(Kind.NOT_NOW, str(error)) from None
    return visit.go(f"{PATH}/{job.id}")


PAGES = (
    Page("GET", PATH, Power.VIEW, list_),
    Page("POST", f"{PATH}/make", Power.MEND, make),
    Page("GET", f"{PATH}/{{id}}", Power.VIEW, show),
    Page("POST", f"{PATH}/{{id}}/turn", Power.MEND, turn),
)
