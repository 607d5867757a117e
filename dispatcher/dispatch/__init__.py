"""The corridor: claim → seal → post → judge → settle, for as many deliveries at once as the settings allow.

Batches at the database, concurrency at the wire: one store thread makes one transaction after the other, each
settling whatever has finished since the last one and claiming into the places that came free.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from dispatcher.dispatch.attempt import Attempts
from dispatcher.dispatch.changes import Changes
from dispatcher.dispatch.ended import Ended, Heard, interrupted
from dispatcher.dispatch.lane import Lane
from dispatcher.dispatch.outage import Outage
from dispatcher.dispatch.shares import Wish, shares, slow_share
from dispatcher.dispatch.thread import store_threads
from dispatcher.ground.clock import MILLISECOND, SECOND, Clock
from dispatcher.ground.figures import Figures
from dispatcher.ground.policy import Claim, Outcome, Reason, Rule, Verb, Verdict
from dispatcher.store import corridor
from dispatcher.store.corridor import Settlement, Turned
from dispatcher.store.engine import Database
from dispatcher.store.workers import Crew
from dispatcher.telemetry import Log, attempt_line
from dispatcher.tracing import Traces

__all__ = ["Attempts", "Dispatch", "Lane"]


# Claims in one turn. With all free places in one, the store and the wire would wait for each other by turns;
# with too few, the cost of a transaction is shared by too few.
CLAIMED_AT_ONCE = 256
# What falls due within so much of a look at the store (µs) is taken up with what comes meanwhile, or by one look for
# all of it: each of its own would keep the store busy with looks and transactions, before which the next event waits.
GATHER = 10 * MILLISECOND
_BROKE = "a bug of ours: report this line; ask the operator whether it has booked before you replay"


async def _nothing_new(_revision: int) -> None:
    """Where nobody changes operators."""


class Dispatch:
    """Runs deliveries. `arm` is called with the time (µs) at which something will be due that is not due now.

    `refresh` is awaited, between two turns, when the operators in the database are of another revision than `revision`.
    """

    def __init__(
        self,
        database: Database,
        attempts: Attempts,
        clock: Clock,
        log: Log,
        concurrency: int,
        arm: Callable[[int], None],
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.revision = 0
        # Operators whose settings can't be read: that is told by whoever tried to read them.
        self.unfit: Collection[str] = ()
        self.refresh: Callable[[int], Awaitable[None]] = _nothing_new
        self.concurrency = concurrency
        # For whoever asks whether this worker works: when the loop last went round, whether the store is away.
        self.turned_at = time.monotonic()
        self.outage = Outage(log, lambda: len(self._held))
        # What keeps requests from leaving this machine, until one is answered again.
        self.own_fault: str | None = None
        self.figures = Figures()
        self.traces: Traces | None = None
        self._database = database
        self._attempts = attempts
        self._clock = clock
        self._log = log
        self._arm = arm
        self.store, self.beside, self._rests = store_threads(database.place, self.outage)
        self.changes = Changes(self.store, database, log)
        # By id and token, from the claim until it is settled: the attempt, which may have ended already.
        self._held: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.in_flight = 0
        self._done: list[Settlement] = []
        # Attempts that are not settled by what is known of their operators, but by what is read next.
        self._unsure: list[Ended] = []
        self._heard = Heard()
        self._wake = asyncio.Event()
        self._look, self._stopping, self._fed = True, False, set[str]()
        self._rescue_before: int | None = None
        # Those with whom this worker shares the operators' places.
        self.crew = Crew()
        self._unknown: set[str] = set()

    def look(self) -> None:
        """Something may be due: look at the store soon."""
        self._look = True
        self._wake.set()

    def feed(self, operators: Collection[str]) -> None:
        """These have work that is due: claim it soon, without a look at what all the others have.

        Between two turns: one that is under way has not seen that work, and would call them sated.
        """
        self._fed.update(operators)
        self._wake.set()

    def fell_due(self) -> None:
        """The alarm rang: as `look`, unless that was just done; then a little later, if nothing comes before."""
        if self._heard.ago < GATHER / SECOND:
            self._arm(self._clock.now() + GATHER)
        else:
            self.look()

    def join(self, crew: Crew) -> None:
        """So many workers are there now: from now on each operator's places are shared by them."""
        if crew != self.crew:
            self.crew = crew
            self.look()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight has ended and is settled."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Until `stop`. Raises nothing for weather: a store that is away is waited for, results are kept."""
        while True:
            self._wake.clear()
            if await self.step():
                continue
            if self._stopping and not self._held:
                self.close()
                return
            if not self.in_flight:
                self._rests.set()
            await self._wake.wait()
            self._rests.clear()

    def close(self) -> None:
        """When what was asked of the store is done."""
        self.beside.close()
        self.store.close()

    async def step(self) -> bool:
        """One round of looking, settling and claiming; False when there was nothing to do."""
        if self._rescue_before is not None:
            before, self._rescue_before = self._rescue_before, None
            await self.rescue(before)
            self.changes.try_again()
        if await self.changes.write(self.lanes):
            self._look = True
        for name in self._fed:
            lane = self.lanes.get(name)
            if lane is None or lane.rests(self._clock.now()):
                self._look = True
            else:
                lane.hungry = True
        self._fed.clear()
        if self._unsure or (self._look and not self._stopping):
            self._look = False
            await self._survey()
            if self.changes.due:
                # They are written first, and known when the next claims are made.
                return True
        done, self._done = self._done, []
        wanted = [] if self._stopping else self._wanted()
        if done or wanted:
            await self._turn(done, wanted)
        self.turned_at = time.monotonic()
        return bool(done or wanted or self._done)

    def rescue_soon(self, before: int) -> None:
        """As `rescue`, by the running corridor itself, between two turns."""
        self._rescue_before = before
        self._wake.set()

    async def rescue(self, before: int) -> None:
        """Adopt and settle what was left behind, by workers that are gone, and by ourselves up to `before` (µs):

        interrupted, counted, ambiguous.
        """
        token = secrets.randbits(63)
        rows = await self.store(corridor.adopt, self._database, before, frozenset(self._held), token)
        if rows:
            self._log.warning("claims_rescued", count=len(rows))
            if not self._heard.young(self._clock.now()):
                await self._survey()
            now = self._clock.now()
            done = [interrupted(self.lanes.get(row.claim.operator), row.claim, row.claimed_at, now) for row in rows]
            await self._turn(done, [])

    async def _survey(self) -> None:
        """Ask which operators have work due, and set the alarm for the earliest that is not due yet."""
        # Those that end while it is asked wait for the next one; where it fails, all do.
        before, now, ticks = len(self._unsure), self._clock.now(), time.monotonic()
        found = await self.store(corridor.survey, self._database)
        if found.revision != self.revision:
            await self.refresh(found.revision)
        self._heard.asked(now, ticks)
        for ended in self._unsure[:before]:
            self._settle(ended, ended.judged())
        del self._unsure[:before]
        now = self._clock.now()
        for name, due_at in found.earliest.items():
            lane = self.lanes.get(name)
            if lane is None:
                if name not in self.unfit:
                    self._tell_unknown(name)
                continue
            self._unknown.discard(name)
            if due_at <= now:
                lane.hungry = True
                if lane.rests(now):
                    self._arm(lane.rest_until)
            else:
                self._arm(max(due_at, now + GATHER))

    def _tell_unknown(self, name: str) -> None:
        if name not in self._unknown:
            self._unknown.add(name)
            self._log.warning("operator_not_configured", operator=name, mend="configure it; its deliveries wait")

    def _wanted(self) -> list[tuple[Lane, int]]:
        """How many to claim for each hungry operator."""
        now = self._clock.now()
        free = min(self.concurrency - self.in_flight, CLAIMED_AT_ONCE)
        hungry = [lane for lane in self.lanes.values() if lane.hungry] if free > 0 else []
        if not hungry:
            return []
        if len(self.lanes) == 1:
            return [(lane, most) for lane in hungry if (most := min(free, lane.places(now, self.crew)))]
        slow = sum(lane.in_flight for lane in self.lanes.values() if lane.slow(now))
        wishes = [Wish(lane.in_flight, lane.places(now, self.crew), lane.slow(now), not lane.proven) for lane in hungry]
        given = shares(wishes, free, slow_share(self.concurrency) - slow)
        return [(lane, most) for lane, most in zip(hungry, given, strict=True) if most]

    async def _turn(self, done: list[Settlement], wanted: list[tuple[Lane, int]]) -> None:
        asked = {lane.operator.name: most for lane, most in wanted}
        turned = await self.store(self._turn_timed, done, asked, self._clock.now())
        late, now = set(map(id, turned.late)), self._clock.now()
        for settlement in done:
            claim, outcome, verdict, _ = settlement
            self._held.pop((claim.id, claim.token), None)
            tell, name = (self._log.warning, "put_off") if outcome.ours else (self._log.info, "attempt")
            too_late = id(settlement) in late
            self.figures.attempt(now, claim, outcome, verdict, late=too_late)
            tell(name, **attempt_line(claim, outcome, verdict, late=too_late))
            if verdict.due_at is not None:
                self._await(verdict.due_at)
        for name in turned.freed & self.lanes.keys():
            # Whoever stood behind a delivery that has left its line is due now.
            self.lanes[name].hungry = True
        came = Counter(claim.operator for claim in turned.claimed)
        lanes = {lane.operator.name: lane for lane, _ in wanted}
        # Whoever is replayed has waited for long, and lets the others go first.
        for claim in sorted(turned.claimed, key=lambda claim: claim.run_from > 0):
            self._start(lanes[claim.operator], claim)
        for lane, most in wanted:
            if came[lane.operator.name] < most:
                # Nothing more is due; when the next one is, only the store knows.
                lane.hungry = False
                self._arm(now + GATHER)

    def _turn_timed(self, done: list[Settlement], asked: dict[str, int], now: int) -> Turned:
        started = time.perf_counter_ns()
        turned = corridor.turn(self._database, done, asked, now)
        self.figures.turns.add((time.perf_counter_ns() - started) // 1_000)
        return turned

    def _await(self, due_at: int) -> None:
        if due_at <= self._clock.now():
            self._look = True
        else:
            self._arm(due_at)

    def _start(self, lane: Lane, claim: Claim) -> None:
        lane.begin(self._clock.now())
        self.in_flight += 1
        self._held[claim.id, claim.token] = asyncio.create_task(self._attempt(lane, claim))

    async def _attempt(self, lane: Lane, claim: Claim) -> None:
        """One attempt, from the frozen event to a settlement; whatever happens, a settlement comes of it."""
        ended, verdict = await self._made(lane, claim)
        self._heed(lane, ended.outcome, verdict)
        young = verdict.verb is Verb.DELIVER or self._heard.young(ended.outcome.ended_at)
        if young and not ended.ends_its_window(verdict):
            self._settle(ended, verdict)
        else:
            # Nothing dies, and no window begins, by what was known of its operator long ago. Its place is not free yet.
            self._unsure.append(ended)
        if claim.run_from and claim.sequence is None and not lane.hungry:
            # Nobody waits for what is replayed: it shares the others' next transaction, or one with its like.
            asyncio.get_running_loop().call_later(GATHER / SECOND, self._wake.set)
        else:
            self._wake.set()

    async def _made(self, lane: Lane, claim: Claim) -> tuple[Ended, Verdict]:
        """Seal, post and judge. Raises nothing: a bug of ours is an outcome, too."""
        started_at, terms = self._clock.now(), lane.terms(claim.type)
        key_version, probe = lane.key_version, lane.held
        span = None if self.traces is None else self.traces.begin(claim)
        try:
            outcome = await self._attempts.make(lane, claim, None if span is None else span.traceparent)
            ended = Ended(lane, claim, outcome, terms.schedule, terms.rule, probe, lane.closed_total, span)
            return ended, ended.judged()
        except Exception as error:
            # A bug of ours, and the request may be out: it counts as doubtful and is shown.
            self._log.exception("attempt_broke", id=claim.id, operator=claim.operator, mend=_BROKE)
            now, told = self._clock.now(), type(error).__name__
            outcome = Outcome(started_at, now, None, None, Reason.INTERRUPTED, detail=told, key_version=key_version)
            ended = Ended(lane, claim, outcome, terms.schedule, Rule(), probe, lane.closed_total, span)
            return ended, ended.judged()

    def _heed(self, lane: Lane, outcome: Outcome, verdict: Verdict) -> None:
        """What an attempt says of its operator, to the breaker, and of this machine."""
        change = lane.note(verdict, outcome.ended_at)
        if lane.cut_off or outcome.http_status is not None:
            self.own_fault = outcome.detail if lane.cut_off else None
        if change is not None:
            self.changes.add(change)
        if lane.rests(outcome.ended_at):
            self._arm(lane.rest_until)

    def _settle(self, ended: Ended, verdict: Verdict) -> None:
        """With the next turn."""
        ended.lane.end(ended.outcome)
        self.in_flight -= 1
        self._done.append(ended.settlement(verdict))
