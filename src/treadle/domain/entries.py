"""Inputs: what anyone may say to a thread, from the process that drives it or from another.

An input that waits for its driver is kept in the thread's inbox; the driver turns it into events.
"""

import re
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from treadle.domain.blocks import BlockEdit
from treadle.domain.events import MemoryAuthor
from treadle.domain.items import Item, Message, OutputPart
from treadle.domain.options import RunOptions
from treadle.domain.passages import NewPassage
from treadle.domain.schedules import Schedule

OnBusy = Literal["queue", "steer", "reject", "cancel"]
"""What becomes of a message while a run is active.

`queue`: its run waits its turn. `steer`: it enters the active run at the next safe point, and
calls that did not start yet are skipped. `reject`: `RunInProgress` is raised. `cancel`: the active
run is cancelled, and the message's run is the next.
"""


class _Entry(Struct, frozen=True, kw_only=True):
    """What every entry has: `by`, the principal it comes from, "" for the program itself."""

    by: str = ""


class SendEntry(_Entry, frozen=True, omit_defaults=True, tag="send"):
    """A message, and the id of the run it starts; `key` is the sender's idempotency key.

    Without a message (None), the run answers what the history ends with; then no other run may be
    active or wait, and `expect` is set. `before` are messages that enter the history right before
    it, and `so_far` items right after it, with which the answer begins. With `expect`, the
    conversation must not have gone on after event `expect`: otherwise the message is refused. With
    `fork`, it goes to the copy of the thread with that id instead, also if the thread is busy.

    `options` are those of the run, None without any. `schedule_id` is the schedule that sends it,
    if one does.
    """

    run_id: str
    item: Message | None
    on_busy: OnBusy = "queue"
    agent: str = ""
    key: str = ""
    options: RunOptions | None = None
    before: tuple[Message, ...] = ()
    so_far: tuple[Item, ...] = ()
    expect: int | None = None
    fork: str = ""
    schedule_id: str = ""


class AddEntry(_Entry, frozen=True, tag="add"):
    """Items for the history of a thread that has nothing to do; they start no run.

    `key` is the sender's idempotency key, `digest` identifies the items; `expect` as in
    `SendEntry`.
    """

    items: tuple[Item, ...]
    key: str = ""
    digest: str = ""
    expect: int | None = None


class OutputEntry(_Entry, frozen=True, tag="output"):
    """The output of an external call."""

    call_id: str
    output: str | tuple[OutputPart, ...]
    is_error: bool = False


class ApprovalEntry(_Entry, frozen=True, tag="approve"):
    """The permission to run a call; with other `arguments`, as JSON, than the model wrote."""

    call_id: str
    arguments: str = ""


class DenialEntry(_Entry, frozen=True, tag="deny"):
    """The refusal to run a call; the model reads the reason."""

    call_id: str
    reason: str = ""


class CancelEntry(_Entry, frozen=True, tag="cancel"):
    """The wish that a run ends now."""

    run_id: str


class FinishEntry(_Entry, frozen=True, tag="finish"):
    """The wish that a run ends after its step."""

    run_id: str


class CancelJobEntry(_Entry, frozen=True, tag="cancel_job"):
    """The wish that a job, and all that it started, end now."""

    job_id: str


class PinEntry(_Entry, frozen=True, tag="pin"):
    """A request to keep a message in the model's window, whatever is compacted; or no longer."""

    message_id: str
    pinned: bool = True


class EditEntry(_Entry, frozen=True, tag="edit"):
    """The wish to change a memory block of the thread.

    The same `key` changes it once. `thread_id` is the thread whose run wants it, if it is another.
    `read` is the text that the block must have, None means any.
    """

    edit: BlockEdit
    author: MemoryAuthor = "user"
    key: str = ""
    thread_id: str = ""
    read: str | None = None


class UndoEntry(_Entry, frozen=True, tag="undo"):
    """The wish to take back the change of a memory block that has the number `seq`."""

    label: str
    seq: int


class InsertEntry(_Entry, frozen=True, tag="insert_passages"):
    """The wish to put texts into the archive; one whose id is there already stays as it is."""

    passages: tuple[NewPassage, ...]
    author: MemoryAuthor = "user"


class RemoveEntry(_Entry, frozen=True, tag="remove_passage"):
    """The wish to take a text out of the archive."""

    passage_id: str


class RemoveEventEntry(_Entry, frozen=True, tag="remove_event"):
    """The wish to remove the item that event `seq` added to the history, with its content.

    `item` chooses one of several, if that event replaced the history.
    """

    seq: int
    item: Item | None = None


class UpdateEntry(_Entry, frozen=True, tag="update"):
    """The wish to change the title, the metadata or the expiry; see `ThreadUpdated`."""

    title: str | None = None
    metadata: dict[str, object] | None = None
    expires_at: float | Literal["never"] | None = None


class ScheduleEntry(_Entry, frozen=True, tag="schedule"):
    """The wish to send a message later; the same `schedule.id` again changes nothing.

    `run_id` is the run that asks for it, if one does.
    """

    schedule: Schedule
    run_id: str = ""


class CancelScheduleEntry(_Entry, frozen=True, tag="cancel_schedule"):
    """The wish that a schedule starts no further run."""

    schedule_id: str
    run_id: str = ""


MemoryEntry = EditEntry | UndoEntry | InsertEntry | RemoveEntry
KeyedEntry = SendEntry | AddEntry
AnswerEntry = OutputEntry | ApprovalEntry | DenialEntry
Entry = (
    SendEntry
    | AddEntry
    | OutputEntry
    | ApprovalEntry
    | DenialEntry
    | CancelEntry
    | FinishEntry
    | CancelJobEntry
    | PinEntry
    | EditEntry
    | UndoEntry
    | InsertEntry
    | RemoveEntry
    | RemoveEventEntry
    | UpdateEntry
    | ScheduleEntry
    | CancelScheduleEntry
)

ENTRY_TYPES = frozenset(str(one.__struct_config__.tag) for one in get_args(Entry))
"""The types of the entries that this version knows."""

_WORD = re.compile(r"[a-z][a-z0-9_]*")


class _Head(Struct):
    type: str


_HEAD = msgspec.json.Decoder(_Head)


def is_newer_entry(data: bytes) -> bool:
    """Whether an entry that cannot be read is of a type that only a newer version knows."""
    try:
        type = _HEAD.decode(data).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return type not in ENTRY_TYPES and _WORD.fullmatch(type) is not None
