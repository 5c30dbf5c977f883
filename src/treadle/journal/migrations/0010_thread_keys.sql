-- The caller's own id of a thread, and what identifies the arguments that it was created with.

ALTER TABLE thread ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE thread ADD COLUMN key_digest TEXT NOT NULL DEFAULT '';
