"""Millions of rows made by the database itself, so that a large store costs minutes and not hours."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Connection, text

from dispatcher.store.engine import Database

OPERATORS = 1_000
PLAYERS = 200_000
# The last one of the operators, which has next to nothing; the first one has half of everything.
RARE = f"op-{OPERATORS - 1:04d}"
BUSY = "op-0000"
CHUNK = 1_000_000
# µs between two acceptances: ten million of them are a month.
STEP = 259_200
_SPREAD = 7_919

_NUMBERS = {
    "sqlite": "(WITH RECURSIVE c(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM c WHERE n < :last) SELECT n FROM c)",
    "postgresql": "generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS numbers(n)",
}
_NAMED = {"sqlite": "printf('op-%04d', {})", "postgresql": "'op-' || lpad(CAST({} AS text), 4, '0')"}
_DIGEST = {"sqlite": "randomblob(32)", "postgresql": "decode(md5(CAST(n AS text)) || md5(CAST(n + 1 AS text)), 'hex')"}
_BODY = (
    '{"order_no":"1000000000000000000","uid":"player-100000","total_bet":"12.25","total_win":"1.50",'
    '"net_win":"-10.75","business":"Spin","game_id":7,"time":1700000000,"wallet":"1234567.89","round":"7f3a9c52"}'
)
_ROWS = """
    INSERT INTO deliveries (id, operator, type, "key", uid, body, digest, status, accepted_at, due_at, attempts,
                            finished_at, reason)
    SELECT n, {operator}, CASE WHEN n % 1000 = 3 THEN 'settle' ELSE 'notice' END,
           CAST(1000000000000000000 + n AS text), 'player-' || (n * {spread} % {players}), '{body}', {digest}, {status},
           :at + n * {step}, {due}, {attempts}, {finished}, {reason}
    FROM {numbers}
"""
_TRIED = """
    INSERT INTO attempts (delivery_id, n, late, "trigger", started_at, duration, http_status, ambiguous, response)
    SELECT n, 1, {no}, 'scheduled', :at + n * {step}, 20000, 200, {no}, 'OK' FROM {numbers}
"""


def _insert(connection: Connection, statement: str, first: int, last: int, at: int, **words: str) -> None:
    name = connection.dialect.name
    words |= {"spread": str(_SPREAD), "players": str(PLAYERS), "step": str(STEP), "body": _BODY.replace(":", "\\:")}
    words |= {"digest": _DIGEST[name], "no": "0" if name == "sqlite" else "false", "numbers": _NUMBERS[name]}
    for word, value in words.items():
        statement = statement.replace(f"{{{word}}}", value)
    connection.execute(text(statement), {"first": first, "last": last, "at": at})


def _of(connection: Connection, *, alone: bool) -> str:
    """The operator of row n: half of all are the busy one's, the rare one has one in half a million."""
    if alone:
        return f"'{BUSY}'"
    named = _NAMED[connection.dialect.name].format(f"n / 2 * {_SPREAD} % {OPERATORS - 1}")
    return f"CASE WHEN n % 500000 = 1 THEN '{RARE}' WHEN n % 2 = 0 THEN '{BUSY}' ELSE {named} END"


def fill(database: Database, finished: int, waiting: int, now: int, *, alone: bool = False) -> None:
    """So many deliveries that have ended, and after them so many that wait; `alone`: all these are one operator's.

    They were accepted one after the other until now. One in 2,000 is dead, one in 10,000 was resolved; of those that
    wait one half is due, the other half in an hour.
    """
    at = now - (finished + waiting) * STEP
    ended = "CASE WHEN n % 2000 = 7 THEN 'dead' WHEN n % 10000 = 9 THEN 'resolved' ELSE 'delivered' END"
    with without_indexes(database):
        for first in range(1, finished + 1, CHUNK):
            last = min(first + CHUNK - 1, finished)
            with database.writing() as connection:
                words = {"operator": _of(connection, alone=False), "status": ended, "due": "NULL", "attempts": "1"}
                words |= {"finished": f":at + n * {STEP} + 2000000"}
                words |= {"reason": "CASE WHEN n % 2000 = 7 THEN 'connect_refused' END"}
                _insert(connection, _ROWS, first, last, at, **words)
                _insert(connection, _TRIED, first, last, at)
        for first in range(finished + 1, finished + waiting + 1, CHUNK):
            last = min(first + CHUNK - 1, finished + waiting)
            with database.writing() as connection:
                words = {"operator": _of(connection, alone=alone), "status": "'pending'", "attempts": "0"}
                words |= {"due": f":at + n * {STEP} + CASE WHEN n % 4 < 2 THEN 0 ELSE 7200000000 END"}
                _insert(connection, _ROWS, first, last, at, **words, finished="NULL", reason="NULL")
    settle_down(database, finished + waiting)


@contextmanager
def without_indexes(database: Database) -> Iterator[None]:
    """An index that is made at once over all rows costs a tenth of one that grows row by row."""
    with database.writing() as connection:
        made = [(name, sql) for name, sql in connection.execute(text(_INDEXES[connection.dialect.name]))]
        for name, _ in made:
            connection.execute(text(f"DROP INDEX {name}"))
    yield
    for _, sql in made:
        with database.writing() as connection:
            connection.exec_driver_sql(sql)


_INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'deliveries' AND sql NOT NULL",
    "postgresql": """
        SELECT i.indexname, i.indexdef FROM pg_indexes i WHERE i.schemaname = current_schema()
        AND i.tablename = 'deliveries' AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conname = i.indexname)
    """,
}


def settle_down(database: Database, last: int) -> None:
    """What a store that has grown by itself has behind it: counters where they belong, pages clean, statistics."""
    if database.engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(str(database.place))) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"SELECT setval('deliveries_id_seq', {last + 1})")
        connection.exec_driver_sql("VACUUM ANALYZE deliveries")
        connection.exec_driver_sql("VACUUM ANALYZE attempts")
        connection.exec_driver_sql("CHECKPOINT")
