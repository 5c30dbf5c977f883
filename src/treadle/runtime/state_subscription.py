"""A subscription that begins with the present state of a thread."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from treadle.domain.events import Event
from treadle.runtime.thread_view import ThreadView


class Continuation(Protocol):
    """The events after a position: a `Subscription`, or its counterpart at a client."""

    @property
    def position(self) -> str:
        """The position of the last event."""
        ...

    async def __anext__(self) -> Event:
        """Returns the next event."""
        ...

    async def aclose(self) -> None:
        """Ends it."""
        ...


class StateSubscription(AsyncIterator[ThreadView | Event]):
    """The present state of a thread, and then the events that continue it; iterate it, in one task.

    The texts in flight come from their start, so that every character comes once: in the items of
    the state, or in events. What is said of slow readers and of the end of a `Subscription` holds
    here as well.
    """

    def __init__(
        self,
        view: Callable[[], Awaitable[ThreadView]],
        subscribe: Callable[[str], Continuation],
    ) -> None:
        self._view = view
        self._subscribe = subscribe
        self._events: Continuation | None = None
        self._left = False

    @property
    def position(self) -> str:
        """The position of the last event, for `subscribe`; `"state"` before the first."""
        return "state" if self._events is None else self._events.position

    def __aiter__(self) -> "StateSubscription":
        return self

    async def __anext__(self) -> ThreadView | Event:
        if self._left:
            raise StopAsyncIteration
        if self._events is not None:
            return await self._events.__anext__()
        view = await self._view()
        if self._left:  # it was closed meanwhile
            raise StopAsyncIteration
        self._events = self._subscribe(view.position)
        return view

    async def aclose(self) -> None:
        """Ends the subscription, including a wait for its next event; may be called again."""
        self._left = True
        if self._events is not None:
            await self._events.aclose()

    async def __aenter__(self) -> "StateSubscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
