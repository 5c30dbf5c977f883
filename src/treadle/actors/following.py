"""The topics of this process: actors publish to those driven here, the others are followed.

A topic outlives the actor that feeds it: subscribers keep theirs when a thread that was
driven elsewhere, or by no process, comes to be driven here.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from treadle.bus.base import Bus
from treadle.bus.position import Position
from treadle.bus.topic import Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import DurableEvent
from treadle.errors import TreadleError
from treadle.journal.base import Journal
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

POLL_SECONDS = 0.05
"""How often the journal is read for events of a watched thread that the bus does not deliver."""

RETRY_SECONDS = 0.5
"""How long after the bus delivered nothing, or stopped to, it is asked again."""


class Following:
    """Keeps a topic for each thread that is driven or watched here.

    With `polls`, the journal is read for watched threads that the bus does not deliver: this
    process drives none, and another one may at any moment. Without, a thread is followed once
    another node announces that it drives it. `on_unwatched` is called with the thread whose last
    subscriber left.
    """

    def __init__(
        self, journal: Journal, bus: Bus, *, polls: bool, on_unwatched: Callable[[str], None]
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._polls = polls
        self._on_unwatched = on_unwatched
        self._topics: dict[str, Topic] = {}
        self._here: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """Ends all subscriptions, and what feeds them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for topic in self._topics.values():
            topic.close()
        self._topics.clear()

    # Threads that are driven here

    def open(self, thread_id: str, seq: int) -> Topic:
        """Returns the topic of a thread that is driven here from now on, after event `seq`."""
        self._end_task(thread_id)
        topic = self._topics.get(thread_id)
        if topic is None or topic.is_closed or topic.seq != seq:
            topic = self._new(thread_id, seq)
        self._here.add(thread_id)
        return topic

    async def hand_over(self, thread_id: str, seq: int) -> None:
        """Prepares the topic of a thread for an actor that has loaded the events up to `seq`.

        `open` must follow in the same turn of the event loop, so that no other task feeds it.
        """
        self._end_task(thread_id)
        topic = self._topics.get(thread_id)
        if topic is not None and topic.seq < seq:
            await self._catch_up(thread_id, topic)

    def drop(self, thread_id: str, error: TreadleError | None = None) -> None:
        """Forgets a thread that is no longer driven here; subscribers get `error`, or the end."""
        self._here.discard(thread_id)
        topic = self._topics.pop(thread_id, None)
        if topic is not None:
            topic.close(error)

    # Threads that are driven elsewhere, or by no process

    async def topic(self, thread_id: str) -> Topic:
        """Returns the topic of a thread; raises `ThreadNotFound`."""
        topic = self._topics.get(thread_id)
        if topic is None or topic.is_closed:
            seq = (await self._journal.load(thread_id)).seq
            topic = self._topics.get(thread_id)  # another task may have been quicker
            if topic is None or topic.is_closed:
                topic = self._new(thread_id, seq)
                self.follow(thread_id)
        return topic

    def follow(self, thread_id: str) -> None:
        """Feeds the topic of a thread that another node drives, if it is watched here."""
        topic = self._topics.get(thread_id)
        if topic is not None and thread_id not in self._here and thread_id not in self._tasks:
            task = self._tasks[thread_id] = asyncio.create_task(
                self._feed(thread_id, topic), name=f"treadle follow {thread_id}"
            )
            task.add_done_callback(lambda task: self._fed(thread_id, task))

    def _new(self, thread_id: str, seq: int) -> Topic:
        topic = self._topics[thread_id] = Topic(seq, lambda: self._unwatched(thread_id))
        return topic

    def _unwatched(self, thread_id: str) -> None:
        if thread_id in self._here:
            self._on_unwatched(thread_id)
            return
        topic = self._topics.get(thread_id)
        # Not within an item: a subscriber that comes back would get it from its start.
        if topic is not None and not topic.is_in_flight:
            task = self._forget(thread_id)
            if task is not None:
                task.cancel()

    def _forget(self, thread_id: str) -> asyncio.Task[None] | None:
        """Drops a topic; returns the task that feeds it, so that the next topic gets its own."""
        self._topics.pop(thread_id, None)
        return self._tasks.pop(thread_id, None)

    async def _feed(self, thread_id: str, topic: Topic) -> None:
        """Publishes what another node records and streams, until it is not watched any more."""
        loop = asyncio.get_running_loop()
        asked_at, after = -RETRY_SECONDS, topic.position
        while self._topics.get(thread_id) is topic:
            await self._catch_up(thread_id, topic)
            if loop.time() - asked_at >= RETRY_SECONDS:
                if after.seq < topic.seq:
                    after = topic.position
                after = await self._deliver(thread_id, topic, after)
                asked_at = loop.time()
            if not self._polls:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _deliver(self, thread_id: str, topic: Topic, after: Position) -> Position:
        """Publishes what the bus delivers, until the driving node ends or there is none.

        Returns the position of what came last: after a broken connection, the topic's own would ask
        for the beginning of a text once more if nothing of it came after the last durable event.
        """
        async with aclosing(self._bus.follow(thread_id, after)) as envelopes:
            async for envelope in envelopes:
                after = Position(envelope.seq, envelope.n)
                if not isinstance(envelope.event, DurableEvent):
                    topic.publish_live(envelope.event, envelope.n)
                elif envelope.seq > topic.seq:
                    topic.publish(envelope)
                if not topic.is_watched and not topic.is_in_flight:
                    self._forget(thread_id)
                    break
        return after

    async def _catch_up(self, thread_id: str, topic: Topic) -> None:
        """Publishes what the journal has beyond the topic."""
        while events := await self._journal.read(thread_id, after=topic.seq):
            for event in events:
                if event.seq > topic.seq:  # else another task published it while this one read
                    topic.publish(Envelope(event, event.seq))

    def _end_task(self, thread_id: str) -> None:
        task = self._tasks.pop(thread_id, None)
        if task is not None:
            task.cancel()

    def _fed(self, thread_id: str, task: asyncio.Task[None]) -> None:
        is_current = self._tasks.get(thread_id) is task
        if is_current:
            del self._tasks[thread_id]
        if task.cancelled() or (error := task.exception()) is None:
            return
        _LOGGER.warning("%s could not be followed: %s", thread_id, error)
        topic = self._topics.pop(thread_id, None) if is_current else None
        if topic is not None:
            topic.close(error if isinstance(error, Exception) else None)
