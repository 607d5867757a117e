"""Bulk replays as jobs; and whether a delivery that has an order comes too late."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# Once, by one walk: from now on the corridor marks them.
_LATE = """
    UPDATE deliveries SET superseded = true
    FROM (
        SELECT operator, sequence, max(id) AS last FROM deliveries
        WHERE sequence IS NOT NULL AND (status = 'delivered' OR ambiguous)
        GROUP BY operator, sequence
    ) AS gone
    WHERE deliveries.operator = gone.operator AND deliveries.sequence = gone.sequence AND deliveries.id < gone.last
      AND (deliveries.status = 'dead' OR deliveries.parked)
"""


def upgrade() -> None:
    """Every row stays; nothing is a job yet."""
    op.add_column("deliveries", sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(_LATE)
    covered = ["operator", "id", "type", "uid", "reason", "finished_at", "superseded"]
    _of_dead("dead_by_number", "status = 'dead'", covered)
    _of_dead("dead_of_line", "status = 'dead' AND sequence IS NOT NULL", ["operator", "sequence", "id"])
    op.create_table(
        "replays",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("operator", sa.String),
        sa.Column("filter", sa.Text, nullable=False),
        sa.Column("pace", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        *(_counter(name) for name in ("taken", "refused")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("refusals", "cursor")),
        _counter("worked"),
        sa.Column("driven_at", sa.BigInteger),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("next_at", "created_at", "updated_at")),
        sa.Column("finished_at", sa.BigInteger),
        sa.CheckConstraint("state IN ('running', 'paused', 'cancelled', 'done')", name="replay_state_is_known"),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'done')) = (finished_at IS NOT NULL)", name="replay_finished_when_ended"
        ),
        sa.CheckConstraint("pace > 0", name="replay_has_a_pace"),
    )


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def _of_dead(name: str, where: str, columns: list[str]) -> None:
    condition = sa.text(where)
    op.create_index(name, "deliveries", columns, sqlite_where=condition, postgresql_where=condition)
