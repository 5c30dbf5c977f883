"""The frames of a route of events, over any number of connections, each once."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress

import aiohttp
import msgspec

from treadle.client.connection import Connection, Pauses, Query, refusal
from treadle.client.frames import Frame, FrameParser
from treadle.client.problem_errors import error_of_problem
from treadle.errors import RequestFailed, ThreadNotFound, TreadleError
from treadle.server.sse import ENDED
from treadle.server.stream import StreamEnd

_END = msgspec.json.Decoder(StreamEnd)


class EventStream:
    """Gives the frames of a route of events; connects again from the last position.

    A connection that ends is not the end of the events: that is a terminal event, which the caller
    recognises, an answer without content, the deletion of the thread, and `aclose`. Nothing is
    requested before the first call.
    """

    def __init__(self, connection: Connection, path: str, query: Query, position: str) -> None:
        self._connection = connection
        self._path = path
        self._query = query
        self.position = position
        self._frames: deque[Frame] = deque()
        self._response: aiohttp.ClientResponse | None = None
        self._parser = FrameParser()
        self._pauses: Pauses | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_live = False  # whether something has come on this connection
        self.is_over = False

    async def next(self) -> Frame | None:
        """Returns the next frame with data, None at the end.

        Raises the error of the server, `ThreadNotFound` after a deletion, and `ServerUnreachable`.
        """
        while True:
            frames = self._frames
            while frames:
                frame = frames.popleft()
                if frame.event == ENDED:
                    self._ended(frame)
                    continue
                if frame.id:
                    self.position = frame.id
                if frame.data:
                    return frame
            if self.is_over:
                return None
            if self._response is None:
                await self.connect()
            else:
                await self._read(self._response)

    async def connect(self) -> None:
        """Connects, unless it is connected; returns once the server has answered."""
        if self._response is not None or self.is_over:
            return
        if self._pauses is None:
            self._loop = asyncio.get_running_loop()
            self._pauses = Pauses(self._connection.retry_seconds)
        await self._unless_closed(self._connect(self._pauses))

    async def begin(self) -> None:
        """Connects and waits for the position from which the events come."""
        while not (self.is_over or self.position):
            if self._frames:
                self.position = self._frames[0].id
                return
            if self._response is None:
                await self.connect()
            else:
                await self._read(self._response)

    async def _unless_closed(self, waiting: Coroutine[object, object, None]) -> None:
        """Waits for something that `aclose` ends."""
        task = self._waiting = asyncio.ensure_future(waiting)
        try:
            await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if not self.is_over or (this is not None and this.cancelling()):
                raise
        finally:
            self._waiting = None

    async def aclose(self) -> None:
        """Ends the stream, including a call of `next`."""
        self.is_over = True
        if self._waiting is not None:
            self._waiting.cancel()
        self._disconnect()

    def finish(self) -> None:
        """Closes the connection: the caller has seen the terminal event."""
        self.is_over = True
        self._disconnect()

    def __del__(self) -> None:
        response, loop = self._response, self._loop
        if response is None or loop is None:
            return
        # The garbage collector calls this in any thread, and after the event loop has ended.
        with suppress(RuntimeError):  # no loop runs in this thread
            if asyncio.get_running_loop() is loop:
                response.close()
                return
        with suppress(RuntimeError):  # the loop is closed, and its connections with it
            loop.call_soon_threadsafe(response.close)

    def _disconnect(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    async def _connect(self, pauses: Pauses) -> None:
        while True:
            headers = {"accept": "text/event-stream"}
            if self.position:
                headers["last-event-id"] = self.position
            try:
                response = await self._connection.request(
                    "GET", self._path, query=self._query, headers=headers
                )
            except (aiohttp.ClientError, OSError) as cause:
                error: TreadleError = self._connection.unreachable(cause)
            else:
                if response.status == 204:
                    response.release()
                    self.is_over = True
                    return
                if response.status == 200 and response.content_type == "text/event-stream":
                    self._response, self._parser = response, FrameParser()
                    self._is_live = False
                    return
                error = await self._refusal(response)
                if not error.retryable:
                    raise error
            await self._pause(pauses, error)

    async def _refusal(self, response: aiohttp.ClientResponse) -> TreadleError:
        try:
            async with response:
                return refusal(response, await response.read())
        except (aiohttp.ClientError, OSError) as cause:
            return self._connection.unreachable(cause)

    async def _pause(self, pauses: Pauses, error: TreadleError) -> None:
        pause = pauses.next()
        if pause is None:
            raise error
        await asyncio.sleep(pause)

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        """Adds the frames of what arrives next; a broken connection is closed."""
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError):
            chunk = b""
        if chunk:
            self._is_live = True
            self._frames.extend(self._parser.feed(chunk))
            return
        if self.is_over or self._pauses is None:
            return
        self._disconnect()
        if self._is_live:
            self._pauses.succeed()
        # A server that ends each connection at once must not be asked without a pause.
        await self._unless_closed(asyncio.sleep(self._pauses.next() or 0.0))

    def _ended(self, frame: Frame) -> None:
        """Handles the last frame of a connection that the server ends."""
        end: StreamEnd | None = None
        with suppress(msgspec.MsgspecError):
            end = _END.decode(frame.data)
        if end is None or end.reason == "draining":
            return
        if end.reason == "thread_deleted":
            self.finish()
            raise ThreadNotFound("The thread was deleted.")
        if end.problem is not None and end.problem.retryable:
            return
        self.finish()
        raise (
            RequestFailed("The server ended the stream because it failed.")
            if end.problem is None
            else error_of_problem(end.problem)
        )
