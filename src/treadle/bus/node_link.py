"""The connection to a node that drives threads, seen from a process that follows some of them."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

from treadle.bus.base import Take
from treadle.bus.position import Position, position_of
from treadle.bus.wire import (
    MAX_LINE,
    UNREADABLE,
    Answer,
    Driven,
    End,
    Leave,
    Line,
    Request,
    Ring,
    Watch,
    decode_answers,
    encoded,
    envelope_of,
)
from treadle.domain.envelope import Envelope
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to a node; raises one of `UNREADABLE`."""

MAX_WAITING = 4096
MAX_WAITING_BYTES = 4 * 1024 * 1024
"""How many events, of how many bytes, wait for a reader that takes none.

Then it is dropped: it asks again where it stopped, and gets deltas that the node has joined.
"""

MAX_FAILURES = 3
"""How many connections may break before they bring anything of a thread."""

MAX_UNSENT = 1024 * 1024
"""How many bytes of requests a node may leave unread before it counts as gone."""

CHUNK = 256 * 1024
"""How much is read at once."""


class _Followed:
    """The events of one thread that have arrived, and wait for their reader."""

    __slots__ = ("envelopes", "is_broken", "is_ended", "size", "thread_id", "wakeup")

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        self.envelopes: deque[Envelope] = deque()
        self.size = 0
        self.is_ended = self.is_broken = False
        self.wakeup: asyncio.Future[None] | None = None

    def put(self, envelope: Envelope) -> bool:
        """Adds an event; returns False if too many wait."""
        self.envelopes.append(envelope)
        self.size += len(envelope.json)
        self.wake()
        # One event is taken whatever its length.
        waiting = len(self.envelopes)
        return waiting < MAX_WAITING and (self.size < MAX_WAITING_BYTES or waiting == 1)

    def take(self) -> Envelope:
        """Removes and returns the next event."""
        envelope = self.envelopes.popleft()
        self.size -= len(envelope.json)
        return envelope

    def end(self) -> None:
        """Ends the reading after what waits."""
        self.is_ended = True
        self.wake()

    def wake(self) -> None:
        if self.wakeup is not None and not self.wakeup.done():
            self.wakeup.set_result(None)

    async def wait(self) -> None:
        """Waits until something is added, or it ends."""
        self.wakeup = asyncio.get_running_loop().create_future()
        try:
            await self.wakeup
        finally:
            self.wakeup = None


class _Delivered:
    """The events of one thread that are handed on as they arrive."""

    __slots__ = ("ended", "error", "is_broken", "last", "take", "thread_id")

    def __init__(self, thread_id: str, take: Take) -> None:
        self.thread_id = thread_id
        self.take = take
        self.last: Envelope | None = None
        self.error: Exception | None = None
        self.is_broken = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, envelope: Envelope) -> bool:
        """Hands an event on; returns whether more are wanted."""
        self.last = envelope
        try:
            return self.take(envelope)
        except Exception as error:  # noqa: BLE001 - raised where it is delivered to
            self.error = error
            return False

    def end(self) -> None:
        """Ends the delivery."""
        if not self.ended.done():
            self.ended.set_result(None)


class NodeLink:
    """One connection to a node, made when it is first needed, and again after it broke.

    All threads that are followed share it. `on_driven` is called with each thread that the node
    comes to drive.
    """

    def __init__(self, connect: Connect, on_driven: Callable[[str], None]) -> None:
        self._connect = connect
        self._on_driven = on_driven
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._ids = itertools.count(1)
        self._followed: dict[int, _Followed | _Delivered] = {}
        self._threads: dict[str, set[int]] = {}
        self._is_closed = False

    async def connect(self) -> bool:
        """Connects if there is no connection; returns whether there is one then."""
        async with self._connecting:
            if self._writer is None and not self._is_closed:
                try:
                    reader, writer = await self._connect()
                except UNREADABLE as error:
                    _LOGGER.debug("A node cannot be reached: %s", error)
                    return False
                if self._is_closed:
                    writer.transport.abort()
                    return False
                self._writer = writer
                self._reading = asyncio.create_task(
                    self._read(reader, writer), name="treadle node link"
                )
        return self._writer is not None

    async def close(self) -> None:
        """Ends the connection, and all that is read from it; a second call does nothing."""
        self._is_closed = True
        if self._writer is not None:
            self._writer.close()  # sends what was written first
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])

    async def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events of a thread after a position; ends when the node does not drive it.

        It also ends for a reader that took nothing for too long. Where the connection breaks, it
        continues over the next one, unless the node cannot be reached, or brings nothing.
        """
        failures = 0
        while failures < MAX_FAILURES and await self.connect():
            followed = _Followed(thread_id)
            id = self._watch(followed, after)
            failures += 1
            try:
                while True:
                    while followed.envelopes:
                        envelope = followed.take()
                        failures, after = 0, position_of(envelope)
                        yield envelope
                    if followed.is_ended:
                        break
                    await followed.wait()
            finally:
                self._leave(id)
            if not followed.is_broken:
                return

    async def deliver(self, thread_id: str, after: Position, take: Take) -> None:
        """Calls `take` with the events that `follow` would yield, until it returns False."""
        failures = 0
        while failures < MAX_FAILURES and await self.connect():
            delivered = _Delivered(thread_id, take)
            id = self._watch(delivered, after)
            failures += 1
            try:
                await delivered.ended
            finally:
                self._leave(id)
            if delivered.error is not None:
                raise delivered.error
            if not delivered.is_broken:
                return
            if delivered.last is not None:
                failures, after = 0, position_of(delivered.last)

    def leave(self, thread_id: str) -> None:
        """Ends what is read of a thread, which another node drives."""
        for id in list(self._threads.get(thread_id, ())):
            self._leave(id)

    async def ring(self, thread_id: str) -> bool:
        """Asks the node to look at the inbox of a thread; returns whether it was reached."""
        if not await self.connect():
            return False
        self._send(Ring(thread_id))
        return True

    def _watch(self, followed: _Followed | _Delivered, after: Position) -> int:
        id = next(self._ids)
        self._followed[id] = followed
        self._threads.setdefault(followed.thread_id, set()).add(id)
        self._send(Watch(id, followed.thread_id, after.seq, after.n))
        return id

    def _leave(self, id: int) -> None:
        if self._end(id):
            self._send(Leave(id))

    def _end(self, id: int) -> bool:
        followed = self._followed.pop(id, None)
        if followed is None:
            return False
        ids = self._threads[followed.thread_id]
        ids.discard(id)
        if not ids:
            del self._threads[followed.thread_id]
        followed.end()
        return True

    def _send(self, request: Request) -> None:
        writer = self._writer
        if writer is None:
            return
        writer.write(encoded(request))
        if writer.transport.get_write_buffer_size() > MAX_UNSENT:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(*UNREADABLE):
                await self._read_lines(reader)
        finally:
            self._writer = None
            writer.close() if self._is_closed else writer.transport.abort()
            for id, followed in list(self._followed.items()):
                followed.is_broken = True
                self._end(id)

    async def _read_lines(self, reader: asyncio.StreamReader) -> None:
        rest = bytearray()
        while chunk := await reader.read(CHUNK):
            end = chunk.rfind(b"\n") + 1
            if not end:
                rest += chunk
                if len(rest) > MAX_LINE:
                    raise ValueError("a line is too long")
                continue
            rest += memoryview(chunk)[:end]
            for answer in decode_answers(rest):
                self._take(answer)
            rest = bytearray(memoryview(chunk)[end:])

    def _take(self, answer: Answer) -> None:
        match answer:
            case Line(id=id):
                followed = self._followed.get(id)
                if followed is None:
                    return  # it has left, and the node does not know yet
                envelope = envelope_of(answer)
                if envelope is not None and not followed.put(envelope):
                    self._leave(id)
            case End(id):
                self._end(id)
            case Driven(thread_id):
                self._on_driven(thread_id)
