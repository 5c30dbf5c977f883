-- Threads that are shared memories, by name.

ALTER TABLE thread ADD COLUMN memory TEXT NOT NULL DEFAULT '';
