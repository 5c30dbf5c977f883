"""Who may use the servers of a PostgreSQL database: their keys, and sessions that ended early."""

from collections.abc import Mapping

from msgspec import Struct

from treadle.clock import now
from treadle.journal.postgres_connection import PostgresConnection
from treadle.journal.postgres_nodes import Run

OVERLAP = 1000
"""How many sessions are read again: of two that end at a time, the later number may come first."""

MAX_READ = 10_000
"""How many sessions one read returns at most; more than `OVERLAP`."""


class Access(Struct, frozen=True):
    """The keys by their ids, the secret of the cookies, and sessions with the time they end.

    `newest` is the number of the last of these sessions. With `has_more`, others ended after it.
    """

    keys: Mapping[str, bytes]
    secret: str
    ended: Mapping[str, float]
    newest: int
    has_more: bool = False


class AccessRows:
    """The rows about access of one database; all methods raise `JournalError`."""

    def __init__(self, read: Run, write: Run) -> None:
        self._read = read
        self._write = write

    async def read(self, secret: str, after: int = 0) -> Access:
        """Returns what there is, of the sessions those that ended since the number `after`.

        `secret` becomes that of the database if it has none; "" does not.
        """
        found = await self._read(lambda connection: _read(connection, after))
        if found.secret or not secret:
            return found

        def create(connection: PostgresConnection) -> None:
            connection.execute(
                "INSERT INTO access_secret (value) VALUES (?) ON CONFLICT DO NOTHING", (secret,)
            )

        await self._write(create)
        return await self._read(lambda connection: _read(connection, after))

    async def add_key(self, id: str, body: bytes) -> None:
        """Adds a key."""

        def add(connection: PostgresConnection) -> None:
            connection.execute("INSERT INTO access_key (id, body) VALUES (?, ?)", (id, body))

        await self._write(add)

    async def remove_key(self, id: str) -> bool:
        """Removes a key; returns whether it was there."""

        def remove(connection: PostgresConnection) -> bool:
            rows = connection.execute("DELETE FROM access_key WHERE id = ? RETURNING 1", (id,))
            return rows.fetchone() is not None

        return await self._write(remove)

    async def end_session(self, id: str, ends_at: float) -> None:
        """Ends a session, which would end by itself at `ends_at` (Unix seconds)."""

        def end(connection: PostgresConnection) -> None:
            connection.execute("DELETE FROM ended_session WHERE ends_at < ?", (now(),))
            connection.execute(
                "INSERT INTO ended_session (id, ends_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (id, float(ends_at)),
            )

        await self._write(end)


def _read(connection: PostgresConnection, after: int) -> Access:
    keys = connection.execute("SELECT id, body FROM access_key").fetchall()
    secret = connection.execute("SELECT value FROM access_secret").fetchone()
    ended = connection.execute(
        "SELECT id, ends_at, number FROM ended_session WHERE number > ? ORDER BY number LIMIT ?",
        (after - OVERLAP, MAX_READ),
    ).fetchall()
    return Access(
        {id: body.encode() for id, body in keys},
        secret[0] if secret is not None else "",
        {id: ends_at for id, ends_at, _ in ended},
        max((after, *(number for *_, number in ended))),
        len(ended) == MAX_READ,
    )
