-- How many jobs of a thread have not settled, or wait to tell that they have.

ALTER TABLE activity ADD COLUMN jobs INTEGER NOT NULL DEFAULT 0;
CREATE INDEX activity_jobs ON activity (n) WHERE jobs > 0;
