"""The port to journals: what a journal keeps, and the protocol that each adapter fulfils."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from treadle.domain.entries import Entry
from treadle.domain.envelope import Envelope
from treadle.domain.events import RecordedEvent
from treadle.domain.limits import Limits
from treadle.domain.state import RunStatus, ThreadState
from treadle.journal.projection import Projection, RunRecord


class Work(Struct, frozen=True, omit_defaults=True):
    """The run for which the agent of a thread works, and the call of it, if it is not a hook.

    `depth` counts from 1; `limits` is what was left to the run. Where it `lends_memory`, the agent
    reads and edits the memory blocks of that thread.
    """

    thread_id: str
    run_id: str
    call_id: str
    depth: int
    limits: Limits
    lends_memory: bool = False


class ThreadInfo(Struct, frozen=True, kw_only=True):
    """A thread as lists show it.

    `status` is that of its newest run, `queued` while one waits, None before the first. `title` is
    the beginning of the first message. Times are Unix seconds. `forked_from` names the thread it
    was copied from, `work` the run for which its agent works. A thread without an agent is the
    shared memory of the name `memory`.
    """

    id: str
    agent: str
    owner: str = ""
    metadata: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    title: str = ""
    status: RunStatus | None = None
    created_at: float
    updated_at: float
    forked_from: str = ""
    work: Work | None = None
    memory: str = ""


class ThreadMark(Struct, frozen=True):
    """How far a thread got, for an index that is made from its events.

    `number` is that of the thread in the journal, which no thread has again, also not one of the
    same id. `seq` is its last event. `parent` is the thread for which its agent works, or "".
    """

    id: str
    owner: str
    number: int
    seq: int
    parent: str = ""


class Claim(Struct, frozen=True):
    """The right to append to a thread: its number in the journal, and the epoch of its driver."""

    number: int
    epoch: int


class Batch(Struct, frozen=True, eq=False):
    """Events that one driver appends together, and what they change in the tables for queries.

    `consumed` holds the numbers of the inbox's inputs that became these events.
    """

    claim: Claim
    entries: Sequence[Envelope]
    consumed: Sequence[int] = ()
    projection: Projection | None = None


class Fork(Struct, frozen=True, eq=False):
    """The thread `info`: the first `at` events of `source`, then `entries`.

    `projection` is what all of them say to queries.
    """

    source: str
    at: int
    info: ThreadInfo
    entries: Sequence[Envelope]
    projection: Projection


class Waiting(Struct, frozen=True):
    """An entry in an inbox, and its number there."""

    number: int
    entry: Entry


class Unfinished(Struct, frozen=True):
    """A thread that must be driven: for its run, which has the `status`, or for its jobs.

    The run expires at `expires_at` (Unix seconds), or never.
    """

    thread_id: str
    status: RunStatus | None
    expires_at: float | None = None
    jobs: int = 0


Durability = Literal["process", "power"]
"""What a durable event survives: the end of the process, also by `kill -9`, or of the power."""


class Journal(Protocol):
    """Keeps threads. Every method but `append` returns when what it does is durable.

    All raise `JournalError` or one of its kinds; then nothing of what was asked became visible.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes can put entries into the inboxes, so that these are polled."""
        ...

    async def open(self) -> None:
        """Makes the journal ready; raises `JournalLocked` when another process drives it."""
        ...

    async def close(self) -> None:
        """Ends after what was begun; a second call does nothing."""
        ...

    async def create(self, info: ThreadInfo) -> Claim:
        """Adds a thread without events, and claims it; raises `JournalError` if it is there."""
        ...

    async def info(self, thread_id: str) -> ThreadInfo:
        """Returns what lists show of a thread; raises `ThreadNotFound`."""
        ...

    async def threads(
        self, *, limit: int, after: str, owner: str | None, parent: str = ""
    ) -> list[ThreadInfo]:
        """Returns threads, those changed last first; `after` is the id of the last one known.

        With `parent`, those on which agents work for that thread, which are left out otherwise.
        Shared memories are always left out.
        """
        ...

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        """Returns how far each thread got, of all kinds; all threads, or those of an owner."""
        ...

    async def claim(self, thread_id: str) -> Claim:
        """Takes a thread over; from now on older claims are refused. Raises `ThreadNotFound`."""
        ...

    def append(self, batch: Batch) -> "asyncio.Future[None]":
        """Appends at once or not at all; the future is done when the events are durable.

        It raises `StaleWriter` when the thread was claimed again or deleted, or when an earlier
        append of the same claim failed: what follows from a lost event is lost with it.
        """
        ...

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        """Returns the fold of the events, up to and with number `at`; raises `ThreadNotFound`."""
        ...

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """Returns at most `limit` events with `after < seq <= until`, in order."""
        ...

    async def snapshot(self, claim: Claim, state: ThreadState) -> None:
        """Keeps the fold of the events so far, so that `load` starts from there.

        Raises `StaleWriter` as `append` does, and `JournalError` when `state` is ahead of what is
        kept.
        """
        ...

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        """Returns what is known of a run."""
        ...

    async def run_of_key(self, thread_id: str, key: str, *, inbox: bool = True) -> str | None:
        """Returns the id of the run that a message with this key started or steered.

        Of a message that waits in the `inbox` it is the run that was promised to its sender.
        """
        ...

    async def runs(self, thread_id: str) -> list[RunRecord]:
        """Returns the runs of a thread, the oldest first."""
        ...

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        """Puts an input into the inbox of a thread; raises `ThreadNotFound`.

        A message whose key has a run (see `run_of_key`) was sent before: it changes nothing.
        """
        ...

    async def inbox(self, thread_id: str) -> list[Waiting]:
        """Returns the inputs that wait, in order."""
        ...

    async def waiting_threads(self) -> list[str]:
        """Returns the threads whose inbox is not empty."""
        ...

    async def unfinished(self) -> list[Unfinished]:
        """Returns the threads whose newest run has not ended or begun, or that have open jobs."""
        ...

    async def fork(self, fork: Fork) -> None:
        """Adds a thread with a copy of the first events of another, whole or not at all."""
        ...

    async def delete(self, thread_id: str) -> None:
        """Removes a thread and everything about it; raises `ThreadNotFound`."""
        ...
