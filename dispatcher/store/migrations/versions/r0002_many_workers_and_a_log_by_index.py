"""Who works on the store, what they do one after the other, whose a claim is; and the log is found by index.

What was under way when the store was brought up is held by worker 0, whom nobody is: so it is adopted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_HELD_SINCE = "(token IS NULL) = (claimed_at IS NULL) AND (token IS NULL) = (worker IS NULL)"


def upgrade() -> None:
    """Every row stays; in a file the deliveries are written anew."""
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("started_at", "since", "seen_at")),
    )
    locks = op.create_table("locks", sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
    op.bulk_insert(locks, [{"id": number} for number in range(66)])
    if op.get_context().dialect.name == "postgresql":
        _change_on_a_server()
    else:
        _make_anew_in_a_file()
    _indexes()


def _change_on_a_server() -> None:
    op.add_column("deliveries", sa.Column("worker", sa.BigInteger))
    op.execute("UPDATE deliveries SET worker = 0 WHERE status = 'sending'")
    op.drop_constraint("held_since", "deliveries")
    op.create_check_constraint("held_since", "deliveries", _HELD_SINCE)
    op.drop_constraint("deliveries_operator_key_type_key", "deliveries")
    op.drop_index("held")
    op.drop_index("dead")
    op.execute(
        "ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,"
        " autovacuum_analyze_scale_factor = 0.02)"
    )


def _make_anew_in_a_file() -> None:
    """SQLite changes no constraint. Its indexes go with the old table."""
    _deliveries("deliveries_made_anew")
    kept = (
        "id, operator, type, key, uid, body, digest, bearer, sequence, in_line, parked, status, accepted_at, due_at,"
        " attempts, run_from, probes, anchor_at, token, claimed_at, finished_at, reason, ambiguous"
    )
    op.execute(
        f"INSERT INTO deliveries_made_anew ({kept}, worker)"
        f" SELECT {kept}, CASE status WHEN 'sending' THEN 0 END FROM deliveries"
    )
    op.drop_table("deliveries")
    # What refers to `deliveries` by name goes on to do so.
    op.rename_table("deliveries_made_anew", "deliveries")
    due = "status = 'pending' AND parked = 0"
    op.create_index("due", "deliveries", ["operator", "due_at"], sqlite_where=sa.text(due))
    line = ["operator", "sequence", "parked", "id"]
    op.create_index("line", "deliveries", line, sqlite_where=sa.text("in_line = 1"))


def _deliveries(name: str) -> None:
    op.create_table(
        name,
        sa.Column("id", _ID, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("operator", "type", "key", "uid")),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("bearer", sa.Text),
        sa.Column("sequence", sa.String),
        sa.Column("in_line", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("parked", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        *(
            sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))
            for name in ("attempts", "run_from", "probes")
        ),
        *(sa.Column(name, sa.BigInteger) for name in ("anchor_at", "worker", "token", "claimed_at", "finished_at")),
        sa.Column("reason", sa.String),
        sa.Column("ambiguous", sa.Boolean, nullable=False, server_default=sa.false()),
        *(sa.CheckConstraint(rule, name=name) for name, rule in _RULES.items()),
    )


_RULES = {
    "status_is_known": "status IN ('pending', 'sending', 'delivered', 'dead', 'resolved')",
    "pending_exactly_when_due": "(status = 'pending') = (due_at IS NOT NULL)",
    "sending_exactly_when_held": "(status = 'sending') = (token IS NOT NULL)",
    "held_since": _HELD_SINCE,
    "finished_exactly_when_ended": "(status IN ('delivered', 'dead', 'resolved')) = (finished_at IS NOT NULL)",
    "a_run_starts_in_the_past": "attempts >= run_from + probes",
    "in_line_of_a_sequence": "NOT in_line OR sequence IS NOT NULL",
    "parked_in_line": "NOT parked OR (status = 'pending' AND in_line)",
}


def _indexes() -> None:
    lane = ["type", "operator", "accepted_at", "id"]
    op.create_index("identity", "deliveries", ["key", "operator", "type"], unique=True)
    op.create_index("by_operator", "deliveries", lane)
    bucket = "(id >> 14)" if op.get_context().dialect.name == "postgresql" else "id >> 14"
    op.create_index("by_player", "deliveries", [sa.text(bucket), "uid"])
    _of_status("held", "sending", "worker", "claimed_at")
    _of_status("log_delivered", "delivered", *lane)
    _of_status("log_pending", "pending", *lane, "reason")
    _of_status("log_resolved", "resolved", *lane, "reason")
    _of_status("dead", "dead", *lane, "reason", "finished_at")


def _of_status(name: str, status: str, *columns: str) -> None:
    where = sa.text(f"status = '{status}'")
    op.create_index(name, "deliveries", list(columns), sqlite_where=where, postgresql_where=where)
