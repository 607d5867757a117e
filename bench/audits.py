"""What `dispatcher audit` costs as the store grows: its CPU, its time and the most memory it had, as a process.

`python -m bench.audits` fills a store by the dispatcher's own steps (accept, claim, settle, replay, resolve, each entry
of the journal sealed) to one size after the other, and audits it at each; what it finds must be nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.growth import moment, opened
from dispatcher.accept import read_event
from dispatcher.config import Config, load_config
from dispatcher.ground.place import Server
from dispatcher.ground.policy import Claim, Outcome, Reason, Status, Verb, Verdict
from dispatcher.roster import open_vault, provision
from dispatcher.store import acceptance, corridor, ledger
from dispatcher.store.corridor import Settlement
from dispatcher.store.engine import Database
from dispatcher.store.ledger import Filter

BATCH = 1_000
_CONFIG = """
[database]
url = "{url}"
[operators.acme]
notice_url = "https://acme.example/notice"
token = "the-token-of-acme"
crypto = {{ key = "0123456789abcdef", iv = "A1b2C3d4E5f6G7h8" }}
"""
_YES, _NO = Verdict(Verb.DELIVER), Verdict(Verb.BURY, reason=Reason.HTTP_STATUS)


class Audited(NamedTuple):
    """One run on so many deliveries and entries: seconds on the wall and of its CPU, MiB at most; what it said."""

    deliveries: int
    entries: int
    took: float
    cpu: float
    memory: float
    status: int
    told: str

    def __str__(self) -> str:
        counts = f"{self.deliveries:,} deliveries, {self.entries:,} entries"
        return f"{counts}: {self.took:.1f} s, {self.cpu:.1f} s of CPU, {self.memory:.0f} MiB; exit {self.status}"


def grow(database: Database, config: Config, first: int, last: int, every: int) -> None:
    """Deliveries `first` to `last`: one in `every` dies, and is resolved or replayed by somebody; the rest succeed."""
    claims: list[Claim] = []
    for start in range(first, last, BATCH):
        now = moment()
        raw = [_order(n, now) for n in range(start, min(start + BATCH, last))]
        acceptance.accept(database, [read_event(one, config.operators, lambda *_: "") for one in raw], now)
        claims = _turn(database, claims, every)
        mend(database, every)
    while claims:
        claims = _turn(database, claims, every)
        mend(database, every)


def _order(n: int, now: int) -> dict[str, object]:
    order = {"operator": "acme", "type": "notice", "order_no": str(10**18 + n), "uid": f"player-{n * 7_919 % 200_000}"}
    return {**order, "total_bet": 10, "total_win": 12, "business": "Spin", "game_id": 49, "time": now // 1_000_000}


def _turn(database: Database, claims: list[Claim], every: int) -> list[Claim]:
    """What was claimed is settled, the next ones are claimed; what runs again succeeds."""
    now = moment()
    done = [
        Settlement(one, Outcome(now, now + 20_000, 20_000, 500 if dies else 200), _NO if dies else _YES)
        for one in claims
        for dies in [one.attempt == 1 and one.id % every == 0]
    ]
    return corridor.turn(database, done, {"acme": 2 * BATCH}, now).claimed


def mend(database: Database, every: int) -> None:
    """Of the dead the one half is resolved, the other half sent again."""
    dead = list(ledger.find(database, Filter(operator="acme", status=Status.DEAD), 10 * BATCH))
    ledger.resolve(database, [one for one in dead if one.id // every % 2], "ada", "agreed with acme", moment())
    ledger.replay(database, [one for one in dead if not one.id // every % 2], "ada", moment())


def measure(config: Path, deliveries: int, entries: int) -> Audited:
    """`dispatcher audit` as a process, by what the kernel says of it."""
    words = [sys.executable, "-m", "dispatcher", "audit", "-c", str(config), "--lang", "en"]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - started
        out.seek(0)
        told = out.read().decode()
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    return Audited(deliveries, entries, took, cpu, memory, process.returncode, told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--every", type=int, default=10, help="one in so many is done by hand, and has an entry")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audits-") as name, opened(chosen.store, Path(name)) as make:
        database, path, there = make("audited"), Path(name) / "config.toml", 0
        place = database.place
        path.write_text(_CONFIG.format(url=place.url.reveal() if isinstance(place, Server) else f"sqlite:///{place}"))
        config = load_config(path)
        provision(database, open_vault(config, database), config, moment(), actor="bench")
        for size in chosen.sizes:
            started = time.perf_counter()
            grow(database, config, there, size, chosen.every)
            there = size
            sys.stdout.write(f"{chosen.store}: filled in {time.perf_counter() - started:.0f} s\n")
            audited = measure(path, size, size // chosen.every)
            sys.stdout.write(f"{chosen.store}: {audited}\n{audited.told if audited.status else ''}")
            sys.stdout.flush()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
