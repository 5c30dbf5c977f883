"""The nodes that drive the threads of a PostgreSQL journal, and which of them has which thread.

A node is a row with a heartbeat, and an advisory lock that its writing session holds. A thread
names its node (`thread.node`) and is free if that node has no row. So one statement takes a thread,
the removal of one row frees all threads of a node, and numbers of nodes are never used again.

The lock is free at once when a process ends, however it ends; the heartbeat reveals a process that
stands still. Both may be wrong about a node that lives: the epoch of the journal is the fence.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import msgspec
import psycopg
from msgspec import Struct

from treadle.errors import JournalClosed, JournalTooNew
from treadle.journal.postgres_connection import PostgresConnection
from treadle.journal.postgres_permits import ask_permit, end_permits, keep_permits, with_permits

T = TypeVar("T")

STALE_SECONDS = 15.0
"""How old the heartbeat of a node is that stands still: its threads are taken over."""

GRACE_SECONDS = 5.0
"""How long after a restart of the server a node may take to lock again before it counts as dead."""


class Waiting(Struct, frozen=True):
    """A thread that waits for a node, or for the one that has it to look again.

    `has_entries` is whether entries wait in the inbox, so that it is not only to run. `agent` is
    the one that works next on it.
    """

    has_entries: bool
    agent: str | None = None


class Look(Struct, frozen=True):
    """What a node saw of the others, and the `threads` that it may drive.

    Without `is_member`, another node took this one for dead. `suspects` are nodes without a lock,
    with their heartbeats: those that are so at the next look as well are dead. `others` are those
    that live, with their agents.
    """

    is_member: bool
    others: Mapping[int, Sequence[str]] = msgspec.field(default_factory=dict[int, Sequence[str]])
    dead: Sequence[int] = ()
    suspects: Sequence[tuple[int, str]] = ()
    threads: Mapping[str, Waiting] = msgspec.field(default_factory=dict[str, Waiting])


class Holder(Struct, frozen=True):
    """Which node has a thread, None if no node has it.

    `suspect` is that node with its heartbeat if it has no lock, as in `Look.suspects`.
    """

    node: int | None
    suspect: tuple[int, str] | None


class Told(Struct, frozen=True):
    """A notification: an entry has come into the inbox of `thread`, which `node` has.

    If no node has it, `agent` is the one that works next on it. With `is_lost`, another node has
    taken the thread from `node`.
    """

    thread: str
    node: int | None = None
    agent: str | None = None
    is_lost: bool = False


_TOLD = msgspec.json.Decoder(Told)


class Run(Protocol):
    """Runs a function of a connection in a thread, and returns what it returns."""

    async def __call__(self, work: Callable[[PostgresConnection], T], /) -> T: ...


class Nodes:
    """The nodes of a database, as a journal reaches them; `id` is the node of this process.

    `read` and `write` run a function of a connection: `write` in the session that holds the lock of
    the node. `connect` opens another connection, which `disconnect` closes. All methods raise
    `JournalError`.
    """

    def __init__(
        self,
        read: Run,
        write: Run,
        connect: Callable[[], PostgresConnection],
        disconnect: Callable[[PostgresConnection], None],
    ) -> None:
        self.id: int | None = None
        self._address = ""
        self._read = read
        self._write = write
        self._connect = connect
        self._disconnect = disconnect

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

    async def abandon(self) -> None:
        """Frees the lock of this node, which can write no more, so that others replace it soon."""
        node = self._require_id()

        def unlock(connection: PostgresConnection) -> None:
            connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", (node,))
            connection.node = None

        with suppress(JournalTooNew):  # which does not lock it again
            await self._write(unlock)

    async def rejoin(
        self, agents: Sequence[str], threads: Sequence[str], permitted: Sequence[str]
    ) -> list[str]:
        """Makes this process a new node, which keeps those of `threads` that no other has taken.

        Those that are `permitted` keep their permits. Returns the ids of those it keeps.
        """
        old = self.id

        def change(connection: PostgresConnection) -> tuple[int, list[str]]:
            if old is not None:
                end(connection, old)
            node = register(connection, self._address, agents)
            lock(connection, node)
            rows = connection.execute(
                "UPDATE thread SET node = ? WHERE id = ANY(?) AND node = ? RETURNING id",
                (node, list(threads), old),
            )
            keep_permits(connection, node, permitted)
            return node, [id for (id,) in rows.fetchall()]

        self.id, kept = await self._write(change)
        return kept

    async def look(
        self,
        agents: Sequence[str],
        suspects: Sequence[tuple[int, str]],
        *,
        beats: bool,
        sweeps: bool,
        limit: int,
    ) -> Look:
        """Looks at the other nodes, removes dead ones, and finds at most `limit` threads to drive.

        With `beats`, the heartbeat of this node is written first. Without `sweeps`, only threads
        with entries are found, unless a node was removed.
        """
        node = self._require_id()
        return await self._write(
            lambda connection: look(connection, node, agents, suspects, beats, sweeps, limit)
        )

    async def take(self, thread_id: str) -> bool | None:
        """Takes a thread for this node; None if there is no such thread."""
        self._require_id()
        return await self._write(
            lambda connection: take(connection, _node_of(connection), thread_id)
        )

    async def seize(self, thread_id: str) -> None:
        """Takes a thread from the node that has it, and tells that node.

        That is a transaction of its own: in a group, with threads of this node, two nodes that
        seize from each other would wait for each other.
        """
        node = self._require_id()
        await self._read(lambda connection: seize(connection, node, thread_id))

    async def release(self, threads: Sequence[str], *, tells: bool = False) -> None:
        """Gives threads of this node back; with `tells`, the other nodes look at once."""
        self._require_id()
        await self._write(
            lambda connection: release(connection, _node_of(connection), threads, tells)
        )

    async def ask_permit(self, thread_id: str, owner: str, most: int, *, is_next: bool) -> bool:
        """Asks for one of the `most` permits of an owner for a thread, which waits without one.

        With `is_next`, the permit that it has is for a run that has ended.
        """
        node = self._require_id()
        return await self._read(
            lambda connection: ask_permit(connection, node, thread_id, owner, most, is_next)
        )

    async def end_permits(self, threads: Mapping[str, Sequence[str]], most: int) -> None:
        """Ends the permits of threads, by their owners; those that wait get them, and are told."""
        node = self._require_id()
        await self._read(lambda connection: end_permits(connection, node, threads, most))

    async def keep_permits(self, threads: Sequence[str]) -> None:
        """Writes again that threads of this node have permits, which the database may have lost."""
        node = self._require_id()
        await self._read(lambda connection: keep_permits(connection, node, threads))

    async def with_permits(self, threads: Sequence[str], most: int) -> list[str]:
        """Returns those of the `threads` that wait which get a permit if they ask."""
        node = self._require_id()
        return await self._read(lambda connection: with_permits(connection, node, threads, most))

    async def listen(
        self, heard: Callable[[Told | None], None], lost: Callable[[], None]
    ) -> "Listener":
        """Calls `heard` with what is told, None if a node has ended; `lost` if it is cut off."""

        def begin(connection: PostgresConnection) -> tuple[PostgresConnection, int]:
            (channel,) = connection.execute(f"SELECT {CHANNEL}").fetchone()
            listening = self._connect()
            try:
                listening.execute(f'LISTEN "{channel}"')
                return listening, listening.raw.fileno()
            except BaseException:
                self._disconnect(listening)
                raise

        listening, socket = await self._read(begin)
        return Listener(listening, socket, self._disconnect, heard, lost)

    def _require_id(self) -> int:
        if self.id is None:
            raise JournalClosed("This process is not a node; start its engine first.")
        return self.id

    async def set_address(self, address: str) -> None:
        """Notes where other nodes reach this one; raises `JournalClosed` if it has not joined."""
        node, self._address = self._require_id(), address
        await self._write(lambda connection: set_address(connection, node, address))

    async def addresses(self) -> dict[int, str]:
        """Returns the addresses of all nodes, "" for those that no other one can reach."""
        return await self._read(addresses)

    async def nodes_of(self, thread_ids: Sequence[str]) -> dict[str, int]:
        """Returns which nodes have the threads; without those that no node has."""
        return await self._read(lambda connection: nodes_of(connection, thread_ids))

    async def unsettled(self, thread_ids: Sequence[str]) -> dict[str, Holder]:
        """Returns those of the threads that need a node, and which node has them."""
        return await self._read(lambda connection: unsettled(connection, thread_ids))

    async def changed(self, threads: Mapping[str, int]) -> list[str]:
        """Returns those of `threads` that another node has, or that have changed.

        They have an event after the number that is given, or are gone.
        """
        return await self._read(lambda connection: changed(connection, self.id, threads))


CHANNEL = "'treadle_' || 'inbox'::regclass::oid"
"""The channel, one for each schema, on which nodes are told which inboxes have entries."""

# A lock belongs to a schema by the id of its table.
_LOCK = "'node'::regclass::oid::int, ?::int"
_HELD = """
    o.id IN (
        SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
        AND classid = 'node'::regclass
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


def _node_of(connection: PostgresConnection) -> int:
    """Returns the node of the session that writes: this process may be a new one since it asked."""
    if connection.node is None:
        raise JournalClosed("This process has ended its node.")
    return connection.node


class Listener:
    """Reads the notifications of a connection when they arrive, on the event loop.

    Nothing is read on loops that cannot watch a socket: what is told is found by looking then.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        socket: int,
        disconnect: Callable[[PostgresConnection], None],
        heard: Callable[[Told | None], None],
        lost: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._socket = socket
        self._disconnect = disconnect
        self._heard = heard
        self._lost = lost
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):
            self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Ends it; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            with suppress(NotImplementedError):
                self._loop.remove_reader(self._socket)
            self._disconnect(self._connection)

    def _read(self) -> None:
        connection = self._connection.raw.pgconn
        try:
            connection.consume_input()  # what has arrived; it does not wait for more
        except psycopg.OperationalError:
            self.close()
            self._lost()
            return
        while (notification := connection.notifies()) is not None:
            with suppress(msgspec.DecodeError):  # of a newer version
                self._heard(_TOLD.decode(notification.extra) if notification.extra else None)


# A node takes a thread that no node has. It leaves those to others that need an agent which only
# others have, and those on which an agent works for a thread that another node has or will have.
_IS_FREE = """
    NOT EXISTS (SELECT 1 FROM node o WHERE o.id = t.node)
    AND NOT EXISTS (
        SELECT 1 FROM node o WHERE next_agent(t) = ANY(o.agents) AND NOT EXISTS (
            SELECT 1 FROM node m WHERE m.id = ? AND next_agent(t) = ANY(m.agents)
        )
    )
    AND NOT EXISTS (
        SELECT 1 FROM thread p JOIN activity a ON a.n = p.n LEFT JOIN node o ON o.id = p.node
        WHERE t.parent != '' AND p.id = t.parent AND o.id IS DISTINCT FROM ?::bigint
        AND (o.id IS NOT NULL OR a.jobs > 0 OR a.status IN ('queued', 'in_progress', 'cancelling'))
    )
"""
# A node that takes several threads in one transaction waits for none of them: another one that
# takes them in another order would wait for it, and the appends of both as well.
_TAKE = f"""
    UPDATE thread AS t SET node = ?
    WHERE t.n = (SELECT n FROM thread WHERE id = ? FOR NO KEY UPDATE SKIP LOCKED)
    AND (t.node = ? OR {_IS_FREE})
    AND EXISTS (SELECT 1 FROM node o WHERE o.id = ?) RETURNING 1
"""  # noqa: S608 - of constants
# Owners take turns, so that one with thousands of threads does not hold up the others.
_WAITING = f"""
    SELECT id, EXISTS (SELECT 1 FROM inbox i WHERE i.n = waiting.n), agent FROM (
        SELECT t.id, t.n, next_agent(t) AS agent,
            row_number() OVER (PARTITION BY t.owner ORDER BY t.n) AS turn
        FROM (%s) AS one JOIN thread t ON t.n = one.n
        WHERE {_IS_FREE} OR (t.node = ? AND EXISTS (SELECT 1 FROM inbox i WHERE i.n = t.n))
    ) AS waiting ORDER BY turn, id LIMIT ?
"""  # noqa: S608 - of constants
_WITH_ENTRIES = _WAITING % "SELECT DISTINCT n FROM inbox"
# It visits each thread with a run, on whichever node.
_UNFINISHED = (
    _WAITING
    % """
    SELECT n FROM activity WHERE status IN ('queued', 'in_progress', 'cancelling')
    UNION SELECT n FROM activity WHERE jobs > 0 UNION SELECT n FROM inbox
"""
)


def take(connection: PostgresConnection, node: int, thread_id: str) -> bool | None:
    """Takes a thread for a node, if it lives and no other has the thread; None without a thread.

    One that another transaction holds is being taken by another node, or by a deletion.
    """
    values = (node, thread_id, node, node, node, node)
    if connection.execute(_TAKE, values).fetchone() is not None:
        return True
    row = connection.execute("SELECT 1 FROM thread WHERE id = ?", (thread_id,)).fetchone()
    return None if row is None else False


def seize(connection: PostgresConnection, node: int, thread_id: str) -> None:
    """Takes a thread from the node that has it, which is told with the commit."""
    with connection.transaction():
        connection.execute(
            f"SELECT pg_notify({CHANNEL}, json_build_object("  # noqa: S608 - of constants
            "'thread', id, 'node', node, 'is_lost', true)::text) FROM thread"
            " WHERE id = ? AND node <> ? AND octet_length(id) < 2000",
            (thread_id, node),
        )
        connection.execute("UPDATE thread SET node = ? WHERE id = ?", (node, thread_id))


def release(connection: PostgresConnection, node: int, threads: Sequence[str], tells: bool) -> None:
    """Gives threads back, so that any node can take them."""
    connection.execute(
        "UPDATE thread SET node = NULL WHERE id = ANY(?) AND node = ?", (list(threads), node)
    )
    if tells:
        connection.execute(f"SELECT pg_notify({CHANNEL}, '')")


# The lock of a node is free once its session has ended. After a restart of the server that is so of
# all nodes, until they have come back: nodes that wrote before it have time to do so.
_OTHERS = f"""
    SELECT o.id, o.beat_at::text, o.agents, {_HELD} AS held,
        o.beat_at < now() - make_interval(secs => ?),
        o.beat_at < since.at AND now() < since.at + make_interval(secs => ?)
    FROM node o, (
        SELECT CASE WHEN ? THEN greatest(pg_postmaster_start_time(), (
            SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
        )) ELSE pg_postmaster_start_time() END AS at
    ) AS since WHERE o.id != ?
"""  # noqa: S608 - of constants


def look(
    connection: PostgresConnection,
    node: int,
    agents: Sequence[str],
    suspects: Sequence[tuple[int, str]],
    beats: bool,
    sweeps: bool,
    limit: int,
) -> Look:
    """Does what `Nodes.look` does, in one transaction."""
    if beats:
        is_member = connection.execute(
            "UPDATE node SET beat_at = clock_timestamp(), agents = ? WHERE id = ? RETURNING 1",
            (list(agents), node),
        )
    else:
        is_member = connection.execute("SELECT 1 FROM node WHERE id = ?", (node,))
    if is_member.fetchone() is None:
        return Look(is_member=False)
    values = (STALE_SECONDS, GRACE_SECONDS, connection.was_lost, node)
    others = connection.execute(_OTHERS, values).fetchall()
    dead: list[tuple[int, str]] = []
    suspected: list[tuple[int, str]] = []
    for id, beat_at, _, is_held, is_stale, is_in_grace in others:
        if is_in_grace:
            continue
        if is_held and is_stale:
            dead.append((id, beat_at))
        elif not is_held:
            (dead if (id, beat_at) in suspects else suspected).append((id, beat_at))
    removed: list[int] = []
    for id, beat_at in dead:  # unless it has come back meanwhile
        rows = connection.execute(
            "DELETE FROM node WHERE id = ? AND beat_at = ?::timestamptz RETURNING id",
            (id, beat_at),
        )
        removed += [number for (number,) in rows.fetchall()]
    if removed:
        connection.execute(f"SELECT pg_notify({CHANNEL}, '')")  # the others take their shares
    waiting = _UNFINISHED if sweeps or removed else _WITH_ENTRIES
    rows = connection.execute(waiting, (node, node, node, limit))
    threads = {id: Waiting(has_entries, agent) for id, has_entries, agent in rows.fetchall()}
    living = {id: agents for id, _, agents, *_ in others if id not in removed}
    return Look(True, living, removed, suspected, threads)


def set_address(connection: PostgresConnection, node: int, address: str) -> None:
    """Notes where other nodes reach a node."""
    connection.execute("UPDATE node SET address = ? WHERE id = ?", (address, node))


def addresses(connection: PostgresConnection) -> dict[int, str]:
    """Returns the addresses of all nodes."""
    return dict(connection.execute("SELECT id, address FROM node").fetchall())


def nodes_of(connection: PostgresConnection, thread_ids: Sequence[str]) -> dict[str, int]:
    """Returns which nodes have the threads."""
    rows = connection.execute(
        "SELECT t.id, o.id FROM thread t JOIN node o ON o.id = t.node WHERE t.id = ANY(?)",
        (list(thread_ids),),
    )
    return dict(rows.fetchall())


def unsettled(connection: PostgresConnection, thread_ids: Sequence[str]) -> dict[str, Holder]:
    """Returns those of the threads with a run, a job or an entry under way, and who has them."""
    rows = connection.execute(
        f"""
        SELECT t.id, o.id, o.beat_at::text, {_HELD} FROM thread t LEFT JOIN node o ON o.id = t.node
        WHERE t.id = ANY(?) AND (
            EXISTS (
                SELECT 1 FROM activity a WHERE a.n = t.n
                AND (a.jobs > 0 OR a.status IN ('queued', 'in_progress', 'cancelling'))
            ) OR EXISTS (SELECT 1 FROM inbox i WHERE i.n = t.n)
        )
        """,  # noqa: S608 - of constants
        (list(thread_ids),),
    )
    return {
        id: Holder(node, None if node is None or is_held else (node, beat_at))
        for id, node, beat_at, is_held in rows.fetchall()
    }


def changed(
    connection: PostgresConnection, node: int | None, threads: Mapping[str, int]
) -> list[str]:
    """Returns those of `threads` that another node than `node` has, or that have changed."""
    rows = connection.execute(
        """
        SELECT w.id FROM unnest(?::text[], ?::bigint[]) AS w (id, seq)
        LEFT JOIN thread t ON t.id = w.id
        WHERE t.id IS NULL
        OR EXISTS (SELECT 1 FROM node o WHERE o.id = t.node AND o.id IS DISTINCT FROM ?::bigint)
        OR EXISTS (
            SELECT 1 FROM event e
            WHERE e.position > t.n * 4294967296 + w.seq AND e.position < (t.n + 1) * 4294967296
        )
        """,
        (list(threads), list(threads.values()), node),
    )
    return [id for (id,) in rows.fetchall()]


def end(connection: PostgresConnection, node: int) -> None:
    """Removes a node and frees its lock; the others are woken, because its threads are free."""
    connection.execute("DELETE FROM node WHERE id = ?", (node,))
    connection.execute(f"SELECT pg_notify({CHANNEL}, '')")
    connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", (node,))
    connection.node = None
