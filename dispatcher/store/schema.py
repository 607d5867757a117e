"""The tables. What the schema can refuse, it refuses: half-states never reach the disk.

Times are µs since 1970 UTC. `due_at` is the one schedule: no job, queue or memory holds another.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from dispatcher.policy import Status

SCHEMA_VERSION = 1

metadata = MetaData()
_STATUSES = ", ".join(f"'{status}'" for status in Status)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("operator", String, nullable=False),
    Column("type", String, nullable=False),
    Column("key", String, nullable=False),
    Column("uid", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bearer", Text),
    Column("status", String, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # Attempts made before the current run: a replay starts a new run and erases nothing.
    Column("run_from", Integer, nullable=False, server_default=text("0")),
    # End of the current run's first attempt, for schedules that are measured from it.
    Column("anchor_at", BigInteger),
    Column("token", BigInteger),
    Column("claimed_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("reason", String),
    Column("ambiguous", Boolean, nullable=False, server_default=text("0")),
    UniqueConstraint("operator", "key", "type"),
    CheckConstraint(f"status IN ({_STATUSES})", name="status_is_known"),
    CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="pending_exactly_when_due"),
    CheckConstraint("(status = 'sending') = (token IS NOT NULL)", name="sending_exactly_when_held"),
    CheckConstraint("(token IS NULL) = (claimed_at IS NULL)", name="held_since"),
    CheckConstraint(
        "(status IN ('delivered', 'dead', 'resolved')) = (finished_at IS NOT NULL)", name="finished_exactly_when_ended"
    ),
    CheckConstraint("attempts >= run_from", name="a_run_starts_in_the_past"),
)

# Partial: these stay as small as the work that waits, however many rows are finished.
Index("due", deliveries.c.operator, deliveries.c.due_at, sqlite_where=text("status = 'pending'"))
Index("held", deliveries.c.claimed_at, sqlite_where=text("status = 'sending'"))
Index("dead", deliveries.c.id, sqlite_where=text("status = 'dead'"))

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Integer, ForeignKey("deliveries.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    # True for an attempt whose claim had been taken away by the time it ended: it happened, but decided nothing.
    Column("late", Boolean, primary_key=True),
    Column("trigger", String, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("duration", BigInteger),
    Column("http_status", Integer),
    Column("code", String),
    Column("reason", String),
    Column("ambiguous", Boolean, nullable=False),
    Column("key_version", Integer),
    Column("response", Text),
    Column("detail", Text),
    sqlite_with_rowid=False,
)

# What people did by hand; rows are only ever added.
actions = Table(
    "actions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("delivery_id", Integer, ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("at", BigInteger, nullable=False),
    Column("verb", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("note", Text),
)

# Which key an attempt used, by number; the fingerprint tells keys apart and gives none away.
key_versions = Table(
    "key_versions",
    metadata,
    Column("operator", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", String, nullable=False),
    Column("since", BigInteger, nullable=False),
)
