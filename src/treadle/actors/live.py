"""Live events for the other processes of this machine, over a socket beside the database.

A watcher sends one line, a `Watch`; the driving process answers with a line for each event, a
`Line`, as a subscriber here would get them. What is durable is in the database anyhow: without a
socket, a watcher sees the same events, but no deltas.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event
from treadle.errors import TreadleError
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

MAX_PATH = 100
"""Bytes of a socket's path that every system takes."""

MAX_LINE = 64 * 1024 * 1024


class Watch(Struct, frozen=True):
    """What a watcher asks for: the events of a thread after the position `seq.n`."""

    thread_id: str
    seq: int
    n: int | None = None


class Line(Struct, frozen=True):
    """An event and its place after the durable event `seq`; see `Envelope`."""

    seq: int
    n: int
    event: msgspec.Raw


_WATCH = msgspec.json.Decoder(Watch)
_LINE = msgspec.json.Decoder(Line)
_EVENT = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


def socket_path(database: Path) -> Path | None:
    """Returns where the socket of a database is; None where there cannot be one."""
    path = database.absolute().with_name(f"{database.name}-live")
    supported = hasattr(asyncio, "start_unix_server")
    return path if supported and len(bytes(path)) <= MAX_PATH else None


class LiveServer:
    """Hands the events of threads to whoever may open the socket: the owner of the database."""

    def __init__(self, path: Path, subscribe: Callable[[str, Position], Subscription]) -> None:
        self._path = path
        self._subscribe = subscribe
        self._server: asyncio.Server | None = None
        self._watchers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Opens the socket; without one, watchers see no deltas, and nothing else is missing."""
        try:
            listening = await asyncio.to_thread(_bind, self._path)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening)
        except OSError as error:
            _LOGGER.warning("There is no live socket: %s", error)

    async def stop(self) -> None:
        """Sends all watchers away and removes the socket."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._watchers.values():
            writer.transport.abort()  # which ends the reading, and with it the task
        if self._watchers:
            await asyncio.wait(list(self._watchers))
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._watchers[task] = writer
        try:
            watch = _WATCH.decode(await reader.readline())
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(watch, writer))
                await reader.read()  # nothing more comes until the watcher leaves
                sending.cancel()
        except* (OSError, msgspec.DecodeError, TreadleError) as group:
            _LOGGER.debug("A watcher has left: %s", group.exceptions[0])
        finally:
            self._watchers.pop(task, None)
            writer.close()

    async def _send(self, watch: Watch, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._subscribe(
                watch.thread_id, Position(watch.seq, watch.n)
            ) as subscription:
                async for envelope in subscription.envelopes():
                    line = Line(envelope.seq, envelope.n, msgspec.Raw(envelope.json))
                    writer.write(_ENCODER.encode(line) + b"\n")
                    await writer.drain()
        finally:
            writer.close()  # so that the watcher leaves


def _bind(path: Path) -> socket.socket:
    """Makes the socket; nobody can connect to it before it is its owner's alone."""
    path.unlink(missing_ok=True)  # of a process that was killed
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(bytes(path))
        path.chmod(0o600)
    except BaseException:
        listening.close()
        raise
    return listening


async def follow(path: Path, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
    """Yields the events of a thread that another process drives; ends when that one does.

    Raises `OSError` where no process listens.
    """
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
    try:
        writer.write(_ENCODER.encode(Watch(thread_id, after.seq, after.n)) + b"\n")
        while line := await reader.readline():
            decoded = _LINE.decode(line)
            yield Envelope(_EVENT.decode(decoded.event), decoded.seq, decoded.n)
    finally:
        writer.close()
