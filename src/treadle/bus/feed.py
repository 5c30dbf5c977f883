"""The events of a run in the foreground, for its one reader."""

from collections.abc import AsyncGenerator

from treadle.bus.event_queue import EventQueue, QueueStatistics
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event


class Feed:
    """The events of one subscriber, in order; iterate it once.

    Nothing is kept elsewhere, so nothing is dropped: see `EventQueue` for what is joined once
    `limit` events wait.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._queue = EventQueue(limit, drops_overflow=False)
        self._n = 0

    def __len__(self) -> int:
        return len(self._queue)

    def statistics(self) -> QueueStatistics:
        """Returns how many events wait, and how many deltas have been joined so far."""
        return self._queue.statistics()

    def put(self, event: Event) -> None:
        """Adds an event; ignored once the feed is closed."""
        self._n += 1
        self._queue.put(Envelope(event, 0, self._n))

    def close(self, error: Exception | None = None) -> None:
        """Ends the feed after what is already in it; then `error` is raised, if there is one."""
        self._queue.close(error)

    async def __aiter__(self) -> AsyncGenerator[Event]:
        queue = self._queue
        while True:
            while (envelope := queue.take()) is not None:
                yield envelope.event
            if queue.is_closed:
                break
            await queue.wait()
        if queue.error is not None:
            raise queue.error
