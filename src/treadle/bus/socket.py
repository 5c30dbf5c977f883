"""A bus between processes of one machine, over a Unix socket next to the database.

What is durable is in the database in any case: without a socket, a watcher sees the same events and
each text as one delta, and an entry is found when the driving process looks at the inboxes next.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

from treadle.bus.base import Follower, Node, Take
from treadle.bus.follower_connection import Followers
from treadle.bus.node_link import CHUNK, NodeLink
from treadle.bus.position import Position
from treadle.bus.wire import MAX_REQUEST
from treadle.domain.envelope import Envelope
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

MAX_PATH = 100
"""Bytes of a socket's path that every system accepts."""


class SocketBus:
    """Fulfils `Bus` for the processes that open the database `path`: its owner's only."""

    announces = False
    """A process that drives no threads looks itself: where there is no socket, it has to."""

    def __init__(self, path: Path) -> None:
        self._path = _socket_path(path)
        self._server: asyncio.Server | None = None
        self._followers: Followers | None = None
        self._link = NodeLink(self._connect, lambda _: None)

    def listen(self, follower: Follower) -> None:
        """Does nothing: no announcements come."""

    async def serve(self, node: Node) -> None:
        """Opens the socket; where there cannot be one, only deltas and quick wakes are missing."""
        if self._path is None:
            return
        self._followers = Followers(node, serves=lambda _: True)
        try:
            listening = await asyncio.to_thread(_bind, self._path)
            self._server = await asyncio.start_unix_server(
                self._followers.serve, sock=listening, limit=MAX_REQUEST
            )
        except OSError as error:
            _LOGGER.warning("There is no live socket: %s", error)

    async def close(self) -> None:
        """Closes all connections and removes the socket; a second call does nothing."""
        await self._link.close()
        server, self._server = self._server, None
        if server is None or self._followers is None or self._path is None:
            return
        server.close()
        await self._followers.close()
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events of a thread that another process drives; ends when that one does.

        A process that sends what this version cannot read ends it as well. Live events of a newer
        version are left out.
        """
        if self._server is None:
            async for envelope in self._link.follow(thread_id, after):
                yield envelope

    async def deliver(self, thread_id: str, after: Position, take: Take) -> None:
        """Calls `take` with the events that `follow` would yield, until it returns False."""
        if self._server is None:
            await self._link.deliver(thread_id, after, take)

    async def ring(self, thread_id: str) -> bool:
        """Asks the driving process to look at the inbox."""
        return self._server is None and await self._link.ring(thread_id)

    def announce(self, thread_id: str) -> None:
        """Does nothing: the other processes ask, because none of them can drive a thread."""

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path is None:
            raise FileNotFoundError("there is no live socket")
        return await asyncio.open_unix_connection(self._path, limit=CHUNK)


def _socket_path(database: Path) -> Path | None:
    """Returns where the socket of a database is; None where there cannot be one."""
    path = database.absolute().with_name(f"{database.name}-live")
    supported = hasattr(asyncio, "start_unix_server")
    return path if supported and len(bytes(path)) <= MAX_PATH else None


def _bind(path: Path) -> socket.socket:
    """Makes the socket; it is its owner's alone before anything can connect to it."""
    path.unlink(missing_ok=True)  # of a process that was killed
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(bytes(path))
        path.chmod(0o600)
    except BaseException:
        listening.close()
        raise
    return listening
