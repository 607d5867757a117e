"""The command line in this process: a user's folder, and every command typed into it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing

from click.testing import CliRunner

from dispatcher.cli import main
from tests.story import Done, Story, leaks

# 2026-01-02T03:04:05.678Z in µs.
THEN = 1_767_323_045_678_000


class Desk(Story):
    """A story without processes: the commands run in this one, which is quicker and shows what they raise."""

    def call(self, *words: object, stdin: str | bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        given = {"LC_ALL": "C", "DISPATCHER_CONFIG": None, **(env or {})}
        arguments = ["--debug", *self.line(*words)[3:]]
        result = CliRunner().invoke(main, arguments, input=stdin, env=given, catch_exceptions=False)
        done = Done(result.exit_code, result.stdout, result.stderr)
        assert not leaks(done.out + done.err), done
        return done

    def change(self, text: str, *values: object) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(text, values)

    def bury(self, key: object, at: int = THEN, reason: str = "http_status", ambiguous: bool = False) -> None:
        """The delivery is dead since `at`."""
        self.change(
            "UPDATE deliveries SET status = 'dead', due_at = NULL, attempts = 4, finished_at = ?, reason = ?,"
            " ambiguous = ? WHERE key = ?",
            *(at, reason, ambiguous, key),
        )

    def attempt(self, key: object, n: int = 1, **values: object) -> None:
        """One attempt is recorded."""
        known = {"n": n, "late": False, "trigger": "first", "started_at": THEN, "duration": 5_678, "ambiguous": False}
        known |= {"http_status": 500, "reason": "http_status", "key_version": 1, **values}
        names, marks = ", ".join(f'"{name}"' for name in known), ", ".join("?" * len(known))
        given = f"INSERT INTO attempts (delivery_id, {names}) SELECT id, {marks} FROM deliveries WHERE key = ?"
        self.change(given, *known.values(), key)
