"""One subscriber's view of a thread: what was, what is in flight, then what comes."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from itertools import groupby
from typing import cast

from treadle.bus.position import Position
from treadle.bus.topic import EventSource, Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import Delta, Event, delta_in, text_key, with_delta
from treadle.errors import JournalCorrupt

LIMIT = 1024


class _Queue:
    """What waits for one subscriber; beyond `limit` it is dropped, to be read again.

    First adjacent deltas of one text are joined. If that is not enough, the queue is emptied and
    `lagging` is set: the durable part is in the journal, the rest with the topic.
    """

    def __init__(self, limit: int) -> None:
        self.envelopes: deque[Envelope] = deque()
        self.lagging = True
        self.closed = False
        self.error: Exception | None = None
        self._limit = limit
        self._wakeup: asyncio.Future[None] | None = None

    def put(self, envelope: Envelope) -> None:
        """Takes an event; never waits."""
        if self.lagging:
            self._wake()
            return
        self.envelopes.append(envelope)
        if len(self.envelopes) >= self._limit:
            self.envelopes = deque(joined(self.envelopes))
            if len(self.envelopes) > self._limit // 2:
                self.envelopes.clear()
                self.lagging = True
        self._wake()

    def close(self, error: Exception | None) -> None:
        """Takes note that nothing more comes."""
        self.closed, self.error = True, error
        self._wake()

    async def wait(self) -> None:
        """Waits for the next event, or the end."""
        self._wakeup = asyncio.get_running_loop().create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class Subscription(AsyncIterator[Event]):
    """The events of a thread after a position: iterate it, in one task.

    Durable events come exactly once and in order. Of an item in flight come the deltas after the
    position, joined where they waited; of a finished one its durable event alone, for who was not
    there. A slow subscriber is never waited for: what it missed is read from the journal.

    It begins when the first event is asked for: then `open` gives the topic. `read` gives the
    durable events of before. `position` is where it stands, and can be given to `subscribe` again,
    here or elsewhere.
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
        self._queue = _Queue(limit)
        self._left = False
        self._missed: deque[Envelope] = deque()
        self._flight: deque[Envelope] = deque()
        self._read_to = self._until = after.seq

    @property
    def position(self) -> str:
        """The position of the event that came last, or where it began."""
        return self._after.text

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
        if topic is None and not queue.closed:
            topic = await self._open()
            if not self._left:
                self._topic = topic
                topic.attach(queue)
        while True:
            if self._left:
                raise StopAsyncIteration
            if self._missed:
                return self._take(self._missed.popleft())
            if self._read_to < self._until:
                await self._read_missed()
            elif queue.lagging and queue.error is None and topic is not None:
                self._catch_up(topic)
            elif queue.envelopes:
                return self._take(queue.envelopes.popleft())
            elif queue.error is not None:
                raise queue.error
            elif queue.closed:
                raise StopAsyncIteration
            else:
                await queue.wait()

    async def aclose(self) -> None:
        """Ends the subscription, also for who waits for its next event; may be called again."""
        self._left = True
        self._detach()
        self._queue.close(None)

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._detach()

    def _detach(self) -> None:
        if self._topic is not None:
            self._topic.detach(self._queue)

    def _take(self, envelope: Envelope) -> Envelope:
        if envelope.n >= 0:  # not one of several that count together, with the last of them
            self._after = Position(envelope.seq, envelope.n)
        return envelope

    def _catch_up(self, topic: Topic) -> None:
        """Takes note of what there is beyond the position; from now on the queue collects."""
        queue, after = self._queue, self._after
        queue.envelopes.clear()
        queue.lagging = False
        self._read_to, self._until = after.seq, max(topic.seq, after.seq)
        pieces = topic.in_flight()
        if after.n is None:
            earlier = [piece for piece in pieces if piece.seq < after.seq]
            self._missed.extend(_together(earlier, after.seq))
            self._flight = deque(pieces[len(earlier) :])
        else:
            self._flight = deque(p for p in pieces if (p.seq, p.n) > (after.seq, after.n))
        if self._read_to == self._until:
            self._missed.extend(joined(self._flight))
            self._flight.clear()

    async def _read_missed(self) -> None:
        """Reads the next durable events, and puts the pieces in flight where they belong."""
        page: list[Envelope] = []
        flight = self._flight
        events = await self._read(self._read_to, self._until)
        if not events:
            raise JournalCorrupt(
                f"The thread has no event after {self._read_to}, and should have {self._until}."
            )
        for event in events:
            while flight and flight[0].seq < event.seq:
                page.append(flight.popleft())
            page.append(Envelope(event, event.seq))
            self._read_to = event.seq
        if self._read_to >= self._until:
            page += flight
            flight.clear()
        self._missed.extend(joined(page))


def joined(envelopes: Iterable[Envelope]) -> list[Envelope]:
    """Returns the events with adjacent deltas of one text joined."""
    result: list[Envelope] = []
    for _, group in groupby(envelopes, key=_kind):
        result.append(_join(list(group)))
    return result


def _together(envelopes: list[Envelope], seq: int) -> list[Envelope]:
    """Returns the deltas of each text as one, as if they had come right after event `seq`.

    Only the last has a position, because only after it has all of them been seen.
    """
    texts: dict[object, list[Envelope]] = {}
    for envelope in envelopes:
        texts.setdefault(_kind(envelope), []).append(envelope)
    result = [Envelope(_join(text).event, seq, -1) for text in texts.values()]
    if result:
        result[-1].n = 0
    return result


def _kind(envelope: Envelope) -> object:
    """What adjacent events must have in common to be joined; an identity for those that cannot."""
    key = text_key(envelope.event)
    return id(envelope) if key is None else key


def _join(same: list[Envelope]) -> Envelope:
    first, last = same[0], same[-1]
    if len(same) == 1:
        return first
    deltas = [cast("Delta", delta_in(envelope.event)) for envelope in same]
    event = with_delta(first.event, "".join(delta.delta for delta in deltas))
    return Envelope(event, last.seq, last.n, first.first)
