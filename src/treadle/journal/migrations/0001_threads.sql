-- Threads, their events and what answers queries about them.

CREATE TABLE thread (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    agent       TEXT NOT NULL,
    owner       TEXT NOT NULL,
    metadata    BLOB NOT NULL,
    created_at  REAL NOT NULL,
    forked_from TEXT NOT NULL,
    epoch       INTEGER NOT NULL DEFAULT 0
);

-- The position is n * 2^32 + seq: the events of a thread stand together, without another index.
CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    body     BLOB NOT NULL
);

-- Rewritten when a run begins, waits or ends; all of it follows from the events.
CREATE TABLE activity (
    n          INTEGER PRIMARY KEY,
    status     TEXT,
    updated_at REAL NOT NULL,
    title      TEXT NOT NULL,
    expires_at REAL
);
CREATE INDEX activity_updated ON activity (updated_at, n);
CREATE INDEX activity_unfinished ON activity (n)
    WHERE status IN ('queued', 'in_progress', 'requires_action', 'cancelling');

CREATE TABLE run (
    n          INTEGER NOT NULL,
    id         TEXT NOT NULL,
    agent      TEXT NOT NULL,
    agent_hash TEXT NOT NULL,
    status     TEXT NOT NULL,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    PRIMARY KEY (n, id)
) WITHOUT ROWID;

-- Idempotency keys: the run that a message with this key started, or steered.
CREATE TABLE sent (
    n      INTEGER NOT NULL,
    key    TEXT NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (n, key)
) WITHOUT ROWID;

CREATE TABLE inbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    n      INTEGER NOT NULL,
    body   BLOB NOT NULL
);

CREATE TABLE snapshot (
    n    INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    head BLOB NOT NULL,
    PRIMARY KEY (n, seq)
) WITHOUT ROWID;

-- The history in pieces, each written once: items from number `first` on.
CREATE TABLE history (
    n     INTEGER NOT NULL,
    first INTEGER NOT NULL,
    items BLOB NOT NULL,
    PRIMARY KEY (n, first)
) WITHOUT ROWID;
