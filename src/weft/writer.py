"""The port between the loop and whoever keeps a thread."""

from typing import Protocol

from weft.events import LiveEvent, RecordedEvent
from weft.state import ThreadState


class ThreadWriter(Protocol):
    """The one writer of a thread, as the loop sees it: its state, and the ways to add to it."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> ThreadState:
        """The fold of all events recorded so far."""
        ...

    def record(self, event: RecordedEvent) -> None:
        """Numbers `event`, applies it to the state, and shows it to subscribers once it is kept.

        Raises `InvalidTransition` for an event that cannot follow, and `JournalError` when the
        thread cannot be kept any more.
        """
        ...

    async def durable(self) -> None:
        """Waits until every event recorded so far is kept; raises `JournalError`."""
        ...

    def publish(self, event: LiveEvent, /) -> None:
        """Shows `event` to subscribers; never waits for them."""
        ...
