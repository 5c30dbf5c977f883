-- The index of the archive. It is made of events, and made again from them if it is lost.

-- `passages` is the number of the owner's passages. `changes` grows when slots in memory become
-- outdated. `writes` grows with each change, so that a process notices the writes of others.
CREATE TABLE owner (
    o        INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL UNIQUE,
    passages INTEGER NOT NULL DEFAULT 0,
    changes  INTEGER NOT NULL DEFAULT 0,
    writes   INTEGER NOT NULL DEFAULT 0
);

-- Threads. `number` is the number in the journal, which differs for a new thread with the id of a
-- deleted one. The index has all events up to `seq`, which was recorded at the time `at`. On
-- threads that are `aside`, an agent works for a run of another thread.
CREATE TABLE source (
    s         INTEGER PRIMARY KEY AUTOINCREMENT,
    o         INTEGER NOT NULL,
    thread_id TEXT NOT NULL UNIQUE,
    number    INTEGER NOT NULL,
    aside     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    at        REAL NOT NULL
);
CREATE INDEX source_owner ON source (o);

-- `slot` is the place of the vector in the file: NULL before the vector is made, -1 for a vector of
-- zeros, which is not stored. `stamp` numbers the vectors in the order in which they were set.
CREATE TABLE passage (
    n      INTEGER PRIMARY KEY AUTOINCREMENT,
    o      INTEGER NOT NULL,
    s      INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    role   INTEGER NOT NULL,
    at     REAL NOT NULL,
    slot   INTEGER,
    stamp  INTEGER,
    id     TEXT NOT NULL,
    run_id TEXT NOT NULL,
    tags   TEXT NOT NULL,
    text   TEXT NOT NULL
);
CREATE UNIQUE INDEX passage_event ON passage (s, seq);
CREATE INDEX passage_id ON passage (id);
CREATE INDEX passage_time ON passage (o, at, kind, role, s);
CREATE INDEX passage_vector ON passage (o, stamp, n, slot, s, kind, role, at) WHERE slot >= 0;
CREATE INDEX passage_without_vector ON passage (o, n) WHERE slot IS NULL;

CREATE TABLE tag (
    o    INTEGER NOT NULL,
    name TEXT NOT NULL,
    n    INTEGER NOT NULL,
    PRIMARY KEY (o, name, n)
) WITHOUT ROWID;

-- `scope` contains words for the owner, the thread, the role and the tags.
CREATE VIRTUAL TABLE words USING fts5 (text, scope, content = '', tokenize = "{tokenizer}");

-- One row: the embedder of the vectors and their file. `slots` is how many were ever used, `stamp`
-- the last one given.
CREATE TABLE vectors (
    embedder   TEXT NOT NULL,
    dimensions INTEGER,
    file       TEXT NOT NULL,
    slots      INTEGER NOT NULL,
    stamp      INTEGER NOT NULL
);
INSERT INTO vectors VALUES ('', NULL, '', 0, 0);

CREATE TABLE free_slot (
    slot INTEGER PRIMARY KEY
);
