"""The events of all threads, in the form in which a stream takes those of one."""

import asyncio
from contextlib import suppress

from treadle.domain.desk import DeskEvent
from treadle.runtime.desk import DeskSubscription


class DeskSource:
    """Gives the events of a desk without waiting: `take` what has arrived, `wait` for the next."""

    is_over = False

    def __init__(self, desk: DeskSubscription) -> None:
        self._desk = desk
        self._next: asyncio.Task[DeskEvent] | None = None
        self._woken = asyncio.Event()

    @property
    def position(self) -> str:
        """The position of the last event."""
        return self._desk.position

    def take(self) -> DeskEvent | None:
        """Returns the next event if it has arrived; raises `StopAsyncIteration` at the end."""
        following = self._next
        if following is None or not following.done():
            return None
        self._next = None
        return following.result()

    async def wait(self) -> None:
        """Waits until `take` may return an event, or `wake` is called."""
        self._woken.clear()
        if self._next is None:
            self._next = asyncio.ensure_future(self._desk.__anext__())
            self._next.add_done_callback(lambda _: self.wake())
        if not self._next.done():
            await self._woken.wait()

    def wake(self) -> None:
        """Ends the wait in progress."""
        self._woken.set()

    async def aclose(self) -> None:
        """Ends the subscription."""
        following, self._next = self._next, None
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await asyncio.wait([following])
        await self._desk.aclose()
