-- Threads on which agents work for the runs of other threads.

ALTER TABLE thread ADD COLUMN parent TEXT NOT NULL DEFAULT '';  -- the id of the other thread
ALTER TABLE thread ADD COLUMN work BLOB;
CREATE INDEX thread_parent ON thread (parent) WHERE parent != '';
