"""The corridor: claim → seal → post → judge → settle, for as many deliveries at once as the settings allow.

Batches at the database, concurrency at the wire: one store thread makes one transaction after the other, each
settling whatever has finished since the last one and claiming into the places that came free.
"""

import asyncio
import heapq
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from dispatcher.clock import Clock
from dispatcher.config import Operator
from dispatcher.errors import StoreUnavailable, Unfit
from dispatcher.policy import Claim, Outcome, Reason, Rule, Verb, Verdict, judge, judge_interrupted
from dispatcher.protocols import PROTOCOLS
from dispatcher.seal import Seal
from dispatcher.secret import Secret
from dispatcher.store import corridor
from dispatcher.store.corridor import Settlement
from dispatcher.store.engine import Database
from dispatcher.telemetry import Log, attempt_line
from dispatcher.wire import Transport, Wire, build_request, json_headers

P = ParamSpec("P")
T = TypeVar("T")

# Later than any clock: a wall clock that was set back must not hide a claim.
EVER = 2**62
# Claims in one turn. With all free places in one, the store and the wire would wait for each other by turns;
# with too few, the cost of a transaction is shared by too few.
CLAIMED_AT_ONCE = 128
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Lane:
    """One operator's share of the corridor. `hungry`: there may be something due that is not claimed yet."""

    operator: Operator
    seal: Seal
    transport: Transport
    in_flight: int = 0
    hungry: bool = False

    @property
    def free(self) -> int:
        return max(0, self.operator.concurrency - self.in_flight)


class Dispatch:
    """Runs deliveries. `arm` is called with the time (µs) at which something will be due that is not due now."""

    def __init__(
        self, database: Database, wire: Wire, clock: Clock, log: Log, concurrency: int, arm: Callable[[int], None]
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.concurrency = concurrency
        # For whoever asks whether this worker works: when the loop last went round, what the store said if it is away.
        self.turned_at = time.monotonic()
        self.store_fault: str | None = None
        self._database = database
        self._wire = wire
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
        self._unknown: set[str] = set()

    def look(self) -> None:
        """Something may be due: look at the store soon."""
        self._look = True
        self._wake.set()

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
        if self._look and not self._stopping:
            self._look = False
            await self._survey()
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
        """Settle claims made at or before `before` (µs) that nobody here holds: interrupted, counted, ambiguous."""
        rows = await self._store(corridor.stranded, self._database, before, frozenset(self._held))
        if rows:
            self._log.warning("claims_rescued", count=len(rows))
            await self._turn([self._interrupted(row.claim, row.claimed_at) for row in rows], [])

    def _interrupted(self, claim: Claim, claimed_at: int) -> Settlement:
        lane = self.lanes.get(claim.operator)
        now = self._clock.now()
        outcome = Outcome(claimed_at, now, None, reason=Reason.INTERRUPTED, detail="the worker died during the attempt")
        if lane is None:
            # Whose schedule nobody knows is not dead by another's: it waits until it is configured again.
            return Settlement(claim, outcome, Verdict(Verb.RETRY, now, Reason.INTERRUPTED))
        return Settlement(claim, outcome, judge_interrupted(claim, now, lane.operator.schedule))

    async def _survey(self) -> None:
        """Ask which operators have work due, and set the alarm for the earliest that is not due yet."""
        earliest = await self._store(corridor.survey, self._database)
        now = self._clock.now()
        for name, due_at in earliest.items():
            lane = self.lanes.get(name)
            if lane is None:
                self._tell_unknown(name)
            elif due_at <= now:
                lane.hungry = True
            else:
                self._arm(due_at)

    def _tell_unknown(self, name: str) -> None:
        if name not in self._unknown:
            self._unknown.add(name)
            self._log.warning("operator_not_configured", operator=name, mend="configure it; its deliveries wait")

    def _wanted(self) -> list[tuple[Lane, int]]:
        """How many to claim for each hungry operator: each free place goes to whoever has the fewest in flight."""
        hungry = [lane for lane in self.lanes.values() if lane.hungry and lane.free]
        free = min(self.concurrency - self.in_flight, CLAIMED_AT_ONCE)
        if len(hungry) == 1:
            return [(hungry[0], min(free, hungry[0].free))] if free > 0 else []
        queue = [(lane.in_flight, position) for position, lane in enumerate(hungry)]
        heapq.heapify(queue)
        wanted = [0] * len(hungry)
        for _ in range(free):
            if not queue:
                break
            busy, position = queue[0]
            wanted[position] += 1
            if wanted[position] < hungry[position].free:
                heapq.heapreplace(queue, (busy + 1, position))
            else:
                heapq.heappop(queue)
        return [(lane, most) for lane, most in zip(hungry, wanted, strict=True) if most]

    async def _turn(self, done: list[Settlement], wanted: list[tuple[Lane, int]]) -> None:
        asked = {lane.operator.name: most for lane, most in wanted}
        turned = await self._store(corridor.turn, self._database, done, asked, self._clock.now())
        late = set(map(id, turned.late))
        for settlement in done:
            claim, outcome, verdict = settlement
            self._held.pop((claim.id, claim.token), None)
            self._log.info("attempt", **attempt_line(claim, outcome, verdict, late=id(settlement) in late))
            if verdict.due_at is not None:
                self._await(verdict.due_at)
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

    def _await(self, due_at: int) -> None:
        if due_at <= self._clock.now():
            self._look = True
        else:
            self._arm(due_at)

    def _start(self, lane: Lane, claim: Claim) -> None:
        lane.in_flight += 1
        self.in_flight += 1
        self._held[claim.id, claim.token] = asyncio.create_task(self._attempt(lane, claim))

    async def _attempt(self, lane: Lane, claim: Claim) -> None:
        """One attempt, from the frozen event to a settlement; whatever happens, a settlement comes of it."""
        operator, started_at = lane.operator, self._clock.now()
        try:
            outcome = await self._post(lane, claim)
            verdict = judge(claim, outcome, operator.schedule, operator.rule or _own_rule(claim.type))
        except Exception as error:
            # A bug of ours, and the request may be out: it counts as doubtful and is shown.
            self._log.exception("attempt_broke", id=claim.id, operator=claim.operator)
            outcome = Outcome(
                started_at,
                self._clock.now(),
                None,
                reason=Reason.INTERRUPTED,
                detail=type(error).__name__,
                key_version=lane.seal.key_version,
            )
            verdict = judge(claim, outcome, operator.schedule, Rule())
        lane.in_flight -= 1
        self.in_flight -= 1
        self._done.append(Settlement(claim, outcome, verdict))
        self._wake.set()

    async def _post(self, lane: Lane, claim: Claim) -> Outcome:
        operator = lane.operator
        protocol = PROTOCOLS.get(claim.type)
        try:
            if protocol is None:
                raise Unfit(f"the type {claim.type} is not known to this version", "run the version that accepted it")
            letter = protocol.letter(operator, claim, lane.seal.seal)
        except Unfit as unfit:
            now = self._clock.now()
            return Outcome(now, now, 0, reason=Reason.CONFIG, detail=str(unfit))
        request = build_request(letter.url, json_headers(letter.bearer), letter.body)
        key_version = lane.seal.key_version
        outcome = await self._wire.post(lane.transport, request, operator.total_timeout)
        body = _without(letter.bearer, outcome.body)
        return outcome._replace(key_version=key_version, body=body)

    async def _store(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run on the store thread; while the store is away, wait and try again: nothing held here is given up."""
        loop = asyncio.get_running_loop()
        tried = 0
        while True:
            try:
                given = await loop.run_in_executor(self._thread, partial(work, *args, **kwargs))
                self.store_fault = None
                return given
            except StoreUnavailable as error:
                self.store_fault = str(error)
                if tried % len(BACKOFF_SECONDS) == 0:
                    self._log.error("store_unavailable", error=str(error), held=len(self._held))
                await asyncio.sleep(BACKOFF_SECONDS[min(tried, len(BACKOFF_SECONDS) - 1)])
                tried += 1


def _own_rule(kind: str) -> Rule:
    protocol = PROTOCOLS.get(kind)
    return protocol.rule if protocol else Rule()


def _without(bearer: Secret | None, body: bytes) -> bytes:
    """An answer that repeats our token must not carry it into the log."""
    return body if bearer is None else body.replace(bearer.reveal().encode(), b"[token]")
