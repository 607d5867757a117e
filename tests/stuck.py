"""A daemon that can be made to hang: by SIGUSR1 its store's thread for good, by SIGUSR2 its event loop for a while.

`python -m tests.stuck CONFIG` is `dispatcher run`, but for what it takes for stuck.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

from dispatcher import health
from dispatcher.app import Daemon
from dispatcher.config import load_config
from dispatcher.telemetry import configure_logs

STUCK_SECONDS = 1.5
LOOP_HANGS_SECONDS = 4.0


async def main(path: Path) -> None:
    # Less than there is between two looks of an idle worker; so it looks more often.
    health.STUCK_SECONDS = STUCK_SECONDS
    daemon = Daemon(load_config(path), configure_logs(as_json=True, level="info"))
    daemon.rounds.every(0.2, "often", daemon.dispatch.look)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, daemon.dispatch.store._thread.submit, time.sleep, 3_600)
    loop.add_signal_handler(signal.SIGUSR2, time.sleep, LOOP_HANGS_SECONDS)
    await daemon.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
