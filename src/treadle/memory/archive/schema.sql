-- The index of the archive: made of events, and made again where it is lost.

-- `passages` are in the index; `changes` counts what makes copies of its slots in memory wrong, and
-- `writes` how often its threads were written, so that whoever followed them sees others at work.
CREATE TABLE owner (
    o        INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL UNIQUE,
    passages INTEGER NOT NULL DEFAULT 0,
    changes  INTEGER NOT NULL DEFAULT 0,
    writes   INTEGER NOT NULL DEFAULT 0
);

-- Threads: `number` is the journal's, so that one made anew under the same id is told apart. Events
-- up to `seq`, which is of the time `at`, are in the index. On those that are `aside` agents work.
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

-- `slot` is the place of the vector: NULL before there is one, -1 for a text that has none. `stamp`
-- counts the vectors in the order in which they came.
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

-- `scope` holds words that stand for the owner and for the thread.
CREATE VIRTUAL TABLE words USING fts5 (text, scope, content = '', tokenize = "{tokenizer}");

-- One row: which vectors there are, in which file. `slots` of it are or were in use.
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
