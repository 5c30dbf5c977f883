"""The port to journals: the values a journal keeps, and the protocol that each adapter fulfils.

A journal is the only place where the truth about a thread is kept; the state of a driver is a copy
of it. Two rules make that safe, and `tests/journal` holds every adapter to them, alone and with a
second adapter on the same database:

- A batch becomes visible whole or not at all, after it is durable.
- A batch is written only if its claim is still the newest one in the database. The comparison is
  part of the transaction that writes. A comparison with a copy in memory would let a driver append
  after another process has taken its thread over.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from treadle.domain.desk import DeskEvent
from treadle.domain.entries import Entry, SendEntry
from treadle.domain.envelope import Envelope
from treadle.domain.events import Awaited, RecordedEvent, ToolCallRequested, object_in
from treadle.domain.items import FunctionCall
from treadle.domain.limits import Limits
from treadle.domain.page import Page
from treadle.domain.retention import UNSTORED_SECONDS
from treadle.domain.schedules import Schedule
from treadle.domain.spending import NO_SPENDING, Spending
from treadle.domain.state import RunStatus, ThreadState
from treadle.errors import InvalidInput, StaleWriter, ThreadNotFound
from treadle.journal.files import FileStore, NewFile
from treadle.journal.projection import (
    UNUSED,
    CallRecord,
    DueKind,
    DueTime,
    Projection,
    RunRecord,
    Sent,
)
from treadle.journal.pulse import Pulse


def position_at(text: str, newest: int) -> int:
    """Returns the number that a position of the desk stands for; "start" is before all events.

    Raises `InvalidInput` for anything else, and for a position behind the newest event.
    """
    if text == "start":
        return 0
    if text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= newest:
        return int(text)
    raise InvalidInput(
        f"after={text[:40]!r} is not a position of this desk; pass the position of an event or "
        'of a list of calls, or "start".'
    )


def not_found(thread_id: str) -> ThreadNotFound:
    """Returns the error for a thread that does not exist."""
    return ThreadNotFound(f"The thread {thread_id[:100]!r} was not found.")


def stale() -> StaleWriter:
    """Returns the error for a claim that is not the newest one."""
    return StaleWriter("Another driver has taken the thread over, or it was deleted.")


class Work(Struct, frozen=True, omit_defaults=True):
    """The run for which the agent of a thread works, and the call in it, or "" without one.

    `depth` counts from 1. `limits` is what the run had left when it delegated. With `lends_memory`
    the agent reads and edits the memory blocks of the thread `thread_id`.
    """

    thread_id: str
    run_id: str
    call_id: str
    depth: int
    limits: Limits
    lends_memory: bool = False


class ThreadInfo(Struct, frozen=True, kw_only=True):
    """A thread as lists show it.

    `status` is the status of its newest run, `queued` while a run waits, None before the first run.
    `title` is the beginning of the first message. Times are Unix seconds. `forked_from` is the id
    of the thread it was copied from, or "". `work` is the run for which its agent works, if any. A
    thread without an agent is the shared memory named `memory`. `key` is the caller's own id for
    the thread, and `key_digest` identifies the arguments that it was created with.

    The thread is deleted at `expires_at` (Unix seconds), None means never. With `store` false, it
    is also deleted 10 minutes after it was created or last used.
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
    key: str = ""
    key_digest: str = ""
    expires_at: float | None = None
    store: bool = True


def deletions_of(info: ThreadInfo) -> list[DueTime]:
    """Returns when a new thread is to be deleted, if nothing else becomes of it."""
    due: list[DueTime] = []
    if info.expires_at is not None:
        due.append(DueTime("deletion", info.expires_at))
    if not info.store:
        due.append(DueTime("deletion", info.updated_at + UNSTORED_SECONDS, UNUSED))
    return due


ThreadOrder = Literal["-updated", "updated", "-created", "created"]
"""The order of a list of threads: by their last change or their creation; `-` is newest first."""


class ThreadQuery(Struct, frozen=True, kw_only=True):
    """Which threads a list contains, and which part of it is asked for.

    `limit` is the length of a page, -1 for all. `after` is the cursor of the page before, or "".
    Without an `owner` (None) those of all owners are listed; with `parent`, those on which agents
    work for that thread, which are left out otherwise. `status`, `agent` and `metadata` leave out
    threads with another status, another agent, or a field of another value. Shared memories are not
    listed; with `memories`, only they are, in an order by creation.
    """

    limit: int = 50
    after: str = ""
    owner: str | None = None
    parent: str = ""
    status: Sequence[RunStatus] = ()
    agent: str = ""
    metadata: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    order: ThreadOrder = "-updated"
    memories: bool = False


class WaitingCall(Struct, frozen=True, kw_only=True):
    """A call that waits for an answer from outside, on any thread.

    `agent` works on the run `run_id`. `awaits` is `"approval"`, or `"output"` for a call of an
    external tool. It waits since `since` until `expires_at` (Unix seconds; None means forever).
    Event `seq` of the thread requested it.
    """

    thread_id: str
    owner: str = ""
    run_id: str
    agent: str
    call: FunctionCall
    awaits: Awaited
    since: float
    expires_at: float | None = None
    seq: int

    @property
    def tool(self) -> str:
        """The name of the tool."""
        return self.call.name

    @property
    def arguments(self) -> dict[str, object] | None:
        """The arguments, decoded; None where the model did not write a JSON object."""
        return object_in(self.call.arguments or "{}")


def waiting_call(
    record: CallRecord,
    event: ToolCallRequested,
    thread_id: str,
    owner: str,
    expires_at: float | None,
) -> WaitingCall:
    """Returns a call as lists show it, of its row and the event that requested it."""
    return WaitingCall(
        thread_id=thread_id,
        owner=owner,
        run_id=record.run_id,
        agent=record.agent,
        call=event.item,
        awaits=record.awaits,
        since=record.since,
        expires_at=expires_at,
        seq=record.seq,
    )


def promised(entry: SendEntry, thread_id: str, agent: str) -> RunRecord:
    """Returns the record of a run whose message waits in the inbox of a thread of `agent`."""
    return RunRecord(
        id=entry.run_id,
        thread_id=thread_id,
        agent=entry.agent or agent,
        message_id="" if entry.item is None else entry.item.id,
        metadata=entry.options.metadata if entry.options is not None else {},
    )


class CallQuery(Struct, frozen=True, kw_only=True):
    """Which waiting calls a list contains: all, those of an owner, thread or agent, or one kind."""

    limit: int = 50
    after: str = ""
    owner: str | None = None
    thread_id: str = ""
    agent: str = ""
    awaits: Awaited | None = None


class ChangeQuery(Struct, frozen=True, kw_only=True):
    """Which events of all threads are read: those behind a position, of an owner, of some types.

    `after` "" reads nothing and returns the position of the end.
    """

    after: str
    limit: int = 500
    owner: str | None = None
    types: Sequence[str] = ()


class Changes(Struct, frozen=True):
    """Events of all threads, and the position behind all that was looked at for them.

    With `is_end` nothing more was committed then.
    """

    events: Sequence[DeskEvent]
    position: str
    is_end: bool = True


Direction = Literal["asc", "desc"]
"""The direction of a list: from the oldest entry on, or from the newest."""


class ThreadMark(Struct, frozen=True):
    """The last event of a thread, for an index that is built from the events.

    `number` identifies the thread in this journal and is never used again, even if a deleted thread
    is created anew with the same id. `seq` is the number of its last event, 0 without events.
    `parent` is the id of the thread for which its agent works, or "".
    """

    id: str
    owner: str
    number: int
    seq: int
    parent: str = ""


class Claim(Struct, frozen=True):
    """The right to append to a thread: its number in the journal, and the epoch of the claim.

    Epochs of a thread only grow. Of two claims, the one with the greater epoch is valid.
    """

    number: int
    epoch: int


class Batch(Struct, frozen=True, eq=False):
    """Events that one driver appends together.

    `consumed` are the numbers of the inbox entries that became these events; they are removed in
    the same transaction. `projection` is what the events change in the tables for queries, and
    `spending` what they add to that of the owner, by slots.
    """

    claim: Claim
    entries: Sequence[Envelope]
    consumed: Sequence[int] = ()
    projection: Projection | None = None
    spending: Mapping[int, Spending] = NO_SPENDING


class Fork(Struct, frozen=True, eq=False):
    """A new thread `info` with the first `at` events of the thread `source`, then `entries`.

    `projection` holds the rows for queries that follow from all of these events.
    """

    source: str
    at: int
    info: ThreadInfo
    entries: Sequence[Envelope]
    projection: Projection


class Waiting(Struct, frozen=True):
    """An entry in an inbox, and its number: later entries have greater numbers."""

    number: int
    entry: Entry


class Unfinished(Struct, frozen=True):
    """A thread that must be driven: because of its run, which has the `status`, or of its jobs.

    `jobs` counts the jobs that have not settled, or whose end has not been announced yet.
    """

    thread_id: str
    status: RunStatus | None
    jobs: int = 0


class Due(Struct, frozen=True, kw_only=True):
    """A time (Unix seconds) at which something is due on a thread; see `DueTime`.

    `number` is that of the thread, as in `ThreadMark`.
    """

    at: float
    number: int
    thread_id: str
    kind: DueKind
    id: str = ""
    schedule: Schedule | None = None

    @property
    def place(self) -> "DuePlace":
        """The place among all due times, the earliest first."""
        return self.at, self.kind, self.id, self.number


DuePlace = tuple[float, DueKind, str, int]


Durability = Literal["process", "power"]
"""What a durable event survives: the end of the process (even `kill -9`), or a loss of power."""


class JournalReader(Protocol):
    """The part of a journal that handles read: what a view of one owner has to filter.

    All methods raise `JournalError` or a subclass, `JournalClosed` after `close`.
    """

    async def info(self, thread_id: str) -> ThreadInfo:
        """Returns a thread as lists show it; raises `ThreadNotFound`."""
        ...

    async def threads(self, query: ThreadQuery) -> Page[ThreadInfo]:
        """Returns a page of threads.

        Two threads with the same time are in the order in which they were added. A cursor stays
        valid when threads are changed or deleted: the list continues behind its key. Raises
        `InvalidInput` for a cursor of another list.
        """
        ...

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        """Returns the last event of each thread, of any kind; of all owners, or of one."""
        ...

    async def due(
        self,
        *,
        limit: int,
        after: DuePlace | None = None,
        kind: DueKind | None = None,
        owner: str | None = None,
    ) -> list[Due]:
        """Returns at most `limit` due times, the earliest first, from an index of all threads.

        They come after the place `after`. `kind` and `owner` None mean all. What is
        due changes with the events that change it, in their transaction.
        """
        ...

    async def spending(self, owner: str, *, since: float, until: float) -> Spending:
        """Returns what an owner has spent from `since` to before `until` (Unix seconds).

        Both are multiples of `SLOT`. It is read from an index of the owner, and contains all that
        was appended; what was spent on threads that were deleted, too.
        """
        ...

    async def read(
        self, thread_id: str, *, after: int, until: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """Returns at most `limit` events with `after < seq <= until`, in order.

        Fewer than `limit` events do not mean that these are the last: a page of huge events may be
        cut. An empty list does. Raises `ThreadNotFound`.
        """
        ...

    async def last_seq(self, thread_id: str) -> int:
        """Returns the number of the last event, 0 without events; raises `ThreadNotFound`."""
        ...

    async def stored(self, thread_id: str, *, after: int, limit: int = 500) -> dict[int, bytes]:
        """Returns events as they are stored, by their numbers, even if they cannot be read.

        Raises `ThreadNotFound`.
        """
        ...

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        """Returns the record of a run, or None; raises `ThreadNotFound`."""
        ...

    async def find_run(
        self, run_id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> RunRecord | None:
        """Returns the record of a run, or None: of any thread, of an owner's, or of one thread.

        The message that starts the run may still wait in an inbox. Copies of a thread have its
        runs; the one of the thread that was added first is returned.
        """
        ...

    async def runs(
        self, thread_id: str, *, limit: int = -1, after: str = "", order: Direction = "asc"
    ) -> Page[RunRecord]:
        """Returns a page of the runs of a thread, by their first events; -1 for all.

        Raises `ThreadNotFound`, and `InvalidInput` for a cursor of another list.
        """
        ...

    @property
    def pulse(self) -> Pulse:
        """Beats when something was committed through this journal, or it is closed."""
        ...

    async def changes(self, query: ChangeQuery) -> Changes:
        """Returns events of all threads behind a position, in the order of positions.

        The types are those of `treadle.domain.desk`. Once a position was returned, no event with a
        smaller one becomes visible: a journal whose numbers are not committed in their order holds
        events back until all before them are committed or rolled back. So a reader that continues
        at the position misses nothing, whichever of two writers commits first. Raises
        `InvalidInput` for a position that this journal did not return.
        """
        ...

    async def calls(self, query: CallQuery) -> Page[WaitingCall]:
        """Returns a page of the calls that wait for an answer, those that wait longest first.

        A call to which an answer waits in the inbox is left out. Raises `InvalidInput` for a cursor
        of another list.
        """
        ...


class Journal(JournalReader, Protocol):
    """Keeps threads. Every method except `append` returns when its change is durable.

    All methods raise `JournalError` or a subclass, `JournalClosed` after `close`. A call that
    raises has changed nothing.
    """

    @property
    def files(self) -> FileStore:
        """The contents of the files that threads and owners use."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes can put entries into the inboxes, so that these are polled."""
        ...

    @property
    def has_nodes(self) -> bool:
        """Whether several processes can drive its threads, and what comes into inboxes is told."""
        ...

    async def open(self) -> None:
        """Opens the journal; raises `JournalLocked` if another process drives it."""
        ...

    def limit_waits(self, seconds: float | None) -> None:
        """Limits how long calls still wait for a database that is away, all of them together.

        That is for a journal that is about to be closed. None removes the limit, as `open` does.
        """
        ...

    async def close(self) -> None:
        """Closes the journal after the calls already made; a second call does nothing."""
        ...

    async def is_driven(self) -> bool:
        """Returns whether a process drives the threads of this journal, as far as it can tell."""
        ...

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
        files: Sequence[NewFile] = (),
    ) -> Claim:
        """Adds a thread with its first events, whole or not at all, and claims it.

        `projection` holds the rows for queries that follow from them, `files` are those that they
        mention. Raises `JournalError` if the id exists, and `UnknownFile` if a file that was stored
        is not any more. What `deletions_of` returns is due, unless the projection changes it.
        """
        ...

    async def claim(self, thread_id: str) -> Claim:
        """Takes a thread over: all older claims are refused from now on.

        Raises `ThreadNotFound`.
        """
        ...

    def append(self, batch: Batch) -> "asyncio.Future[None]":
        """Appends a batch, whole or not at all; the future is done when it is durable.

        Batches of one claim are written in the order of the calls, without waiting for the
        futures. The future raises `StaleWriter` if the thread was claimed again through this or
        any other adapter, if it was deleted, or if an earlier append of the same claim failed: a
        batch that follows a lost one would leave a gap.
        """
        ...

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        """Returns the fold of all events, or of the first `at`; raises `ThreadNotFound`."""
        ...

    async def head(self, thread_id: str) -> ThreadState:
        """Returns the fold of all events, at a cost that does not grow with the thread.

        The items of the history that the newest snapshot contains may count as not read: then they
        raise `HistoryUnread`, see `UnreadHistory`. Raises `ThreadNotFound`.
        """
        ...

    def has_reached(self, thread_id: str, seq: int) -> bool:
        """Returns whether the thread has an event `seq`, from memory or by one look into an index.

        It must not wait: an adapter that would have to, or that fails, returns True.
        """
        ...

    async def snapshot(self, claim: Claim, state: ThreadState) -> None:
        """Keeps `state`, the fold of the events so far, so that `load` starts from it.

        Raises `StaleWriter` as `append` does, and `JournalError` if `state` contains an event that
        is not kept.
        """
        ...

    async def snapshot_seq(self, thread_id: str) -> int:
        """Returns the number of the last event in the newest snapshot of a thread, 0 without one.

        Raises `ThreadNotFound`.
        """
        ...

    async def redact(
        self,
        claim: Claim,
        events: Sequence[RecordedEvent],
        *,
        clears_title: bool,
        files: Sequence[str] = (),
    ) -> None:
        """Stores `events` in place of those with their numbers, and drops all snapshots.

        The only change of what is stored; it removes content. With `clears_title`, the next message
        gives the thread its title. Of `files`, the thread no longer uses those that no other event
        and no entry of its inbox contains. Raises `StaleWriter` as `append` does.
        """
        ...

    async def sent(self, thread_id: str, key: str, *, inbox: bool = True) -> Sent | None:
        """Returns what was sent with this key, or None.

        For a message that still waits in the `inbox`, it is the run that its sender was promised.
        """
        ...

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        """Puts an entry into the inbox of a thread, without a claim; raises `ThreadNotFound`.

        Does nothing for a message whose key was used (see `sent`), and for an answer to a call to
        which another answer waits. Check and insertion are one transaction, so of two processes
        that send a key, or answer a call, at the same time, one enqueues.
        """
        ...

    async def open_runs(self, thread_id: str) -> list[RunRecord]:
        """Returns the runs of a thread that have not ended, by their first events.

        Those whose messages wait in the inbox are not among them. Raises `ThreadNotFound`.
        """
        ...

    async def inbox(self, thread_id: str) -> list[Waiting]:
        """Returns the waiting entries, in the order in which they were enqueued.

        Entries that cannot be read are left out, and are reported in the log once.
        """
        ...

    async def damaged_entries(self, thread_id: str) -> dict[int, bytes]:
        """Returns the entries of an inbox that cannot be read, as they are stored.

        One of a type that this version does not know (`is_newer_entry`) waits for a newer one.
        """
        ...

    async def discard(self, numbers: Sequence[int]) -> None:
        """Removes entries of inboxes that have no effect."""
        ...

    async def waiting_threads(self) -> list[str]:
        """Returns the ids of the threads with entries in their inboxes that can be read."""
        ...

    async def unfinished(self) -> list[Unfinished]:
        """Returns the threads with a run that waits or has not ended, or with open jobs."""
        ...

    async def fork(self, fork: Fork) -> None:
        """Adds a thread with a copy of the first events of another, whole or not at all.

        Raises `ThreadNotFound` if the source is missing, `JournalError` if the new id exists.
        """
        ...

    async def delete(self, thread_id: str, *, due: Due | None = None) -> bool:
        """Removes a thread and everything that belongs to it; raises `ThreadNotFound`.

        With `due`, only if that is still due and the inbox is empty, which is part of the
        transaction: no message that came meanwhile is lost. Returns whether it was removed.
        """
        ...
