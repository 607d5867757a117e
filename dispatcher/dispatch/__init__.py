"""The corridor: claim → seal → post → judge → settle, for as many deliveries at once as the settings allow.

Batches at the database, concurrency at the wire: one store thread makes one transaction after the other, each
settling whatever has finished since the last one and claiming into the places that came free.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from dispatcher.clock import Clock
from dispatcher.dispatch.attempt import UNKNOWN, Attempts
from dispatcher.dispatch.lane import Change, Lane, Turn
from dispatcher.dispatch.outage import Outage
from dispatcher.dispatch.shares import Wish, shares, slow_share
from dispatcher.errors import Contended, Refused, StoreUnavailable
from dispatcher.figures import Figures
from dispatcher.policy import Claim, Outcome, Reason, Rule, Verb, Verdict, judge, judge_interrupted
from dispatcher.store import corridor, operators
from dispatcher.store.corridor import Settlement, Turned
from dispatcher.store.engine import Database
from dispatcher.store.workers import Crew
from dispatcher.telemetry import Log, attempt_line

__all__ = ["Attempts", "Dispatch", "Lane"]

P = ParamSpec("P")
T = TypeVar("T")

# Claims in one turn. With all free places in one, the store and the wire would wait for each other by turns;
# with too few, the cost of a transaction is shared by too few.
CLAIMED_AT_ONCE = 256
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


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
        self._database = database
        self._attempts = attempts
        self._clock = clock
        self._log = log
        self._arm = arm
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        # By id and token, from the claim until it is settled: the attempt, which may have ended already.
        self._held: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.in_flight = 0
        self._done: list[Settlement] = []
        self._wake = asyncio.Event()
        self._look = True
        self._rescue_before: int | None = None
        self._stopping = False
        # Those with whom this worker shares the operators' places.
        self.crew = Crew()
        self._unknown: set[str] = set()
        # What the breakers did and the database does not have yet, in order; why it does not take it, where it refuses.
        self._changes: list[Change] = []
        self.unnoted: str | None = None
        self._note_again = False

    def look(self) -> None:
        """Something may be due: look at the store soon."""
        self._look = True
        self._wake.set()

    def join(self, crew: Crew) -> None:
        """So many workers are there now: from now on each operator's places are shared by them."""
        if crew != self.crew:
            self.crew = crew
            self.look()

    def let_go(self, name: str) -> None:
        """The operator is held, and has no breaker any more."""
        self._changes.append(Change(name, Turn.RELEASE, self._clock.now()))

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
                self._thread.shutdown()
                return
            await self._wake.wait()

    async def step(self) -> bool:
        """One round of looking, settling and claiming; False when there was nothing to do."""
        if self._rescue_before is not None:
            before, self._rescue_before = self._rescue_before, None
            await self.rescue(before)
            self._note_again = True
        await self._record_all()
        if self._look and not self._stopping:
            self._look = False
            await self._survey()
            if self._changes and self.unnoted is None:
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
            await self._turn([self._interrupted(row.claim, row.claimed_at) for row in rows], [])

    def _interrupted(self, claim: Claim, claimed_at: int) -> Settlement:
        lane = self.lanes.get(claim.operator)
        now = self._clock.now()
        outcome = Outcome(claimed_at, now, None, reason=Reason.INTERRUPTED, detail="the worker died during the attempt")
        if lane is None:
            # Whose schedule nobody knows is not dead by another's: it waits until it is configured again.
            return Settlement(claim, outcome, Verdict(Verb.RETRY, now, Reason.INTERRUPTED, anchor_at=claim.anchor_at))
        schedule = lane.operator.terms.get(claim.type, UNKNOWN).schedule
        verdict = judge_interrupted(claim, now, schedule, lane.closed(now))
        return Settlement(claim, outcome, verdict, lane.operator.blocks)

    async def _survey(self) -> None:
        """Ask which operators have work due, and set the alarm for the earliest that is not due yet."""
        found = await self.store(corridor.survey, self._database)
        if found.revision != self.revision:
            await self.refresh(found.revision)
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
                self._arm(due_at)

    async def _record_all(self) -> None:
        """What is refused, since the journal can't be sealed, ends no delivery: it stands in its lane, and waits here.

        With it waits what came after it, so that the order stays. If the power goes, the next start finds out anew.
        """
        if self.unnoted is not None and not self._note_again:
            return
        self._note_again = False
        while self._changes:
            change = self._changes[0]
            try:
                await self._record(change)
            except Refused as refused:
                if self.unnoted != str(refused):
                    told = {"operator": change.operator, "verb": change.turn.value, "error": str(refused)}
                    self._log.error("not_noted", **told, mend="then restart this worker; deliveries go on meanwhile")
                self.unnoted = str(refused)
                return
            self._changes.pop(0)
        self.unnoted = None

    async def _record(self, change: Change) -> None:
        """The breaker held an operator or let it go: the database has it too, for everybody and for our next start."""
        name, turn, at = change
        write = operators.stop if turn is Turn.HOLD else operators.start
        changed = await self.store(write, self._database, name, "held_at", (turn.value, "breaker", None), at)
        lane = self.lanes.get(name)
        if lane is not None:
            lane.wrote(change)
        if changed:
            self._log.warning("operator_held" if turn is Turn.HOLD else "operator_released", operator=name)
        self._look = True

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
        claims: dict[str, list[Claim]] = {name: [] for name in asked}
        for claim in turned.claimed:
            claims[claim.operator].append(claim)
        for lane, most in wanted:
            came = claims[lane.operator.name]
            for claim in came:
                self._start(lane, claim)
            if len(came) < most:
                # Nothing more is due; when the next one is, only the store knows.
                lane.hungry = False
                self._look = True

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
        started_at, terms = self._clock.now(), lane.operator.terms.get(claim.type, UNKNOWN)
        key_version, probe = lane.key_version, lane.held
        try:
            outcome = await self._attempts.make(lane, claim)
            closed = lane.closed(outcome.ended_at)
            kept = lane.closed_within(claim.due_at, outcome.ended_at) if outcome.ours else 0
            verdict = judge(claim, outcome, terms.schedule, terms.rule, closed, probe=probe, kept=kept)
        except Exception as error:
            # A bug of ours, and the request may be out: it counts as doubtful and is shown.
            self._log.exception("attempt_broke", id=claim.id, operator=claim.operator)
            outcome = Outcome(
                started_at,
                self._clock.now(),
                None,
                reason=Reason.INTERRUPTED,
                detail=type(error).__name__,
                key_version=key_version,
            )
            verdict = judge(claim, outcome, terms.schedule, Rule(), lane.closed(outcome.ended_at), probe=probe)
        change = lane.note(verdict, outcome.ended_at)
        if lane.cut_off or outcome.http_status is not None:
            self.own_fault = outcome.detail if lane.cut_off else None
        if change is not None:
            self._changes.append(change)
        if lane.rests(outcome.ended_at):
            self._arm(lane.rest_until)
        lane.end(outcome)
        self.in_flight -= 1
        self._done.append(Settlement(claim, outcome, verdict, lane.operator.blocks))
        self._wake.set()

    async def on_the_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run on the store thread, once."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))

    async def store(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run on the store thread; while the store is away, wait and try again: nothing held here is given up."""
        who, tried = object(), 0
        try:
            while True:
                try:
                    given = await self.on_the_thread(work, *args, **kwargs)
                except StoreUnavailable as error:
                    if tried or not isinstance(error, Contended):
                        self.outage.failed(who, str(error))
                    await asyncio.sleep(BACKOFF_SECONDS[min(tried, len(BACKOFF_SECONDS) - 1)])
                    tried += 1
                else:
                    self.outage.passed(who)
                    return given
        finally:
            self.outage.forget(who)
