"""Virtual time, and processes in it: each has an event loop of its own, and can be stalled or ended anywhere."""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from hashlib import blake2b
from itertools import count
from random import Random
from typing import Any

from dispatcher.ground.clock import MILLISECOND, SECOND

EPOCH = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
KEPT_LINES = 60


class Violation(Exception):
    """An invariant does not hold: its name, and what was seen."""

    def __init__(self, invariant: str, told: str) -> None:
        super().__init__(f"{invariant}: {told}")
        self.invariant = invariant


class Process:
    """Something that the kernel runs. Once it is dead nothing of it is ever done again, not even its cleaning up."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        # asyncio asks for no more of a loop than this one has.
        self.loop: Any = Loop(self)
        self.dead = False
        # It ends with the call that it is in: in the middle of a transaction, or right behind its commit.
        self.dying = False
        self.stalled_until = 0
        # Its own way to the database is cut off until then.
        self.away_until = 0
        # How far its host's clock is off (µs).
        self.offset = 0
        # By what was asked of the store: when that was last done, as far as the answer has come back (µs).
        self.knows: dict[str, int] = {}
        # When it has read the operators' settings, and when that came into force (µs).
        self.loads: list[tuple[int, int]] = []
        # What it times by; a worker on a server goes by that one's clock.
        self.clock: Callable[[], int] = lambda: world.wall(self)
        self.tasks: list[asyncio.Task[Any]] = []
        self.leftover: deque[asyncio.Handle] | None = None
        self._free: dict[int, int] = {}

    def begin(self, main: Coroutine[Any, Any, None]) -> None:
        self.world.push(self.world.now, self, asyncio.Handle(self.loop.create_task, (main,), self.loop))

    def kill(self) -> None:
        self.world.tell(self, "killed")
        self.dead = True

    def bury(self) -> None:
        """Ends its coroutines, so that Python has nothing to complain of; nothing that they do has an effect."""
        self.dead, self.leftover = True, deque()
        for task in self.tasks:
            task.cancel()
        while self.leftover:
            self.world.give(self, self.leftover.popleft())
        self.tasks = []

    def call(self, thread: int, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Runs it on one of its threads: at some moment from now on, and the answer comes some time after that."""
        world = self.world
        future: asyncio.Future[Any] = self.loop.create_future()
        before, after = world.latency()
        at = max(world.now, self._free.get(thread, 0)) + before
        self._free[thread] = at + after
        world.push(at, self, asyncio.Handle(self._execute, (work, future, at + after), self.loop))
        return future

    def _execute(self, work: Callable[[], Any], future: asyncio.Future[Any], answer_at: int) -> None:
        done_at, value, error = self.world.now, None, None
        name = getattr(getattr(work, "func", work), "__name__", "")
        try:
            value = self.world.storing(self, name, work)
        except Exception as raised:
            error = raised

        def answer() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                self.knows[name] = done_at
                if name == "_load":
                    self.loads.append((done_at, self.world.now))
                future.set_result(value)

        self.world.push(answer_at, self, asyncio.Handle(answer, (), self.loop))


class Loop:
    """As much of an event loop as asyncio's own parts and APScheduler ask for."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self.readers: dict[int, Callable[[], None]] = {}

    def time(self) -> float:
        return self._world.now / SECOND

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._process.loop)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._process.loop, name=name or "task", context=context)
        tasks = self._process.tasks
        if len(tasks) > 64:
            tasks[:] = [one for one in tasks if not one.done()]
        tasks.append(task)
        return task

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._process.loop, context)
        if self._process.leftover is not None:
            self._process.leftover.append(handle)
        else:
            self._world.push(self._world.now, self._process, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._process.loop, context)
        # Upwards, but for what a float has lost: a timer never rings early.
        self._world.push(max(self._world.now, math.ceil(when * SECOND - 0.01)), self._process, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        if self._process.dead:
            return self.create_future()
        return self._process.call(id(executor), (lambda: func(*args)) if args else func)

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Whoever plays the kernel calls the daemon itself."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._process.dead:
            self._world.blame("crash", f"{self._process.name}: {context.get('message')}: {context.get('exception')!r}")


class World:
    """Time, chance, and what happens next. Every choice comes from `chance`; all that happens goes into the trace."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        # A source of its own: the numbers that tell one from the other must be no part of any choice.
        self.tokens = Random(f"tokens of {seed}")
        self.now = 0
        # By how much the wall clock was set (µs).
        self.jumped = 0
        # How far the clock was ahead at most (µs).
        self.farthest = 0
        # By how much it was set back, in all (µs).
        self.lost = 0
        self.current: Process | None = None
        self.violation: Violation | None = None
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        # What is passed over, so that what stands behind it is seen.
        self.unblamed: Collection[str] = ()
        self.slow_store = 0.0
        self._hash = blake2b(digest_size=16)
        # When, which of those at one moment, in which process, and what.
        self._queue: list[tuple[int, int, Process | None, Any]] = []
        self._number = count()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def wall(self, process: Process | None = None) -> int:
        """What the clock on a process's wall says, µs since 1970."""
        return EPOCH + self.now + self.jumped + (process.offset if process is not None else 0)

    @property
    def highest(self) -> int:
        """The latest that any clock may say: one may have been carried on from before a jump back."""
        return EPOCH + self.now + self.farthest

    def jump(self, by: int) -> None:
        self.jumped += by
        self.lost += max(0, -by)
        self.farthest = max(self.farthest, self.jumped)
        self.tell(None, f"the clock jumps by {by}")

    def tell(self, who: Process | str | None, what: str) -> None:
        name = who.name if isinstance(who, Process) else who or "world"
        line = f"{self.now / SECOND:12.6f} {name:10} {what}"
        self._hash.update(line.encode())
        self.lines.append(line)

    def blame(self, invariant: str, told: str) -> None:
        """The first one counts: what follows may follow from it."""
        if self.violation is None and invariant not in self.unblamed:
            self.violation = Violation(invariant, told)
            self.tell("VIOLATION", str(self.violation))

    def push(self, at: int, process: Process | None, work: asyncio.Handle | Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at, next(self._number), process, work))

    def after(self, delay: int, work: Callable[[], None]) -> None:
        """Something outside of every process, in so many µs."""
        self.push(self.now + delay, None, work)

    def latency(self) -> tuple[int, int]:
        """How long a call to the store takes to be made, and its answer to come back (µs)."""
        if self.slow_store and self.chance.random() < self.slow_store:
            return self.chance.randrange(SECOND), self.chance.randrange(2 * SECOND)
        return self.chance.randrange(MILLISECOND), self.chance.randrange(MILLISECOND)

    def storing(self, process: Process, name: str, work: Callable[[], Any]) -> Any:
        """One call on a store's thread; whoever builds the world may put faults around it."""
        return work()

    def give(self, process: Process, handle: asyncio.Handle) -> None:
        """The processor, for as long as one callback takes."""
        self.current = process
        asyncio._set_running_loop(process.loop)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)
            self.current = None
        if process.dying and not process.dead:
            process.kill()
            process.bury()

    def run(self, until: int, done: Callable[[], bool] | None = None) -> None:
        """Until that time (µs), until `done`, or until an invariant is broken."""
        queue = self._queue
        while queue and queue[0][0] <= until and self.violation is None:
            at, _, process, work = heapq.heappop(queue)
            if process is None:
                self.now = at
                work()
            elif not process.dead and not work._cancelled:
                if at < process.stalled_until:
                    self.push(process.stalled_until, process, work)
                    continue
                self.now = at
                self.give(process, work)
            if done is not None and done():
                return
        if self.violation is None:
            self.now = max(self.now, until)
