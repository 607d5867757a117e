"""`python -m tests.simulation`: plays so many seeds; shows each that breaks an invariant, and how to see it again."""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import End, play_all

# Seeds that one process is given at a time.
PORTION = 200


def portion(seeds: range) -> tuple[list[End], str, float]:
    """Those that broke something, a hash over all, and the CPU that they took (s)."""
    started, broken, whole = time.process_time(), [], 0
    for end in play_all(seeds):
        whole ^= int(end.digest, 16)
        if end.violation is not None:
            broken.append(end)
    return broken, f"{whole:032x}", time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    last = given.start + given.seeds
    portions = [range(at, min(at + PORTION, last)) for at in range(given.start, last, PORTION)]
    began, cpu, whole, counted = time.monotonic(), 0.0, 0, Counter[str]()
    with ProcessPoolExecutor(given.jobs) as pool:
        for done, (broken, digest, took) in enumerate(pool.map(portion, portions), 1):
            cpu, whole = cpu + took, whole ^ int(digest, 16)
            for end in broken:
                show(end, whole=not counted[end.invariant])
                counted[end.invariant] += 1
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{min(done * PORTION, given.seeds)} of {given.seeds}")
    took = time.monotonic() - began
    tell(f"{given.seeds} seeds from {given.start}: {counted.total()} broke an invariant {dict(counted) or ''}".rstrip())
    rate = given.seeds / max(cpu, 0.001)
    tell(f"{took:.0f} s, {cpu:.0f} s of CPU, {rate:.0f} seeds a second of CPU; trace {whole:032x}")
    return 1 if counted else 0


def show(end: End, *, whole: bool) -> None:
    """What was broken; the first of each kind with the last that happened before it."""
    if whole:
        tell("\n".join(end.lines))
    tell(f"seed {end.seed}: {end.told}\n  again: python -m tests.simulation --seeds 1 --start {end.seed}")


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
