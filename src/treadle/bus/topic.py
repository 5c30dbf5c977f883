"""What happens on one thread, handed to all who watch it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from treadle.bus.position import Position
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    Delta,
    DeltaKey,
    LiveEvent,
    RecordedEvent,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallStarted,
    ToolProgress,
    delta_key,
)


class Subscriber(Protocol):
    """Who is told of every event."""

    def put(self, envelope: Envelope, /) -> None:
        """Takes an event; never waits."""
        ...

    def close(self, error: Exception | None, /) -> None:
        """Takes note that nothing more comes, and why."""
        ...


class _End(NamedTuple):
    """That a topic was closed, and why."""

    error: Exception | None


class Topic:
    """The events of one thread while it is being driven, and its subscribers.

    It numbers live events within the durable event they follow, and keeps the deltas of the items
    in flight, so that who joins in the middle of an item gets all of it. `on_unwatched` is called
    when the last subscriber left.
    """

    def __init__(self, seq: int = 0, on_unwatched: Callable[[], None] | None = None) -> None:
        self.seq = seq
        self._on_unwatched = on_unwatched
        self._n = 0
        self._in_flight: dict[DeltaKey, list[Envelope]] = {}
        self._opened: dict[str, Envelope] = {}
        self._subscribers: dict[Subscriber, None] = {}
        self._end: _End | None = None

    @property
    def position(self) -> Position:
        """Where it stands: after the live events that it has handed on, if there were any."""
        return Position(self.seq, self._n or None)

    @property
    def is_watched(self) -> bool:
        """Whether anyone subscribes."""
        return bool(self._subscribers)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self._end is not None

    @property
    def is_in_flight(self) -> bool:
        """Whether there are deltas of an item that is not finished."""
        return bool(self._in_flight)

    def attach(self, subscriber: Subscriber) -> None:
        """Adds a subscriber, which gets the events from now on, or learns that none come."""
        if self._end is not None:
            subscriber.close(self._end.error)
        else:
            self._subscribers[subscriber] = None

    def detach(self, subscriber: Subscriber) -> None:
        """Removes a subscriber; does nothing where there is none."""
        was_there = self._subscribers.pop(subscriber, subscriber) is None
        if was_there and not self._subscribers and self._on_unwatched is not None:
            self._on_unwatched()

    def close(self, error: Exception | None = None) -> None:
        """Tells all subscribers, present and future, that nothing more comes."""
        self._end = self._end or _End(error)
        for subscriber in list(self._subscribers):
            subscriber.close(error)
        self._subscribers.clear()

    def publish(self, envelope: Envelope) -> None:
        """Hands a durable event on."""
        event = envelope.event
        self.seq, self._n = envelope.seq, 0
        if self._in_flight or self._opened:
            self._landed(event)
        # A copy, because one that nobody holds any more may detach itself at any moment.
        for subscriber in tuple(self._subscribers):
            subscriber.put(envelope)

    def publish_live(self, event: LiveEvent, n: int = 0) -> None:
        """Hands a live event on, as the n-th after the durable one; by default as the next."""
        self._n = max(n, self._n + 1)
        envelope = Envelope(event, self.seq, self._n, self._n)
        if isinstance(event, Delta):
            key = delta_key(event)
            pieces = self._in_flight.get(key)
            if pieces is None:
                self._in_flight[key] = [envelope]
            else:
                pieces.append(envelope)
        elif isinstance(event, ToolCallStarted):
            self._opened[event.item_id] = envelope
        else:
            _: ToolProgress | AgentEvent = event  # of the moment: who was not there missed it
        for subscriber in tuple(self._subscribers):
            subscriber.put(envelope)

    def in_flight(self) -> list[Envelope]:
        """Returns the live events of the unfinished items, in order."""
        pieces = list(self._opened.values())
        for deltas in self._in_flight.values():
            pieces += deltas
        return sorted(pieces, key=lambda piece: (piece.seq, piece.n))

    def _landed(self, event: object) -> None:
        """Forgets the deltas of what is durable now, or was cut off."""
        if isinstance(event, StepCompleted | StepInterrupted | StepStarted | RunStarted):
            self._in_flight.clear()
            self._opened.clear()
            return
        item_id = getattr(getattr(event, "item", None), "id", "")
        if item_id:
            self._opened.pop(item_id, None)
            for key in [key for key in self._in_flight if key[1] == item_id]:
                del self._in_flight[key]


class EventSource(Protocol):
    """Where a subscriber reads the durable events that it did not get from the topic."""

    async def __call__(self, after: int, until: int, /) -> list[RecordedEvent]:
        """Returns the first events with `after < seq <= until`, at least one if there is one."""
        ...
