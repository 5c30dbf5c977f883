"""The ports of the loop: the thread it works on, and the services that a run is lent."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Protocol, TypeVar

from treadle.domain.blocks import Block, BlockEdit
from treadle.domain.events import LiveEvent, RecordedEvent
from treadle.domain.items import Input, Item
from treadle.domain.passages import By, Filters, Found
from treadle.domain.result import RunResult
from treadle.domain.schedules import MAX_SCHEDULES, Schedule
from treadle.domain.state import ThreadState


class ThreadWriter(Protocol):
    """The one writer of a thread, as the loop sees it: its state, and the ways to add to it."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> ThreadState:
        """The fold of all events recorded so far."""
        ...

    def record(self, event: RecordedEvent) -> None:
        """Numbers `event`, applies it to the state, and shows it to subscribers once it is kept.

        Raises `InvalidTransition` for an event that cannot follow, and `JournalError` when the
        thread cannot be kept any more.
        """
        ...

    async def durable(self) -> None:
        """Waits until every event recorded so far is kept; raises `JournalError`."""
        ...

    def publish(self, event: LiveEvent, /) -> None:
        """Shows `event` to subscribers; never waits for them."""
        ...

    async def event_of(self, item: Item) -> int:
        """Returns the number of the event that added `item`, else of the last with a copy of it.

        0 if the thread is not kept, or no event contains it. Raises `JournalError`.
        """
        ...


Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)


class Worker(Protocol[Out_co]):
    """An agent, as far as a caller must know it to run it."""

    @property
    def name(self) -> str: ...

    def parse(self, text: str) -> Out_co:
        """Returns the output that a text is; raises `ValueError`."""
        ...


class Delegation(Protocol):
    """Runs agents for the run in progress of one thread."""

    async def run(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        key: str,
        call_id: str = "",
        job_id: str = "",
        lends_memory: bool = False,
    ) -> RunResult[Out | None]:
        """Runs `agent` on a thread of its own, and returns its result, complete or not.

        It works for the call `call_id`, for the job `job_id`, or for a hook. `key` names the work
        within the run: asked for again after a crash, it continues where it was.
        Where this thread `lends_memory`, the agent reads and edits the memory blocks of this one.
        What it uses counts for the run, its events are shown under it, and it is cancelled with it.
        Raises `AgentsTooDeep`, `BudgetUsedUp`, and the error of a run that failed.
        """
        ...


class RunSchedules(Protocol):
    """The schedules of the thread of a run, for the agent that works on it."""

    async def add(
        self,
        message: str,
        *,
        at: datetime | None = None,
        after: float | timedelta | None = None,
        cron: str | None = None,
        tz: str | tzinfo = "UTC",
        key: str = "",
        limit: int = MAX_SCHEDULES,
    ) -> Schedule:
        """Sends `message` to the thread later, once or again and again; see `Thread.schedule`.

        `limit` is how many schedules of the model the thread may have then. Returns once the
        schedule cannot be lost; the same `key` adds it once. Raises `InvalidInput`, `Conflict`,
        `TooManySchedules`, and `ConfigurationError` on a thread that is not kept.
        """
        ...

    def all(self) -> Sequence[Schedule]:
        """Returns the schedules of the thread, the one that is due first first."""
        ...

    async def cancel(self, schedule_id: str) -> bool:
        """Cancels a schedule that the model made; returns whether there was one."""
        ...


class RunArchive(Protocol):
    """The archive of the owner of a run, for the agent that works on it."""

    async def insert(self, text: str, *, tags: Sequence[str] = (), key: str = "") -> str:
        """Notes a text on the thread of the run; returns its id once it cannot be lost.

        The same `key` notes it once. Raises `InvalidInput`, `EmbeddingFailed`, `EmbeddingInvalid`
        and `JournalError`, and then notes nothing.
        """
        ...

    async def search(
        self, text: str, *, by: By = "both", filters: Filters, limit: int = 10, offset: int = 0
    ) -> Sequence[Found]:
        """Returns the passages that fit `text` best; see `treadle.Archive.search`."""
        ...

    def left_window(self) -> Collection[str]:
        """Returns the ids of the thread's messages that its model no longer reads."""
        ...


class RunMemory(Protocol):
    """The memory of the agent that works on a run: the blocks of its thread, and shared ones."""

    async def blocks(self) -> Sequence[Block]:
        """Returns the blocks that the agent reads, as they are now and in a stable order."""
        ...

    async def edit(self, edit: BlockEdit, *, key: str, as_read: bool = False) -> Block | None:
        """Changes a block for the model; returns it as it is then, or None if it was deleted.

        Returns once the change cannot be lost; the same `key` changes it once. With `as_read` the
        block must hold what the agent read last, by `blocks` or before its step. Raises the kinds
        of `MemoryFailed`, and then changes nothing.
        """
        ...

    @property
    def archive(self) -> RunArchive:
        """The archive; raises `ConfigurationError` where there is none."""
        ...


Kept = TypeVar("Kept", bound=Item)


class RunFiles(Protocol):
    """The contents of the files in the items of a thread."""

    async def keep(self, item: Kept) -> Kept:
        """Returns an item whose large contents are stored apart; never fails."""
        ...

    async def load(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns items with the contents of their files; one that is not kept stays an id.

        Raises `JournalError`.
        """
        ...


class LoopMemory(RunMemory, Protocol):
    """The memory of a run as the loop holds it."""

    async def prepare(self, declared: Sequence[Block]) -> None:
        """Creates missing blocks of the agent that works on the run from now on.

        Raises `JournalError`.
        """
        ...
