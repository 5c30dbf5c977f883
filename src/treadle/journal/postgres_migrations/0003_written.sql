-- The last transaction of each process that writes. A process that lost its connection in a commit
-- learns here whether that was made: ids of transactions are used again after a crash of the server.

CREATE TABLE written (
    writer text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
