"""The lines of the logs: what each party did or saw, as it says so itself."""

from typing import Literal

from msgspec import Struct

from treadle.domain.entries import OnBusy

Party = Literal["inside", "outside"]
"""Who speaks: a client in the process that is killed, or one that outlives it."""

Answer = Literal["output", "approve", "deny"]


Continuation = Literal["expect", "add", "several", "after", "schedule"]
"""A way to continue a thread: see `chaos.continuing`."""


class ThreadMade(Struct, frozen=True):
    """`create_thread` returned, for the first time for this key of the owner."""

    thread_id: str
    owner: str
    key: str


class Intent(Struct, frozen=True):
    """A message is about to be sent; its text is its key."""

    thread_id: str
    key: str
    on_busy: OnBusy
    party: Party


class Acknowledged(Struct, frozen=True):
    """`send` returned, with this run."""

    thread_id: str
    key: str
    run_id: str


class AnswerAcknowledged(Struct, frozen=True):
    """The answer to a call was taken."""

    thread_id: str
    call_id: str
    answer: Answer
    party: Party


class CancelIntent(Struct, frozen=True):
    """A run is about to be cancelled."""

    thread_id: str
    run_id: str


class CancelAcknowledged(Struct, frozen=True):
    """`cancel` returned, at this time."""

    thread_id: str
    run_id: str
    at: float
    party: Party


class ContinueIntent(Struct, frozen=True):
    """A thread is about to be continued after event `seq`; the key is the text of the message."""

    thread_id: str
    key: str
    kind: Continuation
    seq: int
    party: Party


class Continued(Struct, frozen=True):
    """It was accepted, for this thread, with this run or schedule."""

    key: str
    thread_id: str
    run_id: str


class Refused(Struct, frozen=True):
    """It was refused."""

    key: str


class ScheduleCancelIntent(Struct, frozen=True):
    """A schedule is about to be cancelled."""

    schedule_id: str


class Peeked(Struct, frozen=True):
    """Another owner has looked for this thread in several ways, and has found it in these."""

    thread_id: str
    seen: list[str]


class Doomed(Struct, frozen=True):
    """A thread of an owner of its own is about to be made and deleted, or the `whole` owner is."""

    name: str
    owner: str
    whole: bool


class Deleted(Struct, frozen=True):
    """The deletion returned; `thread_id` is "" if the thread was not there any more."""

    name: str
    thread_id: str


class EditIntent(Struct, frozen=True):
    """A person is about to add a line to a block; it is the key of the edit."""

    memory_id: str
    label: str
    key: str
    party: Party


class EditAcknowledged(Struct, frozen=True):
    """An edit of a person returned."""

    memory_id: str
    label: str
    key: str


class UndoIntent(Struct, frozen=True):
    """A person is about to undo a change of a block."""

    memory_id: str
    label: str
    seq: int


class UndoAcknowledged(Struct, frozen=True):
    """The undo returned."""

    memory_id: str
    label: str
    seq: int


class DeleteAcknowledged(Struct, frozen=True):
    """The deletion of a block returned."""

    memory_id: str
    label: str
    party: Party


class Remembered(Struct, frozen=True):
    """The edit of a call returned, with a block of this text; its line is the id of the call."""

    thread_id: str
    call_id: str
    label: str
    digest: str


class BoardRead(Struct, frozen=True):
    """A call read this text of the shared block."""

    thread_id: str
    digest: str


class Ran(Struct, frozen=True):
    """A tool did what it does."""

    call_id: str
    tool: str
    idempotency_key: str


class JobSubmitted(Struct, frozen=True):
    """The submission of a job was acknowledged; each has a name of its own."""

    name: str


class JobBegan(Struct, frozen=True):
    """The body of a job began, at this time."""

    job_id: str
    name: str
    attempt: int
    restartable: bool
    at: float


class JobDone(Struct, frozen=True):
    """The body of a job has done all it does, at this time."""

    job_id: str
    attempt: int
    at: float


class JobCancelled(Struct, frozen=True):
    """A job is about to be cancelled."""

    thread_id: str
    job_id: str


class Seen(Struct, frozen=True):
    """A subscriber got a durable event."""

    watcher: str
    thread_id: str
    seq: int
    body: str


class TextSeen(Struct, frozen=True):
    """An item of the model is finished, whose deltas a subscriber had got.

    `unbroken`: the subscriber stayed from the start of the step to the end of the item, so that
    nothing may be missing, even if the driving process was killed.
    """

    watcher: str
    thread_id: str
    item_id: str
    seen: str
    final: str
    unbroken: bool


class PointReached(Struct, frozen=True):
    """The process is about to kill itself at a named commit point."""

    name: str


Record = (
    ThreadMade
    | Intent
    | Acknowledged
    | AnswerAcknowledged
    | CancelIntent
    | CancelAcknowledged
    | ContinueIntent
    | Continued
    | Refused
    | ScheduleCancelIntent
    | Peeked
    | Doomed
    | Deleted
    | EditIntent
    | EditAcknowledged
    | UndoIntent
    | UndoAcknowledged
    | DeleteAcknowledged
    | Remembered
    | BoardRead
    | Ran
    | JobSubmitted
    | JobBegan
    | JobDone
    | JobCancelled
    | Seen
    | TextSeen
    | PointReached
)
