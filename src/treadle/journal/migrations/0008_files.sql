-- Contents of files, each stored once, and who uses them: a thread, or an owner (n = 0).

CREATE TABLE file (
    number  INTEGER PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    content BLOB NOT NULL
);
CREATE TABLE file_use (
    id         TEXT NOT NULL,
    owner      TEXT NOT NULL,
    n          INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (id, owner, n)
) WITHOUT ROWID;
CREATE INDEX file_use_thread ON file_use (n, owner);
