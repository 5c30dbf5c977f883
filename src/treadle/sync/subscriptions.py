"""Subscriptions for synchronous code: iterators of events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Self, TypeVar, overload

from treadle.bus.event_queue import QueueStatistics
from treadle.bus.subscription import Subscription as AsyncSubscription
from treadle.domain.desk import DeskEvent
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event
from treadle.runtime.desk import DeskSubscription as AsyncDeskSubscription
from treadle.runtime.run_subscription import RunSubscription as AsyncRunSubscription
from treadle.runtime.state_subscription import StateSubscription as AsyncStateSubscription
from treadle.runtime.thread_view import ThreadView
from treadle.sync.background_loop import BackgroundLoop
from treadle.sync.handle import Handle

T = TypeVar("T")
AnySubscription = TypeVar(
    "AnySubscription", AsyncSubscription, AsyncDeskSubscription, AsyncStateSubscription
)


class _Closing(Handle[AnySubscription]):
    """What ends with its block."""

    def __enter__(self) -> Self:
        self._loop.call(self._target.__aenter__)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._loop.post(self._target.aclose)

    @property
    def position(self) -> str:
        """The position of the last event; pass it to `subscribe` to continue."""
        return self._target.position

    def close(self) -> None:
        """Ends the subscription, including a wait in another thread; may be called again."""
        self._loop.call(self._target.aclose)


class Subscription(_Closing[AsyncSubscription]):
    """The events of a thread after a position; iterate it, in one thread at a time.

    It is `treadle.Subscription` for synchronous code. It ends with its `with` block, with
    `close()`, or when it is not referenced any more.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return _next(self._loop, self._target)

    @overload
    def envelopes(self) -> Generator[Envelope]: ...

    @overload
    def envelopes(self, *, heartbeat: float) -> Generator[Envelope | None]: ...

    def envelopes(self, *, heartbeat: float | None = None) -> Generator[Envelope | None]:
        """Yields the same events with their positions and their JSON.

        With `heartbeat`, it yields None whenever no event came for that many seconds, so that a
        server can write something and learn that the client has left. Leaving the iteration does
        not close the subscription.
        """
        yield from _until_end(self._loop, self._target.next, heartbeat)

    def statistics(self) -> QueueStatistics:
        """Returns how many events wait, how many deltas were joined, and how often it lagged."""
        return self._target.statistics()


class RunSubscription(Subscription):
    """The events of a run after a position; it ends with the run."""

    def __init__(self, loop: BackgroundLoop, target: AsyncRunSubscription) -> None:
        super().__init__(loop, target)
        self._run = target

    @property
    def is_over(self) -> bool:
        """Whether the terminal event of the run has been delivered, or was before the start."""
        return self._run.is_over


class StateSubscription(_Closing[AsyncStateSubscription]):
    """The present state of a thread, and then the events that continue it.

    It is `treadle.StateSubscription` for synchronous code, and ends as a `Subscription` does.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ThreadView | Event:
        return _next(self._loop, self._target)


class DeskSubscription(_Closing[AsyncDeskSubscription]):
    """The events of all threads, or of an owner's; iterate it, in one thread at a time.

    It is `treadle.DeskSubscription` for synchronous code, and ends as a `Subscription` does.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DeskEvent:
        return _next(self._loop, self._target)

    @overload
    def events(self) -> Generator[DeskEvent]: ...

    @overload
    def events(self, *, heartbeat: float) -> Generator[DeskEvent | None]: ...

    def events(self, *, heartbeat: float | None = None) -> Generator[DeskEvent | None]:
        """Yields the events; with `heartbeat` as in `Subscription.envelopes`."""
        yield from _until_end(self._loop, self._target.__anext__, heartbeat)


def _next(loop: BackgroundLoop, target: AsyncIterator[T]) -> T:
    try:
        return loop.call(target.__anext__)
    except StopAsyncIteration:
        raise StopIteration from None


def _until_end(
    loop: BackgroundLoop, following: Callable[[], Awaitable[T]], heartbeat: float | None
) -> Generator[Any]:
    """Yields what `following` returns until it raises `StopAsyncIteration`."""
    while True:
        try:
            value = loop.call(_within, heartbeat, following)
        except StopAsyncIteration:
            return
        yield value


async def _within(seconds: float | None, following: Callable[[], Awaitable[T]]) -> T | None:
    """Returns what `following` returns, None if that takes too long."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await following()
    except TimeoutError:
        if not limit.expired():
            raise
        return None
