"""The pictures in the README: `python -m tests.screenshots docs/screenshots` draws them anew, in a real browser."""

import random
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from dispatcher.ground.clock import HOUR, MINUTE, SECOND
from dispatcher.ground.events import Event
from dispatcher.ground.policy import Reason
from dispatcher.store import minutes
from dispatcher.store.engine import Database
from dispatcher.store.minutes import Minute
from tests import flows
from tests.browser import started, visiting
from tests.consoled import console_served
from tests.stores import open_store

SIZE = (1280, 800)
FIRST = 1_790_000_000_123_456_000
DOUBTFUL = str(FIRST)
# Each page, drawn in the light and in the dark; the log also as most of its readers have it.
PAGES = {
    "front": "/console",
    "flow": "/console/flow?operator=acme",
    "delivery": "/console/deliveries/{doubt}",
    "dead": "/console/dead",
    "operators": "/console/operators",
    "operator": "/console/operators/acme",
    "accounts": "/console/accounts",
    "replays": "/console/replays",
}
PICTURES = [
    *(
        (f"{name}{'-dark' if dark else ''}.png", path, dark, "en-GB")
        for name, path in PAGES.items()
        for dark in (False, True)
    ),
    ("flow-zh.png", PAGES["flow"], False, "zh-CN"),
]


def draw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, started() as browser:
        database = open_store(Path(place) / "dispatcher.db")
        with console_served(database, Path(place)) as at:
            now = database.clock().now()
            an_hour_of_spins(database, now)
            a_day_of_attempts(database, now)
            doubt = flows.row_of(database, DOUBTFUL).id
            for name, path, dark, locale in PICTURES:
                with visiting(browser, at, size=SIZE, dark=dark, locale=locale) as page:
                    page.goto(path.format(doubt=doubt))
                    page.wait_for_load_state("networkidle")
                    page.screenshot(path=folder / name)


def an_hour_of_spins(database: Database, now: int) -> None:
    """Most delivered, one in doubt for good, some that are tried again."""
    flows.put(database, _spin(0), at=now - 3 * HOUR)
    flows.bury_all(database, now - 3 * HOUR, reason=Reason.READ_TIMEOUT)
    for number in range(1, 40):
        at = now - 60 * MINUTE + number * MINUTE
        flows.put(database, _spin(number), at=at)
        flows.try_all(database, at + SECOND, status=503 if number in (35, 38) else 200, body=b"ok")


def _spin(number: int) -> Event:
    chance = random.Random(number)
    bet = chance.choice((0.5, 1, 2, 5, 10, 20))
    win = Decimal(str(bet)) * chance.choice((0, 0, Decimal("0.4"), Decimal("1.5"), Decimal("2.25")))
    changes: dict[str, Any] = {
        "uid": f"player-{chance.randrange(88_000, 88_040)}",
        "game_id": chance.choice((49, 57, 68)),
    }
    return flows.spin(str(FIRST + number * 7_919), total_bet=str(bet), total_win=str(win), **changes)


def a_day_of_attempts(database: Database, now: int) -> None:
    """As an operator has them that was away for a quarter of an hour."""
    chance, made = random.Random(1), []
    for ago in range(1, 24 * 60):
        at = now - now % MINUTE - ago * MINUTE
        failed = chance.randrange(60, 90) if 20 < ago < 36 else chance.randrange(2, 9)
        worked = chance.randrange(110, 140) - failed
        made.append(Minute(at, "acme", "notice", "delivered", None, worked, worked * 158_000, worked * 4_000))
        made.append(Minute(at, "acme", "notice", "retry", "http_status", failed, failed * 300_000, failed * 9_000))
    minutes.add(database, made)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
