-- additive
-- The threads whose owner may run a limited number at a time: those that run have a permit, the
-- others wait for one. The permits of a node end with it, and that of a thread when it is deleted.

CREATE TABLE permit (
    n        bigint PRIMARY KEY REFERENCES thread ON DELETE CASCADE,
    owner    text COLLATE "C" NOT NULL,
    node     bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    since    float8 NOT NULL,  -- the time of the entry that is to be worked on
    is_given boolean NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX permit_owner ON permit (owner, is_given, since, n);
CREATE INDEX permit_node ON permit (node);
