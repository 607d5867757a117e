"""How many cells: what docs/scaling.md says is what bench.cells reckons, from the costs that stand there."""

import re
from collections import Counter
from dataclasses import fields, replace

import pytest

from bench.cell_costs import Costs, Load, read
from bench.cells import Part, answer, course, down_in, parts, place
from bench.cells_page import PAGE, PICTURE, page, picture

COSTS, WHOLE, ROWS = read()
SMALL = replace(WHOLE, spins=60_000, operators=200, draws=3)
# Whatever is measured next.
GIVEN = replace(COSTS, delivery_us=182.0, failed_us=182.0, accepted_us=59.0)


def test_the_page_and_its_picture_are_what_the_reckoning_gives() -> None:
    told = "run: python -m bench.cells_page"
    assert PAGE.read_text("utf-8") == page(), told
    assert PICTURE.read_text("utf-8") == picture(), told


def test_the_costs_in_the_page_are_those_that_are_reckoned_with() -> None:
    used = {row["key"]: row for row in ROWS if "key" in row}
    assert set(used) == {field.name for field in fields(Costs)}
    shown = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    for key, row in used.items():
        assert float(shown[row["what"]].split()[0].replace(",", "")) == getattr(COSTS, key)


@pytest.mark.parametrize("hangs", [True, False])
@pytest.mark.parametrize("breaker", [True, False])
@pytest.mark.parametrize("minutes", [60, 150])
def test_what_was_accepted_is_delivered_waits_or_is_dead(hangs: bool, breaker: bool, minutes: int) -> None:
    load = replace(SMALL, breaker=breaker, down_for=minutes, probe_s=1e12)
    costs = Costs(delivery_us=1, failed_us=0, accepted_us=0, event_bytes=1, cores=1, usable=1)
    its = course(100.0, hangs, costs, load)
    assert sum(its.work) + its.waiting[-1] + its.dead == pytest.approx(100 * 60 * load.horizon)
    # Who refuses uses up four attempts in 81 minutes; who hangs was tried too seldom, who is held not at all.
    assert bool(its.dead) == (minutes == 150 and not breaker and not hangs)


def test_nothing_is_sent_to_a_held_operator_but_probes() -> None:
    its = course(100.0, False, COSTS, replace(SMALL, probe_s=30.0))
    accepted = 100 * 60 * COSTS.accepted_us
    assert its.work[SMALL.down_from + 1] == accepted + 2 * COSTS.failed_us
    assert its.work[SMALL.down_from + SMALL.down_for] > 2 * its.work[0] - accepted - 1


def test_an_operator_larger_than_a_cell_is_split_over_as_many_cells() -> None:
    every = parts(COSTS, SMALL)
    assert sum(part.rate for part in every) == pytest.approx(SMALL.spins)
    most = SMALL.largest * SMALL.target * COSTS.minute_us / 60 / COSTS.event_us
    assert max(part.rate for part in every) <= most
    pieces = Counter(part.operator for part in every)[0]
    placed = place(every, pieces)
    assert len({cell for part, cell in zip(every, placed, strict=True) if part.operator == 0}) == pieces > 1


def test_two_parts_of_one_operator_share_a_cell_only_where_there_is_no_other() -> None:
    first, other, second = Part(0, 3.0), Part(1, 10.0), Part(0, 1.0)
    assert place([first, other, second], 2) == [0, 1, 1]
    assert place([first, second], 1) == [0, 0]


def test_the_largest_operator_is_down_in_the_first_draw() -> None:
    assert 0 in down_in(0, SMALL)
    assert {len(set(down_in(draw, SMALL))) for draw in range(9)} == {4}


def test_no_cell_is_above_the_target_and_an_outage_costs_cells() -> None:
    quiet, down, bare = (answer(GIVEN, load) for load in (_quiet(SMALL), SMALL, replace(SMALL, breaker=False)))
    assert quiet.cells < down.cells <= bare.cells
    assert max(one.peak for one in (quiet, down, bare)) <= SMALL.target
    assert down.worked_off <= SMALL.worked_off


def test_a_backlog_that_would_not_be_gone_in_time_is_told() -> None:
    with pytest.raises(ValueError, match="raise catch_up"):
        answer(COSTS, replace(SMALL, catch_up=1.2))
    with pytest.raises(ValueError, match="lower largest"):
        answer(COSTS, replace(SMALL, largest=1.0, catch_up=9.0))


def _quiet(load: Load) -> Load:
    return replace(load, down_share=0.0, draws=1)
