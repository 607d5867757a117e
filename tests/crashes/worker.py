"""The real command with wires laid: `python -m tests.crashes.worker ORDERS WORDS PLANT COMMAND ARGUMENTS…`.

ORDERS and WORDS are file descriptors; PLANT is the name of a planted fault, or nothing.
"""

import sys

from dispatcher.cli import main
from tests.crashes.tripwire import Tripwire, wire_the_promise, wire_the_store, wire_the_wire


def run(orders: str, words: str, plant: str, *command: str) -> None:
    tripwire = Tripwire(int(orders), int(words))
    if plant:
        from tests.crashes.plants import PLANTS

        PLANTS[plant](tripwire)
    wire_the_store(tripwire)
    if command[0] == "enqueue":
        wire_the_promise(tripwire)
    else:
        wire_the_wire(tripwire)
    tripwire.listen()
    sys.argv = ["dispatcher", *command]
    main()


if __name__ == "__main__":
    run(*sys.argv[1:])
