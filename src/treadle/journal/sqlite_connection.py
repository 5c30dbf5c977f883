"""A connection to a SQLite database, with what only SQLite says so."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from treadle.domain.entries import Entry
from treadle.journal.base import stale

T = TypeVar("T")

MOST_ROWS = 256

NEWEST = "SELECT max(number) FROM change"

# The subquery of the fence names no column of the rows, so SQLite evaluates it once: all rows are
# inserted or none, even without a transaction around the statement. An INSERT takes the lock of
# the writer before it reads, so no claim of another connection can come between the two.
_FENCED = "SELECT column1, column2 FROM (VALUES {rows}) WHERE {newest}"
_IS_NEWEST = "(SELECT epoch FROM thread WHERE n = ?) = ?"
# Several claims are passed as one JSON value: one text for any number of them, so that the
# compiled statement is reused. The LEFT JOIN with IS NOT also finds threads that were deleted.
_ARE_NEWEST = """
    NOT EXISTS (SELECT 1 FROM json_each(?) AS claim
        LEFT JOIN thread ON thread.n = claim.value ->> 0
        WHERE thread.epoch IS NOT claim.value ->> 1)
"""

# A damaged entry must not hinder those around it.
INBOX = """(
    SELECT number, n, raw AS body, body ->> '$.type' AS type, body ->> '$.key' AS key,
        body ->> '$.run_id' AS run_id, body ->> '$.call_id' AS call_id,
        coalesce(body ->> '$.digest', body ->> '$.item.id') AS identity
    FROM (
        SELECT number, n, CAST(body AS BLOB) AS raw,
            CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) END AS body
        FROM inbox
    ))"""


class SqliteConnection(sqlite3.Connection):
    """Fulfils `Connection`."""

    too_long = sqlite3.DataError
    inbox = INBOX
    owned = ""

    def transact(self, write: Callable[[], T], inserts: int = 0) -> T:
        """Runs `write` in a transaction."""
        if 0 < inserts <= MOST_ROWS and size_of(inserts) == inserts:
            # SQLite runs a statement outside of BEGIN as a transaction of its own: a third of the
            # statements for the most frequent group, a few events without rows for queries.
            return write()
        # IMMEDIATE takes the lock of the writer now: with a plain BEGIN, an epoch could be read
        # before another connection claims the thread, and the write would fail without waiting.
        self.execute("BEGIN IMMEDIATE")
        try:
            result = write()
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:
                self.execute("ROLLBACK")
            raise
        return result

    def at_once(self, read: Callable[[], T]) -> T:
        """Runs reads in one transaction."""
        self.execute("BEGIN")
        try:
            return read()
        finally:
            if self.in_transaction:
                self.execute("COMMIT")

    def at_newest(self, read: Callable[[int], T]) -> T:
        """Runs reads in one transaction; there is one writer at a time, so all are in order."""
        return self.at_once(lambda: read(self.execute(NEWEST).fetchone()[0] or 0))

    def lock(self, table: str, number: int) -> None:
        """Does nothing: the transaction has the lock of the database."""

    def lock_threads(self, thread_ids: Sequence[str]) -> None:
        """Does nothing: the transaction has the lock of the database."""

    def array(self, values: Sequence[object]) -> object:
        """Returns values as a JSON array."""
        return msgspec.json.encode(values).decode()

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[object]], tail: str) -> None:
        """Inserts rows with as few statements as possible."""
        if not rows:
            return
        row = f"({','.join('?' * len(rows[0]))})"
        head = f"INSERT INTO {table} ({columns}) VALUES "  # noqa: S608 - of constants
        start = 0
        while start < len(rows):
            size = size_of(len(rows) - start)
            values = [value for one in rows[start : start + size] for value in one]
            self.execute(f"{head}{','.join([row] * size)} {tail}", values)
            start += size

    def insert_events(self, claims: Mapping[int, int], rows: Sequence[tuple[int, bytes]]) -> None:
        """Inserts events; the first statement compares the epochs as it writes.

        If there are more rows than fit into it, the transaction around it keeps other connections
        from claiming before the rest.
        """
        newest, fence = _IS_NEWEST, [value for claim in claims.items() for value in claim]
        if len(claims) > 1:
            newest, fence = _ARE_NEWEST, [msgspec.json.encode(list(claims.items())).decode()]
        if not rows:
            if not self.execute(f"SELECT {newest}", fence).fetchone()[0]:
                raise stale()
            return
        size = size_of(len(rows))
        select = _FENCED.format(rows=",".join(["(?,?)"] * size), newest=newest)
        first = [value for row in rows[:size] for value in row]
        cursor = self.execute(f"INSERT INTO event (position, body) {select}", (*first, *fence))
        if cursor.rowcount != size:
            raise stale()
        self.insert("event", "position, body", rows[size:], "")

    def put_entry(self, number: int, entry: Entry, body: bytes) -> None:
        """Inserts an entry into the inbox of a thread."""
        self.execute("INSERT INTO inbox (n, body) VALUES (?, ?)", (number, body))


def size_of(rows: int) -> int:
    """Returns how many of `rows` the next statement inserts.

    There are few sizes (1 to 32, then powers of two), because sqlite3 keeps the compiled form of
    128 statements per connection.
    """
    return rows if rows <= 32 else min(MOST_ROWS, 1 << (rows.bit_length() - 1))
