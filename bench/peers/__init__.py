"""What a team would pick instead: each peer with its settings beside it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.contender import Contender
from bench.ground import Ground, Kind
from bench.orders import FAST, Order, as_jobs
from bench.peers import environment
from bench.peers.environment import HERE, pinned
from bench.processes import Workers, run

MANY = 40_000
FEW = 4_000
SLOTS = 50
AOF = "appended, synced every second"
_CELERY_QUIET = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer on its store: the commands that queue jobs and deliver them, and what they find in their environment."""

    fill_command: Sequence[str]
    work_command: Sequence[str]
    log: Path
    env: dict[str, str]

    def fill(self, given: Sequence[Order]) -> None:
        run(self.fill_command, as_jobs(given), env=self.env)

    def start(self) -> Workers:
        return Workers(self.work_command, self.log, env=self.env)


Commands = Callable[[int], tuple[Sequence[str], Sequence[str]]]


@contextmanager
def _peer(
    kind: Kind,
    commands: Commands,
    ground: Ground,
    url: str,
    slots: int,
    paths: Sequence[str] = (FAST,),
) -> Iterator[Peer]:
    fill, work = commands(slots)
    with ground.place() as folder, ground.store(kind, folder) as store:
        env = {"BENCH_URL": url, "BENCH_STORE": store, "BENCH_SLOTS": str(slots), "PYTHONPATH": str(HERE)}
        yield Peer(fill, work, folder / "worker.log", env)


def _python(name: str, program: str, *arguments: str) -> Commands:
    """`fill` of NAME_peer queues; `program` of the environment delivers, `{slots}` in its arguments filled in."""

    def commands(slots: int) -> tuple[Sequence[str], Sequence[str]]:
        programs = environment.python(name)
        filled = [one.format(slots=slots) for one in arguments]
        fill = f"import {name}_peer; {name}_peer.fill()"
        return [str(programs / "python"), "-c", fill], [str(programs / program), *filled]

    return commands


def _node(name: str) -> Commands:
    def commands(_slots: int) -> tuple[Sequence[str], Sequence[str]]:
        script = str(environment.node() / f"{name}.mjs")
        return ["node", script, "fill"], ["node", script, "work"]

    return commands


def _node_version(package: str) -> str:
    wanted = json.loads((HERE / "package.json").read_text("utf-8"))["dependencies"]
    return str(wanted[package])


def _contender(
    name: str, kind: Kind, commands: Commands, settings: str, *, jobs: int, keeps_log: str, durable: str
) -> Contender:
    return Contender(name, kind, settings, partial(_peer, kind, commands), SLOTS, jobs, keeps_log, durable)


PEERS = (
    _contender(
        f"BullMQ {_node_version('bullmq')}",
        Kind.REDIS,
        _node("bullmq"),
        "undici",
        jobs=MANY,
        keeps_log="no",
        durable=AOF,
    ),
    _contender(
        f"graphile-worker {_node_version('graphile-worker')}",
        Kind.POSTGRESQL,
        _node("graphile"),
        "undici; local queue of 200, completions batched",
        jobs=MANY,
        keeps_log="no",
        durable="yes",
    ),
    _contender(
        f"awa {pinned('awa', 'awa-pg')}",
        Kind.POSTGRESQL,
        _python("awa", "python", "-c", "import awa_peer; awa_peer.work()"),
        "aiohttp on uvloop",
        jobs=MANY,
        keeps_log="yes",
        durable="yes",
    ),
    _contender(
        f"dramatiq {pinned('dramatiq', 'dramatiq')}",
        Kind.REDIS,
        _python("dramatiq", "dramatiq", "--processes", "1", "--threads", "{slots}", "dramatiq_peer"),
        "threads, requests",
        jobs=FEW,
        keeps_log="no",
        durable=AOF,
    ),
    _contender(
        f"huey {pinned('huey', 'huey')}",
        Kind.SQLITE,
        _python(
            "huey", "huey_consumer", "huey_peer.huey", "--workers", "{slots}", "--worker-type", "thread", "--quiet"
        ),
        "fsync, threads, requests",
        jobs=FEW,
        keeps_log="no",
        durable="until it is taken: removed before it runs",
    ),
    _contender(
        f"arq {pinned('arq', 'arq')}",
        Kind.REDIS,
        _python("arq", "arq", "arq_peer.WorkerSettings"),
        "aiohttp on uvloop",
        jobs=FEW,
        keeps_log="no",
        durable=AOF,
    ),
    _contender(
        f"Celery {pinned('celery', 'celery')}",
        Kind.REDIS,
        _python(
            "celery", "celery", "-A", "celery_peer", "worker", "--pool", "threads", "-c", "{slots}", *_CELERY_QUIET
        ),
        "threads, requests; acknowledged late",
        jobs=FEW,
        keeps_log="no",
        durable=AOF,
    ),
    _contender(
        f"procrastinate {pinned('procrastinate', 'procrastinate')}",
        Kind.POSTGRESQL,
        _python("procrastinate", "python", "-c", "import procrastinate_peer; procrastinate_peer.work()"),
        "aiohttp on uvloop",
        jobs=FEW,
        keeps_log="events",
        durable="yes",
    ),
)
