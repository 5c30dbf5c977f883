"""A bus between processes of one machine, over a Unix socket next to the database.

A client sends one line, a `Watch` or a `Ring`; the driving process answers a `Watch` with a line
for each event, a `Line`, as a subscriber in that process would get them, and a `Ring` with nothing.
What is durable is in the database in any case: without a socket, a watcher sees the same events and
each text as one delta, and an entry is found when the driving process looks at the inboxes next.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from treadle.bus.base import Node
from treadle.bus.position import Position
from treadle.domain.envelope import Envelope, decode_event
from treadle.errors import TreadleError
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

MAX_PATH = 100
"""Bytes of a socket's path that every system accepts."""

MAX_LINE = 64 * 1024 * 1024


class Watch(Struct, frozen=True, tag="watch"):
    """A request for the events of a thread after the position `seq.n`."""

    thread_id: str
    seq: int
    n: int | None = None


class Ring(Struct, frozen=True, tag="ring"):
    """A request to look at the inbox of a thread."""

    thread_id: str


class Line(Struct, frozen=True):
    """An event and its place after the durable event `seq`; see `Envelope`."""

    seq: int
    n: int
    event: msgspec.Raw


_REQUEST = msgspec.json.Decoder(Watch | Ring)
_LINE = msgspec.json.Decoder(Line)
_ENCODER = msgspec.json.Encoder()
# The other end has left, or sends what is too long, too deep or not of this version.
_UNREADABLE = (OSError, ValueError, RecursionError, msgspec.DecodeError)


class SocketBus:
    """Fulfils `Bus` for the processes that open the database `path`: its owner's only."""

    def __init__(self, path: Path) -> None:
        self._path = _socket_path(path)
        self._node: Node | None = None
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, node: Node) -> None:
        """Opens the socket; where there cannot be one, only deltas and quick wakes are missing."""
        self._node = node
        if self._path is None:
            return
        try:
            listening = await asyncio.to_thread(_bind, self._path)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening)
        except OSError as error:
            _LOGGER.warning("There is no live socket: %s", error)

    async def close(self) -> None:
        """Closes all connections and removes the socket; a second call does nothing."""
        server, self._server = self._server, None
        if server is None or self._path is None:
            return
        server.close()
        for writer in self._clients.values():
            writer.transport.abort()  # which ends the reading, and with it the task
        if self._clients:
            await asyncio.wait(list(self._clients))
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events of a thread that another process drives; ends when that one does.

        A process that sends what this version cannot read ends it as well. Live events of a newer
        version are left out.
        """
        if self._path is None or self._server is not None:
            return
        with suppress(*_UNREADABLE):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
            try:
                writer.write(_ENCODER.encode(Watch(thread_id, after.seq, after.n)) + b"\n")
                while line := await reader.readline():
                    decoded = _LINE.decode(line)
                    event = decode_event(bytes(decoded.event))
                    if event is not None:
                        yield Envelope(event, decoded.seq, decoded.n)
            finally:
                writer.close()

    async def ring(self, thread_id: str) -> bool:
        """Asks the driving process to look at the inbox."""
        if self._path is None or self._server is not None:
            return False
        try:
            _, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            return False
        writer.write(_ENCODER.encode(Ring(thread_id)) + b"\n")
        writer.close()  # sends what was written first
        with suppress(OSError):
            await writer.wait_closed()
        return True

    def announce(self, thread_id: str) -> None:
        """Does nothing: the other processes ask, because none of them can drive a thread."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self._node is not None
        self._clients[task] = writer
        try:
            request = _REQUEST.decode(await reader.readline())
            if isinstance(request, Ring):
                self._node.ring(request.thread_id)
                return
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(self._node, request, writer))
                await reader.read()  # nothing more comes until the client leaves
                sending.cancel()
        except* (*_UNREADABLE, TreadleError) as group:
            _LOGGER.debug("A client of the live socket has left: %s", group.exceptions[0])
        finally:
            self._clients.pop(task, None)
            writer.close()

    async def _send(self, node: Node, watch: Watch, writer: asyncio.StreamWriter) -> None:
        try:
            after = Position(watch.seq, watch.n)
            async with node.subscribe(watch.thread_id, after) as subscription:
                async for envelope in subscription.envelopes():
                    line = Line(envelope.seq, envelope.n, msgspec.Raw(envelope.json))
                    writer.write(_ENCODER.encode(line) + b"\n")
                    await writer.drain()
        finally:
            writer.close()  # so that the client leaves


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
