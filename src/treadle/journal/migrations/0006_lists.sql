-- Lists of threads by owner, status, agent and metadata, at a cost that does not grow with all
-- threads. `owner` and `listed` repeat what is in `thread`, so that one index has the order too.

ALTER TABLE activity ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE activity ADD COLUMN listed INTEGER NOT NULL DEFAULT 0;  -- not a memory, no agent's work
UPDATE activity SET (owner, listed) =
    (SELECT owner, parent = '' AND memory = '' FROM thread WHERE thread.n = activity.n);
DROP INDEX activity_updated;
CREATE INDEX activity_updated ON activity (updated_at, n) WHERE listed;
CREATE INDEX activity_owner ON activity (owner, updated_at, n) WHERE listed;
DROP INDEX activity_unfinished;
CREATE INDEX activity_status ON activity (status, n);
CREATE INDEX activity_owner_status ON activity (owner, status, n);
CREATE INDEX thread_created ON thread (created_at, n);
CREATE INDEX thread_owner ON thread (owner, created_at, n);

-- What lists can be filtered by: the agent (`agent`) and each field of the metadata
-- (`metadata.NAME`), with its value as `treadle.journal.labels` writes it.
CREATE TABLE label (
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (name, value, n)
) WITHOUT ROWID;
CREATE INDEX label_thread ON label (n);
INSERT INTO label SELECT one.value ->> 0, one.value ->> 1, n
    FROM thread, json_each(treadle_labels(agent, metadata)) AS one;

CREATE INDEX inbox_thread ON inbox (n, number);
