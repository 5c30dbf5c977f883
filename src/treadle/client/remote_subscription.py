"""The events of a thread, of a run, or of all threads, from a server."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast, get_args

import msgspec

from treadle.bus.position import Position
from treadle.client.connection import Connection, Query
from treadle.client.event_stream import EventStream
from treadle.client.frames import Frame
from treadle.domain.desk import DeskEvent, ThreadCreated, ThreadDeleted
from treadle.domain.envelope import Envelope, decode_event, decode_recorded
from treadle.domain.events import DurableEvent, Event, TerminalEvent
from treadle.errors import RequestFailed

_TERMINAL = cast("tuple[type[DurableEvent], ...]", get_args(TerminalEvent))


class RemoteSubscription(AsyncIterator[Event]):
    """The events after a position, as `treadle.Subscription` gives them; iterate it, in one task.

    It connects with the first event that is asked for, and again whenever the connection breaks,
    from the position of the last event: events come exactly once, and the deltas of a text add up
    to the text. It ends with its run, or with `aclose`; that of a thread whose thread is deleted
    raises `ThreadNotFound`. `ServerUnreachable` is raised once the server could not be reached for
    `Client.retry_seconds`; a new subscription from `position` continues then.
    """

    def __init__(
        self, connection: Connection, path: str, query: Query, after: Position | None, run_id: str
    ) -> None:
        start = "" if after is None else after.text
        self._stream = EventStream(connection, path, query, start)
        self._position = start
        self._run_id = run_id
        self._is_over = False

    @property
    def position(self) -> str:
        """The position of the last event, before the first one the position it began at.

        Empty for a run that was subscribed to from its beginning and has not answered yet.
        """
        return self._position

    @property
    def is_over(self) -> bool:
        """Whether the terminal event of the run has been delivered, or was before the start."""
        return self._is_over

    async def connect(self) -> None:
        """Connects, unless it is connected; raises what the server answers."""
        await self._stream.connect()
        self._is_over = self._is_over or self._stream.is_over

    def __aiter__(self) -> "RemoteSubscription":
        return self

    async def __anext__(self) -> Event:
        return (await self.next()).event

    async def envelopes(self) -> AsyncGenerator[Envelope]:
        """The same events with their positions and their JSON."""
        while True:
            try:
                envelope = await self.next()
            except StopAsyncIteration:
                return
            yield envelope

    async def next(self) -> Envelope:
        """Returns the next event with its position and its JSON.

        Raises `StopAsyncIteration` at the end.
        """
        while not self._is_over:
            frame = await self._stream.next()
            if frame is None:
                self._is_over = True
                break
            self._position = self._stream.position
            event = _event(frame)
            if event is None:  # of a newer version, and readers can do without it
                continue
            if self._run_id and isinstance(event, _TERMINAL) and event.run_id == self._run_id:
                self._is_over = True
                self._stream.finish()
            position = Position.parse(self._position)
            return Envelope(event, position.seq, -1 if position.n is None else position.n)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the subscription, including a wait for its next event; may be called again."""
        self._is_over = True
        await self._stream.aclose()

    async def __aenter__(self) -> "RemoteSubscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _event(frame: Frame) -> Event | None:
    try:
        return decode_event(frame.data)
    except msgspec.MsgspecError as error:
        raise _unknown_form(frame, error) from error


def _unknown_form(frame: Frame, error: Exception) -> RequestFailed:
    return RequestFailed(
        f"The server sent an event {frame.event[:60]!r} of another form: {error}. Use the same "
        "version of treadle on both sides."
    )


class _DeskHead(msgspec.Struct):
    """A `DeskEvent` whose event is not decoded yet."""

    thread_id: str
    event: msgspec.Raw
    position: str
    owner: str = ""
    parent: str = ""


_DESK_HEAD = msgspec.json.Decoder(_DeskHead)
_OWN = msgspec.json.Decoder(ThreadCreated | ThreadDeleted)


class RemoteDesk(AsyncIterator[DeskEvent]):
    """What happens on all threads, as `treadle.DeskSubscription` gives it; iterate it, in one task.

    It begins with `async with`, or else when the first event is asked for, and connects again as
    `RemoteSubscription` does.
    """

    def __init__(self, connection: Connection, query: Query, after: str) -> None:
        self._stream = EventStream(connection, "/events", query, after)

    @property
    def position(self) -> str:
        """The position of the last event, "" before the server has answered."""
        return self._stream.position

    def __aiter__(self) -> "RemoteDesk":
        return self

    async def __anext__(self) -> DeskEvent:
        frame = await self._stream.next()
        if frame is None:
            raise StopAsyncIteration
        try:
            head = _DESK_HEAD.decode(frame.data)
            raw = bytes(head.event)
            event = (
                _OWN.decode(raw)
                if frame.event in {ThreadCreated.type, ThreadDeleted.type}
                else decode_recorded(raw)
            )
        except msgspec.MsgspecError as error:
            raise _unknown_form(frame, error) from error
        return DeskEvent(
            thread_id=head.thread_id,
            owner=head.owner,
            parent=head.parent,
            event=event,
            position=head.position,
        )

    async def aclose(self) -> None:
        """Ends the subscription, including a wait for its next event; may be called again."""
        await self._stream.aclose()

    async def __aenter__(self) -> "RemoteDesk":
        await self._stream.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
