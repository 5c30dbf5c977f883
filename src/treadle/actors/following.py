"""The topics of this process: actors publish to those driven here, the others are followed.

A topic outlives the actor that feeds it: subscribers keep theirs when a thread that was
driven elsewhere, or by no process, comes to be driven here.
"""

import asyncio
from collections.abc import Callable, Mapping

from treadle.bus.base import Bus
from treadle.bus.position import COMPLETED, UNSEEN, Position, is_early, left_in, position_of
from treadle.bus.topic import Topic
from treadle.domain.envelope import Envelope
from treadle.domain.events import DurableEvent
from treadle.errors import JournalClosed, ThreadNotFound, TreadleError
from treadle.journal.base import Journal
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")

POLL_SECONDS = 0.05
"""How often the journal is read for events of a watched thread that the bus does not deliver."""

RETRY_SECONDS = 0.5
"""How long after the bus delivered nothing, or stopped to, it is asked again."""


MAX_REMEMBERED = 1000
"""How many events before the last one the topic of a followed thread begins at most."""


class Following:
    """Fulfils `Follower`: keeps a topic for each thread that is driven or watched here.

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
        self._here: dict[str, Topic] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._announced: set[str] = set()
        self._is_stopped = False

    async def stop(self) -> None:
        """Ends all subscriptions, and what feeds them."""
        self._is_stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for topic in self._topics.values():
            topic.close()
        self._topics.clear()
        self._tasks.clear()

    # Threads that are driven here

    def open(self, thread_id: str, seq: int) -> Topic:
        """Returns the topic of a thread that is driven here from now on, after event `seq`."""
        self._end_task(thread_id)
        topic = self._topics.get(thread_id)
        if topic is not None and topic.seq != seq:
            topic.close(ThreadNotFound(f"The thread {thread_id} was deleted and created again."))
        if topic is None or topic.is_closed:
            topic = self._new(thread_id, seq)
        topic.is_followed, topic.shown_to = False, seq
        self._here[thread_id] = topic
        return topic

    async def hand_over(self, thread_id: str, seq: int) -> None:
        """Prepares the topic of a thread for an actor that has loaded the events up to `seq`.

        `open` must follow in the same turn of the event loop, so that no other task feeds it.
        """
        self._end_task(thread_id)
        # A subscriber that leaves and returns while the journal is read gets another topic.
        while (topic := self._topics.get(thread_id)) is not None and topic.seq < seq:
            self._end_task(thread_id)
            topic.is_followed = True  # its readers have nothing of the texts that come now
            await self._catch_up(thread_id, topic)

    def hand_off(self, thread_id: str) -> None:
        """Follows the node that has a thread which was driven here until now; subscribers stay."""
        topic = self._here.pop(thread_id, None)
        if topic is None or topic is not self._topics.get(thread_id):
            return
        topic.is_followed = True
        if topic.is_watched:
            self.follow(thread_id)
        else:
            self._forget(thread_id)

    def drop(self, thread_id: str, error: TreadleError | None = None) -> None:
        """Forgets a thread that is no longer driven here; subscribers get the end.

        With `error`, the thread was deleted: all subscribers get it, those of another node as well.
        Else those that came after the actor had failed stay: they wait for the next node.
        """
        driven = self._here.pop(thread_id, None)
        topic = self._topics.get(thread_id)
        if topic is not None and (topic is driven or error is not None):
            del self._topics[thread_id]
            topic.close(error)

    # Threads that are driven elsewhere, or by no process

    async def topic(self, thread_id: str) -> Topic:
        """Returns the topic of a thread; raises `ThreadNotFound`."""
        self._require_open()
        topic = self._topics.get(thread_id)
        if topic is None or topic.is_closed:
            seq = await self._start(thread_id)
            self._require_open()
            topic = self._topics.get(thread_id)  # another task may have been quicker
            if topic is None or topic.is_closed:
                topic = self._new(thread_id, seq)
                topic.opening = asyncio.get_running_loop().create_future()
                self.follow(thread_id)
        return topic

    async def _start(self, thread_id: str) -> int:
        """Returns after which event the topic of a thread begins that is not driven here.

        It is before the runs of which the driving node remembers the deltas, so that a reader gets
        here what it would get there, including texts of other agents that have landed.
        """
        seq = await self._journal.last_seq(thread_id)
        begun = [run.first_seq for run in await self._journal.runs(thread_id) if run.first_seq]
        # Right before a run is the message that starts it.
        start = max(0, begun[-2] - 2) if len(begun) > 1 else 0
        return max(start, seq - MAX_REMEMBERED)

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the topic of a thread is in memory and has come to event `seq`."""
        topic = self._topics.get(thread_id)
        return topic is not None and seq <= topic.seq

    def watches(self, thread_id: str) -> bool:
        """Returns whether a thread is watched here, and not driven."""
        topic = self._topics.get(thread_id)
        return topic is not None and topic is not self._here.get(thread_id)

    def waiting(self) -> Mapping[str, int]:
        """Returns the threads that are watched here, and that no node is known to drive.

        With the number of the last event of their topic.
        """
        return {
            thread_id: topic.seq
            for thread_id, topic in self._topics.items()
            if thread_id not in self._tasks and topic is not self._here.get(thread_id)
        }

    def follow(self, thread_id: str) -> None:
        """Feeds the topic of a thread that another node drives, if it is watched here."""
        topic = self._topics.get(thread_id)
        if topic is None or topic is self._here.get(thread_id):
            return
        if thread_id in self._tasks:
            self._announced.add(thread_id)  # its task may be at its end, and looks again
            return
        self._tasks[thread_id] = asyncio.create_task(
            self._feed(thread_id, topic), name=f"treadle follow {thread_id}"
        )

    def _require_open(self) -> None:
        if self._is_stopped:
            raise JournalClosed("The runtime was shut down; open it again.")

    def _new(self, thread_id: str, seq: int) -> Topic:
        topic = Topic(seq, lambda: self._unwatched(thread_id), is_followed=True)
        self._topics[thread_id] = topic
        return topic

    def _unwatched(self, thread_id: str) -> None:
        topic = self._topics.get(thread_id)
        if topic is self._here.get(thread_id):
            self._on_unwatched(thread_id)
            return
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
        try:
            await self._follow(thread_id, topic)
        except Exception as error:  # noqa: BLE001 - subscribers get it, whatever it is
            if not isinstance(error, ThreadNotFound):
                _LOGGER.warning("%s could not be followed: %s", thread_id, error)
            if self._topics.get(thread_id) is topic:
                del self._topics[thread_id]
            topic.close(error)
        finally:
            topic.opened()
            # In the turn in which it ends: what is announced in the next one gets a new task.
            if self._tasks.get(thread_id) is asyncio.current_task():
                del self._tasks[thread_id]

    async def _follow(self, thread_id: str, topic: Topic) -> None:
        loop = asyncio.get_running_loop()
        asked_at, after = -RETRY_SECONDS, topic.position
        while self._topics.get(thread_id) is topic:
            self._announced.discard(thread_id)
            # The node comes before the journal: where a connection broke in the middle of a text,
            # a node that still drives the thread sends the rest of it.
            if not self._polls or loop.time() - asked_at >= RETRY_SECONDS:
                if after.seq < topic.seq:
                    after = topic.position
                before, after = after, await self._deliver(thread_id, topic, after)
                if after != before:
                    continue
                asked_at = loop.time()
            await self._catch_up(thread_id, topic)
            if not topic.is_watched:
                self._forget(thread_id)  # even within an item, which no node continues to stream
            elif self._polls:
                await asyncio.sleep(POLL_SECONDS)
            elif thread_id not in self._announced:
                return

    async def _deliver(self, thread_id: str, topic: Topic, after: Position) -> Position:
        """Publishes what the bus delivers, until the driving node ends or there is none.

        Returns the position of what came last: after a broken connection, the topic's own would ask
        for the beginning of a text once more if nothing of it came after the last durable event.
        """
        task = asyncio.current_task()

        def take(envelope: Envelope) -> bool:
            nonlocal after
            if self._tasks.get(thread_id) is not task:
                return False  # the topic is fed by another one, or by an actor, from now on
            if not topic.is_served:
                topic.is_served = True
                topic.opened()
            after = position_of(envelope)
            _publish(topic, envelope)
            if topic.is_watched or topic.is_in_flight:
                return True
            self._forget(thread_id)
            return False

        await self._bus.deliver(thread_id, after, take)
        topic.is_served = False
        topic.opened()
        return after

    async def _catch_up(self, thread_id: str, topic: Topic) -> None:
        """Publishes what the journal has beyond the topic."""
        while events := await self._journal.read(thread_id, after=topic.seq):
            for event in events:
                if event.seq > topic.seq:  # else another task published it while this one read
                    topic.publish(Envelope(event, event.seq, UNSEEN))

    def _end_task(self, thread_id: str) -> None:
        task = self._tasks.pop(thread_id, None)
        if task is not None:
            task.cancel()


def _publish(topic: Topic, envelope: Envelope) -> None:
    """Hands on an event that another node has handed out."""
    if isinstance(envelope.event, DurableEvent):
        if envelope.seq > topic.seq:
            topic.publish(_published(envelope))
    elif is_early(envelope.n):
        topic.publish_early(envelope.event, envelope.n)
    else:
        # What the sender's reader had not seen is not said of those here.
        left = left_in(envelope.n)
        topic.publish_live(envelope.event, envelope.n if left is None else COMPLETED - left)


def _published(envelope: Envelope) -> Envelope:
    """Returns the envelope of a durable event for all readers, whatever the sender's has seen."""
    return envelope if envelope.n == 0 else Envelope(envelope.event, envelope.seq)
