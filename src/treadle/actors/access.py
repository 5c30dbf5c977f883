"""The port to threads: what a handle needs, from the process that drives them or from another."""

from typing import Protocol

from treadle.actors.ending import Ended
from treadle.bus.topic import Topic
from treadle.domain.entries import AnswerEntry, MemoryEntry, PinEntry, SendEntry
from treadle.domain.state import ThreadState
from treadle.journal.base import ThreadInfo
from treadle.memory.archive.access import ArchiveAccess


class ThreadAccess(Protocol):
    """Reaches the threads of a journal. All raise `ThreadNotFound` and `JournalError`."""

    @property
    def archive(self) -> ArchiveAccess:
        """What was said and noted on all threads."""
        ...

    async def start(self) -> None:
        """Makes the threads reachable."""
        ...

    async def stop(self) -> None:
        """Ends what was started; all who wait or watch are told."""
        ...

    async def create(self, info: ThreadInfo) -> None:
        """Adds a thread."""
        ...

    async def connect(self, thread_id: str) -> None:
        """Makes sure that the thread exists, and loads it where that helps."""
        ...

    async def send(self, thread_id: str, input: SendEntry) -> str:
        """Hands a message over; returns the id of its run once it cannot be lost any more."""
        ...

    async def answer(self, thread_id: str, input: AnswerEntry) -> None:
        """Hands the answer to a call over."""
        ...

    async def cancel(self, thread_id: str, run_id: str) -> None:
        """Has a run end now."""
        ...

    async def finish(self, thread_id: str, run_id: str) -> None:
        """Has a run end after its step."""
        ...

    async def cancel_job(self, thread_id: str, job_id: str) -> None:
        """Has a job end now."""
        ...

    async def pin(self, thread_id: str, input: PinEntry) -> None:
        """Has the model read a message for ever, or no longer; raises `UnknownMessage`."""
        ...

    async def remember(self, thread_id: str, input: MemoryEntry) -> None:
        """Changes a memory block; raises the kinds of `MemoryFailed`."""
        ...

    async def shared(self, owner: str, name: str) -> str:
        """Returns the id of the memory that threads of an owner share, made if it is not there.

        Raises `InvalidInput` for a name that is none.
        """
        ...

    async def topic(self, thread_id: str) -> Topic:
        """Returns where to hear of the thread."""
        ...

    async def state(self, thread_id: str) -> ThreadState:
        """Returns the fold of the events so far."""
        ...

    async def ended(self, thread_id: str, run_id: str) -> Ended:
        """Waits for the end of a run; raises `RunNotFound`."""
        ...

    async def fork(self, thread_id: str, at: int | None) -> str:
        """Copies a thread; returns the id of the copy."""
        ...

    async def delete(self, thread_id: str) -> None:
        """Removes a thread."""
        ...
