"""The events of a run in the foreground, for its one reader."""

from collections import deque
from collections.abc import AsyncGenerator

from treadle.bus.event_queue import EventQueue, QueueStatistics
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event


class Feed:
    """The events of one subscriber, in order; iterate it once.

    Nothing is kept elsewhere, so nothing is dropped: see `EventQueue` for what is joined once
    `limit` events wait. Before that, events wait as they are, which is the usual case and the
    quickest one.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._events: deque[Event] = deque()
        self._queue = EventQueue(limit, drops_overflow=False)
        self._is_joining = False
        self._n = 0

    def __len__(self) -> int:
        return len(self._events) + len(self._queue)

    def statistics(self) -> QueueStatistics:
        """Returns how many events wait, and how many deltas have been joined so far."""
        return self._queue.statistics()._replace(waiting=len(self))

    def put(self, event: Event) -> None:
        """Adds an event; ignored once the feed is closed."""
        if self._is_joining:
            self._join(event)
        elif not self._queue.is_closed:
            self._events.append(event)
            if len(self._events) >= self._limit:
                self._is_joining = True
                for one in self._events:
                    self._join(one)
                self._events.clear()
        if self._queue.wakeup is not None:
            self._queue.wake()

    def close(self, error: Exception | None = None) -> None:
        """Ends the feed after what is already in it; then `error` is raised, if there is one."""
        self._queue.close(error)

    async def __aiter__(self) -> AsyncGenerator[Event]:
        events, queue = self._events, self._queue
        while True:
            while events:
                yield events.popleft()
            if self._is_joining:
                while (envelope := queue.take()) is not None:
                    yield envelope.event
                self._is_joining = False
            elif queue.is_closed:
                break
            else:
                await queue.wait()
        if queue.error is not None:
            raise queue.error.with_traceback(None)  # shared: else it keeps the frames of all

    def _join(self, event: Event) -> None:
        self._n += 1
        self._queue.put(Envelope(event, 0, self._n))
