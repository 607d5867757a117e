"""`dispatcher demo`: the whole story on this machine, with real processes, real HTTP and a real database."""

import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import click

from dispatcher.cli.common import guarded
from dispatcher.ground.errors import Refused
from dispatcher.ground.policy import Status
from dispatcher.store.engine import open_database
from dispatcher.store.ledger import Filter, Row, find

SPINS = 24
PATIENCE_SECONDS = 40.0

# What the demo finds wrong at its end is nothing that whoever runs it could have done.
_BUG = "that is a bug of ours: report it with what stands above"

_CONFIG = """\
[database]
url = "sqlite:///demo.db"
[egress]
allow = ["127.0.0.0/8"]                  # the demo operators live on this machine
[web]
listen = ""
"""
_NOTICE = """\
[operators.{name}]
notice_url = "http://127.0.0.1:{port}/Demo/notice"
token = "demo-token-of-{name}"
total_timeout = "1s"
connect_timeout = "1s"
retry = {{ delays = ["1s", "2s", "3s"] }}   # instead of 1m, 30m, 50m
crypto = {{ key = "demo-key-16bytes", iv = "demo-iv-16-bytes" }}
"""
_SETTLE = """\
[operators.{name}]
callback_url = "http://127.0.0.1:{port}/wallet"
retry = {{ every = "1s", for = "10s" }}     # instead of 60s for 3h
"""


class Player(NamedTuple):
    """A demo operator: its name, its settings, how it misbehaves, and what that means in words."""

    name: str
    settings: str
    faults: tuple[str, ...]
    told: str


PLAYERS = (
    Player("granite", _NOTICE, (), "answers at once"),
    Player("willow", _NOTICE, ("--fail-first", "2"), "answers 500 twice for every order, then accepts it"),
    Player("harbour", _NOTICE, ("--delay", "1500ms", "--status", "500", "--book-first"), "books, answers too late"),
    Player("quarry", _SETTLE, ("--fail-first", "1", "--code", "1005"), "takes payouts; says 200 and code 1005 first"),
)


@click.command(name="demo")
@guarded
def command() -> None:
    """Demo operators with faults, real POSTs, retries, dead letters, a replay: everything in under a minute.

    It works in a temporary folder. Exit status 0 only if every delivery ended as it should.
    """
    with tempfile.TemporaryDirectory(prefix="dispatcher-demo-") as folder, ExitStack() as stack:
        story = Story(Path(folder), stack)
        story.configure()
        story.tell_operators()
        story.accept()
        story.deliver()
        story.mend_and_replay()
        story.resolve()
        story.close_the_books()


class Story:
    """The demo, scene by scene, in one folder; everything it starts is stopped with `stack`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.ports = {player.name: _free_port() for player in PLAYERS}
        self.receivers: dict[str, subprocess.Popen[bytes]] = {}

    def configure(self) -> None:
        operators = [player.settings.format(name=player.name, port=self.ports[player.name]) for player in PLAYERS]
        (self.folder / "config.toml").write_text("\n".join([_CONFIG, *operators]))

    def tell_operators(self) -> None:
        _scene("Four operators, each a process of its own, and the daemon")
        for player in PLAYERS:
            click.echo(f"  {player.name:8} {player.told}")
            self._play(player.name, player.faults)
        self._start("run", "run")
        _until("the daemon", lambda: (self.folder / "demo.db-bell").exists())

    def _play(self, name: str, faults: Sequence[str]) -> None:
        if name in self.receivers:
            _stop(self.receivers[name])
        self.receivers[name] = self._start(name, "receiver", "--operator", name, "--quiet", *faults)
        _until(f"the operator {name}", lambda: _answers(self.ports[name]))

    def accept(self) -> None:
        _scene(f"{SPINS} spins from the game server, as NDJSON; one is handed in twice, one is broken")
        dice = random.Random(7)
        lines = [_spin(number, dice) for number in range(SPINS)]
        lines += [lines[0], lines[1].replace('"total_win":', '"total_won":')]
        (self.folder / "spins.ndjson").write_text("\n".join(lines) + "\n", "utf-8")
        self._run("enqueue", "spins.ndjson", expect=1)

    def deliver(self) -> None:
        _scene("The daemon delivers; what fails comes back after 1, 2 and 3 seconds")
        database = open_database(self.folder / "demo.db")
        with _progress() as show:

            def ended() -> bool:
                rows = list(find(database, Filter(), None))
                show(rows)
                return all(row.finished_at is not None for row in rows)

            _until("the last delivery", ended)
        self.database = database

    def mend_and_replay(self) -> None:
        _scene("harbour's deliveries are dead: it may have booked them (*), but nobody has heard a yes")
        self._run("dead", "list", "--limit", "3")
        click.echo("  harbour mends its server; support replays all but one of its dead letters.\n")
        self._play("harbour", ())
        self.dead = [row.key for row in find(self.database, Filter(status=Status.DEAD), None)]
        self._run("dead", "replay", "--dry-run", "harbour", *self.dead[1:], quiet=True)
        self._run("dead", "replay", "harbour", *self.dead[1:])
        replayed = Filter(operator="harbour", status=Status.DELIVERED)
        _until("the replay", lambda: len(list(find(self.database, replayed, None))) == len(self.dead) - 1)

    def resolve(self) -> None:
        _scene("The last one is settled with the operator by phone")
        self._run("dead", "resolve", "harbour", self.dead[0], "--note", "harbour confirmed it by phone")
        self._run("show", "harbour", self.dead[0])

    def close_the_books(self) -> None:
        _scene("The wallet-flow log")
        self._run("log")
        rows = list(find(self.database, Filter(), None))
        statuses = Counter(row.status for row in rows)
        booked = {name: _received(port) for name, port in self.ports.items()}
        for row in rows:
            if row.status == Status.DELIVERED and row.key not in booked[row.operator]:
                raise Refused(f"{row.operator} {row.key} is delivered here and not booked there; {_BUG}")
        if statuses != {Status.DELIVERED: SPINS - 1, Status.RESOLVED: 1}:
            raise Refused(f"not every delivery ended as it should: {dict(statuses)}; {_BUG}")
        click.echo(f"{SPINS} accepted, {SPINS - 1} delivered, each booked once by its operator; 1 resolved by hand.")

    def _start(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        errors = self.stack.enter_context((self.folder / f"{log}.log").open("ab"))
        process = subprocess.Popen([*_COMMAND, *self._configured(arguments)], stderr=errors, cwd=self.folder)
        self.stack.callback(_stop, process)
        return process

    def _run(self, *arguments: str, expect: int = 0, quiet: bool = False) -> None:
        """Shows the command, runs it as a user would, and what it prints."""
        click.secho(f"  $ dispatcher {_abridged(arguments)}", bold=True)
        done = subprocess.run(
            [*_COMMAND, *self._configured(arguments)],
            cwd=self.folder,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        told = [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and "Warning:" not in line]
        for line in told[-1:] if quiet else told:
            click.echo(f"    {line}")
        click.echo()
        if done.returncode != expect:
            why = f"dispatcher {arguments[0]} ended with {done.returncode} instead of {expect}"
            raise Refused(f"{why}; look at what it said above")

    def _configured(self, arguments: Sequence[str]) -> list[str]:
        at = 2 if arguments[0] == "dead" else 1
        return [*arguments[:at], "-c", str(self.folder / "config.toml"), *arguments[at:]]


_COMMAND = (sys.executable, "-m", "dispatcher")


def _scene(title: str) -> None:
    click.secho(f"\n■ {title}", fg="cyan", bold=True)


def _abridged(arguments: Sequence[str]) -> str:
    shown = [f'"{one}"' if " " in one else one for one in arguments]
    return " ".join(shown if len(shown) < 8 else [*shown[:4], f"… ({len(shown) - 4} more)"])


def _spin(number: int, dice: random.Random) -> str:
    """One spin as the game server would hand it in."""
    bet = dice.choice(["0.5", "1", "2.50", "10"])
    win = dice.choice(["0", "0", "0.8", "12.345", "100"])
    operator = PLAYERS[number % len(PLAYERS)].name
    if PLAYERS[number % len(PLAYERS)].settings is _SETTLE:
        return _payout(operator, number, bet, win)
    return (
        f'{{"operator":"{operator}","type":"notice","order_no":"20261120{number:011d}","uid":"player-{number % 5}",'
        f'"total_bet":{bet},"total_win":{win},"business":"Spin投入","game_id":49,"time":{1_790_000_000 + number}}}'
    )


def _payout(operator: str, number: int, bet: str, win: str) -> str:
    """One finished round as the game server would hand it in."""
    return (
        f'{{"operator":"{operator}","type":"settle","gameType":"SLOT","gameCode":"fortune-mouse",'
        f'"userId":"player-{number % 5}","txId":"tx{number:011d}","roundId":"round-{number}","status":"settled",'
        f'"betTime":"2026-11-20T08:00:00.000+0000","roundStartTime":"2026-11-20T16:00:00.000+0800",'
        f'"betAmount":{bet},"validBetAmount":{bet},"winAmount":{win},"odds":1.0,"result":["A","K","Q"]}}'
    )


def _until(what: str, true: Callable[[], bool]) -> None:
    """Waits for `true`. Raises Refused when patience ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > end:
            raise Refused(
                f"{what} did not come within {PATIENCE_SECONDS:g} s; run it again on a machine that is less busy"
            )
        time.sleep(0.1)


@contextmanager
def _progress() -> Iterator[Callable[[Sequence[Row]], None]]:
    """One line that lives on a terminal; elsewhere a line whenever something changed."""
    last = ""

    def show(rows: Sequence[Row]) -> None:
        nonlocal last
        counts = Counter(row.status for row in rows)
        attempts = sum(row.attempts for row in rows)
        told = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
        line = f"  {attempts} attempts: {told}"
        if line != last:
            click.echo(f"\r\x1b[K{line}" if sys.stdout.isatty() else line, nl=not sys.stdout.isatty())
            last = line

    yield show
    click.echo()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        _received(port)
    except OSError:
        return False
    return True


def _received(port: int) -> set[str]:
    with urlopen(f"http://127.0.0.1:{port}/received", timeout=5) as answer:
        return {order.get("order_no") or order["txId"] for order in json.load(answer)}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(15)
