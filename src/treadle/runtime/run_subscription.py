"""One subscriber's view of a run: the events of its thread that belong to the run."""

from collections.abc import Awaitable, Callable

from treadle.bus.position import Position
from treadle.bus.subscription import Follow, Subscription
from treadle.bus.topic import EventSource, Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    DurableEvent,
    Event,
    MessageAdded,
    RunStarted,
    TerminalEvent,
    TextDelta,
)


class RunSubscription(Subscription):
    """The events of a run after a position, in the way of `Subscription`; ends with the run.

    Durable events are those of the run. Live events have no run: those belong to it that come
    between its first message and its terminal event, because a thread has one active run.
    `is_active` and `is_over` say whether the position is behind that message, or behind the end.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[Topic]],
        read: EventSource,
        after: Position,
        *,
        follow: Follow | None,
        run_id: str,
        is_active: bool,
        is_over: bool,
    ) -> None:
        super().__init__(open, read, after, follow=follow)
        self._run_id = run_id
        self._is_active = is_active
        self._is_over = is_over

    @property
    def is_over(self) -> bool:
        """Whether the terminal event of the run has been delivered, or was before the start."""
        return self._is_over

    def take(self) -> Envelope | None:
        """Returns the next event of the run if it has arrived; None if it must be waited for.

        Raises `StopAsyncIteration` after the terminal event.
        """
        if self._is_over:
            raise StopAsyncIteration
        while (envelope := super().take()) is not None:
            event = envelope.event
            # Nearly all events are deltas of text, for which a call less counts.
            if self._is_active if type(event) is TextDelta else self._belongs(event):
                return envelope
        return None

    def _belongs(self, event: Event) -> bool:
        if not isinstance(event, DurableEvent):
            return self._is_active
        if event.run_id != self._run_id:
            return False
        if isinstance(event, MessageAdded | RunStarted):
            self._is_active = True
        elif isinstance(event, TerminalEvent):
            self._is_over = True
        return True
