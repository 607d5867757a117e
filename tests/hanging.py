"""`dispatcher run` whose store thread hangs once the file STUCK is there: `python -m tests.hanging STUCK run …`."""

import sys
import time
from pathlib import Path
from typing import Any

from dispatcher.cli import main
from dispatcher.store import corridor


def run(stuck: Path, *command: str) -> None:
    survey = corridor.survey

    def hanging(*args: Any) -> Any:
        while stuck.exists():
            time.sleep(0.01)
        return survey(*args)

    corridor.survey = hanging  # type: ignore[assignment]  # the planted fault
    sys.argv = ["dispatcher", *command]
    main()


if __name__ == "__main__":
    run(Path(sys.argv[1]), *sys.argv[2:])
