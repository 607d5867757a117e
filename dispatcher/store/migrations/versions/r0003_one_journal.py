"""What was done by hand stands in one journal, chained; the two tables that had it are gone.

The chain is made without the journal's key, which this does not have: whoever has it seals what stands there with the
next entry, and says so.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_AT_ONCE = 1_000
_NOTE = "chained at the upgrade to schema 0003: what was altered before can't be told"
# As they were done; of what was done at one moment, to deliveries first.
_DONE = """
    SELECT a.at, 0 AS kind, a.id, a.verb, a.actor, d.operator, d.type, d.key, a.delivery_id, a.note
    FROM actions a JOIN deliveries d ON d.id = a.delivery_id
    UNION ALL
    SELECT at, 1, id, verb, actor, operator, NULL, NULL, NULL, note FROM operator_actions
    ORDER BY 1, 2, 3
"""


def upgrade() -> None:
    """Every entry stays, under a new number."""
    op.create_table(
        "journal_keys",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("locked", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
    journal = _journal()
    op.execute("INSERT INTO locks (id) VALUES (66)")
    connection = op.get_bind()
    done = [tuple(row) for row in connection.execute(sa.text(_DONE))]
    if done:
        done.append((time.time_ns() // 1_000, 2, 0, "upgrade", "dispatcher", None, None, None, None, _NOTE))
        _chain(connection, journal, done)
    op.drop_table("actions")
    op.drop_table("operator_actions")
    _of("delivery", "delivery_id IS NOT NULL", "delivery_id")
    _of("operator", "delivery_id IS NULL", "operator")


def _journal() -> sa.Table:
    return op.create_table(
        "journal",
        sa.Column("n", _ID, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("verb", "actor")),
        *(sa.Column(name, sa.String) for name in ("operator", "type", "key")),
        sa.Column("delivery_id", _ID),
        *(sa.Column(name, sa.Text) for name in ("note", "changed")),
        sa.Column("key_version", sa.Integer),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("sealed_by", sa.Integer),
        sa.Column("seal", sa.LargeBinary),
        sa.CheckConstraint("(sealed_by IS NULL) = (seal IS NULL)", name="sealed_with_a_key"),
    )


def _chain(connection: sa.Connection, journal: sa.Table, done: Iterable[tuple[Any, ...]]) -> None:
    before, rows = b"", []
    for n, (at, _, _, verb, actor, operator, kind, key, delivery, note) in enumerate(done, 1):
        noted = [n, at, verb, actor, operator, kind, key, delivery, note, None, None, None]
        told = json.dumps(["dispatcher journal 1", before.hex(), *noted], ensure_ascii=False, separators=(",", ":"))
        before = hashlib.sha256(told.encode()).digest()
        named = dict(zip(journal.c.keys(), noted[:-1], strict=False))
        rows.append({**named, "hash": before})
        if len(rows) == _AT_ONCE:
            connection.execute(journal.insert(), rows)
            rows = []
    if rows:
        connection.execute(journal.insert(), rows)


def _of(what: str, where: str, column: str) -> None:
    condition = sa.text(where)
    op.create_index(f"journal_of_{what}", "journal", [column, "n"], sqlite_where=condition, postgresql_where=condition)
