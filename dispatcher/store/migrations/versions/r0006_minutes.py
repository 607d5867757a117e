"""What came of the attempts of each minute."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """One more table; no other is touched. Minutes before it are not made up for."""
    op.create_table(
        "minutes",
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("operator", sa.String, primary_key=True),
        sa.Column("type", sa.String, primary_key=True),
        sa.Column("result", sa.String, primary_key=True),
        sa.Column("reason", sa.String, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("took", sa.BigInteger, nullable=False),
        sa.Column("late", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
