-- A store as it was made before there were revisions.
CREATE TABLE deliveries (
    id INTEGER NOT NULL,
    operator VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    "key" VARCHAR NOT NULL,
    uid VARCHAR NOT NULL,
    body TEXT NOT NULL,
    digest BLOB NOT NULL,
    bearer TEXT,
    sequence VARCHAR,
    in_line BOOLEAN DEFAULT 0 NOT NULL,
    parked BOOLEAN DEFAULT 0 NOT NULL,
    status VARCHAR NOT NULL,
    accepted_at BIGINT NOT NULL,
    due_at BIGINT,
    attempts INTEGER DEFAULT 0 NOT NULL,
    run_from INTEGER DEFAULT 0 NOT NULL,
    probes INTEGER DEFAULT 0 NOT NULL,
    anchor_at BIGINT,
    token BIGINT,
    claimed_at BIGINT,
    finished_at BIGINT,
    reason VARCHAR,
    ambiguous BOOLEAN DEFAULT 0 NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (operator, "key", type),
    CONSTRAINT status_is_known CHECK (status IN ('pending', 'sending', 'delivered', 'dead', 'resolved')),
    CONSTRAINT pending_exactly_when_due CHECK ((status = 'pending') = (due_at IS NOT NULL)),
    CONSTRAINT sending_exactly_when_held CHECK ((status = 'sending') = (token IS NOT NULL)),
    CONSTRAINT held_since CHECK ((token IS NULL) = (claimed_at IS NULL)),
    CONSTRAINT finished_exactly_when_ended CHECK ((status IN ('delivered', 'dead', 'resolved')) = (finished_at IS NOT NULL)),
    CONSTRAINT a_run_starts_in_the_past CHECK (attempts >= run_from + probes),
    CONSTRAINT in_line_of_a_sequence CHECK (NOT in_line OR sequence IS NOT NULL),
    CONSTRAINT parked_in_line CHECK (NOT parked OR (status = 'pending' AND in_line))
);
CREATE TABLE operators (
    name VARCHAR NOT NULL,
    origin VARCHAR NOT NULL,
    settings TEXT,
    key_version INTEGER,
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    paused_at BIGINT,
    held_at BIGINT,
    closed_since BIGINT,
    closed_total BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (name),
    CONSTRAINT origin_is_known CHECK (origin IN ('file', 'command')),
    CONSTRAINT closed_when_stopped CHECK ((closed_since IS NOT NULL) = (paused_at IS NOT NULL OR held_at IS NOT NULL))
);
CREATE TABLE operator_actions (
    id INTEGER NOT NULL,
    operator VARCHAR NOT NULL,
    at BIGINT NOT NULL,
    verb VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    note TEXT,
    PRIMARY KEY (id)
);
CREATE TABLE key_versions (
    operator VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    fingerprint VARCHAR NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (operator, version)
);
CREATE TABLE attempts (
    delivery_id INTEGER NOT NULL,
    n INTEGER NOT NULL,
    late BOOLEAN NOT NULL,
    "trigger" VARCHAR NOT NULL,
    started_at BIGINT NOT NULL,
    duration BIGINT,
    http_status INTEGER,
    code VARCHAR,
    reason VARCHAR,
    ambiguous BOOLEAN NOT NULL,
    key_version INTEGER,
    response TEXT,
    detail TEXT,
    PRIMARY KEY (delivery_id, n, late),
    FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
)
 WITHOUT ROWID;
CREATE TABLE actions (
    id INTEGER NOT NULL,
    delivery_id INTEGER NOT NULL,
    at BIGINT NOT NULL,
    verb VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    note TEXT,
    PRIMARY KEY (id),
    FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
);
CREATE INDEX dead ON deliveries (id) WHERE status = 'dead';
CREATE INDEX line ON deliveries (operator, sequence, parked, id) WHERE in_line = 1;
CREATE INDEX held ON deliveries (claimed_at) WHERE status = 'sending';
CREATE INDEX due ON deliveries (operator, due_at) WHERE status = 'pending' AND parked = 0;
CREATE INDEX ix_operators_revision ON operators (revision);
CREATE INDEX ix_operator_actions_operator ON operator_actions (operator);
CREATE INDEX ix_actions_delivery_id ON actions (delivery_id);
PRAGMA user_version = 2;
