"""One response of server-sent events: from a subscription to the connection of a client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from msgspec import Struct

from treadle.domain.events import (
    FieldDelta,
    ReasoningDelta,
    RefusalDelta,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunRequiresAction,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
    ToUserDelta,
)
from treadle.errors import JournalClosed, ThreadNotFound, TreadleError
from treadle.server.access import ACCESS, Access
from treadle.server.open_requests import OpenRequests
from treadle.server.problems import Problem, problem_of
from treadle.server.sse import ENDED, KEEP_ALIVE, Framed, frame, own_frame

JOINED_BYTES = 32 * 1024
"""About how much of what waits is written at once."""

TRANSPORT = "treadle.transport"
"""The key of the connection in a scope of `treadle.server.protocol`."""

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

EndReason = Literal["draining", "limited", "thread_deleted", "not_authenticated", "failed"]

_IN_STEP: dict[type, bool] = {
    **dict.fromkeys(
        (
            StepStarted,
            TextDelta,
            ReasoningDelta,
            RefusalDelta,
            ToolCallStarted,
            ToolArgumentsDelta,
            ToUserDelta,
            FieldDelta,
        ),
        True,
    ),
    **dict.fromkeys(
        (
            StepCompleted,
            StepInterrupted,
            RunRequiresAction,
            RunCompleted,
            RunIncomplete,
            RunFailed,
            RunCancelled,
            RunExpired,
        ),
        False,
    ),
}
"""Whether a step is open after an event of a type; the other types change nothing."""


class StreamEnd(Struct, frozen=True, omit_defaults=True):
    """The data of the frame `stream.ended`."""

    reason: EndReason
    problem: Problem | None = None


class StreamLimits(Struct, frozen=True):
    """After how many seconds a quiet stream sends a comment, and a stuck one is cut."""

    keep_alive_seconds: float
    write_timeout_seconds: float


class Source(Protocol):
    """What a stream takes events from: a `Subscription` or a `DeskSource`."""

    @property
    def position(self) -> str:
        """The position of the last event."""
        ...

    def take(self) -> Framed | None:
        """Returns the next event if it has arrived; raises `StopAsyncIteration` at the end."""
        ...

    async def wait(self) -> None:
        """Waits until `take` may return an event, or `wake` is called."""
        ...

    def wake(self) -> None:
        """Ends the wait in progress."""
        ...

    async def aclose(self) -> None:
        """Ends the subscription."""
        ...


class Framing(Protocol):
    """Makes the bytes of a stream of its events.

    `is_over` tells that the last frame was made, and no event after it is wanted.
    """

    @property
    def is_over(self) -> bool:
        """Whether the stream is complete."""
        ...

    def frame(self, envelope: Any) -> bytes:
        """Returns the frames of an event; none for one that readers do not see."""
        ...

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frames of a stream that ends before it is over."""
        ...


class EventFraming:
    """Events of the runtime as they are; `stream.ended` tells why a stream is not at its end."""

    is_over = False
    frame = staticmethod(frame)

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frame `stream.ended`."""
        return own_frame(ENDED, StreamEnd(reason, problem))


EVENTS = EventFraming()


class EventStream:
    """Writes the events of a subscription to a client until one of them ends.

    What waits is written at once. A client that reads slowly gets joined deltas, because its
    subscription is bounded; one that takes nothing for the time of a write is cut. There is no
    task or timer for each stream, except one that notices that the client has left.
    """

    __slots__ = (
        "_access",
        "_framing",
        "_in_step",
        "_is_cut",
        "_is_gone",
        "_is_quiet",
        "_is_refused",
        "_limits",
        "_loop",
        "_open",
        "_send",
        "_source",
        "_task",
        "_transport",
        "_writes_since",
        "_wrote_at",
    )

    def __init__(
        self,
        source: Source,
        limits: StreamLimits,
        open_requests: OpenRequests,
        *,
        in_step: bool,
        framing: Framing = EVENTS,
    ) -> None:
        self._source = source
        self._framing = framing
        self._limits = limits
        self._open = open_requests
        self._in_step = in_step
        self._access: Access | None = None
        self._is_gone = self._is_quiet = self._is_cut = self._is_refused = False
        self._wrote_at = 0.0
        self._writes_since: float | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send, head: bytes) -> bool:
        """Writes `head` and then the events; the response has been started.

        Returns whether the client left before the end.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._transport = scope.get(TRANSPORT)
        self._access = scope.get(ACCESS)
        self._task = asyncio.current_task()
        self._send = send
        self._wrote_at = loop.time()
        watching = loop.create_task(self._watch(receive))
        self._open.add(self)
        try:
            await self._write(head)
            last = await self._events()
            await send({"type": "http.response.body", "body": last, "more_body": False})
        except asyncio.CancelledError:
            if not self._is_cut or self._task is None or self._task.uncancel():
                raise
        finally:
            self._open.remove(self)
            watching.cancel()
            await self._source.aclose()
        # The connection of a client that has the last frame may be gone as well by now.
        return (self._is_gone or self._is_cut) and not self._framing.is_over

    async def _events(self) -> bytes:
        """Writes events until the end; returns the last bytes, if some are needed."""
        source, registry, framing = self._source, self._open, self._framing
        while not self._is_gone:
            try:
                if self._is_refused:
                    return framing.end("not_authenticated")
                waiting = self._take()
                if framing.is_over:
                    return waiting
                if waiting:
                    await self._write(waiting)
                    continue
                if registry.is_over or (registry.is_draining and not self._in_step):
                    return framing.end("draining")
                if self._is_quiet:
                    await self._write(KEEP_ALIVE)
                    continue
                await source.wait()
            except StopAsyncIteration:
                return b"" if getattr(source, "is_over", False) else framing.end("draining")
            except ThreadNotFound:
                return framing.end("thread_deleted")
            except JournalClosed:
                return framing.end("draining")
            except TreadleError as error:
                return framing.end("failed", problem_of(error))
        return b""

    def _take(self) -> bytes:
        """Returns the frames of the events that have arrived, or at least of some of them."""
        take, framing = self._source.take, self._framing
        frame = framing.frame
        envelope = take()
        if envelope is None:
            return b""
        frames, size, in_step = list[bytes](), 0, self._in_step
        while envelope is not None:
            encoded = frame(envelope)
            frames.append(encoded)
            size += len(encoded)
            in_step = _IN_STEP.get(envelope.event.__class__, in_step)
            if size >= JOINED_BYTES or framing.is_over:
                break
            try:
                envelope = take()
            except StopAsyncIteration:
                if size:
                    break  # it is raised again by the next call
                raise
        self._in_step = in_step
        return frames[0] if len(frames) == 1 else b"".join(frames)

    async def _write(self, data: bytes) -> None:
        now = self._loop.time()
        self._writes_since = self._wrote_at = now
        self._is_quiet = False
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._writes_since = None

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._source.wake()

    def tick(self, now: float) -> None:
        """Asks for a comment if the stream was quiet, and cuts it if the client takes nothing.

        It ends with the credentials of its client.
        """
        if self._access is not None and not self._access.holds:
            self._is_refused = True
            self._source.wake()
        if self._writes_since is not None:
            if now - self._writes_since >= self._limits.write_timeout_seconds:
                self.cut()
        elif now - self._wrote_at >= self._limits.keep_alive_seconds:
            self._is_quiet = True
            self._source.wake()

    def wake(self) -> None:
        """Lets the stream look whether it should end."""
        self._source.wake()

    def cut(self) -> None:
        """Ends the connection at once, without what waits to be written."""
        self._is_cut = self._is_gone = True
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()
        self._source.wake()
