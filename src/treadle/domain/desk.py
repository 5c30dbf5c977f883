"""The desk: what happens on all threads, as one stream."""

import hashlib
from typing import ClassVar, Literal, cast, get_args

import msgspec
from msgspec import Struct

from treadle.domain.events import (
    DurableEvent,
    JobSettled,
    JobStarted,
    RecordedEvent,
    RunCancelling,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    TerminalEvent,
    ThreadUpdated,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
)


class ThreadCreated(Struct, frozen=True, gc=False, tag="thread.created"):
    """The thread was created, or copied from another one."""

    type: ClassVar[Literal["thread.created"]] = "thread.created"


class ThreadDeleted(Struct, frozen=True, gc=False, tag="thread.deleted"):
    """The thread was deleted."""

    type: ClassVar[Literal["thread.deleted"]] = "thread.deleted"


class DeskEvent(Struct, frozen=True, kw_only=True):
    """An event of a thread, as a subscriber of the runtime gets it.

    `owner` and `parent` (the thread for which the agent of this one works, or "") are those of the
    thread, "" once it was deleted. `position` continues the stream behind this event.
    """

    thread_id: str
    owner: str = ""
    parent: str = ""
    event: RecordedEvent | ThreadCreated | ThreadDeleted
    position: str

    @property
    def type(self) -> str:
        """The type of the event."""
        return self.event.type

    @property
    def json(self) -> bytes:
        """The event with the ids around it, as JSON."""
        return msgspec.json.encode(self)


_CLASSES: tuple[type[DurableEvent], ...] = (
    RunQueued,
    RunStarted,
    RunRequiresAction,
    RunCancelling,
    *get_args(TerminalEvent),
    ToolCallRequested,
    ToolApproved,
    ToolOutputRecorded,
    JobStarted,
    JobSettled,
    ThreadUpdated,
)
DESK_TYPES = frozenset(
    [ThreadCreated.type, ThreadDeleted.type, *(cast("str", one.type) for one in _CLASSES)]
)
"""What a desk is told of; of calls and outputs, those of calls that wait for an answer."""


def owner_mark(owner: str) -> str:
    """Returns what is kept of the owner of a deleted thread: it tells owners apart, and no name."""
    return hashlib.sha256(f"treadle owner {owner}".encode()).hexdigest()[:32]
