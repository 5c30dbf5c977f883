-- What is due at which time: runs that expire, schedules. All of it follows from the events.

CREATE TABLE due (
    n    INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    at   REAL NOT NULL,
    body BLOB,
    PRIMARY KEY (n, kind, id)
) WITHOUT ROWID;
CREATE INDEX due_at ON due (at, kind, id, n);
INSERT INTO due SELECT n, 'approval', '', expires_at, NULL FROM activity
    WHERE status = 'requires_action' AND expires_at IS NOT NULL;
ALTER TABLE activity DROP COLUMN expires_at;
