"""One subscriber's view of a thread: what was, what is in flight, then what comes."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from treadle.bus.event_queue import EventQueue, QueueStatistics
from treadle.bus.position import Position, last_in
from treadle.bus.topic import EventSource, Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event
from treadle.errors import JournalCorrupt

LIMIT = 1024


class Subscription(AsyncIterator[Event]):
    """The events of a thread after a position: iterate it, in one task.

    Durable events come exactly once and in order. The deltas of a text come before the durable
    event of its item, and add up to the text exactly, however often the reader pauses, leaves and
    returns; several that wait are joined. A slow subscriber never delays the thread: it reads what
    it missed from the journal and the topic. The topic remembers the deltas of the run in progress
    and the one before it; of older items comes the durable event alone.

    It begins when the first event is asked for: then `open` gives the topic. `read` gives earlier
    durable events. `position` can be given to `subscribe` again, in any process.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[Topic]],
        read: EventSource,
        after: Position,
        *,
        limit: int = LIMIT,
    ) -> None:
        self._open = open
        self._topic: Topic | None = None
        self._read = read
        self._after = after
        self._queue = EventQueue(limit, drops_overflow=True)
        self._queue.lag()  # until the first read, which starts with what is there already
        self._left = False
        self._missed: deque[Envelope] = deque()
        self._flight: deque[Envelope] = deque()
        self._read_to = self._until = after.seq

    @property
    def position(self) -> str:
        """The position of the last event, before the first one the position it began at."""
        return self._after.text

    def statistics(self) -> QueueStatistics:
        """Returns how many events wait, how many deltas were joined, and how often it lagged."""
        return self._queue.statistics()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        return (await self.next()).event

    async def envelopes(self) -> AsyncGenerator[Envelope]:
        """The same events with their positions and their JSON."""
        while True:
            try:
                envelope = await self.next()
            except StopAsyncIteration:
                return
            yield envelope

    async def next(self) -> Envelope:
        """Returns the next event with its position and its JSON.

        Raises `StopAsyncIteration` at the end, or the error that ended the thread.
        """
        topic, queue = self._topic, self._queue
        if topic is None and not queue.is_closed:
            topic = await self._open()
            topic.attach(queue)
            if self._left:
                topic.detach(queue)  # so that the topic knows that it is not watched
            else:
                self._topic = topic
        while True:
            if self._left:
                raise StopAsyncIteration
            if self._missed:
                return self._deliver(self._missed.popleft())
            if self._read_to < self._until:
                await self._read_missed()
            elif (envelope := queue.take()) is not None:
                return self._deliver(envelope)
            elif topic is not None and self._may_catch_up(topic):
                self._catch_up(topic)
            elif queue.error is not None:
                raise queue.error
            elif queue.is_closed:
                raise StopAsyncIteration
            else:
                await queue.wait()

    async def aclose(self) -> None:
        """Ends the subscription, including a wait for its next event; may be called again."""
        self._left = True
        self._detach()
        self._queue.close()

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._detach()

    def _detach(self) -> None:
        if self._topic is not None:
            self._topic.detach(self._queue)

    def _deliver(self, envelope: Envelope) -> Envelope:
        self._after = Position(envelope.seq, envelope.n)
        return envelope

    def _may_catch_up(self, topic: Topic) -> bool:
        """Whether the queue is to be filled from the topic, which must not be behind the position.

        One that follows another node can be: this subscriber may come from there. What the topic
        hands on until it is there was seen already.
        """
        queue, after, there = self._queue, self._after, topic.position
        is_there = (there.seq, there.n or 0) >= (after.seq, last_in(after.n or 0))
        return queue.is_lagging and queue.error is None and is_there

    def _catch_up(self, topic: Topic) -> None:
        """Takes note of what there is beyond the position; from now on the queue collects."""
        # Without an `await`, so that no event is both here and in the queue, or in neither.
        after = self._after
        self._queue.resume()
        self._read_to, self._until = after.seq, max(topic.seq, after.seq)
        self._flight.extend(topic.after(after))
        if self._read_to == self._until:
            self._missed, self._flight = self._flight, deque()

    async def _read_missed(self) -> None:
        """Reads the next durable events, and puts the live ones where they belong."""
        missed, flight = self._missed, self._flight
        events = await self._read(self._read_to, self._until)
        if not events:
            raise JournalCorrupt(
                f"The thread has no event after {self._read_to}, and should have {self._until}."
            )
        for event in events:
            while flight and flight[0].seq < event.seq:
                missed.append(flight.popleft())
            missed.append(Envelope(event, event.seq))
            self._read_to = event.seq
        if self._read_to >= self._until:
            missed += flight
            flight.clear()
