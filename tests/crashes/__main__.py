"""`python -m tests.crashes --kills 1000`: what that cost; exit status 1 where anything is wrong."""

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.crashes.grounds import File, Ground, OnServer
from tests.crashes.judge import Judgement, Tally
from tests.crashes.matrix import Alone, Crew, Load, NotReached, Trial, schedule
from tests.crashes.points import POINTS
from tests.stores import PostgreSQL, started

# The stores, and from when on the seconds are counted until the first and the last of what was held is delivered.
SINCE = {
    "sqlite": "the start of the next process; first: whichever is delivered first",
    "postgresql": "the death",
}
# A store is new after so many: what is read of it at the end stays small.
KILLS_A_ROUND = 104


def figures(tallies: dict[str, Tally], stalled: int, faults: list[str]) -> dict[str, Any]:
    """Of one store: everything together, and by point, in the order of a delivery's life."""
    whole = Tally()
    for tally in tallies.values():
        whole.add(tally)
    return {
        "total": whole.told(),
        "points": {point: tallies[point].told() for point in POINTS if point in tallies},
        "taken_for_dead": stalled,
        "faults": faults,
    }


def measure(store: str, kills: int, seed: int, load: Load, folder: Path) -> dict[str, Any]:
    """Round by round, until all kills are made or something is wrong."""
    tallies, stalled, faults, left = defaultdict[str, Tally](Tally), 0, list[str](), kills
    with _server(store, folder) as postgresql:
        while left > 0 and not faults:
            count, began = min(left, KILLS_A_ROUND), time.monotonic()
            place = folder / f"{store}-{left}"
            place.mkdir()
            ground: Ground = File(place) if postgresql is None else OnServer(postgresql)
            kind: type[Trial] = Alone if ground.alone else Crew
            try:
                found = kind(ground, place, schedule(count, seed + left), seed + left, load).run()
            except NotReached as error:
                found = Judgement({}, 0, [f"not reached: {error}"])
            finally:
                ground.close()
            for point, tally in found.tallies.items():
                tallies[point].add(tally)
            stalled += found.stalled
            faults += found.faults
            left -= count
            sys.stderr.write(f"{store}: {kills - left} of {kills}, {(time.monotonic() - began) / count:.2f} s each\n")
    return figures(dict(tallies), stalled, faults)


@contextmanager
def _server(store: str, folder: Path) -> Iterator[PostgreSQL | None]:
    if store == "sqlite":
        yield None
        return
    with started(folder) as postgresql:
        try:
            yield postgresql
        finally:
            postgresql.close()


def stamp() -> dict[str, str]:
    words = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return {
        "at": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": done.stdout.strip() or "unknown",
    }


def table(told: dict[str, Any]) -> Iterator[str]:
    """For people."""
    yield f"{'':32}{'kills':>6}{'lost':>6}{'twice':>6}{'flight':>7}{'first':>8}{'last':>8}{'worst':>8}"
    for name, row in [*told["points"].items(), ("all", told["total"])]:
        first, last = row["first_seconds"], row["last_seconds"]
        times = [first and first["median"], last and last["median"], last and last["worst"]]
        counts = f"{row['kills']:6}{row['lost']:6}{row['duplicates']:6}{row['most_in_flight']:7}"
        yield f"{name:32}{counts}" + "".join("       –" if one is None else f"{one:8.2f}" for one in times)
    yield from told["faults"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crashes")
    parser.add_argument("--kills", type=int, default=1_000, help="in all; shared by the stores")
    parser.add_argument("--store", choices=list(SINCE), help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=Load().rate, help="events a second")
    parser.add_argument("--plant", default="", help="a fault of tests/crashes/plants.py: it must be found")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON; other stores' stay there")
    given = parser.parse_args()
    stores = [given.store] if given.store else list(SINCE)
    told: dict[str, Any] = json.loads(given.out.read_text("utf-8")) if given.out and given.out.exists() else {}
    for store in stores:
        with TemporaryDirectory(prefix="crash-", ignore_cleanup_errors=True) as name:
            # The server may run as a user of its own.
            Path(name).chmod(0o755)
            load = Load(given.rate, plant=given.plant)
            found = measure(store, given.kills // len(stores), given.seed, load, Path(name))
        about = {"seed": given.seed, "events_a_second": given.rate, "seconds_since": SINCE[store]}
        told[store] = {**stamp(), **about, **found}
        sys.stdout.write("\n".join([store, *table(told[store]), ""]))
        if given.out:
            given.out.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return int(any(told[store]["faults"] for store in stores))


if __name__ == "__main__":
    sys.exit(main())
