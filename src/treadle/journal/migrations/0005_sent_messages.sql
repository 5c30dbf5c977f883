-- Which message a key was used for, so that it is not used for another one.

ALTER TABLE sent ADD COLUMN message_id TEXT NOT NULL DEFAULT '';
