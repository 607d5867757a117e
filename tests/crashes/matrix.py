"""The kills, one after the other, at every point, while events come in and go out."""

import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TypeVar

from tests.crashes.grounds import Ground
from tests.crashes.judge import Judgement, Kill, Seen, judge
from tests.crashes.operator import Operator
from tests.crashes.points import ADOPTING, ANY_MOMENT, CLAIM, CONNECT, POINTS, TAKING, commit_of, commits
from tests.crashes.processes import Process, Producer
from tests.ground import IV, KEY
from tests.story import toml

T = TypeVar("T")

_CONFIG = f"""
[database]
url = "{{url}}"
[worker]
concurrency = 64
[egress]
allow = ["127.0.0.0/8"]
[web]
listen = ""
[log]
level = "warning"
[operators.acme]
notice_url = "http://127.0.0.1:{{port}}/Demo/notice"
token = "the-token-of-acme"
concurrency = 64
retry = {{delays}}
crypto = {toml({"key": KEY, "iv": IV}).replace("{", "{{").replace("}", "}}")}
"""
# An order that many kills interrupt must not die of it; and no schedule is to be waited for.
_DELAYS = toml({"delays": ["50ms"] * 12})
# For a point to be passed by a worker that has work; only to end a hang.
REACHED_SECONDS = 60.0
# Several workers: one is killed so often, and each so many times the oldest of them.
BETWEEN_SECONDS = 1.0
OLDEST_ONE_IN = 10
# From so old a worker may find out that another is dead.
WATCHFUL_SECONDS = 6.5


@dataclass(frozen=True, slots=True)
class Load:
    """`rate`: events a second; `crew`: workers, where there may be several; `plant`: a fault for all processes.

    `patience`: s without any progress after which what is left counts as lost. One order in `refusing` is refused when
    it first comes: if it is the only one in flight at a kill, it is not booked twice.
    """

    rate: float = 150.0
    crew: int = 4
    patience: float = 30.0
    plant: str = ""
    refusing: int = 16


class NotReached(Exception):
    """A process with work did not pass a point, or ended by itself."""


def schedule(count: int, seed: int, points: Sequence[str] = POINTS) -> list[str]:
    """Every point equally often, in an order by chance."""
    chance, given = random.Random(seed), list[str]()
    while len(given) < count:
        given += chance.sample(points, len(points))
    return given[:count]


class Trial(ABC):
    """One store, filled and emptied while its processes are killed at these points."""

    def __init__(self, ground: Ground, folder: Path, points: Sequence[str], seed: int, load: Load) -> None:
        self._ground = ground
        self._folder = folder
        self._chance = random.Random(seed)
        self._load = load
        self._points = deque(points)
        self.operator = Operator(seed, load.refusing)
        self._started = 0
        # Of batches that nobody acknowledged those that were committed all the same.
        self._standing: set[str] = set()
        self._workers: list[Process] = []
        self._kills: list[Kill] = []
        self._faults: list[str] = []

    def run(self) -> Judgement:
        """Raises NotReached."""
        with ExitStack() as stack:
            stack.enter_context(self.operator)
            stack.callback(self._end_all)
            self._producer = Producer(
                lambda: self._start("enqueue", "-", "--json"), self._load.rate, self.operator.booked
            )
            self._workers = self._first()
            self._until(lambda: self.operator.last_at)
            while self._points:
                self._next()
            self._drain()
        booked = {key: list(times) for key, times in self.operator.booked.items()}
        seen = Seen(self._producer.accepted, booked, self._ground.deliveries(), self._ground.attempts())
        found = judge(self._kills, seen, alone=self._ground.alone)
        faults = [*found.faults, *self._producer.faults, *self._faults, *self._ground.check()]
        return Judgement(found.tallies, found.stalled, faults)

    @abstractmethod
    def _first(self) -> list[Process]:
        """The workers at the beginning."""

    @abstractmethod
    def _next(self) -> None:
        """Takes the next point, and kills there."""

    def _kill_producer(self, point: str) -> None:
        """Before its commit nothing of a batch is there, after it everything."""
        process = self._producer.process
        process.arm(self._chance.randint(1, 4), point)
        self._until(lambda: not process.is_alive)
        cut = self._bury_producer()
        if self._producer.died_at is None:
            raise NotReached(f"{process.name} ended by itself before it died {point}")
        there = self._ground.standing(cut)
        if there != (set(cut) if commits(point) else set()):
            self._faults.append(f"batch: {point} {len(there)} of {len(cut)} events are there")
        at = self._producer.died_at
        self._restart_producer(cut)
        self._kills.append(Kill(point, at, self._producer.process.started_at, cut=cut))

    def _kill_producer_too(self) -> list[str]:
        """With the worker, as when the machine goes; whether the batch was committed is open, but all of it or none."""
        self._producer.process.kill()
        cut = self._bury_producer()
        there = self._ground.standing(cut)
        if there and there != set(cut):
            self._faults.append(f"batch: at {ANY_MOMENT} {len(there)} of {len(cut)} events are there")
        return cut

    def _bury_producer(self) -> list[str]:
        """The new part of the batch that was under way."""
        self._ground.settled(self._producer.process.name)
        self._producer.hear()
        return [key for key in self._producer.cut if key not in self._standing]

    def _restart_producer(self, cut: Sequence[str]) -> None:
        self._standing |= self._ground.standing(cut)
        self._producer.process.close()
        self._producer.start()

    def _kill(self, worker: Process, point: str) -> float:
        """When it died. Raises NotReached."""
        if point == ANY_MOMENT:
            self._pause(self._chance.uniform(0, 0.1))
            return worker.kill()
        seldom = point in ADOPTING or CONNECT in point
        worker.arm(1 if seldom else self._chance.randint(1, 4), point)
        self._until(lambda: not worker.is_alive)
        return self._died(worker, point)

    def _died(self, worker: Process, point: str) -> float:
        told = [word for word in worker.words() if word[0] == "dies"]
        if worker.process.returncode != -SIGKILL or not told:
            raise NotReached(f"{worker.name} ended with {worker.process.returncode} before it died {point}")
        return float(told[0][2])

    def _start(self, *command: str) -> Process:
        self._started += 1
        name = f"{command[0]}-{self._started}"
        config = self._folder / f"{name}.toml"
        settings = {"url": self._ground.url(name), "port": self.operator.port, "delays": _DELAYS}
        config.write_text(_CONFIG.format(**settings), "utf-8")
        return Process(name, self._folder, self._load.plant, command[0], "-c", str(config), *command[1:])

    def _until(self, happens: Callable[[], T]) -> T:
        """What it gives as soon as that is something. Raises NotReached."""
        deadline = time.time() + REACHED_SECONDS
        while not (given := happens()):
            if time.time() > deadline:
                raise NotReached(f"not within {REACHED_SECONDS:g} s; {len(self._kills)} kills were made")
            self._pause(0.01)
        return given

    def _pause(self, seconds: float) -> None:
        """The load goes on meanwhile."""
        end = time.time() + seconds
        while True:
            self._producer.pump()
            left = end - time.time()
            if left <= 0:
                return
            time.sleep(min(left, 0.01))

    def _drain(self) -> None:
        """Until everything is delivered, or nothing has moved for too long."""
        before, moved = (False, -1), time.time()
        while (now := (self._producer.is_done, self._ground.left())) != (True, 0):
            if now != before:
                before, moved = now, time.time()
            if time.time() > moved + self._load.patience:
                break
            time.sleep(0.05)
        self._producer.end()

    def _end_all(self) -> None:
        for worker in self._workers:
            status = worker.stop(self._load.patience)
            # Whoever was just about to begin has not learned yet what a SIGTERM means.
            if status not in (0, -SIGTERM):
                self._faults.append(f"end: {worker.name} ended with {status}")
        if self._producer.process.is_alive:
            self._producer.process.kill()
        self._producer.process.close()


class Alone(Trial):
    """One worker, which is started again as soon as it is dead: the harness plays its supervisor."""

    def _first(self) -> list[Process]:
        return [self._start("run")]

    def _next(self) -> None:
        left_behind = bool(self._kills and self._kills[-1].held)
        point = next((one for one in self._points if left_behind or one not in ADOPTING), None)
        if point is None:
            # Only adoptions are left, and there is nothing to adopt yet.
            point = f"after {CONNECT}"
        else:
            self._points.remove(point)
        if point in TAKING:
            self._kill_producer(point)
        else:
            self._kill_worker(point)
        # What is to be adopted has to lie there yet when the next one dies over it.
        if self._points and not (self._kills[-1].held and self._points[0] in ADOPTING):
            self._until(self._is_back)

    def _kill_worker(self, point: str) -> None:
        (worker,) = self._workers
        if point not in ADOPTING:
            self._pause(self._chance.uniform(0, 0.1))
        at = self._kill(worker, point)
        cut = self._kill_producer_too() if point == ANY_MOMENT else []
        held = self._ground.held(worker.process.pid)
        worker.close()
        self._workers = [self._start("run")]
        since = self._workers[0].started_at
        if point == ANY_MOMENT:
            self._restart_producer(cut)
        self._kills.append(Kill(point, at, since, held, cut))

    def _is_back(self) -> bool:
        """What the dead one held is delivered; where it held nothing, at least something is."""
        kill = self._kills[-1]
        if kill.held:
            return not self._ground.unfinished(kill.held)
        return kill.point in TAKING or self.operator.last_at > kill.since


class Crew(Trial):
    """Several workers: nobody starts anything for a dead one's sake; but a new one comes, for the next to die.

    Which of them finds what to adopt is open: one that is to die of it waits among the others until it does.
    """

    _waiting: tuple[Process, str] | None = None

    def _first(self) -> list[Process]:
        return [self._start("run") for _ in range(self._load.crew)]

    def _next(self) -> None:
        began = time.time()
        point = next((one for one in self._points if self._waiting is None or one not in ADOPTING), None)
        if point is None:
            # Only adoptions are left: one more kill makes something to adopt.
            point = f"after {commit_of(CLAIM)}"
        else:
            self._points.remove(point)
        if point in ADOPTING:
            self._waiting = self._workers[0], point
            self._workers[0].arm(1, point)
            if not self._points:
                self._points.append(f"after {commit_of(CLAIM)}")
            return
        if point in TAKING:
            self._kill_producer(point)
        else:
            worker = self._until(self._victim)
            assert worker
            self._bury(worker, point, self._kill(worker, point))
        self._pause(max(0.0, began + BETWEEN_SECONDS - time.time()))
        if self._waiting is not None and not self._waiting[0].is_alive:
            worker, point = self._waiting
            self._waiting = None
            self._bury(worker, point, self._died(worker, point))
        elif self._waiting is not None and not self._points:
            self._points.append(f"after {commit_of(CLAIM)}")

    def _bury(self, worker: Process, point: str, at: float) -> None:
        cut = self._kill_producer_too() if point == ANY_MOMENT else []
        self._ground.settled(worker.name)
        held = self._ground.held(worker.process.pid)
        if point in ADOPTING:
            # What it was about to take over waits for the next one from now on.
            held |= self._ground.orphans()
        worker.close()
        self._workers.remove(worker)
        self._workers.append(self._start("run"))
        if point == ANY_MOMENT:
            self._restart_producer(cut)
        self._kills.append(Kill(point, at, at, held, cut))

    def _victim(self) -> Process | None:
        """One that works, once all do. Only who has lived for a while notices a death: the oldest is killed seldom."""
        there = self._ground.workers()
        oldest, *others = self._workers
        ready = [one for one in others if one.process.pid in there and one.is_alive]
        if len(ready) < len(others):
            return None
        watched = ready[0].started_at < time.time() - WATCHFUL_SECONDS
        if watched and self._waiting is None and self._chance.randrange(OLDEST_ONE_IN) == 0:
            return oldest
        return self._chance.choice(ready)
