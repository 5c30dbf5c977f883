"""The threads of one owner: the one place where it is checked to whom a thread belongs.

A view (`Runtime.for_owner`) gives its handles these two ports instead of those of the runtime. A
thread of another owner raises the same error as one that does not exist, before anything else
happens.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from treadle.actors.access import Receipt, ThreadAccess
from treadle.actors.ending import Ended
from treadle.actors.fork import Seed
from treadle.bus.position import Position
from treadle.bus.topic import Topic
from treadle.domain.entries import Entry
from treadle.domain.envelope import Envelope
from treadle.domain.events import RecordedEvent
from treadle.domain.items import Item
from treadle.domain.page import Page
from treadle.domain.spending import Spending
from treadle.domain.state import ThreadState
from treadle.journal.base import (
    CallQuery,
    ChangeQuery,
    Changes,
    Direction,
    Due,
    DuePlace,
    JournalReader,
    ThreadInfo,
    ThreadMark,
    ThreadQuery,
    WaitingCall,
    not_found,
)
from treadle.journal.files import FileStore, NewFile
from treadle.journal.projection import DueKind, RunRecord
from treadle.journal.pulse import Pulse
from treadle.memory.archive.access import ArchiveAccess
from treadle.ports import RunFiles

MAX_KNOWN = 1024


class OwnerGuard:
    """Tells threads of `owner` from all others; None owns every thread."""

    def __init__(self, journal: JournalReader, owner: str | None) -> None:
        self.owner = owner
        self._journal = journal
        # A thread never changes its owner, and no id is used for threads of two owners.
        self._known: dict[str, None] = {}

    async def require(self, thread_id: str) -> None:
        """Raises `ThreadNotFound` unless the thread exists and belongs to the owner."""
        if self.owner is None or thread_id in self._known:
            return
        if (await self._journal.info(thread_id)).owner != self.owner:
            raise not_found(thread_id)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[thread_id] = None

    def knows(self, thread_id: str) -> bool:
        """Returns whether the thread is known to belong to the owner, without waiting."""
        return self.owner is None or thread_id in self._known


class OwnedAccess:
    """Fulfils `ThreadAccess` for the threads of one owner; entries come from the principal `by`."""

    def __init__(self, threads: ThreadAccess, guard: OwnerGuard, by: str) -> None:
        self._threads = threads
        self._guard = guard
        self._by = by

    @property
    def archive(self) -> ArchiveAccess:
        """The archive of all threads; callers name an owner."""
        return self._threads.archive

    @property
    def owner(self) -> str | None:
        """The owner whose threads are reached."""
        return self._guard.owner

    @property
    def file_store(self) -> FileStore:
        """The contents of files; callers name an owner or a thread."""
        return self._threads.file_store

    def files(self, thread_id: str) -> RunFiles:
        """Returns what moves contents out of the items of a thread, and into requests."""
        return self._threads.files(thread_id)

    async def create(self, info: ThreadInfo, items: Sequence[Item] = (), *, by: str = "") -> None:
        """Adds a thread; the principal added its items."""
        await self._threads.create(info, items, by=by or self._by)

    async def import_thread(self, info: ThreadInfo, seed: Seed, files: Sequence[NewFile]) -> None:
        """Adds a thread with its past."""
        await self._threads.import_thread(info, seed, files)

    async def submit(self, thread_id: str, entry: Entry) -> Receipt:
        """Submits an entry as the principal."""
        await self._guard.require(thread_id)
        return await self._threads.submit(thread_id, replace(entry, by=self._by))

    async def shared(self, owner: str, name: str) -> str:
        """Returns the id of a shared memory of the owner."""
        return await self._threads.shared(owner, name)

    async def topic(self, thread_id: str) -> Topic:
        """Returns the topic of a thread."""
        await self._guard.require(thread_id)
        return await self._threads.topic(thread_id)

    async def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events after a position from the node that drives the thread."""
        await self._guard.require(thread_id)
        async with aclosing(self._threads.follow(thread_id, after)) as envelopes:
            async for envelope in envelopes:
                yield envelope

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the thread has an event `seq`; True if only waiting would tell."""
        return not self._guard.knows(thread_id) or self._threads.has_reached(thread_id, seq)

    async def state(self, thread_id: str) -> ThreadState:
        """Returns the fold of the events so far."""
        await self._guard.require(thread_id)
        return await self._threads.state(thread_id)

    async def head(self, thread_id: str) -> ThreadState:
        """Returns the fold of the events so far, perhaps without the history."""
        await self._guard.require(thread_id)
        return await self._threads.head(thread_id)

    async def is_driven(self) -> bool:
        """Returns whether a process drives the threads."""
        return await self._threads.is_driven()

    async def ended(self, thread_id: str, run_id: str) -> Ended:
        """Waits for the end of a run."""
        await self._guard.require(thread_id)
        return await self._threads.ended(thread_id, run_id)

    async def fork(self, thread_id: str, at: int | None) -> str:
        """Copies a thread; returns the id of the copy."""
        await self._guard.require(thread_id)
        return await self._threads.fork(thread_id, at)

    async def repair(self, thread_id: str) -> list[int]:
        """Removes damaged events of a thread."""
        await self._guard.require(thread_id)
        return await self._threads.repair(thread_id)

    async def delete(self, thread_id: str) -> None:
        """Removes a thread."""
        await self._guard.require(thread_id)
        await self._threads.delete(thread_id)


class OwnedReader:
    """Fulfils `JournalReader` for the threads of one owner."""

    def __init__(self, journal: JournalReader, guard: OwnerGuard) -> None:
        self._journal = journal
        self._guard = guard

    async def info(self, thread_id: str) -> ThreadInfo:
        """Returns a thread as lists show it."""
        await self._guard.require(thread_id)
        return await self._journal.info(thread_id)

    async def threads(self, query: ThreadQuery) -> Page[ThreadInfo]:
        """Returns a page of threads of the owner, whatever owner the query names."""
        if self._guard.owner is not None:
            query = replace(query, owner=self._guard.owner)
        return await self._journal.threads(query)

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        """Returns the last event of each thread of the owner, whatever `owner` is."""
        owned_by = owner if self._guard.owner is None else self._guard.owner
        return await self._journal.marks(owner=owned_by)

    async def due(
        self,
        *,
        limit: int,
        after: DuePlace | None = None,
        kind: DueKind | None = None,
        owner: str | None = None,
    ) -> list[Due]:
        """Returns due times of threads of the owner, whatever `owner` is."""
        owned_by = owner if self._guard.owner is None else self._guard.owner
        return await self._journal.due(limit=limit, after=after, kind=kind, owner=owned_by)

    async def spending(self, owner: str, *, since: float, until: float) -> Spending:
        """Returns what the owner has spent, whatever `owner` is."""
        owned_by = owner if self._guard.owner is None else self._guard.owner
        return await self._journal.spending(owned_by, since=since, until=until)

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """Returns events of a thread."""
        await self._guard.require(thread_id)
        return await self._journal.read(thread_id, after=after, until=until, limit=limit)

    async def last_seq(self, thread_id: str) -> int:
        """Returns the number of the last event."""
        await self._guard.require(thread_id)
        return await self._journal.last_seq(thread_id)

    async def stored(self, thread_id: str, *, after: int, limit: int = 500) -> dict[int, bytes]:
        """Returns events as they are stored."""
        await self._guard.require(thread_id)
        return await self._journal.stored(thread_id, after=after, limit=limit)

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        """Returns the record of a run, or None."""
        await self._guard.require(thread_id)
        return await self._journal.run(thread_id, run_id)

    async def find_run(
        self, run_id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> RunRecord | None:
        """Returns the record of a run of the owner, or None, whatever `owner` is."""
        owned_by = owner if self._guard.owner is None else self._guard.owner
        return await self._journal.find_run(run_id, owner=owned_by, thread_id=thread_id)

    async def runs(
        self, thread_id: str, *, limit: int = -1, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of a thread."""
        await self._guard.require(thread_id)
        return await self._journal.runs(thread_id, limit=limit, after=after, order=order)

    @property
    def pulse(self) -> Pulse:
        """Beats when something was committed, on any thread."""
        return self._journal.pulse

    async def changes(self, query: ChangeQuery) -> Changes:
        """Returns events of the threads of the owner, whatever owner the query names."""
        if self._guard.owner is not None:
            query = replace(query, owner=self._guard.owner)
        return await self._journal.changes(query)

    async def calls(self, query: CallQuery) -> Page[WaitingCall]:
        """Returns a page of the waiting calls of the owner, whatever owner the query names."""
        if self._guard.owner is not None:
            query = replace(query, owner=self._guard.owner)
        return await self._journal.calls(query)
