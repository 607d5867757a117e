"""The tables. What the schema can refuse, it refuses: half-states never reach the disk.

Times are µs since 1970 UTC. `due_at` is the one schedule: no job, queue or memory holds another.
"""

from collections.abc import Callable
from typing import Any

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
    false,
    literal_column,
    text,
)

from dispatcher.ground.policy import Status
from dispatcher.store.databases.dialect import POSTGRESQL, SQLITE, Dialect

# The newest of the revisions in `migrations`, which tells how to add one.
REVISION = "0008"

metadata = MetaData()
# SQLite counts rows by itself only where their number is an Integer.
_Id = BigInteger().with_variant(Integer, "sqlite")
_STATUSES = ", ".join(f"'{status}'" for status in Status)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("operator", String, nullable=False),
    Column("type", String, nullable=False),
    Column("key", String, nullable=False),
    Column("uid", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # The player's token, locked by the vault.
    Column("bearer", Text),
    # What events share that go out one after the other. `in_line`: it stands in the way of later ones;
    # `parked`: it waits behind an earlier one, and is not claimed before that has left the line.
    Column("sequence", String),
    Column("in_line", Boolean, nullable=False, server_default=false()),
    Column("parked", Boolean, nullable=False, server_default=false()),
    # A later one of its line went out, or may have, while this one had not: sent now, it comes in the wrong order.
    Column("superseded", Boolean, nullable=False, server_default=false()),
    Column("status", String, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # Attempts made before the current run: a replay starts a new run and erases nothing.
    Column("run_from", Integer, nullable=False, server_default=text("0")),
    # Attempts of the current run that count for no schedule: probes of an operator that the breaker held.
    Column("probes", Integer, nullable=False, server_default=text("0")),
    # End of the current run's first attempt, on the operator's own clock, which stands still while it is closed.
    Column("anchor_at", BigInteger),
    # Who claimed it, under which token and when. Only the token makes anybody's result count.
    Column("worker", BigInteger),
    Column("token", BigInteger),
    Column("claimed_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("reason", String),
    Column("ambiguous", Boolean, nullable=False, server_default=false()),
    CheckConstraint(f"status IN ({_STATUSES})", name="status_is_known"),
    CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="pending_exactly_when_due"),
    CheckConstraint("(status = 'sending') = (token IS NOT NULL)", name="sending_exactly_when_held"),
    CheckConstraint("(token IS NULL) = (claimed_at IS NULL) AND (token IS NULL) = (worker IS NULL)", name="held_since"),
    CheckConstraint(
        "(status IN ('delivered', 'dead', 'resolved')) = (finished_at IS NOT NULL)", name="finished_exactly_when_ended"
    ),
    CheckConstraint("attempts >= run_from + probes", name="a_run_starts_in_the_past"),
    CheckConstraint("NOT in_line OR sequence IS NOT NULL", name="in_line_of_a_sequence"),
    CheckConstraint("NOT parked OR (status = 'pending' AND in_line)", name="parked_in_line"),
    # Claim and settle each leave a dead row behind: a table of any size is vacuumed after a fiftieth of it.
    # No room is kept on the pages (fillfactor): no update is HOT, and the table was twice as large for nothing.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "20000",
        "autovacuum_analyze_scale_factor": "0.02",
    },
)


def _partial(name: str, where: Callable[[Dialect], str], *columns: Column[Any]) -> Index:
    """These stay as small as the work that waits, however many rows are finished."""
    return Index(name, *columns, sqlite_where=text(where(SQLITE)), postgresql_where=text(where(POSTGRESQL)))


_d = deliveries.c
# The identity. The key leads: it grows with time more often than not, and one index page takes what a batch brings;
# and a key is found without its operator.
Index("identity", _d.key, _d.operator, _d.type, unique=True)
# What the log is read from (store/search.py). All times of acceptance are in them, so that none is looked for in vain.
_lane = (_d.type, _d.operator, _d.accepted_at, _d.id)
Index("by_operator", *_lane)
# Players come in any order, so an index that begins with them has a page of its own to write for every row, anywhere
# in it. A bucket of 16,384 rows is a few pages, which a batch shares; a search asks every bucket.
Index("by_player", _d.id.op(">>")(literal_column("14")), _d.uid)
_partial("log_delivered", lambda _: "status = 'delivered'", *_lane)
# Whatever failed is looked for by its reason as well, and the dead by the time of their end: the index tells those too.
_partial("log_pending", lambda _: "status = 'pending'", *_lane, _d.reason)
_partial("log_resolved", lambda _: "status = 'resolved'", *_lane, _d.reason)
_partial("dead", lambda _: "status = 'dead'", *_lane, _d.reason, _d.finished_at)
# What a bulk replay walks along, and counts (store/replays.py): each operator's dead in the order of their acceptance.
_partial(
    *("dead_by_number", lambda _: "status = 'dead'"),
    *(_d.operator, _d.id, _d.type, _d.uid, _d.reason, _d.finished_at, _d.superseded),
)
_partial("dead_of_line", lambda _: "status = 'dead' AND sequence IS NOT NULL", _d.operator, _d.sequence, _d.id)
# Of those due at one moment the first accepted is the first to go; SQLite has the number in every index anyway.
for _words, _columns in ((SQLITE, (_d.operator, _d.due_at)), (POSTGRESQL, (_d.operator, _d.due_at, _d.id))):
    _partial("due", lambda its: f"status = 'pending' AND parked = {its.no}", *_columns).ddl_if(dialect=_words.name)
_partial("held", lambda _: "status = 'sending'", _d.worker, _d.claimed_at)
_partial("line", lambda its: f"in_line = {its.yes}", _d.operator, _d.sequence, _d.parked, _d.id)

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", _Id, ForeignKey("deliveries.id"), primary_key=True),
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

# Who works on this database: a worker lives as long as its row stands. Times by the database's clock: `since` is when
# the unbroken series of its beats began, `seen_at` the last of them.
workers = Table(
    "workers",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    # For people: which process, on which host.
    Column("name", String, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

# Rows that are locked and never changed: who holds one does alone what `locks.Alone` says. Made with the tables.
locks = Table("locks", metadata, Column("id", Integer, primary_key=True, autoincrement=False))

# Every operator that was ever declared. `settings` is its whole document, locked by the vault; null once it is gone.
# `paused_at`: a person paused it; `held_at`: the breaker holds it. While either stands it is closed: `closed_since` is
# when that began, `closed_total` how long it was closed before that, in all.
operators = Table(
    "operators",
    metadata,
    Column("name", String, primary_key=True),
    Column("origin", String, nullable=False),
    Column("settings", Text),
    Column("key_version", Integer),
    # Grows with every change of any row: whoever remembers the highest knows whether there is something new.
    Column("revision", BigInteger, nullable=False, index=True),
    Column("updated_at", BigInteger, nullable=False),
    Column("paused_at", BigInteger),
    Column("held_at", BigInteger),
    Column("closed_since", BigInteger),
    Column("closed_total", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("origin IN ('file', 'command')", name="origin_is_known"),
    CheckConstraint(
        "(closed_since IS NOT NULL) = (paused_at IS NOT NULL OR held_at IS NOT NULL)", name="closed_when_stopped"
    ),
)

# Which key an attempt used, by number; the fingerprint, made with the journal's key, tells keys apart and is no use to
# whoever guesses.
key_versions = Table(
    "key_versions",
    metadata,
    Column("operator", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", String, nullable=False),
    Column("since", BigInteger, nullable=False),
)

# The keys that entries of the journal are sealed with, each locked by the vault: another master key locks them anew and
# changes no seal.
journal_keys = Table(
    "journal_keys",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("locked", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
)

# What was done by hand, to deliveries and to operators (store/journal.py): rows are only ever added, the last table to
# which a transaction does so. A delivery is named and not referred to: its entries stay when retention deletes it.
journal = Table(
    "journal",
    metadata,
    Column("n", _Id, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("verb", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("operator", String),
    Column("type", String),
    Column("key", String),
    Column("delivery_id", _Id),
    Column("note", Text),
    # Which settings, as a JSON list of their names; never what they say.
    Column("changed", Text),
    Column("key_version", Integer),
    Column("hash", LargeBinary, nullable=False),
    Column("sealed_by", Integer),
    Column("seal", LargeBinary),
    CheckConstraint("(sealed_by IS NULL) = (seal IS NULL)", name="sealed_with_a_key"),
)
_partial("journal_of_delivery", lambda _: "delivery_id IS NOT NULL", journal.c.delivery_id, journal.c.n)
_partial("journal_of_operator", lambda _: "delivery_id IS NULL", journal.c.operator, journal.c.n)

# Who may use the HTTP API. Of a key only the hash is kept; `scopes` are names with blanks between. `rate`: requests a
# second, null for the configured one. A revoked key stays: what was done under its name is in the log for good.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),
    Column("scopes", String, nullable=False),
    # The only operator that it sees; null for all of them.
    Column("operator", String),
    Column("rate", Integer),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    # To the minute.
    Column("last_used_at", BigInteger),
)

# Who may use the console. `password` is what scrypt makes of it. A disabled account stays, for what was done under it.
accounts = Table(
    "accounts",
    metadata,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    # The only operator that it sees.
    Column("operator", String),
    Column("password", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Column("last_login_at", BigInteger),
    CheckConstraint("role IN ('admin', 'support', 'operator')", name="role_is_known"),
    CheckConstraint("(role = 'operator') = (operator IS NOT NULL)", name="bound_by_its_role"),
)

# Who is logged in. Of the token that the browser has only the hash is kept. `seen_at`: to the minute.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("account", String, ForeignKey("accounts.name"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

# What came of the attempts of each minute (store/minutes.py): figures that workers add up, not the record. `at`: when
# it begins. `reason` is "" where there is none. `took`, `late`: sums in µs.
minutes = Table(
    "minutes",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("operator", String, primary_key=True),
    Column("type", String, primary_key=True),
    Column("result", String, primary_key=True),
    Column("reason", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("took", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Bulk replays, each a job that outlives whoever made it (store/replays.py). `filter`: which dead letters, as JSON;
# `cursor`: a JSON list of the operators that have some left, each with how far the walk along its dead has come;
# `refusals`: the first of the refused, with the sentence why. `driven_at`: when a worker made its last step, null
# while it is paused; `worked`: how long (µs) it was driven in all; `next_at`: when its next step may be made.
replays = Table(
    "replays",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("actor", String, nullable=False),
    Column("note", Text, nullable=False),
    # The only operator that it is about; null for several.
    Column("operator", String),
    Column("filter", Text, nullable=False),
    Column("pace", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False, server_default=text("0")),
    Column("refused", BigInteger, nullable=False, server_default=text("0")),
    Column("refusals", Text, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("worked", BigInteger, nullable=False, server_default=text("0")),
    Column("driven_at", BigInteger),
    Column("next_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    CheckConstraint("state IN ('running', 'paused', 'cancelled', 'done')", name="replay_state_is_known"),
    CheckConstraint("(state IN ('cancelled', 'done')) = (finished_at IS NOT NULL)", name="replay_finished_when_ended"),
    CheckConstraint("pace > 0", name="replay_has_a_pace"),
)

# Who follows attempts as they happen (store/feed.py), and until when that holds unless it is renewed (µs).
tails = Table(
    "tails",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
)
# What each turn of a worker settled, while somebody follows: a JSON list of delivery, attempt and its beginning (µs).
feed = Table(
    "feed",
    metadata,
    Column("worker", BigInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("told", Text, nullable=False),
    sqlite_with_rowid=False,
)
