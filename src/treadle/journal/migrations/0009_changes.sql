-- The events of all threads that a desk follows, in the order of their commits: SQLite has one
-- writer at a time, so a number that is visible is never followed by the commit of a smaller one.
-- Rows of deleted threads stay, and say nothing; `gone` is set for the deletion itself. Numbers are
-- never used again. What happened before this table is not in it.

CREATE TABLE change (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    n      INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    type   TEXT NOT NULL,
    gone   TEXT
);
