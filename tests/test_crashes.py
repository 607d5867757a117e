"""The crash matrix in small: every step once on a file, some on a server, and planted faults that it must find."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crashes.grounds import File, OnServer
from tests.crashes.judge import Attempt, Delivery, Held, Judgement, Kill, Seen, judge
from tests.crashes.matrix import Alone, Crew, Load, schedule
from tests.crashes.points import ADOPT, AMID_SENDING, ANY_MOMENT, CLAIM, INSERT, POINTS, SETTLE, commit_of
from tests.stores import PostgreSQL

# Every step once, on one of its sides.
STEPS = [
    "after insert",
    f"before {commit_of(INSERT)}",
    f"after {commit_of(INSERT)}",
    "before claim",
    f"before {commit_of(CLAIM)}",
    f"after {commit_of(CLAIM)}",
    f"before {commit_of(ADOPT)}",
    "after connect",
    AMID_SENDING,
    "after sending",
    "after reading",
    "after settle",
    f"before {commit_of(SETTLE)}",
    ANY_MOMENT,
]


def test_a_worker_that_dies_at_any_step_loses_nothing_and_sends_twice_only_what_was_in_flight(tmp_path: Path) -> None:
    trial = Alone(File(tmp_path), tmp_path, STEPS, 1, Load(rate=60, refusing=0))
    found = trial.run()
    assert found.faults == []
    assert set(found.tallies) == set(STEPS)
    for point in ("after sending", "after reading"):
        assert found.tallies[point].duplicates > 0, "the operator has the order, and nobody has its answer"
    assert trial.operator.cut > 0, "a head came whose body never did"
    assert found.tallies["after sending"].lasts


def test_beside_another_worker_nobody_has_to_start_anything(tmp_path: Path, postgresql: PostgreSQL) -> None:
    points = [
        f"after {commit_of(CLAIM)}",
        "after sending",
        f"before {commit_of(INSERT)}",
        f"before {commit_of(SETTLE)}",
    ]
    ground = OnServer(postgresql)
    try:
        found = Crew(ground, tmp_path, points, 1, Load(rate=60, crew=2)).run()
    finally:
        ground.close()
    assert found.faults == []
    assert sum(tally.kills for tally in found.tallies.values()) == len(points)
    assert found.tallies["after sending"].lasts


@pytest.mark.parametrize(
    ("plant", "point", "told"),
    [
        ("promise-early", f"before {commit_of(INSERT)}", "lost"),
        ("half-batches", f"before {commit_of(INSERT)}", "batch"),
        ("no-rescue", f"after {commit_of(CLAIM)}", "lost"),
        ("claim-unwritten", "after sending", "unexplained"),
        ("unrecorded", "after sending", "gap"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, plant: str, point: str, told: str) -> None:
    # Without a rescue there is something to wait for in vain.
    patience = 2.0 if plant == "no-rescue" else Load().patience
    found = Alone(
        File(tmp_path), tmp_path, [point], 1, Load(rate=400, patience=patience, plant=plant, refusing=0)
    ).run()
    assert any(fault.startswith(told) for fault in found.faults), found.faults


def test_a_schedule_has_every_point_equally_often() -> None:
    given = schedule(3 * len(POINTS), 7)
    assert {given.count(point) for point in POINTS} == {3}
    assert schedule(40, 7) == given[:40]


# What the verdict is made of: one kill at 10 s, which cut off the first attempt of "1"; "2" was not touched.
KILL = Kill("after sending", 10.0, 11.0, {1: Held("1", 1)})
SEEN = Seen(
    {"1", "2"},
    {"1": [9.5, 12.0], "2": [9.0]},
    [Delivery(1, "1", "delivered", 2, 12.5), Delivery(2, "2", "delivered", 1, 9.5)],
    [Attempt(1, 1, False, "interrupted", True), Attempt(1, 2, False, None, False), Attempt(2, 1, False, None, False)],
)


def judged(seen: Seen = SEEN, *kills: Kill) -> Judgement:
    return judge(kills or [KILL], seen, alone=True)


def test_what_was_in_flight_may_be_booked_twice_and_the_time_until_it_is_back_is_told() -> None:
    found = judged()
    assert found.faults == []
    tally = found.tallies["after sending"]
    assert (tally.kills, tally.lost, tally.duplicates, tally.held) == (1, 0, 1, 1)
    assert (tally.firsts, tally.lasts) == ([1.5], [1.5])


def test_what_was_cut_off_twice_counts_for_the_last_time() -> None:
    again = Kill("before settle", 12.1, 12.2, {1: Held("1", 1)})
    found = judged(SEEN, KILL, again)
    assert found.tallies["after sending"].lasts == []
    assert found.tallies["before settle"].lasts == [pytest.approx(0.3)]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: replace(SEEN, accepted={"1", "2", "3"}), "lost: 1 of those accepted are not delivered: 3"),
        (lambda: replace(SEEN, deliveries=[SEEN.deliveries[0]._replace(status="sending"), SEEN.deliveries[1]]), "lost"),
        (lambda: replace(SEEN, booked={"1": [9.5]}), "unbooked: 1"),
        (lambda: replace(SEEN, attempts=SEEN.attempts[1:]), "gap: of 1"),
        (lambda: replace(SEEN, attempts=[Attempt(1, 1, False, "reset", True), *SEEN.attempts[1:]]), "unmarked: 1"),
        (lambda: replace(SEEN, attempts=[SEEN.attempts[0]._replace(ambiguous=False), *SEEN.attempts[1:]]), "unmarked"),
        (lambda: replace(SEEN, booked={"1": [9.5], "2": [9.0, 12.0]}), "unexplained: 1"),
        (lambda: replace(SEEN, booked={"1": [9.5, 12.0, 12.1], "2": [9.0]}), "unexplained: 1"),
        (
            lambda: replace(SEEN, attempts=[*SEEN.attempts[:2], Attempt(2, 1, False, "interrupted", True)]),
            "1 attempts stand as interrupted that no kill cut off",
        ),
    ],
)
def test_whatever_is_wrong_is_told(wrong: Callable[[], Seen], told: str) -> None:
    faults = judged(wrong()).faults
    assert any(fault.startswith(told) for fault in faults), faults
