-- Runs by their ids and in pages, with what came of them; and the calls that wait for an answer.

ALTER TABLE run ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;  -- of its first event
ALTER TABLE run ADD COLUMN message_id TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN queued_at REAL;
ALTER TABLE run ADD COLUMN started_at REAL;
ALTER TABLE run ADD COLUMN ended_at REAL;
ALTER TABLE run ADD COLUMN stop_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN spent BLOB;
ALTER TABLE run ADD COLUMN error BLOB;

-- Of the runs so far, what their first and their last event contain.
CREATE TEMP TABLE body AS
    SELECT run.n, run.id, first_seq, last_seq,
        (SELECT CAST(body AS TEXT) FROM event WHERE position = (run.n << 32) + first_seq - 1) AS asked,
        (SELECT CAST(body AS TEXT) FROM event WHERE position = (run.n << 32) + first_seq) AS first,
        (SELECT CAST(body AS TEXT) FROM event WHERE position = (run.n << 32) + last_seq) AS last
    FROM run;
UPDATE body SET asked = NULL WHERE NOT json_valid(asked) OR first_seq = 0;
UPDATE body SET first = NULL WHERE NOT json_valid(first) OR first_seq = 0;
UPDATE body SET last = NULL WHERE NOT json_valid(last) OR last_seq = 0;
UPDATE run SET
    seq = CASE first_seq WHEN 0 THEN last_seq ELSE first_seq END,
    message_id = coalesce(iif(asked ->> '$.origin' = 'user', asked ->> '$.item.id', ''), ''),
    started_at = first ->> '$.at',
    ended_at = last ->> '$.at',
    stop_reason = coalesce(last ->> '$.stop_reason', iif(last_seq, run.status, '')),
    spent = iif(last ->> '$.usage' IS NULL, NULL,
        CAST(json_object('usage', json(last ->> '$.usage')) AS BLOB)),
    error = iif(last ->> '$.code' IS NULL, NULL, CAST(json_object(
        'code', last ->> '$.code', 'message', last ->> '$.message',
        'retryable', json(iif(last ->> '$.retryable', 'true', 'false'))) AS BLOB))
    FROM (SELECT n AS number, id AS name, asked, first, last FROM body)
    WHERE run.n = number AND run.id = name;
DROP TABLE body;
UPDATE run SET status = 'requires_action' WHERE first_seq > 0 AND last_seq = 0
    AND n IN (SELECT n FROM activity WHERE status = 'requires_action');
CREATE INDEX run_id ON run (id, n);
CREATE INDEX run_seq ON run (n, seq, id);

-- Event `seq` of the thread requested the call.
CREATE TABLE call (
    n       INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    run_id  TEXT NOT NULL,
    agent   TEXT NOT NULL,
    awaits  TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    since   REAL NOT NULL,
    owner   TEXT NOT NULL,
    PRIMARY KEY (n, call_id)
) WITHOUT ROWID;
CREATE INDEX call_since ON call (since, n, call_id);
CREATE INDEX call_owner ON call (owner, since, n, call_id);
INSERT OR REPLACE INTO call
    SELECT n, body ->> '$.item.call_id', id, agent, body ->> '$.awaits', position & 0xffffffff,
        body ->> '$.at', (SELECT owner FROM thread WHERE thread.n = one.n)
    FROM (
        SELECT run.n, run.id, run.agent, event.position, CAST(event.body AS TEXT) AS body
        FROM run JOIN event ON position > (run.n << 32) + first_seq AND position < (run.n + 1) << 32
        WHERE first_seq > 0 AND last_seq = 0
    ) AS one
    WHERE iif(json_valid(body), body ->> '$.type' = 'tool.requested' AND body ->> '$.awaits' != '', 0)
    AND NOT EXISTS (
        SELECT 1 FROM event AS answer
        WHERE answer.position > one.position AND answer.position < (one.n + 1) << 32
        AND iif(json_valid(CAST(answer.body AS TEXT)), CASE CAST(answer.body AS TEXT) ->> '$.type'
            WHEN 'tool.output'
                THEN CAST(answer.body AS TEXT) ->> '$.item.call_id' = body ->> '$.item.call_id'
            WHEN 'tool.approved'
                THEN CAST(answer.body AS TEXT) ->> '$.call_id' = body ->> '$.item.call_id'
            END, 0));
