"""The connection that the SQL of the journals is written for.

SQLite and PostgreSQL keep the same tables, so that one set of statements serves both. They are
written for SQLite; two things in them are for PostgreSQL: `/*! … */` contains what only PostgreSQL
reads, like the comments of that form in MySQL, and `INDEXED BY` is what only SQLite reads. What
cannot be said in one form is a method of the connection.

A write is a function of such a connection, which runs in the transaction of a group. On PostgreSQL
other processes write at the same time, so a write that reads before it changes takes the lock of
the row first; in SQLite the transaction has the lock of the database.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from treadle.domain.entries import Entry

T = TypeVar("T")

SEQ_BITS = 32
"""More than the events of any thread need, so that the positions of two threads never overlap."""

NO_LIMIT = 1 << 62
"""The limit of a list without one."""


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchone(self) -> Any:
        """Returns the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Returns the rows that are left."""
        ...


class Connection(Protocol):
    """A connection to the database of a journal."""

    @property
    def too_long(self) -> type[Exception]:
        """What a statement raises whose result is longer than the database allows."""
        ...

    @property
    def inbox(self) -> str:
        """The entries of inboxes, as a table in FROM.

        Its columns are `number`, `n`, `body`, `type`, `key`,
        `run_id`, `call_id` and `identity` (see `Sent.message_id`).

        A column that an entry does not have is NULL, and so are all of a damaged one.
        """
        ...

    @property
    def owned(self) -> str:
        """The end of a condition on `thread` that is true of those which this node may claim."""
        ...

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        """Executes a statement."""
        ...

    def transact(self, write: Callable[[], T], inserts: int = 0) -> T:
        """Runs `write` in a transaction, and returns its result once that is durable.

        If it raises, nothing of it is kept. `inserts` counts the events if it only inserts events.
        """
        ...

    def at_once(self, read: Callable[[], T]) -> T:
        """Runs reads that all see the same commit."""
        ...

    def at_newest(self, read: Callable[[int], T]) -> T:
        """Runs reads that all see the same commit, with the number of the newest change in it.

        No smaller number becomes visible later. On PostgreSQL, where writers commit in any order,
        the commit may contain newer changes as well.
        """
        ...

    def lock(self, table: str, number: int) -> None:
        """Locks a thread in a table against other transactions that do the same."""
        ...

    def lock_threads(self, thread_ids: Sequence[str]) -> None:
        """Locks threads against appends, in the order in which appends lock them."""
        ...

    def array(self, values: Sequence[object]) -> object:
        """Returns values as the parameter of `IN (SELECT value FROM json_each(?))`."""
        ...

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[object]], tail: str) -> None:
        """Inserts rows with as few statements as possible; `tail` says what a conflict does."""
        ...

    def insert_events(self, claims: Mapping[int, int], rows: Sequence[tuple[int, bytes]]) -> None:
        """Inserts events, by position; raises `StaleWriter` if a claim is not the newest one.

        `claims` are epochs by the numbers of threads. The comparison is part of the transaction,
        and no other transaction claims the threads before it ends.
        """
        ...

    def put_entry(self, number: int, entry: Entry, body: bytes) -> None:
        """Inserts an entry into the inbox of a thread."""
        ...
