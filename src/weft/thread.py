"""The port between the loop and whoever keeps a thread."""

from typing import Protocol

from weft.events import LiveEvent, RecordedEvent
from weft.state import ThreadState


class Thread(Protocol):
    """A thread as the loop sees it: its state, and the two ways to add to it."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> ThreadState:
        """The fold of all events recorded so far."""
        ...

    async def record(self, event: RecordedEvent) -> None:
        """Numbers and keeps `event`, applies it to the state, then shows it to subscribers."""
        ...

    def publish(self, event: LiveEvent, /) -> None:
        """Shows `event` to subscribers; never waits for them."""
        ...
