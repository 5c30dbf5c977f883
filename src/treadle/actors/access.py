"""The port to threads: what a handle needs, wherever the thread is driven.

Access is separate from driving: reading, watching and submitting never take a thread away from the
process that drives it.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from treadle.actors.ending import Ended
from treadle.actors.fork import Seed
from treadle.bus.position import Position
from treadle.bus.topic import Topic
from treadle.domain.entries import Entry
from treadle.domain.envelope import Envelope
from treadle.domain.items import Item
from treadle.domain.state import ThreadState
from treadle.journal.base import ThreadInfo
from treadle.journal.files import FileStore, NewFile
from treadle.memory.archive.access import ArchiveAccess
from treadle.ports import RunFiles


class Receipt(NamedTuple):
    """What became of an entry: the run that it belongs to, if any, and the thread of that run.

    `is_driven` is False if no process drives the threads now, so that the entry waits for one.
    `after` is the number of the event before the first one of a run that the entry began, None for
    any other entry, and if another process takes it.
    """

    run_id: str = ""
    thread_id: str = ""
    is_driven: bool = True
    after: int | None = None


class ThreadAccess(Protocol):
    """Reaches the threads of a journal. All raise `ThreadNotFound` and `JournalError`."""

    @property
    def archive(self) -> ArchiveAccess:
        """The archive of all threads."""
        ...

    async def create(self, info: ThreadInfo, items: Sequence[Item] = (), *, by: str = "") -> None:
        """Adds a thread with these items, a valid history, added by the principal `by`."""
        ...

    async def import_thread(self, info: ThreadInfo, seed: Seed, files: Sequence[NewFile]) -> None:
        """Adds a thread with its past, which is over: there is nothing to drive."""
        ...

    @property
    def owner(self) -> str | None:
        """The owner whose threads are reached; None reaches those of all owners."""
        ...

    @property
    def file_store(self) -> FileStore:
        """The contents of files; callers name an owner or a thread."""
        ...

    def files(self, thread_id: str) -> RunFiles:
        """Returns what moves contents out of the items of a thread, and into requests."""
        ...

    async def submit(self, thread_id: str, entry: Entry) -> Receipt:
        """Submits an entry; returns once it cannot be lost, and if it may be refused, once decided.

        Raises what `treadle.domain.accept.accept` raises, `UnknownAgent` for a message, and
        `NotDriven` for an entry that only a driving process can decide, if there is none.
        """
        ...

    async def shared(self, owner: str, name: str) -> str:
        """Returns the id of the memory that threads of an owner share; creates it if missing.

        Raises `InvalidInput` for a name that is not valid.
        """
        ...

    async def topic(self, thread_id: str) -> Topic:
        """Returns the topic on which the events of the thread arrive."""
        ...

    def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events after a position from the node that drives the thread, if another does.

        Ends when that node stops to serve it.
        """
        ...

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the thread has an event `seq`; True if only waiting would tell."""
        ...

    async def state(self, thread_id: str) -> ThreadState:
        """Returns the fold of the events so far."""
        ...

    async def head(self, thread_id: str) -> ThreadState:
        """Returns the fold of the events so far; of the history it may have the length only.

        See `treadle.journal.base.Journal.head`: it costs the same, however long the thread is.
        """
        ...

    async def is_driven(self) -> bool:
        """Returns whether a process drives the threads."""
        ...

    async def ended(self, thread_id: str, run_id: str) -> Ended:
        """Waits for the end of a run; raises `RunNotFound`."""
        ...

    async def fork(self, thread_id: str, at: int | None) -> str:
        """Copies a thread; returns the id of the copy."""
        ...

    async def repair(self, thread_id: str) -> list[int]:
        """Removes damaged events of a thread; returns their numbers."""
        ...

    async def delete(self, thread_id: str) -> None:
        """Removes a thread."""
        ...
