"""The tables as they were when revisions began."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes them all."""
    _deliveries()
    _indexes_of_deliveries()
    _attempts()
    _operators()
    _acts("operator_actions", sa.Column("operator", sa.String, nullable=False))
    op.create_index("ix_operator_actions_operator", "operator_actions", ["operator"])
    _acts("actions", sa.Column("delivery_id", _ID, sa.ForeignKey("deliveries.id"), nullable=False))
    op.create_index("ix_actions_delivery_id", "actions", ["delivery_id"])
    op.create_table(
        "key_versions",
        sa.Column("operator", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
    )


def _deliveries() -> None:
    op.create_table(
        "deliveries",
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
        *(sa.Column(name, sa.BigInteger) for name in ("anchor_at", "token", "claimed_at", "finished_at")),
        sa.Column("reason", sa.String),
        sa.Column("ambiguous", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.UniqueConstraint("operator", "key", "type"),
        *(sa.CheckConstraint(rule, name=name) for name, rule in _RULES.items()),
    )


_RULES = {
    "status_is_known": "status IN ('pending', 'sending', 'delivered', 'dead', 'resolved')",
    "pending_exactly_when_due": "(status = 'pending') = (due_at IS NOT NULL)",
    "sending_exactly_when_held": "(status = 'sending') = (token IS NOT NULL)",
    "held_since": "(token IS NULL) = (claimed_at IS NULL)",
    "finished_exactly_when_ended": "(status IN ('delivered', 'dead', 'resolved')) = (finished_at IS NOT NULL)",
    "a_run_starts_in_the_past": "attempts >= run_from + probes",
    "in_line_of_a_sequence": "NOT in_line OR sequence IS NOT NULL",
    "parked_in_line": "NOT parked OR (status = 'pending' AND in_line)",
}


def _indexes_of_deliveries() -> None:
    on_server = op.get_context().dialect.name == "postgresql"
    no, yes = ("false", "true") if on_server else ("0", "1")
    _partial("due", f"status = 'pending' AND parked = {no}", "operator", "due_at", *(["id"] if on_server else []))
    _partial("held", "status = 'sending'", "claimed_at")
    _partial("dead", "status = 'dead'", "id")
    _partial("line", f"in_line = {yes}", "operator", "sequence", "parked", "id")


def _partial(name: str, where: str, *columns: str) -> None:
    op.create_index(name, "deliveries", list(columns), sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("delivery_id", _ID, sa.ForeignKey("deliveries.id"), primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("late", sa.Boolean, primary_key=True),
        sa.Column("trigger", sa.String, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("duration", sa.BigInteger),
        sa.Column("http_status", sa.Integer),
        sa.Column("code", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("ambiguous", sa.Boolean, nullable=False),
        sa.Column("key_version", sa.Integer),
        sa.Column("response", sa.Text),
        sa.Column("detail", sa.Text),
        sqlite_with_rowid=False,
    )


def _operators() -> None:
    op.create_table(
        "operators",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("settings", sa.Text),
        sa.Column("key_version", sa.Integer),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in ("paused_at", "held_at", "closed_since")),
        sa.Column("closed_total", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.CheckConstraint("origin IN ('file', 'command')", name="origin_is_known"),
        sa.CheckConstraint(
            "(closed_since IS NOT NULL) = (paused_at IS NOT NULL OR held_at IS NOT NULL)", name="closed_when_stopped"
        ),
    )
    op.create_index("ix_operators_revision", "operators", ["revision"])


def _acts(name: str, of: "sa.Column[object]") -> None:
    """A record of what people did, and to what."""
    op.create_table(
        name,
        sa.Column("id", _ID, primary_key=True),
        of,
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("verb", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("note", sa.Text),
    )
