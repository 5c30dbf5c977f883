"""The requests that stay open: they wait for events, and are woken to write, to end or to leave."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from treadle.repeating import repeat

_LOGGER = logging.getLogger("treadle.server")

LAST_SECONDS = 2.0
"""How long connections have to end after the grace period, in seconds."""


class OpenRequest(Protocol):
    """A request that waits for events."""

    def tick(self, now: float) -> None:
        """Looks at its time limits; `now` is the time of the event loop."""
        ...

    def wake(self) -> None:
        """Ends its wait, so that it looks whether it should end."""
        ...

    def cut(self) -> None:
        """Ends its connection at once."""
        ...


class OpenRequests:
    """The open requests of a server, with one timer for all of them.

    While `is_draining`, a stream ends once its step has ended; once `is_over`, it ends now. The
    timer awaits `before_tick` first.
    """

    def __init__(
        self, tick_seconds: float, before_tick: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.is_draining = False
        self.is_over = False
        self._tick_seconds = tick_seconds
        self._before_tick = before_tick
        self._requests: set[OpenRequest] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._finishing: asyncio.Future[None] | None = None
        self._emptied = asyncio.Event()

    def __len__(self) -> int:
        return len(self._requests)

    def start(self) -> None:
        """Starts the timer."""
        self._ticking = asyncio.get_running_loop().create_task(
            repeat(self._tick, _LOGGER, "The time limits of open requests could not be looked at.")
        )

    async def stop(self) -> None:
        """Ends what is still open, and the timer."""
        self.is_draining = self.is_over = True
        self.wake()
        await self._wait_until_empty(LAST_SECONDS)
        ticking, self._ticking = self._ticking, None
        if ticking is not None:
            ticking.cancel()
            await asyncio.wait([ticking])

    async def drain(
        self,
        grace_seconds: float,
        stop: Callable[[], Awaitable[None]] | None = None,
        finish: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        """Ends all open requests: each after its step, at the latest after the grace period.

        `finish` ends the steps themselves, within that time. `stop` ends what produces events;
        streams that are still open write what it left, and end.
        """
        self.is_draining = True
        self.wake()
        if finish is not None:
            self._finishing = asyncio.ensure_future(finish(grace_seconds))
            await self._wait_until_empty(grace_seconds)
            if self.is_over:
                self._finishing.cancel()
            await asyncio.wait([self._finishing])
        else:
            await self._wait_until_empty(grace_seconds)
        if stop is not None:
            await stop()
            await self._wait_until_empty(LAST_SECONDS)
        self.is_over = True
        self.wake()
        if not await self._wait_until_empty(LAST_SECONDS):
            for request in list(self._requests):
                request.cut()
            await self._wait_until_empty(LAST_SECONDS)

    def hurry(self) -> None:
        """Ends the grace period of `drain`."""
        self.is_over = True
        if self._finishing is not None:
            self._finishing.cancel()
        self.wake()

    def add(self, request: OpenRequest) -> None:
        """Takes care of a request until `remove`."""
        self._requests.add(request)

    def remove(self, request: OpenRequest) -> None:
        """Forgets a request that has ended."""
        self._requests.discard(request)
        if not self._requests:
            self._emptied.set()

    def wake(self) -> None:
        """Lets all of them look whether they should end."""
        for request in list(self._requests):
            request.wake()

    async def _wait_until_empty(self, seconds: float) -> bool:
        """Returns whether the last request ended within that time."""
        try:
            async with asyncio.timeout(seconds):
                while self._requests:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    async def _tick(self) -> None:
        await asyncio.sleep(self._tick_seconds)
        if self._before_tick is not None and self._requests:
            await self._before_tick()
        now = asyncio.get_running_loop().time()
        for request in list(self._requests):
            request.tick(now)
