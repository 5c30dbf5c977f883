"""A subscription to the events of all threads."""

from collections import deque
from collections.abc import AsyncIterator, Sequence

from treadle.domain.desk import DeskEvent
from treadle.errors import JournalClosed
from treadle.journal.base import ChangeQuery, JournalReader

PAGE = 200


class DeskSubscription(AsyncIterator[DeskEvent]):
    """The events of all threads, or of an owner's, from a position on; iterate it, in one task.

    Each event comes once, in the order in which the journal committed them, so those of one thread
    in the order of their numbers. At most a page of them is in memory; a slow reader delays no
    thread. It begins with `async with`, or else when the first event is asked for, and ends when
    the runtime is shut down.
    """

    def __init__(
        self, journal: JournalReader, owner: str | None, types: Sequence[str], after: str
    ) -> None:
        self._journal = journal
        self._owner = owner
        self._types = types
        self._read_to = self._seen = after
        self._events: deque[DeskEvent] = deque()
        self._left = False

    @property
    def position(self) -> str:
        """The position of the last event, or behind others that were left out; "" before it begins.

        Pass it to `Runtime.subscribe` to continue, in any process.
        """
        return self._seen if self._events else self._read_to

    def __aiter__(self) -> "DeskSubscription":
        return self

    async def __anext__(self) -> DeskEvent:
        while not self._events:
            if self._left:
                raise StopAsyncIteration
            pulse = self._journal.pulse
            beats = pulse.beats  # from before the read, so that none is missed
            try:
                is_end = await self._read()
            except JournalClosed:
                raise StopAsyncIteration from None
            if is_end and not self._events and not self._left:
                await pulse.wait(beats)
        event = self._events.popleft()
        self._seen = event.position
        return event

    async def _read(self) -> bool:
        query = ChangeQuery(after=self._read_to, limit=PAGE, owner=self._owner, types=self._types)
        changes = await self._journal.changes(query)
        self._seen, self._read_to = self._read_to, changes.position
        self._events.extend(changes.events)
        return changes.is_end

    async def aclose(self) -> None:
        """Ends the subscription, including a wait for its next event; may be called again."""
        self._left = True
        self._journal.pulse.beat()

    async def __aenter__(self) -> "DeskSubscription":
        if not self._events:
            await self._read()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
