"""The connections to processes that follow threads of this node, seen from the node."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from treadle.bus.base import Node
from treadle.bus.blocks import join_neighbours
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.bus.wire import (
    UNREADABLE,
    Driven,
    End,
    Leave,
    Ring,
    Watch,
    decode_request,
    encoded,
    line_of,
)
from treadle.domain.envelope import Envelope
from treadle.errors import TreadleError
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

TICK_SECONDS = 0.01
"""The shortest time between two pieces that are written to a connection.

The first event after a pause is written at once; then those of all threads wait for each other, and
deltas of a text are joined. So a connection costs two wakes a tick, however much is streamed.
"""

STALL_SECONDS = 30.0
"""After how long a follower that reads nothing is disconnected."""

MAX_PIECE = 256 * 1024
"""From how many bytes on a piece is written before more is added, unless one event is longer."""

MAX_BATCH = 256
"""The most events of one thread in a piece."""

MAX_ANNOUNCED = 1024 * 1024
"""The most bytes of announcements that wait for a follower which reads nothing."""

MAX_WATCHES = 100_000
"""The most threads that are followed over one connection."""


class Followers:
    """The connections of all processes that follow threads of `node`.

    `serves` returns whether a thread can be followed here.
    """

    def __init__(self, node: Node, serves: Callable[[str], bool]) -> None:
        self._node = node
        self._serves = serves
        self._connections: dict[FollowerConnection, asyncio.Task[None]] = {}
        self._is_closed = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it ends."""
        task = asyncio.current_task()
        assert task is not None
        connection = FollowerConnection(self._node, self._serves, reader, writer)
        self._connections[connection] = task
        if self._is_closed:
            connection.disconnect()
        try:
            await connection.serve()
        finally:
            del self._connections[connection]

    def announce(self, thread_id: str) -> None:
        """Sends to all that the node drives a thread from now on; never waits."""
        line = encoded(Driven(thread_id))
        for connection in self._connections:
            connection.announce(line)

    async def close(self) -> None:
        """Ends all connections."""
        self._is_closed = True
        for connection in self._connections:
            connection.disconnect()
        if self._connections:
            await asyncio.wait(list(self._connections.values()))


class FollowerConnection:
    """A process that follows threads of `node`.

    What it does not read stays in the queues of its subscriptions, which are bounded: they join
    deltas, and drop what can be read again.
    """

    def __init__(
        self,
        node: Node,
        serves: Callable[[str], bool],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._node = node
        self._serves = serves
        self._reader = reader
        self._writer = writer
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._lines: list[bytes] = []
        self._size = 0
        self._has_lines = asyncio.Event()
        self._may_add = asyncio.Event()
        self._may_add.set()

    async def serve(self) -> None:
        """Answers until the follower leaves, or sends or takes what it should not."""
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write())
                with suppress(*UNREADABLE):
                    while line := await self._reader.readline():
                        self._take(line, tasks)
                writing.cancel()
                for watch in list(self._watches.values()):
                    watch.cancel()
        except* UNREADABLE as group:
            _LOGGER.debug("A follower has left: %s", group.exceptions[0])
        finally:
            self.disconnect()

    def announce(self, line: bytes) -> None:
        """Sends an announcement; never waits."""
        if self._size > MAX_ANNOUNCED:
            self.disconnect()  # it asks for all it watches once it is back
        else:
            self._add(line)

    def disconnect(self) -> None:
        """Ends the connection at once."""
        self._writer.transport.abort()  # which ends the reading, and with it `serve`

    def _take(self, line: bytes, tasks: asyncio.TaskGroup) -> None:
        match decode_request(line):
            case Ring(thread_id):
                self._node.ring(thread_id)
            case Leave(id):
                if (watch := self._watches.pop(id, None)) is not None:
                    watch.cancel()
            case Watch() as watch:
                if watch.id in self._watches or len(self._watches) >= MAX_WATCHES:
                    raise ValueError("a watch has the number of another one, or is one too many")
                task = tasks.create_task(self._answer(watch))
                self._watches[watch.id] = task

    async def _answer(self, watch: Watch) -> None:
        """Sends the events of a thread until the node drives it no more."""
        try:
            # A thread that is driven elsewhere by now is not followed through this node.
            if self._serves(watch.thread_id):
                after = Position(watch.seq, watch.n)
                async with self._node.subscribe(watch.thread_id, after) as subscription:
                    await self._send(watch.id, subscription)
        except (TreadleError, StopAsyncIteration) as error:
            _LOGGER.debug("%s is not followed any more: %s", watch.thread_id, error)
        except Exception:  # the other threads of the connection are not to end with it
            _LOGGER.exception("%s cannot be followed", watch.thread_id)
        if self._watches.pop(watch.id, None) is not None:
            self._add(encoded(End(watch.id)))

    async def _send(self, id: int, subscription: Subscription) -> None:
        while True:
            while (envelope := subscription.take()) is None:
                await subscription.wait()
            waiting: list[Envelope] = [envelope]
            while not self._may_add.is_set():
                await self._may_add.wait()
            try:
                while len(waiting) < MAX_BATCH and (envelope := subscription.take()) is not None:
                    waiting.append(envelope)
            finally:  # what was taken is sent, even if it was the last
                for envelope in join_neighbours(waiting) if len(waiting) > 1 else waiting:
                    self._add(line_of(id, envelope))

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= MAX_PIECE:
            self._may_add.clear()
        self._has_lines.set()

    async def _write(self) -> None:
        while True:
            await self._has_lines.wait()
            await asyncio.sleep(0)  # what waited for the tick is added now
            piece = b"".join(self._lines)
            self._lines.clear()
            self._size = 0
            self._has_lines.clear()
            self._may_add.clear()  # until the piece was sent and the tick is over
            self._writer.write(piece)
            async with asyncio.timeout(STALL_SECONDS):
                await self._writer.drain()
            await asyncio.sleep(TICK_SECONDS)
            self._may_add.set()
