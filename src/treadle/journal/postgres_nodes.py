"""The nodes that drive the threads of a PostgreSQL journal, and which of them has which thread.

A node is a row with a heartbeat, and an advisory lock that its writing session holds. A thread
names its node (`thread.node`) and is free if that node has no row. So one statement takes a thread,
the removal of one row frees all threads of a node, and numbers of nodes are never used again.

The lock is free at once when a process ends, however it ends; the heartbeat reveals a process that
stands still. Both may be wrong about a node that lives: the epoch of the journal is the fence.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from treadle.errors import JournalClosed
from treadle.journal.postgres_connection import PostgresConnection

T = TypeVar("T")

BEAT_SECONDS = 3.0
"""How often a node writes that it lives."""

STALE_SECONDS = 15.0
"""How old the heartbeat of a node is that stands still: its threads are taken over."""

GRACE_SECONDS = 10.0
"""How long after a restart of the server a node may take to lock again before it counts as dead."""


class NodeAddress(Struct, frozen=True):
    """A node, and the address at which other nodes reach it, "" for none."""

    id: int
    address: str


class Run(Protocol):
    """Runs a function of a connection in a thread, and returns what it returns."""

    async def __call__(self, work: Callable[[PostgresConnection], T], /) -> T: ...


class Nodes:
    """The nodes of a database, as a journal reaches them; `id` is the node of this process.

    `read` and `write` run a function of a connection: `write` in the session that holds the lock of
    the node. All methods raise `JournalError`.
    """

    def __init__(
        self,
        read: Run,
        write: Run,
    ) -> None:
        self.id: int | None = None
        self._address = ""
        self._read = read
        self._write = write

    async def join(self, agents: Sequence[str]) -> None:
        """Makes this process a node that has the `agents`; a second call makes it a new one."""

        def change(connection: PostgresConnection) -> int:
            node = register(connection, self._address, agents)
            lock(connection, node)
            return node

        self.id = await self._write(change)

    async def leave(self) -> None:
        """Ends the node: its threads are free; a second call does nothing."""
        node, self.id = self.id, None
        if node is not None:
            await self._write(lambda connection: end(connection, node))

    async def set_address(self, address: str) -> None:
        """Notes where other nodes reach this one; raises `JournalClosed` if it has not joined."""
        if self.id is None:
            raise JournalClosed("This process is not a node; start its engine first.")
        self._address, node = address, self.id
        await self._write(lambda connection: set_address(connection, node, address))

    async def node_of(self, thread_id: str) -> NodeAddress | None:
        """Returns the node that has a thread; None if no node has it, or there is no thread."""
        return await self._read(lambda connection: node_of(connection, thread_id))


# A lock belongs to a schema by the id of its table.
_LOCK = "'node'::regclass::oid::int, ?::int"
_HELD = """
    EXISTS (
        SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
        AND classid = 'node'::regclass AND objid = o.id::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
"""


def register(connection: PostgresConnection, address: str, agents: Sequence[str]) -> int:
    """Adds a node, which has the `agents`; returns its number."""
    (number,) = connection.execute(
        "INSERT INTO node (address, agents) VALUES (?, ?) RETURNING id", (address, list(agents))
    ).fetchone()
    return number


def lock(connection: PostgresConnection, node: int) -> None:
    """Takes the lock of a node for a session; ends an earlier session that still holds it.

    That is one whose connection was lost here, and which the server has not missed yet.
    """
    while True:
        (is_taken,) = connection.execute(
            f"SELECT pg_try_advisory_lock({_LOCK})",
            (node,),
        ).fetchone()
        if is_taken:
            connection.node = node
            return
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND objsubid = 2 AND granted AND classid = 'node'::regclass AND objid = ?::oid"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (node,),
        )
        connection.execute("SELECT pg_sleep(0.02)")


def set_address(connection: PostgresConnection, node: int, address: str) -> None:
    """Notes where other nodes reach a node."""
    connection.execute("UPDATE node SET address = ? WHERE id = ?", (address, node))


def node_of(connection: PostgresConnection, thread_id: str) -> NodeAddress | None:
    """Returns the node that has a thread, or None."""
    row = connection.execute(
        "SELECT o.id, o.address FROM thread t JOIN node o ON o.id = t.node WHERE t.id = ?",
        (thread_id,),
    ).fetchone()
    return None if row is None else NodeAddress(*row)


def end(connection: PostgresConnection, node: int) -> None:
    """Removes a node and frees its lock."""
    connection.execute("DELETE FROM node WHERE id = ?", (node,))
    connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", (node,))
    connection.node = None
