"""The wallet-flow log: what was sent for which order, by whatever it is looked for; its totals, and as a file."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from starlette.responses import Response

from dispatcher.console.desk import Page, Visit
from dispatcher.console.sieve import SPANS, ZONES, Pager, Sieve, read_pager, read_sieve, sieve_of
from dispatcher.console.sums import Sum, Totals, as_rows, go_on, opened
from dispatcher.console.view import Place, View
from dispatcher.ground.account import Power
from dispatcher.ground.money import decimal_text
from dispatcher.ground.policy import Reason, Status
from dispatcher.protocols import PROTOCOLS
from dispatcher.rows import amounts, figures
from dispatcher.store.ledger import Row
from dispatcher.web.problem import Kind, Problem

ROWS = 50
# Where rows must be looked into: so many with each page.
MOST_LOOKED = 20_000


class Found(NamedTuple):
    """One page of the log. `older`: where the next one begins; `looked`: how many rows, where not all were looked at

    and the page ends before it is full, and until when (µs).
    """

    rows: list[Row]
    older: Place | None
    looked: tuple[int, int] | None = None


def found(view: View, sieve: Sieve, place: Place | None, size: int = ROWS) -> Found:
    """Newest first. What is in no index is looked for in so many rows, and no further."""
    if sieve.faults:
        return Found([], None)
    if not sieve.sifts:
        rows = list(view.find(sieve.where, size + 1, place))
        return Found(rows[:size], rows[size - 1].place if len(rows) > size else None)
    rows, looked, last = [], 0, None
    for row in view.find(sieve.where, MOST_LOOKED, place):
        looked, last = looked + 1, row
        if sieve.fits(row.type, row.body):
            if len(rows) == size:
                return Found(rows, rows[-1].place)
            rows.append(row)
    if last is not None and looked == MOST_LOOKED:
        return Found(rows, last.place, (looked, last.accepted_at))
    return Found(rows, None)


def amount_columns(kind: str | None) -> Sequence[tuple[str, str]]:
    """(what it is called by a row, the word for it): all of the type's own, or what every type has."""
    if kind is not None and kind in PROTOCOLS:
        return [(name, f"field_{name}") for name in PROTOCOLS[kind].amounts]
    return [("bet", "in_flow"), ("win", "out_flow"), ("net", "net_flow")]


def has_business(kind: str | None) -> bool:
    """Whether rows of this type, or any, may have one."""
    return any("business" in one.columns for name, one in PROTOCOLS.items() if kind in (None, name))


def cells(row: Row) -> dict[str, Any]:
    """What a table shows of a delivery: the row's own, what it is called everywhere, and its amounts."""
    told = {**row._asdict(), **figures(row.type, row.body), **amounts(row)}
    del told["body"]
    if "net" not in told and "bet" in told and "win" in told:
        told["net"] = decimal_text(Decimal(told["win"]) - Decimal(told["bet"]))
    return {**told, "state": "parked" if row.parked else row.status}


def choices(visit: Visit, sieve: Sieve) -> dict[str, Any]:
    """What the form offers. A bound account has no choice of operators."""
    names = sorted(visit.desk.operators()) if visit.viewer.operator is None else []
    given = sieve.given.get("operator")
    return {
        "operators": sorted({*names, *([given] if given and names else [])}),
        "types": list(PROTOCOLS),
        "statuses": list(Status),
        "reasons": list(Reason),
        "spans": SPANS,
        "zones": ZONES if sieve.zone in ZONES else (sieve.zone, *ZONES),
    }


def pager_links(path: str, sieve: Sieve, pager: Pager, page: Found) -> dict[str, str | None]:
    newer = pager.newer()
    return {
        "newest": f"{path}?{sieve.query()}" if pager.place is not None else None,
        "newer": None if newer is None else f"{path}?{sieve.query(**newer)}",
        "older": None if page.older is None else f"{path}?{sieve.query(**pager.older(page.older))}",
    }


async def show(visit: Visit) -> Response:
    sieve = read_sieve(visit.request, visit.desk.clock.now(), visit.look.language)
    pager, view = read_pager(visit.request), View(visit.desk.database, visit.viewer)
    page: Found = await visit.desk.ask(found, view, sieve, pager.place)
    return listing(visit, "flow.html", "/console/flow", sieve, pager, page)


def listing(
    visit: Visit, template: str, path: str, sieve: Sieve, pager: Pager, page: Found, **more: object
) -> Response:
    """A page of rows under their filter: the log, the dead letters."""
    return visit.page(
        template,
        422 if sieve.faults else 200,
        sieve=sieve,
        choices=choices(visit, sieve),
        amounts=amount_columns(sieve.where.type),
        has_business=has_business(sieve.where.type),
        rows=[cells(row) for row in page.rows],
        looked=page.looked,
        links=pager_links(path, sieve, pager, page),
        live=pager.place is None and not sieve.sifts and not sieve.faults,
        **more,
    )


async def totals(visit: Visit) -> Response:
    """One step more of the totals; the page leads on to the next one, until all is added."""
    now, language = visit.desk.clock.now(), visit.look.language
    sieve = read_sieve(visit.request, now, language)
    if sieve.faults:
        raise Problem(Kind.INVALID, visit.look.t["unfit_filter"])
    so_far = Totals(now)
    if sealed := visit.request.query_params.get("so_far"):
        carried = opened(sealed, visit.form_token, sieve.query())
        if carried is None:
            raise Problem(Kind.INVALID, visit.look.t["totals_lost"])
        # The same span of time in every step.
        so_far, sieve = carried, sieve_of(sieve.query(), carried.at, language)
    added: Totals = await visit.desk.ask(go_on, View(visit.desk.database, visit.viewer), sieve, so_far)
    more = None if added.done else sieve.query(so_far=added.sealed(visit.form_token, sieve.query()))
    return visit.page("totals.html", sieve=sieve, totals=added, rows=as_rows(added), whole=_whole(added), more=more)


def _whole(added: Totals) -> dict[str, object] | None:
    """All types together, where there are several."""
    if len(added.sums) < 2:
        return None
    whole = Sum()
    for one in added.sums.values():
        whole.join(one)
    return as_rows(Totals(added.at, sums={"": whole}))[0]


PAGES = (
    Page("GET", "/console/flow", Power.VIEW, show),
    Page("GET", "/console/flow/totals", Power.VIEW, totals),
)
