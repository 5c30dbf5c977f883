-- additive
-- The ids of imported texts have any length; those of a row in a B-tree have 2,704 bytes at most.

DROP INDEX archive_passage_id;
CREATE INDEX archive_passage_id ON archive_passage USING hash (id) WHERE kind = 'archive';
