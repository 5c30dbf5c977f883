"""The events of a thread while it is driven, handed to all subscribers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast, get_args

from treadle.bus.live_log import LiveLog
from treadle.bus.position import COMPLETED, Position, last_in
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    ItemRemoved,
    LiveEvent,
    RecordedEvent,
    TerminalEvent,
    ToolProgress,
    delta_in,
    with_delta,
)

RECENT = 32
"""The most events of the run in progress that a topic remembers.

A reader that comes right after it sent a message gets the beginning of the run from there, instead
of from a thread that reads the journal.
"""


_FORGETTING = frozenset({*get_args(TerminalEvent), ItemRemoved})


class Subscriber(Protocol):
    """What a topic hands every event to."""

    def put(self, envelope: Envelope, /) -> None:
        """Takes an event; never waits."""
        ...

    def close(self, error: Exception | None, /) -> None:
        """Takes note that no more events come; `error` is the reason if it is not the usual end."""
        ...


class _End(NamedTuple):
    """The end of a topic, and its reason."""

    error: Exception | None


class Topic:
    """The events of one thread while it is driven, and its subscribers.

    It numbers live events within the durable event they follow, and keeps the deltas of the texts
    of late, so that a subscriber that joins or returns in the middle of a text gets the rest of
    it. `on_unwatched` is called when the last subscriber left.

    `shown_to` is the last event that subscribers of the thread for which this one works may have
    got: from an earlier process, or from an attempt here that has ended.

    With `is_followed` another node drives the thread, and may be writing texts whose start has not
    arrived here yet; `is_served` while events come from it, and not from the journal alone.
    `opening` is done once that node has begun to send, or cannot; None if nothing is asked for.
    """

    def __init__(
        self,
        seq: int = 0,
        on_unwatched: Callable[[], None] | None = None,
        *,
        is_followed: bool = False,
    ) -> None:
        self.seq = self.shown_to = seq
        self.is_followed = is_followed
        self.is_served = False
        self.opening: asyncio.Future[None] | None = None
        self._on_unwatched = on_unwatched
        self._n = self._number = 0
        self._log = LiveLog()
        # The last events, up to `RECENT`, without a gap: those of the run in progress at most.
        self._recent: list[RecordedEvent] = []
        self._subscribers: dict[Subscriber, None] = {}
        self._end: _End | None = None

    @property
    def position(self) -> Position:
        """The position after the last live event; with `n` None if none followed event `seq`."""
        return Position(self.seq, self._n or None)

    def opened(self) -> None:
        """Ends `opening`."""
        opening, self.opening = self.opening, None
        if opening is not None and not opening.done():
            opening.set_result(None)

    @property
    def is_watched(self) -> bool:
        """Whether there is a subscriber."""
        return bool(self._subscribers)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self._end is not None

    @property
    def is_in_flight(self) -> bool:
        """Whether there are deltas of an item that is not finished, here or at another agent."""
        return self._log.is_in_flight

    def attach(self, subscriber: Subscriber) -> None:
        """Adds a subscriber, which gets the events from now on; a closed topic closes it."""
        if self._end is not None:
            subscriber.close(self._end.error)
        else:
            self._subscribers[subscriber] = None

    def detach(self, subscriber: Subscriber) -> None:
        """Removes a subscriber; does nothing if it is not subscribed."""
        was_there = self._subscribers.pop(subscriber, subscriber) is None
        if was_there and not self._subscribers and self._on_unwatched is not None:
            self._on_unwatched()

    def close(self, error: Exception | None = None) -> None:
        """Closes all subscribers, present and future."""
        self._end = self._end or _End(error)
        for subscriber in list(self._subscribers):
            subscriber.close(error)
        self._subscribers.clear()

    def publish(self, envelope: Envelope) -> None:
        """Hands a durable event to the subscribers, and before it what they miss of its texts."""
        missing = self._log.missing(envelope.event)
        for n, delta in enumerate(missing, COMPLETED + 1 - len(missing)):
            self.publish_live(delta, n)
        self._remember(cast("RecordedEvent", envelope.event), envelope.seq)
        self.seq, self._n, self._number = envelope.seq, 0, 0
        self._log.land(envelope.event, envelope.seq)
        # A copy, because a subscriber without references may detach itself at any moment.
        for subscriber in tuple(self._subscribers):
            subscriber.put(envelope)

    def _remember(self, event: RecordedEvent, seq: int) -> None:
        recent = self._recent
        if seq != self.seq + 1:
            recent.clear()
        if type(event) in _FORGETTING:
            recent.clear()  # of what is removed, no reader must get the content any more
        else:
            recent.append(event)
            if len(recent) > RECENT:
                del recent[0]

    def recent(self, after: int, until: int) -> Sequence[RecordedEvent]:
        """Returns the events with `after < seq <= until` if it remembers all of them, else none."""
        recent = self._recent
        if not recent or recent[0].seq > after + 1 or recent[-1].seq < until:
            return ()
        first = recent[0].seq
        return recent[after + 1 - first : until + 1 - first]

    def publish_live(self, event: LiveEvent, n: int = 0) -> None:
        """Hands a live event to the subscribers.

        `n` is its position after the durable event where it comes from another process, which has
        numbered it; by default it is the next one.
        """
        # Joined deltas from elsewhere keep the position that they have there, so that positions
        # mean the same in every process.
        self._number = number = last_in(n) if n else self._number + 1
        self._n = n = n or number
        if type(event) is AgentEvent and delta_in(event) is None:
            if self._log.is_repeated(event):
                return
            # With the position of the event: a reader that leaves after them has all texts.
            for delta in self._log.missing(event):
                self._put_live(delta, n, number)
        self._put_live(event, n, number)

    def _put_live(self, event: LiveEvent, n: int, number: int) -> None:
        envelope = Envelope(event, self.seq, n)
        if type(event) is not ToolProgress:
            self._log.add(event, self.seq, number)
        for subscriber in tuple(self._subscribers):
            subscriber.put(envelope)

    def publish_early(self, event: LiveEvent, n: int) -> None:
        """Hands on a text in flight from its start up to event `seq`, or what is not known of it.

        The node that drives the thread sends it where the last connection to it left off before
        event `seq`. `n` is of a block, see `is_early`.
        """
        known, delta = self._log.length(event), delta_in(event)
        if known is None:
            self.publish_live(event, n)
        elif delta is not None and len(delta.delta) > known:
            rest = cast("LiveEvent", with_delta(event, delta.delta[known:]))
            self._log.add(rest, self.seq, 0)
            # After it a reader has seen all there was before event `seq`, like one that was there.
            envelope = Envelope(rest, self.seq, 0)
            for subscriber in tuple(self._subscribers):
                subscriber.put(envelope)

    def after(self, position: Position) -> list[Envelope]:
        """Returns the live events after a position, in order, with the deltas of a text joined.

        See `LiveLog`, also for how long it remembers them.
        """
        return self._log.after(position)


class EventSource(Protocol):
    """Reads the durable events that a subscriber did not get from the topic."""

    async def __call__(self, after: int, until: int, /) -> list[RecordedEvent]:
        """Returns the first events with `after < seq <= until`, at least one if there is one."""
        ...
