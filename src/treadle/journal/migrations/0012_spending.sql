-- What owners have spent, by quarters of an hour. It follows from the events, and stays when their
-- threads are deleted: so an owner is kept as a mark, which is not its name.

CREATE TABLE spending (
    owner  TEXT NOT NULL,
    slot   INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost   REAL NOT NULL,
    PRIMARY KEY (owner, slot)
) WITHOUT ROWID;
