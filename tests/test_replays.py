"""Bulk replays in the store: which dead letters a job takes, once each, at what pace, and what it refuses."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.event as listening
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from dispatcher.ground.clock import HOUR, MILLISECOND, MINUTE, SECOND
from dispatcher.ground.errors import Refused
from dispatcher.ground.policy import Reason, Verb
from dispatcher.store import acceptance, ledger, replay_steps, replays
from dispatcher.store.engine import Database
from dispatcher.store.journal import entries_of
from dispatcher.store.migrate import migrate
from dispatcher.store.proof.audit import audit
from dispatcher.store.proof.findings import Scope, Seen
from dispatcher.store.replay_steps import ROOM, Step, most_at_once, step
from dispatcher.store.replays import NotNow, Refusal, Replay, State, Which
from dispatcher.store.schema import journal
from tests.graves import bury, dead
from tests.ground import NOW
from tests.plans import asked, plan, read
from tests.stores import STORES, trap, untrap
from tests.test_line import accept as accept_in_line
from tests.test_line import dies, go, of, yes
from tests.test_migrations import inside, place  # noqa: F401 - a fixture
from tests.workshop import MovedClock, accept, event, failed, row, rows, settle, settled, take

pytestmark = pytest.mark.each_store

LATER = NOW + MINUTE
ALL = Which(since=NOW - HOUR)


def make(database: Database, which: Which = ALL, pace: int = 1_000, now: int = LATER) -> Replay:
    return replays.make(database, which, pace, "ada", "the operator was down", now)


def drive(database: Database, clock: MovedClock, *, until: int | None = None) -> list[Step]:
    """Steps, each when it is due, until no job runs or the time has come; what they replay is delivered meanwhile."""
    steps: list[Step] = []
    while (until is None or clock.now() < until) and (stepped := step(database, clock.now())) is not None:
        steps.append(stepped)
        assert len(steps) < 1_000, "it never ends"
        clock.move(stepped.wait)
        for operator in ("acme", "bolt", "coin"):
            done = [settled(claim, clock.now()) for claim in take(database, clock.now(), 1_000, operator)]
            settle(database, *done, now=clock.now())
    return steps


def found(database: Database, job: Replay) -> Replay:
    known = replays.find(database, job.id)
    assert known is not None
    return known


def ended(database: Database, job: Replay) -> Replay:
    """The job when it is done."""
    drive(database, MovedClock(LATER))
    known = found(database, job)
    assert known.state is State.DONE
    return known


def replayed(database: Database) -> list[str]:
    """Whose replay the journal has, in order, by key."""
    with database.reading() as connection:
        query = "SELECT key FROM journal WHERE verb = 'replay' ORDER BY n"
        return [key for (key,) in connection.execute(text(query))]


def faults(database: Database) -> list[str]:
    """What the audit finds wrong, but for attempts: these dead letters were made without."""
    with database.reading() as connection:
        seen = Seen()
        found = audit(connection, {}, Scope(), lambda *_: None, LATER, lambda *_: None, seen)
        return [one.told for one in found if one.fault and one.check in ("replayed", "lines", "operators")]


# Which.


def test_a_job_takes_each_dead_letter_that_fits_once_and_is_done(database: Database) -> None:
    dead(database, *range(250))
    accept(database, "live")
    job = make(database)
    assert (job.state, job.total, job.taken, job.left) == (State.RUNNING, 250, 0, 250)
    known = ended(database, job)
    assert (known.taken, known.refused, known.left, known.finished_at) == (250, 0, 0, known.updated_at)
    assert sorted(replayed(database), key=int) == [str(key) for key in range(250)]
    assert {one.status for one in rows(database)} == {"delivered"}
    assert step(database, LATER) is None
    assert faults(database) == []


def test_each_replay_is_noted_with_who_made_the_job_why_and_its_number(database: Database) -> None:
    dead(database, 1)
    job = ended(database, make(database))
    with database.reading() as connection:
        (entry,) = entries_of(connection, row(database).id)
    assert (entry.verb, entry.actor, entry.note) == (Verb.REPLAY, "ada", f"replay {job.id}: the operator was down")


def test_a_replayed_one_is_due_at_once_with_its_whole_schedule_before_it(database: Database) -> None:
    bury(database, 1)
    make(database)
    step(database, LATER)
    (claim,) = take(database, LATER)
    assert (claim.attempt, claim.run_from, claim.due_at) == (5, 4, LATER)


@pytest.mark.parametrize(
    ("which", "keys"),
    [
        (ALL, ["1", "2", "3", "4"]),
        (Which(since=0), ["1", "2", "3", "4"]),
        (ALL._replace(operator="acme"), ["1", "2", "4"]),
        (ALL._replace(operator="nobody"), []),
        (ALL._replace(type="notice"), ["1", "2", "3", "4"]),
        (ALL._replace(type="settle"), []),
        (ALL._replace(uid="player-2"), ["2"]),
        (ALL._replace(reason="read_timeout"), ["1", "2", "3", "4"]),
        (ALL._replace(reason="dns"), []),
        (Which(since=NOW + SECOND), ["4"]),
        (Which(since=NOW, until=NOW + SECOND), ["1", "2", "3"]),
        (Which(operator="acme", keys=("1", "4")), ["1", "4"]),
    ],
    ids=str,
)
def test_the_dry_run_counts_what_the_job_takes(database: Database, which: Which, keys: list[str]) -> None:
    dead(database, 1)
    dead(database, 2, uid="player-2")
    dead(database, 3, operator="bolt")
    dead(database, 4, at=NOW + SECOND)
    assert replays.count(database, which, LATER) == (len(keys), 0)
    if keys:
        assert ended(database, make(database, which)).taken == len(keys)
    else:
        with pytest.raises(NotNow, match="no dead letter fits"):
            make(database, which)
    assert sorted(replayed(database)) == keys


def test_what_does_not_fit_is_passed_over_however_much_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_steps, "LOOK", 7)
    dead(database, *range(30), uid="player-2")
    dead(database, 30)
    dead(database, *range(31, 60), uid="player-2")
    make(database, ALL._replace(uid="player-1"), pace=20)
    steps = drive(database, MovedClock(LATER))
    assert [one.taken for one in steps if one.taken] == [1]
    assert len(steps) == 9, "seven at a time"
    assert replayed(database) == ["30"]


def test_what_dies_again_is_not_replayed_again_by_the_same_job(database: Database) -> None:
    dead(database, *range(60))
    job, clock = make(database, pace=100), MovedClock(LATER)
    while (stepped := step(database, clock.now())) is not None:
        for claim in take(database, clock.now()):
            one = failed(claim, clock.now())
            settle(database, one._replace(verdict=one.verdict._replace(verb=Verb.BURY, due_at=None)), now=clock.now())
        clock.move(stepped.wait)
    assert found(database, job).taken == 60
    assert Counter(replayed(database)).most_common(1)[0][1] == 1
    assert {one.status for one in rows(database)} == {"dead"}
    assert make(database, now=clock.now() + 1).total == 60


def test_what_died_after_the_job_was_made_is_another_jobs(database: Database) -> None:
    dead(database, 1, at=NOW)
    dead(database, 2, at=LATER)
    assert ended(database, make(database)).taken == 1
    assert replayed(database) == ["1"]
    job = ended(database, make(database, Which(operator="acme", keys=("2",)), now=LATER))
    assert [one.why for one in job.refusals] == [replay_steps._ANEW]


def test_what_somebody_replays_or_resolves_meanwhile_is_left_to_them(database: Database) -> None:
    dead(database, 1, 2, 3)
    job = make(database)
    ledger.replay(database, [row(database, 1)], "eve", LATER)
    ledger.resolve(database, [row(database, 2)], "eve", "agreed", LATER)
    known = ended(database, job)
    assert (known.total, known.taken, known.refused, known.left) == (3, 1, 0, 0)
    assert faults(database) == []


# What is refused.


def test_of_keys_whatever_is_not_dead_is_refused_with_the_reason(database: Database) -> None:
    dead(database, "dead", "done", "gone", "both", at=NOW)
    ledger.resolve(database, [row(database, "gone")], "eve", "agreed", NOW)
    ledger.replay(database, [row(database, "done")], "eve", NOW)
    settle(database, *(settled(claim, NOW) for claim in take(database)))
    accept(database, "flying")
    take(database)
    accept(database, "waiting", now=NOW + HOUR)
    acceptance.accept(database, [event("both")._replace(type="other")], NOW + HOUR)
    keys = ("dead", "done", "gone", "both", "flying", "waiting", "absent", "dead")
    which = Which(operator="acme", keys=keys)
    assert replays.count(database, which, LATER) == (7, 6)
    job = ended(database, make(database, which))
    assert (job.total, job.taken, job.refused) == (7, 1, 6)
    why = {one.key: one.why for one in job.refusals}
    assert why["done"] == "it is delivered: the operator has said yes"
    assert why["gone"] == "it is resolved: replay it by itself, if that is meant"
    assert why["flying"] == "an attempt is in flight; wait until it has ended"
    assert why["waiting"].startswith("it is not dead: its next attempt is due at")
    assert why["absent"] == "there is no such delivery"
    assert why["both"] == "it stands under notice and other: name the type"
    assert Refusal("acme", "notice", "done", why["done"]) in job.refusals
    by_type = ended(database, make(database, Which(operator="acme", type="notice", keys=("both",))))
    assert by_type.taken == 1


def test_of_many_that_are_refused_the_first_are_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_steps, "KEPT", 3)
    dead(database, 1)
    job = ended(database, make(database, Which(operator="acme", keys=("1", "a", "b", "c", "d")), pace=20))
    assert (job.refused, [one.key for one in job.refusals]) == (4, ["a", "b", "c"])


def overtaken(database: Database) -> None:
    """The first of a line is dead and was in nobody's way: the second one was delivered."""
    accept_in_line(database, of("p1", 1), of("p1", 2), of("p2", 3))
    dies_beside(database, 1, 3)
    assert go(database) == ["2"]


def dies_beside(database: Database, *keys: int) -> None:
    claims = {claim.key: claim for claim in take(database)}
    assert set(claims) == set(map(str, keys))
    for claim in claims.values():
        one = failed(claim, NOW)
        settle(database, one._replace(verdict=one.verdict._replace(verb=Verb.BURY, due_at=None), blocks=False))


@pytest.mark.parametrize("which", [ALL, Which(operator="acme", keys=("1", "3"))], ids=["filter", "keys"])
def test_what_a_later_event_of_its_line_has_overtaken_is_refused(database: Database, which: Which) -> None:
    overtaken(database)
    assert replays.count(database, which, LATER) == (2, 1)
    # One at a time: what was refused is passed by.
    job = ended(database, make(database, which, pace=10))
    assert (job.taken, [(one.key, one.why) for one in job.refusals]) == (1, [("1", replay_steps._TOO_LATE)])
    assert row(database, 1).status == "dead"


@pytest.mark.parametrize("which", [ALL, Which(operator="acme", keys=("1", "3"))], ids=["filter", "keys"])
def test_what_was_overtaken_is_replayed_where_that_is_wanted(database: Database, which: Which) -> None:
    overtaken(database)
    which = which._replace(even_superseded=True)
    assert replays.count(database, which, LATER) == (2, 0)
    assert ended(database, make(database, which)).taken == 2


def test_what_the_operator_may_have_booked_overtakes_too(database: Database) -> None:
    accept_in_line(database, of("p1", 1), of("p1", 2))
    dies_beside(database, 1)
    (second,) = take(database)
    settle(database, settled(second, NOW, None, reason=Reason.READ_TIMEOUT))
    with database.reading() as connection:
        assert connection.execute(text("SELECT key FROM deliveries WHERE superseded = true")).all() == [("1",)]


def test_what_failed_without_a_doubt_overtakes_nobody(database: Database) -> None:
    accept_in_line(database, of("p1", 1), of("p1", 2), of("p1", 3))
    dies_beside(database, 1)
    dies_beside(database, 2)
    dies_beside(database, 3)
    job = ended(database, make(database))
    assert (job.taken, job.refused) == (3, 0)


def test_a_later_one_at_the_head_of_the_line_would_go_out_first(database: Database) -> None:
    accept_in_line(database, of("p1", 1), of("p1", 2))
    dies_beside(database, 1)
    (second,) = take(database)
    settle(database, failed(second, NOW))
    job = ended(database, make(database))
    assert (job.taken, [one.why for one in job.refusals]) == (0, [replay_steps._BEHIND])


def test_one_that_fails_again_behind_one_that_overtook_it_is_overtaken(database: Database) -> None:
    """It was not dead when the later one was delivered, but waited behind it."""
    accept_in_line(database, of("p1", 1), of("p1", 2))
    dies_beside(database, 1)
    (second,) = take(database)
    ledger.replay(database, [row(database, 1)], "ada", NOW)
    settle(database, yes(second))
    dies(database, 1, blocks=False)
    assert replays.count(database, ALL, LATER) == (1, 1)


def test_another_line_overtakes_nobody(database: Database) -> None:
    accept_in_line(database, of("p1", 1), of("p2", 2), of("p1", 3, "bolt"), of(None, 4))
    dies_beside(database, 1, 2, 4)
    accept_in_line(database, of("p2", 5), of(None, 6))
    assert sorted(go(database)) == ["5", "6"]
    settle(database, *(yes(claim) for claim in take(database, operator="bolt")))
    job = ended(database, make(database))
    assert [one.key for one in job.refusals] == ["2"]


def test_of_several_lines_in_one_step_each_goes_out_in_its_order(database: Database) -> None:
    players = ("p1", "p2", None, "p1", "p2", None, "p1")
    accept_in_line(database, *(of(player, key) for key, player in enumerate(players, 1)))
    for some in ((1, 2, 3, 6), (4, 5), (7,)):
        dies_beside(database, *some)
    job = make(database, pace=500)
    stepped = step(database, LATER)
    assert stepped is not None
    assert stepped.taken == 7
    with database.reading() as connection:
        heads = list(connection.scalars(text("SELECT key FROM deliveries WHERE parked = false ORDER BY key")))
    assert heads == ["1", "2", "3", "6"], "of each line one"
    gone = go(database, now=LATER + SECOND)
    assert [key for key in gone if key in "147"] == ["1", "4", "7"]
    assert [key for key in gone if key in "25"] == ["2", "5"]
    assert found(database, job).refused == 0
    assert faults(database) == []


@pytest.mark.parametrize("pace", [10, 30, 1_000])
def test_those_of_one_line_go_out_in_their_order(database: Database, pace: int) -> None:
    accept_in_line(database, *(of("p1", key) for key in range(1, 8)))
    for key in range(1, 8):
        dies(database, key, blocks=False)
    job, clock, gone = make(database, pace=pace), MovedClock(LATER), []
    while (stepped := step(database, clock.now())) is not None:
        clock.move(stepped.wait)
        gone += go(database, now=clock.now())
    assert gone == [str(key) for key in range(1, 8)]
    assert found(database, job).refused == 0
    assert faults(database) == []


def test_a_dead_one_that_blocks_its_line_is_never_overtaken(database: Database) -> None:
    accept_in_line(database, of("p1", 1), of("p1", 2))
    dies(database, 1, blocks=True)
    job, clock = make(database), MovedClock(LATER)
    step(database, clock.now())
    assert go(database, now=LATER) == ["1", "2"]
    assert found(database, job).refused == 0


# At what pace.


def test_those_of_one_step_are_due_one_after_the_other_until_the_next_one(database: Database) -> None:
    dead(database, *range(60))
    make(database, pace=500)
    stepped = step(database, LATER)
    assert stepped is not None
    assert (stepped.taken, stepped.wait) == (50, SECOND // 10)
    due = [len(take(database, LATER + after * MILLISECOND, 100)) for after in (0, 1, 2, 50, 97, 98, 99)]
    assert due == [1, 0, 1, 24, 23, 1, 0]


@pytest.mark.parametrize("pace", [1, 7, 50, 999])
def test_the_pace_is_kept_to_the_step(database: Database, pace: int) -> None:
    dead(database, *range(min(4 * pace, 600)))
    make(database, pace=pace)
    clock = MovedClock(LATER)
    for seconds in (1, 2):
        taken = sum(one.taken for one in drive(database, clock, until=LATER + seconds * SECOND))
        allowed = seconds * pace if seconds == 1 else pace
        assert abs(taken - min(allowed, 600)) <= 2 * most_at_once(pace), (seconds, taken)
        if pace > 100:
            return


def test_nothing_is_made_up_for_after_a_pause_nor_after_an_absence(database: Database) -> None:
    dead(database, *range(400))
    job, clock = make(database, pace=50), MovedClock(LATER)
    drive(database, clock, until=LATER + SECOND)
    replays.pause(database, job.id, "ada", clock.now())
    before = found(database, job).taken
    assert step(database, clock.now()) is None
    clock.move(HOUR)
    replays.resume(database, job.id, "ada", clock.now())
    drive(database, clock, until=clock.now() + SECOND)
    after = found(database, job).taken
    assert 40 <= after - before <= 60
    clock.move(HOUR)
    drive(database, clock, until=clock.now() + SECOND)
    assert found(database, job).taken - after <= 60
    rate = found(database, job).rate
    assert rate is not None
    assert 40 < rate < 60, "the hours in which nobody drove it count for nothing"


def test_a_late_step_is_made_up_for_by_one_step_at_most(database: Database) -> None:
    dead(database, *range(100))
    make(database, pace=100)
    steps = [step(database, at) for at in (LATER, LATER, LATER + 10 * SECOND, LATER + 10 * SECOND)]
    tenth = SECOND // 10
    assert [one and (one.taken, one.wait) for one in steps] == [(10, tenth), (0, tenth), (10, 0), (10, tenth)]


def test_a_clock_that_was_set_back_holds_no_job_up(database: Database) -> None:
    dead(database, *range(20))
    make(database, pace=10)
    drive(database, MovedClock(LATER), until=LATER + SECOND)
    clock = MovedClock(LATER - HOUR)
    steps = drive(database, clock)
    assert sum(one.taken for one in steps) > 5
    assert clock.now() < LATER - HOUR + 3 * SECOND


def test_an_operators_live_deliveries_go_first_and_hold_up_no_other_operators_replay(database: Database) -> None:
    dead(database, *range(30))
    dead(database, *range(30), operator="bolt")
    accept(database, *range(1_000, 1_000 + ROOM), now=LATER)
    job, clock = make(database, pace=100), MovedClock(LATER)
    for _ in range(8):
        stepped = step(database, clock.now())
        assert stepped is not None
        clock.move(stepped.wait)
    assert Counter(one.operator for one in rows(database) if one.status == "pending") == {"acme": ROOM, "bolt": 30}
    assert found(database, job).driven(clock.now())
    settle(database, *(settled(claim, clock.now()) for claim in take(database, clock.now(), 1)), now=clock.now())
    step(database, clock.now())
    assert found(database, job).taken == 31, "as many as came free"
    assert ended(database, job).taken == 60


def test_what_is_parked_or_not_due_yet_takes_nobodys_room(database: Database) -> None:
    dead(database, 1)
    accept_in_line(database, *(of("p1", key) for key in range(10, 20 + ROOM)), now=LATER)
    accept(database, *range(1_000, 1_000 + ROOM), now=LATER + HOUR)
    make(database)
    stepped = step(database, LATER)
    assert stepped is not None
    assert stepped.taken == 1


def test_among_many_operators_without_room_the_one_that_has_some_is_found(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_steps, "_OPERATORS", 1)
    monkeypatch.setattr(replay_steps, "ROOM", 1)
    for operator in ("acme", "bolt", "coin"):
        dead(database, 1, operator=operator)
    for operator in ("acme", "bolt"):
        accept(database, 2, operator=operator, now=LATER)
    make(database)
    clock, taken = MovedClock(LATER), []
    for _ in range(3):
        stepped = step(database, clock.now())
        assert stepped is not None
        taken.append(stepped.taken)
        clock.move(stepped.wait)
    assert taken == [0, 0, 1]


def test_operators_take_turns(database: Database) -> None:
    for operator in ("acme", "bolt", "coin"):
        dead(database, *range(20), operator=operator)
    make(database, pace=50)
    clock = MovedClock(LATER)
    for _ in range(6):
        stepped = step(database, clock.now())
        assert stepped is not None
        clock.move(stepped.wait)
    assert Counter(one.operator for one in rows(database) if one.status == "pending") == dict.fromkeys(
        ("acme", "bolt", "coin"), 10
    )


# Who drives.


def test_of_two_workers_each_takes_what_the_other_has_not(database: Database, tmp_path: Path) -> None:
    dead(database, *range(300))
    make(database, pace=5_000)
    other = STORES.open(tmp_path)
    taken: Counter[int] = Counter()

    def work(who: int, store: Database) -> None:
        now = LATER
        while (stepped := step(store, now)) is not None:
            taken[who] += stepped.taken
            now += SECOND // 10
            settle(store, *(settled(claim, now) for claim in take(store, now, 1_000)), now=now)

    threads = [threading.Thread(target=work, args=one) for one in ((0, database), (1, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    assert sum(taken.values()) == 300
    assert Counter(replayed(database)) == dict.fromkeys(map(str, range(300)), 1)


def test_while_one_worker_makes_a_step_another_passes_it_over(database: Database, store: str, tmp_path: Path) -> None:
    if store == "sqlite":
        # There is one writer at a time.
        return
    dead(database, 1)
    make(database)
    other = STORES.open(tmp_path)
    with other.writing() as connection:
        connection.execute(text("SELECT id FROM replays FOR UPDATE"))
        stepped = step(database, LATER)
        assert stepped is not None
        assert (stepped.id, stepped.taken, stepped.wait) == (None, 0, replay_steps.AGAIN)
    other.close()
    assert step(database, LATER) != stepped


def test_a_step_that_fails_at_its_end_has_replayed_nothing(database: Database) -> None:
    dead(database, *range(10))
    job = make(database)
    trap(database, "BEFORE UPDATE ON replays WHEN (new.taken > 0)", "no")
    with pytest.raises(IntegrityError):
        step(database, LATER)
    untrap(database)
    assert {one.status for one in rows(database)} == {"dead"}
    assert replayed(database) == []
    assert ended(database, job).taken == 10


def test_a_worker_that_cannot_note_replays_nothing(database: Database) -> None:
    dead(database, 1)
    make(database)
    database.notary = None
    with pytest.raises(RuntimeError, match="nobody has opened the vault"):
        step(database, LATER)
    assert row(database).status == "dead"


def test_a_job_that_nobody_drives_says_so(database: Database) -> None:
    dead(database, *range(100))
    job = make(database, pace=10)
    assert not job.driven(LATER)
    assert job.ends_at(LATER) is None
    clock = MovedClock(LATER)
    drive(database, clock, until=LATER + 5 * SECOND)
    job = found(database, job)
    assert job.driven(clock.now())
    ends_at = job.ends_at(clock.now())
    assert ends_at is not None
    assert abs(ends_at - (LATER + 10 * SECOND)) < SECOND
    assert not job.driven(clock.now() + replays.SILENT)


# What a person does.


def test_a_job_is_paused_resumed_and_cancelled_and_the_journal_has_who_did_it(database: Database) -> None:
    dead(database, *range(10))
    job = make(database, ALL._replace(operator="acme"))
    paused = replays.pause(database, job.id, "bob", LATER)
    assert (paused.state, step(database, LATER)) == (State.PAUSED, None)
    assert replays.resume(database, job.id, "cyd", LATER).state is State.RUNNING
    cancelled = replays.cancel(database, job.id, "dan", LATER)
    assert (cancelled.state, cancelled.finished_at, cancelled.left) == (State.CANCELLED, LATER, 0)
    assert step(database, LATER) is None
    with database.reading() as connection:
        done = connection.execute(journal.select().where(journal.c.delivery_id.is_(None)).order_by(journal.c.n))
        noted = [(one.verb, one.actor, one.operator, one.note) for one in done]
    told = f"replay {job.id}: the operator was down"
    assert noted == [
        ("replay_make", "ada", "acme", told),
        ("replay_pause", "bob", "acme", told),
        ("replay_resume", "cyd", "acme", told),
        ("replay_cancel", "dan", "acme", told),
    ]
    assert faults(database) == []


def test_what_cannot_be_done_to_a_job_is_refused_with_its_state(database: Database) -> None:
    dead(database, 1)
    job = make(database)
    with pytest.raises(NotNow, match=f"replay {job.id} is running: it can't be resumed"):
        replays.resume(database, job.id, "ada", LATER)
    ended(database, job)
    for turn, told in ((replays.pause, "paused"), (replays.resume, "resumed"), (replays.cancel, "cancelled")):
        with pytest.raises(NotNow, match=f"replay {job.id} is done: it can't be {told}"):
            turn(database, job.id, "ada", LATER)
        with pytest.raises(Refused, match="there is no replay 987654"):
            turn(database, 987654, "ada", LATER)


@pytest.mark.parametrize(
    ("which", "told"),
    [
        (Which(), "since: is missing; filters are bounded in time"),
        (Which(since=NOW, until=NOW), "until: is not after since"),
        (Which(keys=("1",)), "operator: is missing; say whose keys these are"),
        (Which(operator="acme", keys=("1",), since=NOW, uid="p"), "keys: are given beside uid, since"),
        (Which(operator="acme", keys=tuple(map(str, range(10_001)))), "keys: are 10001; give 10000 at most"),
    ],
    ids=range(5),
)
def test_a_job_that_is_not_clear_is_refused(database: Database, which: Which, told: str) -> None:
    with pytest.raises(Refused, match=told):
        make(database, which)
    assert replays.all_of(database) == []


def test_a_job_wants_a_pace_and_a_reason(database: Database) -> None:
    dead(database, 1)
    for pace in (0, -1, replays.MOST_PACE + 1):
        with pytest.raises(Refused, match=f"pace: {pace} is not from 1 to 5000"):
            make(database, pace=pace)
    with pytest.raises(Refused, match="note: is empty"):
        replays.make(database, ALL, 1, "ada", "  ", LATER)


def test_jobs_are_listed_newest_first_those_of_one_operator_by_themselves(database: Database) -> None:
    dead(database, 1)
    dead(database, 2, operator="bolt")
    jobs = [make(database, ALL._replace(operator=name)) for name in ("acme", "bolt", None)]
    assert [one.id for one in replays.all_of(database)] == [one.id for one in reversed(jobs)]
    assert [one.id for one in replays.all_of(database, "bolt")] == [jobs[1].id]
    assert [one.id for one in replays.all_of(database, most=1)] == [jobs[2].id]
    assert replays.find(database, 987654) is None


# What it costs.


def test_no_step_reads_all_deliveries(database: Database) -> None:
    dead(database, *range(20))
    accept_in_line(database, of("p1", 30), of("p1", 31))
    dies_beside(database, 30)
    with asked(database) as statements:
        replays.count(database, ALL._replace(operator="acme"), LATER)
        replays.count(database, Which(operator="acme", keys=("1", "2")), LATER)
        make(database)
        step(database, LATER)
    assert len(statements) > 8
    for statement, parameters in statements:
        steps = plan(database, statement, parameters)
        # What the statement itself has chosen bears that name, too.
        assert read(database, steps) == (["SCAN d"] if "CO-ROUTINE d" in steps else []), statement


def test_a_step_asks_the_store_no_more_often_for_many_than_for_one(database: Database) -> None:
    """Each question is a chance for the event loop to keep Python's lock, and a way to the server and back."""
    dead(database, *range(101))
    accept_in_line(database, *(of(f"p{key}", key) for key in range(101, 151)))
    dies_beside(database, *range(101, 151))
    counts = []
    for keys in (("100",), tuple(map(str, range(50, 100))), tuple(map(str, range(101, 151)))):
        which = Which(operator="acme", keys=keys)
        make(database, which, pace=500)
        with executed(database) as statements:
            stepped = step(database, LATER)
        assert stepped is not None
        assert (stepped.taken, stepped.done) == (len(keys), True)
        counts.append(len(statements))
    # On a file the journal's entries go in by sixteens, fours and ones.
    assert max(counts) - counts[0] <= 4, counts


@contextmanager
def executed(database: Database) -> Iterator[list[str]]:
    """Every statement meanwhile, as often as it has rows of parameters."""
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        statements.extend([statement] * (len(parameters) if many else 1))

    listening.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        listening.remove(database.engine, "before_cursor_execute", note)


@pytest.mark.sqlite_only
def test_a_replay_walks_along_its_own_index(database: Database) -> None:
    dead(database, 1)
    with asked(database) as statements:
        make(database)
        step(database, LATER)
    steps = [one for statement, parameters in statements for one in plan(database, statement, parameters)]
    assert any("dead_by_number (operator=? AND id>?)" in one for one in steps), steps


# Stores of before.


def test_what_was_overtaken_before_the_upgrade_is_known(place: Any) -> None:  # noqa: F811
    insert = text(
        "INSERT INTO deliveries (operator, type, key, uid, body, digest, sequence, status, accepted_at, finished_at,"
        " attempts, ambiguous) VALUES ('acme', 'notice', :key, 'p', '{}', :digest, :sequence, :status, 1, 1, 1, :doubt)"
    )
    held = [
        ("1", "p1", "dead", False),
        ("2", "p1", "delivered", False),
        ("3", "p1", "dead", False),
        ("4", "p2", "dead", False),
        ("5", "p2", "dead", True),
        ("6", None, "dead", False),
        ("7", None, "delivered", False),
    ]
    with inside(place) as connection:
        migrate(connection, "0004")
        for key, sequence, status, doubt in held:
            values = {"key": key, "sequence": sequence, "status": status, "doubt": doubt, "digest": bytes(32)}
            connection.execute(insert, values)
        migrate(connection)
        late = connection.execute(text("SELECT key FROM deliveries WHERE superseded = true ORDER BY key"))
        assert [key for (key,) in late] == ["1", "4"]
