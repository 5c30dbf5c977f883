"""One subscriber's view of a thread: what was, what is in flight, then what comes."""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress

from treadle.bus.event_queue import EventQueue, QueueStatistics
from treadle.bus.position import (
    BLOCKS,
    COMPLETED,
    LAST_LIVE,
    MOST_TEXTS,
    UNSEEN,
    Position,
    is_early,
    last_in,
    left_in,
    position_of,
    unseen_but,
)
from treadle.bus.topic import EventSource, Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    Delta,
    DurableEvent,
    Event,
    RecordedEvent,
    ResponseCompleted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    TextDelta,
    delta_in,
    streamed,
    text_key,
    with_delta,
)
from treadle.errors import JournalCorrupt

LIMIT = 1024

OPENING_SECONDS = 1.0
"""How long a subscriber waits at most for the node that drives the thread to begin to send."""

Follow = Callable[[Position], AsyncGenerator[Envelope]]
"""Gives the events after a position from the node that drives the thread; see `Bus.follow`."""


class Subscription(AsyncIterator[Event]):
    """The events of a thread after a position: iterate it, in one task.

    Durable events come exactly once and in order. The deltas of a text come before the durable
    event of its item, and add up to the text exactly, however often the reader pauses, leaves and
    returns; several that wait are joined. A slow subscriber never delays the thread: it reads what
    it missed from the journal and the topic. The topic remembers the deltas of the run in progress
    and the one before it. A text of which neither the topic nor the reader has a part comes as one
    delta, made of the durable event of its item. A reader that left in the middle of an older text,
    or of a step whose node is gone when it returns, gets the events of that step's items alone.

    It begins when the first event is asked for: then `open` gives the topic. `read` gives earlier
    durable events. `position` can be given to `subscribe` again, in any process. Where the topic is
    followed, only the node that drives the thread knows what a position in the middle of a text
    means; a reader that comes with one gets the events from there, through `follow`.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[Topic]],
        read: EventSource,
        after: Position,
        *,
        follow: Follow | None = None,
        limit: int = LIMIT,
    ) -> None:
        self._open = open
        self._topic: Topic | None = None
        self._read = read
        self._start = after
        self._last: Envelope | None = None
        self._queue = EventQueue(limit, drops_overflow=True)
        self._queue.lag()  # until the first read, which starts with what is there already
        self._left = False
        # None if empty: an empty deque has 600 bytes, and most subscriptions wait.
        self._missed: deque[Envelope] | None = None
        self._flight: deque[Envelope] | None = None
        self._read_to = self._until = after.seq
        # Whether the reader has seen none of the texts in flight at its position.
        left = left_in(after.n or 0)
        self._is_fresh = after.n is None or after == (0, 0) or left is not None
        # How many of the last texts of the next item come, if the others were seen before it.
        self._rest = COMPLETED - (after.n or 0) if left is None else left
        # Whether events of the topic may not be all that this reader needs, or more.
        self._is_careful = True
        self._is_responding = bool(after.seq)  # a response may be open where the journal is read
        # Whether what the reader has of each text of the open step is in `_known`, in characters.
        self._knows_step = False
        self._known: dict[object, int] = {}
        self._broken: frozenset[object] = frozenset()  # texts of which no more deltas are wanted
        self._is_lost = False  # of no text more deltas are wanted, until the next step starts
        self._loop: asyncio.AbstractEventLoop | None = None
        self._follow = None if self._is_fresh else follow
        self._followed: AsyncGenerator[Envelope] | None = None
        self._is_served = False  # whether the node has sent something since it was asked
        self._following: asyncio.Future[Envelope | None] | None = None

    @property
    def position(self) -> str:
        """The position of the last event, before the first one the position it began at."""
        return self._after.text

    @property
    def _after(self) -> Position:
        return self._start if self._last is None else position_of(self._last)

    def statistics(self) -> QueueStatistics:
        """Returns how many events wait, how many deltas were joined, and how often it lagged."""
        return self._queue.statistics()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        while (envelope := self.take()) is None:
            await self.wait()
        return envelope.event

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
        while (envelope := self.take()) is None:
            await self.wait()
        return envelope

    def take(self) -> Envelope | None:
        """Returns the next event if it has arrived; None if it must be waited for.

        Raises `StopAsyncIteration` once the subscription was closed.
        """
        while True:
            if self._left:
                raise StopAsyncIteration
            if (missed := self._missed) is not None:
                envelope = missed.popleft()
                if not missed:
                    self._missed = None
                self._last = envelope
                return envelope
            if self._follow is not None or self._read_to < self._until:
                return None
            envelope = self._queue.take()
            if envelope is None:
                return None
            # Below 0 is what another node recorded, which has taken the thread over.
            if self._is_careful or not 0 <= envelope.n < BLOCKS:
                envelope = self._fitting(envelope)
            if envelope is not None:
                self._last = envelope
                return envelope

    async def wait(self) -> None:
        """Waits until `take` may return an event, or `wake` is called; call it if `take` gave None.

        Raises as `next` does.
        """
        topic, queue = self._topic, self._queue
        if topic is None and not queue.is_closed:
            await self._begin()
        elif self._follow is not None and topic is not None:
            if (envelope := await self._next_followed(self._follow, topic)) is not None:
                event = envelope.event
                # A node that was started in the middle of a text has nothing of it.
                rest = self._completing(event) if isinstance(event, DurableEvent) else []
                self._miss(*rest, envelope)
        elif self._read_to < self._until:
            await self._read_missed()
        elif topic is not None and self._may_catch_up(topic):
            self._queue.on_lag = None
            self._catch_up(topic)
        elif queue.error is not None:
            raise queue.error.with_traceback(None)  # shared: else it keeps the frames of all
        elif queue.is_closed:
            raise StopAsyncIteration
        else:
            await queue.wait()

    def call_with_next(self, callback: Callable[[None], object]) -> bool:
        """Calls `callback` once, when `take` may return an event; call it if `take` gave None.

        Returns False if `wait` is needed instead, because there is more to do than to wait. It
        saves a reader of many subscriptions a task for each.
        """
        topic, queue = self._topic, self._queue
        if (
            topic is None
            or queue.is_closed
            or self._follow is not None
            or self._read_to < self._until
            or self._may_catch_up(topic)
        ):
            return False
        queue.wakeup = callback
        return True

    def wake(self) -> None:
        """Ends the `wait` for an event in progress, if there is one."""
        self._queue.wake()

    async def _begin(self) -> None:
        topic = await self._open()
        self._loop = asyncio.get_running_loop()
        topic.attach(self._queue)
        if self._left:
            topic.detach(self._queue)  # so that the topic knows that it is not watched
            return
        self._topic = topic
        if not topic.is_followed:
            self._follow = None
        if self._follow is None:
            # As soon as possible: of what happens before the next `wait`, the topic remembers only
            # the texts in flight, and not what other agents did.
            one = weakref.ref(self)  # the topic must not keep a subscription that was dropped
            self._queue.on_lag = lambda: (this := one()) is None or this._collect(topic)
            self._collect(topic)
        if topic.opening is not None:
            # Then the node sends all that happens from now on.
            await asyncio.wait([topic.opening], timeout=OPENING_SECONDS)

    def _collect(self, topic: Topic) -> None:
        """Lets the queue collect, once the topic has come to the position at which this began."""
        if self._may_catch_up(topic):
            self._queue.on_lag = None
            self._catch_up(topic)

    async def aclose(self) -> None:
        """Ends the subscription, including a wait for its next event; may be called again."""
        self.leave()
        await self._end_following()

    def leave(self) -> None:
        """Ends the subscription as `aclose` does, but awaits nothing.

        For the one that serves another node: it has asked no node for events itself.
        """
        self._left = True
        self._detach()
        self._queue.close()

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        topic, loop = self._topic, self._loop
        if topic is None or loop is None:
            return
        # The garbage collector calls this in any thread, and after the event loop has ended.
        with suppress(RuntimeError):  # no loop runs in this thread
            if asyncio.get_running_loop() is loop:
                self._detach()
                return
        with suppress(RuntimeError):  # the loop is closed, and its topics are not used any more
            loop.call_soon_threadsafe(topic.detach, self._queue)

    def _detach(self) -> None:
        if self._topic is not None:
            self._topic.detach(self._queue)

    async def _next_followed(self, follow: Follow, topic: Topic) -> Envelope | None:
        """Returns the next event from the node that drives the thread; None if there is none yet.

        The node is asked again until it sends nothing: a connection can break in the middle of a
        text. Where the thread comes to be driven here, the topic continues.
        """
        if self._following is None:
            if self._followed is None:
                if not topic.is_followed:
                    self._follow = None
                    return None
                self._followed, self._is_served = follow(self._after), False
            self._following = asyncio.ensure_future(anext(self._followed, None))
            self._following.add_done_callback(lambda _: self._queue.wake())
        following = self._following
        if not following.done():
            # What comes to the topic wakes as well. A call that is cancelled leaves the future to
            # the next one.
            await self._queue.wait()
        if not following.done():
            if not topic.is_followed:
                await self._end_following()
            return None
        self._following = None
        envelope = None if following.cancelled() else following.result()
        if envelope is not None:
            self._is_served = True
            self._note(envelope.event)
        else:
            self._followed = None
            if not self._is_served:
                # The topic may have come further, or less far: of the texts that the node left
                # unfinished, the events of their items give the rest.
                self._follow, self._broken = None, frozenset(self._known)
        return envelope

    async def _end_following(self) -> None:
        following, followed = self._following, self._followed
        self._follow = self._following = self._followed = None
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        if followed is not None:
            await followed.aclose()

    def _fitting(self, envelope: Envelope) -> Envelope | None:
        """Returns an event from the queue as this reader needs it, or None: see `_missed` then.

        A followed topic can be ahead of its node: the start of a text in flight may come after the
        events up to then, or not at all. A reader that was there, in another process, has seen it.
        """
        event = envelope.event
        is_followed = self._topic is not None and self._topic.is_followed
        is_plain = is_followed and not (self._is_fresh or self._broken or self._is_lost)
        if is_plain and type(event) is TextDelta and 0 < envelope.n <= LAST_LIVE:
            # Nearly all events; what follows would do the same.
            key: object = TextDelta, event.item_id, ""
            self._known[key] = self._known.get(key, 0) + len(event.delta)
            return envelope
        after = self._after
        if is_early(envelope.n):
            is_next = is_early(after.n or 0) and after < (envelope.seq, envelope.n)
            is_new = self._knows_step and text_key(event) not in self._known
            if not (self._is_fresh or is_new or (is_next and after.seq == envelope.seq)):
                return None
        if self._is_unwanted(event):
            return None
        if not (is_followed or self._broken or self._is_lost):
            # From now on it is not noted what the reader has. If another node takes the thread
            # over, the topic completes the texts of which it has handed on a part.
            self._is_careful = self._is_fresh = self._knows_step = False
            self._known.clear()
            return envelope
        self._is_careful = True
        completes = 0 <= COMPLETED - envelope.n < MOST_TEXTS
        if self._is_fresh and completes:
            envelope = Envelope(event, envelope.seq, unseen_but(COMPLETED - envelope.n))
        self._note(event, is_unseen=envelope.n == UNSEEN, completes=completes)
        if not isinstance(event, DurableEvent):
            return envelope
        completing = self._completing(event)
        n = UNSEEN if self._is_fresh else 0
        if envelope.n != n:
            envelope = Envelope(event, envelope.seq, n, envelope.json)
        if not completing:
            return envelope
        self._miss(*completing, envelope)
        return None

    def _is_unwanted(self, event: Event) -> bool:
        """Whether an event is of a text to which its deltas would not fit."""
        if self._is_lost and isinstance(event, Delta):
            return True
        return bool(self._broken) and text_key(event) in self._broken

    def _note(self, event: Event, *, is_unseen: bool = False, completes: bool = False) -> None:
        """Takes note of how much of a text the reader has, and of the start of a step.

        With `is_unseen`, the events of a step that starts come without its texts, because there
        is no connection to the node. What `completes` the text of an item says nothing of others.
        """
        if isinstance(event, StepStarted):
            self._knows_step = True
            self._known.clear()
            self._broken, self._is_lost = frozenset(), False
            self._is_fresh = self._is_fresh or is_unseen
        if isinstance(event, DurableEvent):
            self._is_responding = _is_responding(event, self._is_responding)
        elif not completes:
            self._is_fresh = False
        if (delta := delta_in(event)) is not None:
            key = text_key(event)
            self._known[key] = self._known.get(key, 0) + len(delta.delta)

    def _may_catch_up(self, topic: Topic) -> bool:
        """Whether the queue is to be filled from the topic, which must not be behind the position.

        One that follows another node can be: this subscriber may come from there. What the topic
        hands on until it is there was seen already.
        """
        queue = self._queue
        if not queue.is_lagging or queue.error is not None:
            return False
        after, there = self._after, topic.position
        return (there.seq, last_in(there.n or 0)) >= (after.seq, last_in(after.n or 0))

    def _catch_up(self, topic: Topic) -> None:
        """Takes note of what there is beyond the position; from now on the queue collects."""
        # Without an `await`, so that no event is both here and in the queue, or in neither.
        after = self._after
        self._queue.resume()
        # The node that gave the position is gone, and the topic may have begun after it: it is not
        # known how much of a text of this step the reader has. The events of its items give the
        # rest.
        self._is_lost = topic.is_followed and not (self._is_fresh or self._knows_step)
        self._read_to, self._until = after.seq, max(topic.seq, after.seq)
        flight = self._flight or deque[Envelope]()
        is_between = left_in(after.n or 0) is not None  # the texts of an item
        flight.extend(topic.after(Position(after.seq) if is_between else after))
        self._flight = flight or None
        if not topic.is_followed:  # else it is known what the reader has
            self._known.clear()
            self._knows_step = False
        self._knows_step = self._knows_step or self._is_fresh
        if self._read_to == self._until:
            self._release()

    async def _read_missed(self) -> None:
        """Reads the next durable events, and puts the live ones where they belong."""
        topic, read_to, until = self._topic, self._read_to, self._until
        events = topic.recent(read_to, until) if topic is not None else ()
        if not events:
            events = await self._read(read_to, until)
        if not events:
            raise JournalCorrupt(
                f"The thread has no event after {self._read_to}, and should have {self._until}."
            )
        is_unseen = topic is not None and topic.is_followed and not topic.is_served
        for event in events:
            if event.seq == self._start.seq + 1 and left_in(self._start.n or 0) is not None:
                self._leave_out(event)
            while (flight := self._flight) is not None and flight[0].seq < event.seq:
                self._release_one(flight)
            self._note(event, is_unseen=is_unseen)
            completing = self._completing(event)
            n = UNSEEN if self._is_fresh and self._is_responding else 0
            self._miss(*completing, Envelope(event, event.seq, n))
            self._read_to = event.seq
        if self._read_to >= self._until:
            self._release()

    def _leave_out(self, event: RecordedEvent) -> None:
        """Removes what the reader has of the item of `event` from the live events."""
        texts = streamed(event)
        has = {type(text) for text in texts[: len(texts) - self._rest]}
        flight = deque(
            one
            for one in self._flight or ()
            if type(one.event) not in has
            or getattr(one.event, "item_id", "") != getattr(texts[0], "item_id", "")
        )
        self._flight = flight or None

    def _release(self) -> None:
        """Delivers the live events that follow the last durable one."""
        while (flight := self._flight) is not None:
            self._release_one(flight)

    def _release_one(self, flight: deque[Envelope]) -> None:
        envelope = flight.popleft()
        if not flight:
            self._flight = None
        if not self._is_unwanted(envelope.event):
            self._note(envelope.event)
            self._miss(envelope)

    def _miss(self, *envelopes: Envelope) -> None:
        """Adds events that are delivered before those of the queue."""
        if self._missed is None:
            self._missed = deque(envelopes)
        else:
            self._missed.extend(envelopes)

    def _completing(self, event: RecordedEvent) -> list[Envelope]:
        """Returns what the reader lacks of the texts of an item, each as one delta."""
        whole = streamed(event)
        if not whole:
            return []
        left = self._rest
        if event.seq == self._start.seq + 1 and 0 <= left < len(whole):
            whole = whole[len(whole) - left :]  # the reader left between the texts of the item
        elif not self._knows_step:
            return []
        envelopes: list[Envelope] = []
        for n, one in enumerate(whole, COMPLETED + 1 - len(whole)):
            delta = delta_in(one)
            # A call is announced before its arguments.
            known = self._known.get(text_key(one if delta is not None else whole[-1]), 0)
            if self._is_fresh:
                n = unseen_but(COMPLETED - n)
            if not known:
                envelopes.append(Envelope(one, event.seq - 1, n))
            elif delta is not None and known < len(delta.delta):
                rest = with_delta(one, delta.delta[known:])
                envelopes.append(Envelope(rest, event.seq - 1, n))
        return envelopes


def _is_responding(event: RecordedEvent, before: bool) -> bool:
    """Whether a response of the model is open after an event, of which items may be in flight."""
    if isinstance(event, StepStarted):
        return True
    ends = ResponseCompleted | StepCompleted | StepInterrupted | TerminalEvent
    return before and not isinstance(event, ends)
