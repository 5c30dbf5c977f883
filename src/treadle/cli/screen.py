"""A thread as a terminal shows it: each event once, whichever function reads it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from treadle.bus.position import Position
from treadle.cli.target import AnyThread
from treadle.cli.transcript import Transcript
from treadle.domain.events import DurableEvent, Event


class Screen:
    """Shows the events of a thread after number `after`.

    One caller at a time may iterate `events`; the next one continues where it stopped.
    """

    def __init__(self, thread: AnyThread, transcript: Transcript, after: int) -> None:
        self.thread = thread
        self.transcript = transcript
        self._after = Position(after)

    async def events(self) -> AsyncGenerator[Event]:
        """Yields each event after showing it."""
        subscription = self.thread.subscribe(self._after)
        try:
            async with subscription:
                async for event in subscription:
                    self.transcript.show(event)
                    yield event
        finally:
            self._after = Position.parse(subscription.position)

    async def catch_up(self) -> None:
        """Shows the events so far."""
        async for _ in self.so_far():
            pass

    async def so_far(self) -> AsyncGenerator[Event]:
        """Yields each event so far after showing it."""
        until = await self.thread.last_seq()
        if self._after.seq >= until:
            return
        async with aclosing(self.events()) as events:
            async for event in events:
                yield event
                if isinstance(event, DurableEvent) and event.seq >= until:
                    return

    async def arrival(self) -> None:
        """Waits for an event that is not shown yet."""
        async with self.thread.subscribe(self._after) as events:
            await anext(events)
