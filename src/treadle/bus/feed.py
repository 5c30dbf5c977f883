"""A subscriber's queue: it never makes the sender wait, and it never grows without bound."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from treadle.domain.events import Event, delta_in, text_key, with_delta


class _Growth:
    """Deltas of one text that wait together for a slow subscriber."""

    def __init__(self, first: Event):
        self.first = first
        self.pieces: list[str] = []

    def event(self) -> Event:
        return with_delta(self.first, "".join(self.pieces))


class Feed:
    """The events of one subscriber, in order.

    While at most `limit` events wait, each is handed over as it was put. Beyond, deltas of the
    same text are joined, so that what waits is bounded by the text itself and by the other events,
    of which nothing may be lost.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._events: deque[Event | _Growth] = deque()
        self._growing: dict[object, _Growth] = {}
        self._wakeup: asyncio.Future[None] | None = None
        self._closed = False
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Adds an event; ignored once the feed is closed."""
        if self._closed:
            return
        if len(self._events) < self._limit:
            if self._growing:
                self._growing.clear()
            self._events.append(event)
        else:
            self._join(event)
        if self._wakeup is not None:
            self._wake()

    def close(self, error: Exception | None = None) -> None:
        """Ends the feed after what is already in it; then `error` is raised, if there is one."""
        self._closed = True
        self._error = error
        self._wake()

    async def __aiter__(self) -> AsyncGenerator[Event]:
        events = self._events
        while True:
            while events:
                event = events.popleft()
                if type(event) is _Growth:
                    self._growing.clear()
                    yield event.event()
                else:
                    yield event  # type: ignore[misc]
            if self._closed:
                break
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _join(self, event: Event) -> None:
        delta, key = delta_in(event), text_key(event)
        if delta is None:
            # What comes after it must not be joined with what came before.
            self._growing.clear()
            self._events.append(event)
            return
        growth = self._growing.get(key)
        if growth is None:
            growth = self._growing[key] = _Growth(event)
            self._events.append(growth)
        growth.pieces.append(delta.delta)
