"""The connections to processes that follow threads of this node, seen from the node."""

import asyncio
from collections import deque
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


class _Watched:
    """A thread that a follower watches, over `connection`."""

    __slots__ = ("connection", "id", "is_ready", "subscription", "taken", "task", "thread_id")

    def __init__(
        self, connection: "FollowerConnection", watch: Watch, subscription: Subscription
    ) -> None:
        self.connection = connection
        self.id = watch.id
        self.thread_id = watch.thread_id
        self.subscription = subscription
        self.taken: list[Envelope] = []  # by its task, to be sent before what waits
        self.task: asyncio.Task[None] | None = None
        self.is_ready = False

    def note_ready(self, _: None = None) -> None:
        """Lets the next piece have what waits."""
        if not self.is_ready:
            self.is_ready = True
            self.connection.note_ready(self)

    def leave(self) -> None:
        """Ends the watching, by the follower."""
        self.subscription.leave()
        if self.task is not None:
            self.task.cancel()


class FollowerConnection:
    """A process that follows threads of `node`.

    What it does not read stays in the queues of its subscriptions, which are bounded: they join
    deltas, and drop what can be read again. A thread has a task only while its subscription has to
    do more than to wait, for example to read the journal: so no delta wakes a task of its own.
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
        self._tasks = asyncio.TaskGroup()
        self._watched: dict[int, _Watched] = {}
        self._ready: deque[_Watched] = deque()
        self._lines: list[bytes] = []
        self._size = 0
        self._has_news = asyncio.Event()

    async def serve(self) -> None:
        """Answers until the follower leaves, or sends or takes what it should not."""
        try:
            async with self._tasks:
                writing = self._tasks.create_task(self._write())
                with suppress(*UNREADABLE):
                    while line := await self._reader.readline():
                        self._take(line)
                writing.cancel()
                self._leave_all()
        except* UNREADABLE as group:
            _LOGGER.debug("A follower has left: %s", group.exceptions[0])
        finally:
            self._leave_all()
            self.disconnect()

    def announce(self, line: bytes) -> None:
        """Sends an announcement; never waits."""
        if self._size > MAX_ANNOUNCED:
            self.disconnect()  # it asks for all it watches once it is back
        else:
            self._add(line)

    def note_ready(self, watched: _Watched) -> None:
        """Takes what waits of a thread with the next piece; never waits."""
        self._ready.append(watched)
        self._has_news.set()

    def disconnect(self) -> None:
        """Ends the connection at once."""
        self._writer.transport.abort()  # which ends the reading, and with it `serve`

    def _take(self, line: bytes) -> None:
        match decode_request(line):
            case Ring(thread_id):
                self._node.ring(thread_id)
            case Leave(id):
                if (watched := self._watched.pop(id, None)) is not None:
                    watched.leave()
            case Watch() as watch:
                if watch.id in self._watched or len(self._watched) >= MAX_WATCHES:
                    raise ValueError("a watch has the number of another one, or is one too many")
                self._watch(watch)

    def _watch(self, watch: Watch) -> None:
        # A thread that is driven elsewhere by now is not followed through this node.
        if not self._serves(watch.thread_id):
            self._add(encoded(End(watch.id)))
            return
        subscription = self._node.subscribe(watch.thread_id, Position(watch.seq, watch.n))
        watched = self._watched[watch.id] = _Watched(self, watch, subscription)
        self._await(watched)

    def _leave_all(self) -> None:
        for watched in self._watched.values():
            watched.leave()
        self._watched.clear()

    def _await(self, watched: _Watched) -> None:
        """Lets the thread be ready once it has an event."""
        if not watched.subscription.call_with_next(watched.note_ready):
            watched.task = self._tasks.create_task(self._wait(watched))

    async def _wait(self, watched: _Watched) -> None:
        subscription = watched.subscription
        try:
            while True:
                await subscription.wait()
                if (envelope := subscription.take()) is not None:
                    watched.taken.append(envelope)
                    watched.note_ready()
                    break
                if subscription.call_with_next(watched.note_ready):
                    break
        except Exception as error:  # noqa: BLE001 - see `_end`
            self._end(watched, error)
        finally:
            watched.task = None

    def _end(self, watched: _Watched, error: Exception) -> None:
        """Ends the events of a thread; those of the other threads continue, whatever it was."""
        if self._watched.get(watched.id) is not watched:
            return
        if isinstance(error, TreadleError | StopAsyncIteration):
            _LOGGER.debug("%s is not followed any more: %s", watched.thread_id, error)
        else:
            _LOGGER.error("%s cannot be followed", watched.thread_id, exc_info=error)
        del self._watched[watched.id]
        watched.subscription.leave()
        self._add(encoded(End(watched.id)))

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        self._has_news.set()

    def _add_ready(self) -> None:
        """Adds the events of the threads that have some, until the piece is long enough."""
        ready = self._ready
        while ready and self._size < MAX_PIECE:
            watched = ready.popleft()
            watched.is_ready = False
            if self._watched.get(watched.id) is watched:  # else the follower has left it
                try:
                    self._add_events(watched)
                except Exception as error:  # noqa: BLE001 - see `_end`
                    self._end(watched, error)

    def _add_events(self, watched: _Watched) -> None:
        waiting, watched.taken = watched.taken, []
        take = watched.subscription.take
        try:
            while len(waiting) < MAX_BATCH and (envelope := take()) is not None:
                waiting.append(envelope)
        finally:  # what was taken is sent, even if it was the last
            for envelope in join_neighbours(waiting) if len(waiting) > 1 else waiting:
                self._add(line_of(watched.id, envelope))
        if len(waiting) < MAX_BATCH:
            self._await(watched)
        else:
            watched.note_ready()

    async def _write(self) -> None:
        while True:
            await self._has_news.wait()
            self._add_ready()
            piece = b"".join(self._lines)
            self._lines.clear()
            self._size = 0
            if not self._ready:
                self._has_news.clear()
            if not piece:
                continue
            self._writer.write(piece)
            async with asyncio.timeout(STALL_SECONDS):
                await self._writer.drain()
            await asyncio.sleep(TICK_SECONDS)
