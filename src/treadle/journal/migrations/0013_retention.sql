-- When a thread is to be deleted, and whether it is kept once it is not used any more. Both are
-- due times as well. The metadata of a run are those of its options.

ALTER TABLE thread ADD COLUMN expires_at REAL;
ALTER TABLE thread ADD COLUMN store INTEGER NOT NULL DEFAULT 1;
ALTER TABLE run ADD COLUMN metadata BLOB;
